"""The hub: one stream to each node, over which heartbeats and events come up, and assignments, cancels and revocations go down.

`NodeStreams` lives as long as the node and is what `http` calls for each WebSocket; while this node leads it hands them to the `Hub` of the current
reign, otherwise it says who leads and closes. A stream is three tasks: the reader answers heartbeats and collects events, the reporter puts
events into the ledger (everything that came while one proposal was under way goes into the next) and acknowledges what is committed, the writer
sends, so that answers leave in the order in which they were made: leases.py relies on that.

Nothing is remembered about what a node "should have": `dispatch` compares the ledger's open attempts with what was sent lately, and sends again
what was not answered. An attempt that the ledger calls `assigned` is handed out; one that is `held` or `running` never is, for then its node had it,
and if the node forgot it the lease decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from igor_node.leader.assignments import assignment
from igor_node.leader.leases import Leases
from igor_node.leader.reign import Deposed, Reign
from igor_node.leader.renewal import is_renewal_token
from igor_node.ledger import query_attempts, query_cluster
from igor_node.ledger.commands import NodeChanged, Refused, RegisterNode, ReportEvents
from igor_node.ledger.digest import Mark
from igor_node.ledger.query_attempts import AttemptRow, OpenAttempt
from igor_node.ledger.query_cluster import NodeRow
from igor_node.ledger.schema import FIRST_VERSION
from igor_node.rules.clocks import Reading
from igor_node.rules.node_loss import fallen_silent
from igor_node.rules.versions import Announced
from igor_node.stream import (
    EVENTS_PER_REPORT,
    FRAME_LIMIT_BYTES,
    PROTOCOL,
    Acknowledge,
    Assign,
    Assignment,
    AttemptEvent,
    Cancel,
    Events,
    Farewell,
    Goodbye,
    Heartbeat,
    HeartbeatReply,
    Hello,
    Revoke,
    ToLeader,
    ToNode,
    Welcome,
    decode_to_leader,
    encode,
)
from igor_node.words import SECOND, AttemptState, Invalid, NodeState, base_url

HELLO_TIMEOUT_S = 10.0
FAREWELL_TIMEOUT_S = 1.0
LEASE_WAIT_S = 2.0  # how long a Welcome waits for the quorum lease of a young leader
RESEND = 3 * SECOND  # what was sent and not answered is sent again after so long
OUTBOX_LIMIT = 1_000  # messages that wait to be sent to one node: it does not read, and is disconnected
EVENTS_WAITING_LIMIT = 10_000  # of one node: its stream is not read until some are committed
EVENT_REASON_LIMIT = 2_000  # characters
EVENTS_BYTES = 768 * 1024  # of one report: an entry holds 1 MiB
ASSIGNMENTS_A_FRAME = 50
ALIVE = 3 * SECOND  # a stream on which something came so lately is that of a living process

log = logging.getLogger("igor.leader.hub")

Receive = AsyncIterator[bytes]
Send = Callable[[bytes], Awaitable[None]]


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """What only the leader knows of a node, from its heartbeats. `clock_error_s`: the node's clock less the leader's."""

    node: str
    heard_s: float
    clock_error_s: float | None = None
    load: float | None = None
    memory_free_bytes: int | None = None
    behind: tuple[str, ...] = ()  # what it lacks while that is replaced: "key", "certificate"


class _Close(Exception):
    """Ends one stream; the text tells the node why. `final`: it must not come back."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class NodeStreams:
    """What the HTTP side calls. `leader_address`: where a node should go instead, "" where that is not known."""

    def __init__(self, leader_address: Callable[[], str | None]) -> None:
        self._leader_address = leader_address
        self._hub: Hub | None = None

    def begin(self, hub: Hub) -> None:
        self._hub = hub

    def end(self) -> None:
        """Leadership is over: every stream says farewell and closes."""
        if self._hub is not None:
            self._hub.end()
        self._hub = None

    async def serve(self, node_id: str, receive: Receive, send: Send) -> None:
        """One node's stream, from its first message to its end. Returns; only a broken connection raises."""
        hub = self._hub
        term = 0 if hub is None else hub.reign.term
        end = _Close("this node is not the leader")
        if hub is not None:
            end = await hub.serve(node_id, receive, send)
        farewell = Farewell(term=term, leader=self._leader_address() or "", reason=str(end), final=end.final)
        try:
            async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                await send(encode(farewell))
        except (TimeoutError, ConnectionError):
            pass  # whom nobody hears

    def renew(self, attempt: str, token: str) -> bool:
        """A wrapper renews its own lease. True only from a leader that holds the quorum lease now."""
        return self._hub is not None and self._hub.renew(attempt, token)

    def views(self) -> list[LiveView]:
        return [] if self._hub is None else self._hub.views()


