"""Disks that are full or lie: the node says which file and where, and stops or mends itself; the others go on, and nothing wrong is ever served."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from igor_node.ledger.files import current_file
from tests.harness.cluster import Cluster, Node
from tests.harness.failing_disks import FailingDisk
from tests.harness.processes import wait_for
from tests.harness.small_disks import SmallDisk, turn_over

pytestmark = pytest.mark.cluster

PAGE_BYTES = 4_096


def a_follower(cluster: Cluster) -> Node:
    """Not the founder, whose folder holds the tokens of the test."""
    leader = cluster.leader()
    return next(node for node in cluster.nodes[1:] if node is not leader)


def write(cluster: Cluster, count: int = 20, jobs: int = 1) -> None:
    """Pushes that leave something in journal and ledger: a kilobyte a job, and as many jobs as are told."""
    for number in range(count):
        text = f"{number} of {time.monotonic()} " + "word " * 200
        cluster.push("filler", *({"name": f"idle-{job}", "command": "true", "description": text} for job in range(jobs)))


def said(node: Node) -> str:
    assert node.process is not None
    node.process.wait(20)
    return node.tail(3)


def test_a_full_disk_stops_its_node_alone_until_there_is_room_again(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small", megabytes=64) as disk:
        cluster = Cluster(3)
        node = cluster.nodes[2]
        node.folder = disk.folder
        with cluster:
            disk.fill()
            wait_for(lambda: write(cluster, 5) or not node.running, 60, "the node to stop")
            assert re.search(r"igor-node: .*(No space left on device|disk is full)", said(node)), node.tail(3)
            write(cluster)
            disk.free()
            node.start()
            check_all_work(cluster)


def check_all_work(cluster: Cluster) -> None:
    """Three voters, which hold the same and go on together."""
    cluster.wait_voters()
    write(cluster, 3)
    cluster.wait_level()
    versions = {node.request("GET", "/v1/projects/filler")[2]["version"] for node in cluster.nodes}
    assert versions == {cluster.api("GET", "/v1/projects/filler")["version"]}


@pytest.fixture(scope="module")
def failing() -> dict[str, FailingDisk]:
    """By the names of the nodes of `written`."""
    return {}


@pytest.fixture(scope="module")
def written(failing: dict[str, FailingDisk]) -> Iterator[Cluster]:
    cluster = Cluster(3)
    for node in cluster.nodes:
        failing[node.name] = FailingDisk(cluster.folder / "failing" / node.name)
        node.environment = failing[node.name].environment()
    with cluster:
        write(cluster)
        cluster.wait_level()
        yield cluster


@pytest.mark.parametrize(
    "role, call, files, words",
    [
        pytest.param("follower", "write", "raft/*.log", "raft could not be written: Input/output error", id="a follower writes its journal"),
        pytest.param("leader", "sync", "raft/*.log", "raft could not be written: Input/output error", id="the leader syncs its journal"),
        pytest.param("follower", "write", "ledger.sqlite*", "disk I/O error", id="a follower writes its ledger"),
        pytest.param("follower", "sync", "ledger.sqlite*", "disk I/O error", id="a follower syncs its ledger"),
    ],
)
def test_a_disk_that_fails_stops_its_node_alone(
    written: Cluster, failing: dict[str, FailingDisk], role: str, call: Literal["write", "sync"], files: str, words: str
) -> None:
    """One line says why, what failed is not tried again, the others go on; when the disk is well the node comes back by itself."""
    node = written.leader() if role == "leader" else a_follower(written)
    disk = failing[node.name]
    disk.fail(call, node.folder / files)
    # The ledger's file is synced when its log has 8 MiB.
    wait_for(lambda: write(written, 1, jobs=100) or not node.running, 90, "the node to stop")
    line = said(node).splitlines()[-1]
    assert line.startswith("igor-node: ") and words in line, node.tail(5)
    if files == "raft/*.log":
        assert disk.failed == 1, "the disk was not asked again"
    write(written, 3)
    disk.mend()
    node.start()
    check_all_work(written)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_flipped_byte_in_a_ledger_is_found_at_the_start_and_never_served(written: Cluster, seed: int) -> None:
    """Wherever it is. The node says so, takes a copy from another member, and goes on."""
    node = a_follower(written)
    assert node.stop() == 0
    ledger = current_file(node.folder / "ledger.sqlite")
    offset = random.Random(seed).randrange(ledger.stat().st_size)
    turn_over(ledger, offset)
    node.start()
    text = node.log.read_text()
    assert f"{ledger}: damaged at page {offset // PAGE_BYTES + 1} " in text, node.tail(5)
    written.wait_level()
    assert node.request("GET", "/v1/projects/filler")[2] == written.leader().request("GET", "/v1/projects/filler")[2]


def test_a_flipped_byte_in_a_journal_is_refused_with_file_and_offset(written: Cluster) -> None:
    node = a_follower(written)
    assert node.stop() == 0
    (segment, *_) = sorted((node.folder / "raft").glob("*.log"))
    turn_over(segment, 5_000)
    write(written, 3)
    before = segment.read_bytes()
    node.start(wait=False)
    assert re.search(rf"igor-node: .*{re.escape(str(segment))}: damaged at byte \d+: ", said(node)), node.tail(3)
    assert segment.read_bytes() == before, "a node that refuses to start changes nothing"
    token = str(written.nodes[0].folder / "join.token")
    again = ["join", written.leader().address, "--reset", "--token-file", token, "--data-dir", str(node.folder)]
    node.start(arguments=[*again, "--name", "again", "--listen", "127.0.0.1:0"])
    wait_for(lambda: ("again", "up") in [(one["name"], one["state"]) for one in written.status()["nodes"]], 20, "it to be back as a new node")
