"""What waits for a place: the stages that may start now, and those that the overlap policy holds back, for the leader's placement.

Under load tens of thousands of runs wait, most of them behind others of their own job. So a look reads the head of each job's line, as far as the
job may run at once, from the index `runs_live`, and then in full only as many stages as it was asked for. Blocked runs never take the place of
those that may start; some of each job come along, apart, so that they can be told whom they wait for. Called inside `Reads.query`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from igor_node.definitions.jobs import Job, Stage
from igor_node.ledger.query_jobs import spec_at, spec_of, stage_of
from igor_node.ledger.schema import attempt_id
from igor_node.rules.overlap import room_for, start_blocked

STAGES_PER_QUERY = 5_000  # of those that may start, in one look
BLOCKED_PER_JOB = 100  # at the head of its line; who stands further back is told when the line has moved
BLOCKED_PER_QUERY = 1_000


class WaitingStage(msgspec.Struct, frozen=True, kw_only=True):
    """A queued stage and all that placement needs. `attempt`: the id that its Placement must carry. `blocked`: why the overlap policy does not
    let its run begin yet (rules.overlap.start_blocked), None where it may. `avoid`: nodes that lost or refused an attempt of it."""

    run: str
    job: str
    project: str
    stage: str
    n: int
    attempt: str
    trigger: str
    due_at: int
    scheduled_at: int | None
    created_at: int
    queued_at: int
    run_state: str
    begun: bool
    beside: bool
    blocked: str | None
    priority: int
    slots: int
    constraints: dict[str, str]
    pools: tuple[str, ...]
    avoid: tuple[str, ...]
    reason: str
    params: dict[str, str]
    spec: Job
    stage_spec: Stage


class Waiting(NamedTuple):
    """`stages`: those that may start first, then blocked ones, each in the order of due time. `next_due`: the earliest due time behind the horizon
    at the head of a line: when placement must look again at the latest."""

    stages: list[WaitingStage]
    next_due: int | None


class _Candidate(NamedTuple):
    """A run with a queued stage, in its order."""

    due_at: int
    run: str
    blocked: str | None


_LINES = """
WITH RECURSIVE live(job) AS (
  SELECT min(job) FROM runs WHERE ended_at IS NULL
  UNION ALL SELECT (SELECT min(job) FROM runs WHERE ended_at IS NULL AND job > live.job) FROM live WHERE live.job IS NOT NULL),
lines AS MATERIALIZED (
  SELECT live.job, (SELECT count(*) FROM runs WHERE runs.job = live.job AND begun = 1 AND ended_at IS NULL) AS going
  FROM live WHERE live.job IS NOT NULL)
SELECT lines.job, lines.going, runs.id, runs.due_at, runs.spec_version, runs.order_at, 0 FROM lines CROSS JOIN runs ON runs.id IN (
  SELECT id FROM runs AS one WHERE one.job = lines.job AND one.begun = 0 AND one.beside = 0 AND one.ended_at IS NULL
  ORDER BY one.order_at, one.id LIMIT ?)
UNION ALL
SELECT lines.job, lines.going, runs.id, runs.due_at, runs.spec_version, runs.order_at, 1 FROM lines
CROSS JOIN runs ON runs.job = lines.job AND runs.begun = 0 AND runs.beside = 1 AND runs.ended_at IS NULL
UNION ALL
SELECT lines.job, lines.going, runs.id, runs.due_at, runs.spec_version, runs.order_at, 1 FROM lines
CROSS JOIN runs ON runs.job = lines.job AND runs.begun = 1 AND runs.ended_at IS NULL
WHERE lines.going > 0 AND EXISTS (SELECT 1 FROM stages INDEXED BY stages_queued WHERE stages.run = runs.id AND stages.state = 'queued')
ORDER BY 1, 7, 6, 3"""
"""Of each job that has live runs: how many have begun; the head of its line; then those that wait for nobody, having begun or made with --now."""
_FIRST_GOING = "SELECT id FROM runs WHERE job = ? AND begun = 1 AND ended_at IS NULL ORDER BY order_at, id LIMIT 1"
_STAGES = """
SELECT stages.run, stages.name, stages.attempts, stages.losses, stages.queued_at, stages.reason, runs.job, runs.project, runs.trigger, runs.due_at,
  runs.scheduled_at, runs.created_at, runs.state, runs.begun, runs.beside, runs.params, definitions.spec
