"""Who belongs to the cluster, and how that is shown: certificates, TLS contexts, the pin in a token, and the cluster's keys.

`certificates.py` makes and reads certificates and never touches a socket or a clock; `contexts.py` turns the files of a data directory into TLS
contexts; `pins.py` finds the CA that a token names, with the standard library alone, because the command line does it too; `keys.py` is the ring of
cluster keys. Nothing here knows the ledger: what a node trusts stands in its data directory, and `igor_node.node` keeps that fresh.
"""
