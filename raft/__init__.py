"""Consensus: PySyncObj as a core behind a small interface; gate, journal, wire, snapshots, membership.

docs/reading-raft.md leads through all of it along one command's life. In short: `interface.py` (what others see), `engine.py` (the core: messages in,
messages out), `gate.py` (what stands in front of PySyncObj and why), `pump.py` (the tick: commit, apply, propose, sync the journal, then send) and
`replica.py` (the thread and its asyncio side). Imports nothing of igor_node or wrapper. No re-exports: importing this package costs nothing.
"""
