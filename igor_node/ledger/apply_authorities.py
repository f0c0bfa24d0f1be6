"""How the ledger changes when the cluster gets a CA, or gives one up."""

from __future__ import annotations

from igor_node.ledger import schema
from igor_node.ledger.commands import Done, DropAuthority, Refused, Result, SetAuthority
from igor_node.ledger.transaction import Transaction

CERTIFICATES_LIMIT = 64 * 1024
KEY_LIMIT_BYTES = 4 * 1024


def set_authority(tx: Transaction, command: SetAuthority) -> Result:
    if not command.certificates or len(command.certificates) > CERTIFICATES_LIMIT or not 0 < len(command.sealed_key) <= KEY_LIMIT_BYTES:
        return Refused("Invalid", "this is no CA", f"at most {CERTIFICATES_LIMIT} bytes of certificates and {KEY_LIMIT_BYTES} of a key")
    known = tx.one(schema.SELECT_AUTHORITY, command.generation)
    newest = tx.one(schema.NEWEST_AUTHORITY)[0]
    if known is not None and known[0] != command.certificates:
        return Refused("Conflict", f"the CA of generation {command.generation} is another one", "somebody else was faster; look, then ask anew")
    if known is None and command.generation != newest + 1:
        return Refused("Conflict", f"the next CA is of generation {newest + 1}, not {command.generation}")
    tx.execute(schema.UPSERT_AUTHORITY, (command.generation, command.certificates, command.sealed_key, tx.time))
    if known is None:
        tx.event("cluster", action="authority", generation=command.generation)
    tx.touch("authorities")
    return Done({"generation": command.generation, "changed": known is None})


def drop_authority(tx: Transaction, command: DropAuthority) -> Result:
    known = tx.one(schema.SELECT_AUTHORITY, command.generation)
    if known is None:
        return Refused("NotFound", f"there is no CA of generation {command.generation}")
    if command.generation == tx.one(schema.NEWEST_AUTHORITY)[0]:
        return Refused("Conflict", f"generation {command.generation} is the newest CA: there would be none")
    if known[2] is not None:
        return Done({"generation": command.generation, "changed": False})
    tx.execute(schema.DROP_AUTHORITY, (tx.time, command.generation))
    tx.event("cluster", action="authority_dropped", generation=command.generation)
    tx.touch("authorities")
    return Done({"generation": command.generation, "changed": True})
