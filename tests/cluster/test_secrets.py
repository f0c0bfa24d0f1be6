"""A secret goes from memory to memory: a command has it, and nothing else on three machines does.

`IGOR_SEED` gives the soak other values and kills, `IGOR_ROUNDS` another length.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import pytest

from tests.harness.cluster import ApiError, Cluster
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


class Search:
    """For values that were planted, as they are and as others write them, wherever a machine keeps or shows anything."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.needles: set[bytes] = set()
        self.runs: set[str] = set()

    def plant(self, *values: str) -> None:
        for value in values:
            raw = value.encode()
            forms = [*raw.splitlines(), base64.b64encode(raw)[:-4], raw.hex().encode(), quote(value, safe="").encode()]
            self.needles.update(form for form in forms if len(form) >= 8)

    def has(self, data: bytes) -> bool:
        return any(needle in data for needle in self.needles)

    def in_files(self) -> list[str]:
        return [str(path) for path in self.cluster.folder.rglob("*") if path.is_file() and self.has(path.read_bytes())]

    def in_processes(self) -> list[str]:
        """Arguments, environments and files in memory of all processes; but the environment of the commands themselves. A node holds what it hands to
        a wrapper for as long as that takes."""
        found, kept = self._look_at_processes()
        if kept:
            try:
                wait_for(lambda: not kept & self._look_at_processes()[1], 5, "files in memory to be handed over")
            except AssertionError:
                found += sorted(kept)
        return found

    def _look_at_processes(self) -> tuple[list[str], set[str]]:
        """Whose arguments or environment show a secret, and the files in memory that do."""
        found, kept = [], set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                memory = [fd for fd in (entry / "fd").iterdir() if os.readlink(fd).startswith("/memfd:igor")]
                kept |= {f"{entry.name}: a file in memory, inode {fd.stat().st_ino}" for fd in memory if self.has(fd.read_bytes())}
            except OSError:
                continue
            is_command = any(f"IGOR_RUN={run}".encode() in environment for run in self.runs)
            if self.has(arguments) or (self.has(environment) and not is_command):
                found.append(f"{entry.name}: {arguments[:100]!r}")
        return found, kept

    def in_answers(self, run: str, job: str) -> list[str]:
        """Of every route that can be read, the page with them, on each node."""
        known = {"run": run, "job": job, "project": "shop", "secret": "one", "node": "n1", "attempt": f"{run}.main.1"}
        paths = [path for path, ways in self.cluster.api("GET", "/v1/openapi.json")["paths"].items() if "get" in ways]
        asked = [path.format_map(known) for path in paths if path not in UNREADABLE and set(re.findall(r"{(\w+)", path)) <= set(known)]
        assert len(asked) > 20
        answers = {(node.name, path): node.request("GET", path) for node in self.cluster.nodes for path in [*asked, "/v1/events?last=1000"]}
        assert sum(status == 200 for status, _, _ in answers.values()) > len(answers) // 2
        return [str(place) for place, answer in answers.items() if self.has(_bytes_of(answer[1:]))]

    def in_refusals(self) -> list[str]:
        """What a node says to bodies that hold a value and are wrong."""
        value = "refused-pl4nted-value"
        self.plant(value)
        place = "/v1/projects/shop/secrets/refused"
        bodies: list[Any] = [
            {"valeu": value}, {"value": [value]}, {"value": value, "more": value}, {"value": value + "\0"}, {"value": value * 3000}, [value],
            b'{"value": "' + value.encode(), b'{"value": "' + value.encode() + b'\xff"}', value,
        ]  # fmt: skip
        found = []
        for node in self.cluster.nodes:
            for body in bodies:
                status, headers, answer = node.request("PUT", place, body)
                assert 400 <= status < 500, (status, answer)
                found += [f"{status} for {str(body)[:80]}"] * self.has(_bytes_of((headers, answer)))
            status, headers, answer = node.request("PUT", place, {"value": value}, token="igor1.none.nobody.nothing")
            assert status == 401 and not self.has(_bytes_of((headers, answer)))
        return found

    def everywhere(self, run: str, job: str) -> list[str]:
        for node in self.cluster.nodes:
            status, _, backup = node.request("GET", "/v1/backup", timeout_s=30)
            assert status == 200 and len(backup) > 10_000
            assert not self.has(backup), f"the backup of {node.name}"
        return [*self.in_refusals(), *self.in_answers(run, job), *self.in_files(), *self.in_processes()]


UNREADABLE = {"/v1/backup", "/v1/events", "/v1/nodes/{node}/stream"}  # searched by themselves, or without an end


