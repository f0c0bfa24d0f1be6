"""Nodes through the API: joining and leaving, the stream to the leader, renewals of leases, the cluster's view."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest

from igor_node.http.auth import hash_secret
from igor_node.ledger import commands
from igor_node.words import Role
from tests.unit.http.test_http_jobs import pushed
from tests.unit.http.world import KEY, TOKENS, World, node_secret, node_token

NEW = {"id": "new-node", "name": "n9", "address": "127.0.0.1:9", "labels": {"zone": "eu"}, "slots": 2, "version": "1.2.3"}


async def join(world: World, **changes: Any) -> Any:
    headers = {"Authorization": f"Bearer {TOKENS[Role.NODE]}"}
    return await world.ask("POST", "/v1/nodes", {**NEW, **changes}, role=None, node=world.nodes[sorted(world.nodes)[-1]], **headers)


async def test_a_node_joins(three: World) -> None:
    """Through any node; it gets a token of its own, the cluster's key, and whom to connect to."""
    answer = await join(three)
    assert (answer.status, answer.value["cluster"], answer.value["key"]) == (201, "test-cluster", f"1 {KEY.hex()}\n")
    assert [member["id"] for member in answer.value["members"]] == ["n1", "n2", "n3"]
    me = await three.ask("GET", "/v1/whoami", role=None, Authorization=f"Bearer {answer.value['token']}")
    assert (me.value["role"], me.value["node"]) == ("node", "new-node")
    nodes = (await three.ask("GET", "/v1/cluster")).value["nodes"]
    (shown,) = [node for node in nodes if node["name"] == "n9"]
    assert (shown["role"], shown["labels"], shown["slots"], shown["address"]) == ("worker", {"zone": "eu"}, 2, "http://127.0.0.1:9")


async def test_a_node_that_joins_twice_is_one_node(world: World) -> None:
    """The first answer was lost: the second is the same."""
    first, again = await join(world), await join(world)
    assert (first.status, again.status) == (201, 200) and first.value["token"] == again.value["token"]


async def test_a_node_comes_back_with_another_address(world: World) -> None:
    token = (await join(world)).value["token"]
    body = {**NEW, "address": "127.0.0.1:10", "cluster": "test-cluster"}
    answer = await world.ask("POST", "/v1/nodes", body, role=None, Authorization=f"Bearer {token}")
    assert (answer.status, answer.value["token"]) == (200, token)


async def test_a_node_that_left_and_joins_again_gets_a_new_token(world: World) -> None:
    first = (await join(world)).value["token"]
    assert (await world.ask("DELETE", "/v1/nodes/new-node")).status == 200
    assert (await world.ask("GET", "/v1/cluster", role=None, Authorization=f"Bearer {first}")).status == 401
    second = (await join(world)).value["token"]
    assert second != first
    assert (await world.ask("GET", "/v1/cluster", role=None, Authorization=f"Bearer {second}")).status == 200


@pytest.mark.parametrize(
    "changes, status, words",
    [
        pytest.param({"cluster": "another"}, 421, "another", id="of another cluster"),
        pytest.param({"name": "n1"}, 409, "n1", id="a name that is taken"),
        pytest.param({"name": "bad name"}, 422, "name", id="no name"),
        pytest.param({"id": "a/b"}, 422, "id", id="no id"),
        pytest.param({"address": "nowhere"}, 422, "address", id="no address"),
        pytest.param({"slots": -1}, 422, "slots", id="no slots"),
    ],
)
async def test_who_may_not_join(world: World, changes: dict[str, Any], status: int, words: str) -> None:
    answer = await join(world, **changes)
    assert answer.status == status and words in str(answer.value), answer.value


