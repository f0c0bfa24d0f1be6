"""The aiohttp application: /v1 API, streams, auth, health, and the one port they share with Raft.

Read in this order: services.py (what this package needs of the rest of the node), routes.py (the table of all routes: method, path, role, shapes),
dispatch.py (what happens to every request: host, token, role, where it is answered, decode, call, encode), then the handlers in api/, each three
lines long. listener.py owns the port, forward.py sends to another node what this one cannot answer, problems.py is the one table of errors.
"""
