"""The CA that a token names: `igor1.<fingerprint>.…` is enough to know the cluster, so no file need be copied.

The first connection sends nothing, least of all the token. It only looks at the certificates that the other side shows; the one whose SHA-256 is the
token's fingerprint becomes the only root, and all that follows is on new connections that are verified against it. Somebody in between can show
that certificate too, but not a connection that verifies. Standard library only: `igor` does this, and pays for `ssl` only when it meets TLS.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from typing import Any

PLAIN = "none"
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_PEM_ENCODING_DER = 2  # `_ssl.ENCODING_DER`


class NotThisCluster(Exception):
    """Who answers does not hold the CA that the token names, or does not speak TLS; the text is for a person."""


def fingerprint_in(token: str | None) -> str | None:
    """None: no token of Igor's, or one of a plain cluster."""
    parts = (token or "").split(".")
    found = parts[1] if len(parts) == 4 and parts[0] == "igor1" else PLAIN
    return found if FINGERPRINT.fullmatch(found) else None


def fetch_authority(host: str, port: int, fingerprint: str, timeout_s: float) -> str:
    """The CA of that fingerprint, PEM, from whoever listens there. Raises NotThisCluster, or OSError where there is no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent on this connection, and nothing that it says is believed but a certificate with that digest
    with socket.create_connection((host, port), timeout=timeout_s) as plain:
        try:
            with context.wrap_socket(plain) as sock:
                shown = _shown(sock)
        except ssl.SSLError as problem:
            raise NotThisCluster(f"it does not speak TLS as a node does ({problem.reason or problem})") from None
    for certificate in shown:
        if hashlib.sha256(certificate).hexdigest() == fingerprint:
            return ssl.DER_cert_to_PEM_cert(certificate)
    raise NotThisCluster(f"it belongs to another cluster than the token: none of its certificates has the fingerprint {fingerprint[:16]}…")


def asking_context(authorities: str) -> ssl.SSLContext:
    """For who has no certificate (yet): a joiner, a client. Any node of the cluster is as good as another, so the host's name is not compared."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=authorities)
    return context


def _shown(sock: ssl.SSLSocket) -> list[bytes]:
    """What the other side sent, not verified, as DER. Public from Python 3.13 on."""
    if hasattr(sock, "get_unverified_chain"):
        return [bytes(certificate) for certificate in sock.get_unverified_chain()]
    inner: Any = sock._sslobj  # type: ignore[attr-defined]
    return [certificate.public_bytes(_PEM_ENCODING_DER) for certificate in inner.get_unverified_chain() or ()]
