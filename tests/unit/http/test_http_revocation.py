"""What a token opened ends with it, within a second, at whatever node: requests, streams of events, followed logs, sockets, sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from igor_node.http import sessions
from igor_node.http.auth import hash_secret
from igor_node.ledger import commands
from igor_node.words import SECOND, wall_now
from tests.unit.http.test_http_jobs import pushed
from tests.unit.http.world import KEY, Node, World, node_secret, node_token

WITHIN_S = 1.0


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[World]:
    """A leader, a follower, and a node that holds no ledger."""
    async with World(tmp_path, "n1", "n2", "w", workers=["w"]) as nodes:
        yield nodes


async def made(world: World, **body: Any) -> tuple[str, dict[str, str]]:
    """A token's id, and the header that brings it."""
    answer = (await world.ask("POST", "/v1/tokens", {"role": "operator", **body})).value
    return answer["id"], {"Authorization": f"Bearer {answer['token']}"}


async def revoke(world: World, token: str) -> None:
    assert (await world.ask("DELETE", f"/v1/tokens/{token}")).status == 200


async def logged_in(world: World, headers: dict[str, str]) -> dict[str, str]:
    """The cookie of a session of that token."""
    link = (await world.ask("POST", "/v1/session/links", {}, role=None, **headers)).value["url"]
    opened = await world.ask("GET", link.removeprefix(world.leader.url), role=None)
    world.session.cookie_jar.clear()
    return {"Cookie": opened.headers["Set-Cookie"].split(";")[0]}


async def is_closed(answer: aiohttp.ClientResponse) -> None:
    """Reads on until the server ends it; whoever follows sees that this was not the end in order."""
    with pytest.raises(aiohttp.ClientPayloadError):
        async with asyncio.timeout(5):
            while await answer.content.readany():
                pass


