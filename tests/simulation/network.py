"""Links between nodes, one for each direction: delay, cuts in one or both directions, connections that break.

Two kinds of weather, chosen by the seed. *Streams* behave like TCP: in order, nothing lost but what was on its way when a connection broke; what
meets a cut waits, and arrives late or never. *Datagrams* are harsher than any network the pump runs on: lost, doubled and reordered at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.node import SimNode
    from tests.simulation.world import World


class Link:
    __slots__ = ("cut", "epoch", "held", "last_arrival", "source", "target", "up")

    def __init__(self, source: SimNode, target: SimNode) -> None:
        self.source = source
        self.target = target
        self.up = False
        self.cut = False
        self.held: list[Any] = []
        self.last_arrival = 0.0
        self.epoch = 0  # of the connection: what was on its way when it broke does not arrive


class Network:
    def __init__(self, world: World, *, streams: bool = True, delay_s: float = 0.004, loss: float = 0.0, doubling: float = 0.0) -> None:
        self.world = world
        self.chance = world.chance
        self.streams = streams
        self.delay_s = delay_s
        self.loss = loss
        self.doubling = doubling
        self.links: dict[tuple[str, str], Link] = {}
        self.watch: Callable[[str, str, Any], Any] | None = None  # a test may change or drop (None) a message

    def link(self, source: SimNode, target: SimNode) -> Link:
        found = self.links.get((source.id, target.id))
        if found is None:
            found = self.links[source.id, target.id] = Link(source, target)
        return found

    def send(self, source: SimNode, target_id: str, message: Any) -> None:
        target = self.world.nodes.get(target_id)
        if target is None:
            return
        link = self.link(source, target)
        if not link.up:
            return
        if self.watch is not None:
            message = self.watch(source.id, target_id, message)
            if message is None:
                return
        if link.cut:
            if len(link.held) < 200:
                link.held.append(message)
            return
        self._carry(link, message)

    def _carry(self, link: Link, message: Any) -> None:
        world, chance = self.world, self.chance
        arrival = world.now + self.delay_s * (0.2 + chance.random())
        if self.streams:
            arrival = link.last_arrival = max(arrival, link.last_arrival + 1e-6)
            world.at(arrival, self._arrive, link, link.epoch, message)
            return
        if chance.random() < self.loss:
            return
        if chance.random() < self.doubling:
            world.at(world.now + self.delay_s * 30 * chance.random(), self._arrive, link, -1, message)
        world.at(arrival + (self.delay_s * 10 * chance.random() if chance.random() < 0.1 else 0.0), self._arrive, link, -1, message)

    def _arrive(self, link: Link, epoch: int, message: Any) -> None:
        if link.cut and epoch >= 0:
            link.held.append(message)
        elif not link.cut and (epoch == link.epoch or epoch == -1):
            link.target.hear(link.source.id, message)

    # --- what goes wrong, and is mended

    def connect(self, link: Link) -> None:
        """After a moment, if both ends are there."""
        if not link.up:
            self.world.at(self.world.now + 0.001 + 0.05 * self.chance.random(), self._connected, link)

    def _connected(self, link: Link) -> None:
        if not link.up and not link.cut and link.source.up and link.target.up:
            link.up = True
            link.source.link_changed(link.target.id, up=True)

    def disconnect(self, link: Link, *, delivers: bool = False) -> None:
        """`delivers`: the sending process died, but what it had sent is with the kernel."""
        if not delivers:
            link.epoch += 1
            link.held.clear()
        if link.up:
            link.up = False
            if link.source.up:
                link.source.link_changed(link.target.id, up=False)

    def cut(self, link: Link) -> None:
        link.cut = True

    def heal(self, link: Link) -> None:
        if not link.cut:
            return
        link.cut = False
        if link.up and link.held and self.chance.random() < 0.5:
            held, link.held = link.held, []
            for message in held:  # late, and in order
                self._carry(link, message)
            return
        self.disconnect(link)
        self.connect(link)

    def all_links(self) -> list[Link]:
        nodes = list(self.world.nodes.values())
        return [self.link(source, target) for source in nodes for target in nodes if source is not target]
