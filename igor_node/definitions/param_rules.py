"""The params of a job: types, choices and defaults that fit each other, names that stay apart as variables; compiled into `jobs.Param`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from igor_node.definitions import jobs as j
from igor_node.definitions import model as m
from igor_node.definitions.faults import Path
from igor_node.definitions.judged import Failed, Judged, given
from igor_node.definitions.values import OPEN, RUN_PATHS, convert


class ParamRules(Judged):
    def params(self, *, scheduled: bool) -> dict[str, j.Param]:
        params: dict[str, j.Param] = {}
        variables: dict[str, str] = {}
        for name, written in (self.written.params or {}).items():
            other = variables.setdefault(re.sub(r"[^A-Z0-9_]", "_", name.upper()), name)
            if other != name:
                self.fault(("params", name), f"is the same variable as {other} for a command; expected another name")
            try:
                params[name] = self._param(written or m.Param(), ("params", name))
            except Failed:
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
            raise Failed
        param = j.Param(
            type=kind,
            default=written.default,
            required=written.default is None,
            choices=None,
            **given(pattern=written.pattern, min=written.min, max=written.max, description=written.description),
        )
        for index, choice in enumerate(written.choices or ()):
            self._check_value(param, choice, (*path, "choices", index))
        if written.choices is not None:
            param = msgspec.structs.replace(param, choices=tuple(written.choices))
        if isinstance(written.default, str) and OPEN in written.default:
            self.check_paths(written.default, (*path, "default"), RUN_PATHS)
        elif written.default is not None:
            self._check_value(param, written.default, (*path, "default"))
        return param

    def _check_value(self, param: j.Param, value: Any, path: Path) -> None:
        try:
            convert(param, value)
        except ValueError as problem:
            self.fault(path, str(problem))
