"""Every route, walked: refusals have one shape, and the table, the application and OpenAPI name the same things."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from igor_node.http import permissions
from igor_node.http.api.table import ROUTES
from igor_node.http.openapi import describe_routes
from igor_node.http.permissions import Outcome, Standing
from igor_node.http.routes import Route, template
from igor_node.words import Role
from tests.unit.http.world import World


def filled(route: Route) -> str:
    """The route's path with ids that exist nowhere."""
    return re.sub(r"\{(\w+)\}", lambda match: f"no-such-{match[1]}", template(route.path).replace("{hash:[0-9a-f]+}", "00ff"))


def asking_tokens() -> list[Route]:
    return [route for route in ROUTES if route.role is not None]


def ids(route: Route) -> str:
    return f"{route.method} {template(route.path)}"


def is_problem(value: object, status: int) -> bool:
    return (
        isinstance(value, dict)
        and value["status"] == status
        and {"type", "title", "detail"} <= value.keys()
        and value["type"].startswith("urn:igor:")
    )


async def test_no_token_is_401(world: World) -> None:
    """On loopback too, and whatever the request is; but for health, which says only that."""
    for route in ROUTES:
        if route.any_host:
            continue
        answer = await world.ask(route.method, filled(route), role=None)
        assert (ids(route), answer.status) == (ids(route), 401)
        if route.closed is None and route.method != "HEAD":
            assert is_problem(answer.value, 401) and answer.headers["Content-Type"].startswith("application/problem+json")


STRANGE = [
    ("GET", "/v1/nothing"),
    ("GET", "/nothing"),
    ("GET", "/.git/config"),
    ("GET", "/ui/0123/nothing.js"),
    ("GET", "/ui/../../etc/passwd"),
    ("DELETE", "/v1/jobs"),
    ("PATCH", "/v1/jobs/x"),
    ("OPTIONS", "/v1/jobs"),
    ("OPTIONS", "/nothing"),
    ("HEAD", "/v1/jobs"),
    ("HEAD", "/"),
    ("HEAD", "/metrics"),
    ("GET", "/metrics"),
    ("GET", "/v1/jobs?limt=5"),
    ("GET", "/v1/jobs?consistent=1"),
    ("GET", "/login"),
    ("GET", "/login?x=1"),
    ("GET", "/login?code=" + "x" * 500),
]


@pytest.mark.parametrize("method, path", STRANGE)
async def test_a_stranger_learns_nothing(three: World, method: str, path: str) -> None:
    """Neither what there is nor what is asked wrongly."""
    for node in (three.leader, three.follower):
        answer = await three.ask(method, path, role=None, node=node)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"code": 5}', b'{"x": 1}', b'{"code": "made-up"}', b"x" * 5000])
async def test_a_stranger_logs_nobody_in(world: World, data: bytes) -> None:
    answer = await world.ask("POST", "/v1/session", data=data, role=None)
    assert is_problem(answer.value, 401)


@pytest.mark.parametrize("path", ["renew", "events"])
@pytest.mark.parametrize("body", [b"", b"{", b"{}"])
async def test_a_made_up_token_of_an_attempt_learns_nothing(three: World, path: str, body: bytes) -> None:
    """Not even who leads."""
    for node in (three.leader, three.follower):
        for header in ({}, {"Authorization": "Bearer made-up"}):
            answer = await three.ask("POST", f"/v1/attempts/r.main.1/{path}", data=body, role=None, node=node, **header)
            assert is_problem(answer.value, 401) and "Igor-Leader" not in answer.headers


@pytest.mark.parametrize("text", ["Bearer igor1.none.t-admin.wrong", "Bearer igor1.none.unknown.x", "Bearer nonsense", "Basic YTpi", "Bearer", ""])
async def test_a_wrong_token_is_401(world: World, text: str) -> None:
    answer = await world.ask("GET", "/v1/jobs", role=None, Authorization=text)
    assert is_problem(answer.value, 401)


def smaller(route: Route) -> Iterator[Role]:
    """Roles that may not."""
    return (role for role in Role if permissions.outcome(route, role, Standing.WHOLE) is Outcome.DENIED)


async def test_a_role_that_is_too_small_is_403(world: World) -> None:
    for route in asking_tokens():
        for role in smaller(route):
            answer = await world.ask(route.method, filled(route), {} if route.body else None, role=role)
            assert (ids(route), role, answer.status) == (ids(route), role, 403)
            assert is_problem(answer.value, 403)


UNKNOWN = [
    ("GET", "/v1/jobs/nothing"),
    ("GET", "/v1/jobs/no/thing"),
    ("POST", "/v1/jobs/nothing/runs"),
    ("POST", "/v1/jobs/nothing/pause"),
    ("POST", "/v1/jobs/nothing/resume"),
    ("GET", "/v1/runs/0000nothing"),
    ("GET", "/v1/runs/nothing@latest"),
    ("GET", "/v1/runs/0000nothing/why"),
    ("GET", "/v1/runs/0000nothing/logs"),
    ("POST", "/v1/runs/0000nothing/cancel"),
    ("GET", "/v1/projects/nothing"),
    ("GET", "/v1/projects/nothing/history"),
    ("GET", "/v1/runs?job=nothing"),
    ("GET", "/v1/audit?job=nothing"),
    ("GET", "/v1/upcoming?job=nothing"),
    ("DELETE", "/v1/tokens/nothing"),
    ("DELETE", "/v1/nodes/nothing"),
    ("POST", "/v1/nodes/nothing/leave"),
    ("POST", "/v1/nodes/nothing/drain"),
    ("POST", "/v1/nodes/nothing/undrain"),
    ("GET", "/v1/nothing"),
    ("GET", "/nothing"),
    ("GET", "/ui/0123/nothing.js"),
]


