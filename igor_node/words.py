"""The words of Igor as types: instants, spans, ids, states, and the tree of errors.

Everything imports this module and it imports nothing of Igor. Units: an `Instant` is whole nanoseconds since 1970-01-01T00:00:00Z, a `Span`
whole nanoseconds; both are plain integers at run time, so that they cross MessagePack, JSON and SQLite unchanged and no float ever
enters the ledger. Texts are RFC 3339 in UTC (`2026-11-24T02:00:00Z`, fractions only where there are any).

    IgorError                       HTTP  exit
    ├── Malformed                   400   2     the request cannot be read
    ├── Unauthenticated             401   6     no token, or one that is not known
    ├── Denied                      403   6     the token's role is too small
    ├── NotFound                    404   4
    ├── Conflict                    409   5     the state of the thing forbids it
    │   └── StaleVersion            412   5     If-Match names another version
    ├── TooLarge                    413   2
    ├── WrongHost                   421   6     another cluster, or a Host that is not ours
    ├── Invalid                     422   2     readable, but not allowed: every fault in `faults`
    ├── NeedsVersion                428   2     If-Match or If-None-Match is missing
    ├── TooMany                     429   1     a bound was reached; try again after `retry_after_s`
    └── Unavailable                 503   7     no leader, no quorum, or nobody to ask
        └── OutcomeUnknown          503   7     sent, perhaps done: ask again with the same key
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NewType

Instant = NewType("Instant", int)
"""Whole nanoseconds since the epoch, UTC."""
Span = NewType("Span", int)
"""Whole nanoseconds."""
RunId = NewType("RunId", str)
"""Time-ordered, 20 characters of [0-9a-z]; see `new_id`."""
JobId = NewType("JobId", str)
"""`project/name`."""
AttemptId = NewType("AttemptId", str)
"""`RUN.STAGE.N`; also the name of the attempt's folder."""

SECOND = 1_000_000_000
MILLISECOND = 1_000_000

_last_id = 0
_chances: list[int] = []
CHANCES_AT_ONCE = 256
_ALPHABET = "0123456789abcdefghijklmnopqrstuv"  # base 32, in the order of ASCII: ids sort by time
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class RunState(StrEnum):
    """`scheduled → queued → running → an end state`; `waiting` is for a person. End states never change."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"
    MISSED = "missed"


class StageState(StrEnum):
    """A stage waits for its needs (`waiting`), then for a place (`queued`), then is with a node."""

    WAITING = "waiting"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"
    NOT_RUN = "not_run"


class AttemptState(StrEnum):
    """`assigned` (in the ledger) `→ held` (its wrapper waits for the due time) `→ running → an end`; `revoked` never started."""

    ASSIGNED = "assigned"
    HELD = "held"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"
    REVOKED = "revoked"


class TryState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"


class Trigger(StrEnum):
    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"
    RUN = "run"


class NodeState(StrEnum):
    UP = "up"
    SILENT = "silent"
    DRAINING = "draining"
    LOST = "lost"


class Role(StrEnum):
    """Roles of tokens, smallest first; `node` stands beside them and may only do what nodes do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    DEPLOYER = "deployer"
    ADMIN = "admin"
    NODE = "node"


RUN_LIVE = (RunState.SCHEDULED, RunState.QUEUED, RunState.RUNNING, RunState.WAITING)
RUN_ENDS = frozenset(RunState) - set(RUN_LIVE)
STAGE_ENDS = frozenset(StageState) - {StageState.WAITING, StageState.QUEUED, StageState.ASSIGNED, StageState.RUNNING}
ATTEMPT_ENDS = frozenset(AttemptState) - {AttemptState.ASSIGNED, AttemptState.HELD, AttemptState.RUNNING}


class IgorError(Exception):
    """What failed, on what, and what to do next (`hint`). `status` is the HTTP status, `exit_code` the command line's."""

    status = 500
    exit_code = 1
    title = "Internal error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class Malformed(IgorError):
    status, exit_code, title = 400, 2, "Malformed request"


class Unauthenticated(IgorError):
    status, exit_code, title = 401, 6, "Not authenticated"


class Denied(IgorError):
    status, exit_code, title = 403, 6, "Not allowed"


class NotFound(IgorError):
    status, exit_code, title = 404, 4, "Not found"


class Conflict(IgorError):
    status, exit_code, title = 409, 5, "Conflict"


class StaleVersion(Conflict):
    status, title = 412, "Not the current version"


class TooLarge(IgorError):
    status, exit_code, title = 413, 2, "Too large"


class WrongHost(IgorError):
    status, exit_code, title = 421, 6, "Wrong cluster or host"


