"""The loops that only a leader runs: fires, placement, nodes and their leases, membership, retention. Decisions are in rules/, records in ledger/.

Read leader.py (what runs), reign.py (what all loops share), fires.py (the simplest of them), then leases.py: why two attempts never run at once.
Memory here lasts one term and only suggests; a new leader begins from the ledger.
"""
