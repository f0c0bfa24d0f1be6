"""Projects: what was pushed, a push, and what a push would change.

A push is checked here again, by the code that checked it on the client, and only then proposed: the ledger gets compiled jobs. All or nothing: one
that is larger than an entry of the ledger goes in parts, and takes effect with the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from igor_node.definitions.jobs import Job, encode_job
from igor_node.definitions.load import check_objects
from igor_node.definitions.resolve import Resolved
from igor_node.http.api.jobs import coming, handed_out_json, text, warnings
from igor_node.http.dispatch import Call, part_id
from igor_node.http.limits import PUSH_BODY_LIMIT_BYTES, PUSH_WITHIN_S
from igor_node.http.permissions import Reach
from igor_node.http.routes import Reply, Route, Struct, Where
from igor_node.ledger import commands, query_jobs, query_pools, query_secrets
from igor_node.ledger.apply_staged import PART_BYTES, STAGED_LIMIT_BYTES
from igor_node.rules.placement import PoolView
from igor_node.words import NAME, Invalid, Malformed, NeedsVersion, NotFound, Role, TooLarge

NOT_COMPARED = frozenset({"source_file", "source_line"})  # where a definition stands says nothing about the job
NEXT_FIRES = 3
UNSET_SHOWN = 100  # of a push's secrets that are not set; the rest is a number


class PushBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`definitions`: objects as in the files; `sources`: the files' texts by path; `source`: where they come from, in words."""

    definitions: list[dict[str, Any]]
    sources: dict[str, str] = {}
    artifact: str | None = None
    prune: bool = False
    source: str = ""


async def list_projects(call: Call) -> Any:
    rows = await call.read(query_jobs.projects)
    return {"items": [version_json(row) for row in rows if call.caller.sees(row.project)], "next": None}


async def show_project(call: Call) -> Any:
    project = project_name(call)
    row = await call.read(lambda connection: query_jobs.project(connection, project))
    if row is None:
        raise NotFound(f'no project is named "{project}"', hint="igor push DIR makes one")
    shown = {**version_json(row.last), "jobs": [job.id for job in row.jobs], "sources": row.sources}
    return Reply(shown, headers={"ETag": f'"{row.version}"'})


async def project_history(call: Call) -> Any:
    project = project_name(call)
    rows = await call.read(lambda connection: query_jobs.project_history(connection, project))
    if not rows:
        raise NotFound(f'no project is named "{project}"', hint="igor push DIR makes one")
    return {"items": [version_json(row) for row in rows], "next": None}


def version_json(row: query_jobs.VersionRow) -> dict[str, Any]:
    return {
        "project": row.project,
        "version": row.version,
        "pushed_at": text(row.pushed_at),
        "pushed_by": row.actor,
        "source": row.source,
        "created": row.created,
        "changed": row.changed,
        "removed": row.removed,
        "job_count": row.jobs,
    }


def project_name(call: Call) -> str:
    project = call.part("project")
    if not NAME.fullmatch(project):
        raise Malformed(f'"{project}" is not a name of a project', hint="expected up to 100 letters, digits, - _ .")
    return project


async def push(call: Call) -> Any:
    project, body = project_name(call), call.body
    if_version = asked_version(call)
    found = await checked(call, project, body)
    jobs = found.jobs
    command = commands.PushProject(
        project=project,
        jobs=tuple(encode_job(job) for job in jobs),
        sources=body.sources,
        if_version=if_version,
        prune=body.prune,
        source=body.source,
        pools=found.pools,
    )
    data = commands.encode_push(command)
    unset = await unset_secrets(call, project, jobs)
    done = await call.propose(command) if len(data) <= PART_BYTES else await propose_in_parts(call, project, data)
    handed_out = handed_out_json(done["handed_out"])
    answer = {"project": project, **done, "handed_out": handed_out, "warnings": [*warnings(handed_out), *unset]}
    return Reply(answer, headers={"ETag": f'"{done["version"]}"'})


async def propose_in_parts(call: Call, project: str, data: bytes) -> Any:
    """The answer to the last part, which is that to the push. Each part has an id that follows from the request's, so all of it may be sent again."""
    if len(data) > STAGED_LIMIT_BYTES:
        raise TooLarge(
            f"project {project} makes {len(data)} bytes in the ledger, at most {STAGED_LIMIT_BYTES} are possible",
            hint="split it into several projects",
        )
    call.deadline = max(call.deadline, asyncio.get_running_loop().time() + PUSH_WITHIN_S)
    pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    done = None
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        command = commands.StagePush(push=call.command_id, part=number, parts=len(pieces), data=piece)
        done = await call.propose(command, command_id=call.command_id if last else part_id(call.command_id, number))
    return done


def asked_version(call: Call) -> int:
    """The version that `If-Match` names, 0 for `If-None-Match: *`."""
    match, none_match = call.request.headers.get("If-Match"), call.request.headers.get("If-None-Match")
    if match is not None:
        number = match.strip().removeprefix("W/").strip('"')
        if not number.isascii() or not number.isdigit() or len(number) > 15:
            raise Malformed(f"header If-Match is {match[:40]}", hint='expected the version in quotes, like "7"')
        return int(number)
    if none_match is not None:
        if none_match.strip() != "*":
            raise Malformed(f"header If-None-Match is {none_match[:40]}", hint="expected *")
        return 0
    raise NeedsVersion("a push must say which version it replaces", hint='send If-Match: "N", or If-None-Match: * for a new project')


async def checked(call: Call, project: str, body: PushBody) -> Resolved:
    """The compiled jobs, and the pools. Raises Invalid with every fault. In a thread: ten thousand jobs take seconds."""
    if body.artifact is not None:
        raise Invalid("the push is not valid", faults=["artifact: artifacts are not supported by this version yet; expected null"])
    return await asyncio.to_thread(check_objects, project, body.definitions, call.now())


