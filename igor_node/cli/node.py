"""`igor-node`: starts a node, joins one to a cluster, takes one out, checks one.

Settings are read and checked here (`igor_node.settings`); only `start` and `join` then load `igor_node.node`, which knows all the parts. `leave` and
`check` are small clients of a node that runs. Whatever stops a node from starting is one line on standard error and an exit code:
0 asked to stop, 1 failed, 2 usage, 3 data directory damaged or in use, 4 refused by the cluster.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from igor_node import words
from igor_node.cli import command
from igor_node.cli.client import Client, segment
from igor_node.cli.operate import IDLE_LOOK_S, REPLACED, is_replaced, wait_until_idle, waits_for
from igor_node.cli.target import default_data_dir, normal_address, read_token_file
from igor_node.settings import AUTH, LOG_FORMATS, LOG_LEVELS, TLS, Join, default_name, read_settings

CHECK_TIMEOUT_S = 5.0
FAILED, REFUSED = 1, 4
OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
VERDICTS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
CLOCK_ERROR_WARNING_S = 1.0  # a leader's clock that is further off stops scheduling


def data_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-dir", envvar="IGOR_DATA_DIR", type=click.Path(path_type=Path), metavar="D", help="Where the node keeps all it has [IGOR_DATA_DIR]."
    )(function)


def node_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `start`, which `join` has too; each is a setting of `igor_node.settings` under its own name."""
    for option in reversed(
        (
            data_dir_option,
            click.option("--listen", metavar="HOST:PORT", help="Where to listen, 127.0.0.1:7946 without it; port 0 picks one."),
            click.option("--advertise", metavar="HOST:PORT", help="The address that other nodes are told, if it is another one."),
            click.option("--name", metavar="N", help="The node's name, the host's without it."),
            click.option("--label", "labels", multiple=True, metavar="K=V", help="A property that jobs may ask for; may be given several times."),
            click.option("--slots", type=int, metavar="N", help="How many stages may run here at once."),
            click.option("--voters", type=int, metavar="N", help="How many voters the cluster shall have: 1, 3, 5 or 7; 3 without it."),
            click.option("--auth", type=click.Choice(AUTH), help="Whether requests need a token; off is for loopback alone."),
            click.option("--tls", type=click.Choice(TLS), help="on: a cluster that is founded here has TLS on loopback too."),
            click.option("--log-format", type=click.Choice(LOG_FORMATS), help="How to log; auto: text on a terminal, else JSON."),
            click.option("--log-level", type=click.Choice(LOG_LEVELS), help="What to log, info without it."),
        )
    ):
        function = option(function)
    return function


@click.group(
    "igor-node",
    cls=command.Group,
    session=False,
    examples=["igor-node start --data-dir n1", "igor-node join 127.0.0.1:7946 --token-file n1/join.token --data-dir n2"],
)
@click.version_option(package_name="igor-node", prog_name="igor-node")
def igor_node() -> None:
    """A node of Igor: keeps the ledger, takes part in decisions, runs jobs, serves API and page.

    Settings come from D/node.toml, then the environment (IGOR_LISTEN, ...), then options.
    """


@igor_node.command(
    "start", session=False, examples=["igor-node start --data-dir n1", "igor-node start --data-dir n1 --listen 127.0.0.1:0 --name n1 --label zone=eu"]
)
@node_options
def start(data_dir: Path | None, **options: Any) -> int:
    """Start the node of a data directory; on an empty one, found a new cluster.

    Ends with SIGTERM or Ctrl-C; running commands go on and are found again at the next start.
    """
    return serve(data_dir, options, None)


@igor_node.command(
    "join",
    session=False,
    examples=[
        "igor-node join 127.0.0.1:7946 --token-file n1/join.token --data-dir n2",
        "igor-node join 127.0.0.1:7946 --token igor1.none.k3.x --slots 8",
    ],
)
@click.argument("peers", nargs=-1, required=True, metavar="PEER...")
@click.option("--token", metavar="T", help="A token of role node (or admin) of that cluster.")
@click.option("--token-file", metavar="F", help="Where the token is; - is standard input.")
@click.option("--ephemeral", is_flag=True, help="A node that never votes, and leaves the cluster when it stops or is lost.")
@click.option("--reset", is_flag=True, help="Throw away what D holds of another cluster.")
@node_options
def join(
    peers: tuple[str, ...], token: str | None, token_file: str | None, ephemeral: bool, reset: bool, data_dir: Path | None, **options: Any
) -> int:
    """Join the cluster of PEER (HOST:PORT or URL) and serve; on a data directory that belongs to it, go on."""
    if token and token_file:
        raise click.UsageError("expected --token or --token-file, not both")
    given = read_token_file(token_file) if token_file else token or os.environ.get("IGOR_TOKEN") or None
    return serve(data_dir, options, Join(tuple(normal_address(peer) for peer in peers), given, reset, ephemeral))


