"""The first commands of a cluster, and what `igor-node recover` and `restore` leave to the first start.

Both may be interrupted at any point and go on at the next start: files with secrets are written before the ledger learns their hashes, and every
command is refused harmlessly the second time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from igor_node import __version__, certified
from igor_node.data_dir import DataDir, Identity
from igor_node.edges import SystemClock
from igor_node.http.api.cluster import node_token
from igor_node.http.auth import compose_token, derive_secret, parse_token
from igor_node.ledger import query_cluster
from igor_node.ledger.commands import Command, CreateToken, Envelope, FoundCluster, KeyMade, KeyUsed, NodeChanged, Refused, RegisterNode
from igor_node.ledger.reads import Reads
from igor_node.recovery import NOTE, Note
from igor_node.trust.keys import Keys
from igor_node.words import NodeState, Role, Unavailable, new_id
from raft.interface import NotLeader
from raft.replica import Replica
from raft.wire import mark_of

TIMEOUT_S = 30.0
ASK_AGAIN_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Founding:
    """`entry`: a command as the cluster understands it now. `fingerprint`: of its CA, as tokens carry it."""

    me: Identity
    data: DataDir
    keys: Keys
    reads: Reads
    replica: Replica
    clock: SystemClock
    epoch: int
    voters: int
    fingerprint: Callable[[], str]
    entry: Callable[[Envelope], bytes]

    async def found(self) -> None:
        """The first commands of a cluster; nothing to do at later starts."""
        if await self.reads.query(query_cluster.cluster) is not None or len(self.replica.status().members.voters) != 1:
            return
        me = self.me
        admin, joining = self._token_file("admin.token", "admin"), self._token_file("join.token", "join")
        own = compose_token(f"n-{me.id}", derive_secret(self.keys.key, f"node {me.id}"), self.fingerprint())
        self.data.write("node.token", own + "\n", secret=True)
        await self._propose(FoundCluster(cluster=me.cluster, tzdata=_tzdata_version(), wanted_voters=self.voters))
        await self._tell_of_key("founder")
        if (authority := certified.founding_command(self.data)) is not None:
            await self._propose(authority)
        await self._register(own, "founder")
        await self._propose(CreateToken(token=parse_token(admin).id, hash=parse_token(admin).hash, role=Role.ADMIN, name="founder"))
        await self._propose(CreateToken(token=parse_token(joining).id, hash=parse_token(joining).hash, role=Role.NODE, name="join"))
        self.data.remove(certified.SEALED)

    async def finish_recovery(self) -> None:
        """What `recover` or `restore` left to the first start (recovery.py). Done again after a crash it is refused, or changes nothing."""
        text = self.data.read(NOTE)
        if text is None:
            return
        note, me = msgspec.json.decode(text, type=Note), self.me
        if self.epoch <= note.above or [voter.id for voter in self.replica.status().members.voters] != [me.id]:
            return  # the recovery did not come to its end, and this is the cluster as it was
        for row in await self.reads.query(query_cluster.nodes):
            if row.node != me.id and (note.gone is None or row.node in note.gone):
                await self._propose(NodeChanged(node=row.node, state=NodeState.LOST, reason="the cluster was recovered without it"), "recovery")
        await self._tell_of_key("recovery")
        if (authority := certified.founding_command(self.data)) is not None:
            await self._propose(authority, "recovery")
            self.data.remove(certified.SEALED)
        await self._register_recovered()
        self.data.remove(NOTE)

    async def _register_recovered(self) -> None:
        """The tokens of the founder may be lost with its machine, and after a restore the node's own is of another key."""
        me = self.me
        admin, joining = self._token_file("admin.token", "admin"), self._token_file("join.token", "join")
        token = self.data.read("node.token")
        if token is None:
            name = node_token(me.id, await self.reads.query(query_cluster.tokens), anew=True)
            token = compose_token(name, derive_secret(self.keys.key, "node " + name.removeprefix("n-")), self.fingerprint())
            self.data.write("node.token", token + "\n", secret=True)
        await self._register(token, "recovery")
        for text, role, name in ((admin, Role.ADMIN, "recovery"), (joining, Role.NODE, "join")):
            await self._propose(CreateToken(token=parse_token(text).id, hash=parse_token(text).hash, role=role, name=name), "recovery")

    async def _register(self, token: str, actor: str) -> None:
        me, own = self.me, parse_token(token)
        await self._propose(
            RegisterNode(
                node=me.id, name=me.name, address=me.address, labels=me.labels, slots=me.slots, version=__version__, token_id=own.id,
                token_hash=own.hash,
            ),
            actor,
        )  # fmt: skip

    async def _tell_of_key(self, actor: str) -> None:
        """The newest that is here; no other member has another."""
        ring = self.keys.ring
        assert ring is not None, "whoever founds or recovers a cluster has its key"
        await self._propose(KeyMade(generation=ring.newest, mark=mark_of(ring.by_generation[ring.newest])), actor)
        await self._propose(KeyUsed(generation=ring.newest), actor)

    def _token_file(self, file: str, name: str) -> str:
        """The token in the file, made if it is not there."""
        token = self.data.read(file)
        if token is None:
            token = compose_token(f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(32), self.fingerprint())
            self.data.write(file, token + "\n", secret=True)
        return token

    async def _propose(self, command: Command, actor: str = "founder") -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                now = self.clock.now()
                entry = self.entry(Envelope(id=new_id(now), at=now, actor=actor, command=command))  # type: ignore[arg-type]
                try:
                    answer = (await self.replica.propose(entry, TIMEOUT_S)).result
                except NotLeader:
                    await self.clock.sleep(ASK_AGAIN_S)
                    continue
                if isinstance(answer, Refused) and answer.error != "Conflict":
                    raise Unavailable(f"the cluster could not begin: {answer.message}")
                return


def _tzdata_version() -> str:
    from importlib.metadata import version

    return version("tzdata")
