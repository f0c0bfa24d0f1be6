"""Commands about the cluster: `nodes`, `node show|drain|undrain`, `status`, `ui`, `completion`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from igor_node import words
from igor_node.cli import output
from igor_node.cli.client import Client, segment
from igor_node.cli.command import Command, Group
from igor_node.cli.output import Column
from igor_node.cli.session import Session

IDLE_LOOK_S = 0.5
UNHEARD_S = 2.0  # a heartbeat comes every second
REPLACED = {"key": ("the cluster's key", "key"), "ca": ("the cluster's CA", "certificate")}  # as `igor-node rotate` names it -> name, part of a node

NODE_COLUMNS = (
    Column("NODE", "name"),
    Column("ROLE", lambda node: f"{node['role']}, ephemeral" if node.get("ephemeral") else node["role"]),
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


@click.group("node", cls=Group, examples=["igor node show n2"])
def node() -> None:
    """Show one node, give it nothing new, use it again."""


@node.command("show", examples=["igor node show n2", "igor node show n2 --json"])
@click.argument("name", metavar="NODE")
@click.pass_obj
def show(session: Session, name: str) -> None:
    """Show a node: what it is, what it has, what runs there."""
    found = find_node(session, name)
    lines = [f"{title + ':':<9}{output.printable(str(value))}" for title, value in node_facts(found) if value not in (None, "")]
    session.thing(found, lines, name="name")


def node_facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    role = f"{found['role']}, ephemeral" if found.get("ephemeral") else found["role"]
    return [
        ("node", found["name"]),
        ("id", found["id"]),
        ("role", role),
        ("state", f"{state_of(found)}{': ' + found['reason'] if found.get('reason') else ''}"),
        ("address", found["address"]),
        ("labels", ", ".join(f"{label}={value}" for label, value in sorted((found.get("labels") or {}).items()))),
        ("running", f"{found.get('running', 0)}, on {found.get('slots_used', 0)} of {found.get('slots', 0)} slots"),
        ("version", found.get("version")),
    ]


def find_node(session: Session, name: str) -> dict[str, Any]:
    nodes = session.client.get("/v1/cluster")["nodes"]
    found = [one for one in nodes if name in (one["id"], one["name"])]
    if not found:
        raise words.NotFound(f'no node is named "{name}"', hint=f"there are {', '.join(one['name'] for one in nodes)}")
    return dict(found[0])


@node.command("drain", examples=["igor node drain n2 -m 'new disks'", "igor node drain n2 --until-empty"])
@click.argument("name", metavar="NODE")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why, for whoever wonders.")
@click.option("--until-empty", is_flag=True, help="Wait until nothing runs there any more.")
@click.pass_obj
def drain(session: Session, name: str, reason: str, until_empty: bool) -> None:
    """Give a node nothing new. What runs there goes on to its end."""
    found = find_node(session, name)
    session.confirm(f"give node {found['name']} nothing new?")
    answer = session.client.write("POST", f"/v1/nodes/{segment(found['id'])}/drain", {"reason": reason}).value
    if until_empty:
        wait_until_idle(session.client, found["id"], session.say)
        answer = find_node(session, found["id"])
    if session.structured:
        session.thing(answer, [])
    session.say(f"node {found['name']} gets nothing new; {answer['running']} attempts run there")


@node.command("undrain", examples=["igor node undrain n2"])
@click.argument("name", metavar="NODE")
@click.pass_obj
def undrain(session: Session, name: str) -> None:
    """Use a drained node again."""
    found = find_node(session, name)
    answer = session.client.write("POST", f"/v1/nodes/{segment(found['id'])}/undrain", {}).value
    if session.structured:
        session.thing(answer, [])
    session.say(f"node {found['name']} is {answer['state']}")


def wait_until_idle(client: Client, node: str, say: Callable[[str], None], wait_words: str = "") -> None:
    """Says how many attempts are waited for, when that changes."""
    said = 0
    while running := next((one["running"] for one in client.get("/v1/cluster")["nodes"] if one["id"] == node), 0):
        if running != said:
            said = running
            say(f"waiting for {running} attempts to end; nothing new comes{wait_words}")
        time.sleep(IDLE_LOOK_S)


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
    lines += [f"replacing {name}: waiting for {waits_for(found, part)}" for what, (name, part) in REPLACED.items() if is_replaced(found, what)]
    if found.get("why"):
        lines.append(f"no quorum: {found['why'].removeprefix('no quorum: ')}")
    elif not found.get("highly_available"):
        lines.append("not highly available: the loss of one more voter stops all writes")
    return [output.printable(line) for line in lines]


def is_replaced(cluster: dict[str, Any], what: str) -> bool:
    return (cluster.get(what) or {}).get("replaced") is True


def waits_for(cluster: dict[str, Any], part: str) -> str:
    """Whom or what the replacement of the key or the CA waits for."""
    lacking = [node["name"] for node in cluster["nodes"] if part in node.get("behind", ())]
    away = [
        f"{node['name']} ({node['state']})" for node in cluster["nodes"] if node["state"] == "silent" and (part != "key" or node["role"] != "worker")
    ]
    return ", ".join([*lacking, *away]) or ("runs that began before to end" if part == "key" else "a word of each node")


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
