"""The output of runs, wherever it lies: each try's output is with the node that ran it, and any node reads it from there.

A run's output is the sequence of its parts, one a try, in the order in which they began. A position in it is `STAGE.ATTEMPT.TRY:OFFSET`, the
stored byte from which to go on; it stays true when parts are added and when the question goes to another node. `follow=1` sends lines of JSON as
they come and ends with `{"complete": true}`; a stream that ends without it broke off and is asked for again from the last line's `next`. Empty
lines are signs of life. A line that its command has not ended yet is held back for a moment, so that followers see whole lines.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from igor_node.http import forward
from igor_node.http.dispatch import Call, igor_headers
from igor_node.http.limits import LOG_CHUNK_LINES, LOG_FOLLOW_WAIT_S, PING_S
from igor_node.http.permissions import Reach
from igor_node.http.routes import RUN, Route, Struct, Where
from igor_node.ledger import query_cluster, query_runs
from igor_node.output import LogLine, LogPiece
from igor_node.words import RUN_ENDS, STAGE_ENDS, Malformed, NotFound, Role, TryState, Unavailable, format_instant

PIECE_WITHIN_S = 5.0
MOVED_READS = 3  # a folder moves once, and may be removed after
HELD_S = 2.0  # a line without its end
AWAY_S = 1.0  # between two questions to a node that cannot be reached
TOPICS = ("runs", "stages", "attempts")
POSITION = re.compile(r"(.+)\.(\d{1,9})\.(\d{1,9}):(\d{1,15})")


class LogsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`offset`: the `next` of an earlier answer. `try`: only the N-th try of each attempt."""

    stage: str | None = None
    try_n: int | None = msgspec.field(default=None, name="try")
    offset: str | None = None
    limit: int = LOG_CHUNK_LINES
    follow: bool = False


class NodeLogsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    attempt: str
    try_n: int = msgspec.field(name="try")
    offset: int = 0
    limit: int = LOG_CHUNK_LINES


class Part(NamedTuple):
    """One try's output."""

    stage: str
    attempt: int
    try_n: int
    attempt_id: str
    node: str
    node_name: str
    running: bool
    started_at: str

    @property
    def key(self) -> tuple[str, int, int]:
        return self.stage, self.attempt, self.try_n

    def position(self, offset: int) -> str:
        return f"{self.stage}.{self.attempt}.{self.try_n}:{offset}"


class Source(NamedTuple):
    """What of a run is asked for, as the ledger knows it at one moment."""

    run: str
    state: str
    parts: list[Part]
    ended: bool


class Position(NamedTuple):
    key: tuple[str, int, int] | None  # None: the beginning of the first part
    offset: int


async def logs(call: Call) -> Any:
    query: LogsQuery = call.query
    position = read_position(query.offset)
    source = await look(call)
    if query.follow:
        return await follow(call, source, position)
    return await page(call, source, position, query.limit)


def read_position(text: str | None) -> Position:
    if text is None:
        return Position(None, 0)
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return Position(None, int(text))
    match = POSITION.fullmatch(text)
    if match is None:
        raise Malformed(f'query parameter "offset" is "{text[:60]}"', hint="expected the `next` of an earlier answer")
    return Position((match[1], int(match[2]), int(match[3])), int(match[4]))


async def look(call: Call) -> Source:
    words, query = call.part("run"), call.query
    run = await call.read(lambda connection: query_runs.run(connection, query_runs.find_run(connection, words, projects=call.projects)))
    stages = run["stages"]
    if query.stage is not None:
        stages = [stage for stage in stages if stage["name"] == query.stage]
        if not stages:
            raise NotFound(f'run {run["id"]} has no stage "{query.stage}"', hint=f"it has: {', '.join(stage['name'] for stage in run['stages'])}")
    parts = [part for stage in stages for part in parts_of(stage) if query.try_n is None or part.try_n == query.try_n]
    parts.sort(key=lambda part: (part.started_at, part.key))
    ended = run["state"] in RUN_ENDS or all(stage["state"] in STAGE_ENDS for stage in stages)
    return Source(run["id"], run["state"], parts, ended)


