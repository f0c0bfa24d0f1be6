"""Sessions of the page: a link that works once, and a signed cookie.

A session is `s2.<token id>.<session id>.<expires>.<HMAC>`: every node that holds the cluster's key can check it without remembering it. It ends by
itself, with its token, and when somebody logs out (the ledger keeps the ids of sessions that ended early). Its cookie is named after the cluster:
cookies know no port, so two clusters on one host must not use one name, while the nodes of one cluster share it. HttpOnly, SameSite=Strict, and
under TLS `__Host-` and Secure.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from aiohttp import web

from igor_node.http.limits import LINK_S, LINKS, SESSION_S
from igor_node.words import SECOND, Instant, TooMany, Unauthenticated

SESSION = re.compile(r"s2\.([0-9A-Za-z_-]{1,64})\.([0-9a-f]{16})\.(\d{1,12})\.([0-9a-f]{64})", re.ASCII)
AGAIN = "igor ui opens the page anew"


@dataclass(frozen=True)
class Session:
    id: str
    token: str
    expires_at: Instant


def cookie_name(cluster: str, *, tls: bool) -> str:
    name = "igor_session_" + hashlib.sha256(cluster.encode()).hexdigest()[:8]
    return f"__Host-{name}" if tls else name


def make_session(key: bytes, token: str, now: int, *, until: int | None = None) -> str:
    """`until`: where it ends earlier than sessions do."""
    if not key:
        raise ValueError("without the cluster's key nothing can be signed")
    expires = now // SECOND + SESSION_S
    if until is not None:
        expires = min(expires, until // SECOND)
    identifier = secrets.token_hex(8)
    return f"s2.{token}.{identifier}.{expires}.{_sign(key, token, identifier, expires)}"


def read_session(key: bytes, text: str, now: int) -> Session:
    """Raises Unauthenticated, or NotOurs where it was never signed by this cluster."""
    match = SESSION.fullmatch(text)
    if match is None or not key or not hmac.compare_digest(match[4], _sign(key, match[1], match[2], int(match[3]))):
        raise NotOurs("the session is not valid", hint=AGAIN)
    expires_at = Instant(int(match[3]) * SECOND)
    if now >= expires_at:
        raise Unauthenticated("the session has ended", hint=AGAIN)
    return Session(match[2], match[1], expires_at)


class NotOurs(Unauthenticated):
    """Made up, or of another cluster or key."""


def _sign(key: bytes, token: str, identifier: str, expires: int) -> str:
    return hmac.new(key, f"igor session\0{token}\0{identifier}\0{expires}".encode(), hashlib.sha256).hexdigest()


def set_cookie(response: web.StreamResponse, name: str, value: str, *, tls: bool) -> None:
    response.set_cookie(name, value, max_age=SESSION_S, httponly=True, samesite="Strict", secure=tls, path="/")


def clear_cookie(response: web.StreamResponse, name: str, *, tls: bool) -> None:
    response.del_cookie(name, httponly=True, samesite="Strict", secure=tls, path="/")


@dataclass(frozen=True)
class Kept:
    token: str
    expires_at: int
    challenge: str  # of the program that alone may use the code: SHA-256 of what it keeps to itself; "" for the page


class Links:
    """Codes that log in once, on this node, within `LINK_S`. In memory: a restart ends them."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    def make(self, token: str, now: int, *, challenge: str = "") -> str:
        self._kept = {code: kept for code, kept in self._kept.items() if kept.expires_at > now}
        if len(self._kept) >= LINKS:
            raise TooMany("too many login links are waiting to be used", hint=f"they end after {LINK_S} s", retry_after_s=LINK_S)
        code = secrets.token_urlsafe(24)
        self._kept[_hash(code)] = Kept(token, now + LINK_S * SECOND, challenge)
        return code

    def use(self, code: str, now: int, *, verifier: str = "") -> str:
        """The id of the token that made the link (for a program: the token itself). Raises NotOurs; the code has ended all the same."""
        kept = self._kept.pop(_hash(code), None)
        if kept is None or kept.expires_at <= now:
            raise NotOurs("the link was used before, or is older than 5 minutes", hint="igor ui makes a new one")
        if not hmac.compare_digest(kept.challenge, _hash(verifier) if verifier else ""):
            raise NotOurs("this code is for the program that asked for it", hint="log in again")
        return kept.token


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
