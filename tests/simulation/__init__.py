"""The simulator of consensus: N nodes with the production pump, engine and journal in one process, no threads, no sleeping, a virtual clock.

Read `world.py` first (time, and what happens in it), then `node.py` (one node: the turn, its crashes and its sleep), `network.py` and `disks.py`
(what may go wrong with messages and writes), `clients.py` and `machine.py` (who asks for what, and what it means), `checks.py` and
`linearizable.py` (what must be true after every event, and of the whole) and `history.py` (a random life from one seed). A failure prints the
command that replays it: `python -m tests.simulation --seed 17`. `mutations.py` asks whether any of this would notice a fault.
"""
