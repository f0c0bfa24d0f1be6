"""Attempts for the hub: those that have not ended, with all that the node which runs them must know, and what is known of any one.

Called inside `Reads.query`, mostly for many attempts at once: after a change, and when a node connects and names those it holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from igor_node.definitions.jobs import Job, Stage
from igor_node.ledger.query_jobs import spec_of, stage_of
from igor_node.ledger.schema import attempt_id, split_attempt
from igor_node.rules.graph import spared


class OpenAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has not ended, with everything that stream.Assignment needs but the put-in of values and the renewal token.

    `cancel` and `revoke`: the reason, where the node is to end it or not to start it. `last_seq`: the highest event committed.
    """

    attempt: str
    run: str
    job: str
    project: str
    stage: str
    n: int
    node: str
    state: str
    fence: int
    trigger: str
    due_at: int
    scheduled_at: int | None
    created_at: int
    params: dict[str, str]
    spec: Job
    stage_spec: Stage
    version: int
    placed_at: int
    started_at: int | None
    last_seq: int
    cancel: str | None
    revoke: str | None
    renew_hash: str
    lease_ns: int
    on_node_loss: str


_OPEN = """
SELECT attempts.run, attempts.stage, attempts.n, attempts.node, attempts.state, attempts.fence, attempts.placed_at, attempts.started_at,
  attempts.last_seq, attempts.revoke, attempts.renew_hash, runs.job, runs.project, runs.trigger, runs.due_at, runs.scheduled_at, runs.created_at,
  runs.params, runs.cancel, runs.version, definitions.spec
FROM attempts {} JOIN runs ON runs.id = attempts.run
JOIN definitions ON definitions.job = runs.job AND definitions.version = runs.spec_version
WHERE attempts.ended_at IS NULL {} ORDER BY attempts.run, attempts.stage, attempts.n"""


def open_attempts(connection: sqlite3.Connection, node: str | None = None) -> list[OpenAttempt]:
    """Attempts that have not ended, of one node or of all, in the order of run, stage and number."""
    if node is None:
        rows = connection.execute(_OPEN.format("INDEXED BY attempts_open", ""))
    else:
        rows = connection.execute(_OPEN.format("INDEXED BY attempts_open", "AND attempts.node = ?"), (node,))
    return [_open(row) for row in rows]


def open_attempt(connection: sqlite3.Connection, attempt: str) -> OpenAttempt | None:
    """One attempt, or None where it is not known or has ended."""
    parts = split_attempt(attempt)
    if parts is None:
        return None
    row = connection.execute(_OPEN.format("", "AND attempts.run = ? AND attempts.stage = ? AND attempts.n = ?"), parts).fetchone()
    return None if row is None else _open(row)


def _open(row: Sequence[Any]) -> OpenAttempt:
    run_id, stage, n, node_id, state, fence, placed_at, started_at, last_seq, revoke, renew_hash = row[:11]
    job_id, project_name, trigger, due_at, scheduled_at, created_at, params, cancel, version, text = row[11:]
    spec = spec_of(text)
    stage_spec = stage_of(spec, stage)
    return OpenAttempt(
        attempt=attempt_id(run_id, stage, n), run=run_id, job=job_id, project=project_name, stage=stage, n=n, node=node_id, state=state,
        fence=fence, trigger=trigger, due_at=due_at, scheduled_at=scheduled_at, created_at=created_at, params=msgspec.json.decode(params), spec=spec,
        stage_spec=stage_spec, version=version, placed_at=placed_at, started_at=started_at, last_seq=last_seq,
        cancel=None if spared(always=stage_spec.always, needs=stage_spec.needs, cancel=cancel) else cancel, revoke=revoke, renew_hash=renew_hash,
        lease_ns=spec.lease_ns, on_node_loss=stage_spec.on_node_loss,
    )  # fmt: skip


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one attempt, ended or not: for renewals, for `forget`, and for finding its log."""

    attempt: str
    run: str
    stage: str
    n: int
    node: str
    state: str
    last_seq: int
    ended: bool
    renew_hash: str
    lease_ns: int
    on_node_loss: str


def attempt(connection: sqlite3.Connection, attempt_name: str) -> AttemptRow | None:
    """None where the ledger does not know it (never placed, or pruned)."""
    parts = split_attempt(attempt_name)
    row = None if parts is None else connection.execute(_ATTEMPT, parts).fetchone()
    if row is None:
        return None
    run_id, stage, n, node_id, state, last_seq, ended_at, renew_hash, text = row
    spec = spec_of(text)
    return AttemptRow(
        attempt=attempt_name, run=run_id, stage=stage, n=n, node=node_id, state=state, last_seq=last_seq, ended=ended_at is not None,
        renew_hash=renew_hash, lease_ns=spec.lease_ns, on_node_loss=stage_of(spec, stage).on_node_loss,
    )  # fmt: skip


_ATTEMPT = """
SELECT attempts.run, attempts.stage, attempts.n, attempts.node, attempts.state, attempts.last_seq, attempts.ended_at, attempts.renew_hash,
  definitions.spec
FROM attempts JOIN runs ON runs.id = attempts.run JOIN definitions ON definitions.job = runs.job AND definitions.version = runs.spec_version
WHERE attempts.run = ? AND attempts.stage = ? AND attempts.n = ?"""
