"""Who belongs to the quorum, with real processes: it grows by itself, replaces whom it lost, follows who moved, and counts nobody twice.

The rule itself is a table (`tests/unit/rules/test_membership.py`) and consensus is simulated; here is what remains: processes, ports, folders.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.harness.cluster import Cluster, Node, stop_gently
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def roles(cluster: Cluster) -> dict[str, str]:
    return {node["name"]: node["role"] for node in cluster.status()["nodes"]}


def voters(cluster: Cluster) -> set[str]:
    return set(cluster.status()["voters"])


def add(cluster: Cluster, **more: Any) -> Node:
    """One node more, joined and in service."""
    node = Node(cluster, f"n{len(cluster.nodes) + 1}", **more)
    cluster.nodes.append(node)
    return node.start(join=cluster.nodes[0])


def wait_roles(cluster: Cluster, expected: dict[str, str], timeout_s: float = 30) -> None:
    wait_for(lambda: roles(cluster) == expected, timeout_s, f"the roles {expected}")


def write_and_read_everywhere(cluster: Cluster, among: list[Node] | None = None) -> None:
    """A write is acknowledged, and within moments every node answers with it."""
    version = cluster.push("proof", {"name": "proof", "command": f"echo {free_port()}"})["version"]
    for node in among or cluster.nodes:

        def knows(node: Node = node) -> bool:
            return bool(node.request("GET", "/v1/projects/proof")[2].get("version") == version)

        wait_for(knows, 10, f"{node.name} to know version {version}")


def test_one_to_three_to_five() -> None:
    """With --voters 5: two nodes are not highly available, three are, four are three voters and a learner, five are five."""
    with Cluster(1, options=[("--voters", "5")]) as cluster:
        assert roles(cluster) == {"n1": "voter"}
        add(cluster)
        wait_roles(cluster, {"n1": "voter", "n2": "learner"})
        assert "not highly available" in cluster.igor("status").stdout
        add(cluster)
        wait_roles(cluster, dict.fromkeys(("n1", "n2", "n3"), "voter"))
        assert cluster.status()["highly_available"] is True
        add(cluster)
        wait_roles(cluster, {**dict.fromkeys(("n1", "n2", "n3"), "voter"), "n4": "learner"})
        add(cluster)
        wait_roles(cluster, dict.fromkeys(("n1", "n2", "n3", "n4", "n5"), "voter"))
        write_and_read_everywhere(cluster)
        leader = cluster.leader()
        other = next(node for node in cluster.nodes if node is not leader)
        leader.kill()
        other.kill()
        write_and_read_everywhere(cluster, [node for node in cluster.nodes if node.running])


def lose(cluster: Cluster, node: Node) -> None:
    """Its machine dies while it runs something, so that it is called lost after that attempt's lease, not after three minutes."""
    cluster.push("lost", {"name": "lost", "command": "sleep 100", "lease": "5s", "on_node_loss": "fail", "constraints": {"name": node.name}})
    run = cluster.igor("run", "lost", "--json")
    cluster.wait_run(json.loads(run.stdout)["id"], "running")
    node.end_machine()


def test_a_lost_voter_is_replaced_and_comes_back_as_a_worker() -> None:
    options = [("--label", f"name=n{number}") for number in (1, 2, 3)]
    with Cluster(3, options=options) as cluster:
        add(cluster)
        wait_for(lambda: roles(cluster).get("n4") == "worker", 20, "the fourth to be a worker")
        leader = cluster.leader()
        gone = next(node for node in cluster.nodes[:3] if node is not leader)
        lose(cluster, gone)
        rest = {node.name for node in cluster.nodes if node is not gone}
        wait_for(lambda: voters(cluster) == rest, 30, "the fourth to take its place")
        write_and_read_everywhere(cluster, [node for node in cluster.nodes if node.running])
        gone.start()
        wait_for(lambda: {n["name"]: n["state"] for n in cluster.status()["nodes"]}[gone.name] == "up", 20, "it to be up again")
        assert voters(cluster) == rest and roles(cluster)[gone.name] != "voter"
        write_and_read_everywhere(cluster)
        assert voters(cluster) == rest
        left = gone.program("leave", "--data-dir", str(gone.folder))
        assert left.returncode == 0, left.stderr
        assert gone.name not in roles(cluster) and voters(cluster) == rest
        write_and_read_everywhere(cluster)


