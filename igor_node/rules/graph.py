"""The graph of a run's stages: which stage may start, which never will, and how the run ends. Pure; `ledger.apply` asks after every stage's end.

The rule (SEMANTICS, "Stages, runs, states"): a stage starts when all its needs succeeded. If one failed it is `not_run`, if one was skipped it is
skipped too; `always` starts it whatever happened, once all its needs have ended. A failed stage with `allow_failure` counts as succeeded for
those behind it and for the run. After a cancel only `always` stages still start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from igor_node.rules.states import RunEvent, StageEvent, follow_stage
from igor_node.words import STAGE_ENDS, StageState


@dataclass(frozen=True, slots=True)
class Node:
    """A stage in the graph: what its definition says, and its state now."""

    name: str
    state: StageState
    needs: tuple[str, ...] = ()
    always: bool = False
    allow_failure: bool = False
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in STAGE_ENDS

    @property
    def good(self) -> bool:
        return self.state is StageState.SUCCEEDED or (self.allow_failure and self.bad and self.state is not StageState.NOT_RUN)

    @property
    def bad(self) -> bool:
        return self.ended and self.state not in (StageState.SUCCEEDED, StageState.SKIPPED)


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to a waiting stage now, and why where that is not plain."""

    stage: str
    event: StageEvent
    reason: str = ""


def settle(stages: Sequence[Node], *, cancelled: bool = False) -> list[Step]:
    """All that follows from the stages' states, in an order in which it can be done. Nothing waits for ever in a graph without a circle."""
    nodes = {node.name: node for node in stages}
    steps: list[Step] = []
    while True:
        fresh = [step for node in nodes.values() if node.state is StageState.WAITING and (step := _step(node, nodes, cancelled=cancelled))]
        if not fresh:
            return steps
        for step in fresh:
            nodes[step.stage] = _after(nodes[step.stage], step.event)
        steps += fresh


def _step(node: Node, nodes: Mapping[str, Node], *, cancelled: bool) -> Step | None:
    needs = [nodes[name] for name in node.needs]
    if node.always:
        return Step(node.name, StageEvent.NEEDS_MET) if all(need.ended for need in needs) else None
    if cancelled:
        return Step(node.name, StageEvent.CANCELLED, "the run was cancelled")
    for need in needs:
        if need.bad and not need.good:
            return Step(node.name, StageEvent.NOT_RUN, f"stage {need.name} {_words(need.state)}")
    if not all(need.ended for need in needs):
        return None
    skipped = next((need for need in needs if need.state is StageState.SKIPPED), None)
    if skipped is not None:
        return Step(node.name, StageEvent.SKIPPED, f"stage {skipped.name} was skipped")
    return Step(node.name, StageEvent.NEEDS_MET)


def _after(node: Node, event: StageEvent) -> Node:
    state = follow_stage(node.state, event)
    assert state is not None, f"a waiting stage knows no {event}"
    return Node(node.name, state, node.needs, node.always, node.allow_failure, node.reason)


_RUN_EVENT = {
    StageState.FAILED: RunEvent.FAILED,
    StageState.TIMED_OUT: RunEvent.TIMED_OUT,
    StageState.LOST: RunEvent.LOST,
    StageState.CANCELLED: RunEvent.CANCELLED,
}


def run_end(stages: Sequence[Node], *, cancel: str | None = None) -> tuple[RunEvent, str] | None:
    """How the run ends and why, once every stage has ended; None before that. The first bad stage, in the order in which people read them, decides.

    `cancel`: the reason of a cancel that was asked for; it decides unless every stage came through all the same.
    """
    if not all(node.ended for node in stages):
        return None
    first = next((node for node in stages if node.state in _RUN_EVENT and not node.good), None)
    if cancel is not None and (first is not None or any(node.state is StageState.NOT_RUN for node in stages)):
        return RunEvent.CANCELLED, cancel
    if first is None:
        skipped = all(node.state is StageState.SKIPPED for node in stages)
        return RunEvent.SUCCEEDED, (stages[0].reason or "every stage was skipped") if skipped else ""
    reason = first.reason if len(stages) == 1 else f"stage {first.name}: {first.reason or _words(first.state)}"
    return _RUN_EVENT[first.state], reason


def _words(state: StageState) -> str:
    return {
        StageState.TIMED_OUT: "timed out",
        StageState.CANCELLED: "was cancelled",
        StageState.LOST: "was lost",
        StageState.NOT_RUN: "was not run",
    }.get(state, state.value)


CANCELLED_AGAIN = "cancelled again"  # how the reason of a second cancel begins: it ends the `always` stages too


def spared(*, always: bool, needs: Sequence[str], cancel: str | None) -> bool:
    """Whether a stage goes on though its run is cancelled: clean-up behind other stages does, until somebody cancels again."""
    return always and bool(needs) and not (cancel or "").startswith(CANCELLED_AGAIN)
