"""Any node answers everything: writes reach the leader, whatever happens to it on the way, and are done once; reads say how old they are."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from igor_node.http import limits
from igor_node.words import SECOND, Role, new_id, wall_now
from raft.interface import NotLeader
from tests.harness.direct import DirectReplica
from tests.unit.http.world import Answer, World

BODY = {"role": "viewer", "name": "made"}


async def make(world: World, **options: Any) -> Answer:
    return await world.ask("POST", "/v1/tokens", BODY, **options)


async def made(world: World) -> int:
    tokens = (await world.ask("GET", "/v1/tokens")).value["items"]
    return sum(token["name"] == "made" for token in tokens)


def heard_of_no_leader(replica: DirectReplica) -> asyncio.Event:
    """Set when somebody on this node has asked for the leader in vain."""
    heard, ask = asyncio.Event(), replica.leader

    def leader() -> str | None:
        found = ask()
        if found is None:
            heard.set()
        return found

    replica.leader = leader  # type: ignore[method-assign]
    return heard


async def test_a_write_to_a_follower_is_done_by_the_leader(three: World) -> None:
    for node in three.nodes.values():
        answer = await make(three, node=node)
        assert answer.status == 201 and int(answer.headers["Igor-Index"]) == three.cluster.index
    assert (three.leader.replica.proposals, await made(three)) == (3, 3)


async def test_the_followers_answer_can_be_read_everywhere(three: World) -> None:
    """A read that carries the write's Igor-Index sees it."""
    index = (await make(three, node=three.follower)).headers["Igor-Index"]
    for node in three.nodes.values():
        seen = await three.ask("GET", "/v1/tokens", node=node, Igor_Index=index)
        assert seen.status == 200 and int(seen.headers["Igor-Index"]) >= int(index)


async def test_a_refusal_comes_back_as_it_is(three: World) -> None:
    answer = await three.ask("POST", "/v1/tokens", {"role": "king"}, node=three.follower)
    assert answer.status == 422 and "king" in answer.value["faults"][0]


async def test_the_role_is_checked_at_the_node_that_is_asked(three: World) -> None:
    assert (await make(three, node=three.follower, role=Role.VIEWER)).status == 403


async def test_no_leader_is_503_in_time(three: World) -> None:
    """With a reason, Retry-After, and nothing done."""
    three.cluster.lead(None)
    began = time.monotonic()
    answer = await make(three, node=three.nodes["n2"])
    assert answer.status == 503 and answer.headers["Retry-After"] == "1" and time.monotonic() - began < 5
    assert answer.value["type"] == "urn:igor:Unavailable" and "leader" in answer.value["detail"]


