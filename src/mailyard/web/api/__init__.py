"""The HTTP/JSON API: one table of routes, from which the server, the documentation and the tests
are made."""
