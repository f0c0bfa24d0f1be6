"""Replaces the cluster's key, and its CA, without a stop: what `igor-node rotate` has begun comes to its end here, whoever leads meanwhile.

    key   made by the leader of then, which writes it down first (KeyMade) -> every member fetches it and says so in its heartbeats -> it is in force
          (KeyUsed): everything is sealed anew -> when no attempt is left that began before, the older ones are forgotten (KeysDropped)
    CA    the new one is certified by the one before (SetAuthority) -> every node in service is told to ask for a certificate by it -> the one before
          is believed no more (DropAuthority), and every node is told to ask once more, so that it forgets it too

A member or node that is down holds this up until it is back, was taken out or is lost; `igor status` names it. Every step is seen from the ledger and
from heartbeats alone, so a new leader goes on where the last one was.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

from igor_node.leader.hub import Hub
from igor_node.leader.reign import Reign
from igor_node.ledger import query_authorities, query_cluster, query_keys, query_secrets
from igor_node.ledger.commands import DropAuthority, KeysDropped, KeyUsed, ResealedSecret, ResealSecrets, SetAuthority
from igor_node.ledger.query_authorities import AuthorityRow
from igor_node.ledger.query_cluster import NodeRow
from igor_node.ledger.query_keys import KeyRows
from igor_node.stream import Renew
from igor_node.trust import certificates
from igor_node.trust.keys import KeyRing
from igor_node.trust.sealing import Sealed, generation_of, purpose_of_ca, purpose_of_secret, seal, unseal
from igor_node.words import NodeState

LOOK_EVERY_S = 1.0
QUIET_S = 60.0  # while nothing is replaced and the ledger does not change in this
TOPICS = ("authorities", "keys")
TOLD_AT_ONCE = 20  # nodes that ask for a certificate: two signatures each
RESEALED_AT_ONCE = 10  # secrets of 64 KiB in one entry of 1 MiB

log = logging.getLogger("igor.leader.rotation")


class Rotation:
    def __init__(self, reign: Reign, hub: Hub) -> None:
        self._reign = reign
        self._hub = hub
        self._lost_seals: set[str] = set()  # what no key here opens, as after a restore without the old one

    async def run(self) -> None:
        while True:
            seen = self._reign.changes.last(TOPICS)
            busy = await self.look()
            await self._reign.change(TOPICS, seen, LOOK_EVERY_S if busy else QUIET_S)

    async def look(self) -> bool:
        """True while something is replaced."""

        def read(connection: sqlite3.Connection) -> tuple[KeyRows, list[AuthorityRow], list[NodeRow]]:
            return query_keys.keys(connection), query_authorities.authorities(connection), query_cluster.nodes(connection)

        keys, authorities, nodes = await self._reign.reads.query(read)
        self._hub.wanted_trust = expected_mark(authorities)
        self._hub.wanted_key = keys.to_come.mark if keys.to_come is not None else b""
        return (await self._replace_key(keys)) | (await self._replace_authority(authorities, nodes))

    # --- the key

    async def _replace_key(self, keys: KeyRows) -> bool:
        ring, coming, in_force = self._reign.keys.ring, keys.to_come, keys.in_force
        if coming is not None:
            members = self._reign.replica.status().members.ids()
            if ring is not None and ring.has(coming.generation, coming.mark) and all(map(self._holds_key, members)):
                log.info("every member holds the cluster's key of generation %d: it is in force from now on", coming.generation)
                await self._reign.propose(KeyUsed(generation=coming.generation))
            return True
        if in_force is None or in_force.used_at is None or keys.oldest >= in_force.generation:
            return False
        if ring is not None and ring.current == in_force.generation and not await self._reseal(ring):
            placed_at = await self._reign.reads.query(query_keys.oldest_open_attempt)
            if placed_at is None or placed_at > in_force.used_at:
                log.info("nothing needs the cluster's keys before generation %d any more: they are forgotten", in_force.generation)
                await self._reign.propose(KeysDropped(before=in_force.generation))
        return True

    def _holds_key(self, member: str) -> bool:
        behind = self._hub.behind(member)
        return behind is not None and "key" not in behind

    async def _reseal(self, ring: KeyRing) -> bool:
        """Seals anew what is sealed with another key than the one in force. False: nothing was left to do."""
        secrets = await self._reign.reads.query(query_secrets.sealed)
        authorities = await self._reign.reads.query(query_authorities.authorities)
        for row in authorities:
            if (sealed := self._sealed_anew(ring, purpose_of_ca(row.generation), row.sealed_key)) is not None:
                await self._reign.propose(SetAuthority(generation=row.generation, certificates=row.certificates, sealed_key=sealed))
        rows = [
            ResealedSecret(project=row.project, name=row.name, version=row.version, sealed=sealed)
            for row in secrets
            if (sealed := self._sealed_anew(ring, purpose_of_secret(row.project, row.name, row.version), row.sealed)) is not None
        ]
        for start in range(0, len(rows), RESEALED_AT_ONCE):
            await self._reign.propose(ResealSecrets(rows=tuple(rows[start : start + RESEALED_AT_ONCE])))
        return bool(rows)

    def _sealed_anew(self, ring: KeyRing, purpose: str, sealed: bytes) -> bytes | None:
        try:
            return None if generation_of(sealed) == ring.current else seal(ring, purpose, unseal(ring, purpose, sealed))
        except Sealed as problem:
            if purpose not in self._lost_seals:
                self._lost_seals.add(purpose)
                log.warning("%s; it stays as it is", problem)
            return None

    # --- the CA

    async def _replace_authority(self, authorities: Sequence[AuthorityRow], nodes: Sequence[NodeRow]) -> bool:
        in_service = [node.node for node in nodes if node.state != NodeState.LOST]
        behind = [node for node in in_service if "certificate" in (self._hub.behind(node) or ())]
        for node in behind[:TOLD_AT_ONCE]:
            self._hub.tell(node, Renew(term=self._reign.term))
        before = [row for row in authorities[1:] if row.dropped_at is None]
        if before and not behind and all(self._hub.behind(node) is not None for node in in_service):
            for row in before:
                log.info("every node has a certificate by the newest CA: that of generation %d is believed no more", row.generation)
                await self._reign.propose(DropAuthority(generation=row.generation))
        return bool(before or behind)


def expected_mark(authorities: Sequence[AuthorityRow]) -> bytes:
    """What each node's heartbeats say when its certificate and its CAs are those of now; empty in a cluster without TLS."""
    if not authorities:
        return b""
    own = [certificates.split_pem(row.certificates)[0] for row in authorities if row.dropped_at is None]
    return certificates.trust_mark(certificates.identifier(own[0]), own)
