"""Commands about definitions: `init`, `validate`, `plan`, `push`, `schema`. Files are read here, on the client, and nowhere else.

The loader is imported when a command needs it: pydantic and the YAML parser cost more than the rest of the command line together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from igor_node import words
from igor_node.cli import output
from igor_node.cli.client import segment
from igor_node.cli.command import Command
from igor_node.cli.session import Session

FOLDER = click.Path(path_type=Path)
PLAN_FOUND_CHANGES = 3
CHECK_TIMEOUT_S = 120.0  # a node checks a thousand definitions a second, and 64 MiB of them may come

EXAMPLE_PROJECT = """\
apiVersion: igor/v1
kind: Project
name: {name}
"""
EXAMPLE_JOB = """\
apiVersion: igor/v1
kind: Job
name: hello
description: Says hello every minute
schedule: {cron: "* * * * *", timezone: UTC}
command: ["echo", "hello from ${{ job }}, due at ${{ scheduled_time }}"]
timeout: 30s
"""


@click.command("init", cls=Command, remote=False, examples=["igor init jobs", "igor init jobs && igor push jobs"])
@click.argument("folder", type=FOLDER, default=".", metavar="[DIR]")
@click.pass_obj
def init(session: Session, folder: Path) -> None:
    """Write a first project into DIR: project.yaml and one job."""
    name = project_name(folder)
    texts = {"project.yaml": EXAMPLE_PROJECT.replace("{name}", name), "hello.yaml": EXAMPLE_JOB}
    for file in texts:
        if (folder / file).exists():
            raise words.Conflict(f"{folder / file} exists already", hint="nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    session.thing({"name": name, "files": [str(folder / file) for file in texts]}, [str(folder / file) for file in texts])
    session.say(f"project {name}; next: igor validate {folder}, then igor push {folder}")


def project_name(folder: Path) -> str:
    """The folder's name, with what a name may not hold replaced."""
    raw = folder.resolve().name
    name = "".join(character if character.isascii() and (character.isalnum() or character in "-_.") else "-" for character in raw).lstrip("-_.")[:100]
    return name or "project"


@click.command("validate", cls=Command, remote=False, examples=["igor validate jobs"])
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.pass_obj
def validate(session: Session, folder: Path) -> int:
    """Check the definitions in DIR: all faults of all files at once, without a node.

    Exit code 0 if they are valid, 2 if not.
    """
    try:
        loaded = load(folder)
    except words.Invalid as problem:
        if session.structured:
            output.write_json({"valid": False, "faults": list(problem.faults)})
        raise
    jobs = [{"name": job.id, "stages": len(job.stages), "schedules": len(job.schedules)} for job in loaded.jobs]
    if session.structured:
        output.write_json({"valid": True, "project": loaded.project, "jobs": [job["name"] for job in jobs], "faults": []})
    elif session.form == "name":
        output.write_lines(str(job["name"]) for job in jobs)
    session.say(f"project {loaded.project}: {counted(len(jobs), 'job')}, valid")
    return 0


def load(folder: Path) -> Any:
    if not folder.is_dir():
        raise words.Invalid(f"{folder} is not a folder", hint="name the folder that holds the *.yaml files")
    from igor_node.definitions.load import load_folder

    return load_folder(folder)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command("plan", cls=Command, examples=["igor plan jobs", "igor plan jobs --json"])
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.pass_obj
def plan(session: Session, folder: Path) -> int:
    """Show what a push of DIR would change: jobs, fields, next fires.

    Exit code 0 if nothing, 3 if there are changes.
    """
    loaded = load(folder)
    session.client.answer_timeout_s = max(session.client.answer_timeout_s, CHECK_TIMEOUT_S)
    body = {"definitions": loaded.objects, "sources": loaded.sources, "artifact": None}
    found = session.client.write("POST", f"/v1/projects/{segment(loaded.project)}/plan", body).value
    changes, pools = found.get("changes") or [], found.get("pools") or []
    if session.form == "name":
        output.write_lines(change["job"] for change in changes)
    else:
        session.thing(found, [*map(pool_line, pools), *(line for change in changes for line in change_lines(session, change))])
    warn(session, found)
    count = len(changes) + len(pools)
    session.say(f"project {loaded.project}: " + (counted(count, "change") if count else "no changes"))
    return PLAN_FOUND_CHANGES if count else 0


