"""Igor on one machine: three real nodes, the jobs of `jobdefs/`, a page to look at; or, with `--check`, a minute of proof.

`make demo` starts the nodes on loopback with their data under `.demo/`, pushes `jobdefs/`, prints a link to the page that logs in once, and
follows what runs until Ctrl-C, which ends all it started. `make demo-check` does the same for about a minute without a person: half-way it
kills the leader with SIGKILL, later starts it again, then asks `igor audit` and a witness of its own (lines that the jobs themselves
append, so not the ledger's word) what became of every fire. It prints a table, writes it as JSON, and exits with 0 only if nothing was
missed or doubled, the failover took at most 2 s, and lateness stayed at p99 <= 250 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.harness.cluster import Cluster, Node
from tests.harness.processes import marked, wait_for

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
WITNESSES = 4
WITNESS_EVERY_S = 2
BEFORE_KILL_S = 26.0
BEFORE_RESTART_S = 8.0
AFTER_RESTART_S = 24.0
FAILOVER_LIMIT_S = 2.0
LATENESS_LIMIT_S = 0.25


def say(text: str) -> None:
    print(text, flush=True)


def prepare() -> Cluster:
    """A cluster over an empty `.demo/`, whose jobs keep their data there too. What an earlier demo left running is ended first."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    cluster = Cluster(3, folder=FOLDER)
    for node in cluster.nodes:
        node.folder.mkdir(parents=True, mode=0o700)
        (node.folder / "node.toml").write_text(f'[environment]\nDEMO_DATA = "{FOLDER / "data"}"\n')
    (FOLDER / "data").mkdir()
    return cluster


def push(cluster: Cluster) -> None:
    pushed = cluster.igor("push", str(ROOT / "jobdefs"))
    if pushed.returncode != 0:
        raise SystemExit(f"igor push jobdefs/ failed with {pushed.returncode}:\n{pushed.stderr}")
    say(pushed.stdout.strip() or pushed.stderr.strip())


def follow(cluster: Cluster) -> None:
    """Prints each run as it ends, until Ctrl-C."""
    link = cluster.igor("ui", "--print")
    say(f"\nThe page: {link.stdout.strip()}   (logs in once; `make demo` ends with Ctrl-C)")
    addresses = ",".join(node.address for node in cluster.nodes)
    say(f"The command line: export IGOR_NODE={addresses} IGOR_DATA_DIR={cluster.nodes[0].folder}; .venv/bin/igor jobs\n")
    seen: set[str] = set()
    while True:
        for run in reversed(cluster.api("GET", "/v1/runs?limit=50")["items"]):
            if run["ended_at"] and run["id"] not in seen:
                seen.add(run["id"])
                node = next((a["node"] for s in run["stages"] for a in s["attempts"]), "-")
                say(f"{run['ended_at'][11:19]}  {run['job']:<32} {run['state']:<10} {node:<4} {run['reason'] or ''}")
        time.sleep(1)


def witness_jobs(folder: Path) -> list[dict[str, Any]]:
    """Jobs whose command itself writes down that it ran, with one atomic append a start."""
    folder.mkdir()
    return [
        {
            "name": f"witness-{number}",
            "schedule": {"every": f"{WITNESS_EVERY_S}s"},
            "command": f'echo "$IGOR_SCHEDULED_TIME $IGOR_ATTEMPT $IGOR_TRY" >> {folder}/witness-{number}',
        }
        for number in range(WITNESSES)
    ]


def witnessed(folder: Path) -> Counter[tuple[str, str]]:
    """How often each (job, scheduled time) really started."""
    return Counter((path.name, line.split()[0]) for path in folder.iterdir() for line in path.read_text().splitlines())


def kill_leader(cluster: Cluster) -> tuple[Node, float, float]:
    """SIGKILL to the leader. Returns it, the instant, and the seconds until another node led and had committed in its term."""
    old = cluster.leader()
    others = [node for node in cluster.nodes if node is not old]
    term = cluster.status()["term"]
    killed_at = time.time()
    start = time.monotonic()
    old.kill()

    def new_leader() -> bool:
        for node in others:
            try:
                status, _, seen = node.request("GET", "/v1/cluster", timeout_s=1)
            except OSError:
                continue
            if status == 200 and seen["leader"] not in (None, old.name) and seen["term"] > term and seen.get("quorum", True):
                return True
        return False

    wait_for(new_leader, 20, "a new leader", poll_s=0.02)
    return old, killed_at, time.monotonic() - start


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def instant(text: str) -> float:
    from igor_node.words import parse_instant

    return parse_instant(text) / 1e9


