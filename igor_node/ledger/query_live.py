"""Runs that have not ended: how many there are, in which order those of a job stand, and what keeps one from going on.

For the fires loop, the gauges and `igor why`. What placement may start now is a matter of its own (waiting.py). Called inside `Reads.query`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from igor_node.definitions.jobs import Job
from igor_node.ledger.query_jobs import spec_at, stage_of
from igor_node.rules.node_loss import Fail, Keep, Rerun, after_loss
from igor_node.rules.overlap import Earlier, start_blocked
from igor_node.words import RUN_LIVE, NotFound


class LiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a job that has not ended, in the order of rules.overlap.order_key. `begun`: its first stage was placed."""

    run: str
    begun: bool
    beside: bool
    order_at: int
    due_at: int

    def earlier(self) -> Earlier:
        return Earlier(self.run, self.begun)


def live_runs(connection: sqlite3.Connection, job_id: str) -> list[LiveRun]:
    """What rules.overlap.admit and start_blocked look at."""
    return live_runs_by_job(connection, (job_id,)).get(job_id, [])


def live_runs_by_job(connection: sqlite3.Connection, job_ids: Sequence[str] | None = None) -> dict[str, list[LiveRun]]:
    """All live runs of these jobs (None: of all) by job, each list in the order of rules.overlap.order_key."""
    columns = "SELECT job, id, begun, beside, order_at, due_at FROM runs WHERE ended_at IS NULL"
    if job_ids is None:
        rows = connection.execute(f"{columns} ORDER BY job, order_at, id").fetchall()
    else:
        rows = [row for one in job_ids for row in connection.execute(f"{columns} AND job = ? ORDER BY order_at, id", (one,))]
    found: dict[str, list[LiveRun]] = {}
    for job_id, run_id, begun, beside, order_at, due_at in rows:
        found.setdefault(job_id, []).append(LiveRun(run=run_id, begun=bool(begun), beside=bool(beside), order_at=order_at, due_at=due_at))
    return found


def run_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many live runs are in each state, and how many stages wait: the gauges of /metrics and of the home page."""
    rows = connection.execute("SELECT state, count(*) FROM runs WHERE ended_at IS NULL GROUP BY state ORDER BY state")
    found = dict.fromkeys(map(str, RUN_LIVE), 0) | dict(rows.fetchall())
    found["stages_queued"] = connection.execute("SELECT count(*) FROM stages WHERE state = 'queued'").fetchone()[0]
    return found


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has an attempt of the run, and what becomes of that when its lease is out."""

    node: str
    name: str
    lease_ns: int
    then: Rerun | Fail | Keep


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run is where it is. `ahead`: runs of the job that it waits for, begun ones first. `stages`: (name, state, reason).
    `waits_since`: of the stage that waits longest for a place, None where none does."""

    run: str
    state: str
    reason: str
    blocked: str | None
    ahead: list[str]
    stages: list[tuple[str, str, str]]
    holders: list[Holder]
    priority: int
    waits_since: int | None
    losses: list[str]


def why(connection: sqlite3.Connection, run_id: str) -> Why:
    """What the ledger can say about a run's waiting or its end. Raises NotFound."""
    row = connection.execute("SELECT job, state, reason, spec_version, ended_at, started_at, due_at FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f'no run has the id "{run_id}"', hint="igor runs lists them; ended runs are pruned after a time")
    job_id, state, reason, spec_version, ended_at, started_at, due_at = row
    stages = connection.execute("SELECT name, state, reason FROM stages WHERE run = ? ORDER BY position", (run_id,)).fetchall()
    blocked: str | None = None
    ahead: list[str] = []
    holders: list[Holder] = []
    priority, waits_since = 0, None
    if ended_at is None:
        spec = spec_at(connection, job_id, spec_version)
        priority, queued_at = spec.priority, connection.execute(_QUEUED_SINCE, (run_id,)).fetchone()[0]
        waits_since = None if queued_at is None else max(queued_at, due_at)
        holders = [_holder(spec, *held) for held in connection.execute(_HELD, (run_id,))]
        if started_at is None:
            blocked, ahead = _blocked(live_runs(connection, job_id), run_id, spec)
    return Why(
        run=run_id, state=state, reason=reason, blocked=blocked, ahead=ahead, stages=[tuple(stage) for stage in stages], holders=holders,
        priority=priority, waits_since=waits_since, losses=[_loss(*lost) for lost in connection.execute(_LOST, (run_id,))],
    )  # fmt: skip


_LOST = """
SELECT attempts.n, coalesce(nodes.name, attempts.node), attempts.reason FROM attempts LEFT JOIN nodes ON nodes.node = attempts.node
WHERE attempts.run = ? AND attempts.state = 'lost' ORDER BY attempts.stage, attempts.n"""
_QUEUED_SINCE = "SELECT min(queued_at) FROM stages WHERE run = ? AND state = 'queued'"
_HELD = """
SELECT attempts.node, coalesce(nodes.name, attempts.node), attempts.stage, stages.losses
FROM attempts JOIN stages ON stages.run = attempts.run AND stages.name = attempts.stage LEFT JOIN nodes ON nodes.node = attempts.node
WHERE attempts.run = ? AND attempts.ended_at IS NULL ORDER BY stages.position, attempts.n"""


def _loss(n: int, node: str, reason: str) -> str:
    return f"attempt {n} on node {node} was lost: {reason}"


def _holder(spec: Job, node: str, name: str, stage: str, losses: int) -> Holder:
    then = after_loss(stage_of(spec, stage).on_node_loss, attempts_made=losses + 1, max_attempts=spec.max_attempts)
    return Holder(node=node, name=name, lease_ns=spec.lease_ns, then=then)


def _blocked(live: Sequence[LiveRun], run_id: str, spec: Job) -> tuple[str | None, list[str]]:
    """Why the run may not begin, and the runs it waits for."""
    begun = [one.run for one in live if one.begun and one.run != run_id]
    ahead: list[str] = []
    beside = False
    for one in live:
        if one.run == run_id:
            beside = one.beside
            break
        if not (one.begun or one.beside):
            ahead.append(one.run)
    reason = start_blocked(spec.overlap, max_parallel=spec.max_parallel, begun=begun, ahead=ahead, beside=beside)
    return reason, [*begun, *ahead] if reason else []
