"""A node's certificate through its life: renewed in time, given anew to one that was away for too long, and of no use to another cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from igor_node.trust.certificates import Facts, facts
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for
from tests.harness.wallclock import WallClock

pytestmark = pytest.mark.cluster

DAY_S = 86_400


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, options=[("--tls", "on")]) as started:
        yield started


def certificate(node: Node) -> Facts:
    return facts((node.folder / "node.crt").read_text())


def start_later(node: Node, days: int, *arguments: str, wait: bool = True) -> None:
    clock = WallClock(node.folder.parent / "clocks" / node.name)
    clock.set(days * DAY_S)
    node.environment = clock.environment()
    node.start(arguments=arguments, wait=wait)


def voters_up(cluster: Cluster) -> list[str]:
    return sorted(seen["name"] for seen in cluster.status()["nodes"] if seen["state"] == "up" and seen["role"] == "voter")


def test_a_certificate_is_renewed_with_a_third_of_its_life_left(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    before = certificate(node)
    node.stop()
    start_later(node, 21)
    wait_for(lambda: certificate(node).ends_s > before.ends_s, 20, "another certificate")
    wait_for(lambda: voters_up(cluster) == ["n1", "n2", "n3"], 20, "all to be up")
    assert not (node.folder / "node.key.new").exists()
    node.stop()
    node.environment = {}
    node.start()
    cluster.wait_level()


def test_who_was_away_for_too_long_shows_a_token_and_is_the_same_node(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    identity = (node.folder / "node.json").read_text().split('"id":"')[1].split('"')[0]
    node.stop()
    start_later(node, 40, wait=False)
    assert node.process is not None and node.process.wait(20) == 4
    assert "certificate has ended" in node.tail() and "igor-node join PEER --token-file F" in node.tail()
    before = certificate(node)
    join = ("join", cluster.nodes[0].address, "--token-file", str(cluster.nodes[0].folder / "join.token"), "--data-dir", str(node.folder))
    start_later(node, 29, *join)  # as one whose certificate ends tomorrow, by its own clock
    wait_for(lambda: certificate(node).ends_s > before.ends_s, 20, "another certificate")
    assert f'"id":"{identity}"' in (node.folder / "node.json").read_text()
    wait_for(lambda: voters_up(cluster) == ["n1", "n2", "n3"], 20, "all to be up")
    node.stop()
    node.environment = {}
    node.start()
    cluster.wait_level()


def test_a_data_directory_of_another_cluster_is_refused_until_it_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    with Cluster(1, folder=tmp_path / "other", options=[("--tls", "on")]) as other:
        stranger = other.nodes[0]
        stranger.stop()
        token = str(cluster.nodes[0].folder / "join.token")
        refused = stranger.program("join", cluster.nodes[0].address, "--token-file", token, "--data-dir", str(stranger.folder))
        assert refused.returncode == 4 and "--reset" in refused.stderr, refused.stderr
        join = ("join", cluster.nodes[0].address, "--token-file", token, "--data-dir", str(stranger.folder))
        stranger.start(arguments=(*join, "--reset", "--listen", "127.0.0.1:0", "--name", "n4"))
        wait_for(lambda: "n4" in [seen["name"] for seen in cluster.status()["nodes"] if seen["state"] == "up"], 20, "it to have joined")
        assert (stranger.folder / "ca.crt").read_bytes() == (cluster.nodes[0].folder / "ca.crt").read_bytes()
        assert not (stranger.folder / "admin.token").exists()


def test_a_cluster_without_tls_stays_on_loopback(tmp_path: Path) -> None:
    with Cluster(1, folder=tmp_path / "plain") as plain:
        node = plain.nodes[0]
        assert node.address.startswith("http://")
        node.stop()
        for options, word in ((("--listen", "192.0.2.1:0"), "without TLS"), (("--tls", "on"), "without TLS")):
            refused = node.program("start", "--data-dir", str(node.folder), *options)
            assert refused.returncode == 2 and word in refused.stderr, refused.stderr


@pytest.mark.parametrize("with_key", [True, False], ids=["with the cluster's key", "without it"])
def test_a_restored_cluster_has_tls_and_opens_what_its_key_opens(tmp_path: Path, with_key: bool) -> None:
    """With a voter's `cluster.key` in the directory secrets are there, and the CA is the same; else both are made anew, and it is said."""
    with Cluster(1, folder=tmp_path / "first", options=[("--tls", "on")]) as first:
        node = first.nodes[0]
        first.api("PUT", "/v1/projects/shop/secrets/db", {"value": "a-restored-value"})
        first.push("shop", {"name": "uses", "command": 'test "$DB" = a-restored-value', "secrets": {"DB": "db"}})
        assert first.igor("backup", str(tmp_path / "backup")).returncode == 0
        node.stop()
    with_tls = (tmp_path / "first" / "n1" / "ca.crt").read_bytes()
    again = Cluster(1, folder=tmp_path / "second")
    node = again.nodes[0]
    node.folder.mkdir()
    if with_key:
        (node.folder / "cluster.key").write_bytes((tmp_path / "first" / "n1" / "cluster.key").read_bytes())
    restored = node.program("restore", str(tmp_path / "backup"), "--data-dir", str(node.folder), "--name", "n1")
    assert restored.returncode == 0, restored.stderr
    try:
        node.start()
        assert node.address.startswith("https://")
        assert ((node.folder / "ca.crt").read_bytes() == with_tls) == with_key
        run = again.api("POST", "/v1/jobs/uses/runs", {})["id"]
        ended = again.wait_run(run)
        assert ended["state"] == ("succeeded" if with_key else "failed"), ended
        if not with_key:
            assert "secret db was sealed with a key that this cluster does not have" in str(ended)
            again.api("PUT", "/v1/projects/shop/secrets/db", {"value": "a-restored-value"})
            assert again.wait_run(again.api("POST", "/v1/jobs/uses/runs", {})["id"])["state"] == "succeeded"
        assert not (node.folder / "ca.sealed").exists()
    finally:
        again.close()
