"""Chaos with a seed: nodes, pre-loaded processes and wrappers are killed and paused under load; afterwards ledger and witness agree on everything.

The seed decides what is done to whom and when. What the machine makes of it differs from time to time, so a failing seed says what was
done (it is printed), not that it fails again. `IGOR_SEED` and `IGOR_CHAOS_S` give the soak another seed and length.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_bad_days import runner_of
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import marked, send, wait_for
from tests.harness.witness import Witness, all_runs

pytestmark = pytest.mark.cluster

TICKS = 5
SETTLE_S = 90.0
LEASE = "30s"
EQUAL_LINES_A_SECOND = 3
LOG_SAMPLE = 25
LATE_S = 1.0
SECRET = re.compile(r"igor1\.[^.\s]+\.[^.\s]+\.\S{8,}")


def jobs_of(witness: Witness) -> list[dict[str, Any]]:
    """Their leases are short, so that what was lost is known to be lost before `SETTLE_S` is over."""
    work = f"for i in 0 1 2 3 {TICKS - 1}; do echo tick $i; sleep 0.1; done"
    once_more = {"max": 3, "backoff": {"initial": "200ms", "max": "1s"}}
    jobs = [
        witness.job("every-1-queue", "echo tick 0", schedule={"every": "1s", "catch_up": {"policy": "all"}}, overlap="queue"),
        witness.job("every-1-allow", work, schedule={"every": "1s"}, overlap="allow", exit_code="7", success_codes=[7]),
        witness.job("every-2-skip", f"{work}; sleep 2", schedule={"every": "2s"}, overlap="skip"),
        witness.job("every-2-retried", work, schedule={"every": "2s", "catch_up": {"policy": "all"}}, exit_code="IGOR_TRY < 2", retries=once_more),
        witness.job("every-5-long", f"{work}; sleep 6", schedule={"every": "5s"}, overlap="allow", on_node_loss="rerun"),
        witness.job("every-5-none", work, schedule={"every": "5s", "catch_up": {"policy": "none"}}, exit_code="3"),
    ]
    return [{**job, "lease": LEASE} for job in jobs]


class Chaos:
    """Does one thing after another to a cluster, as the seed says; `story` tells what."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.began = time.monotonic()
        self.story: list[str] = []
        self.killed_wrappers = 0

    def run(self, seconds: float) -> None:
        moves: list[tuple[Callable[[], None], int]] = [
            (self.kill_any, 3),
            (self.kill_leader, 3),
            (self.kill_two, 2),
            (self.kill_all, 1),
            (self.pause_any, 3),
            (self.pause_leader, 3),
            (self.kill_preloaded, 2),
            (self.kill_wrapper, 2),
            (self.stop_any, 2),
        ]
        names, weights = zip(*moves, strict=True)
        while time.monotonic() - self.began < seconds:
            self.chance.choices(names, weights)[0]()
            time.sleep(self.chance.uniform(0.1, 3.0))
            for node in self.cluster.nodes:
                assert node.running, f"{node.name} ended by itself with {node.process and node.process.returncode}: {node.tail()}"

    def say(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self.began:6.1f} {text}")
        print(self.story[-1], flush=True)

    def leader(self) -> Node:
        return self.cluster.leader()

    def any(self) -> Node:
        return self.chance.choice(self.cluster.nodes)

    # --- what is done

    def kill_any(self) -> None:
        self.kill([self.any()])

    def kill_leader(self) -> None:
        self.kill([self.leader()])

    def kill_two(self) -> None:
        self.kill(self.chance.sample(self.cluster.nodes, 2))

    def kill_all(self) -> None:
        self.kill(self.chance.sample(self.cluster.nodes, 3))

    def kill(self, nodes: list[Node]) -> None:
        down_s = self.chance.uniform(0.0, 5.0)
        self.say(f"SIGKILL {' '.join(node.name for node in nodes)}, back after {down_s:.1f} s")
        for node in nodes:
            node.signal(signal.SIGKILL)
        for node in nodes:
            node.kill()
        time.sleep(down_s)
        for node in self.chance.sample(nodes, len(nodes)):
            node.start(wait=False)
            time.sleep(self.chance.choice((0, 0, 0.5)))
        for node in nodes:
            node.wait_up()

    def stop_any(self) -> None:
        node = self.any()
        self.say(f"SIGTERM {node.name}")
        assert node.stop() == 0, node.tail()
        node.start()

    def pause_any(self) -> None:
        self.pause(self.any())

    def pause_leader(self) -> None:
        self.pause(self.leader())

    def pause(self, node: Node) -> None:
        seconds = self.chance.uniform(0.1, 10.0)
        self.say(f"SIGSTOP {node.name} for {seconds:.1f} s")
        node.signal(signal.SIGSTOP)
        time.sleep(seconds)
        node.signal(signal.SIGCONT)

    def kill_preloaded(self) -> None:
        node = self.any()
        self.say(f"SIGKILL pre-loaded process of {node.name}")
        send(named(node, "igor-zygote"), signal.SIGKILL)

    def kill_wrapper(self) -> None:
        everyone = sorted((pid, node.name) for node in self.cluster.nodes for pid in named(node, "igor-wrapper"))
        if everyone:
            pid, name = self.chance.choice(everyone)
            self.say(f"SIGKILL wrapper {pid} of {name}")
            self.killed_wrappers += 1
            send({pid}, signal.SIGKILL)


