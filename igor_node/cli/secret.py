"""`igor secret`: set, list, show and remove secrets. A value is read from standard input or a file, never from an argument, and is never printed."""

from __future__ import annotations

import sys
from typing import Any

import click

from igor_node import words
from igor_node.cli.client import segment
from igor_node.cli.command import Group
from igor_node.cli.output import Column
from igor_node.cli.session import Session

VALUE_LIMIT_BYTES = 32 * 1024  # the node's own limit

COLUMNS = (
    Column("SECRET", "name"),
    Column("PROJECT", lambda secret: secret.get("project") or "all"),
    Column("VERSION", "version"),
    Column("SET", "set_at", "time"),
    Column("BY", "set_by"),
)
project_option = click.option("--project", metavar="P", help="The project whose secret it is; without it the whole cluster's.")


@click.group("secret", cls=Group, examples=["igor secret set warehouse-password --project demo < password"])
def secret() -> None:
    """Set, list and remove secrets; jobs name them under secrets:, and their commands find the values in the environment."""


@secret.command(
    "set", examples=["igor secret set warehouse-password --project demo < password", "pass db | igor secret set db", "igor secret set db --file F"]
)
@click.argument("name")
@project_option
@click.option(
    "--file", "path", metavar="F", type=click.File("rb"), help="Where the value is; without it standard input. A newline at its end is left out."
)
@click.pass_obj
def set_secret(session: Session, name: str, project: str | None, path: Any) -> None:
    """Set a secret, or give it another value: attempts that begin from now on get it.

    On a terminal the value is asked for, and not shown.
    """
    value = read_value(path)
    made = session.client.write("PUT", place(project, name), {"value": value}).value
    session.thing(made, [f"secret {name} is set, version {made['version']}"], name="version")


@secret.command("list", examples=["igor secret list --project demo"])
@project_option
@click.pass_obj
def list_secrets(session: Session, project: str | None) -> None:
    """List the secrets by name; nobody is shown a value."""
    found = session.client.get(place(project))
    session.items(found["items"], COLUMNS, whole=found, name="name", empty="there are no secrets; igor secret set makes one")


@secret.command("show", examples=["igor secret show warehouse-password --project demo"])
@click.argument("name")
@project_option
@click.pass_obj
def show(session: Session, name: str, project: str | None) -> None:
    """Show when a secret was set, by whom, which jobs name it, and which runs used it last. Its value is shown to nobody."""
    found = session.client.get(place(project, name))
    lines = [f"{'secret:':<9}{found['name']} ({'project ' + found['project'] if found['project'] else 'the whole cluster'})"]
    lines.append(f"{'used by:':<9}{', '.join(found['jobs']) or 'no job'}")
    lines += [f"version {row['version']}: set {session.time(row['set_at'])} by {row['set_by']}" for row in found["versions"]]
    lines += [use_line(session, use) for use in found["uses"]]
    session.thing(found, lines)


@secret.command("rm", examples=["igor secret rm warehouse-password --project demo"])
@click.argument("name")
@project_option
@click.pass_obj
def remove(session: Session, name: str, project: str | None) -> None:
    """Remove a secret. Attempts that need it fail from now on, with its name as the reason."""
    session.confirm(f"remove secret {name}?")
    session.client.write("DELETE", place(project, name))
    session.say(f"secret {name} is removed")


def use_line(session: Session, use: dict[str, Any]) -> str:
    version = f"version {use['version']}" if use["version"] is not None else "a version that is no longer known"
    return f"used by run {use['run']} of {use['job']}, {use['stage']}.{use['attempt']} on {use['node']}, {session.time(use['started_at'])}: {version}"


def place(project: str | None, name: str | None = None) -> str:
    base = f"/v1/projects/{segment(project)}/secrets" if project else "/v1/secrets"
    return base if name is None else f"{base}/{segment(name)}"


def read_value(file: Any) -> str:
    """Raises Malformed for what no environment can hold."""
    if file is None and sys.stdin.isatty():
        return str(click.prompt("value", hide_input=True, err=True))
    data = (file or sys.stdin.buffer).read(VALUE_LIMIT_BYTES + 1)
    if len(data) > VALUE_LIMIT_BYTES:
        raise words.Malformed(f"the value has more than {VALUE_LIMIT_BYTES} bytes")
    try:
        text: str = data.decode()
    except UnicodeDecodeError:
        raise words.Malformed("the value is not UTF-8 text", hint="encode binary values, in base64 say") from None
    return text.removesuffix("\n")
