"""A room with a running pre-loaded process for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wrapper.room import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "attempts")
    try:
        room.start_zygote()
        yield room
    finally:
        room.close()