FROM stages INDEXED BY stages_queued JOIN runs ON runs.id = stages.run
JOIN definitions ON definitions.job = runs.job AND definitions.version = runs.spec_version
WHERE stages.state = 'queued' AND stages.run = ? ORDER BY stages.position"""
_AVOID = "SELECT DISTINCT node FROM attempts WHERE run = ? AND stage = ? AND state IN ('lost', 'revoked') AND revoke IS NULL ORDER BY node"


def waiting(connection: sqlite3.Connection, due_before: int, limit: int = STAGES_PER_QUERY, *, blocked_per_job: int = BLOCKED_PER_JOB) -> Waiting:
    """Of runs due at or before `due_before` (the leader's now + lookahead): at most `limit` stages that may start, and the blocked ones beside."""
    free: list[_Candidate] = []
    held: list[_Candidate] = []
    next_due: int | None = None
    for one in _candidates(connection, limit, blocked_per_job):
        if one.due_at > due_before:
            next_due = one.due_at if next_due is None else min(next_due, one.due_at)
        else:
            (free if one.blocked is None else held).append(one)
    stages = list(_in_full(connection, nsmallest(limit, free)))[:limit]
    return Waiting(stages + list(_in_full(connection, nsmallest(BLOCKED_PER_QUERY, held))), next_due)


def waiting_stages(connection: sqlite3.Connection, due_before: int, limit: int = STAGES_PER_QUERY) -> list[WaitingStage]:
    """The stages alone."""
    return waiting(connection, due_before, limit).stages


def _candidates(connection: sqlite3.Connection, limit: int, blocked_per_job: int) -> Iterator[_Candidate]:
    """Of each job: `limit` runs that may begin, some behind them that may not, and those that wait for nobody."""
    rows = connection.execute(_LINES, (limit + blocked_per_job,)).fetchall()
    for (job, going), line in groupby(rows, key=lambda row: row[:2]):
        ahead: list[str] = []
        blocked = 0
        for _, _, run, due_at, spec_version, _, waits_for_nobody in line:
            if blocked > blocked_per_job and not waits_for_nobody:
                continue
            # The first in line with nobody going may begin under every policy: of thousands of jobs most are so, and need no look at their text.
            why = _why_blocked(connection, job, spec_version, going, ahead) if (going or ahead) and not waits_for_nobody else None
            blocked += why is not None
            if why is None or blocked <= blocked_per_job:
                yield _Candidate(due_at, run, why)
            ahead.append(run)


def _why_blocked(connection: sqlite3.Connection, job: str, spec_version: int, going: int, ahead: Sequence[str]) -> str | None:
    spec = spec_at(connection, job, spec_version)
    full = going >= room_for(spec.overlap, spec.max_parallel)
    begun = [row[0] for row in connection.execute(_FIRST_GOING, (job,))] if full else []
    return start_blocked(spec.overlap, max_parallel=spec.max_parallel, begun=begun, ahead=ahead, going=going)


def _in_full(connection: sqlite3.Connection, candidates: Iterable[_Candidate]) -> Iterator[WaitingStage]:
    for candidate in candidates:
        for row in connection.execute(_STAGES, (candidate.run,)).fetchall():
            yield _waiting(connection, row, candidate.blocked)


def _waiting(connection: sqlite3.Connection, row: Sequence[Any], blocked: str | None) -> WaitingStage:
    run, stage, attempts, losses, queued_at, reason, job, project, trigger, due_at, scheduled_at, created_at = row[:12]
    state, begun, beside, params, text = row[12:]
    spec = spec_of(text)
    stage_spec = stage_of(spec, stage)
    return WaitingStage(
        run=run, job=job, project=project, stage=stage, n=attempts + 1, attempt=attempt_id(run, stage, attempts + 1), trigger=trigger,
        due_at=due_at, scheduled_at=scheduled_at, created_at=created_at, queued_at=queued_at, run_state=state, begun=bool(begun),
        beside=bool(beside), blocked=blocked, priority=spec.priority, slots=stage_spec.slots, constraints=stage_spec.constraints,
        pools=stage_spec.pools, avoid=_avoid(connection, run, stage) if losses else (), reason=reason, params=msgspec.json.decode(params),
        spec=spec, stage_spec=stage_spec,
    )  # fmt: skip


def _avoid(connection: sqlite3.Connection, run: str, stage: str) -> tuple[str, ...]:
    return tuple(row[0] for row in connection.execute(_AVOID, (run, stage)))