def _bytes_of(answer: Any) -> bytes:
    """As it came and as JSON, in which quotes are escaped."""
    return b" ".join(part if isinstance(part, bytes) else f"{part} {json.dumps(part)}".encode() for part in answer)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """A search that finds nothing says nothing unless it would."""
    search = Search(cast(Cluster, SimpleNamespace(folder=tmp_path)))
    search.plant(PLANTED[0])
    assert search.in_files() == [] and search.in_processes() == []
    (tmp_path / "log").write_text(f"it is {PLANTED[0]}")
    with subprocess.Popen(["sleep", "60"], env={"A": PLANTED[0]}) as sleeper:
        wait_for(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n", 5, "the other process")
        found = search.in_processes()
        search.runs.add("r1")
        sleeper.kill()
    assert search.in_files() == [str(tmp_path / "log")] and [place.split(":")[0] for place in found] == [str(sleeper.pid)]


def test_a_command_has_it_and_nothing_else_does(cluster: Cluster, tmp_path: Path) -> None:
    """Not a file, an argument, another process, a log, an answer, a refusal or a backup; and its output shows none of it."""
    search = Search(cluster)
    search.plant(*PLANTED)
    for name, value in zip(("one", "two"), PLANTED, strict=True):
        set_secret(cluster, name, value)
    witness = tmp_path / "seen"
    command = (
        f'printf "%s" "$ONE" | sha256sum > {witness}; echo "it is $ONE"; echo "$TWO" >&2; printf "%s" "$ONE" | base64; '
        'echo "user:$ONE" | base64; sleep 4'
    )
    cluster.push("shop", {"name": "uses", "command": command, "secrets": {"ONE": "one", "TWO": "two"}})
    run = cluster.api("POST", "/v1/jobs/uses/runs", {})["id"]
    search.runs.add(run)
    wait_for(witness.exists, 20, "the command to begin")
    assert search.in_processes() == []
    ended = cluster.wait_run(run)
    assert ended["state"] == "succeeded"
    expected = subprocess.run(["sha256sum"], input=PLANTED[0].encode(), capture_output=True, check=True).stdout
    assert witness.read_bytes() == expected
    logs = cluster.igor("logs", run).stdout
    assert "it is ***" in logs and logs.count("***") == 4 and not search.has(logs.encode())
    shown = cluster.igor("secret", "show", "one", "--project", "shop").stdout
    assert run in shown and "version 1" in shown and not search.has(shown.encode())
    assert search.everywhere(run, "uses") == []


@pytest.mark.soak
def test_nothing_of_many_secrets_stays_anywhere_through_kills_and_rotations() -> None:
    """Nodes of a cluster with TLS are killed, wrappers too, values replaced, runs cancelled and failed, while three nodes use them."""
    chance = random.Random(int(os.environ.get("IGOR_SEED", "1")))
    with Cluster(3, options=[("--tls", "on")]) as cluster:
        search, used = Search(cluster), set[str]()
        for round_ in range(int(os.environ.get("IGOR_ROUNDS", "12"))):
            names = [f"s{number}" for number in range(6)]
            for name in [*names, "one"]:
                value = f"pl4nted-{round_}-{name}-{chance.getrandbits(96):x}" + chance.choice(["", '+/"quoted"&', "\nanother-line-of-it"])
                search.plant(value)
                set_secret(cluster, name, value)
            secrets = {f"S{number}": name for number, name in enumerate(names)}
            outcome = chance.choice(["true", "exit 3", "kill -9 $$"])
            command = f'env; echo "$S0" "$S1" >&2; env | base64; sleep {chance.uniform(0, 3):.1f}; {outcome}'
            retries = {"max": 1, "backoff": {"initial": "0s"}}
            cluster.push("shop", {"name": "uses", "command": command, "secrets": secrets, "retries": retries, "overlap": "allow", "max_parallel": 9})
            runs = [cluster.api("POST", "/v1/jobs/uses/runs", {})["id"] for _ in range(9)]
            search.runs.update(runs)
            victim = chance.choice(cluster.nodes)
            victim.kill()
            if pid := wrapper_of(chance.choice(runs)):
                os.kill(pid, signal.SIGKILL)
            assert search.in_processes() == []
            victim.start()
            try:
                cluster.api("POST", f"/v1/runs/{chance.choice(runs)}/cancel", {})
            except ApiError as problem:
                assert problem.status == 409, problem  # it has ended already
            ended = [cluster.wait_run(run, timeout_s=240) for run in runs]
            used |= {attempt["node"] for run in ended for stage in run["stages"] for attempt in stage["attempts"]}
            cluster.wait_voters()
            for run in runs:
                assert not search.has(cluster.igor("logs", run).stdout.encode()), run
            assert search.everywhere(chance.choice(runs), "uses") == []
        assert len(used) == 3


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
    pid = wait_for(lambda: wrapper_of(run), 10, "its wrapper")
    os.kill(pid, 9)
    assert started and cluster.wait_run(run)["state"] == "succeeded"
    assert witness.read_text().split() == ["first-value", "second-value"]


def wrapper_of(run: str) -> int:
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
