"""Pages of the server: HTML frames, plain JavaScript that asks the API, one stream for each page.

frame.py renders the templates, files.py has the scripts and styles, login.py the login, routes.py
the pages. How a page is added is told on top of templates/base.html. No page needs what the API
does not have. vendored/ has files of others, which vendored.json lists.
"""
