"""The output of attempts on this machine, as lines by offset. `http` reads through this; it never writes.

An offset is a place in what a try's log has stored since its beginning; it stays true when middle parts are removed at the log's limit. A reader
that asks for a removed place goes on behind it and gets a line of stream `igor` that says how much is gone. Any answered `next` is a good offset to
ask for.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from igor_node.agent.folders import Folders
from igor_node.output import LogLine, LogPiece
from igor_node.words import NotFound
from wrapper import protocol

T = TypeVar("T")

PIECE_LIMIT_BYTES = 1024 * 1024  # read at once, whatever the number of lines
MOVES_LIMIT = 5  # of a folder while one look is taken; it moves twice in its life at most
FOLLOW_PAUSE_S = 0.1  # how late a follower sees a new line at most
TAIL_BLOCK_BYTES = 1 << 16
_NAME = re.compile(r"try-(\d+)\.log(?:\.(\d+))?")


class Part(msgspec.Struct, frozen=True):
    start: int
    size: int
    path: Path

    @property
    def end(self) -> int:
        return self.start + self.size


class Logs:
    """Satisfies `http.services.Logs`. Every read is done on a thread of `executor` (None: the loop's own pool)."""

    def __init__(self, folders: Folders, executor: Executor | None = None) -> None:
        self._folders = folders
        self._executor = executor

    async def read(self, attempt: str, try_n: int, offset: int, limit: int) -> LogPiece:
        """At most `limit` whole lines from `offset` on; an empty piece at the end. Raises NotFound if the attempt is not on this machine."""
        return await self._call(self._read, attempt, try_n, offset, limit)

    async def tail(self, attempt: str, try_n: int, lines: int) -> int:
        """The offset from which the last `lines` stored lines begin."""
        return await self._call(self._tail, attempt, try_n, lines)

    async def tries(self, attempt: str) -> list[int]:
        """The tries that have written something, in order."""
        return await self._call(self._tries, attempt)

    async def follow(self, attempt: str, try_n: int, offset: int, limit: int) -> AsyncIterator[LogPiece]:
        """Pieces as they come, for ever: whoever reads knows when the try has ended, and takes one more `read` then."""
        while True:
            piece = await self.read(attempt, try_n, offset, limit)
            if piece.lines:
                yield piece
            elif not await self._grown(attempt, try_n, piece.next):
                await asyncio.sleep(FOLLOW_PAUSE_S)
            offset = piece.next

    async def _grown(self, attempt: str, try_n: int, offset: int) -> bool:
        return (await self._call(self._parts, attempt, try_n) or [Part(0, 0, Path())])[-1].end > offset

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    # --- on a thread

    def _folder(self, attempt: str) -> Path:
        folder = self._folders.find(attempt)
        if folder is None:
            raise NotFound(f"the output of {attempt} is not on this node", hint="it may have been removed after `keep_logs`")
        return folder

    def _looking(self, attempt: str, look: Callable[[Path], T]) -> T:
        """Its folder moves from open/ to done/ once, and maybe back (`reopen`); who looks at that very moment looks again."""
        for _ in range(MOVES_LIMIT):
            folder = self._folder(attempt)
            try:
                return look(folder)
            except FileNotFoundError:
                continue
        raise NotFound(f"the output of {attempt} is being moved or removed on this node just now", hint="ask again")

    def _parts(self, attempt: str, try_n: int) -> list[Part]:
        return self._looking(attempt, lambda folder: _parts_in(folder, try_n))

    def _tries(self, attempt: str) -> list[int]:
        names = self._looking(attempt, os.listdir)
        return sorted({int(match[1]) for name in names if (match := _NAME.fullmatch(name))})

    def _read(self, attempt: str, try_n: int, offset: int, limit: int) -> LogPiece:
        parts = self._parts(attempt, try_n)
        part = next((part for part in parts if part.end > offset), None)
        if part is None:
            return LogPiece(lines=(), next=offset)
        lines: list[LogLine] = []
        if part.start > offset:
            text = f"{part.start - offset} bytes of output were removed here: the log's limit was reached"
            lines.append(LogLine(offset=offset, at=0, stream=protocol.STREAMS[protocol.IGOR], text=text))
            offset = part.start
        data = _read_part(part, offset)
        if data is None:  # removed at this moment: the next look finds the part behind it
            return LogPiece(lines=(), next=offset, more=True)
        found, used = _lines(data, offset, max(limit - len(lines), 1))
        lines = [_dated(line, found) for line in lines] + found
        return LogPiece(lines=tuple(lines), next=offset + used, more=bool(used) and offset + used < parts[-1].end)

    def _tail(self, attempt: str, try_n: int, lines: int) -> int:
        """Backwards in blocks: a log of any size costs what is read of it."""
        return self._looking(attempt, lambda folder: _tail_in(_parts_in(folder, try_n), lines))


def _parts_in(folder: Path, try_n: int) -> list[Part]:
    parts = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match and int(match[1]) == try_n:
                parts.append(Part(int(match[2] or 0), entry.stat().st_size, Path(entry.path)))
    return sorted(parts, key=lambda part: part.start)


def _tail_in(parts: Sequence[Part], lines: int) -> int:
    offset = 0
    for part in reversed(parts):
        data = b""
        offset = position = part.start + part.size
        with part.path.open("rb") as file:
            while position > part.start and data.count(b"\n") <= lines:
                block = min(TAIL_BLOCK_BYTES, position - part.start)
                position -= block
                file.seek(position - part.start)
                data = file.read(block) + data
        starts = [position + match.end() for match in re.finditer(rb"\n", data)][:-1]
        if position == part.start:
            starts.insert(0, part.start)
        if len(starts) >= lines:
            return starts[-lines] if lines > 0 else offset
        lines -= len(starts)
        offset = part.start
    return offset


def _read_part(part: Part, offset: int) -> bytes | None:
    try:
        with part.path.open("rb") as file:
            file.seek(offset - part.start)
            return file.read(PIECE_LIMIT_BYTES)
    except FileNotFoundError:
        return None


def _dated(line: LogLine, following: list[LogLine]) -> LogLine:
    return msgspec.structs.replace(line, at=following[0].at if following else 0)


def _lines(data: bytes, offset: int, limit: int) -> tuple[list[LogLine], int]:
    """Whole stored lines of `data`, those that continue one line of the command put together; and how many bytes they take."""
    lines: list[LogLine] = []
    begun: tuple[int, int, str, list[bytes]] | None = None  # a line whose end has not come: offset, time, stream, pieces
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        parsed = protocol.parse_log_line(data[position:end])
        if parsed is not None:
            at, stream, ended, text = parsed
            if begun is not None and begun[2] != stream:
                lines.append(_line(begun, partial=True))
                begun = None
            if begun is None:
                if len(lines) >= limit:
                    return lines, position
                begun = (offset + position, at, stream, [])
            begun[3].append(text)
            if ended:
                lines.append(_line(begun, partial=False))
                begun = None
        position = end + 1
    if begun is not None:
        lines.append(_line(begun, partial=True))
    return lines, position


def _line(begun: tuple[int, int, str, list[bytes]], *, partial: bool) -> LogLine:
    offset, at, stream, pieces = begun
    return LogLine(offset=offset, at=at, stream=stream, text=b"".join(pieces).decode(errors="replace"), partial=partial)
