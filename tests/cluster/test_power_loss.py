"""The power goes in the whole room while everybody works: whatever was acknowledged is there afterwards, and no fire has started twice.

Three real nodes with their pre-loaded processes and wrappers on disks that forget what was not synced (`harness/powerloss.py`). Witnessed jobs run by
their schedules, clients push, start runs and pause; at a random moment every process dies, each disk loses what chance says, and the nodes are
started again. `IGOR_SEED` gives another seed, `IGOR_ROUNDS` the soak another length.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import zip_longest
from pathlib import Path

import pytest

from igor_node.ledger.files import current_file
from tests.cluster.test_chaos import audit_faults, settle
from tests.harness.cluster import Cluster, end_machines
from tests.harness.powerloss import Disk, Mode
from tests.harness.preload import built
from tests.harness.processes import wait_for
from tests.harness.promises import Promises
from tests.harness.witness import Witness

pytestmark = pytest.mark.cluster

ROUNDS = 2
SOAK_ROUNDS = 30
LEASE = "10s"


class Room:
    """A cluster of three whose power can be cut."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.disks = {node.name: Disk(cluster.folder / "disks" / node.name, cluster.folder / "records" / node.name) for node in cluster.nodes}
        for node in cluster.nodes:
            disk = self.disks[node.name]
            node.folder = disk.root / "data"  # made by the node: its own name, too, must be durable before anything is promised
            node.environment = disk.environment()
            disk.arm()

    def cut(self, mode: Mode | None = None) -> list[str]:
        """Everything dies at once. Returns what each disk lost."""
        end_machines(self.cluster.nodes)
        return [f"{name}: {disk.cut(self.chance, mode)}" for name, disk in self.disks.items()]

    def restore_power(self) -> None:
        for node in self.cluster.nodes:
            assert (node.folder / "node.json").exists(), f"{node.name} was in service and has forgotten who it is"
        for node in self.chance.sample(self.cluster.nodes, 3):
            node.start(wait=False)
        for node in self.cluster.nodes:
            node.wait_up()
        self.cluster.wait_voters()


@pytest.fixture
def room() -> Iterator[Room]:
    built("powerloss")
    seed = int(os.environ.get("IGOR_SEED") or 11)
    cluster = Cluster(3)
    room = Room(cluster, random.Random(seed))
    with cluster:
        yield room


def jobs_of(witness: Witness) -> list[dict[str, object]]:
    jobs = [
        witness.job("each-second", "true", schedule={"every": "1s", "catch_up": {"policy": "all"}}, overlap="queue"),
        witness.job("beside-itself", "sleep 1.5", schedule={"every": "1s"}, overlap="allow"),
        witness.job("retried", "sleep 0.2", schedule={"every": "2s", "catch_up": {"policy": "all"}}, exit_code="IGOR_TRY < 2",
                    retries={"max": 3, "backoff": {"initial": "200ms", "max": "1s"}}),
    ]  # fmt: skip
    return [{**job, "lease": LEASE} for job in jobs]


def dump(ledger: Path) -> list[str]:
    with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


def same_ledgers(cluster: Cluster) -> list[str]:
    """All stand at one index; then, with the nodes down, their tables are compared row by row."""

    def level() -> bool:
        stands = cluster.stands()
        return len({stand["applied_index"] for stand in stands} | {stand["commit_index"] for stand in stands}) == 1

    for _ in range(20):  # the last entries of the leader's loops may come in between
        wait_for(level, 20, "all nodes at one index")
        end_machines(cluster.nodes)
        first, *others = [dump(current_file(node.folder / "ledger.sqlite")) for node in cluster.nodes]
        if len({next(line for line in lines if 'INTO "position"' in line) for lines in (first, *others)}) == 1:
            return [f"line {n}: {a} | {b}" for other in others for n, (a, b) in enumerate(zip_longest(first, other)) if a != b][:5]
        for node in cluster.nodes:
            node.start()
    raise AssertionError("the nodes were never at one index")


def battery(room: Room, folder: Path, rounds: int) -> None:
    cluster, chance = room.cluster, room.chance
    witness = Witness(folder / "witness")
    jobs = jobs_of(witness)
    began = time.time()
    cluster.push("powered", *jobs)
    promises = Promises(cluster, chance, run_pause_s=0.3)
    promises.prepare()
    for number in range(rounds):
        before = promises.acknowledged
        with promises:
            wait_for(lambda before=before: promises.acknowledged > before + 20, 30, "some answers")  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 2.0))
            # At first the worst, early: every ledger falls back to nothing, the journals have it all.
            lost = room.cut(None if number else Mode.NOTHING)
        print(f"round {number + 1}, {promises.acknowledged} acknowledged: " + "; ".join(lost), flush=True)
        room.restore_power()
        wrong = promises.faults()
        assert not wrong, f"round {number + 1}: {lost}:\n" + "\n".join(wrong[:20])
    runs = settle(cluster, "powered", jobs)
    wrong = witness.faults(runs) + audit_faults(cluster, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)))
    wrong += [f"{run['job']} {run['scheduled_time']} {run['state']}" for run in runs if run["state"] not in KNOWN_ENDS]
    wrong += same_ledgers(cluster)
    assert not wrong, "\n".join(wrong[:30])


KNOWN_ENDS = ("succeeded", "failed", "lost", "skipped", "missed")


def test_what_was_acknowledged_survives_power_cuts(room: Room, tmp_path: Path) -> None:
    battery(room, tmp_path, ROUNDS)


@pytest.mark.soak
def test_what_was_acknowledged_survives_thirty_power_cuts(room: Room, tmp_path: Path) -> None:
    battery(room, tmp_path, int(os.environ.get("IGOR_ROUNDS", SOAK_ROUNDS)))
