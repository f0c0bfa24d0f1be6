"""A ledger that was changed behind its node's back is found by its digest; the node stops, takes a copy from another member, and goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from igor_node.ledger.files import current_file
from igor_node.ledger.query_digests import Digests, digests
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster

MARK = 1_000  # entries


def read(node: Node) -> sqlite3.Connection:
    return sqlite3.connect(f"{current_file(node.folder / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)


def told(node: Node) -> Digests:
    with closing(read(node)) as connection:
        return digests(connection)


def rows(node: Node, statement: str) -> list[Any]:
    with closing(read(node)) as connection:
        return connection.execute(statement).fetchall()


def damage(node: Node) -> None:
    """As a fault of the disk or of the program would: while the node runs."""
    wait_for(lambda: rows(node, "SELECT job FROM jobs"), 10, "the job to arrive")
    with closing(sqlite3.connect(node.folder / "ledger.sqlite", timeout=30)) as connection:
        connection.execute("UPDATE jobs SET paused_at = 1 WHERE name = 'quiet'")
        connection.commit()


def write(cluster: Cluster, upto: int, *, until: Node) -> None:
    """Entries up to an index, for as long as the node runs."""
    number = 0
    while cluster.status()["commit_index"] < upto and until.running:
        for _ in range(50):
            number += 1
            cluster.api("POST", "/v1/tokens", {"role": "viewer", "name": f"t{number}"})


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_ledger_that_differs_is_replaced(role: str) -> None:
    """Whoever holds it: the majority decides. Acknowledged writes are all there, before, meanwhile and after."""
    with Cluster(3) as cluster:
        cluster.push("shop", {"name": "quiet", "command": "true"})
        leader = cluster.leader()
        bad = leader if role == "leader" else next(node for node in cluster.nodes if node is not leader)
        damage(bad)
        cluster.api("POST", "/v1/jobs/quiet/resume", {})  # the answer tells whether it was paused
        assert bad.process is not None
        write(cluster, MARK + 50, until=bad)
        assert bad.process.wait(30) == 1
        assert "differs from the majority's, by an entry from 1 to 1000; start this node again" in bad.tail(3)
        written = {token["id"] for token in cluster.api("GET", "/v1/tokens")["items"]}

        bad.start()
        cluster.wait_voters()
        wait_for(lambda: len({told(node).marks.get(MARK) for node in cluster.nodes}) == 1, 20, "the same digest everywhere")
        status, _, seen = bad.request("GET", "/v1/tokens", headers={"Igor-Index": str(cluster.status()["applied_index"])})
        assert status == 200 and {token["id"] for token in seen["items"]} >= written
        assert not (bad.folder / "ledger.sqlite.distrusted").exists()
        assert len({tuple(rows(node, "SELECT * FROM jobs ORDER BY job")) for node in cluster.nodes}) == 1