def pool_line(pool: dict[str, Any]) -> str:
    mark = "+" if pool["before"] is None else "-" if pool["after"] is None else "~"
    return f"{mark} pool {pool['pool']}: {_value(pool['before'])} -> {_value(pool['after'])} slots"


def warn(session: Session, answer: dict[str, Any]) -> None:
    for warning in answer.get("warnings") or []:
        session.warn(str(warning))


MARKS = {"create": "+", "change": "~", "remove": "-"}


def change_lines(session: Session, change: dict[str, Any]) -> list[str]:
    """One job: what happens to it, field by field, and when it fires before and after."""
    lines = [f"{MARKS.get(change['change'], '?')} {change['job']}"]
    for field in change.get("fields") or []:
        lines.append(f"    {field['field']}: {_value(field.get('before'))} -> {_value(field.get('after'))}")
    for title, key in (("next fires now", "next_before"), ("next fires then", "next")):
        fires = change.get(key) or []
        if fires and change.get("next") != change.get("next_before"):
            lines.append(f"    {title}: " + ", ".join(session.time(fire) for fire in fires[:3]))
    return lines


def _value(value: Any) -> str:
    return "(nothing)" if value is None else output.printable(output.compact(value))


@click.command("push", cls=Command, examples=["igor push jobs", "igor push jobs --prune", "igor push jobs --if-version 7"])
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--prune", is_flag=True, help="Remove jobs that are no longer in DIR even if they are more than half of the project.")
@click.option("--if-version", type=click.IntRange(min=0), metavar="N", help="Only if the project is at version N (0: only if it is new).")
@click.option("--source", default="", metavar="TEXT", help="Where DIR comes from, kept with the version, like git:4f2c1aa.")
@click.pass_obj
def push(session: Session, folder: Path, prune: bool, if_version: int | None, source: str) -> None:
    """Send the project in DIR to the cluster, all of it or nothing."""
    loaded = load(folder)
    session.client.answer_timeout_s = max(session.client.answer_timeout_s, CHECK_TIMEOUT_S)
    path = f"/v1/projects/{segment(loaded.project)}"
    version = _current_version(session, path) if if_version is None else if_version
    body = {"definitions": loaded.objects, "sources": loaded.sources, "artifact": None, "prune": prune, "source": source}
    condition = {"If-Match": f'"{version}"'} if version else {"If-None-Match": "*"}
    pushed = session.client.write("PUT", path, body, headers=condition).value or {}
    session.thing(pushed, _pushed_lines(pushed, loaded.project), name="version")
    warn(session, pushed)
    session.say(f"project {loaded.project} is at version {pushed.get('version')}: {_pushed_summary(pushed)}")


def _current_version(session: Session, path: str) -> int:
    """0 where the project does not exist."""
    try:
        return int(session.client.get(path)["version"])
    except words.NotFound:
        return 0


def _pushed_lines(pushed: dict[str, Any], project: str) -> list[str]:
    """Jobs as `plan` names them: with their project."""
    marks = (("created", "+"), ("changed", "~"), ("removed", "-"))
    return [f"{mark} {project}/{job.removeprefix(f'{project}/')}" for key, mark in marks for job in pushed.get(key) or []]


def _pushed_summary(pushed: dict[str, Any]) -> str:
    parts = [f"{len(pushed[key])} {key}" for key in ("created", "changed", "removed") if pushed.get(key)]
    return ", ".join(parts) or "nothing changed"


@click.command("schema", cls=Command, remote=False, examples=["igor schema > igor.schema.json"])
def schema() -> None:
    """Print the JSON Schema of definition files, for editors."""
    from igor_node.definitions.model import json_schema

    output.write_json(json_schema())
