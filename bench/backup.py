"""What do commits feel of a backup, and how fast is one?

Question: time of small writes to the leader, one after another, alone and while `igor backup` runs against a cluster of three whose ledger is large;
time and size of the backup, and of `igor-node restore` from it, until the restored node serves. All three nodes share this machine's disk, which is
the worst case: usually a follower has its own. Units: milliseconds, seconds, MiB. Goal: p99 meanwhile at most 3 times that alone.
Prints a table and writes JSON with versions and parameters.

    python -m bench.backup [--runs 1000000] [--json out/backup.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from bench.growth import fill, push, write
from bench.written import written
from igor_node.ledger.files import current_file
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

GOAL_RATIO = 3.0
WRITES = 1_000
JOBS = 1_000
JOIN_LIMIT_S = 1_800.0


def grow(cluster: Cluster, runs: int) -> None:
    """A founder with a large ledger, then two more voters that copied it."""
    first, *others = cluster.nodes
    first.start()
    push(cluster, JOBS)
    identity = json.loads((first.folder / "node.json").read_text())["id"]
    assert first.stop() == 0
    shutil.rmtree(first.folder / "raft")  # what is filled in stands in no log
    fill(current_file(first.folder / "ledger.sqlite"), runs, JOBS, identity)
    first.start()
    for node in others:
        node.start(join=first, wait=False)
    wait_for(lambda: len(cluster.status()["voters"]) == 3, JOIN_LIMIT_S, "three voters", poll_s=0.5)


def measure(cluster: Cluster, runs: int, say: Callable[[str], None]) -> dict[str, float]:
    grow(cluster, runs)
    leader, file = cluster.leader(), cluster.folder / "bench.backup"
    say("three voters")
    alone = write(leader, lambda count: count < WRITES)
    begun = time.perf_counter()
    backup = subprocess.Popen(
        [sys.executable, "-m", "igor_node.cli.igor", "backup", str(file)],
        env={**cluster.environment, "IGOR_NODE": ",".join(node.address for node in cluster.nodes), "IGOR_TOKEN": cluster.token},
    )
    meanwhile = write(leader, lambda count: backup.poll() is None)
    assert backup.returncode == 0
    found = {"backup_s": time.perf_counter() - begun, "backup_mib": file.stat().st_size / 2**20, "writes_meanwhile": float(len(meanwhile))}
    for name, took in (("alone", alone), ("meanwhile", meanwhile)):
        for share in (50, 99):
            found[f"write_{name}_p{share}_ms"] = took[len(took) * share // 100]
    found["p99_ratio"] = found["write_meanwhile_p99_ms"] / found["write_alone_p99_ms"]
    cluster.close()
    restored = Node(cluster, "restored")
    begun = time.perf_counter()
    done = restored.program("restore", str(file), "--data-dir", str(restored.folder), "--name", "n1", timeout_s=600)
    assert done.returncode == 0, done.stderr
    found["restore_s"] = time.perf_counter() - begun
    cluster.nodes = [restored]
    restored.start(arguments=["start", "--data-dir", str(restored.folder), "--listen", "127.0.0.1:0"])
    found["restored_serves_s"] = time.perf_counter() - begun
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, default=Path("out/backup.json"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="igor-backup-"))
    cluster = Cluster(3, folder=folder)
    try:
        found = measure(cluster, options.runs, lambda line: print(f"  … {line}", file=sys.stderr))
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
    report = {
        "question": "what commits feel of a backup",
        "parameters": {"runs": options.runs},
        "goals": {"p99_ratio": GOAL_RATIO},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release()},
        "versions": {"igor-node": version("igor-node")},
        **{name: round(value, 2) for name, value in found.items()},
        "goals_met": found["p99_ratio"] <= GOAL_RATIO,
    }
    for name in (*found, "goals_met"):
        print(f"  {name.replace('_', ' '):<28} {report[name]!s:>12}")
    return written(report, options.json)


if __name__ == "__main__":
    sys.exit(main())
