"""The stages of a job: commands whose values can be put in, environments without secrets, needs without circles; compiled into `jobs.Stage`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from igor_node.definitions import jobs as j
from igor_node.definitions import model as m
from igor_node.definitions.faults import FAULTS_SHOWN, Path, meant
from igor_node.definitions.judged import Judged, as_tuple, given
from igor_node.definitions.quoting import Unquotable, places
from igor_node.words import USER_LABEL

SECRET_NAMES = re.compile(r".*(_PASSWORD|_SECRET.*|_TOKEN|_API_KEY|_ACCESS_KEY)", re.IGNORECASE)
NOT_YET_IN_WORK = ("limits",)
NOT_YET_IN_STAGE = ("approval", "trigger", "when", "matrix", "max_parallel", "fail_fast", "save", "fetch")


class StageRules(Judged):
    def stages(self) -> list[j.Stage]:
        written = self.written
        if written.stages is None:
            if written.command is None and not self.shape.hides(("stages",)):
                self.fault(("command",), "is missing; expected a command, or stages")
                return []
            return [self._stage("main", written, ())]
        if written.command is not None:
            self.fault(("command",), "stands beside stages; expected one of the two")
        self._check_codes(written, ())
        self._pools(written, ())
        self._check_stage_names(written.stages)
        self._check_circles(written.stages)
        return [self._named_stage(stage, ("stages", index)) for index, stage in enumerate(written.stages)]

    def _named_stage(self, stage: m.Stage, path: Path) -> j.Stage:
        self.refuse(stage, path, NOT_YET_IN_STAGE + NOT_YET_IN_WORK)
        self.check_env(stage.env, (*path, "env"), [*(self.written.allow_plain or ()), *(stage.allow_plain or ())])
        if stage.command is None and stage.approval is None and stage.trigger is None:
            self.fault((*path, "command"), "is missing; expected a command")
        return self._stage(stage.name, stage, path, given(needs=as_tuple(stage.needs), always=stage.always, allow_failure=stage.allow_failure))

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
            secrets=self._secrets(work, path),
            constraints={**(job.constraints or {}), **(work.constraints or {}), **_of_user(own("user"))},
            **given(
                timeout_ns=own("timeout"),
                total_timeout_ns=own("total_timeout"),
                grace_ns=own("grace"),
                retries=_retries(own("retries")),
                success_codes=as_tuple(own("success_codes")),
                retry_codes=as_tuple(own("retry_codes")),
                skip_codes=as_tuple(own("skip_codes")),
                slots=own("slots"),
                pools=self._pools(work, path),
                on_node_loss=own("on_node_loss"),
                workdir=own("workdir"),
                user=own("user"),
            ),
            **more,
        )

    def _pools(self, work: m.Work, path: Path) -> tuple[str, ...] | None:
        """The stage's own, else the job's, each with its project, in the order in which they are named once."""
        names = self.written.pools if work.pools is None else work.pools
        for index, name in enumerate(work.pools or ()):
            if "/" not in name and name not in self.pools and not self.faults.unread:
                hint = (
                    meant(name, self.pools) if self.pools else "expected a document of kind Pool with that name, or PROJECT/NAME of another project"
                )
                self.fault((*path, "pools", index), f'no pool is named "{name}"; {hint}')
        return None if names is None else tuple(dict.fromkeys(name if "/" in name else f"{self.project}/{name}" for name in names))

    def _secrets(self, work: m.Work, path: Path) -> dict[str, str]:
        """The job's and the stage's own. A variable has its value from one place."""
        found = {**(self.written.secrets or {}), **(work.secrets or {})}
        plain = {**(self.written.env or {}), **(work.env or {})}
        for variable in found:
            if variable in plain:
                self.fault((*path, "secrets", variable), "stands in env: too; expected it in one of them")
        return found

    def _check_codes(self, work: m.Work, path: Path) -> None:
        owners: dict[int, str] = {}
        for field in ("success_codes", "retry_codes", "skip_codes"):
            for code in dict.fromkeys(getattr(work, field) or ()):
                if code in owners:
                    self.fault((*path, field), f"{code} stands in {owners[code]} too; expected it in one of them")
                owners.setdefault(code, field)

    def _check_command(self, command: str | tuple[str, ...] | None, path: Path) -> None:
        allowed = self.paths()
        if isinstance(command, str):
            self.check_paths(command, path, allowed)
            try:
                places(command, self.shell)
            except Unquotable as problem:
                self.fault(path, f"{problem}")
        for index, item in enumerate(command if isinstance(command, tuple) else ()):
            self.check_paths(item, (*path, index), allowed)

    def check_env(self, env: Mapping[str, str] | None, path: Path, allow_plain: Sequence[str] | None) -> None:
        for name, value in (env or {}).items():
            self.check_paths(value, (*path, name), self.paths())
            if SECRET_NAMES.fullmatch(name) and name not in (allow_plain or ()):
                what = "the name says that it is a secret; expected it under secrets:, or its name in allow_plain: if it is none"
                self.fault((*path, name), what)

    def _check_stage_names(self, stages: Sequence[m.Stage]) -> None:
        names: dict[str, int] = {}
        for index, stage in enumerate(stages):
            if (first := names.setdefault(stage.name, index)) != index:
                what = f'the stage "{stage.name}" is stages[{first}] already; expected a name of its own'
                self.fault(("stages", index, "name"), what)
        some_unnamed = any(self.shape.hides(("stages", index, "name")) for index in range(len(stages)))
        for index, stage in enumerate(stages):
            seen: set[str] = set()
            for at, need in enumerate(stage.needs or ()):
                path: Path = ("stages", index, "needs", at)
                if len(self.faults) > FAULTS_SHOWN:
                    return  # nobody will read more, and each costs a look at all names
                if need not in names and some_unnamed:
                    continue  # it may be the one whose name is wrong
                if need not in names:
                    self.fault(path, f'no stage is named "{need}"; {meant(need, (name for name in names if name != stage.name))}')
                elif need in seen:
                    self.fault(path, f'"{need}" stands twice; expected it once')
                seen.add(need)

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
    on_way = {start}
    left: list[list[str]] = [list(needs.get(start, ()))]
    while way:
        if not left[-1]:
            left_behind = way.pop()
            on_way.remove(left_behind)
            done.add(left_behind)
            left.pop()
            continue
        need = left[-1].pop(0)
        if need in on_way:
            done.update(way)
            return [*way[way.index(need) :], need]
        if need not in done:
            way.append(need)
            on_way.add(need)
            left.append(list(needs.get(need, ())))
    return None


def _of_user(user: str | None) -> dict[str, str]:
    """Only a node whose owner allows that user has the label."""
    return {} if user is None else {f"{USER_LABEL}{user}": "yes"}


def _retries(written: m.Retries | None) -> j.Retries | None:
    if written is None:
        return None
    backoff = written.backoff or m.Backoff()
    return j.Retries(
        backoff=j.Backoff(**given(initial_ns=backoff.initial, factor=backoff.factor, max_ns=backoff.max, jitter=backoff.jitter)),
        **given(max=written.max, on=as_tuple(written.on)),
    )
