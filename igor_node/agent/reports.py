"""Events on their way to the ledger: what was read from event files and is not acknowledged yet.

The files are the truth; this is what is left to send. After a reconnect, or when no acknowledgement has come for a while, everything that is not
acknowledged is sent again: the ledger takes each (attempt, seq) once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping

from igor_node.stream import EVENTS_PER_REPORT, AttemptEvent

IN_FLIGHT_LIMIT = 10 * EVENTS_PER_REPORT  # sent and not acknowledged; the rest waits here, and in the files


class Reports:
    def __init__(self) -> None:
        self._waiting: deque[AttemptEvent] = deque()
        self._sent: dict[str, deque[AttemptEvent]] = {}
        self._in_flight = 0
        self._wanted = asyncio.Event()

    def add(self, events: Iterable[AttemptEvent]) -> None:
        self._waiting.extend(events)
        self._look()

    async def wanted(self) -> None:
        """Returns when there is something to send."""
        await self._wanted.wait()

    def take(self) -> tuple[AttemptEvent, ...]:
        """The next report, in order for each attempt."""
        count = min(len(self._waiting), EVENTS_PER_REPORT, IN_FLIGHT_LIMIT - self._in_flight)
        events = tuple(self._waiting.popleft() for _ in range(count))
        for event in events:
            self._sent.setdefault(event.attempt, deque()).append(event)
        self._in_flight += count
        self._look()
        return events

    def acknowledge(self, upto: Mapping[str, int]) -> None:
        for attempt, seq in upto.items():
            sent = self._sent.get(attempt)
            while sent and sent[0].seq <= seq:
                sent.popleft()
                self._in_flight -= 1
            if sent is not None and not sent:
                del self._sent[attempt]
        if any(event.seq <= upto.get(event.attempt, 0) for event in self._waiting):  # sent on another connection, and committed
            self._waiting = deque(event for event in self._waiting if event.seq > upto.get(event.attempt, 0))
        self._look()

    def send_again(self) -> None:
        """Everything that is not acknowledged, before what was never sent."""
        again = [event for events in self._sent.values() for event in events]
        self._waiting.extendleft(reversed(again))
        self._sent.clear()
        self._in_flight = 0
        self._look()

    @property
    def unacknowledged(self) -> int:
        return self._in_flight

    def _look(self) -> None:
        if self._waiting and self._in_flight < IN_FLIGHT_LIMIT:
            self._wanted.set()
        else:
            self._wanted.clear()
