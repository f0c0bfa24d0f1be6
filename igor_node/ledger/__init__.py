"""The replicated state machine on SQLite: schema, one apply function a command, queries on read-only connections.

Read commands.py first (what may happen), then schema.py (what is kept), then apply.py (how one becomes the other; what each command does stands in
the apply_*.py that its table names). ledger.py is what consensus drives, files.py its place on disk. Readers come in by reads.py with the functions
of query_*.py and waiting.py, and are woken by changes.py.
"""
