"""Commands about the cluster and the way to it: `nodes`, `status`, `ui`, `login`, `logout`, `whoami`, `token`, `completion`."""

from __future__ import annotations

from typing import Any

import click

from igor_node import words
from igor_node.cli import output
from igor_node.cli.client import Client, segment
from igor_node.cli.command import Command, Group
from igor_node.cli.output import Column
from igor_node.cli.session import Session
from igor_node.cli.times import SpanSeconds

UNHEARD_S = 2.0  # a heartbeat comes every second

NODE_COLUMNS = (
    Column("NODE", "name"),
    Column("ROLE", "role"),
    Column("STATE", lambda node: state_of(node), "state"),
    Column("LEADER", lambda node: "*" if node.get("leader") else ""),
    Column("RUNNING", lambda node: f"{node.get('running', 0)}/{node.get('slots', 0)}", "number"),
    Column("ADDRESS", "address"),
    Column("LABELS", "labels"),
    Column("CLOCK ERROR", "clock_error_s", "span_s", wide=True),
)


@click.command("nodes", cls=Command, examples=["igor nodes", "igor nodes -o wide"])
@click.pass_obj
def nodes(session: Session) -> None:
    """List the nodes of the cluster."""
    found = session.client.get("/v1/cluster")
    items = [{**node, "leader": node["name"] == found.get("leader")} for node in found["nodes"]]
    session.items(items, NODE_COLUMNS, whole=found["nodes"], empty="no node is known")


@click.command("status", cls=Command, examples=["igor status", "igor status --json"])
@click.pass_obj
def status(session: Session) -> None:
    """Say in a few lines how the cluster is."""
    found = session.client.get("/v1/cluster")
    session.thing(found, status_lines(found), name="id")


def is_unheard(node: dict[str, Any]) -> bool:
    """Up for the ledger, but it missed some heartbeats: perhaps it is gone, and will be called silent after five seconds."""
    return node["state"] == "up" and (node.get("heard_s") or 0) >= UNHEARD_S


def state_of(node: dict[str, Any]) -> str:
    return f"up, last heard {output.span_text(node['heard_s'])} ago" if is_unheard(node) else str(node["state"])


def status_lines(found: dict[str, Any]) -> list[str]:
    names = [node["name"] for node in found["nodes"]]
    up = [node["name"] for node in found["nodes"] if node["state"] == "up" and not is_unheard(node)]
    away = [f"{node['name']} ({state_of(node)})" for node in found["nodes"] if node["state"] != "up" or is_unheard(node)]
    running = sum(node.get("running") or 0 for node in found["nodes"])
    slots = sum(node.get("slots") or 0 for node in found["nodes"] if node["state"] in ("up", "draining"))  # the others' are no help
    lines = [
        f"cluster   {found['id']}",
        f"leader    {found.get('leader') or 'none: nothing can be written now'}, term {found.get('term')}",
        f"voters    {', '.join(found.get('voters') or [])}",
        f"nodes     {len(up)} of {len(names)} up" + (f"; not up: {', '.join(away)}" if away else ""),
        f"running   {running} of {slots} slots",
        f"ledger    applied {found.get('applied_index')} of {found.get('commit_index')}",
    ]
    if found.get("why"):
        lines.append(f"no quorum: {found['why'].removeprefix('no quorum: ')}")
    elif not found.get("highly_available"):
        lines.append("not highly available: the loss of one more voter stops all writes")
    return [output.printable(line) for line in lines]


@click.command("ui", cls=Command, examples=["igor ui", "igor ui --print"])
@click.option("--print", "only_print", is_flag=True, help="Print the link instead of opening it.")
@click.pass_obj
def ui(session: Session, only_print: bool) -> None:
    """Open the page of the cluster, by a link that logs in once."""
    answer = session.client.write("POST", "/v1/session", {})
    link = page_link(answer.value, answer.node)
    if not only_print:
        import webbrowser

        only_print = not webbrowser.open(link)
    if only_print or session.form != "table":
        session.thing({"url": link}, [link], name="url")
    else:
        session.say("the page is open in the browser")


def page_link(answer: dict[str, Any], node: str) -> str:
    """The server's link, made whole with the address of the node that gave it: only that node knows it."""
    link = str(answer.get("url") or answer.get("link") or "")
    return link if "://" in link else node + link


# --- the way in