def parts_of(stage: dict[str, Any]) -> list[Part]:
    return [
        Part(
            stage=stage["name"],
            attempt=attempt["n"],
            try_n=one["n"],
            attempt_id=attempt["id"],
            node=attempt["node_id"],
            node_name=attempt["node"],
            running=one["state"] == TryState.RUNNING,
            started_at=one["started_at"] or "",
        )
        for attempt in stage["attempts"]
        for one in attempt["tries"]
    ]


def at_position(parts: list[Part], position: Position) -> int:
    """Which part a position is in."""
    if position.key is None:
        return 0
    for number, part in enumerate(parts):
        if part.key == position.key:
            return number
    raise NotFound("that position is in no try of this run", hint="ask again without offset")


# --- one answer


async def page(call: Call, source: Source, position: Position, limit: int) -> dict[str, Any]:
    """At most `limit` lines from a position on, over as many parts as it takes."""
    items: list[dict[str, Any]] = []
    number = at_position(source.parts, position)
    offset = position.offset
    following = call.query.offset or "0"
    while number < len(source.parts) and len(items) < limit:
        part = source.parts[number]
        piece = await piece_or_reason(call, part, offset, limit - len(items), alone=len(source.parts) == 1)
        items += [line_json(part, line, after) for line, after in with_next(piece)]
        offset = piece.next
        following = part.position(offset)
        if not piece.more:
            number, offset = number + 1, 0
    return {"items": items, "next": following, "complete": source.ended and number >= len(source.parts), "run": source.run, "state": source.state}


async def piece_or_reason(call: Call, part: Part, offset: int, limit: int, *, alone: bool) -> LogPiece:
    """Where the node of one part of several is away, a line says so in its place."""
    try:
        return await read_piece(call, part, offset, limit)
    except (Unavailable, NotFound) as problem:
        if alone:
            raise
        line = LogLine(offset=offset, at=call.now(), stream="igor", text=problem.message)
        return LogPiece(lines=(line,), next=offset)


def with_next(piece: LogPiece) -> list[tuple[LogLine, int]]:
    """Each line with the offset behind it."""
    behind = [line.offset for line in piece.lines[1:]] + [piece.next]
    return list(zip(piece.lines, behind, strict=False))


def line_json(part: Part, line: LogLine, after: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "time": format_instant(line.at),
        "stage": part.stage,
        "attempt": part.attempt,
        "try": part.try_n,
        "stream": line.stream,
        "text": line.text,
        "offset": line.offset,
        "next": part.position(after),
    }
    return {**shown, "partial": True} if line.partial else shown


async def read_piece(call: Call, part: Part, offset: int, limit: int) -> LogPiece:
    """From this machine, or from the node that has it."""
    if part.node == call.services.me.id:
        return await local_piece(call, part.attempt_id, part.try_n, offset, limit)
    address = await node_address(call, part)
    asked = urlencode({"attempt": part.attempt_id, "try": part.try_n, "offset": offset, "limit": limit})
    try:
        status, body = await call.front.forwarder.get_json(address, f"/v1/nodes/logs?{asked}", call.front.own_token(), PIECE_WITHIN_S)
    except forward.NotReached:
        raise away(part) from None
    if status == 404:
        raise NotFound(f"node {part.node_name} no longer has the output of try {part.try_n}")
    if status != 200:
        raise away(part)
    return msgspec.json.decode(body, type=LogPiece)


def away(part: Part) -> Unavailable:
    return Unavailable(f"the output of stage {part.stage}, try {part.try_n} is on node {part.node_name}, which cannot be reached", hint="try later")


async def node_address(call: Call, part: Part) -> str:
    def find(connection: sqlite3.Connection) -> str:
        return call.services.url_of(query_cluster.node(connection, part.node).address)

    try:
        return await call.services.reads.query(find)
    except NotFound:
        raise NotFound(f"node {part.node_name}, which has the output, has left the cluster") from None


# --- following


async def follow(call: Call, source: Source, position: Position) -> web.StreamResponse:
    number = at_position(source.parts, position)  # refuses a wrong position before anything is sent
    key = source.parts[number].key if source.parts else None
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no", **igor_headers(call)})
    await response.prepare(call.request)
    async with aclosing(lines_to_come(call, source, Position(key, position.offset))) as pieces:
        async for piece in pieces:
            await response.write(piece)
    await response.write_eof()
    return response


