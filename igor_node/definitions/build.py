"""Definitions written in Python: a `*.py` file in the folder calls these, and what it builds is the same as from YAML.

    from igor_node.definitions.build import Job

    for shop in ("berlin", "paris"):
        Job(name=f"sales-{shop}", schedule={"cron": "H 2 * * *"}, command=["./sales.sh", shop])

Run by the client alone (`igor validate`, `plan`, `push`), never by a node: a push carries the objects. Making an object registers it, with the
file and line of the call for faults.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from igor_node.definitions.faults import Faults, Origin
from igor_node.definitions.model import API_VERSION
from igor_node.definitions.values import shown

OBJECTS_LIMIT = 100_000  # a loop that does not end shall not fill the memory

Fields = dict[str, Any]


class ScheduleFields(TypedDict, total=False):
    cron: str
    every: str
    at: str
    timezone: str
    calendar: dict[str, list[str]]
    starts_at: str
    ends_at: str
    jitter: str
    catch_up: dict[str, str]


class WorkFields(TypedDict, total=False):
    command: str | Sequence[str | int]
    env: dict[str, str | int | bool]
    allow_plain: Sequence[str]
    secrets: dict[str, str]
    timeout: str
    total_timeout: str
    grace: str
    retries: Fields
    success_codes: Sequence[int]
    retry_codes: Sequence[int]
    skip_codes: Sequence[int]
    constraints: dict[str, str]
    slots: int
    pools: Sequence[str]
    limits: Fields
    on_node_loss: str
    user: str
    workdir: str


class StageFields(WorkFields, total=False):
    name: str
    needs: Sequence[str]
    always: bool
    allow_failure: bool


class JobFields(WorkFields, total=False):
    description: str
    owner: str
    tags: Sequence[str]
    links: dict[str, str]
    severity: str
    paused: bool
    schedule: ScheduleFields
    schedules: Sequence[ScheduleFields]
    stages: Sequence[StageFields]
    params: dict[str, Fields]
    umask: str
    shell: str
    overlap: str
    max_queued: int
    max_parallel: int
    deadline: str
    priority: int
    lease: str
    max_attempts: int
    log_limit: str
    on_push: str


class Definition:
    """What was built: `fields` as in YAML, and the place of the call."""

    def __init__(self, kind: str, fields: Fields) -> None:
        self.fields: Fields = {"apiVersion": API_VERSION, "kind": kind, **fields}
        self.file, self.line = _caller()
        if len(_built) >= OBJECTS_LIMIT:
            raise RuntimeError(f"more than {OBJECTS_LIMIT} definitions were built")
        _built.append(self)


class Job(Definition):
    def __init__(self, name: str, **fields: Unpack[JobFields]) -> None:
        super().__init__("Job", {"name": name, **fields})


class Calendar(Definition):
    def __init__(self, name: str, days: Sequence[str], description: str = "") -> None:
        super().__init__("Calendar", {"name": name, "days": [str(day) for day in days], "description": description})


class Pool(Definition):
    def __init__(self, name: str, slots: int, description: str = "") -> None:
        super().__init__("Pool", {"name": name, "slots": slots, "description": description})


class Project(Definition):
    def __init__(self, name: str, description: str = "", defaults: JobFields | None = None) -> None:
        super().__init__("Project", {"name": name, "description": description, **({"defaults": defaults} if defaults else {})})


_built: list[Definition] = []


def _caller() -> tuple[str, int]:
    """The nearest frame outside of this module."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def run_builder(path: Path, faults: Faults) -> list[Fields]:
    """Runs the file and gives the objects that it built, with their `source`. What goes wrong in it is a fault with its line."""
    _built.clear()
    try:
        code = compile(path.read_bytes(), str(path), "exec")
        sys.path.insert(0, str(path.parent))
        try:
            exec(code, {"__name__": "igor_definitions", "__file__": str(path)})
        finally:
            sys.path.remove(str(path.parent))
    except SyntaxError as problem:
        faults.unread = True
        faults.add(Origin(path.name, problem.lineno or 1), (), f"{problem.msg}; expected Python")
    except (Exception, SystemExit) as problem:  # a person's program: whatever it raises is a fault of the file
        faults.unread = True
        lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else 1
        faults.add(Origin(path.name, line or 1), (), f"{type(problem).__name__}: {problem}; expected a program that ends well")
    objects = []
    for built in _built:
        line = built.line if built.file == str(path) else 1
        objects.append({**_plain(built.fields, path, line, faults), "source": {"file": path.name, "line": line, "lines": {}}})
    _built.clear()
    return objects


def _plain(value: Any, path: Path, line: int, faults: Faults) -> Any:
    """Tuples as lists, so that the object is JSON; anything else than plain values is a fault."""
    if isinstance(value, dict):
        return {str(key): _plain(part, path, line, faults) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, path, line, faults) for part in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    faults.add(Origin(path.name, line), (), f"{shown(repr(value))} is not a plain value; expected text, number, list or mapping")
    return None
