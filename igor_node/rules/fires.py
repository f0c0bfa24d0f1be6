"""Which fires of a job are decided now, and how: pure arithmetic on a timetable, the catch-up window, the pause and the overlap policy.

`leader/fires.py` calls `decide` for each job whose time has come and proposes what it returns. Never reads a clock: `now` is the caller's; ids of
runs come from `new_run`, because chance belongs to whoever proposes. All times are nanoseconds since the epoch.

The order of things. Fires are decided in the order of their scheduled time and none is passed over, because `decided_until` is one number. A fire is
decided up to `lookahead` before its due time; with jitter a later fire may be due first, then the earlier one is decided with it. Four answers:

  in a pause        one stretch `skipped: paused`, written when its time has passed, never ahead: a resume in between lets it run
  in a gap          nobody could make it when it was due: the schedule's catch-up window and policy say `run` or `missed`
  overlap undecided an earlier run may still end before the due time: the decision waits for it, and so do all later fires of the job
  else              a run, or `skipped` by the overlap policy

A gap of a schedule begins where its first undecided fire is more than `PUNCTUAL` late. Then the policy speaks for all its fires up to now;
without a gap a fire that is a moment late (a failover longer than the lookahead) is simply made, whatever the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from igor_node.definitions.jobs import CatchUp
from igor_node.definitions.schedule import DueFire
from igor_node.rules.overlap import Admit, Earlier, Skip, admit, decision_waits
from igor_node.rules.pause import Pause
from igor_node.words import SECOND, format_span

LOOKAHEAD = 5 * SECOND
PUNCTUAL = 5 * SECOND  # a fire made at most so late counts as made in time
FIRES_A_STEP = 1_000  # of one job: keeps a batch under one ledger entry
STRETCH_STEP = 5_000  # fires of a long gap counted at once: tens of milliseconds
PAUSE_STEP = 60 * SECOND  # how often the record of a pause grows, at most
PEEK = 16  # fires looked at for the one that is due first


class Timetable(Protocol):
    """The fires of one job, all schedules merged, each scheduled time once."""

    def between(self, after: int, until: int, limit: int) -> Sequence[DueFire]:
        """Fires with after < scheduled_at <= until, in order, at most `limit`."""

    def next_after(self, after: int, schedule: int | None = None) -> int | None:
        """The first scheduled time after `after`, of one schedule or of all."""

    def catch_up(self, schedule: int) -> CatchUp: ...

    @property
    def longest_window_ns(self) -> int:
        """The longest catch-up window of the job's schedules."""


@dataclass(frozen=True, slots=True)
class JobView:
    """What the ledger holds of a job that matters for its fires. `earlier`: its runs that have not ended, in their order."""

    job: str
    decided_until: int
    overlap: str = "queue"
    max_queued: int = 100
    pause: Pause = field(default_factory=Pause)
    earlier: tuple[Earlier, ...] = ()


@dataclass(frozen=True, slots=True)
class OneFire:
    """`outcome` "" makes a run."""

    run: str
    scheduled_at: int
    due_at: int
    outcome: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of fires that get no run, as one record."""

    first: int
    last: int
    count: int
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`decided_until` is the job's old one where nothing was decided. `wake_at`: look at this job again then; None: it never fires again."""

    fires: tuple[OneFire, ...]
    spans: tuple[Span, ...]
    decided_until: int
    wake_at: int | None


def decide(view: JobView, timetable: Timetable, now: int, new_run: Callable[[], str], *, limit: int = FIRES_A_STEP) -> Decision:
    """What becomes of the job's fires up to now + LOOKAHEAD; at most `limit` runs, or one step of a long gap."""
    in_long_gap = view.decided_until < now - timetable.longest_window_ns - PUNCTUAL
    coming = timetable.between(view.decided_until, now + LOOKAHEAD, STRETCH_STEP if in_long_gap else limit)
    ready = coming[: _ready(coming, now)]
    desk = _Desk(view, new_run, limit)
    gaps = _gaps(ready, now, view.pause)
    for position, fire in enumerate(ready):
        if not _decide_one(desk, fire, ready[position + 1 :], timetable, now, gap=fire.schedule_index in gaps):
            break
    return desk.decision(_wake_at(desk, timetable, now, more=len(desk.decided) < len(ready)))


def missed_reason(fire: DueFire, later: Sequence[DueFire], timetable: Timetable, now: int) -> str:
    """Why a fire in a gap is not run, "" where it is. `later`: fires that follow it in the same batch."""
    rule = timetable.catch_up(fire.schedule_index)
    if now - fire.scheduled_at > rule.window_ns:
        return f"nobody could make it within the catch-up window of {format_span(rule.window_ns)}"
    if rule.policy == "none":
        return "nobody could make it in time (catch_up: none)"
    if rule.policy == "latest" and _superseded(fire, later, timetable, now):
        return "nobody could make it in time, a later one stands for it (catch_up: latest)"
    return ""


