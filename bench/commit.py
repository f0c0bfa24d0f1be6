"""How long does a commit take on three nodes, and how many does a second hold?

Question: time from `Replica.propose` to its answer, after the command is on the disks of a majority and applied on the leader, with one
proposal in flight and with 1,000. Three real processes on this machine, 100-byte commands, each applied to SQLite (WAL, synchronous NORMAL).
Unit: milliseconds, commits a second. Machine floor: fdatasync of a 100-byte write into a file filled with zeros, on the same file system, measured
in the same run while the nodes idle. Goals: one in flight p50 <= 4 x floor + 2 ms; 1,000 in flight >= 20,000 a second. Where `etcd` is installed
three of its processes do the same afterwards (puts of 100 bytes at its leader, by `bench/etcd.py`); goals: more than etcd with 1,000 in flight, and
level with it in p50 with one. Igor's load comes from the leader's own process, etcd's from one that shares this machine's processors.
Prints a table and writes JSON with versions and parameters; `processor us` is what a commit costs all three nodes together, on a busy machine too.

    python -m bench.commit [--seconds 5] [--in-flight 1000] [--size 100] [--ledger] [--no-etcd] [--json out/commit.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import etcd
from bench.written import written
from tests.cluster.raft_cluster import Cluster, cluster_in

GOAL_FSYNCS, GOAL_MS, GOAL_A_SECOND = 4, 2.0, 20_000
GOAL_LEVEL = 1.5  # one in flight p50 of Igor over that of etcd: level, as far as two runs of either are
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


def processor_s(cluster: Cluster) -> float:
    """Processor time of all three nodes so far."""
    fields = [Path(f"/proc/{one.popen.pid}/stat").read_text().rpartition(")")[2].split() for one in cluster.processes.values()]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, float]:
    leader = cluster.processes[cluster.wait_leader("abc")]
    leader.ask("load", in_flight=1, seconds=0.5, size=options.size)  # the first are slower: caches, code paths
    floor = floor_ms(cluster.folder, options.size)
    one = leader.ask("load", in_flight=1, seconds=options.seconds, size=options.size)
    busy = processor_s(cluster)
    many = leader.ask("load", in_flight=options.in_flight, seconds=options.seconds, size=options.size)
    busy = processor_s(cluster) - busy
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
        "many_in_flight_processor_us": busy / many["answered"] * 1e6,
    }


def measure_etcd(igor: dict[str, float], options: argparse.Namespace) -> dict[str, float]:
    """The same of etcd on the same disk, and what Igor's are to it."""
    with tempfile.TemporaryDirectory(prefix="igor-commit-etcd-") as folder, etcd.cluster_in(Path(folder)) as leader:
        etcd.load(leader, 1, 0.5, options.size)
        one = etcd.load(leader, 1, options.seconds, options.size)
        many = etcd.load(leader, options.in_flight, options.seconds, options.size)
    a_second = many["answered"] / many["seconds"]
    return {
        "etcd_one_in_flight_p50_ms": one["p50_ms"],
        "etcd_one_in_flight_p99_ms": one["p99_ms"],
        "etcd_many_in_flight_a_second": a_second,
        "etcd_many_in_flight_p50_ms": many["p50_ms"],
        "etcd_many_in_flight_p99_ms": many["p99_ms"],
        "one_in_flight_p50_to_etcd": igor["one_in_flight_p50_ms"] / one["p50_ms"],
        "one_in_flight_p99_to_etcd": igor["one_in_flight_p99_ms"] / one["p99_ms"],
        "many_in_flight_a_second_to_etcd": igor["many_in_flight_a_second"] / a_second,
    }


def goals_met(figures: dict[str, float]) -> bool:
    if figures["one_in_flight_p50_ms"] > figures["one_in_flight_goal_ms"] or figures["many_in_flight_a_second"] < GOAL_A_SECOND:
        return False
    return figures.get("many_in_flight_a_second_to_etcd", 1.0) >= 1.0 and figures.get("one_in_flight_p50_to_etcd", 1.0) <= GOAL_LEVEL


def report(figures: dict[str, float], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "question": "commit of a command on three local nodes: proposed to applied on the leader",
        "parameters": {"seconds": options.seconds, "in_flight": options.in_flight, "size_bytes": options.size, "ledger": options.ledger},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release(), "sqlite": sqlite3.sqlite_version},
        "versions": {**{name: version(name) for name in ("igor-node", "pysyncobj", "msgspec")}, "etcd": etcd.version()},
        **{name: round(value, 3) for name, value in figures.items()},
        "goals_met": goals_met(figures),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a command; not with --ledger")
    parser.add_argument("--ledger", action="store_true", help="apply to the real ledger, one RegisterNode a command")
    parser.add_argument("--no-etcd", action="store_true", help="leave etcd out, though it is installed")
    parser.add_argument("--json", type=Path, default=Path("out/commit.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="igor-commit-") as folder, cluster_in(Path(folder), ledger=options.ledger) as cluster:
        cluster.three()
        figures = measure(cluster, options)
    if etcd.version() and not options.no_etcd:
        figures |= measure_etcd(figures, options)
    found = report(figures, options)
    for name in (*figures, "goals_met"):
        print(f"  {name.replace('_', ' '):<32} {found[name]!s:>12}")
    return written(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
