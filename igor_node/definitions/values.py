"""`${{ path }}`: which values a run has, and how they are put into commands and environments; and the params of a run.

Paths only, no expressions. The leader calls `run_values` once a run and `render_*` for each stage it places; the API calls `check_params` for a
run on demand. A value never becomes shell text: in a string command it is put in as one quoted word (`quoting.py`), in a list or in `env:` as it
is. Nothing here reads a clock.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from igor_node.definitions.jobs import PARAMS_LIMIT_BYTES, Job, Param, Stage
from igor_node.definitions.quoting import REFERENCE, Place, one_word, places
from igor_node.definitions.schedule import zone_of_fire
from igor_node.definitions.zones import zone
from igor_node.words import SECOND, Instant, Invalid, format_instant

PARSED_COMMANDS = 16_384  # string commands whose quoting is remembered; one that is not costs about 1 µs a character again
RUN_PATHS = ("scheduled_time", "scheduled_date", "job", "run", "project")
OPEN = "${{"


@dataclass(frozen=True, slots=True)
class RunValues:
    """`params`: all of the run's params as text, for IGOR_PARAM_*; `by_path`: what `${{ path }}` stands for."""

    params: dict[str, str]
    by_path: dict[str, str]


def run_values(job: Job, *, run: str, scheduled_at: Instant | None, created_at: Instant, given: Mapping[str, str]) -> RunValues:
    """`given` are the params that `check_params` answered with (none for a scheduled run); defaults are filled in. Raises Invalid."""
    at = created_at if scheduled_at is None else scheduled_at
    local = zone(zone_of_fire(job, scheduled_at)).local(at // SECOND)
    by_path = {
        "scheduled_time": format_instant(at),
        "scheduled_date": local.date().isoformat(),
        "job": job.name,
        "run": run,
        "project": job.project,
    }
    params: dict[str, str] = {}
    for name, param in job.params.items():
        if name in given:
            params[name] = given[name]
        elif param.default is None:
            raise Invalid(f"run {run} has no value for the param {name} of job {job.id}", hint="run it again with -p " + name + "=…")
        else:
            params[name] = _put_in(param.default, by_path) if isinstance(param.default, str) else as_text(param.default)
    by_path.update({f"params.{name}": value for name, value in params.items()})
    return RunValues(params, by_path)


def render_command(command: Sequence[str] | str, values: RunValues, shell: str = "/bin/sh") -> tuple[str, ...] | str:
    """A list's items with the values in them; a string with each value as one quoted word."""
    if not isinstance(command, str):
        return tuple(_put_in(item, values.by_path) for item in command)
    rendered, done = [], 0
    for place in _places(command, shell):
        rendered += [command[done : place.start], one_word(values.by_path[place.path], place.around)]
        done = place.end
    return "".join(rendered) + command[done:]


def render_env(env: Mapping[str, str], values: RunValues) -> dict[str, str]:
    return {name: _put_in(text, values.by_path) for name, text in env.items()}


def render_stage(stage: Stage, values: RunValues, shell: str = "/bin/sh") -> tuple[tuple[str, ...] | str, dict[str, str]]:
    """(command, env) of a stage as its wrapper gets them."""
    return render_command(stage.command, values, shell), render_env(stage.env, values)


@lru_cache(maxsize=PARSED_COMMANDS)
def _places(command: str, shell: str) -> tuple[Place, ...]:
    return places(command, shell)


def _put_in(text: str, by_path: Mapping[str, str]) -> str:
    return REFERENCE.sub(lambda match: by_path[match[1]], text) if OPEN in text else text


# --- validation of `${{ … }}`


def path_faults(text: str, allowed: Sequence[str]) -> list[str]:
    """What is wrong with the placeholders of a text: a path that is none of `allowed`, or one that is not closed."""
    faults = [_unknown_path(match[1], allowed) for match in REFERENCE.finditer(text) if match[1] not in allowed]
    if OPEN in REFERENCE.sub("", text):
        faults.append('"${{" is not closed, or holds more than a path; expected ${{ path }}')
    return faults


def _unknown_path(path: str, allowed: Sequence[str]) -> str:
    if path.startswith(("stages.", "matrix.")):
        return f'"{path}": values of {path.split(".")[0]} are not supported by this version yet'
    close = get_close_matches(path, allowed, n=1)
    if close:
        return f'"{path}" is not a value; did you mean "{close[0]}"?'
    return f'"{path}" is not a value; expected one of {", ".join(allowed)}'


# --- params


def check_params(job: Job, given: Mapping[str, Any]) -> dict[str, str]:
    """The params of a run on demand as text: those given, and the defaults that depend on nothing. Raises Invalid with every fault."""
    faults, params = [], {}
    for name in sorted(given.keys() - job.params.keys()):
        faults.append(f"params.{name}: job {job.id} has no such param; {_expected_param(name, job)}")
    for name, param in job.params.items():
        try:
            if name in given:
                params[name] = convert(param, given[name])
            elif param.default is None:
                raise ValueError(f"is missing; expected {expected(param)}")
            elif not (isinstance(param.default, str) and OPEN in param.default):
                params[name] = as_text(param.default)
        except ValueError as problem:
            faults.append(f"params.{name}: {problem}")
    if not faults and sum(len(name) + len(value.encode()) for name, value in params.items()) > PARAMS_LIMIT_BYTES:
        faults.append(f"params: all together are larger than {PARAMS_LIMIT_BYTES} bytes; expected less")
    if faults:
        raise Invalid(f"the params of {job.id} are not valid", faults=faults)
    return params


def _expected_param(name: str, job: Job) -> str:
    close = get_close_matches(name, job.params, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"expected {', '.join(job.params)}" if job.params else "expected none"


def convert(param: Param, value: Any) -> str:
    """The value as text, if the param allows it. Raises ValueError that says what was expected."""
    text = _CONVERSIONS[param.type](value)
    if text is None or "\0" in text:
        raise ValueError(f"{shown(value)} is not {_A_TYPE[param.type]}; expected {expected(param)}")
    if param.choices is not None and text not in {as_text(choice) for choice in param.choices}:
        raise ValueError(f"{shown(value)} is none of the choices; expected {expected(param)}")
    if param.pattern is not None and re.fullmatch(param.pattern, text) is None:
        raise ValueError(f"{shown(value)} does not match its pattern; expected {expected(param)}")
    if (param.min is not None and float(text) < param.min) or (param.max is not None and float(text) > param.max):
        raise ValueError(f"{shown(value)} is out of range; expected {expected(param)}")
    return text


def as_text(value: Any) -> str:
    """A value of YAML or JSON as a command sees it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def expected(param: Param) -> str:
    """In words, what a value of this param is."""
    if param.choices is not None:
        return "one of " + ", ".join(as_text(choice) for choice in param.choices)
    words = _A_TYPE[param.type]
    if param.min is not None and param.max is not None:
        return f"{words} from {param.min:g} to {param.max:g}"
    if param.min is not None or param.max is not None:
        return f"{words} of at least {param.min:g}" if param.min is not None else f"{words} of at most {param.max:g}"
    return f"{words} like {param.pattern}" if param.pattern is not None else words


def _string(value: Any) -> str | None:
    return as_text(value) if isinstance(value, str | int) else None


def _integer(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(int(value)) if re.fullmatch(r"[-+]?[0-9]{1,18}", str(value)) else None


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return str(value).strip() if math.isfinite(number) and "_" not in str(value) else None


def _boolean(value: Any) -> str | None:
    text = as_text(value) if isinstance(value, bool | str) else ""
    return text if text in ("true", "false") else None


def _date(value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return None


_CONVERSIONS: dict[str, Callable[[Any], str | None]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "secret": _string,
}
_A_TYPE = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date like 2026-11-24",
    "secret": "a text",
}
