"""A small world for the leader's loops: a virtual clock, a replica that applies to a real ledger at once, and nodes that run commands in no time.

    async with World(tmp_path) as world:
        node = await world.join("n1")
        world.push(job)
        await world.lead()
        await world.run(120)          # virtual seconds

No thread and no socket: reads are done in place, messages go through queues, and `run` lets every task come to rest before the clock moves on. So a
test is the same each time. Nodes speak `igor_node.stream` and obey what the agent obeys, but for the processes.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from igor_node import stream
from igor_node.definitions.jobs import Job, Schedule, Stage, encode_job
from igor_node.leader.leader import Leader
from igor_node.ledger import query_audit
from igor_node.ledger.changes import Changes
from igor_node.ledger.commands import Envelope, FoundCluster, PushProject, RegisterNode, encode_envelope
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.reads import ReadsSync
from igor_node.ledger.versions import CommandSet
from igor_node.rules.audit import JobRecords, Period, RunRecord, StretchRecord, audit
from igor_node.rules.timetable import JobTimetable
from igor_node.trust.keys import KeyRing, Keys
from igor_node.words import SECOND, Instant, new_id
from raft.interface import Entry, Kind, Member, Members, NotLeader, Proposed

START = 1_800_000_000 * SECOND  # a full hour
KEY = b"k" * 32
BEAT_S = 1.0
CONNECT_AGAIN_S = 0.1
TURNS = 100_000  # of the event loop, until every task has come to rest


class VirtualClock:
    def __init__(self, now: int = START) -> None:
        self._now = now
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self.skew = 0
        self._believed = 0

    def now(self) -> Instant:
        return Instant(self._now + self._believed)

    def guard(self, on: bool) -> None:
        self.believe()

    def jump(self) -> int:
        return self.skew - self._believed

    def believe(self) -> None:
        self._believed = self.skew

    def monotonic_ns(self) -> int:
        return self._now - START + 1_000 * SECOND

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + int(seconds * SECOND), next(self._numbers), future))
        await future

    async def advance(self, seconds: float) -> None:
        until = self._now + int(seconds * SECOND)
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
                await self.settle()
        self._now = until
        await self.settle()

    async def settle(self) -> None:
        ready = asyncio.get_running_loop()._ready  # what can run now; empty when every task waits for the clock or for a message
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("the tasks do not come to rest")


class FakeReads:
    def __init__(self, path: Path) -> None:
        self._sync = ReadsSync(path)

    async def query(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        await asyncio.sleep(0)
        return self._sync.query(function)

    async def indexed(self, function: Callable[[sqlite3.Connection], Any]) -> tuple[int, Any]:
        await asyncio.sleep(0)
        return self._sync.indexed(function)

    def close(self) -> None:
        self._sync.close()


@dataclass
class FakePeer:
    connected: bool = True
    caught_up: bool = True


@dataclass
class FakeStatus:
    members: Members
    peers: dict[str, FakePeer] = field(default_factory=dict)


class FakeLog:
    """The one log of the world; `term` moves with each new leader."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.term = 1
        self.commands: list[Any] = []
        self.clock: VirtualClock

    def append(self, command: bytes) -> Proposed:
        index = self.ledger.applied().index + 1
        result = self.ledger.apply([Entry(index=index, term=self.term, kind=Kind.COMMAND, data=command)])[0]
        return Proposed(index, self.term, result)


class FakeReplica:
    def __init__(self, log: FakeLog, node: str) -> None:
        self._log = log
        self._over: dict[int, asyncio.Event] = {}
        self.lease = True
        self.status_now = FakeStatus(Members(voters=(Member(node, "127.0.0.1:1"),)))
        self.steps: list[tuple[str, str]] = []
        self.transfers = 0

    def begin(self) -> int:
        self._log.term += 1
        self._over[self._log.term] = asyncio.Event()
        return self._log.term

    def depose(self) -> None:
        for event in self._over.values():
            event.set()

    def leads(self, term: int) -> bool:
        return term in self._over and not self._over[term].is_set()

    def is_leader(self) -> bool:
        return self.lease and any(self.leads(term) for term in self._over)

    async def lost(self, term: int) -> None:
        await self._over[term].wait()

    async def propose(self, command: bytes, timeout: float) -> Proposed:
        await asyncio.sleep(0)
        if not any(self.leads(term) for term in self._over):
            raise NotLeader(None)
        return self._log.append(command)

    def status(self) -> FakeStatus:
        return self.status_now

    async def add_learner(self, member: Member, timeout: float) -> None:
        self.steps.append(("learner", member.id))

    async def add_voter(self, node: str, timeout: float) -> None:
        self.steps.append(("voter", node))

    async def remove(self, node: str, timeout: float) -> None:
        self.steps.append(("remove", node))

    async def transfer_leadership(self, to: str | None, timeout: float) -> bool:
        self.transfers += 1
        self.steps.append(("transfer", to or ""))
        return False