async def test_without_a_quorum_the_reason_counts_the_voters(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WRITE_WITHIN_S", 0.3)
    for node in three.nodes.values():
        node.replica.quorum = False
    answer = await make(three, node=three.nodes["n1"])
    assert answer.status == 503 and "no quorum: 1 of 3 voters" in answer.value["detail"]


async def test_a_write_waits_for_the_next_leader(three: World) -> None:
    """A failover takes two seconds: the client need not know."""
    three.cluster.lead(None)
    waits = heard_of_no_leader(three.nodes["n2"].replica)
    asking = asyncio.ensure_future(make(three, node=three.nodes["n2"]))
    await asyncio.wait_for(waits.wait(), 5)
    three.cluster.lead("n3")
    assert (await asking).status == 201 and three.nodes["n3"].replica.proposals == 1


async def test_a_write_that_was_done_unheard_is_not_done_twice(three: World) -> None:
    """The leader stepped down after the entry was in the log: the same id gives the first result, secret included."""
    three.leader.replica.hide_next = True
    answer = await make(three, node=three.follower)
    assert (answer.status, await made(three), three.leader.replica.proposals) == (201, 1, 2)
    used = await three.ask("GET", "/v1/whoami", role=None, Authorization=f"Bearer {answer.value['token']}")
    assert (used.status, used.value["role"]) == (200, "viewer")


async def test_a_write_that_was_lost_is_sent_again(three: World) -> None:
    three.leader.replica.lose_next = True
    answer = await make(three, node=three.follower)
    assert (answer.status, await made(three)) == (201, 1)


async def test_the_leader_itself_tries_again(world: World) -> None:
    world.leader.replica.hide_next = True
    assert ((await make(world)).status, await made(world)) == (201, 1)


async def test_an_outcome_that_stays_unknown_says_so(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent, and then no leader any more: perhaps done, ask again with the same key."""
    monkeypatch.setattr(limits, "WRITE_WITHIN_S", 0.5)
    leader = three.leader.replica
    original = leader.propose

    async def propose(command: bytes, timeout: float) -> Any:
        leader.hide_next = True
        try:
            return await original(command, timeout)
        finally:
            three.cluster.lead(None)

    leader.propose = propose  # type: ignore[method-assign]
    answer = await make(three, node=three.follower)
    assert answer.status == 503 and answer.value["type"] == "urn:igor:OutcomeUnknown" and answer.headers["Igor-Outcome"] == "unknown"


async def test_a_key_that_tells_its_time_makes_any_write_once(three: World) -> None:
    """The command line sends such a key with every write: the same key is the same command, the answer is the same."""
    key = new_id(wall_now())
    first = await make(three, node=three.nodes["n2"], Idempotency_Key=key)
    again = await make(three, node=three.nodes["n3"], Idempotency_Key=key)
    assert first.status == again.status == 201 and first.value == again.value and await made(three) == 1


async def test_one_key_at_two_addresses_is_two_commands(three: World) -> None:
    key = new_id(wall_now())
    one = await make(three, Idempotency_Key=key)
    other = await three.ask("DELETE", f"/v1/tokens/{one.value['id']}", Idempotency_Key=key)
    assert (other.status, other.value["revoked"], await made(three)) == (200, True, 0)


async def test_forwarding_never_goes_in_circles(three: World) -> None:
    """A node that was taken for the leader says no, and says that nothing was done."""
    answer = await make(three, node=three.follower, Igor_Forwarded="1")
    assert (answer.status, answer.headers["Igor-Not-Leader"], await made(three)) == (503, "1", 0)


async def test_a_leader_that_hangs_is_given_up_when_another_leads(three: World) -> None:
    """The old leader's process is stopped: it never answers, the next one does."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def hang(command: bytes, timeout: float) -> Any:
        asked.set()
        await release.wait()

    three.leader.replica.propose = hang  # type: ignore[method-assign]
    asking = asyncio.ensure_future(make(three, node=three.nodes["n2"]))
    await asyncio.wait_for(asked.wait(), 5)
    three.cluster.lead("n3")
    answer = await asyncio.wait_for(asking, 5)
    release.set()
    assert (answer.status, three.nodes["n3"].replica.proposals) == (201, 1)


# --- reads


async def test_reads_are_answered_without_a_quorum_and_say_their_age(three: World) -> None:
    for node in three.nodes.values():
        node.replica.quorum = False
    three.clock.ahead_ns = 5 * SECOND
    answer = await three.ask("GET", "/v1/tokens", node=three.nodes["n2"])
    assert answer.status == 200 and float(answer.headers["Igor-Age"]) >= 5
    cluster = (await three.ask("GET", "/v1/cluster", node=three.nodes["n2"])).value
    assert cluster["quorum"] is False and cluster["age_s"] > 0 and "quorum" in cluster["why"]


async def test_with_a_quorum_the_age_is_0(three: World) -> None:
    assert (await three.ask("GET", "/v1/jobs", node=three.follower)).headers["Igor-Age"] == "0"


async def test_an_index_that_is_not_there_yet_is_waited_for(world: World) -> None:
    asking = asyncio.ensure_future(world.ask("GET", "/v1/tokens", Igor_Index=str(world.cluster.index + 1)))
    await asyncio.sleep(0.1)
    assert not asking.done()
    await make(world)
    assert (await asking).status == 200


async def test_an_index_that_does_not_come_is_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INDEX_WITHIN_S", 0.2)
    answer = await world.ask("GET", "/v1/tokens", Igor_Index=str(world.cluster.index + 9))
    assert answer.status == 503 and "applied" in answer.value["detail"]


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 30])
async def test_an_index_that_is_none_is_400(world: World, text: str) -> None:
    assert (await world.ask("GET", "/v1/tokens", Igor_Index=text)).status == 400


