"""Certificates for the links of tests, made by trustme: nothing of Igor's own says here what is good."""

from __future__ import annotations

import datetime
import ssl

import trustme

from raft.tls import NotAdmitted


def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


class Certified:
    """The `raft.tls.Tls` of one node. `gone`: nodes that were taken out, as this one knows."""

    def __init__(self, own: trustme.CA, name: str, *, trusts: trustme.CA | None = None, days: int = 30) -> None:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        self.certificate = own.issue_cert(f"{name}.example", common_name=name, not_after=end, not_before=end - datetime.timedelta(days=60))
        self.gone: set[str] = set()
        self._trusts = trusts or own
        self.with_certificate = True

    def accepting(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def dialling(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def admit(self, sock: ssl.SSLSocket) -> str:
        subject = (sock.getpeercert() or {})["subject"]
        name = next(value for part in subject for key, value in part if key == "commonName")
        if name in self.gone:
            raise NotAdmitted(f"node {name} is no member of this cluster any more")
        return name

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        self._trusts.configure_trust(context)
        if self.with_certificate:
            self.certificate.configure_cert(context)
        return context
