"""Who did what: one row for each command that a person or a token sent and that changed something.

A row is written where the command is applied, so it is as durable as what it tells of, the same on every replica, and there is no way around it. No
command removes one but `Prune`, by age. It has the actor, the token, the address they came from, the action and its object, and what was before and
after as far as that is short. Values that are secret, and whatever is long (sources, definitions, certificates), do not get here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from igor_node.ledger import commands, schema
from igor_node.ledger.commands import Command, Done, Envelope, Result
from igor_node.ledger.transaction import Transaction

DETAIL_LIMIT_BYTES = 4 * 1024  # of either, as JSON; what is longer is left out
JOBS_NAMED = 20  # of a command about many
HIDDEN = frozenset({"hash", "token_hash", "sealed", "sealed_key", "certificates", "jobs", "sources", "params", "data", "session", "subject", "rows"})


class Deed(NamedTuple):
    action: str
    object: str
    project: str | None = None
    before: Any = None


def about(tx: Transaction, envelope: Envelope) -> Deed | None:
    """What the command is about to do, looked up before it is applied. None: nothing that a person does."""
    if envelope.origin is None:
        return None
    describe = DEEDS.get(type(envelope.command))
    return None if describe is None else describe(tx, envelope.command)


def note(tx: Transaction, envelope: Envelope, deed: Deed | None, result: Result) -> None:
    """Once it is done. What was refused has changed nothing."""
    origin = envelope.origin
    if deed is None or origin is None or not isinstance(result, Done):
        return
    after = {name: value for name, value in msgspec.to_builtins(envelope.command).items() if name not in HIDDEN and name != "type"}
    told = result.value if isinstance(result.value, dict) else {}
    if told.get("known") or told.get("unchanged") or told.get("changed") is False:
        return  # done before
    if isinstance(envelope.command, commands.StagePush):
        if "project" not in told:
            return  # a part, and more are to come
        deed = deed._replace(object=told["project"], project=told["project"])
    if isinstance(envelope.command, commands.PushProject | commands.StagePush):
        after = {name: value for name, value in told.items() if name != "handed_out"}
    values = (deed.action, deed.object, deed.project, _short(deed.before), _short(after))
    tx.execute(schema.INSERT_ACTIVITY, (tx.time, envelope.id, tx.actor, origin.token, origin.address, *values))
    tx.touch("activity")


def _short(value: Any) -> str | None:
    if value is None:
        return None
    text = msgspec.json.encode(value, order="deterministic").decode()
    return text if len(text.encode()) <= DETAIL_LIMIT_BYTES else None


def _node(action: str) -> Callable[[Transaction, Any], Deed]:
    def describe(tx: Transaction, command: Any) -> Deed:
        row = tx.one(schema.SELECT_NODE, command.node)
        before = None if row is None else {"name": row[0], "address": row[1], "state": row[5], "reason": row[6]}
        return Deed(action, command.node, None, before)

    return describe


def _node_state(tx: Transaction, command: commands.NodeChanged) -> Deed:
    action = {"draining": "node.drain", "up": "node.undrain"}.get(command.state, f"node.{command.state}")
    return _node(action)(tx, command)


def _push(tx: Transaction, command: commands.PushProject) -> Deed:
    row = tx.one(schema.SELECT_PROJECT, command.project)
    return Deed("project.push", command.project, command.project, {"version": 0 if row is None else row[0]})


def _staged(tx: Transaction, command: commands.StagePush) -> Deed:
    """The part that completes it is the push; its answer says of which project."""
    return Deed("project.push", command.push)


def _jobs(action: str) -> Callable[[Transaction, Any], Deed]:
    def describe(tx: Transaction, command: Any) -> Deed:
        projects = {job.partition("/")[0] for job in command.jobs}
        named = ", ".join(command.jobs[:JOBS_NAMED]) + (f" and {len(command.jobs) - JOBS_NAMED} more" if len(command.jobs) > JOBS_NAMED else "")
        return Deed(action, named, projects.pop() if len(projects) == 1 else None)

    return describe


def _run(action: str) -> Callable[[Transaction, Any], Deed]:
    def describe(tx: Transaction, command: Any) -> Deed:
        run = tx.run(command.run)
        before = None if run is None else {"job": run.job, "state": run.state}
        return Deed(action, command.run, None if run is None else run.job.partition("/")[0], before)

    return describe


def _backfill(tx: Transaction, command: commands.CancelBackfill) -> Deed:
    row = tx.one(schema.SELECT_BACKFILL, command.backfill)
    return Deed("backfill.cancel", command.backfill, None if row is None else row[0].partition("/")[0], None if row is None else {"made": row[3]})


def _token(action: str) -> Callable[[Transaction, Any], Deed]:
    return lambda tx, command: Deed(action, command.token, command.projects[0] if len(getattr(command, "projects", ())) == 1 else None)


def _secret(action: str) -> Callable[[Transaction, Any], Deed]:
    def describe(tx: Transaction, command: Any) -> Deed:
        newest = tx.one(schema.SELECT_SECRET, command.project, command.name)
        return Deed(action, command.name, command.project or None, {"version": None if newest is None else newest[0]})

    return describe


DEEDS: Mapping[type[Command], Callable[[Transaction, Any], Deed]] = {
    commands.RegisterNode: _node("node.join"),
    commands.NodeChanged: _node_state,
    commands.RemoveNode: _node("node.remove"),
    commands.SetAuthority: lambda tx, command: Deed("authority.set", f"generation {command.generation}"),
    commands.DropAuthority: lambda tx, command: Deed("authority.drop", f"generation {command.generation}"),
    commands.KeyMade: lambda tx, command: Deed("key.make", f"generation {command.generation}"),
    commands.CreateToken: _token("token.create"),
    commands.RevokeToken: _token("token.revoke"),
    commands.LogIn: _token("login"),
    commands.EndSession: lambda tx, command: Deed("logout", "session"),
    commands.SetSecret: _secret("secret.set"),
    commands.RemoveSecret: _secret("secret.remove"),
    commands.PushProject: _push,
    commands.StagePush: _staged,
    commands.PauseJobs: _jobs("job.pause"),
    commands.ResumeJobs: _jobs("job.resume"),
    commands.CreateRun: lambda tx, command: Deed("run.create", command.run, command.job.partition("/")[0], {"job": command.job}),
    commands.CancelRun: _run("run.cancel"),
    commands.DecideLost: _run("run.lost"),
    commands.CreateBackfill: lambda tx, command: Deed("backfill.create", command.backfill, command.job.partition("/")[0], {"job": command.job}),
    commands.CancelBackfill: _backfill,
}