def serve(data_dir: Path | None, options: dict[str, Any], joining: Join | None) -> int:
    """Checks the settings, then starts the node and stays until it ends."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings = read_settings(data_dir or default_data_dir(), given)
    make_data_dir(settings.data_dir)
    from igor_node.node import run_node

    try:
        return run_node(settings, join=joining)
    except words.IgorError as problem:
        command.tell("igor-node", problem)
        return exit_code_of(problem)


def exit_code_of(problem: words.IgorError) -> int:
    """A refusal by the cluster is 4; what names a code of its own (`DataDirProblem`: 3, `StartFailed`: 1) keeps it; all else failed."""
    if isinstance(problem, words.Denied | words.Unauthenticated | words.WrongHost | words.Conflict):
        return REFUSED
    return FAILED if isinstance(problem, words.ERRORS) else problem.exit_code


def make_data_dir(data_dir: Path) -> None:
    """There, a directory, and writable, before anything heavy is loaded. Nobody else may read it: it will hold keys."""
    from igor_node.data_dir import make_folder  # here, so that `--help` does not load it

    try:
        make_folder(data_dir)
        probe = data_dir / f".writable-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as problem:
        raise StartFailed(f"data directory {data_dir}: {start_trouble(problem)}") from None


class StartFailed(words.IgorError):
    exit_code, title = 1, "The node could not start"


def start_trouble(problem: OSError) -> str:
    match problem.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; a node needs room for its journal before it may promise anything"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"not writable ({os.strerror(problem.errno).lower()}); choose another one with --data-dir, or change its owner"
        case errno.EEXIST | errno.ENOTDIR:
            return "not a directory"
        case _:
            return (problem.strerror or str(problem)).lower()


# --- a node that runs


def client_of(settings_dir: Path) -> tuple[Client, dict[str, Any]]:
    """A client of the node of a data directory alone (not of its peers), with the best token found there, and its node.json."""
    try:
        address = (settings_dir / "address").read_text(encoding="utf-8").strip()
        about = json.loads((settings_dir / "node.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise words.Unavailable(f"{settings_dir}: no node has been in service here", hint="start one: igor-node start") from None
    token = next((text for name in ("admin.token", "node.token") if (text := _text_of(settings_dir / name))), None) or os.environ.get("IGOR_TOKEN")
    own = (str(settings_dir / "node.crt"), str(settings_dir / "node.key")) if (settings_dir / "node.crt").exists() else None
    return Client((normal_address(address),), token, answer_timeout_s=CHECK_TIMEOUT_S, certificate=own), about


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@igor_node.command("leave", session=False, examples=["igor-node leave --data-dir n3"])
@data_dir_option
def leave(data_dir: Path | None) -> None:
    """Take the node out of its cluster for good. It must run; it gets nothing new, and what it runs ends first.

    Ctrl-C while it waits: the node stays and is used again. Afterwards its process can be stopped.
    """
    client, about = client_of(data_dir or default_data_dir())
    path = f"/v1/nodes/{segment(about['id'])}"
    client.write("POST", f"{path}/drain", {"reason": "it is to leave"})
    try:
        wait_until_idle(client, str(about["id"]), lambda text: click.echo(text, err=True), " (Ctrl-C: stay)")
        client.write("DELETE", path)
    except BaseException:
        with contextlib.suppress(words.IgorError):
            client.write("POST", f"{path}/undrain", {"reason": "it stays"})
        raise
    click.echo(f"node {about.get('name')} has left cluster {about.get('cluster')}; its process can be stopped", err=True)


@igor_node.command("rotate", session=False, examples=["igor-node rotate key --data-dir n1", "igor-node rotate ca --data-dir n1 --no-wait"])
@data_dir_option
@click.option("--no-wait", is_flag=True, help="Only begin it; it goes on by itself.")
@click.argument("what", type=click.Choice(list(REPLACED)))
def rotate(data_dir: Path | None, no_wait: bool, what: str) -> None:
    """Replace the cluster's key, or its CA, while everything runs. The data directory is that of a node with admin.token in it, or IGOR_TOKEN is set.

    It ends when every node has what is new; nodes that are away hold it up. People log in to the page again after a new key.
    """
    client, _ = client_of(data_dir or default_data_dir())
    name, part = REPLACED[what]
    try:
        generation = client.write("POST", f"/v1/cluster/{what}").value["generation"]
        click.echo(f"{name} of generation {generation} is made", err=True)
    except words.Conflict as problem:
        if not is_replaced(client.get("/v1/cluster"), what):
            raise
        click.echo(f"{problem.message}", err=True)
    if not no_wait:
        wait_until_replaced(client, what, part)
        click.echo(f"{name} is replaced", err=True)


def wait_until_replaced(client: Client, what: str, part: str) -> None:
    """Says for whom it waits, when that changes."""
    said = ""
    while True:
        cluster = client.get("/v1/cluster")
        if not is_replaced(cluster, what):
            return
        waits = waits_for(cluster, part)
        if waits and waits != said:
            said = waits
            click.echo(f"waiting for {waits} (Ctrl-C: it goes on by itself)", err=True)
        time.sleep(IDLE_LOOK_S)


# --- a node that does not run


def confirm(question: str, *, yes: bool) -> None:
    """Asks where a person is there to answer; --yes and scripts go on."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(question, abort=True, err=True)


