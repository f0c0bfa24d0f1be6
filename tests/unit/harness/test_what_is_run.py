"""Each test is run by `make test` or by `make soak`: one that no command selects keeps nobody from breaking what it is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = sorted((ROOT / "tests" / "cluster").glob("test_*.py"))
BROWSER = sorted((ROOT / "tests" / "browser").glob("test_*.py"))


@pytest.mark.parametrize("path", [*PROCESSES, *BROWSER], ids=lambda path: path.name)
def test_a_battery_bears_the_mark_by_which_it_is_chosen(path: Path) -> None:
    """The second line of `make test` takes what is marked, from all folders; the first takes the other folders whole."""
    assert re.search(rf"^pytestmark = .*pytest\.mark\.{path.parent.name}\b", path.read_text(), re.MULTILINE)


def test_every_folder_of_tests_is_chosen() -> None:
    """By its name in the Makefile, or by its mark."""
    recipe = (ROOT / "Makefile").read_text().split("\ntest: ")[1].split("\n\n")[0]
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert {folder for folder in folders if f"tests/{folder} " not in recipe} == {"cluster", "browser"}
    assert '-m "(cluster or browser) and not soak"' in recipe
