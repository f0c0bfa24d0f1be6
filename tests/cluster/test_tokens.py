"""Tokens in a cluster of real nodes: three that hold the ledger, and one that does not."""

from __future__ import annotations

import http.client
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.harness.cluster import Cluster, Node, wait_for

pytestmark = pytest.mark.cluster

WITHIN_S = 1.0  # what docs/security.md says


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(4) as started:
        started.push("shop", {"name": "long", "command": "while true; do echo beat; sleep 0.2; done", "grace": "1s"})
        yield started


def make(cluster: Cluster, **body: Any) -> tuple[str, str]:
    made = cluster.api("POST", "/v1/tokens", {"role": "operator", **body})
    return made["id"], made["token"]


class Follower:
    """A stream, read in a thread until its node ends it; `ended` is when, by the monotonic clock."""

    def __init__(self, node: Node, path: str, token: str) -> None:
        where = urlsplit(node.address)
        self.connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.ended = 0.0
        self.heard = 0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            while line := self.answer.readline():
                self.heard += len(line)
        except (http.client.HTTPException, OSError):
            pass
        self.ended = time.monotonic()


def worker(cluster: Cluster) -> Node:
    (found,) = [node["name"] for node in cluster.status()["nodes"] if node["role"] == "worker"]
    return next(node for node in cluster.nodes if node.name == found)


def test_a_revoked_token_ends_on_every_node_within_a_second(cluster: Cluster) -> None:
    """Requests, streams of events and followed logs, also at the node that holds no ledger."""
    assert worker(cluster) in cluster.nodes
    run = cluster.api("POST", "/v1/jobs/shop/long/runs", {})["id"]
    identifier, token = make(cluster)
    for node in cluster.nodes:
        wait_for(lambda node=node: node.request("GET", "/v1/jobs", token=token)[0] == 200, 5, f"{node.name} to know the token")
    followers = [Follower(node, path, token) for node in cluster.nodes for path in ("/v1/events", f"/v1/runs/{run}/logs?follow=1")]
    wait_for(lambda: all(follower.heard for follower in followers), 10, "every stream to begin")
    cluster.api("DELETE", f"/v1/tokens/{identifier}")
    revoked = time.monotonic()
    for follower in followers:
        follower.thread.join(10)
    assert all(0 < follower.ended < revoked + WITHIN_S for follower in followers), [follower.ended - revoked for follower in followers]
    for node in cluster.nodes:
        for path in ("/v1/jobs", "/v1/events", "/v1/whoami", "/metrics", "/"):
            assert node.request("GET", path, token=token)[0] == 401
    cluster.api("POST", f"/v1/runs/{run}/cancel", {})


def test_a_project_cannot_be_left_by_whatever_node(cluster: Cluster) -> None:
    cluster.push("web", {"name": "other", "command": "true"})
    _, token = make(cluster, role="admin", projects=["shop"])
    for node in cluster.nodes:
        wait_for(lambda node=node: node.request("GET", "/v1/jobs/shop/long", token=token)[0] == 200, 5, f"{node.name} to know the token")
        assert node.request("GET", "/v1/jobs/web/other", token=token)[0] == 404
        assert node.request("POST", "/v1/jobs/web/other/runs", {}, token=token)[0] == 404
        assert node.request("PUT", "/v1/projects/web", {"definitions": []}, token=token, headers={"If-Match": '"1"'})[0] == 403
        assert node.request("POST", "/v1/tokens", {"role": "viewer"}, token=token)[0] == 403
        assert node.request("DELETE", "/v1/nodes/n1", token=token)[0] == 403


def test_nothing_is_told_without_a_token(cluster: Cluster) -> None:
    for node in cluster.nodes:
        for method, path in [
            ("GET", "/"),
            ("GET", "/v1/nothing"),
            ("GET", "/metrics"),
            ("POST", "/v1/session"),
            ("PUT", "/v1/projects/x"),
            ("POST", "/v1/nodes"),
        ]:
            assert node.request(method, path, {} if method != "GET" else None, token=None)[0] == 401, (node.name, method, path)
        assert node.request("GET", "/healthz", token=None)[0] == node.request("GET", "/readyz", token=None)[0] == 200


def test_no_secret_stands_in_the_list_of_processes(cluster: Cluster) -> None:
    """Neither of nodes nor of the command line while it runs."""
    _, token = make(cluster)
    secret = token.split(".")[3]
    watching = subprocess.Popen(
        ["sh", "-c", 'for i in $(seq 40); do cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " "; done'], stdout=subprocess.PIPE, text=True
    )
    assert cluster.igor("whoami", env={"IGOR_TOKEN": token}).returncode == 0
    seen, _ = watching.communicate(timeout=60)
    assert "whoami" in seen or "igor_node" in seen
    assert secret not in seen and cluster.token.split(".")[3] not in seen
