"""How long runs of a job took of late, and which go on: what rules/forecast.py looks at. Called inside `Reads.query`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from statistics import median

from igor_node.definitions.jobs import Job
from igor_node.rules.forecast import Expected

LOOKED_AT = 50  # of a job's last runs; those that did not succeed say nothing about how long it takes

_LAST = f"""
SELECT ended_at - started_at FROM (SELECT state, started_at, ended_at FROM runs WHERE job = ? ORDER BY id DESC LIMIT {LOOKED_AT})
WHERE state = 'succeeded' AND started_at IS NOT NULL"""
_GOING = "SELECT started_at FROM runs WHERE job = ? AND ended_at IS NULL AND started_at IS NOT NULL ORDER BY started_at"


def expected(connection: sqlite3.Connection, jobs: Mapping[str, Job]) -> dict[str, Expected]:
    """By id. Of a job with stages the pools of all of them count for the whole run."""
    return {name: _expected(connection, name, spec) for name, spec in jobs.items()}


def _expected(connection: sqlite3.Connection, job: str, spec: Job) -> Expected:
    took = [row[0] for row in connection.execute(_LAST, (job,))]
    going = tuple(row[0] for row in connection.execute(_GOING, (job,)))
    pools = tuple(dict.fromkeys(pool for stage in spec.stages for pool in stage.pools))
    return Expected(spec.overlap, spec.max_parallel, pools, int(median(took)) if took else None, going)
