"""`igor push` of a project that is larger than an entry of the log: all of it, on every node, and a second push finds nothing to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster, Node

pytestmark = pytest.mark.cluster

JOBS = 5_000
A_FILE = 100


def project(folder: Path, *, words: str) -> Path:
    """Some megabytes of definitions, many in a file."""
    folder.mkdir()
    (folder / "project.yaml").write_text("apiVersion: igor/v1\nkind: Project\nname: large\n")
    for first in range(0, JOBS, A_FILE):
        jobs = (
            f"apiVersion: igor/v1\nkind: Job\nname: job-{number:04}\ndescription: {words * 40}\ncommand: 'true'\n"
            for number in range(first, first + A_FILE)
        )
        (folder / f"jobs-{first:04}.yaml").write_text("---\n".join(jobs))
    return folder


def shown(node: Node, index: str) -> dict[str, Any]:
    status, _, answer = node.request("GET", "/v1/projects/large", headers={"Igor-Index": index}, timeout_s=30)
    assert status == 200, answer
    return dict(answer)


def test_a_project_of_5000_jobs(three: Cluster, tmp_path: Path) -> None:
    """Some megabytes in one push, through any node."""
    folder = project(tmp_path / "large", words="nightly ")
    first = json.loads(three.igor("push", str(folder), "--json", timeout_s=120).stdout)
    assert (first["version"], len(first["created"])) == (1, JOBS)
    index = str(three.status()["applied_index"])
    for node in three.nodes:
        seen = shown(node, index)
        assert (seen["version"], len(seen["jobs"]), len(seen["sources"])) == (1, JOBS, JOBS // A_FILE + 1)
    again = json.loads(three.igor("push", str(folder), "--json", timeout_s=120).stdout)
    assert (again["version"], again["unchanged"]) == (1, True)