def measure(cluster: Cluster, start: str, end: str, killed_at: float, failover_s: float, seen: Counter[tuple[str, str]]) -> dict[str, Any]:
    audit = json.loads(cluster.igor("audit", "--from", start, "--to", end, "--json").stdout)
    ran = [row for row in audit["rows"] if row["outcome"] == "ran"]
    # Only the witnesses: the jobs of jobdefs/ include one that overshoots its interval on purpose, whose queued runs are late by design.
    lateness = [row["lateness_s"] for row in ran if row["lateness_s"] is not None and "witness" in row["job"]]
    around = [
        row["lateness_s"]
        for row in ran
        if row["lateness_s"] is not None and "witness" in row["job"] and killed_at <= instant(row["scheduled_time"]) <= killed_at + failover_s + 5
    ]
    expected = {(row["job"].rpartition("/")[2], row["scheduled_time"]) for row in ran if "witness" in row["job"]}
    return {
        "jobs": len(cluster.api("GET", "/v1/jobs?limit=1000")["items"]),
        "fires_due": audit["due"],
        "ran_once": audit["ran"],
        "skipped": audit["skipped"],
        "pending": audit["pending"],
        "missed": audit["missed"],
        "doubled": audit["doubled"] + sum(1 for count in seen.values() if count > 1),
        "unaccounted": audit["unaccounted"],
        "witnessed": sum(1 for key in expected if seen[key] == 1),
        "not_witnessed": sum(1 for key in expected if seen[key] == 0),
        "lateness_p50_s": round(percentile(lateness, 0.5), 4),
        "lateness_p99_s": round(percentile(lateness, 0.99), 4),
        "lateness_worst_s": round(max(lateness, default=0.0), 4),
        "lateness_worst_around_kill_s": round(max(around, default=0.0), 4),
        "failover_s": round(failover_s, 3),
    }


def verdict(figures: dict[str, Any]) -> list[str]:
    """What is wrong, in words; empty if all is well."""
    wrong = [f"{name} is {figures[name]}, not 0" for name in ("missed", "doubled", "unaccounted", "not_witnessed") if figures[name]]
    if figures["fires_due"] < 40:
        wrong.append(f"only {figures['fires_due']} fires were due, at least 40 were expected")
    if figures["jobs"] < 8:
        wrong.append(f"only {figures['jobs']} jobs, at least 8 were expected")
    if figures["failover_s"] > FAILOVER_LIMIT_S:
        wrong.append(f"failover took {figures['failover_s']} s, at most {FAILOVER_LIMIT_S} s were allowed")
    if figures["lateness_p99_s"] > LATENESS_LIMIT_S:
        wrong.append(f"lateness p99 is {figures['lateness_p99_s']} s, at most {LATENESS_LIMIT_S} s were allowed")
    if figures["lateness_worst_around_kill_s"] > LATENESS_LIMIT_S:
        wrong.append(f"a fire around the kill was late by {figures['lateness_worst_around_kill_s']} s: the lookahead should have covered it")
    return wrong


def until(start: float, seconds: float) -> None:
    time.sleep(max(0.0, start + seconds - time.monotonic()))


def rfc3339(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def check(cluster: Cluster, report: Path) -> int:
    push(cluster)
    cluster.push("demo-check", *witness_jobs(FOLDER / "witness"))
    began = time.time()
    clock = time.monotonic()
    say(f"Jobs are running. In {BEFORE_KILL_S:.0f} s the leader is killed.")
    until(clock, BEFORE_KILL_S)
    old, killed_at, failover_s = kill_leader(cluster)
    say(f"Killed the leader {old.name} with SIGKILL; {cluster.leader().name} leads after {failover_s:.2f} s.")
    until(clock, BEFORE_KILL_S + BEFORE_RESTART_S)
    old.start()
    say(f"Started {old.name} again.")
    until(clock, BEFORE_KILL_S + BEFORE_RESTART_S + AFTER_RESTART_S)
    # The last seconds are left out: their runs may still be going. Fires later than 1 s after the answer to a push are promised.
    start, end = rfc3339(began + 2), rfc3339(time.time() - 4)
    seen = witnessed(FOLDER / "witness")
    figures = measure(cluster, start, end, killed_at, failover_s, seen)
    say("")
    for name, value in figures.items():
        say(f"  {name.replace('_', ' '):<32} {value}")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(figures, indent=2) + "\n")
    wrong = verdict(figures)
    say(f"\nWritten to {os.path.relpath(report)}.")
    for line in wrong:
        say(f"NOT GOOD: {line}")
    return 1 if wrong else 0


def leftovers(cluster: Cluster) -> set[int]:
    return set().union(*(marked(node.mark, node.folder) for node in cluster.nodes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="about a minute without a person; exit code 0 if nothing was missed or doubled")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "demo-check.json", help="where --check writes its figures")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell script starts its background jobs with SIGINT ignored
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    cluster = prepare()
    code = 0
    try:
        say("Starting three nodes…")
        cluster.start()
        say(f"Three voters; {cluster.leader().name} leads.")
        if options.check:
            code = check(cluster, options.json)
        else:
            push(cluster)
            follow(cluster)
    except KeyboardInterrupt:
        say("\nEnding the three nodes and everything they run…")
    except (AssertionError, OSError) as problem:
        for node in cluster.nodes:
            say(f"--- last lines of {node.name}\n{node.tail()}")
        say(f"NOT GOOD: {problem}")
        code = 1
    finally:
        cluster.close()
    left = leftovers(cluster)
    if left:
        say(f"NOT GOOD: processes are left: {sorted(left)}")
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