async def unset_secrets(call: Call, project: str, jobs: list[Job]) -> list[str]:
    """A warning for each secret that a job names and nobody has set, as a fault reads. No refusal: a project may come before its secrets."""
    named = {(job.id, name): job for job in jobs for stage in job.stages for name in stage.secrets.values()}
    if not named:
        return []
    known = await call.read(lambda connection: query_secrets.names_set(connection, project))
    found = [unset_text(job, name) for (_, name), job in named.items() if name not in known]
    more = [f"{len(found) - UNSET_SHOWN} more secrets are not set"] if len(found) > UNSET_SHOWN else []
    return found[:UNSET_SHOWN] + more


def unset_text(job: Job, name: str) -> str:
    place = f"{job.source_file}:{job.source_line}: " if job.source_line else ""
    what = f"secrets: {name} is not set, neither in project {job.project} nor for the whole cluster"
    return f"{place}job {job.id}: {what}; attempts fail until it is: igor secret set {name} --project {job.project}"


async def list_pools(call: Call) -> Any:
    """Of the projects that the caller sees; `holders`: a run for each slot that is taken, for who sees all projects."""
    found = await call.read(query_pools.pools)
    items = [
        {
            "pool": name,
            "project": name.partition("/")[0],
            "slots": view.slots,
            "used": len(view.holders),
            "holders": [] if call.projects else list(view.holders),
        }
        for name, view in found.items()
        if call.caller.sees(name.partition("/")[0])
    ]
    return {"items": items, "next": None}


# --- plan


async def plan(call: Call) -> Any:
    project, body = project_name(call), call.body
    found = await checked(call, project, body)
    after = found.jobs
    row = await call.read(lambda connection: query_jobs.project(connection, project))
    before = row.jobs if row is not None else []
    changes = await asyncio.to_thread(compare, before, after, call.now())
    unset = await unset_secrets(call, project, after)
    pools = pool_changes(await call.read(query_pools.pools), project, found.pools)
    return {"project": project, "version": row.version if row is not None else 0, "changes": changes, "pools": pools, "warnings": unset}


def pool_changes(now: Mapping[str, PoolView], project: str, after: Mapping[str, int]) -> list[dict[str, Any]]:
    """Slots of the project's pools, before and after, where they differ; null where there is no such pool."""
    before = {name.partition("/")[2]: view.slots for name, view in now.items() if name.startswith(f"{project}/")}
    return [
        {"pool": f"{project}/{name}", "before": before.get(name), "after": after.get(name)}
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def compare(before: list[Job], after: list[Job], now: int) -> list[dict[str, Any]]:
    """One entry a job that would be created, changed or removed, by its name; fires before and after."""
    old, new = {job.id: job for job in before}, {job.id: job for job in after}
    changes = []
    for name in sorted({*old, *new}):
        fields = field_changes(old.get(name), new.get(name))
        if not fields and name in old and name in new:
            continue
        changes.append(
            {
                "job": name,
                "change": "create" if name not in old else "remove" if name not in new else "change",
                "fields": fields if name in old and name in new else [],
                "next_before": coming(old[name], now, NEXT_FIRES) if name in old else [],
                "next": coming(new[name], now, NEXT_FIRES) if name in new else [],
            }
        )
    return changes


def field_changes(old: Job | None, new: Job | None) -> list[dict[str, Any]]:
    left, right = plain(old), plain(new)
    return [
        {"field": path, "before": left.get(path), "after": right.get(path)} for path in sorted({*left, *right}) if left.get(path) != right.get(path)
    ]


def plain(job: Job | None) -> dict[str, Any]:
    """A job as field paths with their values; defaults are left out, lists stand as one value but for stages and schedules."""
    found: dict[str, Any] = {}
    if job is not None:
        unfold("", msgspec.json.decode(encode_job(job)), found)
    return {path: value for path, value in found.items() if path not in NOT_COMPARED}


def unfold(path: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            unfold(f"{path}.{name}" if path else name, inner, found)
    elif isinstance(value, list) and path == "stages":
        for inner in value:
            alone = len(value) == 1 and inner["name"] == "main"
            unfold("" if alone else f"stages.{inner['name']}", {k: v for k, v in inner.items() if k != "name"} if alone else inner, found)
    elif isinstance(value, list) and path == "schedules":
        for number, inner in enumerate(value):
            unfold("schedule" if len(value) == 1 else f"schedules.{number + 1}", inner, found)
    else:
        found[path] = value


ROUTES = (
    Route(method="GET", path="/v1/projects", handler=list_projects, summary="Projects and their current versions", reach=Reach.LIST),
    Route(method="GET", path="/v1/projects/{project}", handler=show_project, summary="A project's current version", reach=Reach.PROJECT),
    Route(method="GET", path="/v1/projects/{project}/history", handler=project_history, summary="A project's versions, the latest first",
          reach=Reach.PROJECT),
    Route(method="GET", path="/v1/pools", handler=list_pools, summary="Pools, and what holds their slots", reach=Reach.LIST),
    Route(
        method="PUT", path="/v1/projects/{project}", handler=push, summary="Push a project: all of it, or nothing", role=Role.DEPLOYER,
        reach=Reach.PROJECT, where=Where.WRITE, body=PushBody, body_limit=PUSH_BODY_LIMIT_BYTES,
    ),
    Route(
        method="POST", path="/v1/projects/{project}/plan", handler=plan, summary="What a push would change", role=Role.VIEWER,
        reach=Reach.PROJECT, body=PushBody, body_limit=PUSH_BODY_LIMIT_BYTES,
    ),
)  # fmt: skip