class _Desk:
    """The decisions of one step so far, and the runs of the job as they are after them."""

    def __init__(self, view: JobView, new_run: Callable[[], str], limit: int) -> None:
        self.view = view
        self.new_run = new_run
        self.limit = limit
        self.earlier = list(view.earlier)
        self.fires: list[OneFire] = []
        self.spans: list[Span] = []
        self.decided: list[int] = []
        self.wait_until: int | None = None

    def stretch(self, fire: DueFire, outcome: str, reason: str) -> None:
        last = self.spans[-1] if self.spans else None
        if last and (last.outcome, last.reason) == (outcome, reason) and self.decided[-1] == last.last:
            self.spans[-1] = Span(last.first, fire.scheduled_at, last.count + 1, outcome, reason)
        else:
            self.spans.append(Span(fire.scheduled_at, fire.scheduled_at, 1, outcome, reason))
        self.decided.append(fire.scheduled_at)

    def run(self, fire: DueFire) -> None:
        """By the overlap policy: a run, or a skip."""
        answer = admit(self.view.overlap, self.earlier, max_queued=self.view.max_queued)
        run = self.new_run()
        if isinstance(answer, Skip):
            self.fires.append(OneFire(run, fire.scheduled_at, fire.due_at, "skipped", answer.reason))
        else:
            self.fires.append(OneFire(run, fire.scheduled_at, fire.due_at))
            self._admitted(answer, run)
        self.decided.append(fire.scheduled_at)

    def _admitted(self, answer: Admit, run: str) -> None:
        # A cancelled run that has begun still holds the slot until its end is recorded; one that waits is gone at once.
        gone = {*answer.drop, *(one.run for one in self.earlier if one.run in answer.cancel and not one.begun)}
        self.earlier = [one for one in self.earlier if one.run not in gone]
        self.earlier.append(Earlier(run, begun=False))

    def decision(self, wake_at: int | None) -> Decision:
        fires, spans = list(self.fires), []
        for span in self.spans:
            if span.count == 1 and span.outcome == "missed":
                fires.append(OneFire(self.new_run(), span.first, span.first, span.outcome, span.reason))
            else:
                spans.append(span)
        fires.sort(key=lambda fire: fire.scheduled_at)
        return Decision(tuple(fires), tuple(spans), self.decided[-1] if self.decided else self.view.decided_until, wake_at)


def _decide_one(desk: _Desk, fire: DueFire, later: Sequence[DueFire], timetable: Timetable, now: int, *, gap: bool) -> bool:
    """Decides one fire; False where it, and so all after it, must wait."""
    view = desk.view
    if view.pause.covers(fire.scheduled_at):
        if fire.scheduled_at > now:
            desk.wait_until = fire.scheduled_at
            return False
        desk.stretch(fire, "skipped", view.pause.in_words())
        return True
    if gap and fire.due_at <= now:
        if reason := missed_reason(fire, later, timetable, now):
            desk.stretch(fire, "missed", reason)
            return True
    elif fire.due_at > now and decision_waits(view.overlap, desk.earlier, max_queued=view.max_queued):
        desk.wait_until = fire.due_at
        return False
    if len(desk.fires) >= desk.limit:
        desk.wait_until = now
        return False
    desk.run(fire)
    return True


def _ready(coming: Sequence[DueFire], now: int) -> int:
    """How many of the fires are to be decided: up to the last one that is due within the lookahead."""
    return max((position + 1 for position, fire in enumerate(coming) if fire.due_at <= now + LOOKAHEAD), default=0)


def _gaps(ready: Sequence[DueFire], now: int, pause: Pause) -> frozenset[int]:
    """The schedules that were not kept in time. One that was, because its jitter puts it behind the others' gap, has nothing to catch up with."""
    return frozenset(fire.schedule_index for fire in ready if fire.due_at < now - PUNCTUAL and not pause.covers(fire.scheduled_at))


def _superseded(fire: DueFire, later: Sequence[DueFire], timetable: Timetable, now: int) -> bool:
    if any(other.schedule_index == fire.schedule_index and other.due_at <= now for other in later[:PEEK]):
        return True
    following = timetable.next_after(fire.scheduled_at, fire.schedule_index)
    return following is not None and following <= now


def _wake_at(desk: _Desk, timetable: Timetable, now: int, *, more: bool) -> int | None:
    pause = desk.view.pause
    if desk.wait_until is not None:
        return _pause_wake(desk, now, desk.wait_until) if pause.covers(desk.wait_until) else desk.wait_until
    wake = first_wake(timetable, desk.decided[-1] if desk.decided else desk.view.decided_until)
    if wake is None or more or not pause.covers(wake + LOOKAHEAD):
        return wake
    return _pause_wake(desk, now, wake + LOOKAHEAD)


def _pause_wake(desk: _Desk, now: int, fire_at: int) -> int:
    """The record of a pause grows once a `PAUSE_STEP`, not at each fire, but the end of the pause is not slept through."""
    until = desk.view.pause.until
    if not desk.spans or fire_at <= now:
        return fire_at
    later = max(fire_at, now + PAUSE_STEP)
    return later if until is None else max(fire_at, min(later, until - LOOKAHEAD))


def first_wake(timetable: Timetable, decided_until: int) -> int | None:
    """When the next fire after `decided_until` must be decided: its due time less the lookahead. None: there is none."""
    first = timetable.next_after(decided_until)
    if first is None:
        return None
    near = timetable.between(decided_until, first, PEEK)
    far = timetable.between(decided_until, near[0].due_at, PEEK) if near and near[0].due_at > first else near
    return min((fire.due_at for fire in (*near, *far)), default=first) - LOOKAHEAD
