"""The placement loop: reads the stages that wait and the nodes, asks `rules.placement` for each, and proposes what came out, in batches.

It holds no opinion of its own: which node, and why none, is the rule's answer; whether it stands is the ledger's. It wakes when something ends, is
made or changes its state, when a node's stream opens or closes, and when a run comes within the lookahead. Everything that gathered while a batch
was under way goes into the next one.

Looking costs by the number of stages looked at, and under load thousands wait, besides those behind others of their own job, which are not even
read. So most looks are narrow: about as many stages as there are free slots, none where there are none. Once a second a look is wide; it finds what
narrow ones passed over and brings the reasons up to date.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from igor_node.leader.reign import Reign
from igor_node.leader.renewal import renewal_hash
from igor_node.ledger import query_cluster, query_pools
from igor_node.ledger.commands import AssignStages, Done, ExplainWaits, Placement, WaitReason
from igor_node.ledger.query_cluster import NodeRow
from igor_node.ledger.waiting import BLOCKED_PER_JOB, STAGES_PER_QUERY, Waiting, WaitingStage, waiting
from igor_node.rules.fires import LOOKAHEAD
from igor_node.rules.placement import KEEP_AFTER, Assign, Demand, NodeView, PoolView, grown, keep, place, take, take_pools
from igor_node.tasks import first_of
from igor_node.words import SECOND, NodeState, RunState

PLACEMENTS_A_BATCH = 500  # with names and reasons as long as they may be an entry stays under 1 MiB
STAGES_A_WIDE_LOOK = 1_000  # more, up to waiting.STAGES_PER_QUERY, while none of them can be placed though slots are free
STAGES_A_NARROW_LOOK = 20  # at least
WIDE_EVERY = SECOND
PACE_S = 0.01  # between two looks: under load what comes within it is one batch
EXPLAINED_A_SECOND = 200  # reasons change often under load, and people read them one at a time
REASON_LIMIT = 500  # characters
SETTLE_S = 1.0  # of a new term: nodes that are up get so long to open their streams, so that the first one does not get everything
IDLE = 5 * SECOND
RETRY_S = 0.05  # after a refusal: the view was old

TOPICS = ("stages", "nodes", "attempts", "runs", "jobs")

log = logging.getLogger("igor.leader.placement")


class Streams(Protocol):
    """Of the hub: which nodes can be reached now, a bell for changes of that, and where placed attempts go."""

    @property
    def connected(self) -> frozenset[str]: ...
    @property
    def bell(self) -> asyncio.Event: ...
    async def placed(self, attempts: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Picture:
    """One snapshot of the ledger. `next_due`: when the next run comes within the lookahead. `limit`: of the stages looked at."""

    index: int
    nodes: list[NodeRow]
    pools: Mapping[str, PoolView]
    waiting: list[WaitingStage]
    next_due: int | None
    limit: int
    wide: bool


class PlacementLoop:
    def __init__(self, reign: Reign, streams: Streams) -> None:
        self._reign = reign
        self._streams = streams
        self._looked_at = 0
        self._wide_at = -WIDE_EVERY
        self._wide_limit = STAGES_A_WIDE_LOOK

    async def run(self) -> None:
        await self._settle()
        while True:
            picture = await self._look()
            views, now = self._views(picture.nodes), self._reign.clock.now()
            placements, reasons = decide(picture.waiting, views, picture.pools, self._reign.key, now)
            refused = await self._propose(placements)
            self._look_further(picture, placed=len(placements))
            if picture.wide:
                await self._explain(picture.waiting, reasons)
            await self._sleep(picture, refused=refused, unplaced=bool(reasons) or not picture.limit)

    async def _look(self) -> _Picture:
        clock = self._reign.clock
        early = self._looked_at + int(PACE_S * SECOND) - clock.monotonic_ns()
        if early > 0:
            await clock.sleep(early / SECOND)
        self._looked_at = clock.monotonic_ns()
        wide = self._looked_at - self._wide_at >= WIDE_EVERY
        if wide:
            self._wide_at = self._looked_at
        horizon, connected = clock.now() + LOOKAHEAD, self._streams.connected

        def read(connection: sqlite3.Connection) -> _Picture:
            nodes = query_cluster.nodes(connection)
            free = sum(max(0, node.slots - node.used) for node in nodes if node.node in connected)
            limit = self._wide_limit if wide else min(self._wide_limit, max(STAGES_A_NARROW_LOOK, 2 * free)) if free else 0
            found = waiting(connection, horizon, limit, blocked_per_job=BLOCKED_PER_JOB if wide else 0) if limit else Waiting([], None)
            return _Picture(0, nodes, query_pools.pools(connection), found.stages, found.next_due, limit, wide)

        index, picture = await self._reign.reads.indexed(read)
        return replace(picture, index=index)

    def _look_further(self, picture: _Picture, *, placed: int) -> None:
        """Where nothing of a narrow look could be placed the next one is wide, and the next after a wide one wider, as long as slots are free."""
        if placed:
            self._wide_limit = STAGES_A_WIDE_LOOK
            return
        seen = sum(one.blocked is None for one in picture.waiting)
        if 0 < picture.limit <= seen < STAGES_PER_QUERY and any(node.slots > node.used for node in picture.nodes):
            self._wide_limit = min(STAGES_PER_QUERY, 4 * self._wide_limit) if picture.wide else self._wide_limit
            self._wide_at = self._looked_at - WIDE_EVERY
            self._streams.bell.set()

    def _views(self, nodes: Iterable[NodeRow]) -> list[NodeView]:
        connected = self._streams.connected
        return [NodeView(row.node, row.name, row.state, row.slots, row.used, row.labels, row.node in connected) for row in nodes]

    async def _propose(self, placements: Sequence[Placement]) -> bool:
        """True if something was refused, because the view was old."""
        refused: set[str] = set()
        for start in range(0, len(placements), PLACEMENTS_A_BATCH):
            batch = placements[start : start + PLACEMENTS_A_BATCH]
            answer = await self._reign.propose(AssignStages(term=self._reign.term, placements=tuple(batch)))
            if not isinstance(answer, Done):
                return True
            not_taken = {attempt for attempt, *_ in (answer.value or {}).get("refused", ())}
            refused |= not_taken
            await self._streams.placed([one.attempt for one in batch if one.attempt not in not_taken])
        return bool(refused)

    async def _explain(self, waiting: Sequence[WaitingStage], reasons: dict[tuple[str, str], str]) -> None:
        """Puts changed reasons into the ledger, some at a time. It also makes runs `queued` whose time came."""
        now = self._reign.clock.now()
        changed = [one for one in waiting if (one.run, one.stage) in reasons and _is_news(one, reasons[one.run, one.stage], now)]
        if changed:
            waits = [WaitReason(run=one.run, stage=one.stage, reason=reasons[one.run, one.stage]) for one in changed[:EXPLAINED_A_SECOND]]
            await self._reign.propose(ExplainWaits(waits=tuple(waits)))

    async def _sleep(self, picture: _Picture, *, refused: bool, unplaced: bool) -> None:
        if refused:
            return await self._reign.clock.sleep(RETRY_S)
        now, mono = self._reign.clock.now(), self._reign.clock.monotonic_ns()
        spans = [IDLE] + [one.due_at - now for one in picture.waiting if one.due_at > now]
        spans += [] if picture.next_due is None else [picture.next_due - LOOKAHEAD - now]
        spans += [self._wide_at + WIDE_EVERY - mono] if unplaced else []
        await self._woken(picture.index, max(0, min(spans)) / SECOND)

    async def _woken(self, index: int, seconds: float) -> None:
        """By the ledger, by the hub, or by time."""
        bell = self._streams.bell
        try:
            await first_of(bell.wait(), self._reign.change(TOPICS, index, seconds))
        finally:
            bell.clear()

    async def _settle(self) -> None:
        """Waits until every node that is up has its stream, or SETTLE_S are over."""
        nodes = await self._reign.reads.query(query_cluster.nodes)
        up = {node.node for node in nodes if node.state == NodeState.UP}
        while self._reign.age_s < SETTLE_S and not up <= self._streams.connected:
            await self._reign.clock.sleep(0.02)


def decide(
    waiting: Sequence[WaitingStage], nodes: Sequence[NodeView], pools: Mapping[str, PoolView], key: bytes, now: int
) -> tuple[list[Placement], dict[tuple[str, str], str]]:
    """Placements for one batch, and for every stage that gets none the reason. Higher priority first, as it has grown, then the order of due time."""
    views = list(nodes)
    placements: list[Placement] = []
    reasons: dict[tuple[str, str], str] = {}
    no_room: dict[tuple[Any, ...], str] = {}  # what such a demand was answered since anything was given away or kept
    for stage in sorted(waiting, key=lambda one: -grown(one.priority, now - _since(one))):
        if stage.blocked is not None:
            reasons[stage.run, stage.stage] = _bounded(stage.blocked)
            continue
        like = (stage.slots, stage.pools, *sorted(stage.constraints.items()))
        if (known := no_room.get(like)) is not None:
            reasons[stage.run, stage.stage] = known
            continue
        demand = Demand(stage.slots, stage.constraints, frozenset(stage.avoid), stage.pools)
        answer = place(demand, views, stage.run, pools)
        if isinstance(answer, Assign):
            placements.append(_placement(stage, answer, key))
            views, pools = take(views, answer.node, stage.slots), take_pools(pools, stage.pools, stage.run)
            no_room.clear()
            continue
        reasons[stage.run, stage.stage] = no_room[like] = _bounded(answer.reason)
        if now - _since(stage) >= KEEP_AFTER and (stage.slots > 1 or len(stage.pools) > 1):
            views, pools = keep(demand, views, pools, stage.run)
            no_room = {like: no_room[like]}
    return placements, reasons


def _since(stage: WaitingStage) -> int:
    """When it began to wait for a place."""
    return max(stage.queued_at, stage.due_at)


def _is_news(stage: WaitingStage, reason: str, now: int) -> bool:
    return reason != stage.reason or (stage.run_state == RunState.SCHEDULED and stage.due_at <= now)


def _placement(stage: WaitingStage, answer: Assign, key: bytes) -> Placement:
    return Placement(
        run=stage.run,
        stage=stage.stage,
        node=answer.node,
        attempt=stage.attempt,
        renew_hash=renewal_hash(key, stage.attempt),
        reasons=_bounded(answer.reasons),
    )


def _bounded(text: str) -> str:
    return text if len(text) <= REASON_LIMIT else text[: REASON_LIMIT - 1] + "…"
