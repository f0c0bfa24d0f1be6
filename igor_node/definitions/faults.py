"""Faults of definitions: collected, never raised one by one, so that a person sees all of them at once.

A fault reads `FILE:LINE: FIELD.PATH: what is wrong; what was expected`. An `Origin` knows the lines of one document; it travels with the object in
a push (key `source`), so that a node's faults name the person's own files too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

FAULTS_SHOWN = 1_000  # a person mends the first ones; a folder of another program has one a line
NAMES_LISTED = 12  # a longer list of what was expected hides the fault

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a document stands. `lines` maps `stages[0].command` to the line of that key."""

    file: str
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Any, index: int) -> Origin:
        """From an object's `source`, which comes from a client and may be anything."""
        if not isinstance(source, dict) or not isinstance(source.get("file"), str):
            return cls(f"definitions[{index}]")
        lines = source.get("lines")
        known = {k: v for k, v in lines.items() if isinstance(k, str) and _is_line(v)} if isinstance(lines, dict) else {}
        line: Any = source.get("line")
        return cls(source["file"][:500], line if _is_line(line) else 0, known)

    def line_of(self, path: Path) -> int:
        """The line of the field, or of the nearest one around it."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(dotted(path[:length]))) is not None:
                return line
        return self.line

    def place(self, path: Path = ()) -> str:
        line = self.line_of(path)
        return f"{self.file}:{line}" if line else self.file


def _is_line(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def dotted(path: Iterable[str | int]) -> str:
    """`("stages", 0, "command")` as `stages[0].command`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Faults:
    """The faults found so far, given out by file and line. `unread`: what is defined is not all known."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int, int, str]] = []
        self.unread = False

    def add(self, origin: Origin, path: Path, what: str) -> None:
        entry = (origin.file, origin.line_of(path), len(self._found), f"{origin.place(path)}: {dotted(path) or 'document'}: {what}")
        self._found.append(entry)

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> list[str]:
        """In the order in which people read; each once."""
        texts = list(dict.fromkeys(text for *_, text in sorted(self._found)))
        if len(texts) <= FAULTS_SHOWN:
            return texts
        return [*texts[:FAULTS_SHOWN], f"and {len(texts) - FAULTS_SHOWN} more faults"]


def meant(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or what was expected."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    if not names:
        return "expected none"
    return f"expected one of {', '.join(names)}" if len(names) <= NAMES_LISTED else f"expected one of {', '.join(names[:NAMES_LISTED])}, …"
