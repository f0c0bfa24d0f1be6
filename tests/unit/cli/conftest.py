"""What the tests of commands share: a small node that answers, and a call of `igor` that gives exit code, data and words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from igor_node.cli import client, command, follow
from igor_node.cli.igor import igor as program

from .answering import FakeNode


@dataclass
class Ended:
    code: int
    out: str
    err: str


Igor = Callable[..., Ended]


@pytest.fixture
def node() -> Iterator[FakeNode]:
    made = FakeNode()
    yield made
    made.stop()


@pytest.fixture
def igor(node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Igor:
    """Calls `igor` in this process, with a home of its own and the node's address in the environment."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "IGOR_DATA_DIR", "IGOR_RUN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IGOR_NODE", node.address)
    monkeypatch.setenv("IGOR_TOKEN", "igor1.none.t.secret")
    monkeypatch.setattr(client, "PAUSE_S", 0.01)
    monkeypatch.setattr(client, "PATIENCE_S", 0.2)
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(client, "UNREACHABLE_PATIENCE_S", 0.05)
    monkeypatch.setattr(follow, "FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(follow, "SLOWEST_LOOK_S", 0.02)

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        code = command.run(program, "igor", arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call
