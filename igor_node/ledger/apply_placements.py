"""How stages get a place in the ledger, and why they have none yet.

The leader chose the node by rules/placement and rules/overlap; the same rules are asked here again, about the ledger as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from igor_node.definitions.jobs import Job, Stage
from igor_node.ledger import schema
from igor_node.ledger.commands import AssignStages, Done, ExplainWaits, Placement, Refused, Result
from igor_node.ledger.query_pools import pool_views
from igor_node.ledger.schema import attempt_id
from igor_node.ledger.transaction import BrokenInvariant, RunRecord, Transaction, to_json
from igor_node.rules.graph import spared
from igor_node.rules.overlap import room_for, start_blocked
from igor_node.rules.placement import Demand, NodeView, PoolView, full_pool, rejection, take_pools
from igor_node.rules.states import RunEvent, StageEvent, follow_run, follow_stage
from igor_node.words import RunState, StageState


class StageRecord(NamedTuple):
    """A row of `stages`, as SELECT_STAGE gives it."""

    state: str
    reason: str
    slots: int
    attempts: int
    losses: int
    started_at: int | None


def assign_stages(tx: Transaction, command: AssignStages) -> Result:
    """`placed`: how many; `refused`: [attempt, why] of each placement that does not stand."""
    if command.term < tx.term:
        return Refused("Conflict", f"decided in term {command.term}, which is over: the term is {tx.term}")
    nodes: dict[str, NodeView | None] = {}
    pools = _Pools(tx)
    refused = []
    for placement in command.placements:
        if why := _place(tx, placement, nodes, pools):
            refused.append((placement.attempt, why))
    tx.touch("runs", "stages", "attempts")
    return Done({"placed": len(command.placements) - len(refused), "refused": refused} if refused else None)


def _place(tx: Transaction, placement: Placement, nodes: dict[str, NodeView | None], pools: _Pools) -> str:
    """Writes one placement; why not, where it is refused."""
    run = tx.run(placement.run)
    row = tx.one(schema.SELECT_STAGE, placement.run, placement.stage)
    if run is None or row is None:
        return "there is no such stage"
    stage = StageRecord._make(row)
    if run.ended_at is not None:
        return f"the run is {run.state}"
    if (state := follow_stage(stage.state, StageEvent.PLACED)) is None:
        return f"the stage is {stage.state}"
    n = stage.attempts + 1
    if placement.attempt != attempt_id(run.id, placement.stage, n):
        return f"its next attempt is number {n}"
    spec = tx.spec(run.job, run.spec_version)
    definition = _definition(spec, placement.stage)
    if run.cancel is not None and not spared(always=definition.always, needs=definition.needs, cancel=run.cancel):
        return "the run is being cancelled"
    if why := _blocked(tx, run, spec):
        return why
    if definition.pools and (why := full_pool(definition.pools, pools.views)):
        return why
    node = _node(tx, placement.node, nodes)
    if node is None:
        return "there is no such node"
    if why := rejection(Demand(stage.slots, definition.constraints), node) or "":
        return f"{node.name} {why}"
    nodes[placement.node] = replace(node, used=node.used + stage.slots)
    if definition.pools:
        pools.views = take_pools(pools.views, definition.pools, run.id)
    _write(tx, placement, run, stage, n, state, definition.pools)
    return ""


class _Pools:
    """As this command has left them so far; looked at when a stage needs one."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._views: Mapping[str, PoolView] | None = None

    @property
    def views(self) -> Mapping[str, PoolView]:
        if self._views is None:
            self._views = pool_views(self._tx.all(schema.SELECT_POOLS), self._tx.all(schema.SELECT_POOLED))
        return self._views

    @views.setter
    def views(self, views: Mapping[str, PoolView]) -> None:
        self._views = views


def _definition(spec: Job, name: str) -> Stage:
    for stage in spec.stages:
        if stage.name == name:
            return stage
    raise BrokenInvariant(f"a run of job {spec.id} has a stage {name} that its definition does not name")


def _blocked(tx: Transaction, run: RunRecord, spec: Job) -> str:
    """Why the overlap policy does not let the run begin, "" where it may or has begun."""
    if run.begun or run.beside:
        return ""
    line = tx.line(run.job)
    room = room_for(spec.overlap, spec.max_parallel)
    if line.begun + line.waiting <= room:  # with this run itself
        return ""
    begun = [row[0] for row in tx.all(schema.FIRST_BEGUN_RUN, run.job)] if line.begun >= room else []
    ahead = [row[0] for row in tx.all(schema.RUNS_AHEAD, run.job, run.order_at, run.id, room - line.begun)] if line.begun < room else []
    return start_blocked(spec.overlap, max_parallel=spec.max_parallel, begun=begun, ahead=ahead, going=line.begun) or ""


def _node(tx: Transaction, node: str, nodes: dict[str, NodeView | None]) -> NodeView | None:
    """The node as this command has left it so far."""
    if node not in nodes:
        row = tx.one(schema.SELECT_NODE, node)
        if row is None or row[7] is not None:
            nodes[node] = None
        else:
            nodes[node] = NodeView(node, row[0], row[5], row[3], tx.slots_used(node), msgspec.json.decode(row[2]))
    return nodes[node]


def _write(tx: Transaction, placement: Placement, run: RunRecord, stage: StageRecord, n: int, state: StageState, pools: Sequence[str]) -> None:
    fence = tx.execute(schema.NEXT_FENCE, (run.job,)).fetchall()[0][0]
    tx.execute(
        schema.INSERT_ATTEMPT,
        (
            run.id,
            placement.stage,
            n,
            placement.node,
            "assigned",
            fence,
            stage.slots,
            placement.renew_hash,
            placement.reasons,
            tx.time,
            to_json(pools).decode() if pools else "",
        ),
    )
    tx.take_slots(placement.node, stage.slots)
    tx.execute(schema.UPDATE_STAGE_PLACED, (state, n, run.id, placement.stage))
    if not run.begun:
        tx.line(run.job).begin()
    if not run.begun or run.reason:
        tx.execute(schema.UPDATE_RUN_BEGUN, (1, run.id))
    tx.event("stage", job=run.job, run=run.id, stage=placement.stage, node=placement.node, state=state, attempt=n)


def explain_waits(tx: Transaction, command: ExplainWaits) -> Result:
    """`explained`: how many reasons are new. A run whose time has come is `queued` from now on."""
    explained = 0
    for wait in command.waits:
        row = tx.one(schema.SELECT_WAIT, wait.run, wait.stage)
        if row is None:
            continue
        stage_state, stage_reason, run_state, due_at, run_reason, job = row
        if stage_state != StageState.QUEUED:
            continue
        state = RunState(run_state)
        if due_at <= tx.time:
            state = follow_run(state, RunEvent.DUE) or state
        if (stage_reason, run_state, run_reason) == (wait.reason, state, wait.reason):
            continue
        explained += 1
        tx.execute(schema.UPDATE_STAGE, (stage_state, wait.reason, wait.run, wait.stage))
        tx.execute(schema.UPDATE_RUN_STATE, (state, wait.reason, wait.run))
        tx.event("run", job=job, run=wait.run, state=state, reason=wait.reason)
    tx.touch("runs", "stages")
    return Done({"explained": explained})
