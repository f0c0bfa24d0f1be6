"""What will probably become of coming fires: which of them will wait, be skipped or end another run, judged by how long their jobs took of late.

A walk through the fires in order, with what goes on now: each run is taken to last as long as the median of its job's last ones. Of a job that never
ran nothing is said. Nodes are left aside: where there is room is known when it is time. Pure: no clock, all times in nanoseconds.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from igor_node.rules.overlap import Overlap, room_for
from igor_node.rules.upcoming import Upcoming
from igor_node.words import SECOND, Instant, format_instant, format_span


@dataclass(frozen=True, slots=True)
class Expected:
    """Of a job. `lasts` None: it never ran. `going`: when its runs that go on began."""

    overlap: str
    max_parallel: int = 1
    pools: tuple[str, ...] = ()
    lasts: int | None = None
    going: tuple[int, ...] = ()


Line = list[tuple[int, int]]  # what goes on of one job: ends in order, and of which fire each is


def forecast(fires: Iterable[Upcoming], jobs: Mapping[str, Expected], pools: Mapping[str, int], now: int) -> list[str]:
    """A sentence for each fire, in their order; empty where nothing is in its way, or nothing is known. `pools`: slots by name."""
    lines = {name: sorted((max(now, began + (one.lasts or 0)), began) for began in one.going) for name, one in jobs.items()}
    held: dict[str, list[int]] = {}
    for name, one in jobs.items():
        for pool in one.pools:
            held.setdefault(pool, []).extend(end for end, _ in lines[name])
    return [_say(fire, jobs.get(fire.job), lines, held, pools) for fire in fires]


def _say(fire: Upcoming, job: Expected | None, lines: dict[str, Line], held: dict[str, list[int]], pools: Mapping[str, int]) -> str:
    if job is None or job.lasts is None or fire.paused:
        return ""
    line = lines[fire.job]
    going = [(end, began) for end, began in line if end > fire.due_at]
    start, words = fire.due_at, ""
    if len(going) >= room_for(job.overlap, job.max_parallel):
        begins, words = _overlaps(job, going, fire.due_at)
        if begins is None:
            return words
        start = begins
        if job.overlap == Overlap.CANCEL:
            line.clear()
    start, full = _pooled(job.pools, held, pools, start)
    insort(line, (start + job.lasts, fire.scheduled_at))
    for pool in job.pools:
        insort(held.setdefault(pool, []), start + job.lasts)
    return "; ".join(part for part in (words, full) if part)


def _overlaps(job: Expected, going: Sequence[tuple[int, int]], due_at: int) -> tuple[int | None, str]:
    """When it starts, None for never; `going` in the order of their ends."""
    free_at, of = going[len(going) - room_for(job.overlap, job.max_parallel)]
    run = f"the run of {_text(of)}, which takes about {_span(job.lasts or 0)}"
    match job.overlap:
        case Overlap.SKIP:
            return None, f"will probably be skipped: {run}, has not ended then"
        case Overlap.QUEUE_ONE if len(going) > 1:
            return None, f"will probably be skipped: a run waits already behind {run}"
        case Overlap.CANCEL:
            return due_at, f"will probably end {run}"
    return free_at, f"will probably wait {_span(free_at - due_at)} for {run}"


def _pooled(names: Sequence[str], held: Mapping[str, list[int]], pools: Mapping[str, int], start: int) -> tuple[int, str]:
    """When a slot of each pool is free, and which pool it waits for longest."""
    words = ""
    for name in names:
        busy = sorted(end for end in held.get(name, ()) if end > start)
        slots = pools.get(name, 0)
        if slots and len(busy) >= slots:
            free_at = busy[len(busy) - slots]
            words = f"will probably wait {_span(free_at - start)} for pool {name}"
            start = free_at
    return start, words


def _span(span: int) -> str:
    return format_span(max(SECOND, span // SECOND * SECOND))


def _text(at: int) -> str:
    return format_instant(Instant(at // SECOND * SECOND))
