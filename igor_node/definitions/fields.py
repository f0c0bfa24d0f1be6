"""The types of fields: what a text, a duration, a size, a name may be, with an error for the person who wrote another.

`model.py` is made of these. Each checks the plain value of YAML or JSON and gives back what `jobs.py` keeps (durations in nanoseconds, sizes in
bytes). A check raises ValueError in the form `what is wrong; what was expected`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from igor_node.definitions.faults import meant
from igor_node.definitions.values import shown
from igor_node.words import NAME, SECOND, parse_span

TEXT_LIMIT = 10_000  # characters of a description
COMMAND_LIMIT_BYTES = 120 * 1024  # the kernel refuses an argument of 128 KiB
SPAN_LIMIT = 3_650 * 86_400 * SECOND  # ten years: far from the end of a 64-bit instant
SIZE_LIMIT_BYTES = 1 << 50

_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB|TiB|KB|kB|MB|GB|TB)")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_UNITS |= {"KB": 1_000, "kB": 1_000, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text; expected a text{', in quotes' if isinstance(value, bool | int | float) else ''}")
    if "\0" in value:
        raise ValueError("holds a NUL character; expected a text without")
    if len(value) > COMMAND_LIMIT_BYTES:
        raise ValueError(f"has {len(value)} characters; expected at most {COMMAND_LIMIT_BYTES}")
    return value


def short_text(value: Any) -> str:
    if len(text(value)) > TEXT_LIMIT:
        raise ValueError(f"has {len(value)} characters; expected at most {TEXT_LIMIT}")
    return str(value)


def word(value: Any) -> str:
    """What a command or a label sees as text; a fraction must be quoted, because 1.10 would become 1.1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise ValueError(f"{shown(value)} is a number with a fraction; expected a text, in quotes, so that it stays as it is written")
    return text(value)


def name(value: Any) -> str:
    if not NAME.fullmatch(text(value)):
        raise ValueError(f"{shown(value)} is not a name; expected letters, digits, -, _ and ., a letter or digit first, at most 100")
    return str(value)


def pool_name(value: Any) -> str:
    parts = text(value).split("/")
    if len(parts) > 2 or not all(map(NAME.fullmatch, parts)):
        raise ValueError(f"{shown(value)} is not a name of a pool; expected one like warehouse, or infra/warehouse of another project")
    return str(value)


def param_name(value: Any) -> str:
    if not _PARAM.fullmatch(text(value)):
        raise ValueError(f"{shown(value)} is not the name of a param; expected letters, digits, _ and -, a letter first, at most 100")
    return str(value)


def variable(value: Any) -> str:
    if not _VARIABLE.fullmatch(text(value)):
        raise ValueError(f"{shown(value)} is not the name of an environment variable; expected letters, digits and _, no digit first")
    if value.startswith("IGOR_"):
        raise ValueError(f"{shown(value)} belongs to Igor; expected a name that does not begin with IGOR_")
    return str(value)


def duration(least: int = SECOND, least_text: str = "1s") -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, str) or not value.isascii():
            raise ValueError(f"{shown(value)} is not a duration; expected a number with its unit, in a text like 90s, 1h30m or 2d")
        span = parse_span(value)
        if not least <= span <= SPAN_LIMIT:
            raise ValueError(f'"{value}" is out of range; expected {least_text} to 3650d')
        return span

    return check


def size(value: Any) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{shown(value)} is not a size; expected a number with its unit, like 100MiB, 2GiB or 500MB")
    found = int(match[1]) * _UNITS[match[2]]
    if found > SIZE_LIMIT_BYTES:
        raise ValueError(f"{shown(value)} is out of range; expected at most 1024TiB")
    return found


def log_size(value: Any) -> int:
    found = size(value)
    if found < 4_096:
        raise ValueError(f"{shown(value)} is out of range; expected at least 4KiB")
    return found


def whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{shown(value)} is not allowed; expected a whole number from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{shown(value)} is not allowed; expected a number from {low:g} to {high:g}")
        return float(value)

    return check


def any_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e15:
        raise ValueError(f"{shown(value)} is not a number; expected one")
    return float(value)


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not allowed; expected true or false")
    return value


def one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{shown(value)} is not known; {meant(str(value), allowed)}")
        return value

    return check


def retry_reason(value: Any) -> int | str:
    if value == "timeout":
        return "timeout"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError(f"{shown(value)} is no reason to try again; expected an exit code from 0 to 255, or timeout")
    return value


