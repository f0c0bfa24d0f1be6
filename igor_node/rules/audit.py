"""The audit: what the schedules demanded, computed anew from the definitions of the time, beside what the ledger holds.

It shares the timetable with the fires loop but nothing of its bookkeeping: every fire that a definition named while it was in force is looked up,
and one up to `decided_until` without any record is `unaccounted`, two runs of one fire are `doubled`. `due = ran + skipped + missed + pending +
unaccounted`, and unaccounted is 0 as long as Igor keeps its promise. Runs whose fire no definition names any more (it was handed out before a
push changed the schedule) are rows as well. JSON shape: CONTRACT, `igor audit --json`. Times are nanoseconds; `from` is inclusive, `to` exclusive.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from igor_node.rules.fires import Timetable
from igor_node.words import SECOND, RunState, TooLarge, format_instant

FIRES_A_PAGE = 1_000
FIRES_LIMIT = 2_000_000  # fires looked at in one audit: some ten seconds
ROWS_LIMIT = 100_000

RAN, SKIPPED, MISSED, PENDING, UNACCOUNTED = "ran", "skipped", "missed", "pending", "unaccounted"


@dataclass(frozen=True, slots=True)
class Period:
    """For scheduled times later than `after`, up to the next period's `after`, the job was `active`, `paused` or `removed`."""

    after: int
    state: str
    timetable: Timetable


@dataclass(frozen=True, slots=True)
class RunRecord:
    run: str
    scheduled_at: int
    due_at: int
    state: str
    reason: str = ""
    started_at: int | None = None


@dataclass(frozen=True, slots=True)
class StretchRecord:
    first: int
    last: int
    count: int
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobRecords:
    """All that the ledger holds of one job for the audit's range; `periods`, `runs` and `stretches` in the order of time."""

    job: str
    decided_until: int
    periods: Sequence[Period]
    runs: Sequence[RunRecord] = ()
    stretches: Sequence[StretchRecord] = ()


@dataclass(slots=True)
class Row:
    """One fire with its run, or a span of fires with one outcome and reason."""

    job: str
    first: int
    last: int
    count: int
    outcome: str
    reason: str
    run: str | None = None
    lateness_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "scheduled_time": format_instant(self.first),
            "outcome": self.outcome,
            "run": self.run,
            "lateness_s": self.lateness_s,
            "reason": self.reason,
            "first": format_instant(self.first),
            "last": format_instant(self.last),
            "count": self.count,
        }


@dataclass(slots=True)
class Audit:
    rows: list[Row] = field(default_factory=list)
    doubled: int = 0

    def count(self, outcome: str) -> int:
        return sum(row.count for row in self.rows if row.outcome == outcome)

    def as_json(self, since: int, until: int) -> dict[str, Any]:
        counts = {outcome: self.count(outcome) for outcome in (RAN, SKIPPED, MISSED, PENDING, UNACCOUNTED)}
        return {
            "from": format_instant(since),
            "to": format_instant(until),
            "due": sum(counts.values()) - counts[UNACCOUNTED],
            **counts,
            "doubled": self.doubled,
            "rows": [row.as_json() for row in self.rows],
        }


def audit(jobs: Iterable[JobRecords], since: int, until: int, now: int) -> Audit:
    """The whole audit. Raises TooLarge past FIRES_LIMIT or ROWS_LIMIT: ask for a shorter range or for one job."""
    result, looked_at = Audit(), 0
    for job in jobs:
        looked_at = _audit_job(job, since, until, now, result, looked_at)
        if len(result.rows) > ROWS_LIMIT:
            raise TooLarge(f"the audit has more than {ROWS_LIMIT} rows", hint="ask for a shorter range or for one job")
    return result


def outcome_of(run: RunRecord) -> str:
    """A run counts as `ran` once it started or ended otherwise than by never starting."""
    match run.state:
        case RunState.SKIPPED:
            return SKIPPED
        case RunState.MISSED:
            return MISSED
        case RunState.CANCELLED if run.started_at is None:
            return SKIPPED
        case RunState.SCHEDULED | RunState.QUEUED | RunState.WAITING if run.started_at is None:
            return PENDING
    return RAN


def _audit_job(job: JobRecords, since: int, until: int, now: int, result: Audit, looked_at: int) -> int:
    runs: dict[int, list[RunRecord]] = {}
    for run in job.runs:
        runs.setdefault(run.scheduled_at, []).append(run)
    rows: list[Row] = []
    for scheduled_at, state in _demanded(job.periods, since, until):
        looked_at += 1
        if looked_at > FIRES_LIMIT:
            raise TooLarge(f"the audit looks at more than {FIRES_LIMIT} fires", hint="ask for a shorter range or for one job")
        found = runs.pop(scheduled_at, None)
        if found:
            rows.append(_row_of(job.job, found[0]))
            result.doubled += len(found) - 1
        else:
            _grow(rows, job.job, scheduled_at, *_without_run(job, scheduled_at, state, now))
    for scheduled_at, found in runs.items():
        if since <= scheduled_at < until:
            rows.append(_row_of(job.job, found[0]))
            result.doubled += len(found) - 1
    result.rows.extend(sorted(rows, key=lambda row: row.first))
    return looked_at


def _demanded(periods: Sequence[Period], since: int, until: int) -> Iterator[tuple[int, str]]:
    """Scheduled times in the range that the definition of their time named, with the job's state then."""
    for position, period in enumerate(periods):
        end = periods[position + 1].after if position + 1 < len(periods) else until - 1
        after, end = max(period.after, since - 1), min(end, until - 1)
        if period.state == "removed":
            continue
        while after < end and (page := period.timetable.between(after, end, FIRES_A_PAGE)):
            for fire in page:
                yield fire.scheduled_at, period.state
            after = page[-1].scheduled_at


def _without_run(job: JobRecords, scheduled_at: int, state: str, now: int) -> tuple[str, str]:
    """Outcome and reason of a fire that has no run of its own."""
    if stretch := _stretch_at(job.stretches, scheduled_at):
        return stretch.outcome, stretch.reason
    if state == "paused" and scheduled_at <= now:
        return SKIPPED, "paused"
    if scheduled_at <= job.decided_until:
        return UNACCOUNTED, "no record: neither a run nor a reason"
    if job.periods[-1].state == "removed":
        return SKIPPED, "job removed"
    return PENDING, "not due yet" if scheduled_at > now else "not decided yet"


def _stretch_at(stretches: Sequence[StretchRecord], scheduled_at: int) -> StretchRecord | None:
    position = bisect_right(stretches, scheduled_at, key=lambda stretch: stretch.first)
    if position and stretches[position - 1].last >= scheduled_at:
        return stretches[position - 1]
    return None


def _row_of(job: str, run: RunRecord) -> Row:
    lateness = None if run.started_at is None else (run.started_at - run.due_at) / SECOND
    return Row(job, run.scheduled_at, run.scheduled_at, 1, outcome_of(run), run.reason, run.run, lateness)


def _grow(rows: list[Row], job: str, scheduled_at: int, outcome: str, reason: str) -> None:
    last = rows[-1] if rows else None
    if last and last.run is None and (last.outcome, last.reason) == (outcome, reason):
        last.last, last.count = scheduled_at, last.count + 1
    else:
        rows.append(Row(job, scheduled_at, scheduled_at, 1, outcome, reason))