@click.command(
    "login",
    cls=Command,
    examples=["igor login --node 127.0.0.1:7946 --token-file admin.token", "igor login --node 127.0.0.1:7946 --token-file - < token"],
)
@click.pass_obj
def login(session: Session) -> None:
    """Remember the cluster and the token that the options name, for all later calls without options."""
    from igor_node.cli.target import write_context

    target = session.target
    token = target.token or click.prompt("Token", hide_input=True, err=True)
    client = Client(target.addresses, token)
    me = client.get("/v1/whoami")
    cluster = client.get("/v1/cluster")
    others = [node["address"] for node in cluster["nodes"] if node.get("address")]
    path = write_context(list(dict.fromkeys([*target.addresses, *others])), token, cluster["id"])
    session.say(f"logged in to cluster {cluster['id']} as {me.get('name') or me.get('token')} ({me.get('role')}); kept in {path}")


@click.command("logout", cls=Command, remote=False, examples=["igor logout"])
@click.pass_obj
def logout(session: Session) -> None:
    """Forget what `igor login` remembers. The token itself stays good: igor token revoke ends it."""
    from igor_node.cli.target import context_file

    path = context_file()
    known = path.exists()
    path.unlink(missing_ok=True)
    session.say(f"{path} is removed" if known else "there was no login")


@click.command("whoami", cls=Command, examples=["igor whoami"])
@click.pass_obj
def whoami(session: Session) -> None:
    """Say which token is used, with which role, and where it was found."""
    me = session.client.get("/v1/whoami")
    pairs = [(key, me.get(key)) for key in ("name", "role", "projects", "token", "expires_at")]
    lines = [f"{key + ':':<12}{', '.join(value) if isinstance(value, list) else value}" for key, value in pairs if value]
    session.thing(me, [*lines, f"{'nodes:':<12}{', '.join(session.target.addresses)} (from {session.target.place})"])


# --- tokens

TOKEN_COLUMNS = (
    Column("TOKEN", "id"),
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("PROJECTS", lambda token: ", ".join(token.get("projects") or []) or "all"),
    Column("CREATED", "created_at", "time"),
    Column("MADE BY", "made_by", wide=True),
    Column("EXPIRES", "expires_at", "time"),
)


@click.group("token", cls=Group, examples=["igor token create --role deployer --name ci --ttl 30d"])
def token() -> None:
    """Make, list and revoke tokens."""


@token.command(
    "create", examples=["igor token create --role deployer --name ci --project demo --ttl 90d", "igor token create --role node --ttl 1h --json"]
)
@click.option("--role", required=True, type=click.Choice([role.value for role in words.Role]), help="What its holder may do.")
@click.option("--name", default="", metavar="TEXT", help="Whom or what it is for.")
@click.option("--project", "projects", metavar="P", multiple=True, help="Good for this project alone; several times for several.")
@click.option("--ttl", "ttl_s", type=SpanSeconds(), metavar="SPAN", help="How long it is good; without it until it is revoked.")
@click.pass_obj
def create(session: Session, role: str, name: str, projects: tuple[str, ...], ttl_s: float | None) -> None:
    """Make a token and print it. It is shown this once: the cluster keeps only its hash.

    A token that is good for some projects, or for a while, makes none that is good for more, or for longer.
    """
    body = {"role": role, "name": name, "projects": list(projects), "ttl_s": None if ttl_s is None else int(ttl_s)}
    made = session.client.write("POST", "/v1/tokens", {key: value for key, value in body.items() if value not in (None, "", [])}).value
    session.thing(made, [made["token"]], name="id")
    session.say(f"token {made['id']} of role {role}" + (f", good until {session.time(made['expires_at'])}" if made.get("expires_at") else ""))


@token.command("list", examples=["igor token list"])
@click.pass_obj
def list_tokens(session: Session) -> None:
    """List the tokens that are good, without their secrets."""
    found = session.client.get("/v1/tokens")
    session.items(found["items"], TOKEN_COLUMNS, whole=found, name="id", empty="there are no tokens")


@token.command("revoke", examples=["igor token revoke 0k3v9"])
@click.argument("identifier", metavar="ID")
@click.pass_obj
def revoke(session: Session, identifier: str) -> None:
    """End a token at once."""
    session.confirm(f"revoke token {identifier}?")
    session.client.write("DELETE", f"/v1/tokens/{segment(identifier)}")
    session.say(f"token {identifier} is revoked")


@click.command("completion", cls=Command, remote=False, examples=['eval "$(igor completion bash)"', "igor completion zsh > ~/.zfunc/_igor"])
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "igor", "_IGOR_COMPLETE").source())
