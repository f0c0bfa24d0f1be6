"""The shape of one document: its model, and every fault of its fields.

A fault hides no other one. What is wrong is noted and taken away, a misspelt field counts as the one that was meant, and the rest is judged again
until it is a model that `resolve.py` can judge further. `Shaped` remembers what was taken away, so that its absence is no fault of its own, and how
fields were called by the person, so that faults name what stands in the file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from igor_node.definitions import model as m
from igor_node.definitions.faults import FAULTS_SHOWN, Faults, Origin, Path, meant
from igor_node.definitions.values import shown

ROUNDS = 10  # a misspelt field may hold another; what is still wrong after these shows when they are mended
UNNAMED = "unnamed"
FIRED_BY = {"cron", "every", "at"}  # a schedule has one of them
FILLINGS: dict[str, Any] = {"apiVersion": m.API_VERSION, "days": [], "slots": 1}  # of what is required; else UNNAMED
WORKING = {"command", "stages", "schedule", "schedules"}  # a document with one of these is meant to be a job


class Cuts:
    """The paths of what was taken away; asked in no time, because a definition may have thousands."""

    def __init__(self, *paths: Path) -> None:
        self._cut: set[Path] = set()
        self._around: set[Path] = set()
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        self._cut.add(path)
        self._around.update(path[:length] for length in range(len(path) + 1))

    def __contains__(self, path: Path) -> bool:
        return path in self._cut

    def __bool__(self) -> bool:
        return bool(self._cut)

    def touch(self, path: Path) -> bool:
        """Whether something at the path, in it, or around it was taken away."""
        return path in self._around or any(path[:length] in self._cut for length in range(1, len(path)))


@dataclass(frozen=True)
class Shaped:
    """A document as a model. `pruned`: what had to be taken away for that; `renamed`: what the person wrote for a field that is called otherwise."""

    document: m.Document
    value: dict[str, Any]
    pruned: Cuts = field(default_factory=Cuts)
    renamed: Mapping[Path, Path] = field(default_factory=dict)

    def hides(self, path: Path) -> bool:
        """Whether a further fault at `path` may only be a consequence of what was taken away."""
        return self.pruned.touch(path)

    def as_written(self, path: Path) -> Path:
        return _as_written(path, self.renamed)


def _as_written(path: Path, renamed: Mapping[Path, Path]) -> Path:
    for length in range(len(path) if renamed else 0, 0, -1):
        if (written := renamed.get(path[:length])) is not None:
            return (*written, *path[length:])
    return path


def check_shape(value: Any, origin: Origin, faults: Faults) -> Shaped | None:
    """The document as a model, with its faults noted; None where nothing says what it is meant to be."""
    if not isinstance(value, dict):
        faults.add(origin, (), f"{shown(value)} is not a definition; expected a mapping with apiVersion, kind and name")
        return None
    kind = value.get("kind")
    if isinstance(kind, str) and kind in m.KINDS:
        return _Mending(value, origin, faults).shaped()
    misspelt = [key for key in value if key not in m.Job.model_fields and get_close_matches(key, ["kind"]) and value[key] in [*m.KINDS]]
    if kind is None and misspelt:
        faults.add(origin, (misspelt[0],), f'"{misspelt[0]}" is not a field here; did you mean "kind"?')
        return _Mending({**value, "kind": value[misspelt[0]]}, origin, faults, pruned=Cuts(("kind",)), renamed={("kind",): (misspelt[0],)}).shaped()
    wrong = "is missing" if kind is None else f"{shown(kind)} is not a kind"
    faults.add(origin, ("kind",), f"{wrong}; {meant(str(kind), m.KINDS)}")
    close = get_close_matches(str(kind), m.KINDS, n=1)
    if not close and not value.keys() & WORKING:
        return None
    return _Mending({**value, "kind": close[0] if close else "Job"}, origin, faults, pruned=Cuts(("kind",))).shaped()


class _Mending:
    """One document on its way to a model."""

    def __init__(
        self,
        value: dict[str, Any],
        origin: Origin,
        faults: Faults,
        pruned: Cuts | None = None,
        renamed: dict[Path, Path] | None = None,
    ) -> None:
        self.value, self.kind, self.origin, self.faults = value, m.KINDS[value["kind"]], origin, faults
        self.pruned, self.renamed = pruned or Cuts(), renamed or {}
        for written in self.renamed.values():
            self.value.pop(str(written[0]), None)

    def shaped(self) -> Shaped | None:
        for turn in range(ROUNDS):
            try:
                return Shaped(self.kind.model_validate(self.value), self.value, self.pruned, self.renamed)
            except ValidationError as problem:
                errors = problem.errors(include_url=False)
            found = [(error, _path(error["loc"], self.value)) for error in errors]
            if turn == 0:
                self.value = copy.deepcopy(self.value)
            for error, path in sorted(found, key=lambda each: each[0]["type"] != "extra_forbidden"):
                self._take(error, path)
        return None

    def _take(self, error: ErrorDetails, path: Path) -> None:
        """Notes one error and takes its cause away."""
        parent, key = self._at(path[:-1]), path[-1] if path else ""
        if error["type"] == "missing" and isinstance(parent, dict) and key in parent:
            return  # a misspelt field stands for it
        if not self.pruned.touch(path) or error["type"] == "extra_forbidden":
            self.faults.add(self.origin, _as_written(path, self.renamed), self._words(error, path))
        if error["type"] == "extra_forbidden" and isinstance(parent, dict):
            self._take_extra(parent, str(key), path)
        elif error["type"] == "missing" and isinstance(parent, dict):
            parent[str(key)] = FILLINGS.get(str(key), UNNAMED)
            self.pruned.add(path)
        else:
            self._prune(path)

    def _many(self) -> bool:
        """Whether nobody will read what further fields were meant to be; finding that out takes a while."""
        return len(self.faults) > FAULTS_SHOWN

    def _words(self, error: ErrorDetails, path: Path) -> str:
        if error["type"] == "extra_forbidden" and self._many():
            return f'"{path[-1]}" is not a field here; expected another'
        return _words(error, self.kind, path)

    def _take_extra(self, parent: dict[str, Any], key: str, path: Path) -> None:
        """A misspelt field counts as the one that was meant, if that one does not stand there too."""
        given = parent.pop(key, None)
        if _is_of_schedule(path, self.kind):
            self._move_into_schedule(parent, key, given)
            return
        close = [] if self._many() else get_close_matches(key, known_fields(self.kind, path[:-1]), n=1)
        if close and close[0] not in parent:
            parent[close[0]] = given
            self.renamed[(*path[:-1], close[0])] = _as_written(path, self.renamed)
        else:
            self.pruned.add(path)

    def _move_into_schedule(self, parent: dict[str, Any], key: str, given: Any) -> None:
        if "schedule" not in parent and "schedules" not in parent:
            parent["schedule"] = {}
            self.pruned.add(("schedule", ""))  # nobody wrote this schedule: it may have none of cron, every, at
        schedule = parent.get("schedule")
        taken = {key} if key not in FIRED_BY else FIRED_BY
        if isinstance(schedule, dict) and not taken & schedule.keys():
            schedule[key] = given
            self.renamed["schedule", key] = (key,)

    def _prune(self, path: Path) -> None:
        """Takes the value away, or the list that holds it; a stage or a schedule leaves its place to another, so that the others keep theirs."""
        if not path:
            return
        parent, key = self._at(path[:-1]), path[-1]
        if isinstance(parent, list) and isinstance(key, int) and path[:-1] in PLACEHOLDERS:
            if key < len(parent):
                parent[key] = dict(PLACEHOLDERS[path[:-1]])
            self.pruned.add(path)
        elif isinstance(parent, dict):
            parent.pop(key, None)
            self.pruned.add(path)
        elif parent is not None:
            self._prune(path[:-1])

    def _at(self, path: Path) -> Any:
        """What stands there, None where it was taken away."""
        part: Any = self.value
        for key in path:
            if isinstance(part, dict):
                part = part.get(key)
            else:
                part = part[key] if isinstance(part, list) and isinstance(key, int) and key < len(part) else None
        return part


PLACEHOLDERS: dict[Path, dict[str, Any]] = {("stages",): {"name": UNNAMED, "command": "true"}, ("schedules",): {"every": "1h"}}


def _is_of_schedule(path: Path, kind: type[m.Document]) -> bool:
    return len(path) == 1 and path[0] in m.Schedule.model_fields and "schedule" in kind.model_fields


def _path(loc: tuple[int | str, ...], value: Any) -> Path:
    """pydantic marks a bad key by `[key]` at the end, and the members of a union by name; a path has only what the person wrote."""
    path: list[int | str] = []
    for part in loc:
        known = isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int))
        if part == "[key]" or (not known and path):
            break
        path.append(part)
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            value = None
    return tuple(path)


def _words(error: ErrorDetails, kind: type[m.Document], path: Path) -> str:
    given, details = error["input"], error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(details["error"])
        case "extra_forbidden" if _is_of_schedule(path, kind):
            return f'"{path[0]}" is not a field here; did you mean "schedule.{path[0]}"?'
        case "extra_forbidden":
            return f'"{path[-1]}" is not a field here; {meant(str(path[-1]), known_fields(kind, path[:-1]))}'
        case "missing":
            return f"is missing; expected {EXPECTED.get(str(path[-1]), 'a value')}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{shown(given)} is not a mapping; expected fields with values"
        case "list_type":
            return f"{shown(given)} is not a list; expected one, like [a, b]"
        case "too_short":
            return f"is empty; expected at least {details['min_length']}"
        case "too_long":
            return f"has {details.get('actual_length')} items; expected at most {details['max_length']}"
    return f"{shown(given)} is not allowed; expected {error['msg'].removeprefix('Input should be ')}"


EXPECTED = {
    "apiVersion": m.API_VERSION,
    "name": "a name",
    "days": "a list of days, like [2026-12-25]",
    "slots": "a number of slots",
    "job": "the name of a job",
}


def known_fields(kind: type[BaseModel], path: Path) -> list[str]:
    """The fields of the model that stands at `path` in a document of that kind."""
    model: type[BaseModel] | None = kind
    names = False  # whether the next part is a name that the person chose, as in params
    for part in path:
        if isinstance(part, int) or model is None or names:
            names = False
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        names = "dict[" in str(annotation)
        model = _model_in(annotation)
    return list(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in reversed(getattr(annotation, "__args__", ())):
        if (found := _model_in(part)) is not None:
            return found
    return None
