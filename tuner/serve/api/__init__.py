"""The API of the server: routes, their requests and answers, streams, downloads."""
