"""What node.py asks; every other question to the ledger stands in the query_*.py of its subject."""

from igor_node.ledger.query_cluster import cluster, nodes

__all__ = ["cluster", "nodes"]