class _Stream:
    """One open connection of a node."""

    def __init__(self, hello: Hello, now_mono: int) -> None:
        self.hello = hello
        self.began_mono = self.heard_mono = now_mono
        self.outbox: asyncio.Queue[ToNode] = asyncio.Queue(OUTBOX_LIMIT)
        self.events: deque[AttemptEvent] = deque()
        self.came = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.sent: dict[tuple[str, str], int] = {}
        self.last_beat: Heartbeat | None = None
        self.leaves = False
        self.closing = asyncio.Event()
        self.reason = ""

    def put(self, message: ToNode) -> None:
        try:
            self.outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.close("it does not read what it is sent")

    def close(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.closing.set()

    def fresh(self, kind: str, attempts: Iterable[str], now_mono: int) -> list[str]:
        """Those that were not sent within RESEND, noted as sent now."""
        found = [attempt for attempt in attempts if now_mono - self.sent.get((kind, attempt), -RESEND) >= RESEND]
        self.sent.update(dict.fromkeys(((kind, attempt) for attempt in found), now_mono))
        return found


class Hub:
    """All streams of one reign."""

    def __init__(self, reign: Reign) -> None:
        self.reign = reign
        self.leases = Leases(reign.began_mono)
        self.bell = asyncio.Event()
        self._streams: dict[str, _Stream] = {}
        self._heard: dict[str, int] = {}
        self._announced: dict[str, Announced] = {}
        self.wanted_key = b""  # while it is replaced: mark of the one to come, which every member is to hold
        self.wanted_trust = b""  # mark of the CAs as they are now
        self._over = asyncio.Event()

    # --- what the other loops ask

    @property
    def connected(self) -> frozenset[str]:
        """Nodes that can be given work now."""
        return frozenset(node for node, stream in self._streams.items() if not stream.leaves)

    def was_heard(self, node: str) -> bool:
        """In this term: what a young leader has not heard yet is not silent for it, and no sign of life either."""
        return node in self._heard

    def heard_mono(self, node: str) -> int:
        """The last sign of life, or the begin of this term."""
        return self._heard.get(node, self.reign.began_mono)

    def announced(self) -> dict[str, Announced]:
        """What the programs of connected nodes know; one that came back as it was has said so all the time."""
        return {node: said for node, said in self._announced.items() if node in self.connected}

    def marks(self) -> dict[str, Mark]:
        """The newest mark of each connected node's ledger."""
        beats = {node: stream.last_beat for node, stream in self._streams.items()}
        return {node: Mark(*beat.mark) for node, beat in beats.items() if beat is not None and beat.mark is not None}

    def behind(self, node: str) -> tuple[str, ...] | None:
        """What a node lacks of what is replaced; a worker needs no key, so lacks none. None: it is not heard just now."""
        stream = self._streams.get(node)
        if stream is None or stream.last_beat is None:
            return None
        beat, member = stream.last_beat, node in self.reign.replica.status().members.ids()
        lacks_key = member and self.wanted_key and self.wanted_key not in beat.keys
        lacks_trust = self.wanted_trust and self.wanted_trust != beat.trust
        return (*(("key",) if lacks_key else ()), *(("certificate",) if lacks_trust else ()))

    def tell(self, node: str, message: ToNode) -> None:
        """Puts it on the node's stream, where there is one."""
        if (stream := self._streams.get(node)) is not None:
            stream.put(message)

    def views(self) -> list[LiveView]:
        now = self.reign.clock.monotonic_ns()
        return [_view(node, heard, self._streams.get(node), now, self.behind(node) or ()) for node, heard in sorted(self._heard.items())]

    def readings(self) -> dict[str, Reading]:
        """What the connected nodes say of their clocks."""
        beats = {node: stream.last_beat for node, stream in self._streams.items()}
        return {
            node: Reading(beat.clock_error_ns, beat.clock_within_ns)
            for node, beat in beats.items()
            if beat is not None and beat.clock_error_ns is not None
        }

    def renew(self, attempt: str, token: str) -> bool:
        if not is_renewal_token(self.reign.keys.all(), attempt, token) or not self.reign.is_leader():
            return False
        return not self.leases.renew((attempt,), self.reign.clock.monotonic_ns())

    def _voters(self) -> tuple[str, ...]:
        """Base URLs of the voters as they are now: a wrapper that knows too few of them cannot renew its lease by itself."""
        return tuple(base_url(member.address, tls=self.reign.tls) for member in self.reign.replica.status().members.voters)

    def end(self) -> None:
        self._over.set()

    def keep_only(self, nodes: Iterable[str], asked_mono: int) -> None:
        """Streams of nodes that are not in the ledger any more are ended; not those that began after it was asked for its nodes."""
        for node in self._streams.keys() - set(nodes):
            if self._streams[node].began_mono < asked_mono:
                self._streams[node].close(_NOT_REGISTERED)

    async def placed(self, attempts: Sequence[str]) -> None:
        """Hands out attempts that were just committed, without waiting for the watch's next look. Their leases count from here, also where the node
        is gone just now: it may be back in a moment."""
        self.leases.renew(attempts, self.reign.clock.monotonic_ns())
        rows = await self.reign.reads.query(lambda connection: [query_attempts.open_attempt(connection, attempt) for attempt in attempts])
        self.dispatch([row for row in rows if row is not None])

    def dispatch(self, attempts: Sequence[OpenAttempt]) -> None:
        """Tells each connected node what the ledger wants of these attempts, unless it was told a moment ago."""
        by_node: dict[str, list[OpenAttempt]] = {}
        for attempt in attempts:
            by_node.setdefault(attempt.node, []).append(attempt)
        for node, rows in by_node.items():
            stream = self._streams.get(node)
            # To hand out counts a lease anew, so what is silent is told nothing: else sending again to the dead would keep them alive for ever.
            if stream is not None and not fallen_silent(stream.heard_mono, self.reign.clock.monotonic_ns()):
                self._tell(stream, rows)

    def _tell(self, stream: _Stream, rows: Sequence[OpenAttempt]) -> None:
        cancel = [row for row in rows if row.cancel is not None]
        revoke = [row for row in rows if row.cancel is None and row.revoke is not None and row.state in (AttemptState.ASSIGNED, AttemptState.HELD)]
        assign = [row for row in rows if row.cancel is None and row.revoke is None and row.state == AttemptState.ASSIGNED]
        self._end_attempts(stream, "cancel", {row.attempt: row.cancel or "" for row in cancel})
        self._end_attempts(stream, "revoke", {row.attempt: row.revoke or "" for row in revoke})
        self._assign(stream, assign)

    def _end_attempts(self, stream: _Stream, kind: str, reasons: dict[str, str]) -> None:
        message: type[Cancel] | type[Revoke] = Cancel if kind == "cancel" else Revoke
        by_reason: dict[str, list[str]] = {}
        for attempt in stream.fresh(kind, reasons, self.reign.clock.monotonic_ns()):
            by_reason.setdefault(reasons[attempt], []).append(attempt)
        for reason, attempts in by_reason.items():
            stream.put(message(term=self.reign.term, attempts=tuple(attempts), reason=reason))

    def _assign(self, stream: _Stream, rows: Sequence[OpenAttempt]) -> None:
        """The lease of what is handed out counts anew from here (leases.py, 2)."""
        now = self.reign.clock.monotonic_ns()
        fresh = set(self.leases.hand_out(stream.fresh("assign", [row.attempt for row in rows], now), now))
        found = [made for row in rows if row.attempt in fresh and (made := self._assignment(row)) is not None]
        for start in range(0, len(found), ASSIGNMENTS_A_FRAME):
            for part in _frames(found[start : start + ASSIGNMENTS_A_FRAME], self.reign.term):
                stream.put(part)

    def _assignment(self, row: OpenAttempt) -> Assignment | None:
        try:
            return assignment(row, self.reign.key, self._voters())
        except Invalid as problem:
            # Checked when the run was made, so it is our own mistake; one such attempt must not stop the others.
            log.error("attempt %s cannot be handed out: %s", row.attempt, problem)
            return None

    # --- one stream

    async def serve(self, node_id: str, receive: Receive, send: Send) -> _Close:
        """Serves until the stream ends; the reason, for the Farewell."""
        stream: _Stream | None = None
        try:
            hello = await _hello(receive)
            stream = _Stream(hello, self.reign.clock.monotonic_ns())
            await self._welcome(node_id, stream)
            return _Close(await self._talk(node_id, stream, receive, send))
        except _Close as why:
            return why
        except Deposed:
            return _Close("this node is not the leader any more")
        finally:
            if stream is not None and self._streams.get(node_id) is stream:
                del self._streams[node_id]
                self.bell.set()

    async def _talk(self, node_id: str, stream: _Stream, receive: Receive, send: Send) -> str:
        tasks: dict[asyncio.Task[str], str] = {
            asyncio.create_task(self._read(node_id, stream, receive)): "read",
            asyncio.create_task(self._report(node_id, stream)): "report",
            asyncio.create_task(_write(stream, send)): "write",
            asyncio.create_task(_when(stream.closing, lambda: stream.reason)): "closing",
            asyncio.create_task(_when(self._over, lambda: "this node is not the leader any more")): "over",
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return min(done, key=lambda task: task.exception() is None).result()

    async def _welcome(self, node_id: str, stream: _Stream) -> None:
        """Checks the Hello, puts the node's news into the ledger, and answers with Welcome and everything that is due to it."""
        hello, reign = stream.hello, self.reign
        if hello.epoch != reign.epoch:  # before its term: that of a majority that is no more may be higher than any here
            higher, lower = max(hello.epoch, reign.epoch), min(hello.epoch, reign.epoch)
            whose = "this node" if hello.epoch == lower else "this leader"
            reason = f"this cluster was recovered: epoch {higher}; {whose} is of epoch {lower}; rejoin empty: igor-node join --reset"
            raise _Close(reason, final=hello.epoch == lower)
        if hello.node != node_id or hello.protocol != PROTOCOL:
            raise _Close(f"this stream is for node {node_id}, protocol {PROTOCOL}; the hello says {hello.node}, protocol {hello.protocol}")
        if hello.term > reign.term:
            raise _Close(f"the node has seen term {hello.term}, this leader's is {reign.term}")
        self._check_alone(node_id, hello)
        await self._introduce(node_id, hello)
        open_rows, known = await reign.reads.query(
            lambda connection: (
                query_attempts.open_attempts(connection, node_id),
                {name: query_attempts.attempt(connection, name) for name in hello.attempts},
            )
        )
        await self._await_lease()
        self._check_alone(node_id, hello)
        self._replace(node_id, stream)
        sent_at, waited = reign.clock.now(), reign.clock.monotonic_ns() - stream.heard_mono
        forget = tuple(name for name, row in known.items() if row is None)
        # The list first: whoever is taken out after it was read is taken out by an entry above the index that is told.
        member, index = reign.replica.status().members.find(node_id) is not None, reign.changes.index
        stream.put(
            Welcome(
                term=reign.term, leader=reign.node, received_at=sent_at - waited, sent_at=sent_at, time_is_good=not reign.time_in_doubt,
                forget=forget, member=member, index=index,
            )
        )  # fmt: skip
        self._end_attempts(stream, "cancel", {name: _LOST for name, row in known.items() if row is not None and _must_end(row)})
        self._tell(stream, open_rows)

    async def _introduce(self, node_id: str, hello: Hello) -> None:
        rows = await self.reign.reads.query(lambda connection: [row for row in query_cluster.nodes(connection) if row.node == node_id])
        if not rows:
            raise _Close(_NOT_REGISTERED)
        row = rows[0]
        if _differs(row, hello):
            answer = await self.reign.propose(
                RegisterNode(node=node_id, name=hello.name, address=hello.address, labels=hello.labels, slots=hello.slots, version=hello.version)
            )
            if isinstance(answer, Refused):
                raise _Close(f"the ledger refused the node's registration: {answer.message}")
        if row.state in (NodeState.SILENT, NodeState.LOST):
            await self.reign.propose(NodeChanged(node=node_id, state=NodeState.UP, reason="connected again"))

    async def _await_lease(self) -> None:
        """A Welcome starts leases, so it needs the quorum lease; a leader just elected has it within a heartbeat or two."""
        began = self.reign.clock.monotonic_ns()
        while not self.reign.is_leader():
            if not self.reign.replica.leads(self.reign.term) or self.reign.clock.monotonic_ns() - began > LEASE_WAIT_S * SECOND:
                raise _Close("this leader does not hear from a majority; try again")
            await self.reign.clock.sleep(0.05)

    def _check_alone(self, node_id: str, hello: Hello) -> None:
        before, now = self._streams.get(node_id), self.reign.clock.monotonic_ns()
        if before is not None and before.hello.instance != hello.instance and now - before.heard_mono < ALIVE:
            raise _Close(f"another process is in service as node {hello.name} at {before.hello.address}: a data directory was copied", final=True)

    def _replace(self, node_id: str, stream: _Stream) -> None:
        before = self._streams.get(node_id)
        if before is not None:
            before.close("another stream of this node took over")
        self._streams[node_id] = stream
        version = stream.hello.ledger_version or FIRST_VERSION
        if (said := self._announced.get(node_id)) is None or said.version != version:
            self._announced[node_id] = Announced(version, self.reign.clock.monotonic_ns())
        self._heard[node_id] = self.reign.clock.monotonic_ns()
        self.bell.set()

    async def _read(self, node_id: str, stream: _Stream, receive: Receive) -> str:
        async for frame in receive:
            message = _decode(frame)
            stream.heard_mono = self._heard[node_id] = self.reign.clock.monotonic_ns()
            match message:
                case Heartbeat():
                    self._answer(stream, message)
                case Events():
                    stream.events.extend(message.events)
                    stream.came.set()
                    if len(stream.events) > EVENTS_WAITING_LIMIT:
                        stream.room.clear()
                        await stream.room.wait()
                case Goodbye():
                    stream.leaves = True
                    self.bell.set()
                case Hello():
                    raise _Close("a second hello on one stream")
        return "the node closed the stream"

    def _answer(self, stream: _Stream, beat: Heartbeat) -> None:
        """Renews what the heartbeat names and says so; without the quorum lease it says nothing, and nothing is renewed."""
        reign, received = self.reign, self.reign.clock.now()
        stream.last_beat = beat
        if not reign.is_leader():
            return
        condemned = self.leases.renew(beat.attempts, reign.clock.monotonic_ns())
        self._end_attempts(stream, "cancel", dict.fromkeys(condemned, _LOST))
        good = not reign.time_in_doubt
        stream.put(HeartbeatReply(seq=beat.seq, term=reign.term, received_at=received, sent_at=reign.clock.now(), time_is_good=good))

    async def _report(self, node_id: str, stream: _Stream) -> str:
        while True:
            await stream.came.wait()
            batch = _take(stream.events)
            if not stream.events:
                stream.came.clear()
            if len(stream.events) <= EVENTS_WAITING_LIMIT // 2:
                stream.room.set()
            answer = await self.reign.propose(ReportEvents(node=node_id, events=tuple(batch)))
            if isinstance(answer, Refused):
                raise _Close(f"the ledger refused its events: {answer.message}")
            stream.put(Acknowledge(term=self.reign.term, upto=_committed(batch, answer.value)))


_NOT_REGISTERED = "this node is not registered in the cluster (it left, or it was removed)"
_LOST = "the lease of this attempt is out and it was recorded as lost"


def _must_end(row: AttemptRow) -> bool:
    """An attempt that the node still has though the ledger called it lost; under `fail` and `wait` its process goes on."""
    return row.ended and row.state == AttemptState.LOST and row.on_node_loss == "rerun"


def _differs(row: NodeRow, hello: Hello) -> bool:
    said = (hello.name, hello.address, hello.labels, hello.slots, hello.version)
    return (row.name, row.address, row.labels, row.slots, row.version) != said


def _view(node: str, heard: int, stream: _Stream | None, now: int, behind: tuple[str, ...]) -> LiveView:
    beat = None if stream is None else stream.last_beat
    return LiveView(
        node=node,
        heard_s=(now - heard) / SECOND,
        clock_error_s=None if beat is None or beat.clock_error_ns is None else beat.clock_error_ns / SECOND,
        load=None if beat is None else beat.load_milli / 1_000,
        memory_free_bytes=None if beat is None else beat.memory_free_bytes,
        behind=behind,
    )


def _decode(frame: bytes) -> ToLeader:
    if len(frame) > FRAME_LIMIT_BYTES:
        raise _Close(f"a message of {len(frame)} bytes; at most {FRAME_LIMIT_BYTES} are allowed")
    try:
        message: ToLeader = decode_to_leader(frame)
    except msgspec.DecodeError as problem:
        raise _Close(f"a message cannot be read: {problem}") from problem
    return message


async def _hello(receive: Receive) -> Hello:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            async for frame in receive:
                message = _decode(frame)
                if isinstance(message, Hello):
                    return message
                raise _Close("the first message must be a hello")
    except TimeoutError:
        raise _Close(f"no hello within {HELLO_TIMEOUT_S:g} s") from None
    raise _Close("the node closed the stream before its hello")


async def _write(stream: _Stream, send: Send) -> str:
    while True:
        message = await stream.outbox.get()
        await send(encode(message))


async def _when(event: asyncio.Event, reason: Callable[[], str]) -> str:
    await event.wait()
    return reason()


def _take(events: deque[AttemptEvent]) -> list[AttemptEvent]:
    """The next report: bounded in number and bytes, at least one event."""
    batch: list[AttemptEvent] = []
    size = 0
    for event in islice(events, EVENTS_PER_REPORT):
        if len(event.reason) > EVENT_REASON_LIMIT:
            event = msgspec.structs.replace(event, reason=event.reason[:EVENT_REASON_LIMIT] + "…")
        size += 200 + len(event.attempt) + 4 * len(event.reason)
        if batch and size > EVENTS_BYTES:
            break
        batch.append(event)
    for _ in batch:
        events.popleft()
    return batch


def _committed(batch: Sequence[AttemptEvent], value: dict[str, Any]) -> dict[str, int]:
    """Up to where each attempt's events need not be sent again; one that the ledger does not know, or that is another node's, is done with."""
    upto = {str(attempt): int(seq) for attempt, seq in value["upto"].items()}
    strangers = {*value.get("unknown", ()), *value.get("foreign", ())}
    for event in batch:
        if event.attempt in strangers:
            upto[event.attempt] = max(event.seq, upto.get(event.attempt, 0))
    return upto


def _frames(assignments: Sequence[Assignment], term: int) -> list[Assign]:
    """One frame, or one for each where together they would be too large."""
    together = Assign(term=term, assignments=tuple(assignments))
    if len(assignments) == 1 or len(encode(together)) <= FRAME_LIMIT_BYTES:
        return [together]
    return [Assign(term=term, assignments=(one,)) for one in assignments]