@dataclass
class Start:
    """A command that a node started, and when it ended (None: not yet)."""

    node: str
    attempt: str
    job: str
    at: int
    ended_at: int | None = None


class FakeNode:
    """Runs each command for `duration_s` of its job from its due time on; ends it when its lease runs out, as a wrapper does."""

    def __init__(self, world: World, name: str, slots: int) -> None:
        self.world, self.name, self.id, self.slots = world, name, f"id-{name}", slots
        self.alive = True
        self.connected = False
        self.ledger_version = 0
        self.mark: tuple[int, bytes] | None = None
        self.clock_error_ns: int | None = 0
        self.known: dict[str, list[stream.AttemptEvent]] = {}  # attempt -> its events so far
        self.acked: dict[str, int] = {}
        self.finished: set[str] = set()  # ended, and the leader knows
        self.running: dict[str, Start] = {}
        self.lease_ends: dict[str, int] = {}
        self.leases: dict[str, int] = {}
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.received: list[stream.ToNode] = []
        self._sent_at: dict[int, int] = {}
        self._base = 0
        self._seq = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the stream

    async def keep_connected(self) -> None:
        while self.alive:
            leader = self.world.leader
            if leader is not None and self.connected:
                await self._talk(leader)
            await self.world.clock.sleep(CONNECT_AGAIN_S)

    async def _talk(self, leader: Leader) -> None:
        self.inbox = asyncio.Queue()
        self._sent_at = {0: self.world.clock.monotonic_ns()}
        open_attempts = tuple(name for name, events in self.known.items() if self.acked.get(name, 0) < len(events) or not _ended(events))
        self._put(
            stream.Hello(
                protocol=stream.PROTOCOL,
                node=self.id,
                name=self.name,
                address=f"http://{self.name}:1",
                labels={},
                slots=self.slots,
                version="1",
                cluster="c",
                boot_id="b",
                term=0,
                attempts=open_attempts,
                ledger_version=self.ledger_version,
            )
        )
        beats = self.spawn(self._beat())
        for name in open_attempts:
            self._report(name, self.acked.get(name, 0))
        try:
            await leader.streams.serve(self.id, self._frames(self.inbox), self._take)
        finally:
            beats.cancel()

    async def _frames(self, inbox: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        while (frame := await inbox.get()) is not None:
            yield frame

    def disconnect(self) -> None:
        self.connected = False
        self.inbox.put_nowait(None)

    def die(self) -> None:
        """The machine is gone, and every command on it."""
        self.disconnect()
        self.alive = False
        for attempt in list(self.running):
            self._stop(attempt)
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _put(self, message: stream.ToLeader) -> None:
        self.inbox.put_nowait(stream.encode(message))

    async def _beat(self) -> None:
        while True:
            await self.world.clock.sleep(BEAT_S)
            self._seq += 1
            self._sent_at[self._seq] = self.world.clock.monotonic_ns()
            names = tuple(name for name, events in self.known.items() if not _ended(events))
            self._put(stream.Heartbeat(seq=self._seq, attempts=names, mark=self.mark, clock_error_ns=self.clock_error_ns))
            self._named = names

    async def _take(self, frame: bytes) -> None:
        message = stream.decode_to_node(frame)
        self.received.append(message)
        match message:
            case stream.Welcome():
                self._base = self._sent_at[0]
            case stream.HeartbeatReply():
                self._base = self._sent_at[message.seq]
                for name in self._named:
                    if name in self.leases and self.lease_ends[name] > self.world.clock.monotonic_ns():
                        self.lease_ends[name] = self._base + self.leases[name]
            case stream.Assign():
                for one in message.assignments:
                    if one.attempt not in self.known and one.attempt not in self.finished:
                        self._accept(one)
            case stream.Acknowledge():
                self.acked.update(message.upto)
                for name in message.upto:
                    self._forget(name)
            case stream.Cancel() | stream.Revoke():
                for name in message.attempts:
                    self._end_early(name, "cancelled" if isinstance(message, stream.Cancel) else "revoked")

    def _forget(self, name: str) -> None:
        events = self.known.get(name, [])
        if _ended(events) and self.acked.get(name, 0) >= len(events):
            self.finished.add(name)
            for kept in (self.known, self.acked, self.leases, self.lease_ends):
                kept.pop(name, None)

    # --- commands

    def _accept(self, one: stream.Assignment) -> None:
        self.renew_addresses = one.renew_addresses
        self.leases[one.attempt] = one.lease_ns
        self.lease_ends[one.attempt] = self._base + one.lease_ns
        self._event(one.attempt, "held")
        self.spawn(self._execute(one))

    async def _execute(self, one: stream.Assignment) -> None:
        clock = self.world.clock
        await clock.sleep(max(0, one.due_at - clock.now()) / SECOND)
        if _ended(self.known[one.attempt]):
            return
        start = Start(self.name, one.attempt, one.job, clock.now())
        self.world.starts.append(start)
        self.running[one.attempt] = start
        self._event(one.attempt, "try_started", try_n=1)
        ends = clock.monotonic_ns() + int(self.world.durations.get(one.job, 1.0) * SECOND)
        while (left := min(ends, self.lease_ends[one.attempt]) - clock.monotonic_ns()) > 0:
            await clock.sleep(left / SECOND)
            if one.attempt not in self.running:
                return
        self._stop(one.attempt)
        state = "succeeded" if clock.monotonic_ns() >= ends else "lost"
        self._event(one.attempt, "try_ended", try_n=1, state=state, exit_code=0 if state == "succeeded" else None)
        self._event(one.attempt, "ended", state=state)

    def _stop(self, attempt: str) -> None:
        start = self.running.pop(attempt)
        start.ended_at = self.world.clock.now()

    def _end_early(self, name: str, state: str) -> None:
        if name in self.known and _ended(self.known[name]):
            return
        if name in self.running:
            if state == "revoked":
                return  # it came too late: what is started is not revoked
            self._stop(name)
            self._event(name, "try_ended", try_n=1, state="cancelled", signal=15)
            self._event(name, "ended", state="cancelled")
        else:
            self._event(name, "revoked", reason="asked to")

    def _event(self, attempt: str, kind: str, **more: Any) -> None:
        events = self.known.setdefault(attempt, [])
        events.append(stream.AttemptEvent(attempt=attempt, seq=len(events) + 1, kind=kind, at=self.world.clock.now(), **more))
        if self.connected:
            self._report(attempt, len(events) - 1)

    def _report(self, attempt: str, after: int) -> None:
        events = self.known[attempt][after:]
        if events:
            self._put(stream.Events(events=tuple(events)))


def _ended(events: list[stream.AttemptEvent]) -> bool:
    return bool(events) and events[-1].kind in ("ended", "revoked", "refused")


class Faults(logging.Handler):
    """Exceptions that a loop of the leader raised and nobody expected: they are logged, and the loop begins again."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


class World:
    def __init__(self, folder: Path, wanted_voters: int = 1, known: CommandSet | None = None) -> None:
        self.wanted_voters = wanted_voters
        self.clock = VirtualClock()
        self.changes = Changes()
        self.ledger = Ledger(folder / "ledger.sqlite", on_commit=self.changes.notify, known=known)
        self.log = FakeLog(self.ledger)
        self.reads = FakeReads(folder / "ledger.sqlite")
        self.leader: Leader | None = None
        self.led_since = 0
        self.replica: FakeReplica | None = None
        self.nodes: dict[str, FakeNode] = {}
        self.starts: list[Start] = []
        self.durations: dict[str, float] = {}
        self.faults = Faults()
        logging.getLogger("igor.leader").addHandler(self.faults)
        self._serving: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> World:
        self.propose(FoundCluster(cluster="c", tzdata="2026.6", wanted_voters=self.wanted_voters))
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self.depose()
        for node in self.nodes.values():
            for task in list(node._tasks):
                task.cancel()
        await asyncio.sleep(0)
        self.reads.close()
        self.ledger.close()
        logging.getLogger("igor.leader").removeHandler(self.faults)
        assert not self.faults.found or any(failure), self.faults.found

    def propose(self, command: Any) -> Any:
        now = self.clock.now()
        result = self.log.append(encode_envelope(Envelope(id=new_id(now), at=now, actor="test", command=command))).result
        return result

    def push(self, *jobs: Job) -> None:
        answer = self.propose(PushProject(project="p", jobs=tuple(encode_job(job) for job in jobs), prune=True))
        assert type(answer).__name__ == "Done", answer

    async def join(self, name: str, slots: int = 4) -> FakeNode:
        node = self.nodes[name] = FakeNode(self, name, slots)
        self.propose(RegisterNode(node=node.id, name=name, address=f"http://{name}:1", slots=slots, version="1"))
        node.connected = True
        node.spawn(node.keep_connected())
        await self.clock.settle()
        return node

    async def lead(self, members: Members | None = None) -> Leader:
        """A new leader takes over; the one before, if any, is deposed."""
        await self.depose()
        self.replica = FakeReplica(self.log, "id-n1")
        self.replica.status_now.members = members or self.replica.status_now.members
        term = self.replica.begin()
        self.leader = Leader(
            node="id-n1", replica=self.replica, ledger=self.ledger, reads=self.reads, changes=self.changes, clock=self.clock,
            keys=Keys(KeyRing(1, {1: KEY})),
            leader_address=lambda: "",
        )  # fmt: skip
        self.led_since = self.clock.now()
        self._serving = asyncio.ensure_future(self.leader.serve(term))
        await self.clock.settle()
        return self.leader

    async def depose(self) -> None:
        if self.replica is not None and self._serving is not None:
            self.replica.depose()
            self.leader = None
            await self._serving
            await self.clock.settle()
            self._serving = self.replica = None

    async def run(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    # --- looking

    def query(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        return self.reads._sync.query(function)

    def runs(self, job: str = "p/j") -> list[tuple[int | None, str, str]]:
        """(scheduled second after START, state, reason) of all runs, in the order of their scheduled time."""
        rows = self.query(lambda c: c.execute("SELECT scheduled_at, state, reason FROM runs WHERE job = ? ORDER BY order_at, id", (job,)).fetchall())
        return [(None if at is None else (at - START) // SECOND, state, reason) for at, state, reason in rows]

    def states(self, job: str = "p/j") -> list[tuple[int | None, str]]:
        return [(at, state) for at, state, _ in self.runs(job)]

    def audit(self, job: str = "p/j") -> dict[str, int]:
        """The counts of the audit from the begin of the world until now."""
        now = self.clock.now()
        found = self.query(lambda c: query_audit.audit_job(c, job, START, now))
        records = JobRecords(
            job=job,
            decided_until=found.decided_until,
            periods=[Period(one.after, one.state, JobTimetable(one.spec)) for one in found.segments if one.spec is not None],
            runs=[RunRecord(one.run, one.scheduled_at, one.scheduled_at, one.state, one.reason, one.started_at) for one in found.records],
            stretches=[StretchRecord(one.first, one.last, one.count, one.outcome, one.reason) for one in found.stretches],
        )
        answer = audit([records], START, now, now).as_json(START, now)
        return {name: answer[name] for name in ("due", "ran", "skipped", "missed", "pending", "doubled", "unaccounted")}

    def started(self, job: str = "j") -> list[float]:
        return [(start.at - START) / SECOND for start in self.starts if start.job == job]

    def together(self, job: str = "j") -> int:
        """The most commands of the job that ran at one time."""
        times = [(start.at, 1) for start in self.starts if start.job == job]
        times += [(start.ended_at, -1) for start in self.starts if start.job == job and start.ended_at is not None]
        most = now = 0
        for _, step in sorted(times):
            now += step
            most = max(most, now)
        return most


def job(name: str = "j", every_s: int | None = 60, **more: Any) -> Job:
    schedules = () if every_s is None else (Schedule(every_ns=every_s * SECOND),)
    schedules = more.pop("schedules", schedules)
    stages = more.pop("stages", (Stage(name="main", command=("true",), **more.pop("stage", {})),))
    return Job(project="p", name=name, schedules=schedules, stages=stages, **more)
