"""The page that leads through `raft/` names every file there is and nothing that there is not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reading-raft.md").read_text(encoding="utf-8")
MODULES = sorted(path for path in (ROOT / "raft").glob("*.py") if path.name != "__init__.py")
PLACES = sorted(set(re.findall(r"`(\w+)\.(\w+)`", PAGE)))


def test_every_file_is_on_the_way():
    assert [path.name for path in MODULES if f"`{path.name}`" not in PAGE] == []


def names_in(module: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("module, name", PLACES, ids=lambda part: part)
def test_every_place_that_is_named_exists(module, name):
    """`module.function`, or `file.py`."""
    path = ROOT / "raft" / f"{module}.py"
    assert path.exists(), f"raft/{module}.py"
    assert name == "py" or name in names_in(path), f"raft/{module}.py has no {name}"
