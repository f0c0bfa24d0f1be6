"""From documents to jobs: what depends on other fields and other documents, and the compiled `jobs.Job`.

`load.py` calls `resolve` on the client and on the node alike, so that what `igor validate` accepts a push accepts. Here are the project's
defaults, names that must be single, calendars (resolved into dates, because replicas never compute them), schedules, params, values, `needs`, and
the refusal of what this version does not carry out. Everything wrong goes to `Faults`; a job with a fault is left out of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import msgspec

from igor_node.definitions import jobs as j
from igor_node.definitions import model as m
from igor_node.definitions.cron import BadExpression, parse
from igor_node.definitions.faults import Faults, Origin, Path, meant
from igor_node.definitions.quoting import Unquotable, places
from igor_node.definitions.schedule import shortest_interval_ns
from igor_node.definitions.values import OPEN, RUN_PATHS, convert, path_faults, shown
from igor_node.definitions.zones import UnknownZone, zone
from igor_node.words import SECOND, Instant, format_instant, format_span, parse_instant

JOB_LIMIT_BYTES = 512 * 1024  # two of them still fit into an entry of 1 MiB
MERGED_DEFAULTS = frozenset({"env", "constraints", "links", "params", "retries", "limits", "secrets"})  # a job's keys win one by one
LAST_INSTANT = parse_instant("2262-01-01T00:00:00Z")  # an instant must fit into 64 bits
NOT_YET = "is not supported by this version yet; expected it left out"
SECRET_NAMES = re.compile(r".*(_PASSWORD|_SECRET.*|_TOKEN|_API_KEY|_ACCESS_KEY)", re.IGNORECASE)
NOT_YET_IN_WORK = ("secrets", "pools", "limits", "user")
NOT_YET_IN_STAGE = ("approval", "trigger", "when", "matrix", "max_parallel", "fail_fast", "save", "fetch")
NOT_YET_IN_JOB = ("state", "shadow", "on_failure", "on_success", "on_recovery", "on_late")
NOT_YET_KINDS = ("Pool", "Channel", "Monitor")


class Written(NamedTuple):
    """One document as it was written, and where."""

    value: Any
    origin: Origin


class _Failed(Exception):
    """The part cannot be compiled; its fault is noted."""


def resolve(project: str, documents: Sequence[Written], now: Instant, faults: Faults) -> list[j.Job]:
    """All jobs of the project, in the order of the documents."""
    defaults = _defaults(project, documents, faults)
    shaped = [(written, m.check_shape(_with_defaults(written.value, defaults), written.origin, faults)) for written in documents]
    _check_names(shaped, faults)
    calendars = _calendars(shaped, faults)
    found = []
    for written, shape in shaped:
        if shape is not None and isinstance(shape.document, m.Job):
            before = len(faults)
            job = _Compiling(project, shape, shape.document, written.origin, calendars, now, faults).job()
            if job is not None and len(faults) == before and not shape.pruned:
                found.append(job)
        elif shape is not None and _kind(shape.document) in NOT_YET_KINDS:
            faults.add(written.origin, ("kind",), f"{_kind(shape.document)} {NOT_YET}")
    return found


def _kind(document: m.Document) -> str:
    return type(document).__name__


# --- the project


def _defaults(project: str, documents: Sequence[Written], faults: Faults) -> dict[str, Any]:
    """The `defaults:` of the one Project document, {} where there is none or it is not valid."""
    found = [written for written in documents if isinstance(written.value, dict) and written.value.get("kind") == "Project"]
    for written in found[1:]:
        faults.add(written.origin, ("kind",), f"the project is named already in {found[0].origin.place()}; expected one Project")
    if not found:
        return {}
    value, origin = found[0]
    if isinstance(value.get("name"), str) and value["name"] != project:
        faults.add(origin, ("name",), f'"{value["name"]}" is another project; expected "{project}"')
    defaults = value.get("defaults")
    trial = Faults()
    m.check_shape(value, origin, trial)
    if not isinstance(defaults, dict) or len(trial):
        return {}
    for path in (("command",), ("schedule", "cron"), ("schedule", "every"), ("schedule", "at")):
        if _at(defaults, path) is not None:
            faults.add(origin, ("defaults", *path), "cannot be the same for all jobs; expected it in each job")
    return defaults


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


def _check_names(shaped: Sequence[tuple[Written, m.Shaped | None]], faults: Faults) -> None:
    """Each kind has names of its own; also a document with other faults holds its name."""
    first: dict[tuple[str, str], Origin] = {}
    for written, _ in shaped:
        kind, name = (written.value.get("kind"), written.value.get("name")) if isinstance(written.value, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(name, str) or kind == "Project":
            continue
        if (kind, name) in first:
            what = f'the {kind} "{name}" is defined already in {first[kind, name].place(("name",))}; expected a name of its own'
            faults.add(written.origin, ("name",), what)
        first.setdefault((kind, name), written.origin)


def _calendars(shaped: Sequence[tuple[Written, m.Shaped | None]], faults: Faults) -> dict[str, tuple[str, ...]]:
    """The days of each calendar by its name."""
    found = {}
    for written, shape in shaped:
        document = shape.document if shape is not None else None
        if not isinstance(document, m.Calendar):
            continue
        for index, text in enumerate(document.days):
            if not _is_date(text):
                faults.add(written.origin, ("days", index), f"{shown(text)} is not a day; expected one like 2026-12-25")
        found[document.name] = tuple(text for text in document.days if _is_date(text))
    return found


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None and date.fromisoformat(text).year > 0
    except ValueError:
        return False


# --- one job


class _Compiling:
    """One job while it is compiled."""

    def __init__(
        self,
        project: str,
        shape: m.Shaped,
        job: m.Job,
        origin: Origin,
        calendars: Mapping[str, tuple[str, ...]],
        now: Instant,
        faults: Faults,
    ) -> None:
        self.shape = shape
        self.written, self.origin, self.calendars, self.now, self.faults = job, origin, calendars, now, faults
        self.project, self.id = project, f"{project}/{job.name}"
        self.shell = job.shell or "/bin/sh"

    def fault(self, path: Path, what: str) -> None:
        if not self.shape.hides(path):
            self.faults.add(self.origin, path, what)

    def job(self) -> j.Job | None:
        written = self.written
        self._refuse(written, (), NOT_YET_IN_JOB + NOT_YET_IN_WORK)
        schedules = tuple(self._schedules())
        params = self._params(scheduled=bool(schedules))
        self._check_env(written.env, ("env",), written.allow_plain)
        stages = self._stages()
        job = j.Job(
            project=self.project,
            name=written.name,
            schedules=schedules,
            stages=tuple(stages),
            params=params,
            source_file=self.origin.file,
            source_line=self.origin.line,
            **_given(
                description=written.description,
                owner=written.owner,
                tags=_tuple(written.tags),
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

    def _refuse(self, part: m.Model, path: Path, names: Iterable[str]) -> None:
        for name in names:
            if getattr(part, name):
                self.fault((*path, name), NOT_YET)

    # --- schedules

    def _schedules(self) -> Iterator[j.Schedule]:
        one, several = self.written.schedule, self.written.schedules
        if one is not None and several is not None:
            self.fault(("schedules",), "stands beside schedule; expected one of the two")
        parts: list[tuple[Path, m.Schedule]] = [] if one is None else [(("schedule",), one)]
        parts += [(("schedules", index), each) for index, each in enumerate(several or ())]
        for path, part in parts:
            try:
                yield self._schedule(part, path)
            except _Failed:
                continue

    def _schedule(self, part: m.Schedule, path: Path) -> j.Schedule:
        before = len(self.faults)
        self._check_one_kind(part, path)
        timezone = self._timezone(part, path)
        starts_at, ends_at = (self._moment(part, path, field, timezone) for field in ("starts_at", "ends_at"))
        if starts_at is not None and ends_at is not None and ends_at <= starts_at:
            self.fault((*path, "ends_at"), "is not after starts_at; expected a later time")
        schedule = j.Schedule(
            cron=self._cron(part, path),
            every_ns=part.every,
            at=self._at(part, path, timezone),
            timezone=timezone,
            exclude=self._days(part, path, "exclude") or (),
            include=self._days(part, path, "include"),
            starts_at=starts_at,
            ends_at=ends_at,
            jitter_ns=part.jitter or 0,
            catch_up=j.CatchUp(**_given(window_ns=part.catch_up.window, policy=part.catch_up.policy)) if part.catch_up else j.CatchUp(),
        )
        self._check_jitter(schedule, path)
        if len(self.faults) > before:
            raise _Failed
        return schedule

    def _check_one_kind(self, part: m.Schedule, path: Path) -> None:
        kinds = [name for name in ("cron", "every", "at") if getattr(part, name) is not None]
        if not kinds:
            self.fault(path, "has none of cron, every, at; expected one of them, or no schedule for a job on demand")
        elif len(kinds) > 1:
            self.fault((*path, kinds[1]), f"stands beside {kinds[0]}; expected one of cron, every, at (several go into schedules:)")

    def _timezone(self, part: m.Schedule, path: Path) -> str:
        try:
            return zone(part.timezone).name if part.timezone is not None else "UTC"
        except UnknownZone as problem:
            self.fault((*path, "timezone"), str(problem))
            return "UTC"

    def _cron(self, part: m.Schedule, path: Path) -> str | None:
        try:
            return None if part.cron is None else parse(part.cron, self.id).text
        except BadExpression as problem:
            self.fault((*path, "cron"), str(problem))
            return None

    def _at(self, part: m.Schedule, path: Path, timezone: str) -> Instant | None:
        at = self._moment(part, path, "at", timezone)
        if at is not None and at <= self.now:
            self.fault((*path, "at"), f"{part.at} is in the past; expected a time after {format_instant(self.now // SECOND * SECOND)}")
        return at

    def _moment(self, part: m.Schedule, path: Path, field: str, timezone: str) -> Instant | None:
        text = getattr(part, field)
        if text is None:
            return None
        try:
            at = _instant(text, timezone if part.timezone is not None else None)
            if not 0 <= at < LAST_INSTANT:
                raise ValueError(f'"{text}" is out of range; expected a time from 1970 to 2261')
            return at
        except ValueError as problem:
            self.fault((*path, field), str(problem))
            return None

    def _days(self, part: m.Schedule, path: Path, field: str) -> tuple[str, ...] | None:
        names = getattr(part.calendar, field) if part.calendar is not None else None
        if names is None:
            return None
        if not names and field == "include":
            self.fault((*path, "calendar", field), "is empty, so that no day is left; expected the names of calendars")
        for index, name in enumerate(names):
            if name not in self.calendars:
                hint = meant(name, self.calendars) if self.calendars else "expected a document of kind Calendar with that name"
                self.fault((*path, "calendar", field, index), f'no calendar is named "{name}"; {hint}')
        return tuple(sorted({day for name in names for day in self.calendars.get(name, ())}))

    def _check_jitter(self, schedule: j.Schedule, path: Path) -> None:
        interval = shortest_interval_ns(schedule, self.id) if schedule.jitter_ns else None
        if interval is not None and schedule.jitter_ns >= interval:
            what = f"{format_span(schedule.jitter_ns)} is not less than the interval; expected less than {format_span(interval)}"
            self.fault((*path, "jitter"), what)

    # --- params

    def _params(self, *, scheduled: bool) -> dict[str, j.Param]:
        params: dict[str, j.Param] = {}
        variables: dict[str, str] = {}
        for name, written in (self.written.params or {}).items():
            other = variables.setdefault(re.sub(r"[^A-Z0-9_]", "_", name.upper()), name)
            if other != name:
                self.fault(("params", name), f"is the same variable as {other} for a command; expected another name")
            try:
                params[name] = self._param(written or m.Param(), ("params", name))
            except _Failed:
                continue
            if scheduled and params[name].required:
                self.fault(("params", name), "has no default, but the schedule gives no values; expected default:")
        return params

    def _param(self, written: m.Param, path: Path) -> j.Param:
        before = len(self.faults)
        kind = written.type or "string"
        if kind == "secret":
            self.fault((*path, "type"), "secret is not supported by this version yet; expected another type")
        numeric = kind in ("integer", "number")
        for field in ("min", "max"):
            if getattr(written, field) is not None and not numeric:
                self.fault((*path, field), f"is for numbers, the type is {kind}; expected it left out")
        if written.pattern is not None and kind != "string":
            self.fault((*path, "pattern"), f"is for texts, the type is {kind}; expected it left out")
        if written.min is not None and written.max is not None and written.min > written.max:
            self.fault((*path, "max"), "is less than min; expected at least min")
        if len(self.faults) > before:
            raise _Failed
        param = j.Param(
            type=kind,
            default=written.default,
            required=written.default is None,
            choices=None,
            **_given(pattern=written.pattern, min=written.min, max=written.max, description=written.description),
        )
        for index, choice in enumerate(written.choices or ()):
            self._check_value(param, choice, (*path, "choices", index))
        if written.choices is not None:
            param = msgspec.structs.replace(param, choices=tuple(written.choices))
        if isinstance(written.default, str) and OPEN in written.default:
            self._check_paths(written.default, (*path, "default"), RUN_PATHS)
        elif written.default is not None:
            self._check_value(param, written.default, (*path, "default"))
        return param

    def _check_value(self, param: j.Param, value: Any, path: Path) -> None:
        try:
            convert(param, value)
        except ValueError as problem:
            self.fault(path, str(problem))

    # --- stages

    def _stages(self) -> list[j.Stage]:
        written = self.written
        if written.stages is None:
            if written.command is None and not self.shape.hides(("stages",)):
                self.fault(("command",), "is missing; expected a command, or stages")
                return []
            return [self._stage("main", written, ())]
        if written.command is not None:
            self.fault(("command",), "stands beside stages; expected one of the two")
        self._check_codes(written, ())
        self._check_stage_names(written.stages)
        self._check_circles(written.stages)
        return [self._named_stage(stage, ("stages", index)) for index, stage in enumerate(written.stages)]

    def _named_stage(self, stage: m.Stage, path: Path) -> j.Stage:
        self._refuse(stage, path, NOT_YET_IN_STAGE + NOT_YET_IN_WORK)
        self._check_env(stage.env, (*path, "env"), [*(self.written.allow_plain or ()), *(stage.allow_plain or ())])
        if stage.command is None and stage.approval is None and stage.trigger is None:
            self.fault((*path, "command"), "is missing; expected a command")
        return self._stage(stage.name, stage, path, _given(needs=_tuple(stage.needs), always=stage.always, allow_failure=stage.allow_failure))

    def _stage(self, name: str, work: m.Work, path: Path, more: Mapping[str, Any] = {}) -> j.Stage:
        """A stage's own fields, else the job's; environments and constraints are put together."""
        job = self.written
        self._check_command(work.command, (*path, "command"))
        self._check_codes(work, path)

        def own(field: str) -> Any:
            value = getattr(work, field)
            return getattr(job, field) if value is None else value

        return j.Stage(
            name=name,
            command=work.command or (),
            env={**(job.env or {}), **(work.env or {})},
            constraints={**(job.constraints or {}), **(work.constraints or {})},
            **_given(
                timeout_ns=own("timeout"),
                total_timeout_ns=own("total_timeout"),
                grace_ns=own("grace"),
                retries=_retries(own("retries")),
                success_codes=_tuple(own("success_codes")),
                retry_codes=_tuple(own("retry_codes")),
                skip_codes=_tuple(own("skip_codes")),
                slots=own("slots"),
                on_node_loss=own("on_node_loss"),
                workdir=own("workdir"),
            ),
            **more,
        )

    def _check_codes(self, work: m.Work, path: Path) -> None:
        owners: dict[int, str] = {}
        for field in ("success_codes", "retry_codes", "skip_codes"):
            for code in dict.fromkeys(getattr(work, field) or ()):
                if code in owners:
                    self.fault((*path, field), f"{code} stands in {owners[code]} too; expected it in one of them")
                owners.setdefault(code, field)

    def _check_command(self, command: str | tuple[str, ...] | None, path: Path) -> None:
        allowed = self._paths()
        if isinstance(command, str):
            self._check_paths(command, path, allowed)
            try:
                places(command, self.shell)
            except Unquotable as problem:
                self.fault(path, f"{problem}")
        for index, item in enumerate(command if isinstance(command, tuple) else ()):
            self._check_paths(item, (*path, index), allowed)

    def _paths(self) -> list[str]:
        return [*(f"params.{name}" for name in self.written.params or {}), *RUN_PATHS]

    def _check_paths(self, text: str, path: Path, allowed: Sequence[str]) -> None:
        if OPEN in text:
            for what in path_faults(text, allowed):
                self.fault(path, what)

    def _check_env(self, env: Mapping[str, str] | None, path: Path, allow_plain: Sequence[str] | None) -> None:
        for name, value in (env or {}).items():
            self._check_paths(value, (*path, name), self._paths())
            if SECRET_NAMES.fullmatch(name) and name not in (allow_plain or ()):
                what = "the name says that it is a secret; expected it under secrets:, or its name in allow_plain: if it is none"
                self.fault((*path, name), what)

    def _check_stage_names(self, stages: Sequence[m.Stage]) -> None:
        names: list[str] = []
        for index, stage in enumerate(stages):
            if stage.name in names:
                what = f'the stage "{stage.name}" is stages[{names.index(stage.name)}] already; expected a name of its own'
                self.fault(("stages", index, "name"), what)
            names.append(stage.name)
        for index, stage in enumerate(stages):
            for at, need in enumerate(stage.needs or ()):
                path: Path = ("stages", index, "needs", at)
                if need not in names:
                    self.fault(path, f'no stage is named "{need}"; {meant(need, (name for name in names if name != stage.name))}')
                elif need in (stage.needs or ())[:at]:
                    self.fault(path, f'"{need}" stands twice; expected it once')

    def _check_circles(self, stages: Sequence[m.Stage]) -> None:
        """Each circle once, at the stage of it that is written first."""
        needs = {stage.name: list(stage.needs or ()) for stage in reversed(stages)}
        done: set[str] = set()
        for index, stage in enumerate(stages):
            if stage.name not in done and (circle := _circle(stage.name, needs, done)):
                self.fault(("stages", index, "needs"), f"stages need each other in a circle: {' -> '.join(circle)}; expected an order")


def _circle(start: str, needs: Mapping[str, Sequence[str]], done: set[str]) -> list[str] | None:
    """A circle that can be reached from `start`; every stage that was looked at is put into `done`. No recursion: a chain may be long."""
    way: list[str] = [start]
    left: list[list[str]] = [list(needs.get(start, ()))]
    while way:
        if not left[-1]:
            done.add(way.pop())
            left.pop()
            continue
        need = left[-1].pop(0)
        if need in way:
            done.update(way)
            return [*way[way.index(need) :], need]
        if need not in done:
            way.append(need)
            left.append(list(needs.get(need, ())))
    return None


def _instant(text: str, timezone: str | None) -> Instant:
    """A time with an offset, or the first instant that shows this local time in the zone."""
    if _LOCAL.fullmatch(text) is None:
        return parse_instant(text)
    if timezone is None:
        raise ValueError(f'"{text}" says no zone; expected an offset or Z at its end, or timezone: beside it')
    return Instant(zone(timezone).first_instant(parse_instant(f"{text}Z") // SECOND) * SECOND)


_LOCAL = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?", re.ASCII)


def _given(**fields: Any) -> dict[str, Any]:
    """Those that were written; the others keep the default of `jobs.py`."""
    return {name: value for name, value in fields.items() if value is not None}


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _retries(written: m.Retries | None) -> j.Retries | None:
    if written is None:
        return None
    backoff = written.backoff or m.Backoff()
    return j.Retries(
        backoff=j.Backoff(**_given(initial_ns=backoff.initial, factor=backoff.factor, max_ns=backoff.max, jitter=backoff.jitter)),
        **_given(max=written.max, on=_tuple(written.on)),
    )
