"""The table of permissions as a rule, and which tokens somebody may make."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.http import grants, permissions
from igor_node.http.auth import ANYONE, Caller
from igor_node.http.permissions import Outcome, Reach, Standing
from igor_node.http.routes import Route
from igor_node.ledger.query_cluster import TokenRow
from igor_node.words import SECOND, Denied, Instant, Invalid, Role, format_instant

NOW = Instant(1_700_000_000 * SECOND)
PEOPLE = [Role.VIEWER, Role.OPERATOR, Role.DEPLOYER, Role.ADMIN]


async def nothing(call: Any) -> None: ...


def route(role: Role | None = Role.VIEWER, reach: Reach = Reach.OPEN, **fields: Any) -> Route:
    return Route(method="GET", path="/x", handler=nothing, summary="", role=role, reach=reach, **fields)


@pytest.mark.parametrize("held", PEOPLE)
@pytest.mark.parametrize("needed", PEOPLE)
def test_larger_roles_include_smaller_ones(held: Role, needed: Role) -> None:
    allowed = PEOPLE.index(held) >= PEOPLE.index(needed)
    assert permissions.outcome(route(needed), held, Standing.WHOLE) is (Outcome.YES if allowed else Outcome.DENIED)


@pytest.mark.parametrize(
    "held, one, allowed",
    [
        pytest.param(Role.NODE, route(), False, id="a node is no viewer"),
        pytest.param(Role.NODE, route(nodes=True), True, id="a node may where nodes may"),
        pytest.param(Role.NODE, route(Role.NODE), True, id="a node may what nodes do"),
        pytest.param(Role.DEPLOYER, route(Role.NODE), False, id="a deployer is no node"),
        pytest.param(Role.ADMIN, route(Role.NODE), False, id="nor is an admin"),
        pytest.param(Role.ADMIN, route(Role.NODE, join=True), True, id="an admin may let a node join"),
        pytest.param(Role.DEPLOYER, route(Role.NODE, join=True), False, id="a deployer may not"),
    ],
)
def test_the_role_of_nodes_stands_beside(held: Role, one: Route, allowed: bool) -> None:
    assert (permissions.outcome(one, held, Standing.WHOLE) is Outcome.YES) is allowed


@pytest.mark.parametrize(
    "reach, own, foreign",
    [
        (Reach.OPEN, Outcome.YES, Outcome.YES),
        (Reach.CLUSTER, Outcome.DENIED, Outcome.DENIED),
        (Reach.LIST, Outcome.YES, Outcome.LEFT_OUT),
        (Reach.THING, Outcome.YES, Outcome.NOT_FOUND),
        (Reach.PROJECT, Outcome.YES, Outcome.DENIED),
    ],
)
def test_what_a_token_of_some_projects_reaches(reach: Reach, own: Outcome, foreign: Outcome) -> None:
    for role in PEOPLE:
        found = [permissions.outcome(route(reach=reach), role, standing) for standing in Standing]
        assert found == [Outcome.YES, own, foreign]


def test_a_route_is_closed_to_tokens_of_projects_where_nobody_thought_of_them() -> None:
    assert Route(method="GET", path="/x", handler=nothing, summary="").reach is Reach.CLUSTER


def caller(role: Role = Role.ADMIN, *projects: str, **fields: Any) -> Caller:
    return Caller(token="t", role=role, projects=projects, **fields)


def test_the_check_is_the_table() -> None:
    """Every role, reach and standing."""
    for role in Role:
        for reach in Reach:
            for one in (route(reach=reach, nodes=True), route(Role.ADMIN, reach)):
                for projects, in_path in [((), "a"), (("a",), "a"), (("b",), "a")]:
                    standing = Standing.WHOLE if not projects else Standing.OWN if "a" in projects else Standing.FOREIGN
                    asking = caller(role, *projects, node="n" if role is Role.NODE else None)
                    try:
                        permissions.check(one, asking, in_path)
                        denied = False
                    except Denied:
                        denied = True
                    assert denied == (permissions.outcome(one, role, standing) is Outcome.DENIED), (role, reach, standing)


def test_a_join_token_is_good_for_joining_alone() -> None:
    joining = caller(Role.NODE)
    permissions.check(route(Role.NODE, join=True), joining, None)
    for one in (route(nodes=True), route(Role.NODE), route()):
        with pytest.raises(Denied, match="joining"):
            permissions.check(one, joining, None)


def test_without_auth_everybody_may_all() -> None:
    permissions.check(route(Role.NODE, Reach.CLUSTER), ANYONE, None)


def test_refusals_say_what_is_missing() -> None:
    with pytest.raises(Denied, match="needs a token of role admin; yours has role viewer"):
        permissions.check(route(Role.ADMIN), caller(Role.VIEWER), None)
    with pytest.raises(Denied, match="whole cluster; your token is good for projects a, b alone"):
        permissions.check(route(reach=Reach.CLUSTER), caller(Role.ADMIN, "a", "b"), None)
    with pytest.raises(Denied, match="good for project a, not for other"):
        permissions.check(route(reach=Reach.PROJECT), caller(Role.ADMIN, "a"), "other")


# --- tokens that make tokens


@pytest.mark.parametrize(
    "maker, role, wanted, granted",
    [
        pytest.param(caller(), Role.ADMIN, [], (), id="an admin makes admins"),
        pytest.param(caller(), Role.DEPLOYER, ["a", "a", "b"], ("a", "b"), id="for projects"),
        pytest.param(caller(), Role.NODE, [], (), id="for nodes"),
        pytest.param(caller(Role.ADMIN, "a", "b"), Role.ADMIN, ["b"], ("b",), id="a project's admin: for some of its own"),
        pytest.param(caller(Role.ADMIN, "a"), Role.VIEWER, [], None, id="not for all"),
        pytest.param(caller(Role.ADMIN, "a"), Role.VIEWER, ["a", "b"], None, id="not for others"),
        pytest.param(caller(Role.ADMIN, "a"), Role.NODE, [], None, id="not for nodes"),
        pytest.param(caller(Role.DEPLOYER), Role.ADMIN, [], None, id="no larger role, whoever may make tokens one day"),
    ],
)
def test_nobody_makes_a_token_that_may_more(maker: Caller, role: Role, wanted: list[str], granted: tuple[str, ...] | None) -> None:
    if granted is None:
        with pytest.raises(Denied):
            grants.grant_projects(maker, role, wanted)
    else:
        assert grants.grant_projects(maker, role, wanted) == granted


def test_a_token_of_a_node_is_of_no_project() -> None:
    with pytest.raises(Invalid):
        grants.grant_projects(caller(), Role.NODE, ["a"])


@pytest.mark.parametrize(
    "maker_ends, login, asked, granted",
    [
        pytest.param(None, False, None, None, id="for good"),
        pytest.param(None, False, 5, 5, id="for a while"),
        pytest.param(10, False, None, 10, id="nothing said: with its maker"),
        pytest.param(10, False, 10, 10, id="as long as its maker"),
        pytest.param(10, False, 11, "denied", id="not longer"),
        pytest.param(10, True, 11, 11, id="a log-in is a session of a person"),
        pytest.param(10, True, None, None, id="and bounds nothing"),
    ],
)
def test_no_token_outlives_its_maker(maker_ends: int | None, login: bool, asked: int | None, granted: Any) -> None:
    def at(seconds: int | None) -> Instant | None:
        return None if seconds is None else Instant(NOW + seconds * SECOND)

    end = at(maker_ends)
    maker = caller(expires_at=None if end is None else format_instant(end), login=login)
    if granted == "denied":
        with pytest.raises(Denied, match="outlives"):
            grants.grant_end(maker, at(asked))
    else:
        assert grants.grant_end(maker, at(asked)) == at(granted)


@pytest.mark.parametrize(
    "projects, role, managed", [((), "viewer", False), (("a",), "admin", True), (("a", "b"), "viewer", False), ((), "node", False)]
)
def test_an_admin_of_a_project_manages_its_tokens_alone(projects: tuple[str, ...], role: str, managed: bool) -> None:
    row = TokenRow(
        token="t",
        role=role,
        name="",
        projects=projects,
        node=None,
        subject=None,
        made_by="",
        created_at=0,
        expires_at=None,
        revoked_at=None,
        hash="h",
    )
    assert grants.manages(caller(Role.ADMIN, "a"), row) is managed and grants.manages(caller(), row)
