"""Times and spans as people type them in options: RFC 3339, a date, `now`, or a span back or ahead from now.

`--since 2h` means two hours ago, `--until 2h` in two hours; which way is the option's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import click

from igor_node import words

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Moment(click.ParamType[str]):
    """An option's time, given on as RFC 3339 in UTC. `ahead`: spans count into the future."""

    name = "time"

    def __init__(self, *, ahead: bool = False, now: Callable[[], words.Instant] = words.wall_now) -> None:
        self.ahead = ahead
        self.now = now

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return words.format_instant(self.instant(value))
        except ValueError:
            self.fail(f'"{value}" is not a time; expected RFC 3339 like 2026-11-24T02:00:00Z, a date, now, or a span like 2h', param, ctx)

    def instant(self, text: str) -> words.Instant:
        if text == "now":
            return self.now()
        if DATE.fullmatch(text):
            return words.parse_instant(f"{text}T00:00:00Z")
        try:
            span = words.parse_span(text)
        except ValueError:
            return words.parse_instant(text)
        return words.Instant(self.now() + span if self.ahead else self.now() - span)


class SpanSeconds(click.ParamType[float]):
    """A span with its unit, as seconds."""

    name = "span"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return words.parse_span(value) / words.SECOND
        except ValueError as problem:
            self.fail(str(problem), param, ctx)
