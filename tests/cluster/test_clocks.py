"""Wall clocks go wrong under real nodes: whoever leads is right or hands over, nothing is missed, doubled or early, and it is said.

Each node has a wall clock of its own (`harness/wallclock.py`). The commands' own clock is the true one.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from igor_node.words import parse_instant
from tests.cluster.test_chaos import audit_faults, settle
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for
from tests.harness.promises import PROJECT, Promises
from tests.harness.wallclock import WallClock
from tests.harness.witness import Witness

pytestmark = pytest.mark.cluster

HOUR_S = 3_600
MINUTE = "%Y-%m-%dT%H:%M:%SZ"


class Scene:
    """A cluster with movable clocks and witnessed jobs; the tests of this file follow each other in it."""

    def __init__(self, cluster: Cluster, clocks: dict[str, WallClock], folder: Path) -> None:
        self.cluster, self.clocks = cluster, clocks
        self.witness = Witness(folder / "witness")
        self.began = time.time()
        schedule = {"every": "1s", "catch_up": {"policy": "all"}}
        self.jobs: list[dict[str, Any]] = [self.witness.job("each-second", "true", schedule=schedule, overlap="allow", lease="10s")]
        cluster.push("clocks", *self.jobs)
        self.promises = Promises(cluster, random.Random(3), run_pause_s=0.3)
        self.promises.prepare()

    def leader_and_followers(self) -> tuple[Node, list[Node]]:
        leader = self.cluster.leader()
        return leader, [node for node in self.cluster.nodes if node is not leader]

    def clock_error_s(self, name: str) -> float | None:
        return next(node["clock_error_s"] for node in self.cluster.status()["nodes"] if node["name"] == name)

    def is_off_by(self, name: str, seconds: float) -> bool:
        """As the leader has measured it; False while it has not."""
        error_s = self.clock_error_s(name)
        return error_s is not None and abs(error_s - seconds) < 0.5

    def starts_go_on(self, count: int = 3) -> None:
        now = time.time()
        wait_for(lambda: sum(line.what == "start" and line.at > now for line in self.witness.lines()) >= count, 30, "commands to start")

    def reset(self) -> None:
        for clock in self.clocks.values():
            clock.set(0)
        names = [node.name for node in self.cluster.nodes]
        wait_for(lambda: all(self.is_off_by(name, 0) for name in names), 20, "all clocks to agree")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    cluster = Cluster(3)
    clocks = {node.name: WallClock(cluster.folder / "clocks" / node.name) for node in cluster.nodes}
    for node in cluster.nodes:
        node.environment = clocks[node.name].environment()
    with cluster:
        yield Scene(cluster, clocks, tmp_path_factory.mktemp("clocks"))


@pytest.mark.parametrize("hours", [pytest.param(1, marks=pytest.mark.soak), pytest.param(-1, marks=pytest.mark.soak), 100])
def test_a_leader_whose_clock_jumps_hands_over(scene: Scene, hours: int) -> None:
    """Also while clients write: what they are told is not of that time, or later commands would be refused as too old."""
    leader, _ = scene.leader_and_followers()
    with scene.promises:
        scene.clocks[leader.name].set(hours * HOUR_S)
        wait_for(lambda: scene.cluster.leader() is not leader, 15, "another leader")
        scene.starts_go_on()
        wait_for(lambda: scene.is_off_by(leader.name, hours * HOUR_S), 15, "its error to be shown")
    jumps_s = [float(found) for found in re.findall(r"the wall clock of this machine jumped by (-?[\d.]+) s; handing over", leader.log.read_text())]
    assert [jump_s for jump_s in jumps_s if abs(jump_s - hours * HOUR_S) < 0.5], jumps_s
    wrong = scene.promises.faults()
    assert not wrong, "\n".join(wrong)
    pushed = scene.cluster.api("GET", f"/v1/projects/{PROJECT}/history")["items"][0]["pushed_at"]
    assert abs(parse_instant(pushed) / 1e9 - time.time()) < 60
    scene.reset()


def test_a_follower_that_is_off_works_by_the_leaders_time(scene: Scene) -> None:
    _, (node, _) = scene.leader_and_followers()
    scene.clocks[node.name].set(10)
    wait_for(lambda: scene.is_off_by(node.name, 10), 15, "its error to be shown")
    began = time.time()

    def started_there() -> bool:
        runs = scene.cluster.api("GET", "/v1/runs?limit=50")["items"]
        return any(a["node"] == node.name and parse_instant(run["scheduled_time"]) / 1e9 > began + 6 and run["state"] == "succeeded"
                   for run in runs if run["scheduled_time"] for stage in run["stages"] for a in stage["attempts"])  # fmt: skip

    wait_for(started_there, 30, "a command to run on it that was handed out by then", poll_s=0.5)
    name = json.loads((node.folder / "node.json").read_text())["id"]
    wait_for(lambda: any(f"the clock of node {name} is " in other.log.read_text() for other in scene.cluster.nodes), 15, "the leader to name it")
    scene.reset()


@pytest.mark.soak
def test_a_node_that_is_off_does_not_stay_leader(scene: Scene) -> None:
    """Its clock goes wrong while it follows; the leader stops and hands over to it (of two that hold the same log, to the one of the higher id)."""
    _, others = scene.leader_and_followers()
    wrong = max(others, key=lambda node: json.loads((node.folder / "node.json").read_text())["id"])
    scene.clocks[wrong.name].set(30)

    def found_out() -> bool:
        leader = scene.cluster.leader()
        if leader is not wrong:
            leader.stop()
            leader.start()
        return "off the median of the voters' clocks" in wrong.log.read_text()

    wait_for(found_out, 60, "it to lead, and to find out", poll_s=1.0)
    wait_for(lambda: scene.cluster.leader() is not wrong, 15, "one of those that agree to lead")
    scene.starts_go_on()
    scene.reset()


@pytest.mark.parametrize("_", [pytest.param("suite"), pytest.param("soak", marks=pytest.mark.soak)])
def test_no_fire_was_missed_or_doubled_in_all_of_that(scene: Scene, _: str) -> None:
    runs = settle(scene.cluster, "clocks", scene.jobs)
    wrong = scene.witness.faults(runs) + audit_faults(scene.cluster, time.strftime(MINUTE, time.gmtime(scene.began)))
    wrong += [f"{run['job']} {run['scheduled_time']} is {run['state']}" for run in runs if run["state"] not in ("succeeded", "skipped")]
    assert not wrong, "\n".join(wrong[:20])
