"""Raises the ledger's version when every voter and learner runs a program that knows the next one, as `rules.versions` says."""

from __future__ import annotations

import logging

from igor_node.leader.hub import Hub
from igor_node.leader.reign import Reign
from igor_node.ledger.commands import RaiseLedgerVersion
from igor_node.rules.versions import Announced, version_to_raise

LOOK_EVERY_S = 1.0

log = logging.getLogger("igor.leader.versions")


class Versions:
    def __init__(self, reign: Reign, hub: Hub) -> None:
        self._reign = reign
        self._hub = hub

    async def run(self) -> None:
        while True:
            await self.look()
            await self._reign.clock.sleep(LOOK_EVERY_S)

    async def look(self) -> bool:
        """True where the version was raised."""
        reign, ledger = self._reign, self._reign.ledger
        announced = {**self._hub.announced(), reign.node: Announced(ledger.known.highest, reign.began_mono)}
        members = reign.replica.status().members.ids()
        version = version_to_raise(ledger.version, reign.node, members, announced, reign.clock.monotonic_ns())
        if version is None:
            return False
        log.info("every member knows version %d of the ledger, which is of version %d: raising it", version, ledger.version)
        await reign.propose(RaiseLedgerVersion(version=version))
        return True
