"""Waking those who wait for the ledger to change: loops of the leader, streams of events, requests that wait for an index.

The ledger's `on_commit` names an index and the topics it touched; the node hands that to `notify` on the event loop (call_soon_threadsafe is the
caller's part, once a batch). A waiter sleeps in `wait` and then reads the ledger: what woke it is a hint, what it reads is the truth.
Belongs to one event loop; nothing is queued, so a slow waiter costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

TOPICS = ("jobs", "runs", "stages", "attempts", "nodes", "tokens", "projects", "events", "authorities", "keys", "secrets", "activity", "backfills")


class Changes:
    """The last index that touched each topic, and who waits for the next one."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self._last = dict.fromkeys(TOPICS, index)
        self._turn = asyncio.Event()

    def notify(self, index: int, topics: Iterable[str]) -> None:
        """The ledger stands at `index`, and these topics changed since the last call. On the event loop's thread."""
        self.index = max(self.index, index)
        for topic in topics:
            self._last[topic] = index
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def last(self, topics: Iterable[str]) -> int:
        """The last index that touched one of the topics, as far as this node has heard."""
        return max((self._last[topic] for topic in topics), default=0)

    async def wait(self, topics: Iterable[str], since_index: int, timeout: float | None = None) -> int:
        """Returns the index of the last change of these topics once it is later than `since_index`; after `timeout` seconds whatever it is."""
        wanted = tuple(topics)
        try:
            async with asyncio.timeout(timeout):
                while self.last(wanted) <= since_index:
                    await self._turn.wait()
        except TimeoutError:
            pass  # the caller looks again by itself
        return self.last(wanted)

    async def reached(self, index: int, timeout: float | None = None) -> bool:
        """Whether the ledger here stands at `index` or later, waiting at most `timeout` seconds for it (the header Igor-Index)."""
        try:
            async with asyncio.timeout(timeout):
                while self.index < index:
                    await self._turn.wait()
        except TimeoutError:
            pass
        return self.index >= index
