"""A backup and a comparison of digests through the API: who may, how many at once, what comes, and what a broken copy leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest

from igor_node.backup import Check, Header
from igor_node.words import Role
from tests.unit.http.test_http_jobs import pushed
from tests.unit.http.world import TOKENS, World


@pytest.fixture
def keeping(three: World, tmp_path: Path) -> World:
    """Nodes that can copy their ledger; `test_http_listener` and others show that they need not."""
    for node in three.nodes.values():
        folder = tmp_path / node.name
        folder.mkdir()
        give(
            node.services, snapshot=three.cluster.ledger.snapshot, folder=folder, addresses=lambda: {n.name: n.url[7:] for n in three.nodes.values()}
        )
    return three


def give(services: Any, **parts: Any) -> None:
    """A world's services are made before its tests; frozen, so that nothing else changes them."""
    assert dataclasses.is_dataclass(services)
    for name, value in parts.items():
        object.__setattr__(services, name, value)


def read(data: bytes) -> tuple[Header, bytes]:
    ledger = bytearray()
    check = Check("it", ledger.extend)
    check.feed(data)
    return check.finish(), bytes(ledger)


async def test_it_is_the_ledger_of_the_node_that_was_asked(keeping: World) -> None:
    await pushed(keeping)
    answer = await keeping.ask("GET", "/v1/backup", node=keeping.follower)
    header, ledger = read(answer.value)
    assert (answer.status, header.cluster, header.name) == (200, "test-cluster", keeping.follower.name)
    assert header.index == keeping.cluster.index and ledger.startswith(b"SQLite format 3\0")
    assert not list(keeping.follower.services.folder.iterdir())


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.DEPLOYER, Role.NODE])
async def test_it_is_for_admins_alone(keeping: World, role: Role) -> None:
    assert (await keeping.ask("GET", "/v1/backup", role=role)).status == 403


async def test_one_at_a_time(keeping: World) -> None:
    """The second is told so, and afterwards there is nothing in the way."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> Any:
        begun.set()
        assert go_on.wait(10)
        return keeping.cluster.ledger.snapshot(path)

    give(keeping.leader.services, snapshot=slow)
    first = asyncio.create_task(keeping.ask("GET", "/v1/backup"))
    await asyncio.to_thread(begun.wait, 10)
    second = await keeping.ask("GET", "/v1/backup")
    assert second.status == 429 and "already" in second.value["detail"]
    go_on.set()
    assert read((await first).value)[0].index == keeping.cluster.index
    assert (await keeping.ask("GET", "/v1/backup")).status == 200


async def test_a_disk_without_room_is_said(keeping: World) -> None:
    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    give(keeping.leader.services, snapshot=full)
    answer = await keeping.ask("GET", "/v1/backup")
    assert answer.status == 503 and "No space left" in answer.value["detail"]


async def test_all_members_are_compared(keeping: World) -> None:
    """These nodes share one ledger, so all are the same."""
    found = (await keeping.ask("GET", "/v1/verify", role=Role.VIEWER)).value
    assert (found["same"], found["complete"], found["entry"]) == (True, True, keeping.cluster.index)
    assert [(row["name"], row["role"], row["verdict"]) for row in found["nodes"]] == [(name, "voter", "same") for name in ("n1", "n2", "n3")]


async def test_a_member_that_cannot_be_asked_is_named(keeping: World) -> None:
    await keeping.stop("n3")
    found = (await keeping.ask("GET", "/v1/verify")).value
    assert (found["same"], found["complete"]) == (True, False)
    (gone,) = [row for row in found["nodes"] if row["name"] == "n3"]
    assert gone["verdict"] == "not reached" and gone["reason"] and gone["digest"] is None


async def test_a_node_says_who_it_is_and_whom_it_reaches_without_a_quorum(keeping: World) -> None:
    keeping.follower.replica.quorum = False
    found = (await keeping.ask("GET", "/v1/node", node=keeping.follower, role=Role.NODE)).value
    assert (found["id"], found["cluster"], found["epoch"]) == (keeping.follower.name, "test-cluster", 0)
    assert found["addresses"] == {node.name: node.url[7:] for node in keeping.nodes.values()}
    assert (await keeping.ask("GET", "/v1/node", role=None)).status == 401


async def test_a_node_of_another_epoch_may_not_join(keeping: World) -> None:
    body = {"id": "old", "name": "n9", "address": "127.0.0.1:9", "cluster": "test-cluster", "epoch": 1}
    answer = await keeping.ask("POST", "/v1/nodes", body, role=None, Authorization=f"Bearer {TOKENS[Role.NODE]}")
    assert answer.status == 421 and "epoch 1" in answer.value["detail"] and "--reset" in answer.value["hint"]
