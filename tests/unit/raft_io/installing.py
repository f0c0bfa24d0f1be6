"""Installs a snapshot and is killed before each of the calls to the system in turn; then starts again. A process of its own, for `test_install.py`.

    python -m tests.unit.raft_io.installing FOLDER       one line of JSON a kill: before which call, and what the next start found

Each life is a fork, so that a kill leaves what a kill leaves: nothing is closed, nothing is tidied up.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from igor_node.ledger.ledger import Ledger
from raft import replica, snapshot, wire
from raft.disk import RealDisk
from raft.interface import Applied, Entry, Halted, Kind, Member, Members
from raft.journal import Journal
from raft.membership import encode
from raft.settings import DEFAULT_SETTINGS

OWN = wire.Credentials("cluster", "b", "127.0.0.1:1", b"k" * 32)
MEMBERS = Members(voters=(Member("a", "127.0.0.1:2"), Member("b", "127.0.0.1:1")))
CALLS = ("open", "rename", "unlink", "fsync", "fdatasync", "pwrite", "write", "close")
KILLED = 9


def entries(count: int, term: int) -> list[Entry]:
    return [Entry(1, term, Kind.MEMBERS, encode(MEMBERS)), *(Entry(index, term, Kind.NOOP, b"") for index in range(2, count + 1))]


def prepare(folder: Path) -> None:
    """A follower whose ledger stands at 5 and whose journal goes to 9, in term 4 with a vote; and a snapshot that stands at 500."""
    (folder / "raft").mkdir(parents=True)
    journal = Journal.open(RealDisk(), str(folder / "raft"))
    journal.set_vote(4, "a")
    journal.append(entries(9, 2))
    journal.sync()
    journal.close()
    ledger = Ledger(folder / "ledger.sqlite")
    ledger.apply(entries(5, 2))
    ledger.close()
    leader = Ledger(folder / "leader.sqlite")
    leader.apply(entries(500, 3))
    incoming = snapshot.Incoming(folder / "raft" / snapshot.INCOMING_NAME)
    leader.snapshot(incoming.path)
    incoming.note("complete", incoming.path.stat().st_size)
    leader.close()


def build(folder: Path):
    ledger = Ledger(folder / "ledger.sqlite")
    return replica._build(OWN, folder / "raft", ledger, False, DEFAULT_SETTINGS, RealDisk(), lambda news: None)


def install(folder: Path, kill_before: int) -> None:
    """Ends with KILLED before the call of that number; never returns."""
    pump = build(folder)
    left = kill_before

    def deadly(name, original):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if not left:
                os._exit(KILLED)
            return original(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, deadly(name, getattr(os, name)))
    pump._install(folder / "raft" / snapshot.INCOMING_NAME, Applied(500, 3, MEMBERS))
    os._exit(0)


def found(folder: Path) -> dict[str, object]:
    """What the next start finds."""
    try:
        pump = build(folder)
    except Halted as problem:
        return {"halted": str(problem)}
    journal = pump._journal
    return {
        "ledger": pump._machine.applied().index,
        "engine": pump.engine.applied_index,
        "base": journal.base.index,
        "last": journal.last_index,
        "term": journal.term,
        "vote": journal.vote,
        "voters": [member.id for member in pump.engine.members.voters],
        "term_there": journal.term_at(pump.engine.applied_index),
    }


def in_fork(function) -> int:
    child = os.fork()
    if not child:
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    folder = Path(sys.argv[1])
    prepare(folder / "before")
    number, code = 0, KILLED
    while code == KILLED:
        number += 1
        life = folder / str(number)
        shutil.copytree(folder / "before", life)
        code = in_fork(lambda life=life, number=number: install(life, number))
        in_fork(lambda life=life, number=number, code=code: report({"number": number, "code": code, **found(life)}))
        shutil.rmtree(life)


def report(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