async def test_a_consistent_read_is_the_leaders(three: World) -> None:
    answer = await three.ask("GET", "/v1/cluster?consistent=1", node=three.follower)
    assert answer.value["node"] == three.leader.name


async def test_a_consistent_read_without_a_leader_is_503(three: World) -> None:
    three.cluster.lead(None)
    assert (await three.ask("GET", "/v1/jobs?consistent=1", node=three.follower)).status == 503


# --- a node that holds no ledger


async def test_a_worker_asks_others(tmp_path: Path) -> None:
    """It checks no token and reads nothing: whom it asks does."""
    async with World(tmp_path, "n1", "n2", "w", workers=["w"]) as world:
        worker = world.nodes["w"]
        assert (await world.ask("GET", "/v1/cluster", node=worker)).value["node"] in ("n1", "n2")
        assert (await make(world, node=worker)).status == 201
        assert (await world.ask("GET", "/v1/jobs", node=worker, role=None)).status == 401
        assert (await world.ask("GET", "/v1/whoami", node=worker, role=Role.OPERATOR)).value["role"] == "operator"
        assert (await world.ask("GET", "/readyz", node=worker, role=None)).status == 200
        world.cluster.lead(None)
        assert (await world.ask("GET", "/readyz", node=worker, role=None)).status == 503


async def test_a_worker_goes_to_the_next_peer(tmp_path: Path) -> None:
    async with World(tmp_path, "n1", "n2", "w", workers=["w"]) as world:
        world.nodes["n1"].url = "http://127.0.0.1:1"  # nobody listens there
        assert (await world.ask("GET", "/v1/jobs", node=world.nodes["w"])).status == 200


async def test_a_worker_alone_says_so(tmp_path: Path) -> None:
    async with World(tmp_path, "w", workers=["w"]) as world:
        answer = await world.ask("GET", "/v1/jobs", node=world.nodes["w"])
        assert answer.status == 503 and "ledger" in answer.value["detail"]


async def test_a_token_of_this_moment_is_good_on_every_node(three: World) -> None:
    """A follower that does not know it yet asks the leader."""
    token = (await make(three)).value["token"]
    for node in three.nodes.values():
        answer = await three.ask("GET", "/v1/whoami", node=node, role=None, Authorization=f"Bearer {token}")
        assert answer.status == 200


async def test_a_revoked_token_ends_at_once(three: World) -> None:
    made_one = (await make(three)).value
    headers = {"Authorization": f"Bearer {made_one['token']}"}
    assert (await three.ask("GET", "/v1/jobs", role=None, node=three.follower, **headers)).status == 200
    await three.ask("DELETE", f"/v1/tokens/{made_one['id']}")
    assert (await three.ask("GET", "/v1/jobs", role=None, node=three.follower, **headers)).status == 401


async def test_an_expired_token_is_none(three: World) -> None:
    made_one = (await three.ask("POST", "/v1/tokens", {"role": "viewer", "ttl_s": 1})).value
    three.clock.ahead_ns = SECOND
    answer = await three.ask("GET", "/v1/jobs", role=None, Authorization=f"Bearer {made_one['token']}")
    assert answer.status == 401 and "expired" in answer.value["detail"]


async def test_requests_at_once_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health is answered all the same."""
    monkeypatch.setattr(limits, "IN_FLIGHT", 0)
    answer = await world.ask("GET", "/v1/jobs")
    assert answer.status == 429 and answer.headers["Retry-After"]
    assert (await world.ask("GET", "/healthz", role=None)).status == 200


async def test_a_leader_that_takes_no_more_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much waits in its queue: surely not done, ask again."""
    monkeypatch.setattr(limits, "WRITE_WITHIN_S", 0.2)

    async def busy(command: bytes, timeout: float) -> Any:
        raise NotLeader("n1", "10000 proposals wait already; try again in a moment")

    world.leader.replica.propose = busy  # type: ignore[method-assign]
    answer = await make(world)
    assert answer.status == 503 and "10000 proposals" in answer.value["detail"]
