"""`igor-node`: settings on their way to the node, one clear line for whatever stops a start, and `check` as monitoring calls it."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from igor_node import words
from igor_node.cli import command
from igor_node.cli import node as program
from igor_node.cli.node import CRITICAL, OK, UNKNOWN, WARNING, judge, start_trouble
from igor_node.settings import Join, NodeSettings

from .answering import FakeNode, Reply, dead_address, problem
from .conftest import Ended

IgorNode = Callable[..., Ended]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[NodeSettings, Join | None]]:
    """What `start` and `join` would have run."""
    calls: list[tuple[NodeSettings, Join | None]] = []

    def run_node(settings: NodeSettings, *, join: Join | None) -> int:
        calls.append((settings, join))
        return 0

    monkeypatch.setitem(sys.modules, "igor_node.node", SimpleNamespace(run_node=run_node))  # type: ignore[arg-type]
    return calls


@pytest.fixture
def igor_node(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> IgorNode:
    for name in ("IGOR_DATA_DIR", "IGOR_TOKEN", "IGOR_NAME", "IGOR_SLOTS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        code = command.run(program.igor_node, "igor-node", arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


# --- start and join


def test_start_hands_on_checked_settings(igor_node: IgorNode, started: list[Any], tmp_path: Path) -> None:
    """The data directory is made, for its owner alone."""
    folder = tmp_path / "n1"
    options = ["--listen", "127.0.0.1:0", "--name", "n1", "--label", "zone=eu", "--label", "gpu=a100", "--slots", "3", "--log-format", "json"]
    assert igor_node("start", "--data-dir", str(folder), *options).code == 0
    settings, join = started[0]
    assert join is None and settings.data_dir == folder and settings.labels == {"zone": "eu", "gpu": "a100"}
    assert (settings.listen, settings.name, settings.slots, settings.voters, settings.log_format) == ("127.0.0.1:0", "n1", 3, 3, "json")
    assert folder.stat().st_mode & 0o777 == 0o700 and list(folder.iterdir()) == []


def test_join_hands_on_peers_and_token(igor_node: IgorNode, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "join.token").write_text("igor1.none.j.secret\n")
    where = ["--data-dir", str(tmp_path / "n2")]
    assert igor_node("join", "127.0.0.1:1001", "http://127.0.0.1:1002", "--token-file", str(tmp_path / "join.token"), *where).code == 0
    assert started[0][1] == Join(("http://127.0.0.1:1001", "http://127.0.0.1:1002"), "igor1.none.j.secret", False)
    assert igor_node("join", "127.0.0.1:1001", "--token", "t", "--reset", *where).code == 0
    assert started[1][1] == Join(("http://127.0.0.1:1001",), "t", True)
    monkeypatch.setenv("IGOR_TOKEN", "from-environment")
    assert igor_node("join", "127.0.0.1:1001", *where).code == 0 and started[2][1].token == "from-environment"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["join"], "Missing argument 'PEER...'"),
        (["join", "127.0.0.1:1", "--token", "a", "--token-file", "b"], "not both"),
        (["join", "ftp://127.0.0.1:1"], "is not the address of a node"),
        (["join", "127.0.0.1:1", "--token-file", "/nonexistent/token"], "no such token file"),
        (["start", "--listen", "0.0.0.0:7946"], "--advertise"),
        (["start", "--listen", "10.0.0.1:7946", "--auth", "off"], "loopback alone"),
        (["start", "--voters", "2"], "1, 3, 5 or 7"),
        (["start", "--auth", "on"], "'required', 'off'"),
    ],
)
def test_wrong_usage_starts_nothing(igor_node: IgorNode, started: list[Any], tmp_path: Path, arguments: list[str], said: str) -> None:
    ended = igor_node(*arguments, "--data-dir", str(tmp_path / "n"))
    assert ended.code == 2 and said in ended.err and started == [] and not (tmp_path / "n").exists()


def test_a_data_directory_that_is_a_file_is_one_clear_line(igor_node: IgorNode, started: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        ended = igor_node("start", "--data-dir", str(folder))
        assert ended.code == 1 and ended.err == f"igor-node: data directory {folder}: not a directory\n" and started == []


@pytest.mark.parametrize(
    "number, said",
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "not writable"), (errno.EROFS, "not writable"), (errno.EIO, "input/output error")],
)
def test_what_a_disk_refuses_is_said_in_words(number: int, said: str) -> None:
    assert said in start_trouble(OSError(number, "Input/output error"))


class InUse(words.IgorError):
    exit_code = 3


@pytest.mark.parametrize(
    "problem, code",
    [
        (words.Unavailable("no peer answers"), 1),
        (words.Denied("the token is revoked"), 4),
        (words.Unauthenticated("the token is not known"), 4),
        (words.WrongHost("this is another cluster"), 4),
        (words.Conflict("the name n2 is taken"), 4),
        (InUse("another igor-node uses it"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_stops_a_node_is_one_line_and_its_code(
    igor_node: IgorNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: words.IgorError, code: int
) -> None:
    """Never a traceback."""

    def run_node(settings: NodeSettings, *, join: Join | None) -> int:
        raise problem

    monkeypatch.setitem(sys.modules, "igor_node.node", SimpleNamespace(run_node=run_node))  # type: ignore[arg-type]
    ended = igor_node("start", "--data-dir", str(tmp_path / "n"))
    assert ended.code == code and ended.err == f"igor-node: {problem}\n"


# --- check and leave

CLUSTER: dict[str, Any] = {
    "leader": "n1",
    "voters": ["n1", "n2", "n3"],
    "highly_available": True,
    "nodes": [{"name": name, "role": "voter", "state": "up", "clock_error_s": 0.001} for name in ("n1", "n2", "n3")],
}


def changed(name: str, **values: Any) -> dict[str, Any]:
    return {**CLUSTER, "nodes": [{**node, **values} if node["name"] == name else node for node in CLUSTER["nodes"]]}


@pytest.mark.parametrize(
    "cluster, code, said",
    [
        pytest.param(CLUSTER, OK, "n1 is a voter and up, leader n1, 3 voters, 3 nodes", id="all is well"),
        pytest.param({**CLUSTER, "leader": None}, CRITICAL, "no leader", id="no leader"),
        pytest.param({**CLUSTER, "nodes": []}, CRITICAL, "n1 is not a member", id="thrown out"),
        pytest.param({**CLUSTER, "highly_available": False}, WARNING, "not highly available", id="one loss from a stop"),
        pytest.param(changed("n3", state="silent"), WARNING, "n3 is silent", id="a silent node"),
        pytest.param(changed("n1", clock_error_s=-2.5), WARNING, "its clock is -2.500 s off", id="a wrong clock"),
        pytest.param(changed("n1", clock_error_s=None), OK, "n1 is a voter", id="a clock not yet measured"),
    ],
)
def test_the_worst_of_a_cluster_decides(cluster: dict[str, Any], code: int, said: str) -> None:
    found, text = judge(cluster, "n1")
    assert found == code and said in text


@pytest.fixture
def served(node: FakeNode, tmp_path: Path) -> Path:
    folder = tmp_path / "n1"
    folder.mkdir()
    (folder / "address").write_text(node.address + "\n")
    (folder / "node.json").write_text(json.dumps({"name": "n1", "id": "a1", "cluster": "c1", "pid": 1}))
    (folder / "node.token").write_text("igor1.none.n.secret\n")
    return folder


def test_check_is_one_line_and_the_code_of_nagios(igor_node: IgorNode, node: FakeNode, served: Path) -> None:
    node.on("GET", "/readyz", {}).on("GET", "/v1/cluster", CLUSTER)
    ended = igor_node("check", "--data-dir", str(served))
    assert (ended.code, ended.out) == (0, "IGOR OK: n1 is a voter and up, leader n1, 3 voters, 3 nodes\n")
    assert node.asked[1].headers["authorization"] == "Bearer igor1.none.n.secret"


def test_check_of_a_node_that_is_not_ready_is_critical_with_its_reason(igor_node: IgorNode, node: FakeNode, served: Path) -> None:
    node.on("GET", "/readyz", problem("Unavailable", 503, "no quorum: 1 of 3 voters can be reached"))
    ended = igor_node("check", "--data-dir", str(served))
    assert (ended.code, ended.out) == (CRITICAL, "IGOR CRITICAL: not ready: no quorum: 1 of 3 voters can be reached\n")


def test_check_of_a_dead_node_is_critical(igor_node: IgorNode, served: Path) -> None:
    (served / "address").write_text(dead_address())
    ended = igor_node("check", "--data-dir", str(served))
    assert ended.code == CRITICAL and "does not answer" in ended.out


def test_check_where_no_node_ever_was_is_unknown(igor_node: IgorNode, tmp_path: Path) -> None:
    assert igor_node("check", "--data-dir", str(tmp_path)).code == UNKNOWN


def test_check_without_a_good_token_is_unknown(igor_node: IgorNode, node: FakeNode, served: Path) -> None:
    node.on("GET", "/readyz", {}).on("GET", "/v1/cluster", problem("Unauthenticated", 401, "the token is not known"))
    ended = igor_node("check", "--data-dir", str(served))
    assert ended.code == UNKNOWN and "the token is not known" in ended.out


def leaving(node: FakeNode, *running: int) -> FakeNode:
    """A node that has that many attempts when it is asked, one time after the other."""
    left = list(running)
    node.on("POST", "/v1/nodes/a1/drain", {}).on("POST", "/v1/nodes/a1/undrain", {}).on("DELETE", "/v1/nodes/a1", {})
    return node.on("GET", "/v1/cluster", lambda asked: Reply({"nodes": [{"id": "a0", "running": 9}, {"id": "a1", "running": left.pop(0)}]}))


def test_leave_takes_out_the_node_of_the_directory(igor_node: IgorNode, node: FakeNode, served: Path) -> None:
    leaving(node, 0)
    ended = igor_node("leave", "--data-dir", str(served))
    assert ended.code == 0 and "node n1 has left cluster c1" in ended.err
    assert node.paths() == ["POST /v1/nodes/a1/drain", "GET /v1/cluster", "DELETE /v1/nodes/a1"]


def test_leave_waits_for_what_the_node_runs(igor_node: IgorNode, node: FakeNode, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a busy cluster is never idle by itself: it gets nothing new, and leaves when it has nothing left."""
    monkeypatch.setattr("igor_node.cli.node.IDLE_LOOK_S", 0.01)
    leaving(node, 2, 2, 1, 0)
    ended = igor_node("leave", "--data-dir", str(served))
    assert ended.code == 0
    assert [line.split(";")[0] for line in ended.err.splitlines()][:2] == ["waiting for 2 attempts to end", "waiting for 1 attempts to end"]


def test_a_node_that_could_not_leave_is_used_again(igor_node: IgorNode, node: FakeNode, served: Path) -> None:
    leaving(node, 0).on("DELETE", "/v1/nodes/a1", problem("Conflict", 409, "n1 has 2 attempts that have not ended"))
    ended = igor_node("leave", "--data-dir", str(served))
    assert ended.code == 5 and "n1 has 2 attempts" in ended.err
    assert node.paths()[-1] == "POST /v1/nodes/a1/undrain"