class Invalid(IgorError):
    """`faults` holds one line a fault, each `FILE:LINE: FIELD.PATH: what is wrong; what was expected`."""

    status, exit_code, title = 422, 2, "Invalid"

    def __init__(self, message: str, *, hint: str = "", faults: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.faults = tuple(faults)


class NeedsVersion(IgorError):
    status, exit_code, title = 428, 2, "If-Match is missing"


class TooMany(IgorError):
    status, exit_code, title = 429, 1, "Too many"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(IgorError):
    status, exit_code, title = 503, 7, "Unavailable"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class OutcomeUnknown(Unavailable):
    title = "Outcome unknown"


ERRORS: tuple[type[IgorError], ...] = (
    Malformed,
    Unauthenticated,
    Denied,
    NotFound,
    Conflict,
    StaleVersion,
    TooLarge,
    WrongHost,
    Invalid,
    NeedsVersion,
    TooMany,
    Unavailable,
    OutcomeUnknown,
)
ERROR_BY_NAME: dict[str, type[IgorError]] = {error.__name__: error for error in ERRORS}


def new_id(now: Instant) -> str:
    """A time-ordered id of 20 characters: 10 of milliseconds since the epoch, 10 of chance (50 bits). Ids made here one after the other sort so."""
    global _last_id
    value = (now // MILLISECOND) << 50 | _chance(50)
    if value <= _last_id and value >> 50 == _last_id >> 50:
        value = _last_id + 1 + _chance(20)
    _last_id = value
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(95, -1, -5))


def _chance(bits: int) -> int:
    """Of the system's, fetched for hundreds of ids at once: each call to the kernel hands the interpreter to another thread for a while."""
    try:
        return _chances.pop() >> 64 - bits
    except IndexError:
        _chances.extend(struct.unpack(f"={CHANCES_AT_ONCE}Q", os.urandom(8 * CHANCES_AT_ONCE)))
        return secrets.randbits(bits)


os.register_at_fork(after_in_child=_chances.clear)  # two processes must never draw the same


def id_time(identifier: str) -> Instant:
    """The instant (to the millisecond) in an id of `new_id`. Raises ValueError where it is none."""
    if len(identifier) != 20:
        raise ValueError(f"an id has 20 characters, {identifier!r} has {len(identifier)}")
    millis = 0
    for character in identifier[:10]:
        millis = millis << 5 | _ALPHABET.index(character)
    return Instant(millis * MILLISECOND)


def id_floor(instant: int) -> str:
    """No id of `new_id` made at or after this instant sorts before it."""
    millis = max(0, instant) // MILLISECOND
    return "".join(_ALPHABET[millis >> shift & 31] for shift in range(45, -1, -5))


def format_instant(instant: int) -> str:
    """RFC 3339 in UTC, with as many digits of fraction as are needed (0, 3, 6 or 9)."""
    seconds, nanos = divmod(instant, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:19]
    if nanos:
        digits = f"{nanos:09d}"
        text += "." + (digits[:3] if digits.endswith("000000") else digits[:6] if digits.endswith("000") else digits)
    return text + "Z"


_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?(Z|z|[+-]\d{2}:\d{2})",
)


def parse_instant(text: str) -> Instant:
    """An RFC 3339 text with an offset or `Z`. Raises ValueError that says what was expected."""
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a time; expected RFC 3339 with an offset, like 2026-11-24T02:00:00Z')
    day, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as problem:
        raise ValueError(f'"{text}" is not a time: {problem}') from None
    return Instant(int(moment.timestamp()) * SECOND + int((fraction or "0").ljust(9, "0")))


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = (86_400 * SECOND, 3_600 * SECOND, 60 * SECOND, SECOND, MILLISECOND)


def parse_span(text: str) -> Span:
    """`90s`, `1h30m`, `2d`, `500ms`: whole numbers with a unit, largest first. Raises ValueError that says what was expected."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; expected a number with its unit, like 90s, 1h30m or 2d")
    return Span(sum(int(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part))


def format_span(span: int) -> str:
    """The shortest text that `parse_span` reads back: `1h30m`, `90s` becomes `1m30s`, 0 is `0s`."""
    parts = []
    for unit, name in zip(_UNITS, ("d", "h", "m", "s", "ms"), strict=True):
        count, span = divmod(span, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def wall_now() -> Instant:
    """The machine's wall clock. Only edges and proposers call it; rules and apply take the time as an argument."""
    return Instant(time.time_ns())


USER_LABEL = "user:"
"""A node has the label `user:NAME` for each user as whom its owner lets commands run; jobs with `user: NAME` are placed on such nodes alone."""


def base_url(address: str, *, tls: bool) -> str:
    """Of a node: HOST:PORT as the ledger and consensus have it, with the scheme of its cluster. A URL stays what it is."""
    return address if "://" in address else f"{'https' if tls else 'http'}://{address}"
