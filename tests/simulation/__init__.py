"""The simulator of consensus: N engines with the production journal in one process, no threads, no sleeping, no clock but a virtual one.

Read `world.py` first (time, and what happens in it), then `node.py` (one node: the turn of `raft/pump.py`, and its crashes), `network.py` and
`disks.py` (what may go wrong with messages and writes), `checks.py` (what must be true after every event) and `history.py` (a random life of
sixty virtual seconds from one seed). A failure prints the command that replays it: `python -m tests.simulation --seed 17`.
"""