def move(node: Node, *, peer: int | None = None) -> None:
    """Starts it on a port that nobody knows; with a peer's port as the one hint."""
    how = ["start"] if peer is None else ["join", f"127.0.0.1:{peer}"]
    node.start(arguments=[*how, "--data-dir", str(node.folder), "--listen", f"127.0.0.1:{free_port()}"], wait=False)


def known_where_they_are(cluster: Cluster) -> bool:
    return {node["address"] for node in cluster.status()["nodes"]} == {node.address for node in cluster.nodes}


def test_everybody_moves() -> None:
    """One after the other, each as soon as the one before is in service; then all at once, where one hint each is enough."""
    with Cluster(3) as cluster:
        for node in cluster.nodes:
            assert node.stop() == 0
            move(node)
            node.wait_up()
        write_and_read_everywhere(cluster)
        wait_for(lambda: known_where_they_are(cluster), 20, "the ledger to know all addresses")
        stop_gently(cluster.nodes)
        first, second, third = cluster.nodes
        move(first)
        first.wait_up()
        for node in (second, third):
            move(node, peer=urlsplit(first.address).port)
        for node in (second, third):
            node.wait_up()
        write_and_read_everywhere(cluster)
        wait_for(lambda: known_where_they_are(cluster), 20, "the ledger to know all addresses again")
        assert voters(cluster) == {"n1", "n2", "n3"}


def copy_of(node: Node) -> Node:
    """A data directory as somebody copied it, without what cannot be copied."""
    copy = Node(node.cluster, "copy")
    shutil.rmtree(copy.folder, ignore_errors=True)
    shutil.copytree(node.folder, copy.folder, ignore=shutil.ignore_patterns("attempts", "lock"))
    return copy


def test_never_two_voters_of_one() -> None:
    """A copied data directory does not start beside its original; where the original could not be asked, only one of the two goes on."""
    with Cluster(3) as cluster:
        original = next(node for node in cluster.nodes if node is not cluster.leader())
        copy = copy_of(original)
        where = ["start", "--data-dir", str(copy.folder), "--listen", "127.0.0.1:0"]
        try:
            copy.start(arguments=where, wait=False)
            assert copy.process is not None and copy.process.wait(20) == 4
            assert "a copy" in copy.tail() and original.address in copy.tail()
            original.signal(signal.SIGSTOP)
            copy.start(arguments=where)
            wait_for(lambda: copy.address in {node["address"] for node in cluster.status()["nodes"]}, 20, "the copy to take its place")
            original.signal(signal.SIGCONT)
            assert original.process is not None and original.process.wait(20) == 4
            assert "a data directory was copied" in original.tail()
            assert copy.running and voters(cluster) == {"n1", "n2", "n3"}
            write_and_read_everywhere(cluster, [copy, *(node for node in cluster.nodes if node is not original)])
        finally:
            copy.end_machine()


def test_ephemeral_nodes_work_never_vote_and_leave_when_they_stop() -> None:
    """With something running the node stays listed, and the command goes on; at its next stop it leaves. It comes back with a token."""
    with Cluster(1) as cluster:
        workers = [add(cluster, options=("--ephemeral", "--label", f"worker={number}")) for number in (1, 2, 3)]
        wait_roles(cluster, {"n1": "voter", "n2": "worker", "n3": "worker", "n4": "worker"})
        assert [node["ephemeral"] for node in cluster.status()["nodes"]] == [False, True, True, True]
        cluster.push("shop", {"name": "long", "command": "sleep 4", "constraints": {"worker": "2"}})
        run = cluster.api("POST", "/v1/jobs/long/runs", {})["id"]
        cluster.wait_run(run, "running")
        assert [worker.stop() for worker in workers[:2]] == [0, 0]
        assert set(roles(cluster)) == {"n1", "n3", "n4"}
        workers[1].start()
        assert cluster.wait_run(run)["state"] == "succeeded"
        wait_for(lambda: not any(node["running"] for node in cluster.status()["nodes"]), 10, "its end to be in the ledger")
        assert workers[1].stop() == 0
        assert roles(cluster) == {"n1": "voter", "n4": "worker"}
        back = ("join", cluster.nodes[0].address, "--token-file", str(cluster.nodes[0].folder / "join.token"), "--data-dir")
        workers[0].start(arguments=(*back, str(workers[0].folder)))
        wait_roles(cluster, {"n1": "voter", "n2": "worker", "n4": "worker"})
        assert workers[2].stop() == 0
        cluster.nodes[0].stop()
        refused = cluster.nodes[0].program(*back, str(cluster.nodes[0].folder), "--ephemeral")
        assert refused.returncode == 2 and "joined to stay" in refused.stderr
