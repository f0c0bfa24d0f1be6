"""Two versions of the program serve in one cluster, node after node is upgraded, and the ledger's version is raised when the last one is."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from igor_node.ledger.apply import KNOWN
from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
NEWER_PROGRAM = textwrap.dedent("""\
    import igor_node.ledger.apply
    import igor_node.rules.versions
    from tests.unit.ledger.newer import NEWER

    igor_node.ledger.apply.KNOWN = NEWER
    igor_node.rules.versions.ANNOUNCED_FOR = 3 * 10**9  # in place of ten minutes
""")


@contextlib.contextmanager
def newer_program(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Nodes that are started within are of a build that knows one command and one version more."""
    (folder / "sitecustomize.py").write_text(NEWER_PROGRAM)
    before = cluster.environment
    cluster.environment = {**before, "PYTHONPATH": f"{folder}:{ROOT}"}
    try:
        yield
    finally:
        cluster.environment = before


def test_a_rolling_upgrade(tmp_path: Path) -> None:
    """Every step takes writes, on newer and older nodes alike, and a leader hands over before it stops; the older program is refused where the
    version was raised, in one line."""
    with Cluster(3) as cluster:
        cluster.push("shop", {"name": "quiet", "command": "true"})
        led = []
        for number, node in enumerate(cluster.nodes):
            assert cluster.status()["ledger_version"] == KNOWN.highest
            led += [node] if cluster.leader() is node else []
            assert node.stop() == 0
            with newer_program(cluster, tmp_path):
                node.start()
            cluster.wait_voters()
            cluster.push("shop", {"name": "quiet", "command": f"echo {number}"})
        assert led and [node.name for node in led if "handed the leadership over" not in node.log.read_text()] == []
        wait_for(lambda: cluster.status()["ledger_version"] == KNOWN.highest + 1, 30, "the raised version")
        run = cluster.api("POST", "/v1/jobs/quiet/runs", {"params": {}})
        assert cluster.wait_run(run["id"])["state"] == "succeeded"

        last = cluster.nodes[-1]
        assert last.stop() == 0
        last.start(wait=False)
        assert last.process is not None and last.process.wait(30) == 1
        assert f"has version {KNOWN.highest + 1}, this igor-node knows versions up to {KNOWN.highest}; install a newer igor-node" in last.tail(2)
        with newer_program(cluster, tmp_path):
            last.start()
        cluster.wait_voters()
