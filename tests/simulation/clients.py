"""Clients: what they ask, what they may believe of an answer, and the history of it all that `linearizable.py` judges.

`Attempt` is one proposal at one node, `Reading` one read. `NotLeader` and `Halted` mean that it is surely not in the log; silence until the
time-out, and `Unknown`, that it may be, now or at any later time. A `Client` does one operation after the other. While it does not know what came
of one it tries again under the same operation's id, at another node; after a while it gives up, and the operation stays open for ever: it may
take effect at any time later, or never.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft.interface import Halted, NotLeader, Unknown
from tests.simulation.linearizable import Operation
from tests.simulation.machine import Command, Verb
from tests.simulation.node import Call

if TYPE_CHECKING:
    from raft.pump import Proposal
    from tests.simulation.node import SimNode
    from tests.simulation.world import World

KEYS = 3
PATIENCE_S = 5.0  # with one operation
TIMEOUTS_S = (0.3, 1.0, 2.5)  # with one attempt

Tell = Callable[[Any], None]


def _nobody(_outcome: Any) -> None:
    return None


class Attempt:
    """One proposal. `tell` hears (index, term, result), NotLeader or Halted (surely not in the log), or Unknown; or nothing."""

    def __init__(self, world: World, command: Command, tell: Tell = _nobody) -> None:
        self.world = world
        self.command = command
        self.tell = tell
        self.call = Call(self._settle)
        self.proposal: Proposal | None = None

    def ask(self, node: SimNode, size: int = 0) -> None:
        self.node = node
        self.proposal = node.propose(self.command.encode(size), self.call)

    def abandon(self) -> None:
        """Nobody waits any more; what the node has not taken yet it does not take."""
        self.call.cancel()
        if self.proposal is not None:
            self.proposal.abandoned = True

    def _settle(self, outcome: Any) -> None:
        checks = self.world.checks
        if isinstance(outcome, NotLeader | Halted):
            checks.refused(self.node, self.command)
        elif not isinstance(outcome, Unknown):
            checks.acknowledged(self.node, self.command, *outcome)
        self.tell(outcome)


class Reading:
    """One linearizable read. `tell` hears the value, or None where the node does not lead."""

    def __init__(self, world: World, key: int, tell: Tell = _nobody) -> None:
        self.world = world
        self.key = key
        self.tell = tell
        self.call = Call(self._settle)

    def ask(self, node: SimNode) -> None:
        self.node = node
        self.needed = self.world.checks.visible
        node.read(self.call)

    def abandon(self) -> None:
        self.call.cancel()

    def _settle(self, outcome: Any) -> None:
        if isinstance(outcome, NotLeader | Unknown):
            self.tell(None)
            return
        ledger, checks = self.node.machine.now, self.world.checks
        checks.read(self.node, ledger.index, outcome, self.needed)
        self.tell(checks.registers.read(self.key, ledger.index))


class Client:
    """Asks, waits, thinks, and asks again until `until`; what it saw goes into `history`."""

    def __init__(self, world: World, name: int, history: list[Operation], until: float) -> None:
        self.world = world
        self.chance = world.chance
        self.name = name
        self.history = history
        self.until = until
        self.known = [0] * KEYS  # values last seen
        self.think()

    def think(self) -> None:
        now = max(self.world.now, self.world.quiet_until)
        self.world.at(now + 0.02 + 0.5 * self.chance.random(), self.begin)

    def begin(self) -> None:
        world = self.world
        if world.now > self.until:
            return
        self.key = self.chance.randrange(KEYS)
        self.began, self.attempts, self.uncertain = world.now, 0, False
        world.operations += 1
        self.operation = world.operations
        draw = self.chance.random()
        self.verb = None if draw < 0.4 else Verb.WRITE if draw < 0.75 else Verb.COMPARE_AND_SET
        self.expected = self.known[self.key] if self.verb == Verb.COMPARE_AND_SET else 0
        self.try_once()

    def try_once(self) -> None:
        world, chance = self.world, self.chance
        if world.now > self.began + PATIENCE_S:
            self.give_up()
            return
        self.attempts += 1
        if self.verb is None:
            attempt: Any = Reading(world, self.key, self.hear_read)
        else:
            attempt = Attempt(world, Command(self.operation, self.attempts, self.verb, self.key, self.operation, self.expected), self.hear)
        self.attempt = attempt
        world.at(world.now + 0.003 * chance.random(), self.arrive, attempt, self.somebody())
        world.at(world.now + chance.choice(TIMEOUTS_S), self.time_out, attempt)

    def somebody(self) -> SimNode:
        """Mostly one that believes to lead."""
        leading = self.world.leading()
        return self.chance.choice(leading if leading and self.chance.random() < 0.9 else list(self.world.nodes.values()))

    def arrive(self, attempt: Any, node: SimNode) -> None:
        if attempt is self.attempt:
            attempt.ask(node)

    def time_out(self, attempt: Any) -> None:
        if attempt is self.attempt:
            attempt.abandon()
            self.uncertain = True
            self.again()

    def again(self) -> None:
        self.attempt = None
        self.world.at(self.world.now + 0.01 + 0.15 * self.chance.random(), self.try_once)

    def hear(self, outcome: Any) -> None:
        if isinstance(outcome, NotLeader | Halted | Unknown):
            self.uncertain |= isinstance(outcome, Unknown)
            self.again()
            return
        _, _, result = outcome
        self.end(self.world.now, result)

    def hear_read(self, value: int | None) -> None:
        if value is None:
            self.again()
        else:
            self.end(self.world.now, value)

    def give_up(self) -> None:
        if self.verb is not None and self.uncertain:
            self.end(math.inf, None)
        else:
            self.think()

    def end(self, ended: float, result: Any) -> None:
        self.attempt = None
        self.history.append(Operation(self.began, ended, self.key, self.verb, self.operation, self.expected, result))
        if ended < math.inf:
            self.known[self.key] = result if self.verb is None else self.operation if result else self.known[self.key]
        self.think()


__all__ = ["Attempt", "Client", "Reading"]
