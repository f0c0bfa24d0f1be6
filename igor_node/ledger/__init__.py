"""The replicated state machine on SQLite: schema, one apply function a command, queries on read-only connections.

Read commands.py first (what may happen), then schema.py (what is kept), then apply.py (how one becomes the other).
"""
