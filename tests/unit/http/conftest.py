"""Worlds of one and of three nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.http.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One node, which leads."""
    async with World(tmp_path, "n1") as one:
        yield one


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[World]:
    """Three nodes, the first of which leads."""
    async with World(tmp_path, "n1", "n2", "n3") as nodes:
        yield nodes
