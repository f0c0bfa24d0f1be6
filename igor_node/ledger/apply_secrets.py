"""How the ledger changes when a secret is set, removed, or sealed anew. What it keeps is sealed by whoever proposes; nothing here can open it.

A secret belongs to a project, or to the whole cluster (project ""). Each setting is a version; of earlier ones only that they were is kept,
of the last hundred.
"""

from __future__ import annotations

from igor_node.ledger import schema
from igor_node.ledger.commands import Done, Refused, RemoveSecret, ResealSecrets, Result, SetSecret
from igor_node.ledger.transaction import Transaction

SEALED_LIMIT_BYTES = 64 * 1024
SECRETS_LIMIT = 10_000  # that are set
VERSIONS_KEPT = 100  # of each, with the one that is set: who replaced it when


def set_secret(tx: Transaction, command: SetSecret) -> Result:
    if not command.name or not 0 < len(command.sealed) <= SEALED_LIMIT_BYTES:
        return Refused("Invalid", "this is no secret", f"at most {SEALED_LIMIT_BYTES} bytes, sealed")
    newest = tx.one(schema.NEWEST_SECRET, command.project, command.name)[0]
    if command.version != newest + 1:
        return Refused("Conflict", f"the next version of secret {command.name} is {newest + 1}, not {command.version}", "ask again")
    if tx.one(schema.COUNT_SECRETS)[0] >= SECRETS_LIMIT:
        return Refused("TooMany", f"there are {SECRETS_LIMIT} secrets already", "igor secret rm removes those that nobody needs")
    tx.execute(schema.END_SECRET, (tx.time, command.project, command.name))
    tx.execute(schema.INSERT_SECRET, (command.project, command.name, command.version, command.sealed, tx.time, tx.actor))
    tx.execute(schema.FORGET_VERSIONS, (command.project, command.name, command.version - VERSIONS_KEPT))
    _tell(tx, command.project, command.name, "set", command.version)
    return Done({"name": command.name, "version": command.version})


def remove_secret(tx: Transaction, command: RemoveSecret) -> Result:
    found = tx.one(schema.SELECT_SECRET, command.project, command.name)
    if found is None:
        return Refused("NotFound", f'there is no secret "{command.name}"{f" in project {command.project}" if command.project else ""}')
    tx.execute(schema.END_SECRET, (tx.time, command.project, command.name))
    _tell(tx, command.project, command.name, "removed", found[0])
    return Done({"name": command.name, "version": found[0]})


def reseal_secrets(tx: Transaction, command: ResealSecrets) -> Result:
    """Those that were replaced or removed meanwhile stay as they are."""
    done = 0
    for row in command.rows:
        found = tx.one(schema.SELECT_SECRET, row.project, row.name)
        if found is not None and found[0] == row.version and 0 < len(row.sealed) <= SEALED_LIMIT_BYTES:
            tx.execute(schema.RESEAL_SECRET, (row.sealed, row.project, row.name, row.version))
            done += 1
    return Done({"resealed": done})


def _tell(tx: Transaction, project: str, name: str, action: str, version: int) -> None:
    tx.event("secret", project=project or None, action=action, name=name, version=version)
    tx.touch("secrets")
