"""Nodes die in every way; what was promised holds: nothing lost, nothing twice, the command goes on, and the reason is said."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


def runner_of(cluster: Cluster, run: str) -> Node:
    """The node on which the (only) current attempt of a run is."""

    def found() -> Node | None:
        attempts = cluster.run(run)["stages"][0]["attempts"]
        name = attempts[-1]["node"] if attempts and attempts[-1]["state"] == "running" else None
        return next((node for node in cluster.nodes if node.name == name), None)

    return wait_for(found, 30, "the run to be running somewhere")


def count_to(seconds: int) -> str:
    return f"i=0; while [ $i -lt {seconds} ]; do echo tick $i; i=$((i+1)); sleep 1; done; echo done; exit 7"


def start_counter(cluster: Cluster, seconds: int) -> str:
    cluster.push("long", {"name": "counter", "command": count_to(seconds), "success_codes": [7]})
    return str(json.loads(cluster.igor("run", "counter", "--json").stdout)["id"])


def check_whole(cluster: Cluster, run: str, seconds: int) -> None:
    """One attempt, one try, the true exit code, and every line of output once."""
    ended = cluster.wait_run(run, timeout_s=60)
    (attempt,) = ended["stages"][0]["attempts"]
    assert ended["state"] == "succeeded", ended
    assert [(t["n"], t["exit_code"]) for t in attempt["tries"]] == [(1, 7)]
    logs = cluster.igor("logs", run)
    lines = [" ".join(line.split()[-2:]) for line in logs.stdout.splitlines()]
    assert [line for line in lines if line.startswith("tick")] == [f"tick {i}" for i in range(seconds)]


def test_kill_9_of_the_node_that_runs_a_job(fresh_three: Cluster) -> None:
    """The command goes on; the node is started again; one try, the right exit code, output whole."""
    run = start_counter(fresh_three, 8)
    node = runner_of(fresh_three, run)
    node.kill()
    fresh_three.leader()
    node.start()
    check_whole(fresh_three, run, 8)


def test_kill_9_of_all_three_nodes_at_once(fresh_three: Cluster) -> None:
    """The same with every node killed at the same moment."""
    run = start_counter(fresh_three, 10)
    runner_of(fresh_three, run)
    for node in fresh_three.nodes:
        node.process.kill()  # type: ignore[union-attr]
    for node in fresh_three.nodes:
        node.process.wait()  # type: ignore[union-attr]
    for node in fresh_three.nodes:
        node.start(wait=False)
    for node in fresh_three.nodes:
        node.wait_up()
    check_whole(fresh_three, run, 10)


def test_a_dead_machine_is_rerun_elsewhere_and_never_overlaps(fresh_three: Cluster, tmp_path: Path) -> None:
    """Node, pre-loaded process and wrappers die: the first attempt ends `lost`, the second runs elsewhere, and they never ran at once."""
    witness = tmp_path / "witness"
    # Attempt 1 goes on for ever, attempt 2 ends at once: each writes a line with its number every 0.1 s.
    command = (
        f'n=0; while [ $n -lt 600 ]; do echo "$IGOR_ATTEMPT $(date +%s%N)" >> {witness}; n=$((n+1)); '
        f'[ "$IGOR_ATTEMPT" -gt 1 ] && [ $n -gt 5 ] && exit 0; sleep 0.1; done'
    )
    fresh_three.push("fragile", {"name": "moves", "command": command, "lease": "10s"})
    run = json.loads(fresh_three.igor("run", "moves", "--json").stdout)["id"]
    node = runner_of(fresh_three, run)
    wait_for(witness.exists, 10, "a first line")
    node.end_machine()
    ended = fresh_three.wait_run(run, timeout_s=60)
    attempts = ended["stages"][0]["attempts"]
    assert [(a["n"], a["state"]) for a in attempts] == [(1, "lost"), (2, "succeeded")]
    assert attempts[1]["node"] != node.name
    lines = [(int(a), int(t)) for a, t in (line.split() for line in witness.read_text().splitlines())]
    assert max(t for a, t in lines if a == 1) < min(t for a, t in lines if a == 2)


def test_a_wrapper_renews_its_lease_itself_while_its_node_is_down(fresh_three: Cluster, tmp_path: Path) -> None:
    """The node is down for twice the lease; the wrapper asks the other voters, so nothing is lost and nothing rerun."""
    witness = tmp_path / "witness"
    fresh_three.push("frozen", {"name": "stays", "command": f'echo "$IGOR_ATTEMPT" >> {witness}; sleep 25', "lease": "10s"})
    run = json.loads(fresh_three.igor("run", "stays", "--json").stdout)["id"]
    node = runner_of(fresh_three, run)
    node.kill()
    ended_elsewhere = fresh_three.run(run)
    assert ended_elsewhere["state"] == "running"
    wait_for(lambda: time_passed(run, 20), 40, "twice the lease to pass")
    assert fresh_three.run(run)["state"] == "running"
    node.start()
    ended = fresh_three.wait_run(run, timeout_s=60)
    assert (ended["state"], len(ended["stages"][0]["attempts"])) == ("succeeded", 1)
    assert witness.read_text() == "1\n"


_STARTS: dict[str, float] = {}


def time_passed(key: str, seconds: float) -> bool:
    return time.monotonic() - _STARTS.setdefault(key, time.monotonic()) > seconds


def test_leader_kills_miss_and_double_nothing(fresh_three: Cluster, tmp_path: Path) -> None:
    """Leaders are killed one after the other under a schedule of every second: each fire ran exactly once, by its own witness."""
    witness = tmp_path / "witness"
    fresh_three.push(
        "steady", {"name": "beat", "schedule": {"every": "1s"}, "command": f'echo "$IGOR_SCHEDULED_TIME" >> {witness}', "overlap": "allow"}
    )
    wait_for(witness.exists, 30, "a first fire")
    for _ in range(3):
        leader = fresh_three.leader()
        leader.kill()
        fresh_three.leader()
        leader.start()
        fresh_three.wait_voters()
    first = witness.read_text().split()[0]
    last = fresh_three.api("GET", "/v1/runs?job=beat&state=succeeded&limit=1")["items"][0]["scheduled_time"]
    going = "/v1/runs?job=beat&state=scheduled,queued,running,waiting&limit=1000"
    wait_for(lambda: not [run for run in fresh_three.api("GET", going)["items"] if run["scheduled_time"] < last], 60, "those before it to end")
    audit = fresh_three.igor("audit", "--job", "beat", "--from", first, "--to", last, "--json")
    figures = json.loads(audit.stdout)
    assert audit.returncode == 0, figures
    assert (figures["missed"], figures["doubled"], figures["unaccounted"]) == (0, 0, 0)
    seen = [line for line in witness.read_text().split() if first <= line < last]
    assert len(seen) == len(set(seen)) == figures["ran"] == figures["due"]


def test_two_of_three_down(fresh_three: Cluster) -> None:
    """Reads are answered with their age, writes give 503 and exit code 7 with the reason; afterwards everything due is accounted for."""
    fresh_three.push("alone", {"name": "often", "schedule": {"every": "2s"}, "command": "true"})
    wait_for(lambda: fresh_three.api("GET", "/v1/runs?job=often&state=succeeded")["items"], 30, "a first run")
    survivor, *gone = sorted(fresh_three.nodes, key=lambda node: node is fresh_three.leader())
    for node in gone:
        node.kill()

    def says_no_quorum() -> bool:
        return survivor.request("GET", "/v1/cluster")[2].get("quorum") is False

    wait_for(says_no_quorum, 20, "the survivor to see that it is alone")
    status, headers, answer = survivor.request("GET", "/v1/jobs")
    assert status == 200 and answer["items"] and float(headers["igor-age"]) >= 0
    began = time.monotonic()
    status, headers, problem = survivor.request("POST", "/v1/jobs/often/runs", {"params": {}})
    assert status == 503 and headers["retry-after"] and time.monotonic() - began < 7
    assert "quorum" in json.dumps(problem) or "leader" in json.dumps(problem)
    refused = fresh_three.igor("run", "often", "--node", survivor.address)
    assert refused.returncode == 7 and refused.stderr.strip()
    for node in gone:
        node.start(wait=False)
    for node in gone:
        node.wait_up()
    runs = len(fresh_three.api("GET", "/v1/runs?job=often&state=succeeded&limit=1000")["items"])
    wait_for(lambda: len(fresh_three.api("GET", "/v1/runs?job=often&state=succeeded&limit=1000")["items"]) > runs + 1, 40, "runs again")
    audit = fresh_three.igor("audit", "--job", "often", "--json")
    assert audit.returncode == 0, audit.stdout


def check_acknowledged_survive(cluster: Cluster, rounds: int) -> None:
    """Pushes and runs until a kill -9 of all nodes at once, `rounds` times; whatever was acknowledged must be there afterwards."""
    runs: list[str] = []
    version = 0
    for number in range(rounds):
        pushed = cluster.push("kept", {"name": "kept", "command": f"echo {number}", "overlap": "allow"})
        version = pushed["version"]
        for _ in range(5):
            runs.append(cluster.api("POST", "/v1/jobs/kept/kept/runs", {"params": {}})["id"])
        for node in cluster.nodes:
            node.process.kill()  # type: ignore[union-attr]
        for node in cluster.nodes:
            node.process.wait()  # type: ignore[union-attr]
        for node in cluster.nodes:
            node.start(wait=False)
        for node in cluster.nodes:
            node.wait_up()
        cluster.leader()
        assert cluster.api("GET", "/v1/projects/kept")["version"] == version, f"round {number}"
        missing = [run for run in runs[-10:] if not has_run(cluster, run)]
        assert not missing, f"round {number}: acknowledged runs are gone: {missing}"
    assert not [run for run in runs if not has_run(cluster, run)]


def has_run(cluster: Cluster, run: str) -> bool:
    found: Any = cluster.run(run)
    return bool(found["id"] == run)


def test_acknowledged_push_and_run_survive(fresh_three: Cluster) -> None:
    """A short version of the fifty rounds below."""
    check_acknowledged_survive(fresh_three, 4)


@pytest.mark.soak
def test_acknowledged_push_and_run_survive_fifty_rounds(fresh_three: Cluster) -> None:
    """Every acknowledged push and run is there after kill -9 of all nodes at once, in fifty rounds."""
    check_acknowledged_survive(fresh_three, int(os.environ.get("IGOR_ROUNDS", "50")))


def test_a_shell_script_with_a_dead_node(fresh_three: Cluster) -> None:
    """`run --wait` and `logs -f` go to the next node by themselves when the first of the list is dead."""
    fresh_three.push("script", {"name": "greets", "command": "echo hello"})
    dead = next(node for node in fresh_three.nodes if node is not fresh_three.leader())
    dead.kill()
    order = ",".join(node.address for node in sorted(fresh_three.nodes, key=lambda node: node is not dead))
    ran = fresh_three.igor("run", "greets", "--wait", "--json", env={"IGOR_NODE": order})
    assert ran.returncode == 0, ran.stderr
    run = json.loads(ran.stdout)
    if run["stages"][0]["attempts"][-1]["node"] != dead.name:
        logs = fresh_three.igor("logs", run["id"], "-f", env={"IGOR_NODE": order})
        assert logs.returncode == 0 and "hello" in logs.stdout
