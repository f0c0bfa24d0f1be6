"""A cluster with TLS, each node on a machine of its own: joined by the token alone, and closed to whoever has none, or another cluster's.

Founded by `start --listen ADDRESS:PORT` off loopback; no file is carried by hand but the token.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from igor_node.trust.certificates import ask, facts, new_key
from igor_node.trust.pins import fingerprint_in
from raft import wire
from tests.harness.cluster import Cluster, Node
from tests.harness.networks import OFF_LOOPBACK, PORT, Switch, inside, need_namespaces
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    need_namespaces()
    with Switch(4, OFF_LOOPBACK) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(switch: Switch) -> Iterator[Cluster]:
    made = Cluster(4)
    switch.plug(made)
    with made as started:
        yield started


def space(switch: Switch, node: Node) -> str:
    return f"{switch._mark}-{switch._numbers[node.name]}"


def role_of(cluster: Cluster, node: Node) -> str:
    return str(next(seen["role"] for seen in cluster.status()["nodes"] if seen["name"] == node.name))


def test_nodes_join_by_the_token_alone_and_work_goes_on_without_the_leader(cluster: Cluster) -> None:
    """A command outlives the leader's node, wherever it runs; its output is read at another; the cluster's key is with the members alone."""
    founder = cluster.nodes[0]
    assert founder.address == f"https://10.99.0.1:{PORT}"
    token = (founder.folder / "join.token").read_text().strip()
    assert fingerprint_in(token) is not None
    cluster.push("shop", {"name": "long", "command": "for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done"})
    run = cluster.api("POST", "/v1/jobs/long/runs", {})["id"]
    cluster.wait_run(run, "running")
    leader = cluster.leader()
    leader.kill()
    cluster.push("more", {"name": "meanwhile", "command": "true"})
    assert cluster.wait_run(cluster.api("POST", "/v1/jobs/meanwhile/runs", {})["id"])["state"] == "succeeded"
    leader.start()
    ended = cluster.wait_run(run)
    assert ended["state"] == "succeeded" and len(ended["stages"][0]["attempts"]) == 1
    cluster.wait_level()
    logs = cluster.igor("logs", run)
    assert logs.stdout.strip().endswith("line 6"), logs
    for node in cluster.nodes:
        holds_key = (node.folder / "cluster.key").exists()
        assert holds_key == (role_of(cluster, node) != "worker"), node.name


def test_every_answer_is_inside_tls(cluster: Cluster, switch: Switch) -> None:
    """HTTP in clear gets nothing at all, and neither does an older TLS."""
    node = cluster.nodes[0]
    with inside(space(switch, node)), socket.create_connection(("10.99.0.1", PORT), timeout=10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in sock.recv(100)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    with (
        inside(space(switch, node)),
        socket.create_connection(("10.99.0.1", PORT), timeout=10) as sock,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(sock),
    ):
        pass


def dialled(switch: Switch, to: Node, context: ssl.SSLContext | None) -> bytes:
    """What a node's Raft says to a stranger's hello; empty where it closes."""
    with inside(space(switch, to)), socket.create_connection((f"10.99.0.{switch._numbers[to.name]}", PORT), timeout=10) as plain:
        plain.sendall(wire.MAGIC)
        hello = wire.Dialling(wire.Credentials("c", "x", "10.99.0.9:1", b"k" * 32), "y", wire.Purpose.MESSAGES).hello
        try:
            sock: socket.socket = context.wrap_socket(plain) if context is not None else plain
            sock.sendall(hello)
            return sock.recv(1000)
        except OSError:
            return b""


def test_consensus_talks_to_certificates_of_its_cluster_alone(cluster: Cluster, switch: Switch) -> None:
    """In clear, without a certificate, with one of another CA: not a byte of an answer. With a worker's own: its hello must be its own."""
    node = cluster.leader()
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    foreign.check_hostname, foreign.verify_mode = False, ssl.CERT_NONE
    trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("n1.example", common_name="n1").configure_cert(foreign)
    for context in (None, anybody, foreign):
        assert dialled(switch, node, context) == b""
    worker = next(node for node in cluster.nodes if role_of(cluster, node) == "worker")
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.check_hostname, own.verify_mode = False, ssl.CERT_NONE
    own.load_cert_chain(worker.folder / "node.crt", worker.folder / "node.key")
    assert b"it calls itself x" in dialled(switch, node, own)


