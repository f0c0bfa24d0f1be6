"""How many commands a second does one node start and finish, through the whole path?

Question: starts of `/bin/true` a second on a cluster of one node: run created by the API → committed → assigned → wrapper → "try 1 begins"
synced → fork, exec, wait → exit code in the ledger. Unit: runs a second, and milliseconds from creation to end. Machine floor: the same
number of bare `posix_spawn` + wait of `/bin/true`, one after another, measured in the same run. Prints a table and writes JSON with
versions and parameters.

    python -m bench.starts [--runs 500] [--clients 32] [--nodes 1] [--json out/starts.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp

from igor_node.words import parse_instant
from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

ENDS = {"succeeded", "failed", "timed_out", "cancelled", "lost", "skipped", "missed"}


def floor_a_second(count: int) -> float:
    """Bare starts a second: posix_spawn and wait, one after another."""
    began = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["/bin/true"], {}), 0)
    return count / (time.perf_counter() - began)


async def create_runs(address: str, token: str, count: int, clients: int) -> list[str]:
    """Creates `count` runs with `clients` requests in flight; the ids of the runs."""
    todo = iter(range(count))
    made: list[str] = []

    async def client(session: aiohttp.ClientSession) -> None:
        for number in todo:
            async with session.post(f"{address}/v1/jobs/starts/runs", json={"params": {}}, headers={"Idempotency-Key": f"starts-{number}"}) as answer:
                answer.raise_for_status()
                made.append((await answer.json())["id"])

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return made


def all_runs(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = cluster.api("GET", f"/v1/runs?job=starts&limit=1000{'&cursor=' + cursor if cursor else ''}")
        found += page["items"]
        if not page["next"]:
            return found
        cursor = page["next"]


def cpu_s(pid: int) -> float:
    """What a process has used of processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def node_cpu_s(cluster: Cluster) -> float:
    return sum(cpu_s(node.process.pid) for node in cluster.nodes if node.process is not None)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(cluster: Cluster, runs: int, clients: int) -> dict[str, Any]:
    cluster.push("bench", {"name": "starts", "command": ["/bin/true"], "overlap": "allow", "max_parallel": 1_000, "max_queued": 10_000})
    began_cpu_s = node_cpu_s(cluster)
    made = asyncio.run(create_runs(cluster.leader().address, cluster.token, runs, clients))

    # One small question at a time: to read a thousand runs five times a second would measure that too.
    wait_for(lambda: not cluster.api("GET", "/v1/runs?job=starts&state=live&limit=1")["items"], 300, "all runs to end", poll_s=0.2)
    used_cpu_s = node_cpu_s(cluster) - began_cpu_s
    found = all_runs(cluster)
    assert len(found) == len(made) and all(run["state"] in ENDS for run in found)
    created = [parse_instant(run["created_at"]) / 1e9 for run in found]
    ended = [parse_instant(run["ended_at"]) / 1e9 for run in found]
    latency_ms = [(end - start) * 1e3 for start, end in zip(created, ended, strict=True)]
    return {
        "starts_a_second": round(runs / (max(ended) - min(created)), 1),
        "node_cpu_ms_a_start": round(used_cpu_s * 1e3 / runs, 2),  # of igor-node itself, without wrappers: tells more than speed on a busy machine
        "created_to_ended_p50_ms": round(percentile(latency_ms, 0.5), 1),
        "created_to_ended_p99_ms": round(percentile(latency_ms, 0.99), 1),
        "not_succeeded": sum(run["state"] != "succeeded" for run in found),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--clients", type=int, default=32, help="requests in flight while runs are created")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--slots", type=int, default=32, help="of each node")
    parser.add_argument("--json", type=Path, default=Path("out/starts.json"))
    options = parser.parse_args()
    floor = floor_a_second(200)
    with Cluster(options.nodes, options=[("--slots", str(options.slots))] * options.nodes) as cluster:
        figures = measure(cluster, options.runs, options.clients)
    report = {
        "question": "starts of /bin/true a second, created to exit code in the ledger",
        "parameters": {"runs": options.runs, "clients": options.clients, "nodes": options.nodes, "slots": options.slots},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release(), "igor": version("igor-node")},
        "floor_starts_a_second": round(floor, 1),
        **figures,
        "share_of_floor": round(figures["starts_a_second"] / floor, 3),
    }
    for name in ("floor_starts_a_second", *figures, "share_of_floor"):
        print(f"  {name.replace('_', ' '):<28} {report[name]:>10}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {options.json}")
    return 1 if figures["not_succeeded"] else 0


if __name__ == "__main__":
    sys.exit(main())
