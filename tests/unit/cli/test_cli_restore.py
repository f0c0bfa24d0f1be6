"""A refused restore leaves a machine as it found it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from igor_node.cli.node import igor_node
from igor_node.words import IgorError


@pytest.mark.parametrize("content", [None, b"SQLite format 3\0" * 100])
@pytest.mark.parametrize("there", ["", "a", "a/b/d"])
def test_a_refused_restore_leaves_nothing(tmp_path: Path, content: bytes | None, there: str) -> None:
    file, folder = tmp_path / "a.backup", tmp_path / "a" / "b" / "d"
    if content is not None:
        file.write_bytes(content)
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        done = CliRunner().invoke(igor_node, ["restore", str(file), "--data-dir", str(folder)])
        assert isinstance(done.exception, IgorError) and str(file) in str(done.exception)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_restore_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("node.toml", "lock"):
        (tmp_path / "d" / name).write_text("")
    done = CliRunner().invoke(igor_node, ["restore", str(tmp_path / "a.backup"), "--data-dir", str(tmp_path / "d")])
    assert isinstance(done.exception, IgorError)
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["lock", "node.toml"]
