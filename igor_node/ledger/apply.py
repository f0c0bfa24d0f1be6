"""One entry of the log becomes a change of the ledger and an answer: `apply_entry`, and the table of what each command does.

Pure but for the ledger's own SQLite: no clock (the entry brings its time), no chance, no floats, no iteration over sets. Total: whatever an entry
holds, the answer is a value, `Done` or `Refused`, the same on every replica. Only two things raise: a broken invariant and a command that this
version does not know; both halt the replica before its transaction commits, because two ledgers that differ cannot be mended.

Every apply function checks all its preconditions before it writes, so that a refused command leaves nothing behind.

The same command may be in the log more than once, since who got no answer asks again. Its id decides: within 24 h of ledger time the first answer
is given again; older ids are refused, because their answers may be forgotten, and so are ids from a future that no clock of a sound machine shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from igor_node.ledger import apply_activity, commands, schema
from igor_node.ledger.apply_authorities import drop_authority, set_authority
from igor_node.ledger.apply_backfills import backfill_runs, cancel_backfill, create_backfill
from igor_node.ledger.apply_cluster import (
    found_cluster,
    node_changed,
    raise_ledger_version,
    register_node,
    remove_node,
)
from igor_node.ledger.apply_ends import cancel_run
from igor_node.ledger.apply_keys import key_made, key_used, keys_dropped
from igor_node.ledger.apply_placements import assign_stages, explain_waits
from igor_node.ledger.apply_prune import prune
from igor_node.ledger.apply_pushes import pause_jobs, push_project, resume_jobs
from igor_node.ledger.apply_reports import attempts_lost, decide_lost, report_events
from igor_node.ledger.apply_runs import create_run, fire_runs
from igor_node.ledger.apply_secrets import remove_secret, reseal_secrets, set_secret
from igor_node.ledger.apply_staged import stage_push
from igor_node.ledger.apply_tokens import create_token, end_session, log_in, note_token_uses, revoke_token
from igor_node.ledger.commands import Command, Refused, Result, decode_result, encode_result
from igor_node.ledger.transaction import LATEST, BrokenInvariant, Transaction
from igor_node.ledger.versions import INSTALL, Apply, CommandSet, Step
from igor_node.words import SECOND, id_time

COMMAND_KEPT_NS = 24 * 3600 * SECOND  # of ledger time
AHEAD_NS = 24 * 3600 * SECOND  # an id that is further ahead comes from a broken clock, and its answer would have to be kept for as long

APPLY: Mapping[type[Command], Apply] = {
    commands.FoundCluster: found_cluster,
    commands.RaiseLedgerVersion: raise_ledger_version,
    commands.RegisterNode: register_node,
    commands.NodeChanged: node_changed,
    commands.RemoveNode: remove_node,
    commands.SetAuthority: set_authority,
    commands.DropAuthority: drop_authority,
    commands.KeyMade: key_made,
    commands.KeyUsed: key_used,
    commands.KeysDropped: keys_dropped,
    commands.SetSecret: set_secret,
    commands.RemoveSecret: remove_secret,
    commands.ResealSecrets: reseal_secrets,
    commands.CreateToken: create_token,
    commands.RevokeToken: revoke_token,
    commands.NoteTokenUses: note_token_uses,
    commands.LogIn: log_in,
    commands.EndSession: end_session,
    commands.PushProject: push_project,
    commands.StagePush: stage_push,
    commands.PauseJobs: pause_jobs,
    commands.ResumeJobs: resume_jobs,
    commands.FireRuns: fire_runs,
    commands.CreateRun: create_run,
    commands.CancelRun: cancel_run,
    commands.CreateBackfill: create_backfill,
    commands.BackfillRuns: backfill_runs,
    commands.CancelBackfill: cancel_backfill,
    commands.AssignStages: assign_stages,
    commands.ExplainWaits: explain_waits,
    commands.ReportEvents: report_events,
    commands.AttemptsLost: attempts_lost,
    commands.DecideLost: decide_lost,
    commands.Prune: prune,
}
"""What each command of a new ledger does."""

STEPS: tuple[Step, ...] = ()
"""What was added since, a version each (versions.py). None was needed yet."""

KNOWN = CommandSet(APPLY, STEPS)
"""What this build knows."""


def apply_entry(tx: Transaction, data: bytes, term: int, newest_result: str) -> tuple[Result, bytes]:
    """The answer, and its encoded form. `newest_result`: the highest id in the table of results. Ids sort by time, so most commands are known to be
    new without a look."""
    result, encoded = _answer(tx, data, term, newest_result)
    return result, encode_result(result) if encoded is None else encoded


def _answer(tx: Transaction, data: bytes, term: int, newest_result: str) -> tuple[Result, bytes | None]:
    envelope = _decode(tx, data)
    if isinstance(envelope, Refused):
        return envelope, None
    if not 0 <= envelope.at < LATEST:
        return Refused("Malformed", "a command's time lies between the years 1970 and 2252"), None
    tx.time, tx.term, tx.actor = max(tx.time, envelope.at), term, envelope.actor
    # Age before answer: a result that is old enough to be pruned is never given, whether it has been pruned or not.
    if refused := _unfit(envelope.id, tx.time):
        return refused, None
    if (earlier := _earlier(tx, envelope.id, newest_result)) is not None:
        return decode_result(earlier), earlier
    deed = apply_activity.about(tx, envelope)
    result = tx.known.apply(tx, envelope.command)
    apply_activity.note(tx, envelope, deed, result)
    encoded = encode_result(result)
    tx.answer(envelope.id, encoded)
    return result, encoded


def refuse_unfit(data: bytes) -> Result:
    """The answer to a command with a value that the ledger cannot hold (an integer of more than 64 bits): never anything but this."""
    return Refused("Malformed", f"a value in this command of {len(data)} bytes does not fit into the ledger")


def _decode(tx: Transaction, data: bytes) -> Any:
    """An Envelope, or the refusal; without the library's words for what is wrong: another version of it has others, and answers must not differ."""
    try:
        return tx.known.decode(data)
    except msgspec.ValidationError:
        _must_know(tx, data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # no MessagePack at all
    return Refused("Malformed", f"the command of {len(data)} bytes cannot be read")


def _must_know(tx: Transaction, data: bytes) -> None:
    """A command of a later version must halt this node: its replicas that know it change their ledgers by it."""
    loose = msgspec.msgpack.decode(data)
    command = loose.get("command") if isinstance(loose, dict) else None
    tag = command.get("type") if isinstance(command, dict) else None
    if isinstance(tag, str) and not tx.known.knows_tag(tag):
        raise BrokenInvariant(f'a command "{tag}" that this igor-node does not know (it knows versions up to {tx.known.highest}); {INSTALL}')


def _earlier(tx: Transaction, command: str, newest: str) -> bytes | None:
    """The stored answer to this id, of this batch or of one before."""
    in_batch = tx.results.get(command)
    if in_batch is not None or command > newest:
        return in_batch
    row = tx.one(schema.SELECT_RESULT, command)
    return None if row is None else bytes(row[0])


def _unfit(command: str, time: int) -> Refused | None:
    try:
        made_at = id_time(command)
    except ValueError:
        return Refused("Malformed", f'"{command[:40]}" is not an id of a command')
    if made_at > time + AHEAD_NS:
        return Refused("Malformed", "this command's id is of a time more than 24 h ahead", "is the clock of the machine right that made it?")
    if made_at < time - COMMAND_KEPT_NS:
        return Refused(
            "Conflict", "this command was made more than 24 h ago; whether it was carried out before is not known any more", "look, then ask anew"
        )
    return None
