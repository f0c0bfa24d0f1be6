"""Secrets by the API: set by versions, listed without values, given to the node that runs what needs them, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from igor_node.ledger import commands, query_secrets
from igor_node.ledger.query_jobs import JOBS_PER_PAGE
from igor_node.stream import AttemptEvent
from igor_node.trust.keys import KeyRing
from igor_node.trust.sealing import Sealed, purpose_of_secret, unseal
from igor_node.words import Role, wall_now
from tests.unit.http.world import KEY, World, node_token

VALUE = "tr0ub4dor & 3"
RING = KeyRing(1, {1: KEY})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path, "n1", "n2") as made:
        yield made


async def put(world: World, name: str = "db", value: Any = VALUE, *, project: str = "shop", role: Role = Role.DEPLOYER) -> Any:
    return await world.ask("PUT", f"/v1/projects/{project}/secrets/{name}", {"value": value}, role=role)


async def test_a_secret_is_sealed_before_it_is_proposed(world: World) -> None:
    made = await put(world)
    assert (made.status, made.value) == (201, {"project": "shop", "name": "db", "version": 1})
    again = await put(world, value="another one")
    assert (again.status, again.value["version"]) == (200, 2)
    (row,) = await world.cluster.reads.query(query_secrets.sealed)
    assert unseal(RING, purpose_of_secret("shop", "db", 2), row.sealed) == b"another one"
    with pytest.raises(Sealed):
        unseal(RING, purpose_of_secret("shop", "other", 2), row.sealed)
    for file in Path(world.folder).rglob("*"):
        if file.is_file():
            assert VALUE.encode() not in file.read_bytes() and b"another one" not in file.read_bytes(), file


async def test_whoever_was_slower_tries_again_with_the_next_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger answers an id that it knows as it did before, so each try needs its own."""
    await put(world)
    really, stale = query_secrets.newest_version, [0]
    monkeypatch.setattr(query_secrets, "newest_version", lambda *asked: stale.pop() if stale else really(*asked))
    again = await put(world, value="another one")
    assert (again.status, again.value.get("version")) == (200, 2)
    (row,) = await world.cluster.reads.query(query_secrets.sealed)
    assert unseal(RING, purpose_of_secret("shop", "db", 2), row.sealed) == b"another one"


async def test_nobody_is_shown_a_value(world: World) -> None:
    await put(world)
    await put(world, value="another one")
    listed = await world.ask("GET", "/v1/projects/shop/secrets")
    assert [(item["name"], item["version"]) for item in listed.value["items"]] == [("db", 2)]
    shown = await world.ask("GET", "/v1/projects/shop/secrets/db", role=Role.ADMIN)
    assert [version["version"] for version in shown.value["versions"]] == [2, 1] and shown.value["versions"][1]["ended_at"] is not None
    events = await world.ask("GET", "/v1/events?last=10", role=Role.ADMIN)
    for answer in (listed, shown, events):
        assert "another one" not in str(answer.value) and VALUE not in str(answer.value)


async def test_what_is_removed_is_gone(world: World) -> None:
    await put(world)
    assert (await world.ask("DELETE", "/v1/projects/shop/secrets/db", role=Role.DEPLOYER)).status == 200
    assert (await world.ask("GET", "/v1/projects/shop/secrets")).value["items"] == []
    assert (await world.ask("GET", "/v1/projects/shop/secrets/db")).status == 404
    assert (await world.ask("DELETE", "/v1/projects/shop/secrets/db", role=Role.DEPLOYER)).status == 404
    assert (await put(world)).value["version"] == 2


@pytest.mark.parametrize(
    ("value", "word"),
    [("abc", "expected 4 to"), ("x" * 40_000, "expected 4 to"), ("a\0bcd", "NUL"), (7, "value"), (None, "value")],
)
async def test_a_value_that_cannot_be_one_changes_nothing(world: World, value: Any, word: str) -> None:
    refused = await put(world, value=value)
    assert refused.status in (400, 422) and word in json.dumps(refused.value)
    assert (await world.ask("GET", "/v1/projects/shop/secrets")).value["items"] == []


