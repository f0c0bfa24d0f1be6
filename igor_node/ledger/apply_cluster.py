"""How the ledger changes when a cluster is founded or its version raised, when nodes come, go and fall silent."""

from __future__ import annotations

from igor_node.ledger import schema
from igor_node.ledger.commands import (
    Done,
    FoundCluster,
    NodeChanged,
    RaiseLedgerVersion,
    Refused,
    RegisterNode,
    RemoveNode,
    Result,
)
from igor_node.ledger.transaction import BrokenInvariant, Transaction, to_json
from igor_node.ledger.versions import INSTALL
from igor_node.rules.membership import former_name
from igor_node.words import NAME, NodeState, Role

SLOTS_LIMIT = 100_000  # of one node


def found_cluster(tx: Transaction, command: FoundCluster) -> Result:
    there = tx.one(schema.GET_META, "cluster")
    if there is not None:
        return Refused("Conflict", f"this cluster was founded before, its id is {there[0]}")
    tx.execute(schema.SET_META, ("cluster", command.cluster))
    tx.execute(schema.SET_META, ("tzdata", command.tzdata))
    tx.execute(schema.SET_META, ("wanted_voters", command.wanted_voters))
    tx.execute(schema.SET_META, ("founded_at", tx.time))
    tx.event("cluster", action="founded", cluster=command.cluster)
    return Done({"cluster": command.cluster})


def raise_ledger_version(tx: Transaction, command: RaiseLedgerVersion) -> Result:
    """Migrations run here, at the same index everywhere. What is raised already stays."""
    if command.version > tx.known.highest:
        raise BrokenInvariant(f"it needs version {command.version} of the ledger; this igor-node knows versions up to {tx.known.highest}; {INSTALL}")
    if command.version <= tx.version:
        return Done({"version": tx.version, "changed": False})
    tx.write_collected()  # into tables as they are until here
    tx.known.migrate(tx, command.version)
    tx.execute(schema.SET_META, ("ledger_version", command.version))
    tx.event("cluster", action="ledger_version", version=command.version)
    return Done({"version": command.version, "changed": True})


def register_node(tx: Transaction, command: RegisterNode) -> Result:
    if not NAME.fullmatch(command.name):
        return Refused("Invalid", f'"{command.name}" is not a name for a node', "letters, digits, -, _ and . are; at most 100")
    if not 0 <= command.slots <= SLOTS_LIMIT:
        return Refused("Invalid", f"a node cannot have {command.slots} slots", f"expected 0 to {SLOTS_LIMIT}")
    namesake = tx.one(schema.SELECT_NODE_NAMED, command.name, command.node)
    if namesake is not None and tx.one(schema.SELECT_NODE, namesake[0])[5] != NodeState.LOST:
        message = f"another node is named {command.name} already (its id is {namesake[0]})"
        return Refused("Conflict", message, "give this one another --name; the name of a node that is lost can be taken")
    if refused := _take_token(tx, command):
        return refused
    if namesake is not None:
        _give_up_name(tx, namesake[0], command.name)
    labels = to_json(command.labels).decode()
    new = (command.name, command.address, labels, command.slots, command.version)
    row = tx.one(schema.SELECT_NODE, command.node)
    known = row is not None and row[7] is None
    if known and row[:5] == new:
        return Done({"node": command.node, "changed": False})
    state, reason = (row[5], row[6]) if known else (NodeState.UP, "")
    ephemeral = row[8] if known else int(command.ephemeral)  # for as long as it belongs to the cluster
    tx.execute(schema.UPSERT_NODE, (command.node, *new, state, reason, tx.time, tx.time, ephemeral))
    tx.event("node", node=command.node, action="changed" if known else "joined", name=command.name, state=state)
    tx.touch("nodes")
    return Done({"node": command.node, "changed": True})


def _give_up_name(tx: Transaction, node: str, name: str) -> None:
    """A lost node whose machine was replaced. It goes, unless something is still decided about its attempts; then it is told apart by its id."""
    if tx.one(schema.COUNT_OPEN_ATTEMPTS, node)[0]:
        tx.execute(schema.RENAME_NODE, (former_name(name, node), tx.time, node))
        tx.event("node", node=node, action="renamed", name=name, reason="another node has its name now")
    else:
        _remove(tx, node, name, "another node has its name now")
    tx.touch("nodes")


def _remove(tx: Transaction, node: str, name: str, reason: str) -> None:
    tx.execute(schema.REMOVE_NODE, (tx.time, reason, tx.time, node))
    tx.execute(schema.REVOKE_TOKENS_OF_NODE, (tx.time, node))
    tx.event("node", node=node, action="left", name=name, reason=reason)
    tx.touch("nodes", "tokens")


def _take_token(tx: Transaction, command: RegisterNode) -> Refused | None:
    """The node's own token, once. Another one takes the place of those it had."""
    if not command.token_id:
        return None
    known = tx.one(schema.SELECT_TOKEN, command.token_id)
    if known is not None:
        return None if known[0] == command.token_hash else Refused("Conflict", f"there is another token with the id {command.token_id}")
    if tx.one(schema.SELECT_TOKEN_BY_HASH, command.token_hash) is not None:
        return Refused("Conflict", "this token has been registered under another id")
    tx.execute(schema.REVOKE_TOKENS_OF_NODE, (tx.time, command.node))
    name = f"node {command.name}"
    tx.execute(schema.INSERT_TOKEN, (command.token_id, command.token_hash, Role.NODE, name, "[]", command.node, None, tx.actor, tx.time, None))
    tx.touch("tokens")
    return None


def node_changed(tx: Transaction, command: NodeChanged) -> Result:
    row = tx.one(schema.SELECT_NODE, command.node)
    if row is None or row[7] is not None:
        return Refused("NotFound", f"no node has the id {command.node}")
    if command.state not in tuple(NodeState):
        return Refused("Invalid", f'"{command.state}" is not a state of a node', f"expected one of {', '.join(NodeState)}")
    if (row[5], row[6]) == (command.state, command.reason):
        return Done({"node": command.node, "changed": False})
    tx.execute(schema.UPDATE_NODE_STATE, (command.state, command.reason, tx.time, command.node))
    tx.event("node", node=command.node, action="state", name=row[0], state=command.state, reason=command.reason)
    tx.touch("nodes")
    return Done({"node": command.node, "changed": True})


def remove_node(tx: Transaction, command: RemoveNode) -> Result:
    row = tx.one(schema.SELECT_NODE, command.node)
    if row is None or row[7] is not None:
        return Refused("NotFound", f"no node has the id {command.node}")
    going_on = tx.one(schema.COUNT_OPEN_ATTEMPTS, command.node)[0]
    if going_on:
        return Refused("Conflict", f"node {row[0]} has {going_on} attempts that have not ended", "drain it first, or wait for them")
    _remove(tx, command.node, row[0], command.reason)
    return Done({"node": command.node})