async def opened(world: World, node: Node, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
    answer = await world.session.get(node.url + path, headers=headers)
    assert answer.status == 200, await answer.text()
    return answer


async def a_running_log(world: World) -> str:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    return f"/v1/runs/{run}/logs?follow=1"


@pytest.mark.parametrize("name", ["n1", "n2", "w"])
async def test_a_revoked_token_is_refused_at_every_node_at_once(fleet: World, name: str) -> None:
    token, headers = await made(fleet)
    node = fleet.nodes[name]
    assert (await fleet.ask("GET", "/v1/jobs", node=node, role=None, **headers)).status == 200
    await revoke(fleet, token)
    for path in ("/v1/jobs", "/v1/whoami", "/v1/leader", "/"):
        assert (await fleet.ask("GET", path, node=node, role=None, **headers)).status == 401


@pytest.mark.parametrize("name", ["n1", "n2", "w"])
@pytest.mark.parametrize("what", ["events", "logs"])
@pytest.mark.parametrize("how", ["token", "session"])
async def test_streams_end_with_their_token(fleet: World, name: str, what: str, how: str) -> None:
    """Others' streams go on."""
    token, headers = await made(fleet)
    _, others = await made(fleet)
    path = "/v1/events" if what == "events" else await a_running_log(fleet)
    bring = headers if how == "token" else await logged_in(fleet, headers)
    mine = await opened(fleet, fleet.nodes[name], path, bring)
    theirs = await opened(fleet, fleet.nodes[name], "/v1/events", others)
    await theirs.content.readuntil(b"\n\n")
    began = time.monotonic()
    await revoke(fleet, token)
    await is_closed(mine)
    assert time.monotonic() - began < WITHIN_S
    fleet.cluster.do(commands.NodeChanged(node="n2", state="draining"))
    async with asyncio.timeout(5):
        while b"draining" not in await theirs.content.readuntil(b"\n\n"):
            pass
    theirs.close()


@pytest.mark.parametrize("how", ["token", "session"])
async def test_streams_end_when_their_token_expires(fleet: World, how: str) -> None:
    _, headers = await made(fleet, ttl_s=60)
    bring = headers if how == "token" else await logged_in(fleet, headers)
    mine = await opened(fleet, fleet.leader, "/v1/events", bring)
    fleet.clock.ahead_ns = 60 * SECOND
    await is_closed(mine)
    assert (await fleet.ask("GET", "/v1/jobs", role=None, **bring)).status == 401


async def test_a_session_of_a_token_without_end_ends_all_the_same(fleet: World) -> None:
    _, headers = await made(fleet)
    bring = await logged_in(fleet, headers)
    mine = await opened(fleet, fleet.leader, "/v1/events", bring)
    fleet.clock.ahead_ns = 13 * 3600 * SECOND
    await is_closed(mine)
    assert (await fleet.ask("GET", "/v1/jobs", role=None, **bring)).status == 401
    assert (await fleet.ask("GET", "/v1/jobs", role=None, **headers)).status == 200


@pytest.mark.parametrize("name", ["n1", "n2", "w"])
async def test_logging_out_ends_the_session_everywhere(fleet: World, name: str) -> None:
    """Wherever its cookie was copied to, and what it has open; other sessions of the token go on."""
    _, headers = await made(fleet)
    mine, other = await logged_in(fleet, headers), await logged_in(fleet, headers)
    stream = await opened(fleet, fleet.nodes["n2"], "/v1/events", mine)
    out = await fleet.ask("DELETE", "/v1/session", node=fleet.nodes[name], role=None, Sec_Fetch_Site="same-origin", **mine)
    assert out.status == 200 and "Max-Age=0" in out.headers["Set-Cookie"]
    await is_closed(stream)
    for node in fleet.nodes.values():
        assert (await fleet.ask("GET", "/v1/jobs", node=node, role=None, **mine)).status == 401
        assert (await fleet.ask("GET", "/v1/jobs", node=node, role=None, **other)).status == 200


async def test_the_socket_of_a_node_that_was_removed_is_closed(fleet: World) -> None:
    fleet.cluster.add("n7", voter=False, token_hash=hash_secret(node_secret("n7")))
    headers = {"Authorization": f"Bearer {node_token('n7')}"}
    socket = await fleet.session.ws_connect(f"{fleet.leader.url}/v1/nodes/n7/stream", headers=headers)
    await socket.send_bytes(b"one")
    assert await socket.receive_bytes(timeout=5) == b"one"
    fleet.cluster.do(commands.RemoveNode(node="n7"))
    assert (await socket.receive(timeout=WITHIN_S)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await fleet.session.ws_connect(f"{fleet.leader.url}/v1/nodes/n7/stream", headers=headers)
    assert caught.value.status == 401


async def test_a_link_of_a_token_that_was_revoked_meanwhile_opens_nothing(fleet: World) -> None:
    token, headers = await made(fleet)
    link = (await fleet.ask("POST", "/v1/session/links", {}, role=None, **headers)).value["url"]
    await revoke(fleet, token)
    answer = await fleet.ask("GET", link.removeprefix(fleet.leader.url), role=None)
    assert answer.status == 401 and "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("name", ["n2", "w"])
async def test_a_node_without_a_ledger_lets_others_log_in(fleet: World, name: str) -> None:
    """It has no key to sign with: the link leads to a node that has."""
    link = (await fleet.ask("POST", "/v1/session", {}, node=fleet.nodes[name])).value["url"]
    host = next(node for node in fleet.nodes.values() if link.startswith(node.url))
    assert host.holds_ledger
    assert (await fleet.ask("GET", link.removeprefix(host.url), node=host, role=None)).status == 303
    assert (await fleet.ask("GET", "/v1/whoami", node=fleet.nodes["w"], role=None)).status == 200


async def test_a_revocation_while_a_token_is_looked_up_is_not_forgotten(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a query that began before it must not be remembered after it."""
    token, headers = await made(fleet)
    reads = fleet.leader.services.reads
    original = reads.query

    async def query(function: Any) -> Any:
        found = await original(function)
        fleet.cluster.do(commands.RevokeToken(token=token))
        return found

    monkeypatch.setattr(reads, "query", query)
    await fleet.ask("GET", "/v1/whoami", role=None, **headers)
    monkeypatch.setattr(reads, "query", original)
    assert (await fleet.ask("GET", "/v1/whoami", role=None, **headers)).status == 401


async def test_a_session_signed_long_before_its_token_was_made_is_none(fleet: World) -> None:
    cookie = sessions.make_session(KEY, "never-made", wall_now())
    for node in fleet.nodes.values():
        answer = await fleet.ask("GET", "/v1/jobs", node=node, role=None, Cookie=f"{fleet.cookie}={cookie}")
        assert answer.status == 401
