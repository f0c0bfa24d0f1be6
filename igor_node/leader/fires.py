"""The fires loop: keeps the next moment of every scheduled job in a heap, sleeps until the first, and proposes what `rules.fires` decides.

It reads all jobs once, at the begin of its term, and again when the ledger says that definitions or pauses changed. A batch is one query (live
runs of the jobs that are due) and one entry. What the ledger refuses (a push or a pause came in between) is read again and decided again. The
loop also ends pauses whose time is over, so that the ledger shows them ended.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from igor_node.edges import JUMP
from igor_node.leader.reign import Reign
from igor_node.ledger import query_audit, query_jobs, query_live
from igor_node.ledger.commands import Done, Fire, FireRuns, ResumeJobs, Stretch
from igor_node.ledger.query_jobs import JobRow
from igor_node.ledger.query_live import LiveRun
from igor_node.rules.fires import Decision, JobView, Timetable, decide, first_wake
from igor_node.rules.overlap import Earlier
from igor_node.rules.pause import Pause
from igor_node.rules.timetable import ChangedTimetable, JobTimetable, Part
from igor_node.words import SECOND, new_id

FIRES_A_BATCH = 1_000  # with names as long as they may be an entry stays under 1 MiB
JOBS_A_BATCH = 1_000
JOBS_A_TURN = 200  # read or decided before other tasks of the event loop get a turn
IDLE = 5 * SECOND  # with nothing to do: also the longest time for which a stepped clock goes unnoticed
DOUBT_PAUSE_S = 0.05  # until timekeeping has made up its mind, or has handed over
RETRY = SECOND // 2  # after a refusal
TOPICS = ("jobs", "projects")

log = logging.getLogger("igor.leader.fires")


@dataclass(slots=True)
class _Scheduled:
    """A job in the heap. `wake_at` None: it never fires again as it is."""

    row: JobRow
    timetable: Timetable
    decided_until: int
    wake_at: int | None


class FiresLoop:
    def __init__(self, reign: Reign) -> None:
        self._reign = reign
        self._jobs: dict[str, _Scheduled] = {}
        self._heap: list[tuple[int, str]] = []
        self._read_at = -1  # index at which the jobs were read
        self._stale = False
        self._pauses: dict[str, int] = {}  # jobs whose pause has an end

    async def run(self) -> None:
        reign = self._reign
        while True:
            if self._stale or reign.changes.last(TOPICS) > self._read_at:
                await self._read_jobs()
            if reign.time_in_doubt or abs(reign.clock.jump()) > JUMP:
                await reign.clock.sleep(DOUBT_PAUSE_S)
                continue
            await self._end_pauses()
            now = reign.clock.now()
            due = self._take_due(now)
            if due:
                await self._decide(due, now)
            else:
                await reign.change(TOPICS, self._read_at, self._seconds_to_next(now))

    # --- the heap

    async def _read_jobs(self) -> None:
        """Takes over what is new or changed; what did not change keeps its place in the heap."""
        self._read_at, (rows, changed) = await self._reign.reads.indexed(_jobs_and_changes)
        self._stale = False
        self._pauses = {row.job: row.paused_until for row in rows if row.paused_until is not None}
        before, self._jobs = self._jobs, {}
        for number, row in enumerate(rows):
            if number % JOBS_A_TURN == 0:
                await asyncio.sleep(0)
            known = before.get(row.job)
            if known is not None and _same(known.row, row) and known.decided_until == row.decided_until:
                known.row = row
                self._jobs[row.job] = known
            else:
                timetable = changed.get(row.job) or JobTimetable(row.spec)
                self._put(_Scheduled(row, timetable, row.decided_until, None), first_wake(timetable, row.decided_until))

    def _put(self, job: _Scheduled, wake_at: int | None) -> None:
        job.wake_at = wake_at
        self._jobs[job.row.job] = job
        if wake_at is not None:
            heapq.heappush(self._heap, (wake_at, job.row.job))

    def _take_due(self, now: int) -> list[_Scheduled]:
        """The jobs whose time has come, at most a batch. Entries of the heap that were overtaken are dropped on the way."""
        due: list[_Scheduled] = []
        while self._heap and self._heap[0][0] <= now and len(due) < JOBS_A_BATCH:
            wake_at, job_id = heapq.heappop(self._heap)
            job = self._jobs.get(job_id)
            if job is not None and job.wake_at == wake_at:
                job.wake_at = None
                due.append(job)
        return due

    def _seconds_to_next(self, now: int) -> float:
        next_at = self._heap[0][0] if self._heap else now + IDLE
        return max(0, min(next_at, now + IDLE, *self._pauses.values()) - now) / SECOND

    # --- one batch

    async def _decide(self, due: Sequence[_Scheduled], now: int) -> None:
        reign = self._reign
        ids = [job.row.job for job in due]
        live = await reign.reads.query(lambda connection: query_live.live_runs_by_job(connection, ids))
        decisions: list[tuple[_Scheduled, Decision]] = []
        room = FIRES_A_BATCH
        for number, job in enumerate(due):
            if number % JOBS_A_TURN == 0:
                await asyncio.sleep(0)
            if room <= 0:
                self._put(job, now)
                continue
            view = _view(job, live.get(job.row.job, []))
            decision = decide(view, job.timetable, now, lambda: new_id(reign.clock.now()), limit=room)
            room -= len(decision.fires) + len(decision.spans)
            decisions.append((job, decision))
        await self._propose([one for one in decisions if one[1].decided_until > one[0].decided_until])
        for job, decision in decisions:
            stands = job.decided_until == decision.decided_until
            self._put(job, decision.wake_at if stands else now + RETRY)

    async def _propose(self, decisions: Sequence[tuple[_Scheduled, Decision]]) -> None:
        if not decisions:
            return
        answer = await self._reign.propose(_command(self._reign.term, decisions))
        refused = {job for job, *_ in (answer.value or {}).get("refused", ())} if isinstance(answer, Done) else {job.row.job for job, _ in decisions}
        for job, decision in decisions:
            if job.row.job not in refused:
                job.decided_until = decision.decided_until
        if refused:
            log.info("fires of %d jobs were refused and are decided again", len(refused))
            self._stale = True

    async def _end_pauses(self) -> None:
        """A pause with an end is over for the rules anyhow; this makes it visible."""
        now = self._reign.clock.now()
        over = sorted(job for job, until in self._pauses.items() if until <= now)
        if over:
            await self._reign.propose(ResumeJobs(jobs=tuple(over[:JOBS_A_BATCH])))
            self._pauses = {job: until for job, until in self._pauses.items() if until > now}
            self._stale = True


def _jobs_and_changes(connection: sqlite3.Connection) -> tuple[list[JobRow], dict[str, ChangedTimetable]]:
    """All jobs with a schedule; and of those that were changed after the last time that is decided, what held from there on."""
    rows = query_jobs.schedulable(connection)
    return rows, {row.job: timetable for row in rows if row.changed_at > row.decided_until and (timetable := _changed(connection, row)) is not None}


def _changed(connection: sqlite3.Connection, row: JobRow) -> ChangedTimetable | None:
    segments = query_audit.audit_job(connection, row.job, row.decided_until + 1, row.changed_at + 1).segments
    parts = [Part(one.after, one.until, JobTimetable(one.spec)) for one in segments if one.spec is not None]
    return ChangedTimetable(parts) if parts and parts[-1].until is None else None


def _view(job: _Scheduled, live: Sequence[LiveRun]) -> JobView:
    row = job.row
    return JobView(
        job=row.job,
        decided_until=job.decided_until,
        overlap=row.spec.overlap,
        max_queued=row.spec.max_queued,
        pause=_pause(row),
        earlier=tuple(Earlier(run.run, run.begun) for run in live),
    )


def _pause(row: JobRow) -> Pause:
    return Pause(paused=row.paused, until=row.paused_until, resumed_at=row.resumed_at, reason=row.pause_reason)


def _same(known: JobRow, row: JobRow) -> bool:
    return known.version == row.version and known.spec_version == row.spec_version and _pause(known) == _pause(row)


def _command(term: int, decisions: Sequence[tuple[_Scheduled, Decision]]) -> FireRuns:
    fires = [
        Fire(job=job.row.job, run=fire.run, scheduled_at=fire.scheduled_at, due_at=fire.due_at, outcome=fire.outcome, reason=fire.reason)
        for job, decision in decisions
        for fire in decision.fires
    ]
    stretches = [
        Stretch(job=job.row.job, first=span.first, last=span.last, count=span.count, outcome=span.outcome, reason=span.reason)
        for job, decision in decisions
        for span in decision.spans
    ]
    return FireRuns(
        term=term,
        fires=tuple(sorted(fires, key=lambda fire: (fire.scheduled_at, fire.job))),
        stretches=tuple(stretches),
        decided={job.row.job: decision.decided_until for job, decision in decisions},
        versions={job.row.job: job.row.spec_version for job, _ in decisions},
    )
