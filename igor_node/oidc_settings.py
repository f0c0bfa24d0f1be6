"""The table `[oidc]` of node.toml: at which provider of identities people log in to this node, and what their groups give them.

    [oidc]
    issuer = "https://login.example.com"          # as the provider names itself; its /.well-known/openid-configuration says the rest
    client_id = "igor"
    client_secret_file = "/etc/igor/oidc.secret"  # without one the node is a public client, by PKCE alone
    redirect = "https://igor.example.com:7946"    # where people open the page; without it this node's own address
    groups_claim = "groups"                       # in the id token, else in what the user-info endpoint says
    scopes = ["groups"]                           # besides openid, profile and email
    session = "8h"                                # how long a log-in is good
    ca_file = "/etc/igor/login-ca.pem"            # of the provider, where it is none of this machine's

    [[oidc.grants]]
    group = "shop-developers"
    role = "deployer"
    projects = ["shop"]

It stands in node.toml and not in the ledger: the client's secret belongs into no backup, a provider may be in reach of some nodes alone, and whoever
may change who is an admin should need the machine, not a token. A node without the table offers no such log-in; sessions are good on all of them.
Standard library alone: `igor-node --help` reads this too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from igor_node.words import NAME, SECOND, Role, parse_span

SESSION_LIMIT_NS = 7 * 24 * 3600 * SECOND  # longer is not a session but a token
SECRET_BYTES = 10_000
GRANTS_LIMIT = 1_000
PEOPLE = tuple(role for role in Role if role is not Role.NODE)
KNOWN = frozenset({"issuer", "client_id", "client_secret_file", "redirect", "groups_claim", "scopes", "session", "ca_file", "grants"})


@dataclass(frozen=True)
class Grant:
    """What a group gives. No projects: all."""

    group: str
    role: Role
    projects: tuple[str, ...] = ()


@dataclass(frozen=True)
class OidcSettings:
    issuer: str
    client_id: str
    grants: tuple[Grant, ...]
    client_secret: str = ""
    redirect: str = ""
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = ()
    session_ns: int = 8 * 3600 * SECOND
    ca_file: str = ""

    def grant(self, groups: Sequence[str]) -> tuple[Role, tuple[str, ...]] | None:
        """The first grant that fits gives the role; others of the same role add their projects. None: nothing fits."""
        fitting = [grant for grant in self.grants if grant.group in groups]
        if not fitting:
            return None
        same = [grant for grant in fitting if grant.role is fitting[0].role]
        if any(not grant.projects for grant in same):
            return fitting[0].role, ()
        return fitting[0].role, tuple(dict.fromkeys(project for grant in same for project in grant.projects))


def read_oidc(value: Any) -> OidcSettings:
    """Checked. Raises ValueError that says what was expected."""
    if not isinstance(value, dict):
        raise ValueError("it is not a table; expected [oidc] with issuer, client_id and grants")
    unknown = sorted(value.keys() - KNOWN)
    if unknown:
        raise ValueError(f'"{unknown[0]}" is not a part of it; expected some of {", ".join(sorted(KNOWN))}')
    session = value.get("session", "8h")
    session_ns = parse_span(session) if isinstance(session, str) else 0
    if not 0 < session_ns <= SESSION_LIMIT_NS:
        raise ValueError(f"session: {session!r} is not possible; expected a duration of at most 7d, like 8h")
    return OidcSettings(
        issuer=_base_url("issuer", _text(value, "issuer")),
        client_id=_text(value, "client_id"),
        client_secret=_secret(value["client_secret_file"]) if "client_secret_file" in value else "",
        redirect=_origin(_text(value, "redirect")) if "redirect" in value else "",
        groups_claim=_text(value, "groups_claim", "groups"),
        scopes=_texts(value, "scopes"),
        session_ns=session_ns,
        ca_file=_file(_text(value, "ca_file")) if "ca_file" in value else "",
        grants=_grants(value.get("grants")),
    )


def _text(table: dict[str, Any], name: str, default: str = "") -> str:
    found = table.get(name, default)
    if not isinstance(found, str) or not found or len(found) > 1_000:
        raise ValueError(f"{name}: {found!r} is not a text" if name in table else f"{name} is missing")
    return found


def _texts(table: dict[str, Any], name: str) -> tuple[str, ...]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) and text and not text.isspace() for text in found):
        raise ValueError(f"{name}: {found!r} is not a list of texts")
    return tuple(found)


def _base_url(name: str, text: str) -> str:
    """https, or http on this very machine: whoever can change what the provider says can be anybody."""
    parts = urlsplit(text)
    plain = parts.scheme == "http" and _is_loopback(parts.hostname or "")
    if (parts.scheme != "https" and not plain) or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f'{name}: "{text}" is not possible; expected an address that begins with https://')
    return text


def _origin(text: str) -> str:
    parts = urlsplit(_base_url("redirect", text))
    if parts.path.strip("/"):
        raise ValueError(f'redirect: "{text}" has a path; expected like https://igor.example.com:7946')
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secret(path: Any) -> str:
    if not isinstance(path, str):
        raise ValueError(f"client_secret_file: {path!r} is not a path")
    try:
        with Path(path).open(encoding="utf-8") as file:
            found = file.read(SECRET_BYTES).strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"client_secret_file: {path} cannot be read ({getattr(problem, 'strerror', None) or problem})") from None
    if not found:
        raise ValueError(f"client_secret_file: {path} is empty")
    return found


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise ValueError(f"ca_file: {path} is not there")
    return path


def _grants(value: Any) -> tuple[Grant, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= GRANTS_LIMIT:
        raise ValueError("grants are missing; expected [[oidc.grants]] with group and role, or nobody could log in")
    return tuple(_grant(one) for one in value)


def _grant(value: Any) -> Grant:
    if not isinstance(value, dict) or value.keys() - {"group", "role", "projects"}:
        raise ValueError(f"grants: {value!r} is not one; expected group, role and perhaps projects")
    role = _text(value, "role")
    if role not in PEOPLE:
        raise ValueError(f'grants: role: "{role}" is not a role of people; expected one of {", ".join(PEOPLE)}')
    projects = _texts(value, "projects")
    if "projects" in value and not projects:
        raise ValueError("grants: projects: it is empty; leave it out for all projects")
    wrong = next((project for project in projects if not NAME.fullmatch(project)), None)
    if wrong is not None:
        raise ValueError(f'grants: projects: "{wrong}" is not a name of a project')
    return Grant(_text(value, "group"), Role(role), projects)
