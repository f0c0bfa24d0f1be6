"""What does a voter cost whose ledger holds millions of runs, and how long does it take to start?

Question: time from the start of the process to `/readyz`, after a clean stop and after `kill -9` in the middle of writes; resident memory then and
after questions to the API; time of those questions, and of an entry that prunes. One real node, whose ledger was filled beside it with runs that
ended, evenly over 89 days: as many rows as the real ones leave in every table (a day's events and answers, too). Units: seconds, MiB, milliseconds.
Goals: ready within 5 s after a clean stop and 20 s after `kill -9`, resident memory at most 200 MiB, with 10,000,000 runs (about 8 GB).
With --join two more nodes join at the end, take a copy of it all and become voters: how long that takes, and what writes feel of it.
As root the system's cache is dropped before each start, so that the disk is measured and not what happened to be read before.
Prints a table and writes JSON with versions and parameters.

    python -m bench.growth [--runs 1000000] [--jobs 1000] [--join] [--keep FOLDER] [--json out/growth.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from bench.written import written
from igor_node.ledger import schema
from igor_node.ledger.apply_prune import RUNS_PER_PRUNE
from igor_node.ledger.commands import Done, Envelope, Prune, encode_envelope
from igor_node.ledger.files import current_file, forget_sums
from igor_node.ledger.ledger import Ledger
from igor_node.words import MILLISECOND, SECOND, format_instant, id_floor, new_id, wall_now
from raft.interface import Entry, Kind
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

GOAL_CLEAN_S, GOAL_KILLED_S, GOAL_RSS_MIB = 5.0, 20.0, 200.0
BYTES_A_RUN = 1_000  # of free disk that is asked for: file, indices and room to sort them
DAY = 86_400 * SECOND
PERIOD = 89 * DAY  # retention keeps 90 days
FAILED_ONE_IN = 40
CHUNK = 50_000
WRITES = 2_000  # before the kill, and before others join
JOIN_LIMIT_S = 1_800.0
ASKED = 5  # times for each question; the first one may read from the disk
PROJECT = "grown"


# --- the ledger


def fill(file: Path, runs: int, jobs: int, node: str) -> None:
    """Rows as they stand after runs have ended, in the order of their keys; indices are made afterwards, which is many times faster."""
    first = wall_now() - PERIOD
    step = PERIOD // runs
    forget_sums(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000", "temp_store = FILE"):
            connection.execute(f"PRAGMA {setting}")
        made = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall())
        for name in made:
            connection.execute(f"DROP INDEX {name}")
        last_event = connection.execute("SELECT last_event FROM position").fetchone()[0]
        insert(connection, "runs", (run_row(n, first + n * step, jobs) for n in range(runs)))
        insert(connection, "stages", (stage_row(run_id(n, first + n * step), first + n * step) for n in range(runs)))
        insert(connection, "attempts", (attempt_row(run_id(n, first + n * step), first + n * step, node) for n in range(runs)))
        insert(connection, "tries", (try_row(run_id(n, first + n * step), first + n * step, n) for n in range(runs)))
        lately = runs - runs // (PERIOD // DAY)
        events = insert(connection, "events", day_of_events(lately, runs, first, step, jobs, last_event))
        insert(connection, "results", ((run_id(n, first + n * step), bytes(40)) for n in range(lately, runs)))
        connection.execute("UPDATE position SET runs = runs + ?, last_event = last_event + ?", (runs, events))
        for text in made.values():
            connection.execute(text)
        connection.execute("PRAGMA journal_mode = WAL")


def insert(connection: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> int:
    count, waiting = 0, iter(rows)
    while chunk := list(islice(waiting, CHUNK)):
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(chunk[0]))})", chunk)
        connection.execute("COMMIT")
        count += len(chunk)
    return count


def run_id(number: int, at: int) -> str:
    return f"{id_floor(at)}{number:010d}"


def run_row(number: int, at: int, jobs: int) -> tuple[Any, ...]:
    job, state = f"{PROJECT}/job-{number % jobs:05d}", "failed" if number % FAILED_ONE_IN == 0 else "succeeded"
    reason, trouble = ("exit code 1", state) if state == "failed" else ("", None)
    return (
        run_id(number, at), job, PROJECT, 1, 1, "schedule", state, reason, at, at, at, at + 20 * MILLISECOND, at + 5 * SECOND, 20 * MILLISECOND,
        "{}", 0, 1, at, None, trouble,
    )  # fmt: skip


def stage_row(run: str, at: int) -> tuple[Any, ...]:
    return (run, "main", 0, "succeeded", "", 1, 1, 0, at, at, at + 5 * SECOND)


def attempt_row(run: str, at: int, node: str) -> tuple[Any, ...]:
    return (run, "main", 1, node, "succeeded", "", 1, 1, "0" * 64, "", at, at, at + 5 * SECOND, 4, None, None)


def try_row(run: str, at: int, number: int) -> tuple[Any, ...]:
    return (run, "main", 1, 1, "succeeded", "", at, at + 5 * SECOND, number % 2, None, 10_000_000 + number, 5_000_000, 5 * SECOND)


def day_of_events(first_run: int, runs: int, first: int, step: int, jobs: int, number: int) -> Iterator[tuple[Any, ...]]:
    """Five a run: made, placed, started, its stage ended, it ended."""
    for n in range(first_run, runs):
        at, job = first + n * step, f"{PROJECT}/job-{n % jobs:05d}"
        for state in ("queued", "assigned", "running", "succeeded", "succeeded"):
            number += 1
            yield (number, at, "run", PROJECT, job, run_id(n, at), None, None, "leader", f'{{"state":"{state}","reason":""}}')


def push(cluster: Cluster, jobs: int) -> None:
    """So many jobs that do not fire while this runs."""
    schedule = {"cron": "0 3 29 2 *"}
    cluster.push(PROJECT, *({"name": f"job-{n:05d}", "schedule": schedule, "command": "true"} for n in range(jobs)))


# --- measuring


def drop_cache() -> bool:
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


def start(node: Node) -> float:
    """Seconds from the start of the process until it is ready for clients."""
    begun = time.perf_counter()
    node.start(wait=False)
    wait_for(lambda: ready(node), 600, f"{node.name} to be ready", poll_s=0.02)
    return time.perf_counter() - begun


def ready(node: Node) -> bool:
    assert node.running, node.tail()
    try:
        return (node.folder / "address").exists() and node.request("GET", "/readyz", token=None)[0] == 200
    except OSError:
        return False


def memory_mib(node: Node, field: str = "VmRSS") -> float:
    assert node.process is not None
    lines = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def questions(runs: int, jobs: int) -> dict[str, str]:
    middle = wall_now() - PERIOD // 2
    job = f"{PROJECT}%2Fjob-{jobs // 2:05d}"
    return {
        "runs": "/v1/runs?limit=100",
        "runs_behind": f"/v1/runs?limit=100&cursor={id_floor(middle)}",
        "runs_since": f"/v1/runs?limit=100&since={format_instant(middle)}",
        "failed_runs": "/v1/runs?state=failed&limit=100",
        "live_runs": "/v1/runs?state=live&limit=100",
        "runs_of_job": f"/v1/runs?job={job}&limit=100",
        "cancelled_of_job": f"/v1/runs?job={job}&state=cancelled&limit=100",
        "jobs": "/v1/jobs?limit=100",
        "job": f"/v1/jobs/{job}",
        "cluster": "/v1/cluster",
        "audit_of_a_day": f"/v1/audit?job={job}&from={format_instant(wall_now() - DAY)}",
        "metrics": "/metrics",
    }


def ask(node: Node, path: str) -> tuple[float, float]:
    """Milliseconds of the first answer, and the median of those after it."""
    took = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        status, _, answer = node.request("GET", path, timeout_s=60)
        took.append((time.perf_counter() - begun) * 1000)
        assert status == 200, (path, answer)
    return took[0], statistics.median(took[1:])


def write(node: Node, more: Callable[[int], bool]) -> list[float]:
    """Small writes, one after another, as long as there shall be more of them: milliseconds of each, sorted."""
    took: list[float] = []
    while more(len(took)):
        begun = time.perf_counter()
        status, _, answer = node.request("POST", "/v1/tokens", {"role": "viewer", "name": f"t{len(took)}"})
        took.append((time.perf_counter() - begun) * 1000)
        assert status == 201, answer
    return sorted(took)


def join(cluster: Cluster) -> dict[str, float]:
    """Two more voters, while one client writes."""
    first, *others = cluster.nodes
    alone = write(first, lambda count: count < WRITES)
    begun = time.perf_counter()
    for node in others:
        node.start(join=first, wait=False)
    looked_at, voters = 0.0, 1

    def joining(_: int) -> bool:
        nonlocal looked_at, voters
        if time.perf_counter() - looked_at > 1:
            looked_at, voters = time.perf_counter(), len(first.request("GET", "/v1/cluster")[2]["voters"])
        return voters < 3 and looked_at - begun < JOIN_LIMIT_S

    meanwhile = write(first, joining)
    assert voters == 3, first.tail()
    found = {"join_s": time.perf_counter() - begun, "rss_of_joiner_mib": max(memory_mib(node, "VmHWM") for node in others)}
    for name, took in (("alone", alone), ("joining", meanwhile)):
        found[f"write_{name}_p50_ms"], found[f"write_{name}_p99_ms"] = took[len(took) // 2], took[len(took) * 99 // 100]
    return found


def prune_ms(path: Path) -> float:
    """One entry that forgets as many runs as it may, applied to the file alone: median of five."""
    took = []
    with closing(Ledger(path)) as ledger:
        for _ in range(ASKED):
            now = wall_now()
            prune = Prune(runs_before=0, created_before=now, results_before=0, events_before=0)
            entry = Entry(
                ledger.applied().index + 1, ledger.applied().term, Kind.COMMAND, encode_envelope(Envelope(id=new_id(now), at=now, command=prune))
            )
            begun = time.perf_counter()
            answer = ledger.apply([entry])[0]
            took.append((time.perf_counter() - begun) * 1000)
            assert isinstance(answer, Done) and answer.value["runs"] == RUNS_PER_PRUNE, answer
    return statistics.median(took)


def measure(cluster: Cluster, runs: int, jobs: int, say: Callable[[str], None], *, joins: bool) -> dict[str, float]:
    node = cluster.nodes[0]
    start(node)
    push(cluster, jobs)
    identity = json.loads((node.folder / "node.json").read_text())["id"]
    assert node.stop() == 0
    file = current_file(node.folder / "ledger.sqlite")
    shutil.rmtree(node.folder / "raft")  # what is filled in stands in no log: whoever replayed that would differ, be found out and stop
    begun = time.perf_counter()
    fill(file, runs, jobs, identity)
    found = {"ledger_mib": file.stat().st_size / 2**20, "filling_s": time.perf_counter() - begun}
    say(f"{runs} runs in {found['filling_s']:.0f} s, {found['ledger_mib']:.0f} MiB")

    cold = drop_cache()
    found["cold"] = float(cold)
    found["ready_after_clean_stop_s"] = start(node)
    found["rss_after_start_mib"] = memory_mib(node)
    for name, path in questions(runs, jobs).items():
        found[f"ask_{name}_first_ms"], found[f"ask_{name}_ms"] = ask(node, path)
        say(f"asked for {name}")
    found["rss_after_questions_mib"] = memory_mib(node)
    write(node, lambda count: count < WRITES)
    found["rss_after_writes_mib"] = memory_mib(node)
    found["wal_before_kill_mib"] = Path(f"{current_file(node.folder / 'ledger.sqlite')}-wal").stat().st_size / 2**20
    node.kill()
    drop_cache()
    found["ready_after_kill_s"] = start(node)
    found["rss_after_kill_mib"] = memory_mib(node)
    found["rss_peak_mib"] = memory_mib(node, "VmHWM")
    if joins:
        found |= join(cluster)
        for other in cluster.nodes[1:]:
            other.kill()
    found["stop_s"] = -time.perf_counter()
    assert node.stop(60) == 0
    found["stop_s"] += time.perf_counter()
    drop_cache()
    found["prune_ms"] = prune_ms(node.folder / "ledger.sqlite")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--join", action="store_true", help="let two more nodes join at the end")
    parser.add_argument("--keep", type=Path, help="a folder that is left behind with all that was made")
    parser.add_argument("--json", type=Path, default=Path("out/growth.json"))
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="igor-growth-"))
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < options.runs * BYTES_A_RUN * 2:
        print(f"{folder} has less than {options.runs * BYTES_A_RUN * 2 / 2**30:.1f} GiB free; ask for fewer --runs", file=sys.stderr)
        return 2
    cluster = Cluster(3 if options.join else 1, folder=folder)
    try:
        found = measure(cluster, options.runs, options.jobs, lambda line: print(f"  … {line}", file=sys.stderr), joins=options.join)
    finally:
        cluster.close()
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    rss = max(found[name] for name in found if name.startswith("rss_"))
    report = {
        "question": "a voter with millions of runs: start to ready, memory, questions",
        "parameters": {"runs": options.runs, "jobs": options.jobs, "join": options.join},
        "goals": {"ready_after_clean_stop_s": GOAL_CLEAN_S, "ready_after_kill_s": GOAL_KILLED_S, "rss_mib": GOAL_RSS_MIB},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release(), "sqlite": sqlite3.sqlite_version},
        "versions": {"igor-node": version("igor-node"), "ledger": schema.FIRST_VERSION},
        **{name: round(value, 2) for name, value in found.items()},
        "goals_met": found["ready_after_clean_stop_s"] <= GOAL_CLEAN_S and found["ready_after_kill_s"] <= GOAL_KILLED_S and rss <= GOAL_RSS_MIB,
    }
    for name in (*found, "goals_met"):
        print(f"  {name.replace('_', ' '):<34} {report[name]!s:>12}")
    return written(report, options.json)


if __name__ == "__main__":
    sys.exit(main())
