"""Which commands a build knows, from which version of the ledger on each of them may be in the log, and how the tables change from one to the next.

A rolling upgrade puts newer builds beside older ones. A newer build keeps speaking the cluster's version: `entry` refuses to encode a command that is
newer, whoever asks. When every voter and learner has announced that it knows a higher version, the leader proposes `RaiseLedgerVersion`
(leader/versions.py); applying that entry runs the migrations, so they happen at the same index everywhere, and only then the newer commands are
proposed. A build that meets a version or a command it does not know halts with a line that says so; so a downgrade ends where the version was raised.

To add a command or a table: a new `Step` at the end of STEPS in apply.py. Steps that were released never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import msgspec

from igor_node.ledger.commands import Command, Envelope, Origin, Refused, Result, encode_envelope
from igor_node.ledger.schema import FIRST_VERSION
from igor_node.words import Unavailable

if TYPE_CHECKING:
    from igor_node.ledger.transaction import Transaction

Apply = Callable[["Transaction", Any], Result]
INSTALL = "install a newer igor-node here"


class TooNew(Unavailable):
    """The cluster's ledger is not of the version yet that this command needs."""


class Step(NamedTuple):
    """What one version adds to the one before: commands, and SQL that is run in the entry that raises the ledger to it."""

    commands: Mapping[type[Command], Apply]
    migration: tuple[str, ...] = ()


class CommandSet:
    """What one build knows. `highest`: the version that it announces."""

    def __init__(self, first: Mapping[type[Command], Apply], steps: Sequence[Step] = ()) -> None:
        self.highest = FIRST_VERSION + len(steps)
        self._steps = tuple(steps)
        self._apply: dict[type[Command], Apply] = dict(first)
        self._since = dict.fromkeys(first, FIRST_VERSION)
        for version, step in enumerate(steps, FIRST_VERSION + 1):
            self._apply.update(step.commands)
            self._since.update(dict.fromkeys(step.commands, version))
        self._tags = {command.__struct_config__.tag for command in self._apply}  # asked for membership alone
        one_of = Union[tuple(self._apply)]  # type: ignore[valid-type]  # noqa: UP007
        fields: list[Any] = [("id", str), ("at", int), ("actor", str, ""), ("origin", Origin | None, None), ("command", one_of)]
        read = msgspec.defstruct("Envelope", fields, kw_only=True, frozen=True)
        self.decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(read).decode

    def entry(self, envelope: Envelope, version: int) -> bytes:
        """The command as data of a log entry. Raises TooNew where the ledger, which is of `version`, must not get it yet."""
        if not self.may_propose(type(envelope.command), version):
            since = self._since[type(envelope.command)]
            raise TooNew(
                f"this needs version {since} of the ledger; the cluster's is {version} until every voter and learner runs a newer igor-node",
                hint="igor nodes shows which program each runs; ask again after the upgrade",
            )
        return encode_envelope(envelope)

    def may_propose(self, command: type[Command], version: int) -> bool:
        return self._since[command] <= version

    def knows_tag(self, tag: str) -> bool:
        return tag in self._tags

    def apply(self, tx: Transaction, command: Command) -> Result:
        """What the command does. A command that was proposed too early is refused by all who know it, and halts all who do not."""
        since = self._since[type(command)]
        if since > tx.version:
            return Refused("Conflict", f"this command needs version {since} of the ledger, which is of version {tx.version}")
        return self._apply[type(command)](tx, command)

    def migrate(self, tx: Transaction, version: int) -> None:
        """Runs the migrations of all versions up to this one, which must be known."""
        for step in self._steps[tx.version - FIRST_VERSION : version - FIRST_VERSION]:
            for statement in step.migration:
                tx.execute(statement)
        tx.version = version

    def why_unreadable(self, version: Any) -> str:
        """Why a ledger of this version cannot be used; "" where it can."""
        if not isinstance(version, int):
            return f"has no version that can be read ({version!r})"
        if version < FIRST_VERSION:
            return f"has version {version}, from before the first release; this igor-node knows versions {FIRST_VERSION} to {self.highest}"
        return f"has version {version}, this igor-node knows versions up to {self.highest}; {INSTALL}" if version > self.highest else ""