def umask(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{1,3}", value):
        raise ValueError(f'{shown(value)} is not a umask; expected octal digits, like "022"')
    return int(value, 8)


def directory(value: Any) -> str:
    if not text(value).startswith("/"):
        raise ValueError(f"{shown(value)} is not an absolute path; expected one that begins with /")
    return str(value)


def program(value: Any) -> str:
    if not re.fullmatch(r"\S{1,200}", text(value)):
        raise ValueError(f"{shown(value)} is not a program; expected the path of a shell, like /bin/bash")
    return str(value)


def pattern(value: Any) -> str:
    try:
        re.compile(text(value))
    except re.error as problem:
        raise ValueError(f"{shown(value)} is not a regular expression ({problem}); expected one") from None
    if len(value) > 500:
        raise ValueError("the pattern has more than 500 characters; expected less")
    return str(value)


def command(value: Any) -> str | tuple[str, ...]:
    """A list is executed; a string is run by the shell."""
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("is empty; expected a command")
        found: str | tuple[str, ...] = text(value)
    elif isinstance(value, list) and value:
        found = tuple(word(item) for item in value)
        if not found[0]:
            raise ValueError("the first item is empty; expected the program to run")
    else:
        raise ValueError(f"{shown(value)} is not a command; expected a text for the shell, or a list of the program and its arguments")
    if len(found.encode() if isinstance(found, str) else "".join(found).encode()) > COMMAND_LIMIT_BYTES:
        raise ValueError(f"the command is longer than {COMMAND_LIMIT_BYTES} bytes; expected a shorter one")
    return found


def scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, str | bool | int | float):
        raise ValueError(f"{shown(value)} is not allowed; expected a text, a number, true or false")
    return value


_WHOLE = {"type": "integer"}
_DURATION_SCHEMA = {"type": "string", "pattern": r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$", "examples": ["90s", "1h30m", "2d"]}
_SIZE_SCHEMA = {"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["100MiB", "2GiB"]}

Text = Annotated[str, BeforeValidator(text)]
ShortText = Annotated[str, BeforeValidator(short_text)]
Word = Annotated[str, BeforeValidator(word), WithJsonSchema({"type": ["string", "integer", "boolean"]})]
Name = Annotated[str, BeforeValidator(name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
PoolName = Annotated[str, BeforeValidator(pool_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}(/{NAME.pattern})?$"})]
ParamName = Annotated[str, BeforeValidator(param_name)]
Variable = Annotated[str, BeforeValidator(variable)]
Duration = Annotated[int, BeforeValidator(duration()), WithJsonSchema(_DURATION_SCHEMA)]
AnyDuration = Annotated[int, BeforeValidator(duration(0, "0s")), WithJsonSchema(_DURATION_SCHEMA)]
Lease = Annotated[int, BeforeValidator(duration(5 * SECOND, "5s")), WithJsonSchema(_DURATION_SCHEMA)]
Size = Annotated[int, BeforeValidator(size), WithJsonSchema(_SIZE_SCHEMA)]
LogSize = Annotated[int, BeforeValidator(log_size), WithJsonSchema(_SIZE_SCHEMA)]
Truth = Annotated[bool, BeforeValidator(truth)]
Command = Annotated[
    str | tuple[str, ...],
    BeforeValidator(command),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1}]}),
]
ExitCode = Annotated[int, BeforeValidator(whole(0, 255)), WithJsonSchema(_WHOLE | {"minimum": 0, "maximum": 255})]
RetryReason = Annotated[int | str, BeforeValidator(retry_reason), WithJsonSchema({"anyOf": [_WHOLE, {"const": "timeout"}]})]
Queue = Annotated[int, BeforeValidator(whole(1, 10_000)), WithJsonSchema(_WHOLE)]
Thousand = Annotated[int, BeforeValidator(whole(1, 1_000)), WithJsonSchema(_WHOLE)]
Hundred = Annotated[int, BeforeValidator(whole(1, 100)), WithJsonSchema(_WHOLE)]
RetryCount = Annotated[int, BeforeValidator(whole(0, 1_000)), WithJsonSchema(_WHOLE)]
Priority = Annotated[int, BeforeValidator(whole(-1_000, 1_000)), WithJsonSchema(_WHOLE)]
Factor = Annotated[float, BeforeValidator(number(1, 100)), WithJsonSchema({"type": "number"})]
Share = Annotated[float, BeforeValidator(number(0, 1)), WithJsonSchema({"type": "number"})]
Number = Annotated[float, BeforeValidator(any_number), WithJsonSchema({"type": "number"})]
Umask = Annotated[int, BeforeValidator(umask), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{1,3}$"})]
Directory = Annotated[str, BeforeValidator(directory)]
Program = Annotated[str, BeforeValidator(program)]
Pattern = Annotated[str, BeforeValidator(pattern)]
Scalar = Annotated[Any, BeforeValidator(scalar), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
