"""The hub: who is welcome on a stream, what is told to whom, when it is told again, and what is acknowledged."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from igor_node import stream
from igor_node.leader.leases import Leases
from igor_node.leader.renewal import is_renewal_token, renewal_hash, renewal_token
from igor_node.ledger import query_attempts, query_cluster
from igor_node.ledger.commands import CreateRun, NodeChanged, RegisterNode, RemoveNode
from igor_node.words import SECOND, new_id
from tests.unit.leader.world import KEY, World, job


class Wire:
    """A node's end of a stream, by hand."""

    def __init__(self, world: World, name: str = "n1", **hello) -> None:
        self.world, self.node = world, f"id-{name}"
        self.got: list[stream.ToNode] = []
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        fields = {"labels": {}, "slots": 4, "version": "1", "cluster": "c", "boot_id": "b", "term": 0, "protocol": stream.PROTOCOL}
        fields |= {"node": self.node, "name": name, "address": f"http://{name}:1"}
        self.hello = stream.Hello(**(fields | hello))
        self.task: asyncio.Task[None] | None = None

    async def open(self, *first) -> Wire:
        for message in first or (self.hello,):
            self.say(message)
        self.task = asyncio.ensure_future(self.world.leader.streams.serve(self.node, self._frames(), self._take))
        await self.world.clock.settle()
        return self

    def say(self, message) -> None:
        self._inbox.put_nowait(message if isinstance(message, bytes) else stream.encode(message))

    async def _frames(self):
        while (frame := await self._inbox.get()) is not None:
            yield frame

    async def _take(self, frame: bytes) -> None:
        self.got.append(stream.decode_to_node(frame))

    def of(self, kind):
        return [message for message in self.got if isinstance(message, kind)]

    async def beat(self, seconds: float, *attempts: str) -> None:
        for _ in range(int(seconds)):
            self.say(stream.Heartbeat(seq=1, attempts=attempts))
            await self.world.run(1)

    def close(self) -> None:
        self._inbox.put_nowait(None)


async def registered(world: World, name: str = "n1", slots: int = 4) -> None:
    world.propose(RegisterNode(node=f"id-{name}", name=name, address=f"http://{name}:1", slots=slots, version="1"))
    await world.lead()


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        ({"protocol": 99}, "protocol 99"),
        ({"node": "another"}, "this stream is for node id-n1"),
        ({"term": 1_000}, "the node has seen term 1000"),
    ],
)
async def test_a_hello_that_does_not_fit_gets_a_farewell_with_the_reason(tmp_path, hello, why):
    async with World(tmp_path) as world:
        await registered(world)
        wire = await Wire(world, **hello).open()
        assert wire.task.done()
        assert why in wire.of(stream.Farewell)[0].reason


@pytest.mark.parametrize(
    "own, others, final, why",
    [
        pytest.param(2, 1, True, "this node is of epoch 1; rejoin empty", id="a node of the past must not come back"),
        pytest.param(1, 2, False, "this leader is of epoch 1", id="a leader of the past may meet nodes of the present"),
    ],
)
async def test_epochs_never_mix(tmp_path, own, others, final, why):
    """Before its term is looked at: that of a majority which is no more may be higher than any here."""
    async with World(tmp_path) as world:
        await registered(world)
        world.leader.streams._hub.reign.epoch = own
        wire = await Wire(world, epoch=others, term=1_000).open()
        (farewell,) = wire.of(stream.Farewell)
        assert farewell.final is final and why in farewell.reason and not wire.of(stream.Welcome)


async def test_two_processes_of_one_node_are_never_served_at_once(tmp_path):
    """The second is refused for good while the first is alive, and changes nothing in the ledger; when the first is silent it is welcome."""
    async with World(tmp_path) as world:
        await registered(world)
        first = await Wire(world, instance="1").open()
        await first.beat(2)
        copy = await Wire(world, instance="2", address="http://elsewhere:1").open()
        (farewell,) = copy.of(stream.Farewell)
        assert farewell.final and "a data directory was copied" in farewell.reason and not first.task.done()
        (row,) = await world.reads.query(query_cluster.nodes)
        assert row.address == "http://n1:1"
        await world.run(4)
        later = await Wire(world, instance="2").open()
        assert later.of(stream.Welcome) and "took over" in first.of(stream.Farewell)[0].reason


async def test_a_node_is_told_whether_it_is_a_member(tmp_path):
    """As of an index: what it holds from before is of the past, whatever its own list of members says."""
    async with World(tmp_path) as world:
        await registered(world, "n9")
        wire = await Wire(world, "n9").open()
        (welcome,) = wire.of(stream.Welcome)
        assert welcome.member is False and welcome.index > 0


