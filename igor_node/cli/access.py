"""The way in: `login`, `logout`, `whoami`, `context`, and tokens for others.

A token comes from a file, standard input, a prompt that does not show it, or a log-in in the browser; never from an argument, which every user of the
machine could read. It is kept in the context's file and printed by no command but the one that makes it.
"""

from __future__ import annotations

from typing import Any

import click

from igor_node import words
from igor_node.cli import contexts
from igor_node.cli.client import Client, segment
from igor_node.cli.command import Command, Group
from igor_node.cli.contexts import Context
from igor_node.cli.output import Column
from igor_node.cli.session import Session
from igor_node.cli.times import SpanSeconds


@click.command(
    "login",
    cls=Command,
    examples=[
        "igor login 127.0.0.1:7946 --token-file admin.token",
        "igor login https://igor.example:7946 --context prod --token-file - < token",
        "igor login https://igor.example:7946 --oidc",
    ],
)
@click.argument("url", required=False)
@click.option("--oidc", is_flag=True, help="Log in with the browser, at the provider of identities that the node is set up with.")
@click.option("--no-browser", is_flag=True, help="With --oidc: print the address to open; the browser may be on another machine.")
@click.option("--fingerprint", metavar="HEX", help="With --oidc and https: that of the cluster's CA, where no public authority vouches for it.")
@click.pass_obj
def login(session: Session, url: str | None, oidc: bool, no_browser: bool, fingerprint: str | None) -> None:
    """Remember a cluster and a token for all later calls without options.

    URL is any node of the cluster; without it the options name one. --context says under which name; else it is the cluster's id, or the name under
    which the cluster is known already. The token comes from --token-file, IGOR_TOKEN or a prompt.
    """
    addresses, token = _named(session, url)
    if oidc:
        from igor_node.cli.browser import log_in

        token = log_in(addresses[0], fingerprint, open_browser=not no_browser, say=session.warn)
    token = token or click.prompt("Token", hide_input=True, err=True)
    client = Client(addresses, token)
    me, cluster = client.get("/v1/whoami"), client.get("/v1/cluster")
    name = session.context or contexts.name_for(cluster["id"])
    path = contexts.write(Context(name, cluster["id"], contexts.nodes_of(addresses, cluster), token))
    contexts.use(name)
    session.say(f"logged in to cluster {cluster['id']} as {me.get('name') or me.get('token')} ({me.get('role')}); kept in {path}")


def _named(session: Session, url: str | None) -> tuple[tuple[str, ...], str | None]:
    """Addresses and a token. A new context is no place to look for either."""
    from igor_node.cli.target import find_target

    nodes = (url, *session.nodes) if url is not None else session.nodes
    if url is not None:
        from igor_node.cli.target import given_token, normal_address

        return tuple(dict.fromkeys(normal_address(node) for node in nodes)), given_token(session.token_file)
    target = find_target(nodes, session.data_dir, session.token_file)
    return target.addresses, target.token


@click.command("logout", cls=Command, remote=False, examples=["igor logout", "igor logout prod"])
@click.argument("name", required=False)
@click.pass_obj
def logout(session: Session, name: str | None) -> None:
    """Forget a context: NAME, or the one in use.

    What a log-in with the browser gave ends everywhere. A token that came from elsewhere stays good: igor token revoke ends it.
    """
    known = name or contexts.current()
    if known is None:
        session.say("there was no login")
        return
    _end_login(session, known)
    path = contexts.file_of(known)
    session.say(f"{path} is removed" if contexts.remove(known) else f"there is no context {known}")


def _end_login(session: Session, name: str) -> None:
    """Where it cannot be ended now it ends by itself; the context is forgotten all the same."""
    from igor_node.cli.target import target_of

    try:
        target = target_of(contexts.read(name))
        client = Client(target.addresses, target.token, patience_s=1.0)
        if client.get("/v1/whoami").get("login"):
            client.write("DELETE", "/v1/session")
    except words.Unauthenticated:
        pass  # it has ended
    except words.IgorError as problem:
        if isinstance(problem, words.Unavailable):
            session.warn(f"igor: {problem.message}: if this was a log-in with the browser, it ends by itself")


@click.command("whoami", cls=Command, examples=["igor whoami", "igor whoami --context prod"])
@click.pass_obj
def whoami(session: Session) -> None:
    """Say which token is used, with which role, and where it was found."""
    me = session.client.get("/v1/whoami")
    pairs = [(key, me.get(key)) for key in ("name", "role", "projects", "token", "expires_at")]
    lines = [f"{key + ':':<12}{', '.join(value) if isinstance(value, list) else value}" for key, value in pairs if value]
    session.thing(me, [*lines, f"{'nodes:':<12}{', '.join(session.target.addresses)} (from {session.target.place})"])


# --- contexts

CONTEXT_COLUMNS = (
    Column("CONTEXT", "name"),
    Column("IN USE", lambda context: "*" if context["current"] else ""),
    Column("CLUSTER", "cluster"),
    Column("TOKEN", "token"),
    Column("NODES", lambda context: ", ".join(context["nodes"]), wide=True),
)


@click.group("context", cls=Group, remote=False, examples=["igor context list", "igor context use prod"])
def context() -> None:
    """The clusters that igor login remembers, and which of them is in use."""


def shown(kept: Context) -> dict[str, Any]:
    """Of the token its id alone."""
    return {
        "name": kept.name, "cluster": kept.cluster, "nodes": list(kept.nodes), "token": kept.token_id, "current": kept.name == contexts.current(),
    }  # fmt: skip


@context.command("list", remote=False, examples=["igor context list"])
@click.pass_obj
def list_contexts(session: Session) -> None:
    """List the contexts; of their tokens the ids."""
    found = []
    for name in contexts.names():
        try:
            found.append(shown(contexts.read(name)))
        except words.Malformed as problem:
            session.warn(f"igor: {problem}")
    session.items(found, CONTEXT_COLUMNS, empty="there are none; igor login makes one")


@context.command("use", remote=False, examples=["igor context use prod"])
@click.argument("name")
@click.pass_obj
def use_context(session: Session, name: str) -> None:
    """Use this one for all later calls without options."""
    contexts.use(name)
    session.say(f"context {name} is in use")


@context.command("show", remote=False, examples=["igor context show", "igor context show prod"])
@click.argument("name", required=False)
@click.pass_obj
def show_context(session: Session, name: str | None) -> None:
    """Show one, or the one in use: its cluster, its nodes, the id of its token."""
    known = name or contexts.current()
    if known is None:
        raise words.NotFound("no context is in use", hint="igor login makes one; igor context list shows them")
    found = shown(contexts.read(known))
    lines = [f"{key + ':':<10}{', '.join(found[key]) if key == 'nodes' else found[key]}" for key in ("name", "cluster", "nodes", "token")]
    session.thing(found, lines)


# --- tokens

TOKEN_COLUMNS = (
    Column("TOKEN", "id"),
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("PROJECTS", lambda token: ", ".join(token.get("projects") or []) or "all"),
    Column("CREATED", "created_at", "time"),
    Column("MADE BY", "made_by", wide=True),
    Column("EXPIRES", "expires_at", "time"),
    Column("LAST USED", "last_used_at", "time"),
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
