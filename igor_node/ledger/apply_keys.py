"""How the ledger changes when the cluster's key is replaced: one is made, every member fetches it, it is used, those before it are dropped.

The keys themselves are never here, only their marks: which is meant, without telling it.
"""

from __future__ import annotations

from igor_node.ledger import schema
from igor_node.ledger.commands import Done, KeyMade, KeysDropped, KeyUsed, Refused, Result
from igor_node.ledger.transaction import Transaction

MARK_BYTES = 8


def key_made(tx: Transaction, command: KeyMade) -> Result:
    if len(command.mark) != MARK_BYTES:
        return Refused("Invalid", f"a key's mark has {MARK_BYTES} bytes, not {len(command.mark)}")
    known = tx.one(schema.SELECT_CLUSTER_KEY, command.generation)
    if known is not None and known[0] == command.mark:
        return Done({"generation": command.generation, "changed": False})
    newest = tx.one(schema.NEWEST_CLUSTER_KEY)[0]
    if command.generation <= newest:
        return Refused("Conflict", f"the cluster's key of generation {command.generation} is another one", "somebody else was faster; look first")
    tx.execute(schema.INSERT_CLUSTER_KEY, (command.generation, command.mark, tx.time))
    return _done(tx, "key_made", command.generation)


def key_used(tx: Transaction, command: KeyUsed) -> Result:
    known = tx.one(schema.SELECT_CLUSTER_KEY, command.generation)
    if known is None:
        return Refused("NotFound", f"there is no key of generation {command.generation}")
    if known[1] is not None:
        return Done({"generation": command.generation, "changed": False})
    if command.generation < tx.one(schema.NEWEST_CLUSTER_KEY)[0]:
        return Refused("Conflict", f"there is a newer key than that of generation {command.generation}")
    tx.execute(schema.USE_CLUSTER_KEY, (tx.time, command.generation))
    return _done(tx, "key_used", command.generation)


def keys_dropped(tx: Transaction, command: KeysDropped) -> Result:
    used = tx.one(schema.USED_CLUSTER_KEY)[0]
    if command.before > used:
        return Refused("Conflict", f"the key of generation {used} is in force")
    tx.execute(schema.DROP_CLUSTER_KEYS, (tx.time, command.before))
    return _done(tx, "keys_dropped", command.before)


def _done(tx: Transaction, action: str, generation: int) -> Done:
    tx.event("cluster", action=action, generation=generation)
    tx.touch("keys")
    return Done({"generation": generation, "changed": True})