def named(node: Node, name: str) -> set[int]:
    """The processes of a node that call themselves so."""
    found = set()
    for pid in marked(node.mark, node.folder):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.add(pid)
        except OSError:
            continue
    return found


# --- what must hold afterwards


def settle(cluster: Cluster, project: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pauses the jobs and waits until every run has ended. Returns all runs of the project."""
    for job in jobs:
        cluster.api("POST", f"/v1/jobs/{project}/{job['name']}/pause", {})
    live = "scheduled,queued,running,waiting"
    try:
        wait_for(lambda: not cluster.api("GET", f"/v1/runs?state={live}")["items"], SETTLE_S, "all runs to end", poll_s=0.5)
    except AssertionError as problem:
        stuck = cluster.api("GET", f"/v1/runs?state={live}&limit=5")["items"]
        stuck = [cluster.api("GET", f"/v1/runs/{run['id']}") for run in stuck]
        whys = [cluster.api("GET", f"/v1/runs/{run['id']}/why")["reasons"] for run in stuck]
        raise AssertionError(f"{problem}\n{json.dumps(stuck, indent=1)}\n{whys}") from problem
    return [run for run in all_runs(cluster) if run["project"] == project]


def ledger_faults(runs: list[dict[str, Any]], *, killed_wrappers: int) -> list[str]:
    """Ends that nothing done here explains."""
    wrong = []
    for run in runs:
        name = run["job"].rpartition("/")[2]
        tries = [one for stage in run["stages"] for attempt in stage["attempts"] for one in attempt["tries"]]
        codes = [one["exit_code"] for one in tries if one["exit_code"] is not None]
        if name == "every-5-none" and run["state"] == "failed" and codes == [3]:
            continue
        if run["state"] in ("skipped", "missed", "succeeded"):
            if run["state"] == "succeeded" and codes[-1:] != [7 if name == "every-1-allow" else 0]:
                wrong.append(f"succeeded with {codes}: {name} {run['scheduled_time']}")
            if name == "every-2-retried" and run["state"] == "succeeded" and not (len(tries) >= 2 or len(run["stages"][0]["attempts"]) > 1):
                wrong.append(f"one try where two were needed: {run['id']}")
            if run["state"] != "succeeded" and not run["reason"]:
                wrong.append(f"{run['state']} without a reason: {name} {run['scheduled_time']}")
            continue
        if killed_wrappers and any(one["state"] == "lost" for one in tries):
            continue
        wrong.append(f"{name} {run['scheduled_time']} is {run['state']} ({run['reason']}): {json.dumps(run['stages'])}")
    return wrong


def output_faults(cluster: Cluster, runs: list[dict[str, Any]], chance: random.Random) -> list[str]:
    """Every line of output is there once, in order, for a sample of the runs that wrote more than one."""
    candidates = [run for run in runs if run["state"] == "succeeded" and "allow" in run["job"]]
    wrong = []
    for run in chance.sample(candidates, min(LOG_SAMPLE, len(candidates))):
        shown = cluster.igor("logs", run["id"])
        lines = [" ".join(line.split()[-2:]) for line in shown.stdout.splitlines()]
        got = [line for line in lines if line.startswith("tick")]
        if shown.returncode != 0 or got != [f"tick {i}" for i in range(TICKS)]:
            wrong.append(f"output of {run['id']} is {got}: {shown.stderr}")
    return wrong


def log_faults(cluster: Cluster) -> list[str]:
    """Node logs: no traceback, no secret, nothing said more than a few times a second."""
    wrong = []
    secrets = [path.read_text().strip() for node in cluster.nodes for name in ("admin.token", "join.token", "node.token", "cluster.key")
               if (path := node.folder / name).exists()]  # fmt: skip
    for node in cluster.nodes:
        text = node.log.read_text(errors="replace")
        if "Traceback" in text:
            wrong.append(f"{node.name}: a traceback: {text[text.index('Traceback') - 300 :][:1500]}")
        if SECRET.search(text) or any(secret in text for secret in secrets):
            wrong.append(f"{node.name}: a secret in the log")
        errors = node.folder / "attempts" / "wrappers.log"
        if errors.exists() and errors.stat().st_size:
            wrong.append(f"{node.name}: wrappers said: {errors.read_text()[:1500]}")
        often: Counter[tuple[str, str]] = Counter()
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                wrong.append(f"{node.name}: not a log line: {line}")
                continue
            if entry.get("level") not in ("debug", "info"):
                often[str(entry.get("timestamp", entry.get("at", "")))[:19], str(entry.get("event"))] += 1
        wrong += [f"{node.name}: {count} times in a second: {key}" for key, count in often.items() if count > EQUAL_LINES_A_SECOND]
    return wrong


def audit_faults(cluster: Cluster, since: str) -> list[str]:
    audit = cluster.igor("audit", "--from", since, "--json")
    figures = json.loads(audit.stdout)
    wrong = [f"audit: {name} is {figures[name]}" for name in ("doubled", "unaccounted", "pending") if figures[name]]
    wrong += [f"missed without a reason: {row}" for row in figures["rows"] if row["outcome"] in ("missed", "skipped") and not row["reason"]]
    if audit.returncode != 0:
        wrong.append(f"igor audit exits {audit.returncode}: {audit.stderr}")
    print({name: value for name, value in figures.items() if name != "rows"}, flush=True)
    return wrong


def battery(cluster: Cluster, folder: Path, *, seed: int, seconds: float, logs: bool = True) -> None:
    """`logs`: also how the nodes put it into words, which depends on the machine's load more than the promises do."""
    witness = Witness(folder / "witness")
    jobs = jobs_of(witness)
    began = time.time()
    cluster.push("chaos", *jobs)
    wait_for(lambda: witness.lines(), 30, "a first start")
    chaos = Chaos(cluster, seed)
    chaos.run(seconds)
    cluster.wait_voters()
    runs = settle(cluster, "chaos", jobs)
    wrong = witness.faults(runs)
    wrong += ledger_faults(runs, killed_wrappers=chaos.killed_wrappers)
    wrong += audit_faults(cluster, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)))
    wrong += output_faults(cluster, runs, chaos.chance)
    wrong += log_faults(cluster) if logs else []
    print(Counter((run["job"], run["state"]) for run in runs), flush=True)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong[:30])