async def test_a_node_that_left_loses_its_stream(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        wire = await Wire(world).open()
        world.propose(RemoveNode(node="id-n1"))
        await wire.beat(2)
        assert wire.task.done() and "not registered" in wire.of(stream.Farewell)[0].reason


async def test_a_lost_node_is_not_called_up_before_it_is_heard(tmp_path):
    """A young leader has heard nobody yet, which is no sign of life."""
    async with World(tmp_path) as world:
        world.propose(RegisterNode(node="id-n1", name="n1", address="http://n1:1", slots=4, version="1"))
        world.propose(NodeChanged(node="id-n1", state="lost", reason="no sign of life"))
        await world.lead()
        await world.run(3)
        (row,) = await world.reads.query(query_cluster.nodes)
        assert row.state == "lost"
        await Wire(world).open()
        (row,) = await world.reads.query(query_cluster.nodes)
        assert row.state == "up"


async def test_a_node_that_gave_up_its_name_goes_when_nothing_of_it_is_open(tmp_path):
    async with World(tmp_path) as world:
        world.propose(RegisterNode(node="id-n1", name="n1.id-n1", address="http://n1:1", slots=4, version="1"))
        world.propose(NodeChanged(node="id-n1", state="lost", reason="no sign of life"))
        await world.lead()
        await world.run(2)
        assert await world.reads.query(query_cluster.nodes) == []


@pytest.mark.parametrize("ephemeral", [True, False])
async def test_a_lost_node_goes_if_it_was_ephemeral(tmp_path, ephemeral):
    async with World(tmp_path) as world:
        register = RegisterNode(node="id-n1", name="n1", address="http://n1:1", slots=4, version="1", ephemeral=ephemeral)
        world.propose(register)
        world.propose(msgspec.structs.replace(register, address="http://n1:2", ephemeral=False))  # it moved: what it is stays
        world.propose(NodeChanged(node="id-n1", state="lost", reason="no sign of life"))
        await world.lead()
        await world.run(2)
        assert [row.ephemeral for row in await world.reads.query(query_cluster.nodes)] == ([] if ephemeral else [False])


async def test_a_node_that_is_not_registered_is_sent_away(tmp_path):
    async with World(tmp_path) as world:
        await world.lead()
        wire = await Wire(world).open()
        assert "not registered" in wire.of(stream.Farewell)[0].reason


@pytest.mark.parametrize("first", [b"\xff\xff", stream.encode(stream.Goodbye())])
async def test_the_first_message_must_be_a_hello(tmp_path, first):
    async with World(tmp_path) as world:
        await registered(world)
        wire = await Wire(world).open(first)
        assert wire.task.done() and len(wire.of(stream.Farewell)) == 1


async def test_who_does_not_lead_says_farewell(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        streams = world.leader.streams
        wire = await Wire(world).open()
        await world.depose()
        assert wire.task.done()
        assert "not the leader" in wire.of(stream.Farewell)[0].reason
        got = []

        async def take(frame):
            got.append(stream.decode_to_node(frame))

        await streams.serve("id-n1", wire._frames(), take)
        assert isinstance(got[0], stream.Farewell)


async def test_a_second_stream_of_a_node_takes_over(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        first = await Wire(world).open()
        second = await Wire(world).open()
        assert first.task.done() and not second.task.done()
        assert second.of(stream.Welcome)


async def test_a_node_that_changed_is_registered_anew_at_its_hello(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        await Wire(world, slots=9, labels={"zone": "eu"}).open()
        row = world.query(lambda c: query_cluster.node(c, "n1"))
        assert (row.slots, row.labels) == (9, {"zone": "eu"})


async def test_a_lost_node_that_says_hello_is_up_again(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        world.propose(NodeChanged(node="id-n1", state="lost"))
        await Wire(world).open()
        assert world.query(lambda c: query_cluster.node(c, "n1")).state == "up"


async def test_a_node_that_keeps_quiet_is_silent_and_gets_nothing_though_its_stream_is_open(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        world.push(job(every_s=None))
        wire = await Wire(world).open()
        await world.run(6)
        assert world.query(lambda c: query_cluster.node(c, "n1")).state == "silent"
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await world.run(5)
        assert wire.of(stream.Assign) == []
        await wire.beat(2)
        assert world.query(lambda c: query_cluster.node(c, "n1")).state == "up"
        assert len(wire.of(stream.Assign)) == 1


async def test_an_assignment_that_is_not_answered_is_sent_again_and_is_the_same(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        world.push(job(every_s=None))
        wire = await Wire(world).open()
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await wire.beat(8)
        sent = wire.of(stream.Assign)
        assert 2 <= len(sent) <= 3
        assert len({stream.encode(message) for message in sent}) == 1


async def test_events_are_acknowledged_after_commit_and_those_of_strangers_too(tmp_path):
    """What the ledger does not know need not be sent for ever."""
    async with World(tmp_path) as world:
        await registered(world)
        world.push(job(every_s=None))
        wire = await Wire(world).open()
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await wire.beat(1)
        attempt = wire.of(stream.Assign)[0].assignments[0].attempt
        now = world.clock.now()
        wire.say(stream.Events(events=(stream.AttemptEvent(attempt=attempt, seq=1, kind="held", at=now),)))
        wire.say(stream.Events(events=(stream.AttemptEvent(attempt="00000000000000000000.main.1", seq=4, kind="held", at=now),)))
        await world.clock.settle()
        acknowledged = {}
        for message in wire.of(stream.Acknowledge):
            acknowledged |= message.upto
        assert acknowledged == {attempt: 1, "00000000000000000000.main.1": 4}
        assert world.query(query_attempts.open_attempts)[0].state == "held"


async def test_attempts_that_the_ledger_does_not_know_may_be_forgotten(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        wire = await Wire(world, attempts=("00000000000000000000.main.1",)).open()
        assert wire.of(stream.Welcome)[0].forget == ("00000000000000000000.main.1",)


async def test_a_goodbye_stops_new_work(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        world.push(job(every_s=None))
        wire = await Wire(world).open()
        wire.say(stream.Goodbye())
        await wire.beat(1)
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await wire.beat(3)
        assert wire.of(stream.Assign) == []


async def test_a_node_that_does_not_read_is_disconnected(tmp_path, monkeypatch):
    monkeypatch.setattr("igor_node.leader.hub.OUTBOX_LIMIT", 3)
    async with World(tmp_path) as world:
        await registered(world)
        wire = Wire(world)

        async def never(frame):
            await asyncio.Event().wait()

        wire._take = never
        await wire.open()
        for _ in range(6):
            wire.say(stream.Heartbeat(seq=1))
        await world.clock.settle()
        assert world.leader.streams._hub.connected == frozenset()
        wire.task.cancel()


async def test_views_show_who_was_heard_and_whose_clock_is_off(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        wire = await Wire(world).open()
        wire.say(stream.Heartbeat(seq=1, clock_error_ns=2 * SECOND, load_milli=1_500, memory_free_bytes=7))
        await world.run(1)
        view = world.leader.views()[0]
        assert (view.node, view.heard_s, view.clock_error_s, view.load, view.memory_free_bytes) == ("id-n1", 1.0, 2.0, 1.5, 7)


async def test_a_wrapper_renews_with_its_own_token_from_a_leader_with_a_lease_alone(tmp_path):
    async with World(tmp_path) as world:
        await registered(world)
        token = renewal_token(KEY, "a.main.1")
        assert world.leader.renew("a.main.1", token)
        assert not world.leader.renew("a.main.2", token)
        world.replica.lease = False
        assert not world.leader.renew("a.main.1", token)


def test_a_renewal_token_is_good_for_its_attempt_alone():
    token = renewal_token(KEY, "r.main.1")
    assert is_renewal_token((KEY,), "r.main.1", token)
    assert not is_renewal_token((KEY,), "r.main.2", token)
    assert not is_renewal_token((b"x" * 32,), "r.main.1", token)
    assert token not in renewal_hash(KEY, "r.main.1")


def test_what_is_condemned_is_neither_renewed_nor_handed_out():
    """While AttemptsLost is on its way a node that comes back must not start it beside its successor."""
    leases = Leases(began_mono=100)
    assert leases.renewed_at("a") == 100
    leases.renew(["a"], 200)
    leases.condemn(["a"])
    assert leases.renew(["a", "b"], 300) == ["a"]
    assert leases.hand_out(["a", "b"], 400) == ["b"]
    assert (leases.renewed_at("a"), leases.renewed_at("b")) == (200, 400)
    leases.keep_only(["b"], 500)
    assert leases.renewed_at("a") == 100
    assert leases.is_condemned("a")


def test_a_list_of_open_attempts_says_nothing_of_those_that_were_placed_after_it_was_asked_for():
    leases = Leases(began_mono=100)
    leases.renew(["ended", "open"], 200)
    leases.hand_out(["placed since"], 300)
    leases.keep_only(["open"], 300)
    assert [leases.renewed_at(name) for name in ("ended", "open", "placed since")] == [100, 200, 300]
