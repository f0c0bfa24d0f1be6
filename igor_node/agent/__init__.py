"""What every node does for runs: receive assignments, start and re-attach wrappers, report what they record, read their logs.

Read `agent.py` first: it holds the table of attempts and says what happens to one. `link.py` talks to the leader, `pulse.py` keeps leases and the
leader's clock, `folders.py` and `launch.py` stand before the disk and the pre-loaded process, `environment.py` says what a command sees, `logs.py`
reads its output. The formats are `wrapper/protocol.py`'s; `leader` and `http` are unknown here.
"""
