"""The network breaks between nodes in every way; whoever has a majority goes on, whoever has none says so, and nobody is ever told two things.

Each node is on a machine of its own (`harness/networks.py`; needs root), under the load of `harness/promises.py` and of witnessed jobs.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raft.settings import DEFAULT_SETTINGS
from tests.cluster.test_chaos import audit_faults, settle
from tests.harness.cluster import Cluster, Node
from tests.harness.networks import Switch, need_namespaces
from tests.harness.processes import wait_for
from tests.harness.promises import Promises
from tests.harness.witness import Witness

pytestmark = pytest.mark.cluster

LEASE = "10s"
ROUNDS = 3


class Scene:
    """A cluster on a switch, its witnessed jobs, and what clients were promised; the tests of this file follow each other in it."""

    def __init__(self, cluster: Cluster, switch: Switch, folder: Path, chance: random.Random) -> None:
        self.cluster, self.switch, self.chance = cluster, switch, chance
        self.witness = Witness(folder / "witness")
        jobs = [
            self.witness.job("each-second", "true", schedule={"every": "1s", "catch_up": {"policy": "all"}}, overlap="queue"),
            self.witness.job("beside-itself", "sleep 1.5", schedule={"every": "1s"}, overlap="allow"),
        ]
        self.jobs: list[dict[str, Any]] = [{**job, "lease": LEASE} for job in jobs]
        self.began = time.time()
        cluster.push("cut", *self.jobs)
        self.promises = Promises(cluster, chance, run_pause_s=0.5)
        self.promises.prepare()

    def leader_and_followers(self) -> tuple[Node, Node, Node]:
        leader = self.cluster.leader()
        one, other = (node for node in self.cluster.nodes if node is not leader)
        return leader, one, other

    def term_of(self, node: Node) -> int:
        return int(node.request("GET", "/v1/leader")[2]["term"])

    def leads(self, node: Node) -> bool:
        return bool(node.request("GET", "/v1/leader")[2]["here"])

    def work_goes_on(self) -> None:
        """Pushes are acknowledged and commands start, for things that begin from now on."""
        version, now = max(self.promises.pushed), time.time()
        wait_for(lambda: max(self.promises.pushed) > version + 2, 20, "pushes to be acknowledged")
        wait_for(lambda: any(line.what == "start" and line.at > now for line in self.witness.lines()), 20, "commands to start")

    def heal(self) -> None:
        self.switch.heal()
        self.cluster.wait_level()
        self.work_goes_on()

    def check(self) -> None:
        wrong = self.promises.faults()
        assert not wrong, "\n".join(wrong[:20])

    def check_witness(self) -> None:
        runs = settle(self.cluster, "cut", self.jobs)
        wrong = self.witness.faults(runs) + audit_faults(self.cluster, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)))
        wrong += [f"{run['job']} {run['scheduled_time']} is {run['state']}" for run in runs if run["state"] not in ("succeeded", "skipped")]
        assert not wrong, "\n".join(wrong[:20])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    need_namespaces()
    seed = int(os.environ.get("IGOR_SEED") or 7)
    with Switch(3) as switch:
        cluster = Cluster(3)
        switch.plug(cluster)
        with cluster:
            yield Scene(cluster, switch, tmp_path_factory.mktemp("partitions"), random.Random(seed))


def refuses_writes(node: Node) -> None:
    status, headers, _ = node.request("PUT", "/v1/projects/refused", {"definitions": [], "sources": {}}, headers={"If-None-Match": "*"}, timeout_s=6)
    assert (status, "retry-after" in headers) == (503, True)


def a_leader_alone(scene: Scene) -> None:
    """It steps down and refuses; the others elect."""
    leader, one, other = scene.leader_and_followers()
    scene.switch.isolate(leader.name)
    wait_for(lambda: scene.leads(one) or scene.leads(other), 10, "the majority to elect")
    assert not scene.leads(leader)
    refuses_writes(leader)


def a_leader_that_hears_nobody(scene: Scene) -> None:
    """Its heartbeats arrive, but no answer does: it has no lease, falls back, and the others are free to elect."""
    leader, one, other = scene.leader_and_followers()
    scene.switch.cut_one_way(one.name, leader.name)
    scene.switch.cut_one_way(other.name, leader.name)
    wait_for(lambda: scene.leads(one) or scene.leads(other), 10, "the majority to elect")
    assert not scene.leads(leader)


def a_leader_that_nobody_hears(scene: Scene) -> None:
    leader, one, other = scene.leader_and_followers()
    scene.switch.cut_one_way(leader.name, one.name)
    scene.switch.cut_one_way(leader.name, other.name)
    wait_for(lambda: scene.leads(one) or scene.leads(other), 10, "the majority to elect")
    assert not scene.leads(leader)


def nobody_is_unseated(scene: Scene, disturb: Callable[[Scene, Node, Node], None]) -> None:
    """`disturb` gets the leader and a follower. A machine that stands still for a second may cost a leader its place, too, but not every time."""
    for _ in range(ROUNDS):
        leader, _, other = scene.leader_and_followers()
        before = scene.term_of(leader)
        disturb(scene, leader, other)
        if scene.leads(leader) and scene.term_of(leader) == before:
            return
        scene.heal()
    raise AssertionError(f"{ROUNDS} leaders out of {ROUNDS} were unseated")


def a_bridge(scene: Scene) -> None:
    """One follower sees both sides: the leader stays, and the other does not raise the term for ever."""
    nobody_is_unseated(scene, cut_off_from_the_leader)


def cut_off_from_the_leader(scene: Scene, leader: Node, other: Node) -> None:
    scene.switch.cut(leader.name, other.name)
    scene.work_goes_on()
    wait_for(lambda: age_s(other) > 2 * DEFAULT_SETTINGS.election_max_s, 20, f"{other.name} to have asked for votes in vain, and again")


def age_s(node: Node) -> float:
    """How long ago it last heard a leader, as its answers say."""
    return float(node.request("GET", "/v1/jobs")[1]["igor-age"])


def a_follower_that_flaps(scene: Scene) -> None:
    """It is cut off and back several times, for shorter and longer than an election time-out: nobody is unseated."""
    nobody_is_unseated(scene, flap)


def flap(scene: Scene, _leader: Node, other: Node) -> None:
    for _ in range(3):
        scene.switch.isolate(other.name)
        time.sleep(scene.chance.uniform(0.3, 1.5))
        scene.switch.heal()
        time.sleep(scene.chance.uniform(0.1, 0.6))
    scene.cluster.wait_level()  # it had its say


def everybody_alone(scene: Scene) -> None:
    for node in scene.cluster.nodes:
        scene.switch.isolate(node.name)
    wait_for(lambda: not any(scene.leads(node) for node in scene.cluster.nodes), 10, "nobody to lead")
    refuses_writes(scene.cluster.nodes[0])


def packets_that_get_lost(scene: Scene) -> None:
    """A tenth of all that is sent, in all directions."""
    for sender in scene.cluster.nodes:
        for receiver in scene.cluster.nodes:
            if sender is not receiver:
                scene.switch.lose(sender.name, receiver.name, 0.1)
    scene.work_goes_on()


def packets_that_are_late(scene: Scene) -> None:
    """On each way by a time of its own, up to half an election time-out there and back: slower, and nothing else."""
    for sender in scene.cluster.nodes:
        for receiver in scene.cluster.nodes:
            if sender is not receiver:
                scene.switch.delay(sender.name, receiver.name, scene.chance.uniform(0.02, DEFAULT_SETTINGS.election_min_s / 4))
    scene.work_goes_on()


TROUBLES: list[Callable[[Scene], None]] = [
    a_leader_alone,
    a_leader_that_hears_nobody,
    a_leader_that_nobody_hears,
    a_bridge,
    a_follower_that_flaps,
    everybody_alone,
    packets_that_get_lost,
    packets_that_are_late,
]
LONG = {a_leader_that_nobody_hears, a_follower_that_flaps, everybody_alone}  # in `make soak`
MAJORITY = {a_leader_alone, a_leader_that_hears_nobody, a_leader_that_nobody_hears}


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(one, id=one.__name__.replace("_", " "), marks=[pytest.mark.soak] if one in LONG else []) for one in TROUBLES],
)
def test_a_network_that_breaks(scene: Scene, trouble: Callable[[Scene], None]) -> None:
    with scene.promises:
        trouble(scene)
        if trouble in MAJORITY:
            scene.work_goes_on()
        scene.heal()
    scene.check()


def test_no_command_started_twice_in_all_of_that(scene: Scene) -> None:
    scene.check_witness()


@pytest.mark.soak
def test_a_network_that_breaks_for_long(scene: Scene) -> None:
    """One trouble after another, in any order; `IGOR_CHAOS_S` says for how long."""
    until = time.monotonic() + float(os.environ.get("IGOR_CHAOS_S", "300"))
    while time.monotonic() < until:
        trouble = scene.chance.choice(TROUBLES)
        print(trouble.__name__, flush=True)
        with scene.promises:
            trouble(scene)
            scene.heal()
        scene.check()
    scene.check_witness()
