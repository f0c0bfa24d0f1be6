"""Secrets: set, listed by name, removed, and given to the node that runs an attempt which needs them. No route gives a value to a person.

A value is sealed before it is proposed (trust/sealing.py), so that the log, the ledger and every backup hold what only the cluster's key opens.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from igor_node.http.api.jobs import text
from igor_node.http.dispatch import Call, part_id
from igor_node.http.permissions import Reach
from igor_node.http.routes import Reply, Route, Struct, Where
from igor_node.ledger import commands, query_secrets
from igor_node.trust.sealing import Sealed, purpose_of_secret, seal, unseal
from igor_node.words import NAME, Conflict, Denied, Invalid, NotFound, Role, Unavailable

VALUE_LIMIT_BYTES = 32 * 1024
VALUE_LEAST_BYTES = 4  # what is shorter cannot be told from other output, and so not be masked in it
TRIES = 3  # somebody else may set the same secret


class SecretBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    value: str


async def list_secrets(call: Call) -> Any:
    project = project_of(call)
    rows = await call.read(lambda connection: query_secrets.secrets(connection, project))
    return {"items": [secret_json(row) for row in rows], "next": None}


async def show_secret(call: Call) -> Any:
    project, name = project_of(call), secret_name(call)

    def ask(connection: sqlite3.Connection) -> Any:
        found = query_secrets.versions(connection, project, name)
        return found, query_secrets.users(connection, project, name), query_secrets.uses(connection, project, name)

    versions, jobs, uses = await call.read(ask)
    if not versions or versions[0].ended_at is not None:
        raise unknown(project, name)
    return {**secret_json(versions[0]), "versions": [secret_json(row) for row in versions], "jobs": jobs, "uses": [use_json(use) for use in uses]}


async def set_secret(call: Call) -> Any:
    project, name, value = project_of(call), secret_name(call), call.body.value.encode()
    check_value(value)
    ring = call.services.keys.ring
    if ring is None:
        raise Unavailable("this node does not hold the cluster's key", hint="ask again in a moment")
    for number in range(TRIES):
        newest = await call.read(lambda connection: query_secrets.newest_version(connection, project, name))
        sealed = seal(ring, purpose_of_secret(project, name, newest + 1), value)
        try:
            # An id of its own for each: the same one again would only get the first refusal again.
            command_id = part_id(call.command_id, number) if number else call.command_id
            done = await call.propose(commands.SetSecret(project=project, name=name, version=newest + 1, sealed=sealed), command_id=command_id)
            return Reply({"project": project or None, **done}, status=200 if newest else 201)
        except Conflict:
            if number == TRIES - 1:
                raise
    raise AssertionError("unreachable")


async def remove_secret(call: Call) -> Any:
    return await call.propose(commands.RemoveSecret(project=project_of(call), name=secret_name(call)))


async def give_secrets(call: Call) -> Any:
    """To the node that runs the attempt, and to no other."""
    attempt = call.part("attempt")
    wanted = await call.read(lambda connection: query_secrets.wanted_by(connection, attempt))
    if call.caller.node is None or wanted.node != call.caller.node:
        raise Denied(f"attempt {attempt} is not one of yours", hint="its secrets are for the node that runs it")
    return opened(call.services.keys.ring, wanted)


def opened(ring: Any, wanted: query_secrets.Wanted) -> dict[str, Any]:
    """`values` by the name in the environment; `refuse`: why the attempt must not begin. Raises Unavailable where the key is not here."""
    if wanted.missing:
        names = ", ".join(wanted.missing)
        return {"refuse": f"secret {names} is not set in project {wanted.project}, nor for the whole cluster; igor secret set sets it"}
    if ring is None:
        raise Unavailable("this node does not hold the cluster's key", hint="ask the leader")
    found = {}
    for variable, one in wanted.by_variable.items():
        try:
            found[variable] = unseal(ring, purpose_of_secret(one.project, one.name, one.version), one.sealed).decode()
        except Sealed:
            return {
                "refuse": f"secret {one.name} was sealed with a key that this cluster does not have, as after a restore; igor secret set sets it anew"
            }
    return {"values": found}


# --- small things


def project_of(call: Call) -> str:
    """Empty: the whole cluster's."""
    project = call.request.match_info.get("project", "")
    if project and not NAME.fullmatch(project):
        raise Invalid(f'"{project}" is not a name of a project', hint='expected letters, digits, "-", "_", "."')
    return project


def secret_name(call: Call) -> str:
    name = call.part("secret")
    if not NAME.fullmatch(name):
        raise Invalid(f'"{name}" is not a name of a secret', hint='expected letters, digits, "-", "_", "."')
    return name


def check_value(value: bytes) -> None:
    if b"\0" in value:
        raise Invalid("the value has a NUL byte, which no environment can hold")
    if not VALUE_LEAST_BYTES <= len(value) <= VALUE_LIMIT_BYTES:
        raise Invalid(f"the value has {len(value)} bytes; expected {VALUE_LEAST_BYTES} to {VALUE_LIMIT_BYTES}")


def use_json(use: query_secrets.Use) -> dict[str, Any]:
    return {
        "run": use.run,
        "job": use.job,
        "stage": use.stage,
        "attempt": use.attempt,
        "node": use.node,
        "started_at": text(use.started_at),
        "version": use.version,
    }


def secret_json(row: query_secrets.SecretRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "project": row.project or None,
        "version": row.version,
        "set_at": text(row.set_at),
        "set_by": row.set_by,
        "ended_at": text(row.ended_at),
    }


def unknown(project: str, name: str) -> NotFound:
    return NotFound(f'there is no secret "{name}"{f" in project {project}" if project else ""}', hint="igor secret list shows them")


ROUTES = (
    Route(method="GET", path="/v1/projects/{project}/secrets", handler=list_secrets, summary="The secrets of a project, without values",
          reach=Reach.PROJECT),
    Route(method="GET", path="/v1/projects/{project}/secrets/{secret}", handler=show_secret, summary="A secret: its versions, and who uses it",
          reach=Reach.PROJECT),
    Route(method="PUT", path="/v1/projects/{project}/secrets/{secret}", handler=set_secret, summary="Set a secret of a project", role=Role.DEPLOYER,
          reach=Reach.PROJECT, where=Where.WRITE, body=SecretBody, statuses=(200, 201)),
    Route(method="DELETE", path="/v1/projects/{project}/secrets/{secret}", handler=remove_secret, summary="Remove a secret of a project",
          role=Role.DEPLOYER, reach=Reach.PROJECT, where=Where.WRITE),
    Route(method="GET", path="/v1/secrets", handler=list_secrets, summary="The secrets of the whole cluster, without values"),
    Route(method="GET", path="/v1/secrets/{secret}", handler=show_secret, summary="A secret of the whole cluster: its versions, and who uses it"),
    Route(method="PUT", path="/v1/secrets/{secret}", handler=set_secret, summary="Set a secret of the whole cluster", role=Role.ADMIN,
          where=Where.WRITE, body=SecretBody, statuses=(200, 201)),
    Route(method="DELETE", path="/v1/secrets/{secret}", handler=remove_secret, summary="Remove a secret of the whole cluster", role=Role.ADMIN,
          where=Where.WRITE),
    Route(method="POST", path="/v1/attempts/{attempt}/secrets", handler=give_secrets, summary="Between nodes: what an attempt is given",
          role=Role.NODE, where=Where.HERE),
)  # fmt: skip
