"""Which node gets a stage: every node is asked why it cannot take it, the freest of those that can is chosen, and all reasons are kept.

The leader calls `place` for each waiting stage; `ledger.apply` calls `rejection` for the chosen node again, because the leader's view may be old.
"Why is it waiting" is the decision's own output (`Wait.reason`), never a second computation. No clock, no I/O; views are frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from igor_node.words import NodeState

NAMES_IN_A_REASON = 4  # further nodes are counted, not named: a reason stays readable in a fleet of hundreds
NODE_LABEL = "node"  # every node carries its own name as this label, so that a constraint can name it


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as placement sees it. `used`: slots of its attempts that have not ended. `connected`: its stream to this leader is open."""

    node: str
    name: str
    state: str
    slots: int
    used: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    connected: bool = True

    @property
    def free(self) -> int:
        return self.slots - self.used


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stage asks of a node. `avoid`: nodes that lost or refused an attempt of it; others are taken first."""

    slots: int = 1
    constraints: Mapping[str, str] = field(default_factory=dict)
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Assign:
    node: str
    reasons: str = ""  # what the others lacked


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str


def rejection(demand: Demand, node: NodeView) -> str | None:
    """Why this node cannot take the stage now, in words that follow the node's name; None where it can."""
    if node.state != NodeState.UP:
        return f"is {node.state}"
    if not node.connected:
        return "is not connected"
    if lacking := _lacking(demand.constraints, node):
        return lacking
    if demand.slots > node.slots:
        return f"has {node.slots} slots, {demand.slots} are needed"
    if demand.slots > node.free:
        return f"is full: {node.used} of {node.slots} slots taken"
    return None


def place(demand: Demand, nodes: Sequence[NodeView], run: str = "") -> Assign | Wait:
    """The node with most free slots among those that can take it; nodes to avoid come last.

    Among equally many free slots the larger free share decides: a small idle machine before a large busy one. Among nodes equal in that too it is
    a draw by the run's id, the same whoever draws, so that an idle cluster's work goes round instead of always to the first by name.
    """
    refused: dict[str, list[str]] = {}
    able: list[NodeView] = []
    for node in nodes:
        why = rejection(demand, node)
        if why is None:
            able.append(node)
        else:
            refused.setdefault(why, []).append(node.name)
    if not able:
        return Wait(f"no node can take it: {_in_words(refused)}" if refused else "no node has joined")
    rank = min(_rank(demand, node) for node in able)
    equals = sorted(node.node for node in able if _rank(demand, node) == rank)
    return Assign(equals[crc32(run.encode()) % len(equals)], _in_words(refused))


def _rank(demand: Demand, node: NodeView) -> tuple[bool, int, int]:
    """The lowest is the best. Of equally many free slots the larger share is that of the node with fewer slots."""
    return node.node in demand.avoid, -node.free, node.slots


def take(nodes: Sequence[NodeView], chosen: str, slots: int) -> list[NodeView]:
    """The views after `slots` were given away on `chosen`: the next decision of a batch sees them."""
    return [_with_used(node, node.used + slots) if node.node == chosen else node for node in nodes]


def _with_used(node: NodeView, used: int) -> NodeView:
    return NodeView(node.node, node.name, node.state, node.slots, used, node.labels, node.connected)


def _lacking(constraints: Mapping[str, str], node: NodeView) -> str | None:
    for label in sorted(constraints):
        has = node.labels.get(label, node.name if label == NODE_LABEL else None)
        if has != constraints[label]:
            return f"lacks label {label}={constraints[label]}" + (f" (it has {label}={has})" if has is not None else "")
    return None


def _in_words(refused: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{_names(sorted(names))} {why}" for why, names in sorted(refused.items(), key=lambda item: sorted(item[1])))


def _names(names: Iterable[str]) -> str:
    all_names = list(names)
    shown, rest = all_names[:NAMES_IN_A_REASON], len(all_names) - NAMES_IN_A_REASON
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
