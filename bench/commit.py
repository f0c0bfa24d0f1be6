"""How long does a commit take on three nodes, and how many does a second hold?

Question: time from `Replica.propose` to its answer, after the command is on the disks of a majority and applied on the leader, with one
proposal in flight and with 1,000. Three real processes on this machine, 100-byte commands, each applied to SQLite (WAL, synchronous NORMAL).
Unit: milliseconds, commits a second. Machine floor: fdatasync of a 100-byte write into a file filled with zeros, on the same file system, measured
in the same run while the nodes idle. Goals, as ratios: one in flight p50 <= 4 x floor + 2 ms; 1,000 in flight >= 8,000 a second.
Prints a table and writes JSON with versions and parameters.

    python -m bench.commit [--seconds 5] [--in-flight 1000] [--size 100] [--ledger] [--json out/commit.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.cluster.raft_cluster import Cluster, cluster_in

GOAL_FSYNCS, GOAL_MS, GOAL_A_SECOND = 4, 2.0, 8_000
FLOOR_SAMPLES = 500


def floor_ms(folder: Path, size: int) -> float:
    """p50 of fdatasync after a small write into space that is already allocated, as the journal does."""
    path, took = folder / "floor", []
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(1024 * 1024), 0)
        os.fsync(descriptor)
        for number in range(FLOOR_SAMPLES):
            os.pwrite(descriptor, b"x" * size, number * size)
            begun = time.perf_counter()
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(took)[len(took) // 2] * 1000


def measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, float]:
    leader = cluster.processes[cluster.wait_leader("abc")]
    leader.ask("load", in_flight=1, seconds=0.5, size=options.size)  # the first are slower: caches, code paths
    floor = floor_ms(cluster.folder, options.size)
    one = leader.ask("load", in_flight=1, seconds=options.seconds, size=options.size)
    many = leader.ask("load", in_flight=options.in_flight, seconds=options.seconds, size=options.size)
    floor = min(floor, floor_ms(cluster.folder, options.size))  # the stricter of before and after
    return {
        "fdatasync_p50_ms": floor,
        "one_in_flight_p50_ms": one["p50_ms"],
        "one_in_flight_p99_ms": one["p99_ms"],
        "one_in_flight_goal_ms": GOAL_FSYNCS * floor + GOAL_MS,
        "one_in_flight_fsync_p50_ms": one["fsync_p50_ms"],
        "many_in_flight_a_second": many["answered"] / many["seconds"],
        "many_in_flight_goal_a_second": GOAL_A_SECOND,
        "many_in_flight_p50_ms": many["p50_ms"],
        "many_in_flight_p99_ms": many["p99_ms"],
    }


def report(figures: dict[str, float], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "question": "commit of a command on three local nodes: proposed to applied on the leader",
        "parameters": {"seconds": options.seconds, "in_flight": options.in_flight, "size_bytes": options.size, "ledger": options.ledger},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release(), "sqlite": sqlite3.sqlite_version},
        "versions": {name: version(name) for name in ("igor-node", "pysyncobj", "msgspec")},
        **{name: round(value, 3) for name, value in figures.items()},
        "goals_met": figures["one_in_flight_p50_ms"] <= figures["one_in_flight_goal_ms"] and figures["many_in_flight_a_second"] >= GOAL_A_SECOND,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a command; not with --ledger")
    parser.add_argument("--ledger", action="store_true", help="apply to the real ledger, one RegisterNode a command")
    parser.add_argument("--json", type=Path, default=Path("out/commit.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="igor-commit-") as folder, cluster_in(Path(folder), ledger=options.ledger) as cluster:
        cluster.three()
        figures = measure(cluster, options)
    found = report(figures, options)
    for name in (*figures, "goals_met"):
        print(f"  {name.replace('_', ' '):<32} {found[name]!s:>12}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {options.json}")
    return 0 if found["goals_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
