"""The TLS contexts of a node, made from the files of its data directory; TLS 1.3 and nothing older.

    node.crt   its certificate, and the CA's behind it: what it sends
    node.key   the key of that, mode 0600
    ca.crt     the CAs that it trusts, newest first; browsers and curl can be given this file

`Trust` holds the contexts that are in force. Whoever opens or accepts a connection asks it for one each time, so a new certificate or another CA
counts from the next connection on, without a restart. It also knows which nodes are members: a certificate of the cluster's CA is not enough, its
node must not have been taken out. Tickets are off: with a session that goes on nothing would be verified anew.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft.tls import NotAdmitted

CERTIFICATE, KEY, AUTHORITIES = "node.crt", "node.key", "ca.crt"


@dataclass(frozen=True)
class Contexts:
    serving: ssl.SSLContext  # HTTP: people have no certificate, nodes have one
    asking: ssl.SSLContext  # HTTP of other nodes
    accepting: ssl.SSLContext  # Raft: both sides have one
    dialling: ssl.SSLContext


class NotAMember(ssl.SSLCertVerificationError):
    """The other side's certificate is good, and its node is no member (any more)."""


class Trust:
    """Any thread may ask. `permitted`: whether a node is a member, as far as this node knows."""

    def __init__(self, folder: Path, permitted: Callable[[str], bool] = lambda node: True) -> None:
        self._folder = folder
        self._permitted = permitted
        self._contexts = self._make()

    def renew(self) -> None:
        """The files are others now."""
        self._contexts = self._make()

    def admit(self, sock: ssl.SSLSocket) -> str:
        """The node at the other end of a link of consensus, by its certificate. Raises NotAdmitted."""
        node = node_of(sock.getpeercert())
        if not node or not self._permitted(node):
            raise NotAdmitted(f"node {node or 'nobody'} is no member of this cluster any more")
        return node

    def permitted(self, node: str) -> bool:
        return self._permitted(node)

    def serving(self) -> ssl.SSLContext:
        return self._contexts.serving

    def asking(self) -> ssl.SSLContext:
        return self._contexts.asking

    def accepting(self) -> ssl.SSLContext:
        return self._contexts.accepting

    def dialling(self) -> ssl.SSLContext:
        return self._contexts.dialling

    def _make(self) -> Contexts:
        own = (self._folder / CERTIFICATE, self._folder / KEY)
        authorities = (self._folder / AUTHORITIES).read_text(encoding="ascii")
        serving = _context(ssl.PROTOCOL_TLS_SERVER, authorities, own)
        serving.verify_mode = ssl.CERT_OPTIONAL
        serving.set_alpn_protocols(["http/1.1"])
        accepting = _context(ssl.PROTOCOL_TLS_SERVER, authorities, own)
        accepting.verify_mode = ssl.CERT_REQUIRED
        asking = _context(ssl.PROTOCOL_TLS_CLIENT, authorities, own)
        asking.sslobject_class = self._checked_class()
        return Contexts(serving, asking, accepting, _context(ssl.PROTOCOL_TLS_CLIENT, authorities, own))

    def _checked_class(self) -> Any:
        permitted = self.permitted

        class Checked(ssl.SSLObject):
            """Whoever answers must be a node that is still a member."""

            def do_handshake(self) -> None:
                super().do_handshake()
                node = node_of(self.getpeercert())
                if not node or not permitted(node):
                    raise NotAMember(f"the certificate is that of {node or 'nobody'}, which is no member of this cluster")

        return Checked


def _context(protocol: int, authorities: str, own: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nodes are known by the CA and by the id in their certificate, not by where they are: addresses change.
    context.check_hostname = False
    context.load_verify_locations(cadata=authorities)
    context.load_cert_chain(*own)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def node_of(certificate: Any) -> str:
    """The id of the node in what `getpeercert()` gave; empty where there is none."""
    subject = (certificate or {}).get("subject", ())
    return next((value for part in subject for name, value in part if name == "commonName"), "")