async def test_a_nodes_token_is_good_for_that_node_alone(world: World) -> None:
    token = (await join(world)).value["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await world.ask("POST", "/v1/nodes", {**NEW, "id": "other", "name": "n8"}, role=None, **headers)).status == 403
    assert (await world.ask("DELETE", "/v1/nodes/n1", role=None, **headers)).status == 403
    left = await world.ask("POST", "/v1/nodes/n9/leave", {}, role=None, **headers)
    assert (left.status, left.value["left"]) == (200, True)


# --- the stream

ENDED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


def ws(world: World, node: str, name: str, token: str | None = None) -> Any:
    """The stream of a node that joined under this id."""
    if token is None:
        token = node_token(node)
        world.cluster.add(node, voter=False, token_hash=hash_secret(node_secret(node)))
    return world.session.ws_connect(f"{world.nodes[name].url}/v1/nodes/{node}/stream", headers={"Authorization": f"Bearer {token}"})


async def test_a_stream_goes_to_the_leader(world: World) -> None:
    """Frames both ways until the leader's side ends it."""
    async with ws(world, "n7", "n1") as socket:
        await socket.send_bytes(b"one")
        assert await socket.receive_bytes(timeout=5) == b"one"
        await socket.send_bytes(b"bye")
        assert (await socket.receive(timeout=5)).type in ENDED
    assert world.leader.streams.nodes == ["n7"]


async def test_a_text_frame_ends_the_stream(world: World) -> None:
    async with ws(world, "n7", "n1") as socket:
        await socket.send_str("hello")
        assert (await socket.receive(timeout=5)).type in ENDED


async def test_a_stream_at_a_follower_is_sent_to_the_leader(three: World) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with ws(three, "n7", "n2"):
            pass
    assert caught.value.status == 421 and caught.value.headers is not None
    assert caught.value.headers["Igor-Leader"] == three.leader.url


async def test_a_stream_without_the_right_token(world: World) -> None:
    own = (await join(world)).value["token"]
    for node, token, status in [("n7", "", 401), ("n7", TOKENS[Role.DEPLOYER], 403), ("n7", own, 403)]:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with ws(world, node, "n1", token):
                pass
        assert caught.value.status == status


async def test_stopping_ends_streams(world: World) -> None:
    """A node that stops does not wait for its streams."""
    socket = await ws(world, "n7", "n1")
    events = await world.session.get(f"{world.leader.url}/v1/events", headers={"Authorization": f"Bearer {TOKENS[Role.VIEWER]}"})
    async with asyncio.timeout(0.9):
        await world.stop("n1")
    assert (await socket.receive(timeout=5)).type in ENDED
    with contextlib.suppress(aiohttp.ClientPayloadError):
        await asyncio.wait_for(events.read(), 5)


# --- renewal


async def an_attempt(world: World) -> str:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    attempt = f"{run}.main.1"
    placement = commands.Placement(run=run, stage="main", node="n1", attempt=attempt, renew_hash=hash_secret("good"))
    world.cluster.do(commands.AssignStages(term=1, placements=(placement,)))
    return attempt


async def renew(world: World, attempt: str, name: str, token: str = "good") -> Any:
    return await world.ask("POST", f"/v1/attempts/{attempt}/renew", node=world.nodes[name], role=None, Authorization=f"Bearer {token}")


async def test_the_leader_renews(three: World) -> None:
    attempt = await an_attempt(three)
    answer = await renew(three, attempt, "n1")
    assert (answer.status, answer.value["renewed"], answer.value["voter"]) == (200, True, True)
    assert three.leader.renewals == [(attempt, "good")]


async def test_others_say_who_leads(three: World) -> None:
    answer = await renew(three, await an_attempt(three), "n2")
    assert (answer.status, answer.headers["Igor-Leader"]) == (421, three.leader.url)


async def test_voters_that_know_no_leader_say_so(three: World) -> None:
    """A majority of these answers keeps a command alive through an election."""
    attempt = await an_attempt(three)
    three.cluster.lead(None)
    for name in three.nodes:
        answer = await renew(three, attempt, name)
        assert (answer.status, answer.value["no_leader"], answer.value["voter"], answer.value["node"]) == (200, True, True, name)
        assert answer.value["for_s"] > 0


async def test_a_leader_without_its_majority_is_none(three: World) -> None:
    attempt = await an_attempt(three)
    three.nodes["n1"].replica.quorum = False
    assert (await renew(three, attempt, "n1")).value["no_leader"] is True


@pytest.mark.parametrize("leader", ["n1", None])
@pytest.mark.parametrize("attempt, token", [("given", "wrong"), ("0000.main.1", "good!"), ("nonsense", "x")])
async def test_a_renewal_needs_the_attempts_own_token(three: World, leader: str | None, attempt: str, token: str) -> None:
    known = await an_attempt(three)
    three.cluster.lead(leader)
    assert (await renew(three, known if attempt == "given" else attempt, "n1", token)).status == 401


async def test_a_renewal_without_a_token(world: World) -> None:
    assert (await world.ask("POST", "/v1/attempts/a.main.1/renew", role=None)).status == 401


# --- the cluster


async def test_the_cluster_as_any_node_sees_it(three: World) -> None:
    for node in three.nodes.values():
        seen = (await three.ask("GET", "/v1/cluster", node=node, role=Role.NODE)).value
        assert (seen["id"], seen["leader"], seen["voters"], seen["highly_available"]) == ("test-cluster", "n1", ["n1", "n2", "n3"], True)
        shown = {one["name"]: (one["role"], one["state"], one["clock_error_s"]) for one in seen["nodes"]}
        assert shown == dict.fromkeys(("n1", "n2", "n3"), ("voter", "up", 0.001))
        assert seen["commit_index"] >= seen["applied_index"] > 0 and seen["quorum"] is True and seen["node"] == node.name


async def test_one_node_is_not_highly_available(world: World) -> None:
    assert (await world.ask("GET", "/v1/cluster")).value["highly_available"] is False


async def test_a_silent_voter_is_shown(three: World) -> None:
    three.cluster.do(commands.NodeChanged(node="n3", state="silent", reason="not heard for 5 s"))
    seen = (await three.ask("GET", "/v1/cluster")).value
    assert {one["name"]: one["state"] for one in seen["nodes"]}["n3"] == "silent" and seen["highly_available"] is False


async def test_what_only_the_leader_knows_is_left_out_without_it(three: World) -> None:
    three.cluster.lead(None)
    seen = (await three.ask("GET", "/v1/cluster", node=three.nodes["n2"])).value
    assert seen["leader"] is None and all(one["clock_error_s"] is None for one in seen["nodes"])


async def test_who_leads(three: World) -> None:
    for name, here in (("n1", True), ("n2", False)):
        seen = (await three.ask("GET", "/v1/leader", node=three.nodes[name], role=Role.NODE)).value
        assert (seen["leader"], seen["address"], seen["here"]) == ("n1", three.leader.url, here)


# --- health


async def test_ready_only_with_a_quorum(three: World) -> None:
    node = three.leader
    assert (await three.ask("GET", "/readyz", node=node, role=None)).status == 200
    three.cluster.lead(None)
    assert (await three.ask("GET", "/readyz", node=node, role=None)).status == 503
    assert (await three.ask("GET", "/healthz", node=node, role=None)).status == 200


async def test_a_replica_that_stopped_is_not_healthy(world: World) -> None:
    world.leader.replica.halted = "the disk is full"
    answer = await world.ask("GET", "/healthz", role=None)
    assert answer.status == 503 and "disk is full" in answer.value["detail"]


async def test_figures(world: World) -> None:
    text = (await world.ask("GET", "/metrics", role=Role.VIEWER)).value.decode()
    assert "igor_raft_leader 1" in text and "# TYPE igor_runs_running gauge" in text


# --- what a wrapper tells while its node is down


async def tell(world: World, attempt: str, name: str, events: list[dict[str, Any]], token: str = "good") -> Any:
    path = f"/v1/attempts/{attempt}/events"
    return await world.ask("POST", path, {"events": events}, node=world.nodes[name], role=None, Authorization=f"Bearer {token}")


def whole_life(attempt: str) -> list[dict[str, Any]]:
    kinds: list[dict[str, Any]] = [
        {"kind": "held"},
        {"kind": "try_started", "try_n": 1},
        {"kind": "try_ended", "try_n": 1, "state": "succeeded", "exit_code": 0},
        {"kind": "ended", "state": "succeeded", "exit_code": 0},
    ]
    return [{"attempt": attempt, "seq": seq, "at": 1_900_000_000_000_000_000 + seq, **event} for seq, event in enumerate(kinds, 1)]


async def test_a_wrapper_reports_its_end_itself(three: World) -> None:
    """The run ends though its node is down; the same report again changes nothing."""
    attempt = await an_attempt(three)
    for _ in range(2):
        answer = await tell(three, attempt, "n1", whole_life(attempt))
        assert (answer.status, answer.value["upto"]) == (200, 4)
    run = (await three.ask("GET", f"/v1/runs/{attempt.split('.')[0]}")).value
    assert run["state"] == "succeeded" and len(run["stages"][0]["attempts"][0]["tries"]) == 1


async def test_a_report_is_for_the_leader_and_for_its_own_attempt(three: World) -> None:
    attempt = await an_attempt(three)
    elsewhere = await tell(three, attempt, "n2", whole_life(attempt))
    assert (elsewhere.status, elsewhere.headers["Igor-Leader"]) == (421, three.leader.url)
    assert (await tell(three, attempt, "n1", whole_life("other.main.1"))).status == 403
