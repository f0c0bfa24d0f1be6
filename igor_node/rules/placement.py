"""Which node gets a stage: every node is asked why it cannot take it, the freest of those that can is chosen, and all reasons are kept.

Higher priority goes first, and priority grows with waiting. A stage that waits long for several slots, or for several pools, keeps what it can get:
a node is filled with nothing else then, a pool's free slot is given to nobody else, so that many small ones do not starve a large one.

The leader calls `place` for each waiting stage; `ledger.apply` calls `rejection` for the chosen node again, because the leader's view may be old.
"Why is it waiting" is the decision's own output (`Wait.reason`), never a second computation. No clock, no I/O; views are frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from igor_node.words import SECOND, NodeState

NAMES_IN_A_REASON = 4  # further nodes are counted, not named: a reason stays readable in a fleet of hundreds
GROWS_EVERY = 60 * SECOND  # of waiting priority grows by one
KEEP_AFTER = 60 * SECOND  # of waiting a large demand keeps what it can get
NODE_LABEL = "node"  # every node carries its own name as this label, so that a constraint can name it


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as placement sees it. `used`: slots of its attempts that have not ended. `connected`: its stream to this leader is open.
    `kept_for`: a run that waits longer, and for more than is free here."""

    node: str
    name: str
    state: str
    slots: int
    used: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    connected: bool = True
    kept_for: str = ""

    @property
    def free(self) -> int:
        return self.slots - self.used


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stage asks of a node. `avoid`: nodes that lost or refused an attempt of it; others are taken first.
    `pools`: one slot of each, all of them or none."""

    slots: int = 1
    constraints: Mapping[str, str] = field(default_factory=dict)
    avoid: frozenset[str] = frozenset()
    pools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolView:
    """`slots` None: nobody defines it. `holders`: a run for each slot that is taken."""

    slots: int | None
    holders: tuple[str, ...] = ()


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
    if node.kept_for:
        return f"is kept for run {node.kept_for}, which waits longer"
    if demand.slots > node.free:
        return f"is full: {node.used} of {node.slots} slots taken"
    return None


def place(demand: Demand, nodes: Sequence[NodeView], run: str = "", pools: Mapping[str, PoolView] = {}) -> Assign | Wait:
    """The node with most free slots among those that can take it; nodes to avoid come last.

    Among equally many free slots the larger free share decides: a small idle machine before a large busy one. Among nodes equal in that too it is
    a draw by the run's id, the same whoever draws, so that an idle cluster's work goes round instead of always to the first by name.
    """
    if full := full_pool(demand.pools, pools):
        return Wait(full)
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


def grown(priority: int, waited: int) -> int:
    """The priority of a stage that has waited so long."""
    return priority + max(0, waited) // GROWS_EVERY


def keep(demand: Demand, nodes: Sequence[NodeView], pools: Mapping[str, PoolView], run: str) -> tuple[list[NodeView], Mapping[str, PoolView]]:
    """The views after a stage that waits too long has kept what it can get: the free slots of its pools, or, where it would get all of them, the
    node that is nearest to having room. One that could not run even alone keeps nothing."""
    could = [node for node in nodes if rejection(demand, replace(node, used=0)) is None]
    if not could or any(pools.get(name, PoolView(None)).slots is None for name in demand.pools):
        return list(nodes), pools
    free = [name for name in demand.pools if not full_pool((name,), pools)]
    if len(free) < len(demand.pools):
        return list(nodes), take_pools(pools, free, f"{run} (kept for it)")
    nearest = min(could, key=lambda node: (-node.free, node.slots, node.node))
    return [replace(node, kept_for=run) if node is nearest else node for node in nodes], pools


def full_pool(names: Sequence[str], pools: Mapping[str, PoolView]) -> str:
    """Of the pools that are asked for the first that has no slot left, in words; empty: all have."""
    for name in names:
        pool = pools.get(name, PoolView(None))
        if pool.slots is None:
            return f"pool {name} is not defined"
        if len(pool.holders) >= pool.slots:
            return f"pool {name} is full: {len(pool.holders)} of {pool.slots} slots held by {_names(f'run {run}' for run in pool.holders)}"
    return ""


def take_pools(pools: Mapping[str, PoolView], names: Sequence[str], run: str) -> Mapping[str, PoolView]:
    """The views after the run has got a slot of each."""
    taken = {name: PoolView(pools[name].slots, (*pools[name].holders, run)) for name in names}
    return {**pools, **taken}


def take(nodes: Sequence[NodeView], chosen: str, slots: int) -> list[NodeView]:
    """The views after `slots` were given away on `chosen`: the next decision of a batch sees them."""
    return [replace(node, used=node.used + slots) if node.node == chosen else node for node in nodes]


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
