"""Folders of nodes of a cluster with TLS, for tests: a CA, and what a node's data directory holds of it."""

from __future__ import annotations

import time
from pathlib import Path

from igor_node.trust import certificates, contexts

NOW_S = int(time.time())


def make_node(folder: Path, authority: certificates.Authority, node: str, *, now_s: int = NOW_S, trusted: str | None = None) -> Path:
    """`trusted`: the CAs in its ca.crt, if they are others than its own."""
    folder.mkdir(parents=True, exist_ok=True)
    key = certificates.new_key()
    request = certificates.ask(key, node, certificates.names_of("127.0.0.1", "127.0.0.1", "machine"))
    made = certificates.certify(authority, request, node=node, cluster="c1", now_s=now_s)
    (folder / contexts.KEY).write_text(key)
    (folder / contexts.CERTIFICATE).write_text(certificates.chain(made, [authority.certificates]))
    (folder / contexts.AUTHORITIES).write_text(trusted or certificates.split_pem(authority.certificates)[0])
    return folder
