"""Who asks, and whether they may: bearer tokens, sessions of the page, `Host` and `Origin`.

A token is `igor1.<CA fingerprint>.<id>.<secret>` (`none` on plain loopback). The ledger keeps the SHA-256 of the secret: secrets have 256 bits of
chance, a slow hash would only cost. A session is a signed cookie, `s1.<token id>.<expires>.<HMAC>`, made from a link that works once; every node of
the cluster can check it by the cluster's key without remembering it, and it ends with its token. `Host` must be a name of ours, so that no web page
can reach a node by DNS rebinding; `Origin`, where a browser sends one, must be this node or another of its cluster.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from igor_node.http.limits import LINK_S, LINKS, SESSION_S
from igor_node.words import SECOND, Denied, Role, TooMany, Unauthenticated, WrongHost

TOKEN = re.compile(r"igor1\.([0-9a-z]{1,64})\.([0-9A-Za-z_-]{1,64})\.([0-9A-Za-z_-]{1,128})")
COOKIE = "igor_session"
SESSION = re.compile(r"s1\.([0-9A-Za-z_-]{1,64})\.(\d{1,12})\.([0-9a-f]{64})")
RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.DEPLOYER: 3, Role.ADMIN: 4}


class Caller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whoever sent the request. `node` is set for the token of a node, `project` where the token is good for one project only."""

    token: str
    role: Role
    name: str = ""
    project: str | None = None
    node: str | None = None
    expires_at: str | None = None

    @property
    def actor(self) -> str:
        """How the ledger names them."""
        return f"{self.name} ({self.token})" if self.name else self.token


ANYONE = Caller(token="", role=Role.ADMIN, name="anyone")
"""With `--auth off`, on loopback alone."""


@dataclass(frozen=True)
class GivenToken:
    id: str
    hash: str


def parse_token(text: str) -> GivenToken:
    match = TOKEN.fullmatch(text)
    if match is None:
        raise Unauthenticated("the token is not one of Igor's", hint="a token looks like igor1.none.<id>.<secret>")
    return GivenToken(match[2], hash_secret(match[3]))


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def compose_token(identifier: str, secret: str) -> str:
    return f"igor1.none.{identifier}.{secret}"


def make_token(identifier: str) -> tuple[str, str]:
    """A new token and the hash that the ledger keeps of it: for the first ones, which no API can make."""
    secret = secrets.token_hex(32)
    return compose_token(identifier, secret), hash_secret(secret)


def derive_secret(key: bytes, purpose: str) -> str:
    """A secret that a retried request gets again, though nothing is stored of it but its hash: HMAC of the cluster's key over what it is for."""
    return hmac.new(key, f"igor secret\0{purpose}".encode(), hashlib.sha256).hexdigest()


def same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


def may(caller: Caller, role: Role, *, nodes: bool) -> bool:
    """Roles of people include the smaller ones; `node` stands beside them and gets what a route gives to nodes."""
    if caller.role is Role.NODE:
        return nodes or role is Role.NODE
    if role is Role.NODE:
        return caller.role is Role.ADMIN
    return RANK[caller.role] >= RANK[role]


def check_role(caller: Caller, role: Role, *, nodes: bool) -> None:
    if not may(caller, role, nodes=nodes):
        raise Denied(f"this needs a token of role {role}; yours has role {caller.role}", hint="igor token create --role … makes others")


def check_project(caller: Caller, project: str) -> None:
    if caller.project is not None and caller.project != project:
        raise Denied(f"your token is good for project {caller.project}, not for {project}")


# --- sessions of the page


def make_session(key: bytes, token: str, now: int) -> str:
    expires = now // SECOND + SESSION_S
    return f"s1.{token}.{expires}.{_sign(key, token, expires)}"


def read_session(key: bytes, text: str, now: int) -> str:
    """The id of the session's token. Raises Unauthenticated."""
    match = SESSION.fullmatch(text)
    if match is None or not same(match[3], _sign(key, match[1], int(match[2]))):
        raise Unauthenticated("the session is not valid", hint="igor ui opens the page anew")
    if now // SECOND >= int(match[2]):
        raise Unauthenticated("the session has ended", hint="igor ui opens the page anew")
    return match[1]


def _sign(key: bytes, token: str, expires: int) -> str:
    return hmac.new(key, f"igor session\0{token}\0{expires}".encode(), hashlib.sha256).hexdigest()


class Links:
    """Codes that log in once, on this node, within `LINK_S`. In memory: a restart ends them."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, int]] = {}

    def make(self, token: str, now: int) -> str:
        self._tokens = {code: kept for code, kept in self._tokens.items() if kept[1] > now}
        if len(self._tokens) >= LINKS:
            raise TooMany("too many login links are waiting to be used", hint=f"they end after {LINK_S} s", retry_after_s=LINK_S)
        code = secrets.token_urlsafe(24)
        self._tokens[hash_secret(code)] = (token, now + LINK_S * SECOND)
        return code

    def use(self, code: str, now: int) -> str:
        """The id of the token that made the link. Raises Unauthenticated."""
        token, expires = self._tokens.pop(hash_secret(code), ("", 0))
        if expires <= now:
            raise Unauthenticated("the link was used before, or is older than 5 minutes", hint="igor ui makes a new one")
        return token


# --- where a request may come from


def check_host(host: str | None, ours: frozenset[str]) -> None:
    """`host` is the Host header. Its port may differ (a forwarded port); its name may not."""
    name = _host_name(host or "")
    if not name or not (name in ours or name == "localhost" or _is_loopback(name)):
        raise WrongHost(f'"{host or ""}" is not a name of this node', hint="ask it by its address")


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


@lru_cache(maxsize=1_000)
def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_origin(origin: str | None, host: str | None, known: Iterable[str]) -> bool:
    """Whether `origin` is another node of ours, whose page may read our answers. Raises Denied for a stranger's page."""
    if origin is None or origin == f"http://{host}":
        return False
    if origin in known:
        return True
    raise Denied(f"a page of {origin} may not use this node", hint="open the page that the node serves itself")
