"""What do commits feel of a follower that is a gigabyte behind, and when is it level?

Question: p50 and p99 of a commit on the leader under a steady load, as usual (before and after), and while a new follower fetches a copy of a ledger
of that size, up to the moment at which it holds all that is committed; and how long that takes. Real processes on this machine, real ledgers: two
voters, whose ledgers were made so large directly, and the follower, which begins empty. All share one disk and its processors, which is harder than
service. Unit: milliseconds, seconds. Goal, as a ratio within one run: p99 meanwhile <= 3 x the usual p99. Prints a table and writes JSON.

    python -m bench.catch_up [--megabytes 1024] [--rate 500] [--seconds 15] [--json out/catch_up.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.written import written
from igor_node.ledger.files import forget_sums
from igor_node.ledger.ledger import Ledger
from tests.cluster.raft_cluster import Cluster, cluster_in, wait_for

GOAL_RATIO = 3.0
ROW_BYTES = 1000
LEVEL_ENTRIES = 2_000  # as near to the leader's last entry as the load allows to see
LEVEL_TIMEOUT_S = 900.0
FILL = """
INSERT INTO filling (data) WITH RECURSIVE counted(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted WHERE number < ?)
SELECT randomblob(?) FROM counted
"""


def make_ledger(path: Path, megabytes: int) -> None:
    """A ledger that has applied nothing, of that size: a table of its own fills it."""
    path.parent.mkdir(parents=True)
    Ledger(path).close()
    forget_sums(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE filling (number INTEGER PRIMARY KEY, data BLOB NOT NULL)")
    with connection:
        connection.execute(FILL, (megabytes * 1024 * 1024 // (ROW_BYTES + 60), ROW_BYTES))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def two_voters(cluster: Cluster, megabytes: int) -> None:
    make_ledger(cluster.folder / "a" / "ledger.sqlite", megabytes)
    shutil.copytree(cluster.folder / "a", cluster.folder / "b")
    os.sync()
    cluster.start("a", found=True)
    cluster.start("b")
    cluster.start("c")
    cluster.wait_ready("a", "b", "c")
    wait_for(lambda: cluster.status("a")["terms"], "a leads its cluster of one")
    cluster.processes["a"].ask("add_learner", node="b", address=cluster.addresses["b"])
    cluster.processes["a"].ask("add_voter", node="b")


def cut_journal(cluster: Cluster) -> None:
    """Until the first entries are gone: whoever begins empty needs a copy."""

    def is_cut() -> bool:
        cluster.processes["a"].ask("load", in_flight=1000, seconds=1.0, size=100)
        return not (cluster.folder / "a" / "raft" / "0000000000000001.log").exists()

    wait_for(is_cut, "the journal is cut", timeout_s=120)


def usual(cluster: Cluster, options: argparse.Namespace) -> list[float]:
    leader = cluster.processes["a"]
    leader.ask("begin_steady", rate=options.rate, size=100)
    time.sleep(options.seconds)
    return took(leader.ask("end_steady"))


def catching_up(cluster: Cluster, options: argparse.Namespace) -> tuple[list[float], float]:
    """The times of the commits, and after how many seconds the follower was level."""
    leader = cluster.processes["a"]
    leader.ask("begin_steady", rate=options.rate, size=100)
    begun = time.monotonic()
    leader.ask("add_learner", node="c", address=cluster.addresses["c"])

    def is_level() -> bool:
        time.sleep(0.1)
        peer = cluster.status("a")["peers"].get("c", {})
        return bool(peer.get("caught_up")) or peer.get("match_index", 0) > cluster.status("a")["commit_index"] - LEVEL_ENTRIES

    wait_for(is_level, "the follower is level", timeout_s=LEVEL_TIMEOUT_S)
    level_s = time.monotonic() - begun
    return took(leader.ask("end_steady")), level_s


def took(answer: dict[str, Any]) -> list[float]:
    if answer["failed"]:
        raise SystemExit(f"{len(answer['failed'])} commits failed, the first with {answer['failed'][0]}")
    return answer["took_ms"]


def share(times: list[float], percent: float) -> float:
    return sorted(times)[int(len(times) * percent / 100)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--megabytes", type=int, default=1024, help="of the ledger")
    parser.add_argument("--rate", type=int, default=500, help="commits a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the usual load")
    parser.add_argument("--json", type=Path, default=Path("out/catch_up.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="igor-catch-up-") as folder, cluster_in(Path(folder), ledger=True) as cluster:
        two_voters(cluster, options.megabytes)
        cut_journal(cluster)
        size = (Path(folder) / "a" / "ledger.sqlite").stat().st_size
        before = usual(cluster, options)
        during, level_s = catching_up(cluster, options)
        after = usual(cluster, options)
    calm = before + after  # around it: a machine that is shared is not the same for a minute
    ratio = share(during, 99) / share(calm, 99)
    figures = {
        "ledger_bytes": size,
        "level_after_s": level_s,
        "usual_p50_ms": share(calm, 50),
        "usual_p99_ms": share(calm, 99),
        "usual_max_ms": max(calm),
        "meanwhile_p50_ms": share(during, 50),
        "meanwhile_p99_ms": share(during, 99),
        "meanwhile_max_ms": max(during),
        "p99_ratio": ratio,
        "p99_ratio_goal": GOAL_RATIO,
    }
    found = {
        "question": "commits on the leader while a follower fetches a copy of the ledger",
        "parameters": {"megabytes": options.megabytes, "rate": options.rate, "seconds": options.seconds},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release(), "sqlite": sqlite3.sqlite_version},
        "versions": {name: version(name) for name in ("igor-node", "pysyncobj", "msgspec")},
        **{name: round(value, 3) for name, value in figures.items()},
        "goals_met": ratio <= GOAL_RATIO,
    }
    for name in (*figures, "goals_met"):
        print(f"  {name.replace('_', ' '):<32} {found[name]!s:>12}")
    return written(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
