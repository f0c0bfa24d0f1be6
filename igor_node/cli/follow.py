"""Waiting for a run and reading its log, with the exit codes that scripts rely on.

`run --wait`, `run --follow`, `watch` and `logs -f` share this. Waiting outlives the death of a node (the client goes to the next) and, for
`AWAY_S`, even that of all of them: a run does not stop because nobody can be asked about it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from igor_node import words
from igor_node.cli import output
from igor_node.cli.client import Client, PastDeadline, segment
from igor_node.cli.command import WaitTimedOut
from igor_node.cli.session import Session

EXIT_OF_STATE = {
    words.RunState.SUCCEEDED: 0,
    words.RunState.FAILED: 10,
    words.RunState.TIMED_OUT: 11,
    words.RunState.CANCELLED: 12,
    words.RunState.LOST: 13,
    words.RunState.SKIPPED: 14,
    words.RunState.MISSED: 14,
}
FIRST_LOOK_S = 0.05  # a run of /bin/true is over by then
SLOWEST_LOOK_S = 1.0
AWAY_S = 60.0  # a restart of all nodes
PAGE_LINES = 1_000  # the most that one answer holds


def run_path(reference: str) -> str:
    return f"/v1/runs/{segment(reference)}"


def deadline_in(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def wait_for_end(client: Client, run: dict[str, Any], deadline: float | None, changed: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The run in its end state. Calls `changed` with each new view of it. Raises WaitTimedOut, or Unavailable after `AWAY_S` without an answer."""
    pause_s = FIRST_LOOK_S
    seen = time.monotonic()
    while run["state"] not in words.RUN_ENDS:
        if deadline is not None and time.monotonic() + pause_s > deadline:
            time.sleep(max(0.0, deadline - time.monotonic()))
            raise waited_too_long(run["id"])
        time.sleep(pause_s)
        pause_s = min(SLOWEST_LOOK_S, pause_s * 1.5)
        try:
            newer = client.get(run_path(run["id"]))
        except words.Unavailable:
            if time.monotonic() - seen > AWAY_S:
                raise
            continue
        seen = time.monotonic()
        if newer != run:
            run = newer
            changed(run)
    return run


def waited_too_long(run: str) -> WaitTimedOut:
    return WaitTimedOut(f"run {run} has not ended yet", hint=f"it goes on; igor watch {run} waits further")


def exit_code_of(run: dict[str, Any]) -> int:
    return EXIT_OF_STATE[words.RunState(run["state"])]


def tell_end(session: Session, run: dict[str, Any]) -> None:
    session.say(end_text(run))


def end_text(run: dict[str, Any]) -> str:
    took = took_s(run)
    reason = f": {run['reason']}" if run.get("reason") else ""
    return f"{run['job']} {run['id']} {run['state']}{reason}" + (f" (after {output.span_text(took)})" if took is not None else "")


def took_s(run: dict[str, Any]) -> float | None:
    if not run.get("started_at") or not run.get("ended_at"):
        return None
    return (words.parse_instant(run["ended_at"]) - words.parse_instant(run["started_at"])) / words.SECOND


# --- logs


def log_pages(client: Client, reference: str, chosen: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """All lines there are now, page by page, each with the offset at which the next one begins."""
    offset: Any = None
    while True:
        page = client.get(f"{run_path(reference)}/logs", **chosen, offset=offset, limit=PAGE_LINES)
        yield page["items"], page["next"]
        if not page["items"] or page["next"] == offset:
            return
        offset = page["next"]


def log_now(client: Client, reference: str, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for lines, _ in log_pages(client, reference, chosen):
        yield from lines


def log_tail(client: Client, reference: str, chosen: dict[str, Any], count: int) -> tuple[Iterable[dict[str, Any]], Any]:
    """The last `count` lines there are now, and the offset at which what comes next begins."""
    kept: deque[dict[str, Any]] = deque(maxlen=count)
    offset: Any = None
    for lines, following in log_pages(client, reference, chosen):
        kept.extend(lines)
        offset = following
    return kept, offset


def log_stream(client: Client, reference: str, chosen: dict[str, Any], deadline: float | None = None) -> Iterator[dict[str, Any]]:
    """All lines there are and will be, until the run ends."""
    try:
        for item in client.lines(f"{run_path(reference)}/logs", {**chosen, "follow": 1}, _position, deadline):
            if "text" in item:
                yield item
    except PastDeadline:
        raise waited_too_long(reference) from None


def _position(item: dict[str, Any]) -> dict[str, Any]:
    """Where a broken stream goes on: after this item."""
    if "next" in item:
        return {"offset": item["next"]}
    return {"offset": item["offset"] + 1} if "offset" in item else {}


def print_log(session: Session, lines: Iterable[dict[str, Any]]) -> int:
    """Prints lines as they come; a change of stage or try is announced on standard error. Gives how many there were."""
    count = 0
    shown: tuple[Any, ...] | None = None
    for line in lines:
        count += 1
        if session.structured:
            click.echo(output.compact(line))
            continue
        source = (line.get("stage"), line.get("attempt"), line.get("try"))
        if shown is not None and source != shown:
            session.say(f"--- stage {source[0]}, attempt {source[1]}, try {source[2]}")
        shown = source
        click.echo(_log_text(session, line))
    return count


def _log_text(session: Session, line: dict[str, Any]) -> str:
    if session.form != "wide":
        return str(line["text"])
    return f"{session.time(line.get('time'))} {line.get('stage')}.{line.get('attempt')}.{line.get('try')} {line.get('stream')}  {line['text']}"