def test_the_token_of_a_node_is_nothing_without_its_certificate(cluster: Cluster) -> None:
    """Copied from its directory it opens no list, and least of all the cluster's key."""
    victims = [cluster.nodes[1], next(node for node in cluster.nodes if role_of(cluster, node) == "worker")]
    for victim, path in [(victim, path) for victim in victims for path in ("/v1/node", "/v1/node/key", "/v1/cluster")]:
        stolen = (victim.folder / "node.token").read_text().strip()
        for node in cluster.nodes:  # the node itself, and one that only forwards, too: its certificate does not vouch for who asks it
            status, _, problem = node.request("GET", path, token=stolen)
            assert status == 401, (path, node.name, problem)


def test_a_join_token_makes_nobody_a_node_that_is_in_service(cluster: Cluster) -> None:
    """That would be its certificate, and with a voter's the cluster's key."""
    victim = json.loads((cluster.nodes[1].folder / "node.json").read_text())
    body = {"id": victim["id"], "name": victim["name"], "address": "10.99.0.9:1", "request": ask(new_key(), victim["id"], ("10.99.0.9",))}
    for node in cluster.nodes:
        status, _, problem = node.request("POST", "/v1/nodes", body, token=(cluster.nodes[0].folder / "join.token").read_text().strip())
        assert status == 403 and "is in service" in problem["detail"], problem
    seen = next(seen for seen in cluster.status()["nodes"] if seen["id"] == victim["id"])
    assert seen["address"] == cluster.nodes[1].address


def test_a_peer_of_another_cluster_is_told_nothing(cluster: Cluster, switch: Switch, tmp_path: Path) -> None:
    """Neither by a joiner nor by the command line: the CA that the token names is not there."""
    node = cluster.nodes[0]
    parts = (node.folder / "join.token").read_text().strip().split(".")
    token = tmp_path / "token"
    token.write_text(".".join([parts[0], "0" * 64, *parts[2:]]))
    joined = node.program("join", f"10.99.0.1:{PORT}", "--token-file", str(token), "--data-dir", str(tmp_path / "n"), "--listen", "10.99.0.1:0")
    assert joined.returncode == 4 and "another cluster than the token" in joined.stderr
    asked = subprocess.run(
        [*node.prefix, sys.executable, "-m", "igor_node.cli.igor", "--node", f"10.99.0.1:{PORT}", "--token-file", str(token), "nodes"],
        capture_output=True, text=True, timeout=60, env=cluster.environment,
    )  # fmt: skip
    assert asked.returncode == 7 and "another cluster than the token" in asked.stderr


def test_what_a_machine_has_is_enough_to_check_it_and_to_leave(cluster: Cluster, tmp_path: Path) -> None:
    """`igor-node check` and `leave` with the node's own token and certificate: a joined machine has no other."""
    worker = next(node for node in cluster.nodes if role_of(cluster, node) == "worker")
    checked = worker.program("check", "--data-dir", str(worker.folder))
    assert checked.returncode == 0 and checked.stdout.startswith("IGOR OK"), checked.stdout
    left = worker.program("leave", "--data-dir", str(worker.folder))
    assert left.returncode == 0 and "has left cluster" in left.stderr, left.stderr
    worker.stop()
    shutil.rmtree(worker.folder)
    worker.start(join=cluster.nodes[0])
    wait_for(lambda: worker.name in [seen["name"] for seen in cluster.status()["nodes"] if seen["state"] == "up"], 20, "it to be back")


def test_a_node_that_was_taken_out_gets_nothing_with_its_certificate(cluster: Cluster, switch: Switch) -> None:
    """Its stream ends, its token is no good, its links are refused, and another start is refused in words."""
    leader = cluster.leader()
    gone = next(node for node in cluster.nodes[1:] if role_of(cluster, node) != "worker" and node is not leader)
    kept = gone.folder.with_name("stolen")
    shutil.copytree(gone.folder, kept, ignore=shutil.ignore_patterns("attempts", "lock"))
    identity = json.loads((kept / "node.json").read_text())["id"]
    gone.stop()
    cluster.api("DELETE", f"/v1/nodes/{identity}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(kept / "node.crt", kept / "node.key")

    def is_cut_off() -> bool:
        return b"no member of this cluster" in dialled(switch, leader, context)

    wait_for(is_cut_off, 10, "its certificate to be refused")
    status, _, _ = leader.request("GET", "/v1/node", token=(kept / "node.token").read_text().strip())
    assert status == 401


def test_certificates_are_short_and_files_are_private(cluster: Cluster) -> None:
    for node in cluster.nodes[:2]:
        known = facts((node.folder / "node.crt").read_text())
        assert 0 < known.ends_s - known.begins_s < 31 * 86_400
        for name in ("node.key", "node.token"):
            assert (node.folder / name).stat().st_mode & 0o077 == 0, name
        assert not (node.folder / "ca.sealed").exists()
