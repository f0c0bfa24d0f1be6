"""One job while it is judged: where it stands, what was written, and where its faults go.

The rules of the parts of a job (`schedule_rules.py`, `param_rules.py`, `stage_rules.py`) are classes on top of `Judged`; `resolve.py` puts them
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from igor_node.definitions import model as m
from igor_node.definitions.faults import Faults, Origin, Path
from igor_node.definitions.shape import Shaped
from igor_node.definitions.values import OPEN, RUN_PATHS, path_faults
from igor_node.words import Instant

NOT_YET = "is not supported by this version yet; expected it left out"


class Failed(Exception):
    """The part cannot be compiled; its fault is noted."""


class Defaults(NamedTuple):
    """What the project says for all its jobs, and where."""

    value: dict[str, Any]
    origin: Origin


class Written(NamedTuple):
    """One document as it was written, and where."""

    value: Any
    origin: Origin


class Judged:
    """A job with its surroundings. Faults that may only follow from a part that was taken away are not noted."""

    def __init__(
        self,
        project: str,
        shape: Shaped,
        job: m.Job,
        document: Written,
        defaults: Defaults,
        calendars: Mapping[str, tuple[str, ...]],
        pools: Mapping[str, int],
        now: Instant,
        faults: Faults,
    ) -> None:
        self.shape = shape
        self.written, self.calendars, self.pools, self.now, self.faults = job, calendars, pools, now, faults
        self.document, self.origin, self.defaults = document.value, document.origin, defaults
        self.project, self.id = project, f"{project}/{job.name}"
        self.shell = job.shell or "/bin/sh"

    def fault(self, path: Path, what: str) -> None:
        if self.shape.hides(path):
            return
        path = self.shape.as_written(path)
        default = ("schedule", *path[2:]) if path[:1] == ("schedules",) and len(path) > 2 else path
        if stands(default, self.defaults.value) and not stands(path, self.document):
            self.faults.add(self.defaults.origin, ("defaults", *default), what)
        else:
            self.faults.add(self.origin, path, what)

    def refuse(self, part: m.Model, path: Path, names: Iterable[str]) -> None:
        for name in names:
            if getattr(part, name):
                self.fault((*path, name), NOT_YET)

    def paths(self) -> list[str]:
        """A param that was taken away because of its faults is known all the same."""
        params = self.document.get(self.shape.as_written(("params",))[0])
        names = dict.fromkeys([*(self.written.params or {}), *(params if isinstance(params, dict) else ())])
        return [*(f"params.{name}" for name in names), *RUN_PATHS]

    def check_paths(self, text: str, path: Path, allowed: Sequence[str]) -> None:
        if OPEN in text:
            for what in path_faults(text, allowed):
                self.fault(path, what)


def stands(path: Path, value: Any) -> bool:
    """Whether the value has something at the path."""
    for part in path:
        known: Any = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        if part not in known:
            return False
        value = known[part]
    return True


def given(**fields: Any) -> dict[str, Any]:
    """Those that were written; the others keep the default of `jobs.py`."""
    return {name: value for name, value in fields.items() if value is not None}


def as_tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
