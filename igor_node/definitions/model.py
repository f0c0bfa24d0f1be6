"""The shape of definition files: every kind, every field, as pydantic models.

`shape.py` checks a document by them and gives all of its faults; `json_schema` is what editors use. Only the shape is described here:
what depends on other fields or other documents (schedules, names, circles, values) is `resolve.py`. Fields that this version does not carry out
are checked for their shape too and then refused by `resolve.py`: nothing is accepted and ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from igor_node.definitions import fields as f

API_VERSION = "igor/v1"
STAGES_LIMIT = 1_000
ENV_LIMIT = 500
PARAMS_LIMIT = 100
LIST_LIMIT = 1_000
POOLS_LIMIT = 20  # of one stage
DAYS_LIMIT = 5_000  # of a calendar

Overlap = Annotated[
    Literal["queue", "queue_one", "skip", "cancel", "allow"], BeforeValidator(f.one_of("queue", "queue_one", "skip", "cancel", "allow"))
]
NodeLoss = Annotated[Literal["rerun", "wait", "fail"], BeforeValidator(f.one_of("rerun", "wait", "fail"))]
CatchUpPolicy = Annotated[Literal["latest", "all", "none"], BeforeValidator(f.one_of("latest", "all", "none"))]
OnPush = Annotated[Literal["latest", "keep"], BeforeValidator(f.one_of("latest", "keep"))]
ParamType = Annotated[
    Literal["string", "integer", "number", "boolean", "date", "secret"],
    BeforeValidator(f.one_of("string", "integer", "number", "boolean", "date", "secret")),
]
Environment = Annotated[dict[f.Variable, f.Word], Field(max_length=ENV_LIMIT)]
Labels = Annotated[dict[f.Name, f.Word], Field(max_length=LIST_LIMIT)]
Names = Annotated[list[f.Name], Field(max_length=LIST_LIMIT)]
Codes = Annotated[list[f.ExitCode], Field(max_length=256)]
Actions = Annotated[list[dict[str, Any]], Field(max_length=LIST_LIMIT)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CatchUp(Model):
    window: f.AnyDuration | None = None
    policy: CatchUpPolicy | None = None


class CalendarRule(Model):
    exclude: Names | None = None
    include: Names | None = None


class Schedule(Model):
    """When a job fires: one of `cron`, `every`, `at`."""

    cron: f.ShortText | None = Field(None, examples=["0 2 * * MON-FRI", "H/15 * * * *"])
    every: f.Duration | None = None
    at: f.ShortText | None = Field(None, examples=["2027-01-01T00:00:00Z"])
    timezone: f.ShortText | None = Field(None, examples=["Europe/Berlin"])
    calendar: CalendarRule | None = None
    starts_at: f.ShortText | None = None
    ends_at: f.ShortText | None = None
    jitter: f.AnyDuration | None = None
    catch_up: CatchUp | None = None


class Backoff(Model):
    initial: f.AnyDuration | None = None
    factor: f.Factor | None = None
    max: f.AnyDuration | None = None
    jitter: f.Share | None = None


class Retries(Model):
    max: f.RetryCount | None = None
    backoff: Backoff | None = None
    on: Annotated[list[f.RetryReason], Field(max_length=257)] | None = None


class Param(Model):
    type: ParamType | None = None
    default: f.Scalar = None
    choices: Annotated[list[f.Scalar], Field(min_length=1, max_length=LIST_LIMIT)] | None = None
    pattern: f.Pattern | None = None
    min: f.Number | None = None
    max: f.Number | None = None
    description: f.ShortText | None = None


class Limits(Model):
    memory: f.Size | None = None
    cpu: f.Number | None = None


class Work(Model):
    """What a job and a stage have in common."""

    command: f.Command | None = None
    env: Environment | None = None
    allow_plain: Annotated[list[f.Variable], Field(max_length=ENV_LIMIT)] | None = None
    secrets: Annotated[dict[f.Variable, f.Name], Field(max_length=ENV_LIMIT)] | None = None
    timeout: f.Duration | None = None
    total_timeout: f.Duration | None = None
    grace: f.AnyDuration | None = None
    retries: Retries | None = None
    success_codes: Annotated[Codes, Field(min_length=1)] | None = None
    retry_codes: Codes | None = None
    skip_codes: Codes | None = None
    constraints: Labels | None = None
    slots: f.Thousand | None = None
    pools: Annotated[list[f.PoolName], Field(max_length=POOLS_LIMIT)] | None = None
    limits: Limits | None = None
    on_node_loss: NodeLoss | None = None
    user: f.ShortText | None = None
    workdir: f.Directory | None = None


class Approval(Model):
    role: f.Name | None = None
    timeout: f.Duration | None = None
    form: dict[f.ParamName, Param] | None = None


class TriggerJob(Model):
    job: f.ShortText
    params: dict[f.ParamName, f.Scalar] | None = None
    wait: f.Truth | None = None


class Stage(Work):
    """One command of a job, with the stages that it needs."""

    name: f.Name
    needs: Names | None = None
    approval: Approval | None = None
    trigger: TriggerJob | None = None
    when: f.ShortText | None = None
    matrix: dict[f.ParamName, Any] | None = None
    max_parallel: f.Thousand | None = None
    fail_fast: f.Truth | None = None
    always: f.Truth | None = None
    allow_failure: f.Truth | None = None
    save: Annotated[list[f.ShortText], Field(max_length=LIST_LIMIT)] | None = None
    fetch: Annotated[list[f.ShortText], Field(max_length=LIST_LIMIT)] | None = None


class JobFields(Work):
    """The fields that `defaults:` of a project may set too."""

    owner: f.ShortText | None = None
    tags: Annotated[list[f.ShortText], Field(max_length=LIST_LIMIT)] | None = None
    links: Annotated[dict[f.Text, f.ShortText], Field(max_length=LIST_LIMIT)] | None = None
    severity: f.ShortText | None = None
    paused: f.Truth | None = None
    schedule: Schedule | None = None
    params: Annotated[dict[f.ParamName, Param | None], Field(max_length=PARAMS_LIMIT)] | None = None
    umask: f.Umask | None = None
    shell: f.Program | None = None
    overlap: Overlap | None = None
    max_queued: f.Queue | None = None
    max_parallel: f.Thousand | None = None
    deadline: f.Duration | None = None
    priority: f.Priority | None = None
    lease: f.Lease | None = None
    max_attempts: f.Hundred | None = None
    state: f.Truth | None = None
    log_limit: f.LogSize | None = None
    on_push: OnPush | None = None
    shadow: f.Truth | None = None
    on_failure: Actions | None = None
    on_success: Actions | None = None
    on_recovery: Actions | None = None
    on_late: Actions | None = None


class Document(Model):
    apiVersion: Annotated[Literal["igor/v1"], BeforeValidator(f.one_of(API_VERSION))]


class Job(JobFields, Document):
    """A definition: schedule, stages, policies."""

    kind: Literal["Job"]
    name: f.Name
    description: f.ShortText | None = None
    schedules: Annotated[list[Schedule], Field(min_length=1, max_length=100)] | None = None
    stages: Annotated[list[Stage], Field(min_length=1, max_length=STAGES_LIMIT)] | None = None


class Calendar(Document):
    """A named list of days that schedules exclude or include."""

    kind: Literal["Calendar"]
    name: f.Name
    description: f.ShortText | None = None
    days: Annotated[list[f.Text], Field(max_length=DAYS_LIMIT)]


class Pool(Document):
    """A named limit on concurrent stages across jobs."""

    kind: Literal["Pool"]
    name: f.Name
    description: f.ShortText | None = None
    slots: f.Queue


class Channel(Document):
    """Where alerts go: one of the ways."""

    kind: Literal["Channel"]
    name: f.Name
    description: f.ShortText | None = None
    webhook: Any = None
    slack: Any = None
    email: Any = None
    pagerduty: Any = None
    command: Any = None


class Monitor(JobFields, Document):
    """A job without a command: something outside says that it ran."""

    kind: Literal["Monitor"]
    name: f.Name
    description: f.ShortText | None = None


class Project(Document):
    """Names the project of a folder, and what all its jobs begin with."""

    kind: Literal["Project"]
    name: f.Name
    description: f.ShortText | None = None
    defaults: JobFields | None = None


KINDS: dict[str, type[Document]] = {"Job": Job, "Calendar": Calendar, "Pool": Pool, "Channel": Channel, "Monitor": Monitor, "Project": Project}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one document of a definition file."""
    union: Any = Annotated[Job | Calendar | Pool | Channel | Monitor | Project, Field(discriminator="kind")]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Igor definition", **TypeAdapter(union).json_schema()}
