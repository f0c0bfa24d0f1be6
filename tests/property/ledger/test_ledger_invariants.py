"""What must hold after every command of any history: SEMANTICS, "What Igor promises", as far as the ledger alone can keep it."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from igor_node.ledger import query_live
from igor_node.ledger.commands import Refused
from igor_node.ledger.query_jobs import spec_of
from igor_node.ledger.waiting import waiting
from igor_node.words import ATTEMPT_ENDS, RUN_ENDS, STAGE_ENDS
from tests.property.ledger.histories import SLOTS, History
from tests.unit.ledger.book import Book

STEPS = 200
RUN_END = "('succeeded', 'failed', 'timed_out', 'cancelled', 'lost', 'skipped', 'missed')"

NEVER = {
    "a run and its end agree": f"SELECT id FROM runs WHERE (ended_at IS NULL) = (state IN {RUN_END})",
    "trouble is the state of what did not succeed": (
        "SELECT id FROM runs WHERE trouble IS NOT CASE WHEN ended_at IS NULL OR state = 'succeeded' THEN NULL ELSE state END"
    ),
    "an ended run has no stage that goes on": (
        "SELECT run FROM stages JOIN runs ON runs.id = stages.run WHERE runs.ended_at IS NOT NULL AND stages.ended_at IS NULL"
    ),
    "an ended run has no attempt that goes on": (
        "SELECT run FROM attempts JOIN runs ON runs.id = attempts.run WHERE runs.ended_at IS NOT NULL AND attempts.ended_at IS NULL"
    ),
    "a live run has something to wait for": (
        "SELECT id FROM runs WHERE ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM stages WHERE run = runs.id AND state IN "
        "('queued', 'assigned', 'running'))"
    ),
    "a stage has at most one attempt that goes on": "SELECT run FROM attempts WHERE ended_at IS NULL GROUP BY run, stage HAVING count(*) > 1",
    "an attempt that goes on is its stage's last": (
        "SELECT attempts.run FROM attempts JOIN stages ON stages.run = attempts.run AND stages.name = attempts.stage "
        "WHERE attempts.ended_at IS NULL AND (attempts.n <> stages.attempts OR stages.state NOT IN ('assigned', 'running'))"
    ),
    "a stage that is with a node has an attempt there": (
        "SELECT run FROM stages WHERE state IN ('assigned', 'running') AND NOT EXISTS "
        "(SELECT 1 FROM attempts WHERE attempts.run = stages.run AND attempts.stage = stages.name AND attempts.ended_at IS NULL)"
    ),
    "slots are never exceeded": f"SELECT node FROM attempts WHERE ended_at IS NULL GROUP BY node HAVING sum(slots) > {SLOTS}",
    "a fire exists once": "SELECT job FROM runs WHERE trigger = 'schedule' GROUP BY job, scheduled_at HAVING count(*) > 1",
    "a fire is in a run or in a stretch": (
        "SELECT runs.id FROM runs JOIN stretches ON stretches.job = runs.job AND runs.scheduled_at BETWEEN stretches.first AND stretches.last "
        "WHERE runs.trigger = 'schedule'"
    ),
    "no fire is later than what is decided": (
        "SELECT id FROM runs JOIN jobs ON jobs.job = runs.job WHERE trigger = 'schedule' AND scheduled_at > decided_until"
    ),
    "fences of a job are never used twice": (
        "SELECT fence FROM attempts JOIN runs ON runs.id = attempts.run GROUP BY runs.job, fence HAVING count(*) > 1"
    ),
    "a run that has not begun has no attempt that goes on": (
        "SELECT id FROM runs JOIN attempts ON attempts.run = runs.id WHERE NOT begun AND attempts.ended_at IS NULL"
    ),
    "events are numbered without a gap": (
        "SELECT 1 FROM (SELECT count(*) AS n, min(number) AS low, max(number) AS high FROM events) WHERE n > 0 AND high - low + 1 <> n"
    ),
    "runs are counted": "SELECT 1 FROM position WHERE runs <> (SELECT count(*) FROM runs)",
    "a staging is not complete": "SELECT push FROM staged GROUP BY push HAVING count(*) >= parts",
    "nothing ends before it starts": "SELECT id FROM runs WHERE ended_at < started_at",
}


def check(connection: sqlite3.Connection) -> None:
    for promise, statement in NEVER.items():
        assert connection.execute(statement).fetchall() == [], promise


def check_overlap(connection: sqlite3.Connection) -> None:
    """Runs of a job that have begun, but for those beside: one, or as many as `allow` lets run."""
    for job, begun in connection.execute("SELECT job, count(*) FROM runs WHERE ended_at IS NULL AND begun AND NOT beside GROUP BY job ORDER BY job"):
        text = connection.execute("SELECT spec FROM definitions WHERE job = ? ORDER BY version DESC LIMIT 1", (job,)).fetchone()[0]
        spec = spec_of(text)
        assert begun <= (spec.max_parallel if spec.overlap == "allow" else 1), (job, spec.overlap)


def check_lines(book: Book, connection: sqlite3.Connection) -> None:
    """What apply has counted is what the table says."""
    table = {
        job: (begun, waiting)
        for job, begun, waiting in connection.execute(
            "SELECT job, sum(begun), sum(NOT begun) FROM runs WHERE ended_at IS NULL GROUP BY job ORDER BY job"
        )
    }
    for job, counts in book.ledger._lines.known().items():
        assert counts == table.get(job, (0, 0)), job


def check_waiting(connection: sqlite3.Connection) -> None:
    """What placement is shown is what the rule says of each waiting stage, asked one by one about the whole line."""
    rows = connection.execute(
        "SELECT runs.job, run, name, begun FROM stages JOIN runs ON runs.id = run WHERE stages.state = 'queued' ORDER BY run, position"
    ).fetchall()
    alone = {(run, stage): None if begun else query_live.why(connection, run).blocked for _, run, stage, begun in rows}
    shown = {(one.run, one.stage): one.blocked for one in waiting(connection, 2**62, 1_000, blocked_per_job=1_000).stages}
    assert shown == alone


class Memory:
    """What may never be taken back."""

    def __init__(self) -> None:
        self.ends: dict[str, Any] = {}
        self.decided: dict[str, int] = {}
        self.time = 0

    def check(self, connection: sqlite3.Connection) -> None:
        ends = dict(connection.execute("SELECT id, state || ' ' || ended_at FROM runs WHERE ended_at IS NOT NULL ORDER BY id").fetchall())
        for run, end in ends.items():
            assert self.ends.setdefault(run, end) == end, "an end state never changes"
        decided = dict(connection.execute("SELECT job, decided_until FROM jobs ORDER BY job").fetchall())
        assert all(decided[job] >= before for job, before in self.decided.items()), "decided_until never goes back"
        self.decided = decided
        time = connection.execute("SELECT ledger_time FROM position").fetchone()[0]
        assert time >= self.time, "ledger time never goes back"
        self.time = time


# Without `staged`: a push that is refused takes its pieces with it.
CONTENT = (
    "meta", "keys", "nodes", "tokens", "projects", "versions", "definitions", "jobs", "history", "runs", "stretches", "stages", "attempts",
    "tries", "events",
)  # fmt: skip


def content(connection: sqlite3.Connection) -> list[Any]:
    return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in CONTENT]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(min_value=0, max_value=2**32))
def test_every_history_keeps_the_promises(seed: int) -> None:
    """After each command."""
    with tempfile.TemporaryDirectory() as folder:
        history, memory = History(Path(folder), seed), Memory()
        with closing(history.book):
            for _ in range(STEPS):
                history.step()
                check(history.connection)
                check_lines(history.book, history.connection)
                check_waiting(history.connection)
                check_overlap(history.connection)
                memory.check(history.connection)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(min_value=0, max_value=2**32))
def test_a_refused_command_changes_nothing(seed: int) -> None:
    """But for its own answer and the ledger's position."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), seed)
        with closing(history.book):
            for _ in range(STEPS):
                before = content(history.connection)
                if isinstance(history.step(), Refused):
                    assert content(history.connection) == before


def test_the_histories_reach_what_matters() -> None:
    """A generator that never got anywhere would prove nothing: every state of runs, stages and attempts comes up."""
    runs, stages, attempts, late = set(), set(), set(), 0
    for seed in range(32):
        with tempfile.TemporaryDirectory() as folder:
            history = History(Path(folder), seed)
            with closing(history.book):
                for _ in range(STEPS):
                    history.step()
                rows = history.connection.execute
                runs |= {row[0] for row in rows("SELECT DISTINCT state FROM runs")}
                stages |= {row[0] for row in rows("SELECT DISTINCT state FROM stages")}
                attempts |= {row[0] for row in rows("SELECT DISTINCT state FROM attempts")}
                late += rows("SELECT count(*) FROM attempts WHERE late IS NOT NULL").fetchone()[0]
    assert runs >= RUN_ENDS
    assert stages >= STAGE_ENDS
    assert attempts >= ATTEMPT_ENDS
    assert late > 0
