"""Keeping the ledger: `backup`, `restore`, `verify`.

A backup is checked while it arrives and gets its name only when it is whole. It is asked of a follower where one is up, so that the leader's disk is
left alone, but never older than this call: everything acknowledged before is in it. `restore` works on an empty data directory and without a cluster,
so `igor-node` does it; here it stands because people look for it beside `backup`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from igor_node import backup as backup_file
from igor_node import words
from igor_node.backup import Check, Header
from igor_node.cli import output
from igor_node.cli.client import Client
from igor_node.cli.command import Command
from igor_node.cli.output import Column
from igor_node.cli.session import Session
from igor_node.cli.target import normal_address

COPY_TIMEOUT_S = 900.0  # until the first byte: the node writes a whole copy of its ledger first
NOT_REACHED = 7


@click.command("backup", cls=Command, examples=["igor backup igor-$(date +%F).backup"])
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.pass_obj
def backup(session: Session, file: Path) -> None:
    """Write the whole ledger into FILE, as of now or later; jobs and commits go on. A file of that name is replaced when the new one is whole.

    It needs a token of role admin. The file holds definitions, runs and who did what, but no key and no token in clear.
    """
    client = followers_first(session.client)
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as target:
            header = receive(client, target, str(part))
            target.flush()
            os.fsync(target.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    size = file.stat().st_size
    when = session.time(words.format_instant(words.Instant(header.ledger_time // words.SECOND * words.SECOND)))
    told = {"file": str(file), "bytes": size, "cluster": header.cluster, "epoch": header.epoch, "index": header.index, "node": header.name}
    session.thing(told, [], name="file")
    session.say(f"{file}: cluster {header.cluster} up to entry {header.index} of {when}, {size:,} bytes, from {header.name}")


def followers_first(client: Client) -> Client:
    """The nodes that hold a ledger, the leader last; then whomever the client knows."""
    found = client.request("GET", "/v1/cluster?consistent=1")
    nodes = [node for node in found.value["nodes"] if node["role"] != "worker" and node["state"] == "up"]
    nodes.sort(key=lambda node: node["name"] == found.value.get("leader"))
    addresses = dict.fromkeys([*(normal_address(node["address"]) for node in nodes), *client.addresses])
    index = found.headers.get("igor-index", "")
    return replace(client, addresses=tuple(addresses), index=int(index) if index.isdigit() else client.index, answer_timeout_s=COPY_TIMEOUT_S)


def receive(client: Client, target: BinaryIO, name: str) -> Header:
    check = Check(name)
    for piece in client.pieces("/v1/backup", backup_file.PIECE_BYTES):
        check.feed(piece)
        target.write(piece)
    return check.finish()


@click.command("restore", cls=Command, remote=False, examples=["igor restore igor-2026-11-24.backup --data-dir /var/lib/igor"])
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--data-dir", envvar="IGOR_DATA_DIR", type=click.Path(path_type=Path), metavar="D", help="An empty one [IGOR_DATA_DIR].")
@click.option("--name", metavar="N", help="The node's name; one that the backup knows makes it that node again.")
@click.pass_context
def restore(ctx: click.Context, file: Path, data_dir: Path | None, name: str | None) -> None:
    """Make a cluster of one node from a backup, in an empty data directory. The same as `igor-node restore`, on this machine."""
    options = [*(["--data-dir", str(data_dir)] if data_dir else []), *(["--name", name] if name else [])]
    ctx.exit(subprocess.run([sys.executable, "-m", "igor_node.cli.node", "restore", str(file), *options], check=False).returncode)


# --- verify

VERIFY_COLUMNS = (
    Column("NODE", "name"),
    Column("ROLE", "role"),
    Column("ENTRY", "entry", "number"),
    Column("DIGEST", "digest"),
    Column("VERDICT", "verdict"),
    Column("ITS LEDGER STANDS AT", "index", "number", wide=True),
)


@click.command("verify", cls=Command, examples=["igor verify"])
@click.pass_obj
def verify(session: Session) -> int:
    """Ask every node that holds the ledger for its digest at one entry, and say whether all are the same.

    Exit code 0: all are; 1: one differs (it stops by itself and takes a copy at its next start); 7: one could not be asked.
    """
    found = session.client.get("/v1/verify", consistent=1)
    rows = [{**row, "entry": found["entry"]} for row in found["nodes"]]
    session.items(rows, VERIFY_COLUMNS, whole=found)
    for row in rows:
        if row["reason"]:
            session.warn(output.printable(f"{row['name']} was not reached: {row['reason']}"))
    return verdict(session, found)


def verdict(session: Session, found: dict[str, Any]) -> int:
    if not found["same"]:
        session.warn(f"the ledgers differ at entry {found['entry']}")
        return 1
    asked = sum(row["verdict"] == "same" for row in found["nodes"])
    session.say(f"{asked} of {len(found['nodes'])} ledgers are the same at entry {found['entry']}")
    return 0 if found["complete"] else NOT_REACHED
