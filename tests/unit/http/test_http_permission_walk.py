"""Every route of the API, asked at a real server by every role, for the whole cluster, its own project and a foreign one: as the table says.

A route that is new is walked by itself where its path names what the walk knows (a job, a run, a project, a node, a token, an attempt); else it gets
a row in SAMPLES. A foreign thing must not only be refused: the answer must be that to a thing which does not exist, and no list may hold its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from igor_node.http.api.oidc import seal
from igor_node.http.api.table import ROUTES
from igor_node.http.auth import compose_token, hash_secret
from igor_node.http.permissions import Outcome, Reach, Standing, outcome
from igor_node.http.routes import Route, template
from igor_node.ledger import commands
from igor_node.words import Role
from tests.unit.http.test_http_routes import is_problem
from tests.unit.http.world import KEY, Answer, World, node_secret, node_token

OWN, FOREIGN = "own-shop", "foreign-shop"
PEOPLE = (Role.VIEWER, Role.OPERATOR, Role.DEPLOYER, Role.ADMIN)
JOB = {"name": "job", "schedule": {"every": "1h"}, "command": ["true"]}


@dataclass
class Place:
    """Two projects with a job and a run each; `fresh` things are made for each request, for some requests end them."""

    world: World
    runs: dict[str, str] = field(default_factory=dict)
    count: int = 0
    node: str = ""

    def new(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def token(self, role: Role, *projects: str) -> str:
        """Its text."""
        name = f"w-{role}-{'-'.join(projects)}"
        self.world.cluster.do(commands.CreateToken(token=name, hash=hash_secret(name), role=role, projects=projects))
        return compose_token(name, name)

    def token_of(self, project: str) -> str:
        """The id of a token that is good for one project."""
        name = self.new("t")
        self.world.cluster.do(commands.CreateToken(token=name, hash=name, role="viewer", name=f"of {project}", projects=(project,)))
        return name

    def new_node(self) -> str:
        """One that may leave: its token. A node may only take itself out."""
        self.node = self.new("spare")
        self.world.cluster.add(self.node, voter=False, token_hash=hash_secret(node_secret(self.node)))
        return node_token(self.node)

    def run(self, project: str) -> str:
        run = self.new("r")
        self.world.cluster.do(commands.CreateRun(job=f"{project}/job", run=run, beside=True))
        return run

    def backfill(self, project: str) -> str:
        name = self.new("b")
        self.world.cluster.do(commands.CreateBackfill(backfill=name, job=f"{project}/job", times=(1,)))
        return name

    def secret(self, project: str) -> str:
        name = self.new("s")
        self.world.cluster.do(commands.SetSecret(project=project, name=name, version=1, sealed=b"sealed"))
        return name

    def filled(self, route: Route, project: str) -> str:
        path = template(route.path).replace("{hash:[0-9a-f]+}", "00ff").replace("{path}", "style.css")
        known: dict[str, Callable[[], str]] = {
            "job": lambda: f"{project}/job",
            "run": lambda: self.run(project),
            "project": lambda: project,
            "token": lambda: self.token_of(project),
            "node": lambda: self.node,
            "secret": lambda: self.secret(project if "{project}" in template(route.path) else ""),
            "backfill": lambda: self.backfill(project),
            "attempt": lambda: f"{self.runs[project]}.main.1",
        }
        for name in re.findall(r"\{(\w+)\}", path):
            assert name in known, f"{route.method} {path}: give this route a row in SAMPLES"
            path = path.replace(f"{{{name}}}", known[name]())
        return path


@dataclass
class Sample:
    """How a route is asked so that a permitted request is answered as it should be."""

    query: str = ""
    body: Callable[[Place, str], Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    also: tuple[int, ...] = ()  # what else a permitted request may be answered here


LOG_IN = {"token": "l", "hash": "l", "subject": "s", "name": "ann", "role": "viewer", "projects": [], "expires_at": 4 * 10**18}


def definitions(place: Place, project: str) -> Any:
    return {"definitions": [{"apiVersion": "igor/v1", "kind": "Job", **JOB}]}


SAMPLES: dict[str, Sample] = {
    "GET /v1/events": Sample("?last=1000"),
    "GET /v1/nodes/logs": Sample("?attempt=a&try=1"),
    "POST /v1/jobs/{job}/backfill": Sample(body=lambda place, project: {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}),
    "POST /v1/pause": Sample(body=lambda place, project: {"scope": "all"}),
    "POST /v1/resume": Sample(body=lambda place, project: {"scope": "all"}),
    "POST /v1/runs/{run}/lost": Sample(body=lambda place, project: {"decision": "fail"}, also=(409,)),  # nothing waits for a lost node
    "POST /v1/nodes": Sample(body=lambda place, project: {"id": place.node, "name": place.node, "address": "127.0.0.1:9"}),
    "GET /v1/nodes/{node}/stream": Sample(also=(400,)),  # no WebSocket
    "GET /v1/node/key": Sample(also=(403,)),  # a node that is no member
    "GET /v1/backup": Sample(also=(503,)),  # these nodes give none
    "GET /favicon.ico": Sample(also=(302,)),
    "POST /v1/cluster/ca": Sample(also=(409,)),
    "POST /v1/node/certificate": Sample(body=lambda place, project: {"request": "x"}, also=(409,)),
    "PUT /v1/secrets/{secret}": Sample(body=lambda place, project: {"value": "value"}),
    "PUT /v1/projects/{project}/secrets/{secret}": Sample(body=lambda place, project: {"value": "value"}),
    "POST /v1/attempts/{attempt}/secrets": Sample(also=(403, 404)),  # placed on another node, or ended
    "POST /v1/nodes/{node}/leave": Sample(body=lambda place, project: {}, also=(409,)),
    "POST /v1/schedule": Sample(body=lambda place, project: {"every": "1h"}),
    "POST /v1/tokens": Sample(body=lambda place, project: {"role": "viewer", "projects": [project]}),
    "PUT /v1/projects/{project}": Sample(body=definitions, headers={"If_Match": '"1"'}),
    "POST /v1/projects/{project}/plan": Sample(body=definitions),
    "POST /v1/tokens/uses": Sample(body=lambda place, project: {"uses": {"t": 1}}),
    "POST /v1/logins": Sample(
        body=lambda place, project: LOG_IN, headers={"Igor_Seal": seal(KEY, json.dumps(LOG_IN, separators=(",", ":")).encode())}
    ),
    "GET /v1/upcoming": Sample("?limit=1000"),
}


def name_of(route: Route) -> str:
    return f"{route.method} {template(route.path)}"


@pytest.fixture
async def place(world: World) -> Place:
    found = Place(world)
    for project in (OWN, FOREIGN):
        assert (await world.push(project, JOB)).status == 200
        found.runs[project] = found.run(project)
    world.leader.output.lines["a", 1] = ["line"]
    return found


async def ask(place: Place, route: Route, token: str, project: str, path: str | None = None) -> Answer:
    sample = SAMPLES.get(name_of(route), Sample())
    body = sample.body(place, project) if sample.body is not None else {} if route.body is not None else None
    path = path if path is not None else place.filled(route, project)
    return await place.world.ask(route.method, path + sample.query, body, role=None, **{"Authorization": f"Bearer {token}", **sample.headers})


def walked(role: Role) -> list[tuple[Standing, tuple[str, ...], str]]:
    """Standing, what the token is bound to, and whose thing it asks for."""
    if role is Role.NODE:
        return [(Standing.WHOLE, (), OWN)]
    return [(Standing.WHOLE, (), FOREIGN), (Standing.OWN, (OWN,), OWN), (Standing.FOREIGN, (OWN, "another"), FOREIGN)]


@pytest.mark.parametrize("role", Role)
async def test_every_route_answers_as_the_table_says(place: Place, role: Role) -> None:
    for standing, projects, project in walked(role):
        mine = None if role is Role.NODE else place.token(role, *projects)
        for route in ROUTES:
            if route.role is None:
                continue
            nodes = place.new_node()
            answer = await ask(place, route, mine or nodes, project)
            found = f"{name_of(route)} for {role}, {standing}: {answer.status} {answer.value if answer.status >= 400 else ''}"
            match outcome(route, role, standing):
                case Outcome.DENIED:
                    assert is_problem(answer.value, 403), found
                case Outcome.NOT_FOUND:
                    assert is_problem(answer.value, 404), found
                case Outcome.LEFT_OUT:
                    assert answer.status == 200 and FOREIGN not in json.dumps(answer.value), found
                case Outcome.YES:
                    expected = (*route.statuses, *SAMPLES.get(name_of(route), Sample()).also)
                    assert answer.status in expected, found


def things() -> list[Route]:
    return [route for route in ROUTES if route.reach is Reach.THING and route.role is not None]


@pytest.mark.parametrize("route", things(), ids=name_of)
async def test_a_foreign_thing_is_told_from_one_that_is_not_there_by_nothing(place: Place, route: Route) -> None:
    """Same status, words and headers; and nothing has been done to it."""
    token = place.token(Role.ADMIN, OWN)
    there = place.filled(route, FOREIGN)
    name = there.split("/")[3] if "{job}" not in template(route.path) else f"{FOREIGN}/job"
    absent = there.replace(name, "x" * len(name))
    before = place.world.cluster.index
    found = await ask(place, route, token, FOREIGN, there)
    missing = await ask(place, route, token, FOREIGN, absent)
    assert found.status == missing.status == 404 and place.world.cluster.index == before
    assert json.dumps(found.value).replace(name, "") == json.dumps(missing.value).replace("x" * len(name), "")
    assert {**found.headers, "Date": "", "Content-Length": ""} == {**missing.headers, "Date": "", "Content-Length": ""}


def named_projects() -> list[Route]:
    return [route for route in ROUTES if route.reach is Reach.PROJECT and "{project}" in route.path]


@pytest.mark.parametrize("route", named_projects(), ids=name_of)
async def test_a_foreign_project_is_refused_whether_it_exists_or_not(place: Place, route: Route) -> None:
    token = place.token(Role.ADMIN, OWN)
    there = await ask(place, route, token, FOREIGN)
    missing = await ask(place, route, token, "no-shop-here")
    assert there.status == missing.status == 403
    assert json.dumps(there.value).replace(FOREIGN, "") == json.dumps(missing.value).replace("no-shop-here", "")


LISTS = [
    "/v1/jobs",
    f"/v1/jobs?project={FOREIGN}",
    "/v1/runs",
    "/v1/runs?state=live",
    "/v1/runs?state=succeeded,cancelled",
    "/v1/runs?state=cancelled",
    "/v1/upcoming",
    "/v1/audit",
    "/v1/projects",
    "/v1/events?last=1000",
    "/v1/tokens",
]


@pytest.mark.parametrize("path", LISTS)
async def test_lists_hold_what_is_ones_own_and_nothing_else(place: Place, path: str) -> None:
    for project in (OWN, FOREIGN):
        run = place.run(project)
        await place.world.ask("POST", f"/v1/runs/{run}/cancel", {})
        place.token_of(project)
    answer = await place.world.ask("GET", path, role=None, Authorization=f"Bearer {place.token(Role.ADMIN, OWN)}")
    text = json.dumps(answer.value)
    assert answer.status == 200 and FOREIGN not in text and not set(place.runs[FOREIGN].split()) & set(re.findall(r"\w+", text))
    if path not in (f"/v1/jobs?project={FOREIGN}", "/v1/runs?state=succeeded,cancelled", "/v1/audit"):
        assert OWN in text or place.runs[OWN] in text


@pytest.mark.parametrize("path", [f"/v1/runs?job={FOREIGN}/job", f"/v1/upcoming?job={FOREIGN}/job", f"/v1/audit?job={FOREIGN}/job"])
async def test_a_list_of_a_foreign_job_is_404(place: Place, path: str) -> None:
    answer = await place.world.ask("GET", path, role=None, Authorization=f"Bearer {place.token(Role.VIEWER, OWN)}")
    assert is_problem(answer.value, 404)


async def test_a_bare_name_is_that_of_ones_own_job(place: Place) -> None:
    """Which is ambiguous only for those who see both."""
    bound = {"Authorization": f"Bearer {place.token(Role.OPERATOR, OWN)}"}
    assert (await place.world.ask("GET", "/v1/jobs/job")).status == 409
    assert (await place.world.ask("GET", "/v1/jobs/job", role=None, **bound)).value["id"] == f"{OWN}/job"
    made = await place.world.ask("POST", "/v1/jobs/job/runs", {}, role=None, **bound)
    assert (made.status, made.value["project"]) == (201, OWN)
    latest = await place.world.ask("GET", "/v1/runs/job@latest", role=None, **bound)
    assert latest.value["project"] == OWN and (await place.world.ask("GET", "/v1/runs/job@latest")).status == 409


async def test_a_prefix_of_a_foreign_run_finds_nothing(place: Place) -> None:
    """And does not make one's own ambiguous."""
    for run, project in (("zz1", OWN), ("zz2", FOREIGN)):
        place.world.cluster.do(commands.CreateRun(job=f"{project}/job", run=run, beside=True))
    bound = {"Authorization": f"Bearer {place.token(Role.VIEWER, OWN)}"}
    assert (await place.world.ask("GET", "/v1/runs/zz", role=None, **bound)).value["id"] == "zz1"
    assert (await place.world.ask("GET", "/v1/runs/zz2", role=None, **bound)).status == 404