@igor_node.command("recover", session=False, examples=["igor-node recover --data-dir n1 --dry-run", "igor-node recover --data-dir n1"])
@data_dir_option
@click.option("--dry-run", is_flag=True, help="Only say where this node stands, to choose among survivors.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, do it.")
def recover(data_dir: Path | None, dry_run: bool, yes: bool) -> None:
    """Go on without a majority that is lost for ever: make this node, which must not run, the only voter of its cluster in a new epoch.

    Of several survivors take the one whose journal goes furthest: the higher term first, then the higher entry. What only the lost nodes had is lost.
    They are refused if they come back, and may rejoin empty: igor-node join PEER --reset.
    """
    from igor_node import recovery
    from igor_node.data_dir import DataDir
    from raft.interface import Halted

    data = DataDir(data_dir or default_data_dir())
    data.lock()
    try:
        survivor = recovery.look(data)
        say_survivor(survivor, data.path)
        if dry_run:
            return
        if survivor.others:
            confirm(f"go on without {', '.join(survivor.others)} for ever?", yes=yes)
        done = recovery.recover(data)
    except Halted as problem:
        raise StartFailed(str(problem)) from None
    click.echo(f"it is now the only voter, in epoch {done.epoch}; everything up to entry {survivor.stand.index} counts as committed")
    if survivor.others:
        click.echo(f"lost: what {' and '.join(survivor.others)} acknowledged after that entry, if anything")
        click.echo(f"{', '.join(survivor.others)}: refused from now on; to use them again: igor-node join PEER --reset")
    click.echo(f"go on with: igor-node start --data-dir {data.path}")
    click.echo(f"tokens: {data.path / 'admin.token'} and {data.path / 'join.token'}, which its start writes where they are missing")