@pytest.mark.parametrize("method, path", UNKNOWN)
async def test_what_does_not_exist_is_404(world: World, method: str, path: str) -> None:
    answer = await world.ask(method, path, {} if method == "POST" else None)
    assert is_problem(answer.value, 404), answer.value


async def test_a_method_that_is_not_known_is_405(world: World) -> None:
    answer = await world.ask("DELETE", "/v1/jobs")
    assert is_problem(answer.value, 405) and "GET" in answer.headers["Allow"]


MALFORMED = [
    ("GET", "/v1/jobs?limt=5", "limt"),
    ("GET", "/v1/jobs?limit=0", "limit"),
    ("GET", "/v1/jobs?limit=1001", "limit"),
    ("GET", "/v1/runs?since=yesterday", "since"),
    ("GET", "/v1/runs?state=bad", "bad"),
    ("GET", "/v1/audit?from=x", "from"),
    ("GET", "/v1/audit?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
    ("GET", "/v1/upcoming?hours=0", "hours"),
    ("GET", "/v1/upcoming?hours=nan", "hours"),
    ("GET", "/v1/jobs?consistent=maybe", "consistent"),
    ("GET", "/v1/events?last=0", "last"),
    ("GET", "/v1/cluster?x=1", "x"),
    ("POST", "/v1/session/links?x=1", "x"),
]


@pytest.mark.parametrize("method, path, named", MALFORMED)
async def test_what_is_malformed_is_400_and_named(world: World, method: str, path: str, named: str) -> None:
    answer = await world.ask(method, path)
    assert is_problem(answer.value, 400) and named in answer.value["detail"], answer.value


async def test_a_wrong_field_is_400_and_named(world: World) -> None:
    answer = await world.ask("POST", "/v1/tokens", {"role": 5})
    assert is_problem(answer.value, 400) and "role" in answer.value["detail"]


async def test_a_body_that_is_too_large_is_413(world: World) -> None:
    """4 MiB, told before it is sent or not."""
    answer = await world.ask("POST", "/v1/tokens", data=b" " * (4 * 1024 * 1024 + 1))
    assert is_problem(answer.value, 413)


async def test_headers_that_are_too_large_are_refused(world: World) -> None:
    answer = await world.ask("GET", "/v1/jobs", **{f"X{n}": "a" * 4000 for n in range(5)})
    assert is_problem(answer.value, 431)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_token_and_no_host(world: World, path: str) -> None:
    answer = await world.ask("GET", path, role=None, Host="probe.example")
    assert (answer.status, answer.value["ok"]) == (200, True)


@pytest.mark.parametrize("path", ["/v1/jobs", "/", "/login?code=x", "/v1/leader"])
async def test_another_host_is_421(world: World, path: str) -> None:
    """A name that was bound anew to this machine is none of ours (DNS rebinding)."""
    answer = await world.ask("GET", path, Host="evil.example")
    assert is_problem(answer.value, 421)


async def test_a_strange_page_is_403(world: World) -> None:
    answer = await world.ask("GET", "/v1/jobs", Origin="http://evil.example")
    assert is_problem(answer.value, 403)


async def test_a_page_of_another_node_may_go_on_here(three: World) -> None:
    other, here = three.nodes["n2"], three.nodes["n1"]
    answer = await three.ask("GET", "/v1/jobs", node=here, Origin=other.url)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, other.url)
    asked = await three.ask("OPTIONS", "/v1/jobs/x/runs", node=here, role=None, Origin=other.url, Access_Control_Request_Method="POST")
    assert (asked.status, asked.headers["Access-Control-Allow-Origin"]) == (204, other.url)
    refused = await three.ask("OPTIONS", "/v1/jobs/x/runs", node=here, role=None, Origin="http://evil.example")
    assert refused.status == 403


async def test_openapi_describes_what_is_served(world: World) -> None:
    """Every route of the API once, with its parameters and shapes."""
    answer = await world.ask("GET", "/v1/openapi.json", role=Role.VIEWER)
    described = {(method, path) for path, methods in answer.value["paths"].items() for method in methods}
    assert described == {(route.method.lower(), template(route.path)) for route in ROUTES if not route.hidden}
    assert answer.value["openapi"] == "3.1.0"
    for path, methods in answer.value["paths"].items():
        for operation in methods.values():
            in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))


def test_operations_have_names_of_their_own() -> None:
    described = describe_routes(ROUTES, "1")
    names = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_is_defined() -> None:
    described = describe_routes(ROUTES, "1")
    found = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert found <= described["components"]["schemas"].keys()


def test_no_path_and_method_twice() -> None:
    seen = [(route.method, template(route.path)) for route in ROUTES]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("path", ["/v1/cluster/key", "/v1/cluster/ca", "/v1/pause", "/v1/resume"])
@pytest.mark.parametrize("body", [b"nonsense", b'{"unknown": 1}', b"[]"])
async def test_what_changes_the_whole_cluster_is_not_done_for_a_body_that_means_nothing(world: World, path: str, body: bytes) -> None:
    before = world.cluster.index
    answer = await world.ask("POST", path, data=body, Content_Type="application/json")
    assert answer.status == 400 and world.cluster.index == before, answer.value