async def test_runs_of_some_projects_come_in_pages(place: Place) -> None:
    """The same ones, in the same order, as for somebody who sees all and leaves the others out."""
    for n in range(7):
        for project in (OWN, FOREIGN):
            place.world.cluster.do(commands.CreateRun(job=f"{project}/job", run=f"p{n}{project[0]}", beside=True))
    everything = (await place.world.ask("GET", "/v1/runs?limit=1000")).value["items"]
    bound = {"Authorization": f"Bearer {place.token(Role.VIEWER, OWN)}"}
    found: list[str] = []
    cursor = ""
    while True:
        page = (await place.world.ask("GET", f"/v1/runs?limit=3{cursor}", role=None, **bound)).value
        found += [run["id"] for run in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == [run["id"] for run in everything if run["project"] == OWN] and len(found) == 8


# --- escalation


ESCALATIONS = [
    pytest.param({"role": "viewer"}, 403, id="for all projects"),
    pytest.param({"role": "viewer", "projects": [OWN, FOREIGN]}, 403, id="for one more"),
    pytest.param({"role": "admin", "projects": [FOREIGN]}, 403, id="for another"),
    pytest.param({"role": "node"}, 403, id="for a node"),
    pytest.param({"role": "admin", "projects": [OWN]}, 201, id="for its own"),
]


@pytest.mark.parametrize("body, status", ESCALATIONS)
async def test_an_admin_of_a_project_makes_no_wider_token(place: Place, body: dict[str, Any], status: int) -> None:
    answer = await place.world.ask("POST", "/v1/tokens", body, role=None, Authorization=f"Bearer {place.token(Role.ADMIN, OWN)}")
    assert answer.status == status, answer.value


async def test_a_chain_of_tokens_stays_as_narrow_as_its_first(place: Place) -> None:
    token = place.token(Role.ADMIN, OWN)
    for _ in range(3):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await place.world.ask("POST", "/v1/tokens", {"role": "admin"}, role=None, **headers)).status == 403
        assert (await place.world.ask("GET", f"/v1/projects/{FOREIGN}", role=None, **headers)).status == 403
        token = (await place.world.ask("POST", "/v1/tokens", {"role": "admin", "projects": [OWN]}, role=None, **headers)).value["token"]


async def test_a_session_is_bound_as_its_token_is(place: Place) -> None:
    link = await place.world.ask("POST", "/v1/session/links", {}, role=None, Authorization=f"Bearer {place.token(Role.OPERATOR, OWN)}")
    assert (await place.world.ask("GET", link.value["url"].removeprefix(place.world.leader.url), role=None)).status == 303
    assert (await place.world.ask("GET", f"/v1/jobs/{FOREIGN}/job", role=None)).status == 404
    assert (await place.world.ask("GET", f"/v1/jobs/{OWN}/job", role=None)).status == 200
