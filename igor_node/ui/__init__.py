"""The web page: shell template, static files. It uses /v1 alone."""