async def test_only_the_node_of_the_attempt_is_given_them(world: World) -> None:
    """The project's own before the cluster's; a node without the attempt and a person get nothing; what is missing is named."""
    await put(world)
    await world.ask("PUT", "/v1/secrets/db", {"value": "the cluster's"}, role=Role.ADMIN)
    await world.ask("PUT", "/v1/secrets/shared", {"value": "for all"}, role=Role.ADMIN)
    job = {"kind": "Job", "apiVersion": "igor/v1", "name": "j", "command": "true", "secrets": {"DB": "db", "SHARED": "shared"}}
    pushed = await world.ask("PUT", "/v1/projects/shop", {"definitions": [job]}, role=Role.DEPLOYER, If_None_Match="*")
    assert pushed.status in (200, 201), pushed.value
    run = (await world.ask("POST", "/v1/jobs/j/runs", {}, role=Role.OPERATOR)).value["id"]
    placement = commands.Placement(run=run, stage="main", node="n1", attempt=f"{run}.main.1", renew_hash="")
    world.cluster.do(commands.AssignStages(term=1, placements=(placement,)))

    async def given(token: str) -> Any:
        return await world.ask("POST", f"/v1/attempts/{run}.main.1/secrets", role=None, Authorization=f"Bearer {token}")

    own = await given(node_token("n1"))
    assert (own.status, own.value) == (200, {"values": {"DB": VALUE, "SHARED": "for all"}})
    assert (await given(node_token("n2"))).status == 403
    assert (await world.ask("POST", f"/v1/attempts/{run}.main.1/secrets", role=Role.ADMIN)).status == 403
    assert (await world.ask("POST", "/v1/attempts/nothing/secrets", role=None, Authorization=f"Bearer {node_token('n1')}")).status == 404
    users = await world.ask("GET", "/v1/projects/shop/secrets/db")
    assert (users.value["jobs"], users.value["uses"]) == (["shop/j"], [])
    assert (await world.ask("GET", "/v1/secrets/db")).value["jobs"] == []  # the project has its own
    at = wall_now()
    events = (AttemptEvent(f"{run}.main.1", 1, "held", at), AttemptEvent(f"{run}.main.1", 2, "try_started", at, try_n=1))
    world.cluster.do(commands.ReportEvents(node="n1", events=events))
    await put(world, value="rotated since")
    (use,) = (await world.ask("GET", "/v1/projects/shop/secrets/db")).value["uses"]
    assert (use["run"], use["job"], use["stage"], use["attempt"], use["version"]) == (run, "shop/j", "main", 1, 1)
    assert [use["version"] for use in (await world.ask("GET", "/v1/secrets/shared")).value["uses"]] == [1]
    assert (await world.ask("GET", "/v1/secrets/db")).value["uses"] == []
    await world.ask("DELETE", "/v1/secrets/shared", role=Role.ADMIN)
    refused = (await given(node_token("n1"))).value
    assert list(refused) == ["refuse"] and "secret shared is not set in project shop" in refused["refuse"]


JOB = {"kind": "Job", "apiVersion": "igor/v1", "name": "j", "command": "true", "secrets": {"DB": "db", "X": "never-set"}}


async def test_a_push_says_which_secrets_are_not_set(world: World) -> None:
    """A warning, not a refusal: a project may come before its secrets. Those of the cluster count, those of another project do not."""
    await world.ask("PUT", "/v1/secrets/db", {"value": VALUE}, role=Role.ADMIN)
    await put(world, "never-set", project="other")
    body = {"definitions": [{**JOB, "source": {"file": "jobs/j.yaml", "line": 3}}]}
    expected = (
        "jobs/j.yaml:3: job shop/j: secrets: never-set is not set, neither in project shop nor for the whole cluster; attempts fail until it is: "
        "igor secret set never-set --project shop"
    )
    planned = await world.ask("POST", "/v1/projects/shop/plan", body)
    pushed = await world.ask("PUT", "/v1/projects/shop", body, role=Role.DEPLOYER, If_None_Match="*")
    for answer in (planned, pushed):
        assert answer.status in (200, 201) and answer.value["warnings"] == [expected]
    await put(world, "never-set")
    assert (await world.ask("POST", "/v1/projects/shop/plan", body)).value["warnings"] == []


async def test_who_uses_it_is_found_in_any_number_of_jobs(world: World) -> None:
    """Not on the first page of them alone."""
    await put(world)
    others = [{**JOB, "name": f"a{number:04}", "secrets": {}} for number in range(JOBS_PER_PAGE)]
    pushed = await world.ask(
        "PUT", "/v1/projects/shop", {"definitions": [*others, {**JOB, "name": "z", "secrets": {"DB": "db"}}]}, role=Role.DEPLOYER, If_None_Match="*"
    )
    assert pushed.status in (200, 201), pushed.value
    assert (await world.ask("GET", "/v1/projects/shop/secrets/db")).value["jobs"] == ["shop/z"]
