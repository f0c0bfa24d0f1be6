"""Keeping and checking the ledger as a whole: a backup as a stream, a node's own digests, and the digests of all members compared.

A backup is a copy of this node's ledger in one read transaction, written beside it at a pace that lets commits go on (`Ledger.snapshot`), then sent.
One at a time a node: each needs the ledger's size of disk. `igor backup` asks a follower where it can, so the leader's disk is left alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from aiohttp import web

from igor_node import backup
from igor_node.http import forward
from igor_node.http.dispatch import Call
from igor_node.http.routes import Route, Where
from igor_node.ledger import query_cluster, query_digests
from igor_node.rules import agreement
from igor_node.rules.agreement import Told
from igor_node.words import Role, TooMany, Unavailable
from raft.pace import Pace

SENT_BYTES_A_SECOND = 128 * 1024 * 1024  # the client's disk is seldom faster, and this node has other work
DIGEST_WITHIN_S = 3.0
COMPARE_TRIES = 20  # a young cluster that is busy keeps no digest that all know; a moment later all may stand at the same entry
COMPARE_PAUSE_S = 0.1


class NodeDigests(msgspec.Struct, frozen=True, kw_only=True):
    """`now` is the digest at `index`, the end of this node's ledger; `marks` those at entries that all nodes keep."""

    id: str
    name: str
    index: int
    now: str
    marks: dict[int, str]


async def node_digests(call: Call) -> NodeDigests:
    if not call.services.holds_ledger():
        raise Unavailable("this node holds no ledger", hint="ask a voter")
    found = await call.read(query_digests.digests)
    return NodeDigests(id=call.services.me.id, name=call.services.me.name, index=found.index, now=found.now, marks=found.marks)


# --- verify


async def verify(call: Call) -> Any:
    """Asks all members; compares at an entry of which all who answered know the digest."""
    names = {row.node: row.name for row in await call.read(query_cluster.nodes)}
    members = call.services.replica.status().members
    everybody = [member.id for member in (*members.voters, *members.learners)]
    voters = frozenset(member.id for member in members.voters)
    for _ in range(COMPARE_TRIES):
        answers = dict(zip(everybody, await asyncio.gather(*(ask_digests(call, node) for node in everybody)), strict=True))
        told = [Told(node, {**found.marks, found.index: found.now}) for node, found in answers.items() if isinstance(found, NodeDigests)]
        entry = agreement.common_entry(told)
        if entry is not None:
            break
        await asyncio.sleep(COMPARE_PAUSE_S)
    if entry is None:
        raise Unavailable("the nodes keep no digest of the same entry yet, and each stands at another", hint="ask again when less is written")
    verdicts = agreement.judge(told, voters, entry)
    digests = {one.node: one.digests[entry] for one in told}
    rows = [
        {
            "id": node,
            "name": names.get(node, node),
            "role": "voter" if node in voters else "learner",
            "index": found.index if isinstance(found, NodeDigests) else None,
            "digest": digests.get(node),
            "verdict": verdicts.get(node, "not reached"),
            "reason": found if isinstance(found, str) else "",
        }
        for node, found in answers.items()
    ]
    return {"entry": entry, "same": set(verdicts.values()) == {agreement.SAME}, "complete": len(told) == len(everybody),
            "nodes": sorted(rows, key=lambda row: str(row["name"]))}  # fmt: skip


async def ask_digests(call: Call, node: str) -> NodeDigests | str:
    """A member's digests, or why there are none."""
    services = call.services
    if node == services.me.id:
        return await node_digests(call)
    address = services.addresses().get(node)
    if address is None:
        return "no address of it is known"
    try:
        status, body = await call.front.forwarder.get_json(services.url_of(address), "/v1/node/digest", call.front.own_token(), DIGEST_WITHIN_S)
        if status == 200:
            return msgspec.json.decode(body, type=NodeDigests)
        return str(msgspec.json.decode(body).get("detail") or f"status {status}")
    except forward.NotReached as problem:
        return str(problem)
    except (msgspec.DecodeError, AttributeError):
        return "its answer cannot be understood"


# --- backup


async def take_backup(call: Call) -> web.StreamResponse:
    snapshot = call.services.snapshot
    if snapshot is None:
        raise Unavailable("this node gives no backups")
    if call.front.backing_up:
        raise TooMany("this node is taking a backup already", hint="ask again when it is done, or another node", retry_after_s=10)
    path = call.services.folder / "backup.copy"
    call.front.backing_up = True
    try:
        await asyncio.to_thread(snapshot, path)
        header = await asyncio.to_thread(describe, path, call)
        return await send(call, path, header)
    except OSError as problem:
        if isinstance(problem, ConnectionError):
            raise
        raise Unavailable(
            f"no copy of the ledger could be written here: {problem.strerror or problem}", hint="make room, or ask another node"
        ) from None
    finally:
        call.front.backing_up = False
        path.unlink(missing_ok=True)


def describe(path: Path, call: Call) -> backup.Header:
    """Nobody writes to the copy, so it is read as it is."""
    me = call.services.me
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        position, info = query_cluster.position(connection), query_cluster.cluster(connection)
    return backup.Header(
        cluster=info.cluster if info is not None else me.cluster, epoch=me.epoch, index=position.index, term=position.term,
        ledger_time=position.time, ledger_version=info.ledger_version if info is not None else 0, node=me.id, name=me.name, program=me.version,
        taken_at=call.now(), size=path.stat().st_size,
    )  # fmt: skip


async def send(call: Call, path: Path, header: backup.Header) -> web.StreamResponse:
    head = header.encode()
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})
    response.content_length = len(head) + header.size + backup.DIGEST_BYTES
    await response.prepare(call.request)
    await response.write(head)
    digest, pace = hashlib.sha256(head), Pace(SENT_BYTES_A_SECOND)
    with path.open("rb") as file:
        while data := await asyncio.to_thread(read_piece, file, digest, pace):
            await response.write(data)
    await response.write(digest.digest())
    await response.write_eof()
    return response


def read_piece(file: BinaryIO, digest: Any, pace: Pace) -> bytes:
    data = file.read(backup.PIECE_BYTES)
    digest.update(data)
    pace.spend(len(data))
    return data


ROUTES = (
    Route(
        method="GET", path="/v1/backup", handler=take_backup, summary="The whole ledger as one file, with its checksum", role=Role.ADMIN,
        stream="application/octet-stream",
    ),
    Route(method="GET", path="/v1/verify", handler=verify, summary="Whether the ledgers of all members are the same", nodes=True),
    Route(method="GET", path="/v1/node/digest", handler=node_digests, summary="The digests of this node's ledger", nodes=True, where=Where.HERE,
          answer=NodeDigests),
)  # fmt: skip
