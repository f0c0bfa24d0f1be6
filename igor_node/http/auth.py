"""Who asks: bearer tokens, what they look like, and what the server knows of whoever sent one.

A token is `igor1.<CA fingerprint>.<id>.<secret>` (`none` in a cluster without TLS): whoever holds one can pin the cluster's CA. The ledger keeps the
SHA-256 of the secret: secrets have 256 bits of chance, a slow hash would only cost. What a token may is permissions.py, sessions of the page are
sessions.py, from where a request may come is origins.py, and who looks tokens up is identity.py.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

import msgspec

from igor_node.words import Role, Unauthenticated

TOKEN = re.compile(r"igor1\.([0-9a-z]{1,64})\.([0-9A-Za-z_-]{1,64})\.([0-9A-Za-z_-]{1,128})", re.ASCII)
NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
"""The hash of a secret that nobody has: what a token that is not known is compared with."""


class Caller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whoever sent the request. `node` is set for the token of a node, `projects` where the token is good for these alone, `login` where a person
    logged in by a provider of identities."""

    token: str
    role: Role
    name: str = ""
    projects: tuple[str, ...] = ()
    node: str | None = None
    expires_at: str | None = None
    login: bool = False

    @property
    def actor(self) -> str:
        """How the ledger names them."""
        return f"{self.name} ({self.token})" if self.name else self.token

    @property
    def anyone(self) -> bool:
        return self is ANYONE

    def sees(self, project: str | None) -> bool:
        """Whether a thing of this project is one of theirs."""
        return not self.projects or project in self.projects


ANYONE = Caller(token="", role=Role.ADMIN, name="anyone")
"""With `--auth off`, on loopback alone."""


@dataclass(frozen=True)
class GivenToken:
    id: str
    hash: str


def parse_token(text: str) -> GivenToken:
    match = TOKEN.fullmatch(text)
    if match is None:
        raise Unauthenticated("the token is not one of Igor's", hint="a token looks like igor1.<fingerprint>.<id>.<secret>")
    return GivenToken(match[2], hash_secret(match[3]))


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def compose_token(identifier: str, secret: str, fingerprint: str = "none") -> str:
    return f"igor1.{fingerprint}.{identifier}.{secret}"


def derive_secret(key: bytes, purpose: str) -> str:
    """A secret that a retried request gets again, though nothing is stored of it but its hash: HMAC of the cluster's key over what it is for."""
    return hmac.new(key, f"igor secret\0{purpose}".encode(), hashlib.sha256).hexdigest()


def same(left: str, right: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(left.encode(), right.encode())
