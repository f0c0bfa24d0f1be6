"""One-line faults of scheduling, each of which the simulated fleet must notice.

    python -m tests.simulation.scheduling_faults                  hunts for all of them, prints a table
    python -m tests.simulation.scheduling_faults room_of_two      for some

A fault is put into the module's source in memory (mutations.py), in a process of its own, and a small fleet lives with it: seed after seed, until a
promise breaks, or something that takes none of it raises.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.simulation.faults import Fault
from tests.simulation.mutations import ROOT, Loader

SEEDS, JOBS, DAYS = 6, 40, 40
TIMEOUT_S = 240
FOUND, NOT_FOUND = 0, 3

OVERLAP, FIRES, PLACEMENT, LOSS, PAUSE = (f"igor_node/rules/{name}.py" for name in ("overlap", "fires", "placement", "node_loss", "pause"))
RUNS, PUSHES, REPORTS, BACKFILLS, LINES = (
    f"igor_node/ledger/{name}.py" for name in ("apply_runs", "apply_pushes", "apply_reports", "apply_backfills", "lines")
)
LOOP, WATCH, TIMETABLE = "igor_node/leader/fires.py", "igor_node/leader/watch.py", "igor_node/rules/timetable.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "fail_reruns", "fail makes another attempt", LOSS, "        case OnNodeLoss.FAIL:\n", "        case OnNodeLoss.FAIL if attempts_made > 2:\n"
    ),
    Fault("backfill_at_will", "a backfill forgets its own", OVERLAP, "    room = parallel - own\n", "    room = parallel\n"),
    Fault("allow_one_more", "overlap allow has room for one more", OVERLAP, "return max(1, max_parallel) if", "return 1 + max(1, max_parallel) if"),
    Fault("gaps_unseen", "nothing is ever too late", FIRES, "    if gap and fire.due_at <= now:", "    if gap and fire.due_at > now:"),
    Fault("room_of_two", "two runs of a job go on at once", OVERLAP, "if policy == Overlap.ALLOW else 1", "if policy == Overlap.ALLOW else 2"),
    Fault("skip_nothing", "overlap skip admits", OVERLAP, "case Overlap.SKIP if earlier:", "case Overlap.SKIP if not earlier:"),
    Fault("queue_one_and_another", "queue_one keeps all", OVERLAP, "case Overlap.QUEUE_ONE if waiting:", "case Overlap.QUEUE_ONE if not waiting:"),
    Fault("cancel_nobody", "overlap cancel ends nobody", OVERLAP, "return Admit(cancel=tuple(one.run for one in earlier))", "return Admit()"),
    Fault("queue_without_end", "max_queued drops nobody", OVERLAP, "    return max(0, waiting + 1 - max(1, max_queued))", "    return 0"),
    Fault(
        "one_more_at_once",
        "one more than room begins",
        OVERLAP,
        "    if beside or going + len(ahead) < room:",
        "    if beside or going + len(ahead) <= room:",
    ),
    Fault(
        "a_fire_is_dropped",
        "the last fire of a batch is not told",
        LOOP,
        "        for fire in decision.fires\n",
        "        for fire in decision.fires[:-1]\n",
    ),
    Fault("a_stretch_is_dropped", "spans are not told", LOOP, "        for span in decision.spans\n", "        for span in decision.spans[1:]\n"),
    Fault(
        "decided_too_far",
        "decided further than was looked at",
        LOOP,
        "decided={job.row.job: decision.decided_until for",
        "decided={job.row.job: decision.decided_until + 10**15 for",
    ),
    Fault(
        "old_schedule_forgotten",
        "what a changed schedule named before is dropped",
        LOOP,
        "changed.get(row.job) or JobTimetable(row.spec)",
        "JobTimetable(row.spec)",
    ),
    Fault(
        "window_is_nothing",
        "too late is caught up with",
        FIRES,
        "    if now - fire.scheduled_at > rule.window_ns:",
        "    if now - fire.scheduled_at > rule.window_ns + 10**16:",
    ),
    Fault(
        "missed_unsaid",
        "missed ones lose their reason",
        FIRES,
        '            desk.stretch(fire, "missed", reason)\n',
        '            desk.stretch(fire, "missed", "")\n',
    ),
    Fault(
        "skips_the_waiting",
        "fires behind one that waits are passed over",
        FIRES,
        "        desk.wait_until = fire.due_at\n        return False\n",
        "        desk.wait_until = fire.due_at\n        return True\n",
    ),
    Fault(
        "pause_without_end",
        "a pause covers nothing before its end",
        PAUSE,
        "return self.until is None or scheduled_at < self.until",
        "return self.until is None",
    ),
    Fault("pause_unseen", "a pause covers nothing", PAUSE, "        if self.paused:\n", "        if not self.paused:\n"),
    Fault(
        "lease_cut",
        "an attempt is lost before its lease is out",
        LOSS,
        "    return max(renewed_at, term_began_at) + lease + margin(lease)",
        "    return max(renewed_at, term_began_at) + lease // 9",
    ),
    Fault("never_lost", "nobody is ever lost", LOSS, "on_node_loss != OnNodeLoss.WAIT and now >=", "on_node_loss == OnNodeLoss.WAIT and now >="),
    Fault("slots_unbounded", "a full node takes more", PLACEMENT, "    if demand.slots > node.free:", "    if demand.slots > node.slots:"),
    Fault(
        "pools_one_more",
        "a full pool takes one more",
        PLACEMENT,
        "        if len(pool.holders) >= pool.slots:",
        "        if len(pool.holders) > pool.slots:",
    ),
    Fault(
        "removed_jobs_go_on",
        "runs of removed jobs wait on",
        PUSHES,
        "        handed_out += _skip(tx, run, JOB_REMOVED)\n",
        "        handed_out += []\n",
    ),
    Fault(
        "born_in_the_past",
        "a new job speaks for times before its push",
        PUSHES,
        "        decided = max(before.decided_until, tx.time)",
        "        decided = before.decided_until",
    ),
    Fault(
        "line_never_ends",
        "ended runs still hold their job's line",
        LINES,
        "        self.begun -= begun\n        self.waiting -= not begun",
        "        self.waiting -= not begun",
    ),
    Fault(
        "backfill_repeats",
        "a backfill makes the same time again",
        BACKFILLS,
        "        n = found.made + made\n",
        "        n = max(0, found.made + made - 1)\n",
    ),
)


def hunt(name: str, seeds: int = SEEDS) -> str | None:
    """What broke, in a process of its own; None where nothing did."""
    command = [sys.executable, "-m", "tests.simulation.scheduling_faults", "--inside", name, str(seeds)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "it does not end"
    assert done.returncode in (FOUND, NOT_FOUND), done.stderr[-2_000:]
    return done.stdout.strip().splitlines()[-1] if done.returncode == FOUND else None


def inside(name: str, seeds: int) -> int:
    sys.meta_path.insert(0, Loader(next(fault for fault in FAULTS if fault.name == name)))
    from tests.simulation.scheduling import simulate

    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                asyncio.run(simulate(Path(folder), seed, JOBS, DAYS))
            except Exception as problem:
                print(f"seed {seed}: {type(problem).__name__}: {str(problem).splitlines()[0][:150]}")
                return FOUND
    return NOT_FOUND


def main(names: list[str]) -> int:
    missed = 0
    for fault in FAULTS:
        if not names or fault.name in names:
            found = hunt(fault.name)
            missed += found is None
            print(f"{fault.name:<24} {found or 'NOT FOUND'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(inside(sys.argv[2], int(sys.argv[3])) if sys.argv[1:2] == ["--inside"] else main(sys.argv[1:]))