def test_nothing_is_lost_doubled_or_unsaid_in_chaos(fresh_three: Cluster, tmp_path: Path) -> None:
    """A short battery, always with the same seed."""
    battery(fresh_three, tmp_path, seed=4, seconds=45, logs=False)


def test_a_lease_that_runs_out_with_a_minority_is_rerun(fresh_three: Cluster, tmp_path: Path) -> None:
    """Two of three nodes are down for longer than the lease: the command ends with it, and runs again when they are back, never beside itself."""
    witness = Witness(tmp_path / "witness")
    fresh_three.push("cut", witness.job("cut-off", "[ $IGOR_ATTEMPT -gt 1 ] || sleep 60", lease="10s"))
    run = json.loads(fresh_three.igor("run", "cut-off", "--json").stdout)["id"]
    node = runner_of(fresh_three, run)
    others = [one for one in fresh_three.nodes if one is not node]
    for other in others:
        other.kill()
    wait_for(lambda: "its lease ran out" in last_event(node, run), 30, "the wrapper to end the command")
    for other in others:
        other.start(wait=False)
    ended = fresh_three.wait_run(run)
    attempts = ended["stages"][0]["attempts"]
    assert (ended["state"], [one["state"] for one in attempts]) == ("succeeded", ["lost", "succeeded"])
    assert not witness.faults([ended])


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader"])
def test_a_busy_node_leaves_and_another_one_takes_its_place(fresh_three: Cluster, tmp_path: Path, leads: bool) -> None:
    """A fourth node joins, one of the three leaves under load: it gets nothing new, ends what it has, no fire is missed or late; it may come back."""
    witness = Witness(tmp_path / "witness")
    jobs = [
        witness.job("beat", "true", schedule={"every": "1s"}, overlap="allow"),
        witness.job("slow", "sleep 3", schedule={"every": "2s"}, overlap="allow"),
    ]
    fresh_three.push("moving", *jobs)
    wait_for(witness.lines, 30, "a first start")
    leader = fresh_three.leader()
    node = leader if leads else next(one for one in fresh_three.nodes if one is not leader)
    fourth = Node(fresh_three, "n4")
    fresh_three.nodes.append(fourth)
    fourth.start(join=fresh_three.nodes[0])
    wait_for(lambda: any(line.what == "start" for line in witness.lines()) and runs_on(fresh_three, "n4"), 30, "work on the fourth node")
    left = node.program("leave", "--data-dir", str(node.folder))
    assert left.returncode == 0, left.stderr
    node.stop()
    wait_for(lambda: sorted(fresh_three.status()["voters"]) == sorted(one.name for one in fresh_three.nodes if one is not node), 30, "three voters")
    assert node.name not in [one["name"] for one in fresh_three.status()["nodes"]]
    runs = settle(fresh_three, "moving", jobs)
    assert not witness.faults(runs)
    assert {run["state"] for run in runs} <= {"succeeded", "skipped"}
    late = [run for run in runs if (run["lateness_s"] or 0) > LATE_S]
    assert not late, late
    token = str(fresh_three.nodes[0].folder / "join.token")
    node.start(arguments=["join", fourth.address, "--token-file", token, "--data-dir", str(node.folder)])
    wait_for(lambda: (node.name, "up") in [(one["name"], one["state"]) for one in fresh_three.status()["nodes"]], 30, "it to be back")


def runs_on(cluster: Cluster, name: str) -> bool:
    return any(one["name"] == name and one["running"] for one in cluster.status()["nodes"])


def last_event(node: Node, run: str) -> str:
    """Of the run's first attempt, as its wrapper wrote it down."""
    (events,) = node.folder.glob(f"attempts/open/{run}.main.1/events")
    return events.read_text().splitlines()[-1]


@pytest.mark.soak
def test_nothing_is_lost_doubled_or_unsaid_in_ten_minutes_of_chaos(fresh_three: Cluster, tmp_path: Path) -> None:
    """The same for ten minutes, with any seed."""
    seed = int(os.environ.get("IGOR_SEED") or random.SystemRandom().randrange(10**6))
    battery(fresh_three, tmp_path, seed=seed, seconds=float(os.environ.get("IGOR_CHAOS_S", "600")))
