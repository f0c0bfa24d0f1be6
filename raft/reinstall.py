"""A copy of the state machine for a node that does not trust its own any more, fetched before its consensus starts.

`node.py` calls `fetch_copy` at a start that finds the ledger marked as wrong. The journal stays as it is; term and vote with it. Nobody has to lead:
any member that has applied as much as this node's journal may have cut will do, so a cluster that needs this node's vote to elect a leader gets it
back all the same. The node votes for nobody meanwhile, because it has not started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from raft import snapshot, tls, wire
from raft.disk import RealDisk
from raft.interface import Applied, Halted, Members, NodeId
from raft.journal import Journal
from raft.recovery import read_epoch
from raft.segment import Damaged


def fetch_copy(
    *,
    node: NodeId,
    address: str,
    cluster: str,
    key: bytes | Callable[[], Sequence[bytes]],
    folder: Path,
    members: Members,
    path: Path,
    trust: tls.Tls | None = None,
) -> Applied:
    """Writes it to `path`, checked against the sender's checksums and synced, and says where it stands.

    Blocks. Raises snapshot.TransferFailed where no member could give one: try again.
    """
    base = _journal_base(folder)
    own = wire.Credentials(cluster, node, address, key, read_epoch(folder).epoch)
    failures = []
    for member in (*members.voters, *members.learners):
        if member.id == node:
            continue
        try:
            stands = snapshot.fetch(own, member.id, member.address, path, trust)
        except (snapshot.TransferFailed, OSError) as problem:
            failures.append(f"{member.id} at {member.address}: {problem}")
            continue
        if stands.index >= base:
            return stands
        failures.append(f"{member.id} stands at {stands.index}, the journal here begins behind {base}")
    raise snapshot.TransferFailed("; ".join(failures) or "there is no other member")


def _journal_base(folder: Path) -> int:
    """Where the journal begins: a copy must reach it, or entries would be missing in between."""
    try:
        journal = Journal.open(RealDisk(), str(folder))
    except Damaged as problem:
        raise Halted(str(problem)) from problem
    except OSError as problem:
        raise Halted(f"the journal in {folder} cannot be opened: {problem.strerror or problem}") from problem
    try:
        return journal.base.index
    finally:
        journal.close()
