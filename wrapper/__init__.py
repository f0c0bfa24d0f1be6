"""The process that runs one attempt of a stage. Standard library only; imports nothing of igor_node or raft.

A node's pre-loaded process (`zygote.py`) forks one wrapper an attempt (`run.py`). The wrapper outlives the node: it waits for the due time, starts
the command, retries, ends it at a time-out or when its lease is out, captures the output, and leaves everything it knows in the attempt's
folder, where a node that starts later finds it. Read `protocol.py` first: it owns every format that crosses the border to `igor_node/agent`. Then
`run.py`, the life of an attempt, and `one_try.py`, the life of a try.
"""
