"""How data looks on standard output: tables, JSON, times and spans. Knows nothing of nodes or commands.

A table on a terminal is drawn by `rich` (colours, wrapping); anywhere else it is plain columns with two spaces between them, so that a pipe gets
the same text whatever the terminal, and no call that is not looked at pays for importing `rich`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import click

from igor_node import words

COLOURS = {
    "succeeded": "green",
    "up": "green",
    "ran": "green",
    "running": "blue",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "missed": "red",
    "cancelled": "yellow",
    "silent": "yellow",
    "draining": "yellow",
    "paused": "yellow",
    "skipped": "bright_black",
}
NOTHING = "-"


class Look(Protocol):
    @property
    def local_time(self) -> bool: ...

    @property
    def no_color(self) -> bool: ...


@dataclass(frozen=True)
class Column:
    """`value`: a key of the item, or a function of it. `kind`: text, time, span_s, number or state. `wide`: only with `-o wide`."""

    title: str
    value: str | Callable[[dict[str, Any]], Any]
    kind: str = "text"
    wide: bool = False

    def cell(self, item: dict[str, Any], look: Look) -> str:
        value = item.get(self.value) if isinstance(self.value, str) else self.value(item)
        if value is None or value == "":
            return NOTHING
        match self.kind:
            case "time":
                return time_text(value, local=look.local_time)
            case "span_s":
                return span_text(value)
            case _:
                return printable(_plain(value))


def _plain(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return ",".join(f"{key}={_plain(inner)}" for key, inner in value.items()) or NOTHING
        case list() | tuple():
            return ",".join(_plain(inner) for inner in value) or NOTHING
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
        case _:
            return str(value)


def printable(text: str) -> str:
    """One line without control characters: a job's description must not steer the terminal of whoever lists it."""
    return "".join(character if character.isprintable() else " " for character in text)


# --- times and spans


def time_text(text: str | None, *, local: bool) -> str:
    """An RFC 3339 time for people: `2026-11-24 02:00:00Z`, or with `--local` the same instant with the offset of this machine's zone."""
    if not text:
        return NOTHING
    try:
        instant = words.parse_instant(text)
    except ValueError:
        return printable(text)
    if not local:
        return words.format_instant(instant - instant % words.MILLISECOND).replace("T", " ")
    seconds, nanos = divmod(instant, words.SECOND)
    moment = datetime.fromtimestamp(seconds).astimezone()
    fraction = f".{nanos // words.MILLISECOND:03d}" if nanos >= words.MILLISECOND else ""
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction}{offset[:3]}:{offset[3:]}"


def span_text(seconds: float) -> str:
    """`0.012s`, `4.2s`, `1m 05s`, `1h 04m`, `2d 03h`."""
    if seconds < 0:
        return f"-{span_text(-seconds)}"
    if seconds < 1:
        return f"{seconds:.3f}s"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02d}h"
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"


# --- the forms


def write_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def write_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def write_table(items: Sequence[dict[str, Any]], columns: Sequence[Column], look: Look) -> None:
    rows = [[column.cell(item, look) for column in columns] for item in items]
    if sys.stdout.isatty():
        _draw(rows, columns, coloured=not look.no_color and "NO_COLOR" not in os.environ)
    else:
        write_lines(plain_table(rows, columns))


def plain_table(rows: Sequence[Sequence[str]], columns: Sequence[Column]) -> list[str]:
    """Columns with two spaces between them, numbers to the right, nothing after the last word."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return ["  ".join(_padded(text, width, column) for text, width, column in zip(line, widths, columns, strict=True)).rstrip() for line in lines]


def _padded(text: str, width: int, column: Column) -> str:
    return text.rjust(width) if column.kind in ("number", "span_s") else text.ljust(width)


def _draw(rows: Sequence[Sequence[str]], columns: Sequence[Column], *, coloured: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold" if coloured else "")
    for column in columns:
        table.add_column(column.title, justify="right" if column.kind in ("number", "span_s") else "left", no_wrap=column.kind != "text")
    for row in rows:
        table.add_row(*(Text(text, style=COLOURS.get(text, "") if column.kind == "state" else "") for text, column in zip(row, columns, strict=True)))
    Console(no_color=not coloured, highlight=False).print(table)
