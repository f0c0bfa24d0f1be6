"""Which tokens somebody may make, see and end: never one that may more than they, or for longer.

A token that is bound to projects makes tokens for some of these alone, and none for nodes. A token that ends makes none that outlives it. What a
person may who logged in by the provider of identities ends with each session and is asked anew with the next, so their session's end bounds nothing:
a token for a machine that they make is theirs by name (`made_by`) and ended by an admin.
"""

from __future__ import annotations

from collections.abc import Sequence

from igor_node.http.auth import Caller
from igor_node.http.permissions import PEOPLE, RANK, bound_to
from igor_node.ledger.query_cluster import TokenRow
from igor_node.words import Denied, Instant, Invalid, Role, format_instant, parse_instant


def grant_projects(caller: Caller, role: Role, projects: Sequence[str]) -> tuple[str, ...]:
    """The projects of a token that `caller` may make. Raises Denied or Invalid."""
    if role is Role.NODE:
        if projects:
            raise Invalid("the token is not valid", faults=["projects: a token of role node is good for the whole cluster; expected none"])
        if caller.projects:
            raise Denied(f"your token is good for {bound_to(caller.projects)} alone; it makes no tokens of nodes")
        return ()
    if RANK.get(caller.role, 0) < RANK[role]:
        raise Denied(f"your token has role {caller.role}; it makes no token of role {role}")
    wanted = tuple(dict.fromkeys(projects))
    if not caller.projects:
        return wanted
    if not wanted:
        raise Denied(f"your token is good for {bound_to(caller.projects)} alone; it makes no token for all projects", hint="name projects")
    wider = [project for project in wanted if project not in caller.projects]
    if wider:
        raise Denied(f"your token is good for {bound_to(caller.projects)}; it makes no token for {bound_to(tuple(wider))}")
    return wanted


def grant_end(caller: Caller, expires_at: Instant | None) -> Instant | None:
    """When it ends; where nothing is said, with its maker. Raises Denied."""
    if caller.expires_at is None or caller.login:
        return expires_at
    end = parse_instant(caller.expires_at)
    if expires_at is not None and expires_at > end:
        raise Denied(f"your token ends at {format_instant(end)}; it makes none that outlives it", hint="a shorter --ttl, or none to end with yours")
    return end if expires_at is None else expires_at


def manages(caller: Caller, token: TokenRow) -> bool:
    """Whether a token is one of those that `caller` may see and end; others are not there."""
    if not caller.projects:
        return True
    return token.role in PEOPLE and bool(token.projects) and set(token.projects) <= set(caller.projects)
