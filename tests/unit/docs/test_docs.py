"""The docs cannot go stale: generated pages are fresh, links lead somewhere, and every state, error, setting and folder stands in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from igor_node import settings, words
from tools import generate_api_docs, generate_permissions, generate_states

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_page_of_states_is_fresh() -> None:
    """After a change of a table: python -m tools.generate_states"""
    assert generate_states.PAGE.read_text(encoding="utf-8") == generate_states.page()


def test_the_page_of_the_api_is_fresh() -> None:
    """After a change of a route: python -m tools.generate_api_docs"""
    assert generate_api_docs.PAGE.read_text(encoding="utf-8") == generate_api_docs.page()


def test_the_table_of_permissions_is_fresh() -> None:
    """After a change of a route: python -m tools.generate_permissions"""
    assert generate_permissions.PAGE.read_text(encoding="utf-8") == generate_permissions.page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_state_stands_in_the_docs() -> None:
    pages = text("docs/states.md") + text("docs/concepts.md") + text("docs/operate.md")
    for states in (words.RunState, words.StageState, words.AttemptState, words.TryState, words.NodeState):
        assert not [state.value for state in states if state.value not in pages], states.__name__


def test_every_error_stands_in_the_docs() -> None:
    page = text("docs/api.md")
    assert not [error.__name__ for error in words.ERRORS if f"`{error.__name__}`" not in page]


def test_every_route_stands_in_the_docs() -> None:
    from igor_node.http.api.table import ROUTES

    page = text("docs/api.md")
    named = [f"`{route.method} {generate_api_docs.plain(route.path)}`" for route in ROUTES]
    assert not [route for route in named if route not in page]


def test_every_setting_stands_in_the_docs() -> None:
    page = text("docs/operate.md")
    assert not [name for name in settings.CHECKS if f"`{name}`" not in page]


def test_every_folder_of_the_house_is_told_of() -> None:
    page = text("docs/architecture.md")
    folders = [path.parent for path in [*ROOT.glob("igor_node/*/__init__.py"), ROOT / "raft/__init__.py", ROOT / "wrapper/__init__.py"]]
    assert not [folder.name for folder in folders if f"{folder.name}/" not in page]
    assert all((folder / "__init__.py").read_text(encoding="utf-8").startswith('"""') for folder in folders)


def test_the_readme_names_the_two_commands() -> None:
    assert "make demo" in text("README.md") and "make test" in text("README.md")
