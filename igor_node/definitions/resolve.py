"""From documents to jobs: what depends on other fields and other documents, and the compiled `jobs.Job`.

`load.py` calls `resolve` on the client and on the node alike, so that what `igor validate` accepts a push accepts. Here are the project's
defaults, names that must be single, calendars (resolved into dates, because replicas never compute them), schedules, params, values, `needs`, and
the refusal of what this version does not carry out. Everything wrong goes to `Faults`; a job with a fault is left out of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from igor_node.definitions import jobs as j
from igor_node.definitions import model as m
from igor_node.definitions.faults import Faults, Origin, Path
from igor_node.definitions.judged import NOT_YET, Defaults, Written, as_tuple, given
from igor_node.definitions.param_rules import ParamRules
from igor_node.definitions.schedule_rules import ScheduleRules
from igor_node.definitions.shape import Shaped, check_shape
from igor_node.definitions.stage_rules import NOT_YET_IN_WORK, StageRules
from igor_node.definitions.values import shown
from igor_node.words import Instant

JOB_LIMIT_BYTES = 512 * 1024  # two of them still fit into an entry of 1 MiB
MERGED_DEFAULTS = frozenset({"env", "constraints", "links", "params", "retries", "limits", "secrets"})  # a job's keys win one by one
NOT_YET_IN_JOB = ("state", "shadow", "on_failure", "on_success", "on_recovery", "on_late")
NOT_YET_KINDS = ("Channel", "Monitor")


class Resolved(NamedTuple):
    """All jobs of a project in the order of the documents, and the slots of its pools by name."""

    jobs: list[j.Job]
    pools: dict[str, int]


def resolve(project: str, documents: Sequence[Written], now: Instant, faults: Faults) -> Resolved:
    defaults = _defaults(project, documents, faults)
    shaped = [(written, check_shape(_with_defaults(written.value, defaults.value), written.origin, faults)) for written in documents]
    _check_names(shaped, faults)
    calendars, pools = _calendars(shaped, faults), _pools(shaped, faults)
    found = []
    for written, shape in shaped:
        if shape is not None and isinstance(shape.document, m.Job):
            before = len(faults)
            job = _Compiling(project, shape, shape.document, written, defaults, calendars, pools, now, faults).job()
            if job is not None and len(faults) == before and not shape.pruned:
                found.append(job)
        elif shape is not None and _kind(shape.document) in NOT_YET_KINDS:
            faults.add(written.origin, ("kind",), f"{_kind(shape.document)} {NOT_YET}")
    return Resolved(found, pools)


def _kind(document: m.Document) -> str:
    return type(document).__name__


# --- the project


def _defaults(project: str, documents: Sequence[Written], faults: Faults) -> Defaults:
    """The `defaults:` of the one Project document, as far as they are valid."""
    found = [written for written in documents if isinstance(written.value, dict) and written.value.get("kind") == "Project"]
    for written in found[1:]:
        faults.add(written.origin, ("kind",), f"the project is named already in {found[0].origin.place()}; expected one Project")
    if not found:
        return Defaults({}, Origin(""))
    value, origin = found[0]
    if isinstance(value.get("name"), str) and value["name"] != project:
        faults.add(origin, ("name",), f'"{value["name"]}" is another project; expected "{project}"')
    shape = check_shape(value, origin, Faults())  # its faults are noted where all documents are
    defaults = shape.value.get("defaults") if shape is not None else None
    if not isinstance(defaults, dict):
        return Defaults({}, origin)
    for path in (("command",), ("schedule", "cron"), ("schedule", "every"), ("schedule", "at")):
        if _at(defaults, path) is not None:
            faults.add(origin, ("defaults", *path), "cannot be the same for all jobs; expected it in each job")
    return Defaults(defaults, origin)


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _with_defaults(value: Any, defaults: dict[str, Any]) -> Any:
    if not defaults or not isinstance(value, dict) or value.get("kind") != "Job":
        return value
    merged = {key: default for key, default in defaults.items() if key not in ("schedule", "command") and default is not None} | value
    for key in MERGED_DEFAULTS & defaults.keys() & value.keys():
        merged[key] = _merge(defaults[key], value[key])
    if isinstance(value.get("schedule"), dict):
        merged["schedule"] = _merge(defaults.get("schedule"), value["schedule"])
    if isinstance(value.get("schedules"), list):
        merged["schedules"] = [_merge(defaults.get("schedule"), each) if isinstance(each, dict) else each for each in value["schedules"]]
    return merged


def _merge(default: Any, own: Any) -> Any:
    if not isinstance(default, dict) or not isinstance(own, dict):
        return default if own is None else own
    return {key: _merge(default.get(key), own.get(key)) for key in [*default, *(own.keys() - default.keys())]}


def _check_names(shaped: Sequence[tuple[Written, Shaped | None]], faults: Faults) -> None:
    """Each kind has names of its own; also a document with other faults holds its name."""
    first: dict[tuple[str, str], str] = {}
    for written, shape in shaped:
        if shape is None or isinstance(shape.document, m.Project) or ("name",) in shape.pruned:
            continue
        kind, name, path = _kind(shape.document), shape.value["name"], shape.as_written(("name",))
        if (kind, name) in first:
            what = f'the {kind} "{name}" is defined already in {first[kind, name]}; expected a name of its own'
            faults.add(written.origin, path, what)
        first.setdefault((kind, name), written.origin.place(path))


def _calendars(shaped: Sequence[tuple[Written, Shaped | None]], faults: Faults) -> dict[str, tuple[str, ...]]:
    """The days of each calendar by its name."""
    found = {}
    for written, shape in shaped:
        document = shape.document if shape is not None else None
        if shape is None or not isinstance(document, m.Calendar):
            continue
        for index, text in enumerate(document.days):
            if not _is_date(text):
                path = shape.as_written(("days", index))
                faults.add(written.origin, path, f"{shown(text)} is not a day; expected one like 2026-12-25")
        faults.unread = faults.unread or ("name",) in shape.pruned  # it may be the one that a job names
        found[document.name] = tuple(text for text in document.days if _is_date(text))
    return found


def _pools(shaped: Sequence[tuple[Written, Shaped | None]], faults: Faults) -> dict[str, int]:
    found = {}
    for _, shape in shaped:
        if shape is not None and isinstance(shape.document, m.Pool):
            faults.unread = faults.unread or ("name",) in shape.pruned  # it may be the one that a job names
            found[shape.document.name] = shape.document.slots
    return found


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None and date.fromisoformat(text).year > 0
    except ValueError:
        return False


# --- one job


class _Compiling(ScheduleRules, ParamRules, StageRules):
    """One job while it is compiled."""

    def job(self) -> j.Job | None:
        written = self.written
        self.refuse(written, (), NOT_YET_IN_JOB + NOT_YET_IN_WORK)
        schedules = tuple(self.schedules())
        params = self.params(scheduled=bool(written.schedule or written.schedules))
        self.check_env(written.env, ("env",), written.allow_plain)
        stages = self.stages()
        job = j.Job(
            project=self.project,
            name=written.name,
            schedules=schedules,
            stages=tuple(stages),
            params=params,
            source_file=self.origin.file,
            source_line=self.origin.line,
            **given(
                description=written.description,
                owner=written.owner,
                tags=as_tuple(written.tags),
                links=written.links,
                severity=written.severity,
                paused=written.paused,
                umask=written.umask,
                shell=written.shell,
                overlap=written.overlap,
                max_queued=written.max_queued,
                max_parallel=written.max_parallel,
                priority=written.priority,
                deadline_ns=written.deadline,
                lease_ns=written.lease,
                max_attempts=written.max_attempts,
                log_limit_bytes=written.log_limit,
                on_push=written.on_push,
            ),
        )
        size = len(j.encode_job(job))
        if size > JOB_LIMIT_BYTES:
            self.fault((), f"the job has {size} bytes; expected at most {JOB_LIMIT_BYTES}")
            return None
        return job
