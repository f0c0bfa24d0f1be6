"""When the ledger's version is raised: every member has known the next one for ten minutes."""

from __future__ import annotations

import pytest

from igor_node.rules.versions import ANNOUNCED_FOR, Announced, version_to_raise

NOW = 10 * ANNOUNCED_FOR
LONG, JUST = NOW - ANNOUNCED_FOR, NOW - ANNOUNCED_FOR + 1


@pytest.mark.parametrize(
    "members, announced, expected",
    [
        pytest.param("abc", {"a": (3, LONG), "b": (3, LONG), "c": (3, LONG)}, 3, id="all know it long enough"),
        pytest.param("abc", {"a": (3, LONG), "b": (3, LONG), "c": (3, JUST)}, None, id="one has not said so for long enough"),
        pytest.param("abc", {"a": (3, LONG), "b": (3, LONG), "c": (2, LONG)}, None, id="one is of the older program"),
        pytest.param("abc", {"a": (3, LONG), "b": (3, LONG)}, None, id="one is away"),
        pytest.param("abc", {"a": (5, LONG), "b": (3, LONG), "c": (4, LONG)}, 3, id="the lowest that all know"),
        pytest.param("abc", {"a": (3, LONG), "b": (3, LONG), "c": (3, LONG), "w": (2, JUST)}, 3, id="workers hold no ledger"),
        pytest.param("a", {"a": (3, NOW)}, 3, id="who is alone waits for nobody"),
        pytest.param("a", {"a": (2, LONG)}, None, id="and raises nothing that is there"),
        pytest.param("", {"a": (3, NOW)}, 3, id="the leader is always one of them"),
    ],
)
def test_version_to_raise(members: str, announced: dict[str, tuple[int, int]], expected: int | None) -> None:
    """The ledger is of version 2."""
    said = {node: Announced(*one) for node, one in announced.items()}
    assert version_to_raise(2, "a", list(members), said, NOW) == expected
