"""A job as the ledger keeps it: validated, with defaults filled in, every duration in nanoseconds.

`definitions/load.py` makes these from YAML or from the JSON of a push; `rules`, `leader` and `agent` read them. They are stored in the ledger as
JSON (`encode_job`, `decode_job`), so a field may be added with a default but never change its meaning. Calendars are resolved into dates here,
because replicas never compute them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from igor_node.words import SECOND

MINUTE = 60 * SECOND
PARAMS_LIMIT_BYTES = 64 * 1024  # all params of a run together


class Struct(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    pass


class CatchUp(Struct, frozen=True, kw_only=True, omit_defaults=True):
    window_ns: int = 10 * MINUTE
    policy: str = "latest"  # latest | all | none


class Schedule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of `cron`, `every_ns`, `at`. Dates are ISO texts in the schedule's own zone."""

    cron: str | None = None
    every_ns: int | None = None
    at: int | None = None
    timezone: str = "UTC"
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] | None = None
    starts_at: int | None = None
    ends_at: int | None = None
    jitter_ns: int = 0
    catch_up: CatchUp = CatchUp()


class Backoff(Struct, frozen=True, kw_only=True, omit_defaults=True):
    initial_ns: int = 10 * SECOND
    factor: float = 2.0
    max_ns: int = 5 * MINUTE
    jitter: float = 0.0  # share of the wait that chance may take away, 0 to 1


class Retries(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`max` further tries after the first. `on` None: after every failure and time-out."""

    max: int = 0
    backoff: Backoff = Backoff()
    on: tuple[int | str, ...] | None = None  # exit codes and the word "timeout"


class Param(Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str = "string"  # string | integer | number | boolean | date | secret
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] | None = None
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    description: str = ""


class Stage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    command: tuple[str, ...] | str
    needs: tuple[str, ...] = ()
    always: bool = False
    allow_failure: bool = False
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}  # name in the environment -> name of the secret
    timeout_ns: int | None = None
    total_timeout_ns: int | None = None
    grace_ns: int = 10 * SECOND
    retries: Retries = Retries()
    success_codes: tuple[int, ...] = (0,)
    retry_codes: tuple[int, ...] | None = None
    skip_codes: tuple[int, ...] = ()
    constraints: dict[str, str] = {}
    slots: int = 1
    pools: tuple[str, ...] = ()  # PROJECT/NAME; one slot of each, all at once
    on_node_loss: str = "rerun"  # rerun | wait | fail
    workdir: str | None = None
    user: str | None = None  # None: as whom the node runs


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    project: str
    name: str
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    links: dict[str, str] = {}
    severity: str = ""
    paused: bool = False
    schedules: tuple[Schedule, ...] = ()
    stages: tuple[Stage, ...]
    params: dict[str, Param] = {}
    umask: int | None = None
    shell: str = "/bin/sh"
    overlap: str = "queue"  # queue | queue_one | skip | cancel | allow
    max_queued: int = 100
    max_parallel: int = 10
    priority: int = 0
    deadline_ns: int | None = None
    lease_ns: int = 3 * MINUTE
    max_attempts: int = 3
    log_limit_bytes: int = 100 * 1024 * 1024
    on_push: str = "latest"  # latest | keep
    source_file: str = ""  # path inside the pushed folder
    source_line: int = 0

    @property
    def id(self) -> str:
        return f"{self.project}/{self.name}"


encode_job = msgspec.json.Encoder(order="deterministic").encode
decode_job = msgspec.json.Decoder(Job).decode
