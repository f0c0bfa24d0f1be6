"""Disks that are full or lie: the node says which file and where, and stops or mends itself; the others go on, and nothing wrong is ever served."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from igor_node.ledger.files import current_file
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for
from tests.harness.small_disks import SmallDisk, turn_over

pytestmark = pytest.mark.cluster

PAGE_BYTES = 4_096


def a_follower(cluster: Cluster) -> Node:
    """Not the founder, whose folder holds the tokens of the test."""
    leader = cluster.leader()
    return next(node for node in cluster.nodes[1:] if node is not leader)


def write(cluster: Cluster, count: int = 20, size: int = 1_000) -> None:
    """Pushes that leave something in journal and ledger."""
    for number in range(count):
        cluster.push("filler", {"name": "idle", "command": "true", "description": f"{number} " + "word " * (size // 5)})


def said(node: Node) -> str:
    assert node.process is not None
    node.process.wait(20)
    return node.tail(3)


def test_a_full_disk_stops_its_node_alone_until_there_is_room_again(tmp_path: Path) -> None:
    cluster = Cluster(3)
    node = cluster.nodes[2]
    node.folder = tmp_path / "small"
    with SmallDisk(node.folder, megabytes=64) as disk, cluster:
        disk.fill()
        wait_for(lambda: write(cluster, 5) or not node.running, 60, "the node to stop")
        assert re.search(r"igor-node: .*(No space left on device|disk is full)", said(node)), node.tail(3)
        write(cluster)
        assert len(cluster.status()["voters"]) == 3
        disk.free()
        node.start()
        cluster.wait_level()
        write(cluster, 3)
        cluster.wait_level()
        cluster.close()


@pytest.fixture(scope="module")
def written() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        write(cluster)
        cluster.wait_level()
        yield cluster


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
