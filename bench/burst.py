"""A thousand jobs are due at one second: how late does each start?

Question: three real nodes on this machine; many jobs whose schedule names the same second, each `/bin/true`. Igor commits fires, hands them out and
starts their wrappers before they are due, so that only fork and exec remain. Units: seconds after the due time; how many wrappers waited when it
came. Machine floor: the same number of bare `posix_spawn` + wait of `/bin/true`, one after another, in the same run. Goal: p99 of the lateness
<= 0.75 s, and every wrapper waits. Prints a table and writes JSON.

    python -m bench.burst [--jobs 1000] [--ahead 25] [--json out/burst.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.starts import floor_a_second, percentile
from bench.written import written
from igor_node.words import SECOND, format_instant, parse_instant, wall_now
from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

GOAL_S = 0.75
NODES = 3
LOOK_BEFORE_S = 0.15  # the due time


def push(cluster: Cluster, jobs: int, due: int) -> float:
    """Seconds that the push of all of them took."""
    began = time.monotonic()
    common = {"command": ["/bin/true"], "schedule": {"at": format_instant(due)}}
    cluster.push("burst", *({"name": f"job-{number:05}", **common} for number in range(jobs)))
    return time.monotonic() - began


def waiting_at(cluster: Cluster, due: int) -> int:
    """How many wrappers wait a moment before it is time: attempts of which the wrapper's own record says that it holds."""
    time.sleep(max(0.0, (due - wall_now()) / SECOND - LOOK_BEFORE_S))
    records = (path for node in cluster.nodes for path in (node.folder / "attempts" / "open").glob("*/events"))
    return sum(b'"kind":"held"' in path.read_bytes() for path in records)


def runs_of(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = cluster.api("GET", f"/v1/runs?limit=1000{'&cursor=' + cursor if cursor else ''}")
        found += [run for run in page["items"] if run["trigger"] == "schedule"]
        if not page["next"]:
            return found
        cursor = page["next"]


def measure(cluster: Cluster, jobs: int, ahead_s: float) -> dict[str, float]:
    cluster.wait_voters()
    due = (wall_now() // SECOND + int(ahead_s)) * SECOND
    pushed_s = push(cluster, jobs, due)
    if wall_now() > due - 8 * SECOND:
        raise SystemExit(f"the push took {pushed_s:.1f} s: give a larger --ahead")
    waited = waiting_at(cluster, due)
    wait_for(lambda: wall_now() > due and not cluster.api("GET", "/v1/runs?state=live&limit=1")["items"], 120, "all runs to end", poll_s=0.3)
    runs = runs_of(cluster)
    lateness = [(parse_instant(run["started_at"]) - due) / SECOND for run in runs if run["started_at"]]
    return {
        "runs": len(runs),
        "succeeded": sum(run["state"] == "succeeded" for run in runs),
        "wrappers_waiting": waited,
        "push_s": pushed_s,
        "lateness_p50_s": percentile(lateness, 0.5),
        "lateness_p99_s": percentile(lateness, 0.99),
        "lateness_max_s": max(lateness),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--ahead", type=float, default=25.0, help="seconds from the push to the due time")
    parser.add_argument("--json", type=Path, default=Path("out/burst.json"))
    options = parser.parse_args()
    floor_s = options.jobs / floor_a_second(200)
    with Cluster(NODES, options=[("--slots", str(options.jobs))] * NODES) as cluster:
        figures = measure(cluster, options.jobs, options.ahead)
    found = {
        "question": "lateness of jobs that are all due at one second",
        "parameters": {"jobs": options.jobs, "ahead_s": options.ahead, "nodes": NODES},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release()},
        "versions": {"igor-node": version("igor-node")},
        "floor_all_one_after_another_s": round(floor_s, 3),
        **{name: round(value, 4) for name, value in figures.items()},
        "p99_to_floor": round(figures["lateness_p99_s"] / floor_s, 2),
        "p99_goal_s": GOAL_S,
        "goals_met": figures["lateness_p99_s"] <= GOAL_S and figures["succeeded"] == options.jobs == figures["wrappers_waiting"],
    }
    for name in ("floor_all_one_after_another_s", *figures, "p99_to_floor", "p99_goal_s", "goals_met"):
        print(f"  {name.replace('_', ' '):<32} {found[name]!s:>10}")
    return written(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
