"""Who did what: written where it takes effect, found by whom, what and where, and never with a secret in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from igor_node.http.auth import compose_token, hash_secret
from igor_node.ledger import commands
from igor_node.words import Role
from tests.unit.http.world import World


async def deeds(world: World, query: str = "", **how: Any) -> list[tuple[str, str, str | None]]:
    answer = await world.ask("GET", f"/v1/activity{query}", **how)
    assert answer.status == 200, answer.value
    return [(item["action"], item["object"], item["project"]) for item in answer.value["items"]]


async def busy(world: World) -> str:
    """A push, a run, a pause and a resume, a secret and a token; the token's id."""
    await world.push("shop", {"name": "j", "command": "true"}, If_None_Match="*")
    await world.ask("POST", "/v1/jobs/j/runs", {"params": {}}, role=Role.OPERATOR)
    await world.ask("POST", "/v1/jobs/j/pause", {"reason": "a release"}, role=Role.OPERATOR)
    await world.ask("POST", "/v1/jobs/j/resume", {}, role=Role.OPERATOR)
    await world.ask("PUT", "/v1/projects/shop/secrets/db", {"value": "hush-hush"}, role=Role.DEPLOYER)
    made = await world.ask("POST", "/v1/tokens", {"role": "viewer", "name": "screen"})
    return str(made.value["id"])


async def test_every_change_says_who_made_it(world: World) -> None:
    token = await busy(world)
    found = (await world.ask("GET", "/v1/activity")).value["items"]
    assert [item["action"] for item in found] == ["token.create", "secret.set", "job.resume", "job.pause", "run.create", "project.push"]
    assert all(item["address"] == "127.0.0.1" and item["at"].endswith("Z") for item in found)
    created, secret, _, pause, _, push = found
    assert (created["object"], created["actor"], created["token"]) == (token, "the admin (t-admin)", "t-admin")
    assert created["after"]["name"] == "screen" and created["after"]["role"] == "viewer"
    assert (pause["actor"], pause["object"], pause["project"]) == ("the operator (t-operator)", "shop/j", "shop") and pause["after"][
        "reason"
    ] == "a release"
    assert (push["object"], push["before"], push["after"]["version"]) == ("shop", {"version": 0}, 1)
    assert secret["object"] == "db" and "hush-hush" not in str(found) and "sealed" not in str(found) and "hash" not in str(found)


async def test_what_was_refused_is_no_deed_and_a_retry_is_one(world: World) -> None:
    await busy(world)
    before = await deeds(world)
    assert (await world.ask("POST", "/v1/jobs/j/pause", {}, role=Role.VIEWER)).status == 403
    assert (await world.ask("DELETE", "/v1/tokens/nobody")).status == 404
    key = "0" * 20
    runs = [(await world.ask("POST", "/v1/jobs/j/runs", {}, role=Role.OPERATOR, Idempotency_Key=key)).value["id"] for _ in range(2)]
    assert await deeds(world) == [("run.create", runs[0], "shop"), *before] and runs[0] == runs[1]


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("?action=token", ["token.create"]),
        ("?action=job", ["job.resume", "job.pause"]),
        ("?action=job.pause", ["job.pause"]),
        ("?action=jo", []),
        ("?actor=operator", ["job.resume", "job.pause", "run.create"]),
        ("?actor=t-deployer", ["secret.set", "project.push"]),
        ("?object=shop/j", ["job.resume", "job.pause"]),
        ("?project=shop&limit=2", ["secret.set", "job.resume"]),
        ("?project=web", []),
        ("?since=2100-01-01T00:00:00Z", []),
        ("?until=2000-01-01T00:00:00Z", []),
    ],
)
async def test_what_is_sought(world: World, query: str, actions: list[str]) -> None:
    await busy(world)
    assert [action for action, _, _ in await deeds(world, query)] == actions


async def test_pages_go_on_where_the_one_before_ended(world: World) -> None:
    await busy(world)
    seen, cursor = [], ""
    while True:
        page = (await world.ask("GET", f"/v1/activity?limit=2{cursor}")).value
        seen += [item["action"] for item in page["items"]]
        if page["next"] is None:
            break
        await world.ask("POST", "/v1/jobs/j/pause", {}, role=Role.OPERATOR)  # what comes meanwhile does not move it
        cursor = f"&cursor={page['next']}"
    assert seen == ["token.create", "secret.set", "job.resume", "job.pause", "run.create", "project.push"]
    assert (await world.ask("GET", "/v1/activity?cursor=x")).status == 400


async def test_a_token_of_a_project_sees_its_own(world: World) -> None:
    await busy(world)
    await world.push("web", {"name": "j", "command": "true"}, If_None_Match="*")
    world.cluster.do(commands.CreateToken(token="w", hash=hash_secret("w"), role="viewer", projects=("web",)))
    bound = {"role": None, "Authorization": f"Bearer {compose_token('w', 'w')}"}
    assert await deeds(world, **bound) == [("project.push", "web", "web")]
    assert await deeds(world, "?project=shop", **bound) == []


async def test_a_follower_tells_where_the_request_came_from(three: World, tmp_path: Path) -> None:
    """A write by another node is not the other node's deed."""
    await three.ask("POST", "/v1/tokens", {"role": "viewer"}, node=three.nodes["n2"])
    (item,) = (await three.ask("GET", "/v1/activity")).value["items"]
    assert (item["actor"], item["address"]) == ("the admin (t-admin)", "127.0.0.1")
