"""The stream of events: read from the ledger once, encoded once, and the same bytes sent to every reader.

One task (`Hub.watch`) follows the ledger's commits. A reader that comes back with `Last-Event-ID` gets what it missed from the ledger and then goes
on with the rest; one that was away for longer than events are kept gets 410 and must look anew. A reader that is too slow is disconnected: it comes
back by itself and resumes, while a queue that grew for it would cost all the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from igor_node.http.limits import EVENT_BATCH, EVENT_FRAMES_KEPT, EVENT_FRAMES_QUEUED, EVENT_READERS, PING_S
from igor_node.http.problems import Gone
from igor_node.http.services import Services
from igor_node.ledger import query_events
from igor_node.words import TooMany, format_instant

EVENTS = frozenset({"events"})
BEAT = b"event: beat\ndata: {}\n\n"
"""On a quiet stream, so that both sides see that the other is there; a page cannot see comments."""


class Frame(NamedTuple):
    event: query_events.EventRow
    encoded: bytes


class Reader:
    """One viewer's queue. `drop` closes its connection; called once, when the queue is full. `projects`: what the viewer may see, none for all."""

    def __init__(self, after: int, drop: Callable[[], None], projects: Sequence[str] = ()) -> None:
        self.after = after
        self.projects = projects
        self.frames: deque[tuple[int, bytes]] = deque()
        self.ready = asyncio.Event()
        self.drop = drop
        self.dropped = False

    def put(self, frame: Frame) -> None:
        number = frame.event.number
        if self.dropped or number <= self.after:
            return
        if not query_events.is_seen(frame.event, self.projects):
            if not self.frames:
                self.after = number
            return
        if len(self.frames) >= EVENT_FRAMES_QUEUED:
            self.dropped = True
            self.frames.clear()
            self.drop()
            return
        self.frames.append((number, frame.encoded))
        self.ready.set()

    def beat(self) -> bytes:
        """With the number from which to go on, where others' events were left out: it must not grow too old."""
        return BEAT if not self.projects else b"id: %d\n%b" % (self.after, BEAT)

    def take(self) -> bytes:
        """All that waits, as one piece."""
        self.ready.clear()
        if self.frames:
            self.after = self.frames[-1][0]
        piece = b"".join(frame for _, frame in self.frames)
        self.frames.clear()
        return piece


class Hub:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._readers: set[Reader] = set()
        self._kept: deque[Frame] = deque(maxlen=EVENT_FRAMES_KEPT)
        self._last = 0
        self._started = asyncio.Event()

    async def watch(self) -> None:
        """The owner's task: runs as long as the application."""
        changes = self._services.changes
        since = changes.index
        _, self._last = await self._services.reads.query(query_events.event_bounds)
        self._started.set()
        while True:
            await self._spread()
            since = await changes.wait(EVENTS, since)

    async def _spread(self) -> None:
        while True:
            found = await self._read(self._last)
            for frame in found:
                self._kept.append(frame)
                for reader in self._readers:
                    reader.put(frame)
                self._last = frame.event.number
            if len(found) < EVENT_BATCH:
                return

    async def _read(self, after: int) -> list[Frame]:
        found = await self._services.reads.query(lambda connection: query_events.events_since(connection, after, EVENT_BATCH))
        return [Frame(event, encode_frame(event)) for event in found]

    async def check(self, last_id: int | None) -> None:
        """Whether a reader may begin. Raises Gone or TooMany, before anything of the answer is sent."""
        if len(self._readers) >= EVENT_READERS:
            raise TooMany(f"{EVENT_READERS} readers of events are connected", hint="ask another node", retry_after_s=5)
        if last_id is None:
            return
        first, _ = await self._services.reads.query(query_events.event_bounds)
        if last_id + 1 < first:
            raise Gone(f"events up to {first - 1} are no longer kept, you asked for those after {last_id}", hint="look anew, then follow from now on")

    async def follow(self, last_id: int | None, drop: Callable[[], None], projects: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        """Frames after `last_id` (None: from now on), then whatever comes, joined where several wait; a beat where nothing does."""
        await self._started.wait()
        reader = Reader(self._last if last_id is None else last_id, drop, projects)
        try:
            if last_id is not None:
                async for piece in self._missed(reader):
                    yield piece
            self._readers.add(reader)
            if last_id is not None:
                for frame in list(self._kept):  # what came while the last of the missed were sent
                    reader.put(frame)
            yield reader.beat()
            while not reader.dropped:
                try:
                    async with asyncio.timeout(PING_S):
                        await reader.ready.wait()
                    yield reader.take()
                except TimeoutError:
                    yield reader.beat()
        finally:
            self._readers.discard(reader)

    async def _missed(self, reader: Reader) -> AsyncIterator[bytes]:
        """From the ledger, until what is left is in memory."""
        while reader.after < self._last and not (self._kept and self._kept[0].event.number <= reader.after + 1):
            found = await self._read(reader.after)
            if not found:
                return
            reader.after = found[-1].event.number
            if seen := b"".join(frame.encoded for frame in found if query_events.is_seen(frame.event, reader.projects)):
                yield seen


def event_json(event: query_events.EventRow) -> dict[str, Any]:
    return {**msgspec.structs.asdict(event), "at": format_instant(event.at)}


def encode_frame(event: query_events.EventRow) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (event.number, msgspec.json.encode(event_json(event)))
