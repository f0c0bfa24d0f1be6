"""Who may do what: one table, route by role by where the thing belongs. The server asks it, the tests walk it, docs/security.md prints it.

A route says the smallest role of people that may use it, whether nodes may too, and its *reach*: what of the cluster an answer is about. A token may
be bound to projects; then what it reaches is its own projects alone. What is of another project

    open      does not occur: nothing of a project is in the answer
    cluster   is the whole cluster: the token is refused (403)
    list      is left out of lists
    thing     is not there (404), in the same words as what does not exist: nobody learns by asking that it does
    project   is named in the request, so that the refusal (403) tells nothing either

403 is judged here, before anything of the request is decoded (but for a project in a body, which its handler judges); 404 and what is left out are
the business of the queries, which get `Caller.projects`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from igor_node.words import Denied, Role

RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.DEPLOYER: 3, Role.ADMIN: 4}
PEOPLE = tuple(RANK)


class Reach(StrEnum):
    OPEN = "open"
    CLUSTER = "cluster"
    LIST = "list"
    THING = "thing"
    PROJECT = "project"


class Standing(StrEnum):
    """Of the token to what is asked for."""

    WHOLE = "whole cluster"  # the token is bound to no project
    OWN = "own project"
    FOREIGN = "foreign project"


class Outcome(StrEnum):
    YES = "yes"
    DENIED = "403"
    NOT_FOUND = "404"
    LEFT_OUT = "left out"


class Permitted(Protocol):
    """What of a route the table needs."""

    @property
    def role(self) -> Role | None: ...
    @property
    def nodes(self) -> bool: ...
    @property
    def join(self) -> bool: ...
    @property
    def reach(self) -> Reach: ...


class Asking(Protocol):
    """What of a caller it needs."""

    @property
    def role(self) -> Role: ...
    @property
    def projects(self) -> tuple[str, ...]: ...
    @property
    def node(self) -> str | None: ...
    @property
    def anyone(self) -> bool: ...


FOREIGN = {Reach.OPEN: Outcome.YES, Reach.LIST: Outcome.LEFT_OUT, Reach.THING: Outcome.NOT_FOUND, Reach.PROJECT: Outcome.DENIED}


def outcome(route: Permitted, role: Role, standing: Standing) -> Outcome:
    """The table. Routes without a role (`role` None) ask for no token of the ledger and are in it for nobody."""
    if not _role_may(route, role) or (route.reach is Reach.CLUSTER and standing is not Standing.WHOLE):
        return Outcome.DENIED
    return FOREIGN[route.reach] if standing is Standing.FOREIGN else Outcome.YES


def _role_may(route: Permitted, role: Role) -> bool:
    """Roles of people include the smaller ones; `node` stands beside them and gets what a route gives to nodes."""
    if route.role is None:
        return True
    if role is Role.NODE:
        return route.nodes or route.role is Role.NODE
    if route.role is Role.NODE:
        return route.join and role is Role.ADMIN
    return RANK[role] >= RANK[route.role]


def check(route: Permitted, caller: Asking, project: str | None) -> None:
    """`project`: the one in the path; None where the body names it. Raises Denied."""
    if caller.anyone:
        return
    if caller.role is Role.NODE and caller.node is None and not route.join:
        raise Denied("a join token is good for joining alone", hint="igor-node join uses it; other things need another token")
    if outcome(route, caller.role, Standing.OWN if caller.projects else Standing.WHOLE) is Outcome.DENIED:
        raise _refusal(route, caller)
    if caller.projects and route.reach is Reach.PROJECT and project is not None and project not in caller.projects:
        raise Denied(f"your token is good for {bound_to(caller.projects)}, not for {project}")


def _refusal(route: Permitted, caller: Asking) -> Denied:
    if _role_may(route, caller.role):
        return Denied(f"this is about the whole cluster; your token is good for {bound_to(caller.projects)} alone")
    return Denied(f"this needs a token of role {route.role}; yours has role {caller.role}", hint="igor token create --role … makes others")


def bound_to(projects: tuple[str, ...]) -> str:
    return f"project{'s' if len(projects) > 1 else ''} {', '.join(projects)}"
