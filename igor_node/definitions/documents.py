"""YAML files as plain objects with the line of every field.

YAML 1.2 by ruamel.yaml's parser; the objects are built here from its events, because what people get wrong (duplicate keys, tags, aliases that unfold
without end, deep nesting) shows there with its line, and because plain scalars are read more strictly than by any loader: `NO`, `on`, `12:30`
and `010` are texts, dates are texts. Runs on the client only; a push carries the objects as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from igor_node.definitions.faults import Faults, Origin, Path, dotted

FILE_LIMIT_BYTES = 1024 * 1024  # a definition is written by people
NESTING_LIMIT = 50
UNFOLDED_LIMIT = 10_000  # nodes that aliases stand for, all together: a few lines can mean billions


@dataclass
class Document:
    """One document of a file: its value, its first line, and the line of each field by path."""

    value: Any
    line: int
    lines: dict[str, int] = field(default_factory=dict)


def read_file(name: str, data: bytes, faults: Faults) -> list[Document]:
    """The documents of a file; whatever is wrong with it goes to `faults`. Empty documents beside others are left out."""
    origin = Origin(name, 1)
    if len(data) > FILE_LIMIT_BYTES:
        faults.add(origin, (), f"the file has {len(data)} bytes; expected at most {FILE_LIMIT_BYTES}")
        faults.unread = True
        return []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        faults.add(Origin(name, line), (), f"byte {problem.start + 1} is not UTF-8; expected a file in UTF-8")
        faults.unread = True
        return []
    documents: list[Document] = []
    if _read(name, text, faults, documents):
        if not documents:
            faults.add(origin, (), "the file is empty; expected at least one definition")
    else:
        faults.unread = True
    return documents


def _read(name: str, text: str, faults: Faults, documents: list[Document]) -> bool:
    """Whether the file could be read to its end; `documents` gets those before."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = _Reader(name, faults)
    try:
        events = YAML(typ="safe", pure=True).parse(text)
        documents += (document for document in reader.documents(iter(events)) if document.value is not None)
        return True
    except _Broken:
        pass
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = min(mark.line + 1, _last_line(text)) if mark else 1
        faults.add(Origin(name, line), (), f"{_words(problem)}; expected YAML 1.2")
    except (YAMLError, ValueError) as problem:
        what = getattr(problem, "reason", None) or str(problem).splitlines()[0]
        position = getattr(problem, "position", 0)
        faults.add(Origin(name, text.count("\n", 0, position) + 1), (), f"the file cannot be read ({what}); expected YAML 1.2")
    return False


def _last_line(text: str) -> int:
    """Where something is missing at the end of the file, that is what a person can look at."""
    return max(1, text.count("\n") + (not text.endswith("\n")))


def _words(problem: Any) -> str:
    said = " ".join(part for part in (problem.context, problem.problem) if part)
    return " ".join(said.split()) or "the file cannot be read"


class _Broken(Exception):
    """The rest of the file cannot be understood; the fault is noted already."""


_GONE = object()


@dataclass
class _Node:
    """A value, how many nodes it unfolds to, and how deep it is."""

    value: Any
    size: int = 1
    height: int = 1


class _Reader:
    def __init__(self, name: str, faults: Faults) -> None:
        self.name, self.faults = name, faults
        self.anchors: dict[str, _Node | None] = {}  # None while the anchored value is being read
        self.unfolded = 0
        self.lines: dict[str, int] = {}

    def documents(self, events: Iterator[Any]) -> Iterator[Document]:
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                self._check_version(event)
                self.anchors, self.lines = {}, {}
                first = next(events)
                node = self._node(first, events, ())
                yield Document(node.value, first.start_mark.line + 1, self.lines)

    def _check_version(self, event: Any) -> None:
        version = getattr(event, "version", None)
        if version is not None and tuple(version) != (1, 2):
            self._fault(event, (), f"%YAML {'.'.join(str(part) for part in version)} is another version; expected YAML 1.2")

    def _fault(self, event: Any, path: Path, what: str) -> None:
        self.faults.add(Origin(self.name, event.start_mark.line + 1), path, what)

    def _node(self, event: Any, events: Iterator[Any], path: Path) -> _Node:
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event, path)
        if len(path) > NESTING_LIMIT:
            self._fault(event, path[:3], f"the nesting is deeper than {NESTING_LIMIT}; expected less")
            raise _Broken
        self._check_tag(event, path)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if kind == "ScalarEvent":
            node = _Node(_scalar(event))
        elif kind == "SequenceStartEvent":
            node = self._sequence(events, path)
        else:
            node = self._mapping(events, path)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _check_tag(self, event: Any, path: Path) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._fault(event, path, f"the tag {tag} is not allowed; expected a plain value")

    def _alias(self, event: Any, path: Path) -> _Node:
        if event.anchor not in self.anchors:
            self._fault(event, path, f"the alias *{event.anchor} has no anchor before it; expected &{event.anchor}")
            return self._gone(path)
        node = self.anchors[event.anchor]
        if node is None:
            self._fault(event, path, f"the alias *{event.anchor} stands within its own anchor; expected a value that ends")
            return self._gone(path)
        self.unfolded += node.size
        if self.unfolded > UNFOLDED_LIMIT:
            self._fault(event, path, f"aliases unfold to more than {UNFOLDED_LIMIT} nodes; expected less")
            raise _Broken
        if len(path) + node.height > NESTING_LIMIT + 1:
            self._fault(event, path[:3], f"the nesting is deeper than {NESTING_LIMIT}; expected less")
            raise _Broken
        return node

    def _gone(self, path: Path) -> _Node:
        """Nothing, where something stood that nobody can know; the rest of the document is read on."""
        if not path:
            raise _Broken
        return _Node(_GONE)

    def _sequence(self, events: Iterator[Any], path: Path) -> _Node:
        node = _Node([])
        for event in events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            here = (*path, len(node.value))
            self.lines[dotted(here)] = event.start_mark.line + 1
            self._take(node, self._node(event, events, here))
            if self._last is not _GONE:
                node.value.append(self._last)
        return node

    def _mapping(self, events: Iterator[Any], path: Path) -> _Node:
        node = _Node({})
        for event in events:
            if type(event).__name__ == "MappingEndEvent":
                break
            if type(event).__name__ != "ScalarEvent":
                self._fault(event, path, "a key is not a plain text; expected the name of a field")
                raise _Broken
            self._check_tag(event, (*path, event.value))
            key = event.value
            here = (*path, key)
            if key in node.value:
                self._fault(event, here, f"the key stands twice, first in line {self.lines[dotted(here)]}; expected it once")
                lines, self.lines = self.lines, {}  # the first value counts, with its own lines
                self._take(node, self._node(next(events), events, here))
                self.lines = lines
                continue
            self.lines[dotted(here)] = event.start_mark.line + 1
            self._take(node, self._node(next(events), events, here))
            if self._last is not _GONE:
                node.value[key] = self._last
        return node

    _last: Any = None

    def _take(self, node: _Node, child: _Node) -> None:
        node.size += child.size
        node.height = max(node.height, child.height + 1)
        self._last = child.value


_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")


def _scalar(event: Any) -> Any:
    """YAML 1.2's core schema, but a number with a leading zero is a text: `010` is 8 for one person and 10 for the next."""
    text = event.value
    if event.style is not None:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
