"""The cluster's key and its CA are replaced while everything runs: no command notices, an old pin still finds the cluster, old keys open nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from igor_node.trust.certificates import facts, identifier, split_pem
from igor_node.trust.keys import KeyRing, parse_ring
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(4, options=[("--tls", "on")]) as started:
        yield started


def ring(node: Node) -> KeyRing | None:
    path = node.folder / "cluster.key"
    return parse_ring(path.read_text()) if path.exists() else None


def rings(cluster: Cluster) -> list[KeyRing]:
    return [found for node in cluster.nodes if (found := ring(node)) is not None]


def rotate(cluster: Cluster, what: str, *arguments: str) -> None:
    done = cluster.nodes[0].program("rotate", what, "--data-dir", str(cluster.nodes[0].folder), *arguments)
    assert done.returncode == 0, done.stderr


def set_secret(cluster: Cluster, name: str, value: str) -> None:
    cluster.api("PUT", f"/v1/secrets/{name}", {"value": value})


def told(cluster: Cluster, run: str) -> str:
    return cluster.igor("logs", run).stdout


def test_the_key_is_replaced_under_a_running_command(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every member has the new one, and forgets the old one with the last command that began before; secrets and the CA's key are sealed anew."""
    gate = tmp_path_factory.mktemp("gate") / "open"
    before = rings(cluster)
    assert [found.current for found in before] == [1, 1, 1]
    set_secret(cluster, "word", "a-word-that-nobody-says")
    slow = {"name": "slow", "command": f"until [ -e {gate} ]; do sleep 0.1; done"}
    check = {"name": "check", "command": 'test "$WORD" = a-word-that-nobody-says', "secrets": {"WORD": "word"}}
    cluster.push("shop", slow, check)
    run = cluster.api("POST", "/v1/jobs/slow/runs", {})["id"]
    cluster.wait_run(run, "running")
    rotate(cluster, "key", "--no-wait")
    wait_for(lambda: cluster.status()["key"]["generation"] == 2, 30, "the new key to be in force")
    assert [sorted(found.by_generation) for found in rings(cluster)] == [[1, 2]] * 3
    assert len({found.by_generation[2] for found in rings(cluster)} - {before[0].key}) == 1
    assert cluster.wait_run(cluster.api("POST", "/v1/jobs/check/runs", {})["id"])["state"] == "succeeded"
    cluster.leader().kill()
    wait_for(lambda: cluster.status()["quorum"] and cluster.leader().running, 30, "another leader")
    for node in cluster.nodes:
        if not node.running:
            node.start()
    cluster.wait_level()
    assert cluster.status()["key"]["replaced"] is True, "the command began under the old key"
    gate.touch()
    ended = cluster.wait_run(run)
    assert ended["state"] == "succeeded" and len(ended["stages"][0]["attempts"]) == 1
    wait_for(lambda: [sorted(found.by_generation) for found in rings(cluster)] == [[2]] * 3, 30, "the old key to be forgotten")
    assert cluster.status()["key"] == {**cluster.status()["key"], "generation": 2, "replaced": False}
    assert cluster.wait_run(cluster.api("POST", "/v1/jobs/check/runs", {})["id"])["state"] == "succeeded"
    for node in cluster.nodes:  # a stop of all: they meet again by the new key, which is in no log of theirs
        node.stop()
    for node in cluster.nodes:
        node.start(wait=False)
    for node in cluster.nodes:
        node.wait_up()
    cluster.wait_voters()
    assert cluster.wait_run(cluster.api("POST", "/v1/jobs/check/runs", {})["id"])["state"] == "succeeded"


def test_the_ca_is_replaced_and_an_old_pin_still_finds_the_cluster(cluster: Cluster) -> None:
    """A voter that is down holds it up; the token of the founding, which names the first CA, goes on being good."""
    first = (cluster.nodes[0].folder / "ca.crt").read_text()
    away = next(node for node in cluster.nodes[1:] if node is not cluster.leader())
    away.kill()
    rotate(cluster, "ca", "--no-wait")
    others = [node for node in cluster.nodes if node is not away]
    wait_for(lambda: all(len(split_pem((node.folder / "ca.crt").read_text())) == 2 for node in others), 30, "both CAs to be trusted")
    assert cluster.status()["ca"]["generation"] == 2 and cluster.status()["ca"]["replaced"] is True
    away.start()
    wait_for(lambda: cluster.status()["ca"]["replaced"] is False, 30, "the first CA to be dropped")

    def by_the_second_alone(node: Node) -> bool:
        trusted = split_pem((node.folder / "ca.crt").read_text())
        return len(trusted) == 1 and trusted[0] != first and facts((node.folder / "node.crt").read_text()).issuer == identifier(trusted[0])

    wait_for(lambda: all(map(by_the_second_alone, cluster.nodes)), 30, "every node to have a certificate of the second CA, and trust it alone")
    old_token = (cluster.nodes[0].folder / "admin.token").read_text()
    asked = subprocess.run(
        [sys.executable, "-m", "igor_node.cli.igor", "status"], capture_output=True, text=True, timeout=60,
        env={**cluster.environment, "IGOR_NODE": cluster.nodes[2].address, "IGOR_TOKEN": old_token.strip()},
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    cluster.nodes[3].kill()
    cluster.nodes[3].start()
    wait_for(lambda: all(node["state"] == "up" for node in cluster.status()["nodes"]), 30, "all to be up")
    cluster.push("shop", {"name": "hello", "command": "true"})
    assert cluster.wait_run(cluster.api("POST", "/v1/jobs/hello/runs", {})["id"])["state"] == "succeeded"