async def lines_to_come(call: Call, source: Source, position: Position) -> AsyncGenerator[bytes, None]:
    """Lines as they come, an empty line where none came for a while, and at the end `complete`."""
    changes, clock = call.services.changes, asyncio.get_running_loop().time
    seen, said, held = changes.index, clock(), Held()
    while True:
        part = next((one for one in source.parts if one.key == position.key), source.parts[0] if source.parts else None)
        piece, pause_s = await next_piece(call, part, position.offset)
        if part is not None:
            piece = held.whole_lines(piece, clock()) if part.running else piece
            position = Position(part.key, piece.next)
            if piece.lines:
                said = clock()
                yield b"".join(msgspec.json.encode(line_json(part, line, after)) + b"\n" for line, after in with_next(piece))
        if piece.more:
            continue
        if pause_s == 0 and (part is None or not part.running):  # read to its end after it had ended
            behind = source.parts[source.parts.index(part) + 1 :] if part is not None else []
            if behind:
                position = Position(behind[0].key, 0)
                continue
            if source.ended:
                yield msgspec.json.encode({"complete": True, "run": source.run, "state": source.state}) + b"\n"
                return
        if clock() - said > PING_S:
            said = clock()
            yield b"\n"
        waiting_s = max(pause_s, LOG_FOLLOW_WAIT_S) if pause_s or (part is not None and part.running) else PING_S
        if await changes.wait(TOPICS, seen, waiting_s) > seen:
            seen = changes.last(TOPICS)
            source = await look(call)


class Held:
    """Holds back a last line without its end, at most `HELD_S`: a prompt or a row of dots is shown all the same."""

    def __init__(self) -> None:
        self._offset = -1
        self._since = 0.0

    def whole_lines(self, piece: LogPiece, now: float) -> LogPiece:
        if not piece.lines or not piece.lines[-1].partial:
            return piece
        last = piece.lines[-1]
        if last.offset != self._offset:
            self._offset, self._since = last.offset, now
        elif now - self._since > HELD_S:
            return piece
        return LogPiece(lines=piece.lines[:-1], next=last.offset)


async def next_piece(call: Call, part: Part | None, offset: int) -> tuple[LogPiece, float]:
    """What is there now, and how long to leave the node alone if it cannot be reached."""
    if part is None:
        return LogPiece(lines=(), next=0), 0.0
    try:
        return await read_piece(call, part, offset, LOG_CHUNK_LINES), 0.0
    except Unavailable:
        return LogPiece(lines=(), next=offset), AWAY_S
    except NotFound as problem:
        if part.running:  # the folder is being made
            return LogPiece(lines=(), next=offset), LOG_FOLLOW_WAIT_S
        return LogPiece(lines=(LogLine(offset=offset, at=call.now(), stream="igor", text=problem.message),), next=offset), 0.0


# --- between nodes


async def node_logs(call: Call) -> Any:
    """A piece of output that lies on this machine."""
    query: NodeLogsQuery = call.query
    return await local_piece(call, query.attempt, query.try_n, query.offset, query.limit)


async def local_piece(call: Call, attempt: str, try_n: int, offset: int, limit: int) -> LogPiece:
    """An attempt's folder moves once, when it has ended: a read that met that moment is repeated."""
    for _ in range(MOVED_READS):
        try:
            return await call.services.logs.read(attempt, try_n, offset, limit)
        except FileNotFoundError:
            continue
    raise NotFound(f"the output of {attempt}, try {try_n} is no longer here")


ROUTES = (
    Route(
        method="GET", path=f"/v1/runs/{RUN}/logs", handler=logs, summary="What a run wrote; with follow=1 as it comes, as lines of JSON",
        query=LogsQuery, stream="application/x-ndjson", reach=Reach.THING,
    ),
    Route(
        method="GET", path="/v1/nodes/logs", handler=node_logs, summary="Between nodes: output that lies on this machine", role=Role.NODE,
        where=Where.HERE, query=NodeLogsQuery, answer=LogPiece,
    ),
)  # fmt: skip
