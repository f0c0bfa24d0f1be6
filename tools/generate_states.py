"""Writes docs/states.md from the tables of `igor_node/rules/states.py`, so that the pictures show what the ledger obeys.

    python -m tools.generate_states

`tests/unit/docs/test_docs.py` fails while the page is not what this would write.
"""

from __future__ import annotations

from pathlib import Path

from igor_node.rules.states import picture

PAGE = Path(__file__).resolve().parent.parent / "docs" / "states.md"
HEAD = """# States

This page is made by `python -m tools.generate_states` from the tables that the ledger obeys; do not edit it. A pair of state and event that
is not in a table cannot happen.
"""
STORIES = {
    "run": "One execution of a job. Its end states never change.",
    "stage": "Waits for its needs, then for a place, then is with a node. May be placed again when a node is lost or gives it back.",
    "attempt": "One placement of a stage on a node. `lost` is the one end that may change: a late result counts while nothing was placed after it.",
    "try": "One start of the command inside an attempt.",
}


def page() -> str:
    return HEAD + "".join(f"\n## {name.capitalize()}\n\n{story}\n\n```mermaid\n{picture(name)}```\n" for name, story in STORIES.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
