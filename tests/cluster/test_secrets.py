"""A secret goes from memory to memory: a command has it, and nothing else on three machines does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster

PLANTED = ("pl4nted-s3cret-of-the-warehouse", "another+pl4nted/one of two\nlines-that-are-long-enough")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as started:
        yield started


def set_secret(cluster: Cluster, name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "igor_node.cli.igor", "secret", "set", name, "--project", "shop"],
        input=value, capture_output=True, text=True, timeout=60,
        env={**cluster.environment, "IGOR_NODE": ",".join(node.address for node in cluster.nodes), "IGOR_TOKEN": cluster.token},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert value not in done.stdout + done.stderr


def found_in_files(folder: Path) -> list[str]:
    needles = [line.encode() for value in PLANTED for line in value.splitlines()]
    return [str(path) for path in folder.rglob("*") if path.is_file() and any(needle in path.read_bytes() for needle in needles)]


def found_in_processes(but: str) -> list[str]:
    """In the arguments or the environment of any process but those of the command."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        is_command = but.encode() in environment
        if any(value.encode() in arguments or (value.encode() in environment and not is_command) for value in PLANTED):
            found.append(f"{entry.name}: {arguments[:100]!r}")
    return found


def test_a_command_has_it_and_nothing_else_does(cluster: Cluster, tmp_path: Path) -> None:
    """Not a file, an argument, another process, a log, an answer or a backup; and its output shows none of it."""
    for name, value in zip(("one", "two"), PLANTED, strict=True):
        set_secret(cluster, name, value)
    witness = tmp_path / "seen"
    command = f'printf "%s" "$ONE" | sha256sum > {witness}; echo "it is $ONE"; echo "$TWO" >&2; printf "%s" "$ONE" | base64; sleep 4'
    cluster.push("shop", {"name": "uses", "command": command, "secrets": {"ONE": "one", "TWO": "two"}})
    run = cluster.api("POST", "/v1/jobs/uses/runs", {})["id"]
    wait_for(witness.exists, 20, "the command to begin")
    assert found_in_processes(f"IGOR_RUN={run}") == []
    ended = cluster.wait_run(run)
    assert ended["state"] == "succeeded"
    expected = subprocess.run(["sha256sum"], input=PLANTED[0].encode(), capture_output=True, check=True).stdout
    assert witness.read_bytes() == expected
    logs = cluster.igor("logs", run).stdout
    assert "it is ***" in logs and logs.count("***") == 3 and not any(line in logs for value in PLANTED for line in value.splitlines())
    backup = cluster.folder / "backup"
    assert cluster.igor("backup", str(backup)).returncode == 0
    assert found_in_files(cluster.folder) == []
    for path in (f"/v1/runs/{run}", "/v1/jobs/uses", "/v1/projects/shop/secrets", "/v1/projects/shop/secrets/one", "/v1/projects/shop"):
        assert not any(value in str(cluster.api("GET", path)) for value in PLANTED), path


def test_a_secret_that_is_missing_fails_the_attempt_by_name(cluster: Cluster) -> None:
    cluster.push("shop", {"name": "lacks", "command": "echo started", "secrets": {"X": "never-set"}})
    run = cluster.api("POST", "/v1/jobs/lacks/runs", {})["id"]
    ended = cluster.wait_run(run)
    assert ended["state"] == "failed"
    assert "secret never-set is not set in project shop" in str(ended)


def test_the_next_attempt_gets_the_new_value_and_a_killed_wrapper_its_own_again(cluster: Cluster, tmp_path: Path) -> None:
    """A wrapper that is killed is followed by one that is given the secret anew, also across a kill of the node."""
    set_secret(cluster, "turns", "first-value")
    witness = tmp_path / "values"
    command = f'printf "%s\\n" "$T" >> {witness}; sleep 3'
    cluster.push("shop", {"name": "turning", "command": command, "secrets": {"T": "turns"}, "retries": {"max": 1, "backoff": {"initial": "0s"}}})
    run = cluster.api("POST", "/v1/jobs/turning/runs", {})["id"]
    started = wait_for(lambda: witness.exists() and cluster.run(run), 20, "the command to begin")
    set_secret(cluster, "turns", "second-value")
    pid = wait_for(lambda: _wrapper_of(run), 10, "its wrapper")
    os.kill(pid, 9)
    assert started and cluster.wait_run(run)["state"] == "succeeded"
    assert witness.read_text().split() == ["first-value", "second-value"]


def _wrapper_of(run: str) -> int:
    """The parent of the command."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"IGOR_RUN={run}".encode() in (entry / "environ").read_bytes():
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if (Path("/proc") / str(parent) / "comm").read_text().startswith("igor-wrapper"):
                    return parent
        except OSError:
            continue
    return 0