def say_survivor(survivor: Any, folder: Path) -> None:
    stand, me = survivor.stand, survivor.identity
    when = words.format_instant(survivor.ledger_time // words.SECOND * words.SECOND)
    click.echo(f"{folder}: node {me.name} of cluster {me.cluster}, epoch {stand.epoch}, {'a voter' if survivor.is_voter else 'no voter'}")
    click.echo(f"its journal goes to entry {stand.index} of term {stand.term}; its ledger stands at entry {stand.applied.index}, at {when}")
    click.echo(f"other members: {', '.join(survivor.others) or 'none'}")
    if survivor.distrusted:
        click.echo(f"caution: this ledger {survivor.distrusted}; recover another node if you can")


@igor_node.command("restore", session=False, examples=["igor-node restore igor-2026-11-24.backup --data-dir n1"])
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@data_dir_option
@click.option("--name", metavar="N", help="The node's name; one that the backup knows makes it that node again.")
def restore(file: Path, data_dir: Path | None, name: str | None) -> None:
    """Make a cluster of one node from a backup, in an empty data directory: the same cluster in a new epoch, with a new key.

    Everything in the backup is as it was then; what happened later is not known to it, and fires since then are caught up by each job's window.
    Tokens of people stay good; nodes rejoin empty.
    """
    from igor_node import recovery
    from igor_node.data_dir import DataDir
    from raft.interface import Halted

    folder = data_dir or default_data_dir()
    data = DataDir(folder)
    make_data_dir(folder)
    data.lock()
    try:
        header, identity, done = recovery.restore(file, data, name, default_name())
    except BaseException as problem:
        data.unmake()
        if isinstance(problem, Halted):
            raise StartFailed(str(problem)) from None
        raise
    when = words.format_instant(words.Instant(header.ledger_time // words.SECOND * words.SECOND))
    click.echo(f"{folder}: node {identity.name} of cluster {header.cluster}, its only voter, in epoch {done.epoch}")
    click.echo(f"it holds what {header.name} held at entry {header.index}, at {when}")
    click.echo("stop what is left of the old cluster first: both would run its jobs")
    click.echo(f"go on with: igor-node start --data-dir {folder}")
    click.echo(f"tokens: {folder / 'admin.token'} and {folder / 'join.token'}, which its start writes")


@igor_node.command("check", session=False, examples=["igor-node check --data-dir n1"])
@data_dir_option
def check(data_dir: Path | None) -> int:
    """Check the node as a Nagios plug-in does: one line, exit code 0 ok, 1 warning, 2 critical, 3 unknown."""
    try:
        client, about = client_of(data_dir or default_data_dir())
    except words.IgorError as problem:
        return verdict(UNKNOWN, problem.message)
    ready, reason = readiness(client)
    if ready != OK:
        return verdict(ready, reason)
    try:
        cluster = client.get("/v1/cluster")
    except words.Unavailable as problem:
        return verdict(CRITICAL, problem.message)
    except words.IgorError as problem:
        return verdict(UNKNOWN, f"ready, but the cluster's state cannot be read: {problem.message}")
    return verdict(*judge(cluster, str(about.get("name"))))


def readiness(client: Client) -> tuple[int, str]:
    """What /readyz says: this very node, no token, no second try."""
    address = client.addresses[0]
    try:
        connection = client.new_connection(address)
    except (OSError, words.Unavailable) as problem:
        return CRITICAL, f"the node at {address} does not answer ({problem})"
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(100_000)
    except (OSError, http.client.HTTPException) as problem:
        return CRITICAL, f"the node at {address} does not answer ({getattr(problem, 'strerror', None) or type(problem).__name__})"
    finally:
        connection.close()
    if response.status == 200:
        return OK, ""
    return CRITICAL, f"not ready: {_reason(body) or f'status {response.status}'}"


def _reason(body: bytes) -> str:
    try:
        told = json.loads(body)
        return str(told.get("detail") or told.get("reason") or "")
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace").strip()[:200]


def judge(cluster: dict[str, Any], name: str) -> tuple[int, str]:
    """What a person on call should know of the whole cluster, the worst first."""
    if not cluster.get("leader"):
        return CRITICAL, "no leader: nothing is scheduled or written"
    nodes = cluster.get("nodes") or []
    own = next((node for node in nodes if node["name"] == name), None)
    if own is None:
        return CRITICAL, f"{name} is not a member of its cluster"
    troubles = [f"{node['name']} is {node['state']}" for node in nodes if node["state"] in ("silent", "lost")]
    if not cluster.get("highly_available"):
        troubles.append("not highly available")
    if abs(own.get("clock_error_s") or 0) > CLOCK_ERROR_WARNING_S:
        troubles.append(f"its clock is {own['clock_error_s']:.3f} s off")
    summary = (
        f"{name} is a {own['role']} and {own['state']}, leader {cluster['leader']}, {len(cluster.get('voters') or [])} voters, {len(nodes)} nodes"
    )
    return (WARNING, f"{'; '.join(troubles)} ({summary})") if troubles else (OK, summary)


def verdict(code: int, text: str) -> int:
    click.echo(f"IGOR {VERDICTS[code]}: {text}")
    return code


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(command.run(igor_node, "igor-node", arguments))


if __name__ == "__main__":
    main()
