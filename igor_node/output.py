"""Lines of output as they pass from the node that has them to whoever asks for them.

`agent` reads them from the folders of its attempts, `http` hands them on, between nodes too; this module is below both because they know nothing of
each other. An offset is a place in what a try's log has stored since its beginning (agent/logs.py).
"""

from __future__ import annotations

import msgspec


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of output. `offset`: of its first stored byte; `partial`: the command has not ended this line (yet)."""

    offset: int
    at: int
    stream: str  # stdout | stderr | igor
    text: str
    partial: bool = False


class LogPiece(msgspec.Struct, frozen=True, kw_only=True):
    """Lines from an offset on. `next`: where the next piece begins; `more`: whether something is there already."""

    lines: tuple[LogLine, ...]
    next: int
    more: bool = False
