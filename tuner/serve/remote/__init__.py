"""A server from afar: what commands with --server and Python use. Main names: `Client`."""
