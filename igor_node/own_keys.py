"""The cluster's keys as this node holds them: it follows what the ledger says of them (leader/rotation.py), fetches what it lacks, makes new ones."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from igor_node.data_dir import DataDir
from igor_node.edges import SystemClock
from igor_node.ledger import query_keys
from igor_node.ledger.changes import Changes
from igor_node.ledger.commands import KeyMade
from igor_node.ledger.reads import Reads
from igor_node.tasks import first_of
from igor_node.trust.keys import KEY_BYTES, KeyRing, Keys, merged, parse_ring
from igor_node.words import Conflict, IgorError, Unavailable
from raft.wire import mark_of

FETCH_AGAIN_S = 0.5
TOPICS = ("keys",)

log = structlog.get_logger("node.keys")


@dataclass(frozen=True, kw_only=True)
class OwnKeys:
    """`wanted`: set when a leader calls this node a member, or dials it as one, and the two have no key in common. `peers`: base URLs, the likely
    leader first. `ask(url)`: answers with JSON, or raises IgorError."""

    keys: Keys
    wanted: asyncio.Event
    data: DataDir
    reads: Reads
    changes: Changes
    clock: SystemClock
    is_member: Callable[[], bool]
    peers: Callable[[], Sequence[str]]
    ask: Callable[[str], Awaitable[dict[str, Any]]]

    async def follow(self) -> None:
        """Uses the key that the ledger says is in force, forgets what it calls dropped, and fetches what it names and is not here: for a node that
        has become a member all of them."""
        while True:
            seen = self.changes.last(TOPICS)
            rows = await self.reads.query(query_keys.keys)
            self._use(rows)
            if self._lacks(rows) or self.wanted.is_set():
                self.wanted.clear()
                await self._fetch(rows)
                await self.clock.sleep(FETCH_AGAIN_S)
                continue
            await first_of(self.wanted.wait(), self.changes.wait(TOPICS, seen))

    async def use(self) -> None:
        """Before consensus begins: the key that is in force, as far as the ledger here knows."""
        self._use(await self.reads.query(query_keys.keys))

    def _use(self, rows: query_keys.KeyRows) -> None:
        ring, in_force = self.keys.ring, rows.in_force
        if ring is None or in_force is None or not ring.has(in_force.generation, in_force.mark):
            return
        self._keep(ring.using(in_force.generation).only(lambda generation: generation >= rows.oldest))

    def _lacks(self, rows: query_keys.KeyRows) -> bool:
        """One that the ledger names: to be asked for while this node is a member."""
        ring, named = self.keys.ring, rows.to_come or rows.in_force
        return named is not None and self.is_member() and (ring is None or not ring.has(named.generation, named.mark))

    async def _fetch(self, rows: query_keys.KeyRows) -> None:
        """From the leader, by this node's certificate; else from another member: whoever led when a key was made may not lead now."""
        for url in self.peers():
            try:
                answer = await self.ask(f"{url}/v1/node/key")
                theirs = parse_ring(answer["keys"])
            except (IgorError, KeyError, ValueError) as problem:
                log.info("the cluster's key is not here yet", reason=str(problem))
                continue
            self._keep(merged(self.keys.ring, theirs, {row.generation: row.mark for row in rows.rows}))
            self._use(rows)
            if not self._lacks(rows):
                return

    def _keep(self, ring: KeyRing) -> None:
        """On disk before anybody hears that it is here."""
        had = self.keys.ring
        if had is None or dict(ring.by_generation) != dict(had.by_generation):
            self.data.write_ring(ring)
            log.info("the cluster's keys here are others now", generations=sorted(ring.by_generation))
        self.keys.ring = ring

    async def make(self) -> KeyMade:
        """A key that is to come, on this disk. Raises Unavailable, or Conflict where one is to come already and is here."""
        rows, ring = await self.reads.query(query_keys.keys), self.keys.ring
        if ring is None:
            raise Unavailable("this node does not hold the cluster's key", hint="ask the leader")
        if rows.to_come is not None and ring.has(rows.to_come.generation, rows.to_come.mark):
            raise Conflict("the cluster's key is being replaced already", hint="igor status says for whom it waits")
        key, generation = secrets.token_bytes(KEY_BYTES), max([ring.newest, *(row.generation for row in rows.rows)]) + 1
        self._keep(ring.with_key(generation, key))
        return KeyMade(generation=generation, mark=mark_of(key))
