"""Random histories of a ledger: plausible commands, stale ones and nonsense, each made from what the ledger holds at that moment.

A seed gives the same history each time. The driver knows no rule of the ledger: it proposes what a leader, a node or a person might propose, also at
the wrong moment, and leaves it to `apply` to refuse.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from igor_node.definitions.jobs import Schedule, Stage, encode_job
from igor_node.ledger.commands import (
    AssignStages,
    AttemptsLost,
    CancelRun,
    Command,
    CreateRun,
    CreateToken,
    DropAuthority,
    EndSession,
    ExplainWaits,
    Fire,
    FireRuns,
    KeyMade,
    KeysDropped,
    KeyUsed,
    LogIn,
    NodeChanged,
    NoteTokenUses,
    PauseJobs,
    Placement,
    Prune,
    PushProject,
    RaiseLedgerVersion,
    RemoveNode,
    RemoveSecret,
    ReportEvents,
    ResealedSecret,
    ResealSecrets,
    ResumeJobs,
    RevokeToken,
    SetAuthority,
    SetSecret,
    StagePush,
    Stretch,
    WaitReason,
    encode_push,
)
from igor_node.stream import AttemptEvent
from igor_node.words import SECOND
from tests.unit.ledger.book import Book, job
from tests.unit.ledger.newer import NEWER, LeaveNote

POLICIES = ("queue", "queue_one", "skip", "cancel", "allow")
LOSSES = ("rerun", "rerun", "wait", "fail")
SLOTS = 3
HOUR = 3600 * SECOND


class History:
    """Grows a book by random commands, of a build that knows a version more than the ledger begins with."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.book = Book(folder, known=NEWER)
        self.chance = random.Random(seed)
        self.results: list[Any] = []
        self.pieces: list[StagePush] = []  # of a push under way, in some order
        self.connection = self.book.ledger._connection
        self.jobs = [f"j{number}" for number in range(4)]
        for name in ("a", "b"):
            self.book.node(name, slots=SLOTS)
        self.do(self._push())
        self.makers: list[Callable[[], Command]] = [
            *[self._fire] * 8, *[self._create] * 3, *[self._place] * 12, *[self._report] * 16, *[self._cancel] * 2, *[self._lose] * 2,
            self._pause, self._resume, self._push, self._stretch, self._explain, self._prune, self._node, self._token, self._leave, self._authority,
            self._cluster_key,
            self._secret,
            self._stage, self._stage, self._stage, self._note, self._raise,
        ]  # fmt: skip

    def step(self) -> Any:
        self.book.now += self.chance.choice((0, 1, SECOND, 20 * SECOND))
        if self.chance.random() < 0.02:
            self.book.term += 1
        if self.results and self.chance.random() < 0.03:
            entry = self.chance.choice(self.book.entries)
            return self._again(entry.data)
        return self.do(self.chance.choice(self.makers)())

    def do(self, command: Command) -> Any:
        result = self.book.apply(command)
        self.results.append(result)
        return result

    def _again(self, data: bytes) -> Any:
        """An entry that is in the log twice."""
        template = self.book.entries[-1]
        entry = type(template)(self.book.ledger.applied().index + 1, self.book.term, 0, data)
        self.book.entries.append(entry)
        result = self.book.ledger.apply([entry])[0]
        self.results.append(result)
        return result

    # --- commands

    def _rows(self, statement: str) -> list[Any]:
        return self.connection.execute(statement).fetchall()

    def _some_job(self) -> str:
        return f"shop/{self.chance.choice([*self.jobs, 'none'])}"

    def _term(self) -> int:
        return self.book.term - (self.chance.random() < 0.03)

    def _push(self) -> PushProject:
        names = [name for name in self.jobs if self.chance.random() < 0.85]
        texts = []
        for name in names:
            number = self.jobs.index(name)
            loss = LOSSES[number]
            stages = [Stage(name="main", command=self.chance.choice(("x", "y")), on_node_loss=loss)]
            if number % 2:
                stages += [
                    Stage(name="next", command="z", needs=("main",), on_node_loss=loss, slots=2),
                    Stage(name="side", command="z", needs=("main",), allow_failure=True),
                    Stage(name="clean", command="z", needs=("next",), always=True),
                ]
            schedule = Schedule(every_ns=self.chance.choice((30, 60)) * SECOND)
            policy = POLICIES[(number * 2) % len(POLICIES)]
            made = job(
                name, stages=stages, schedule=schedule, overlap=policy, max_queued=3, max_parallel=2, max_attempts=2,
                on_push=self.chance.choice(("latest", "keep")),
            )  # fmt: skip
            texts.append(encode_job(made))
        return PushProject(project="shop", jobs=tuple(texts), prune=self.chance.random() < 0.7)

    def _stage(self) -> StagePush:
        """The next piece of a push, or one that came before, or one of another push."""
        if not self.pieces:
            data, count = encode_push(self._push()), self.chance.randint(1, 3)
            size, push = -(-len(data) // count), self.book.new_id()
            self.pieces = [StagePush(push=push, part=n, parts=count, data=data[n * size : (n + 1) * size]) for n in range(count)]
            self.chance.shuffle(self.pieces)
        piece = self.chance.choice(self.pieces)
        if self.chance.random() < 0.8:
            self.pieces.remove(piece)
        return piece

    def _note(self) -> LeaveNote:
        return LeaveNote(text=self.chance.choice("abc"))

    def _raise(self) -> RaiseLedgerVersion:
        return RaiseLedgerVersion(version=NEWER.highest - (self.chance.random() < 0.5))

    def _fire(self) -> FireRuns:
        fires = []
        for _ in range(self.chance.randint(1, 3)):
            at = self.book.now + self.chance.randint(-10, 10) * SECOND
            due = at + self.chance.choice((0, 0, 2 * SECOND))
            outcome = self.chance.choice(("", "", "", "", "skipped", "missed"))
            fires.append(Fire(job=self._some_job(), run=self.book.new_id(), scheduled_at=at, due_at=due, outcome=outcome))
        fires.sort(key=lambda fire: fire.scheduled_at)
        decided = {fire.job: fire.scheduled_at for fire in fires} if self.chance.random() < 0.5 else {}
        return FireRuns(term=self._term(), fires=tuple(fires), decided=decided)

    def _stretch(self) -> FireRuns:
        first = self.book.now + self.chance.randint(-20, 0) * SECOND
        stretch = Stretch(job=self._some_job(), first=first, last=first + self.chance.randint(-1, 9), count=2, outcome="missed", reason="no leader")
        return FireRuns(term=self._term(), stretches=(stretch,))

    def _create(self) -> CreateRun:
        key = self.chance.choice((None, None, "k1", "k2"))
        return CreateRun(job=self._some_job(), run=self.book.new_id(), key=key, beside=self.chance.random() < 0.2, params={"a": "b"})

    def _place(self) -> AssignStages:
        rows = self._rows("SELECT run, name, attempts FROM stages WHERE ended_at IS NULL ORDER BY run, name")
        placements = []
        for run, stage, attempts in self.chance.sample(rows, min(len(rows), self.chance.randint(1, 4))):
            n = attempts + self.chance.choice((1, 1, 1, 1, 1, 2))
            node = self.chance.choice(("node-a", "node-a", "node-b", "node-b", "node-z"))
            placements.append(Placement(run=run, stage=stage, node=node, attempt=f"{run}.{stage}.{n}", renew_hash="h"))
        return AssignStages(term=self._term(), placements=tuple(placements))

    def _explain(self) -> ExplainWaits:
        rows = self._rows("SELECT run, name FROM stages ORDER BY run, name")
        chosen = self.chance.sample(rows, min(len(rows), 3))
        return ExplainWaits(waits=tuple(WaitReason(run=run, stage=stage, reason="full") for run, stage in chosen))

    def _cancel(self) -> CancelRun:
        rows = self._rows("SELECT id FROM runs ORDER BY id")
        return CancelRun(run=self.chance.choice(rows)[0] if rows else "none")

    def _attempts(self, share_of_old: float) -> list[Any]:
        where = "" if self.chance.random() < share_of_old else "WHERE ended_at IS NULL"
        return self._rows(f"SELECT run, stage, n, node, state, last_seq, revoke FROM attempts {where} ORDER BY run, stage, n")

    def _lose(self) -> AttemptsLost:
        names = [f"{run}.{stage}.{n}" for run, stage, n, *_ in self._attempts(0.2)]
        chosen = tuple(self.chance.sample(names, min(len(names), 2)))
        return AttemptsLost(term=self._term(), attempts=chosen, reason="node is silent", decision=self.chance.choice(("", "", "", "rerun", "fail")))

    def _report(self) -> ReportEvents:
        node = self.chance.choice(("node-a", "node-b"))
        mine = [row for row in self._attempts(0.3) if row[3] == node or self.chance.random() < 0.05]
        events: list[AttemptEvent] = []
        for row in self.chance.sample(mine, min(len(mine), 3)):
            events += self._story(*row)
        return ReportEvents(node=node, events=tuple(events))

    def _story(self, run: str, stage: str, n: int, node: str, state: str, last_seq: int, revoke: str | None) -> list[AttemptEvent]:
        """Some events in a row, most of them such as a node would send."""
        attempt, at = f"{run}.{stage}.{n}", self.book.now
        seq = last_seq + self.chance.choice((1, 1, 1, 1, 1, 0, 2))
        end = self.chance.choice(("succeeded", "succeeded", "succeeded", "failed", "timed_out", "cancelled", "skipped", "lost"))
        kinds: list[dict[str, Any]] = {
            "assigned": [{"kind": "held"}, {"kind": "try_started", "try_n": 1}],
            "held": [{"kind": "try_started", "try_n": 1}],
        }.get(state, [{"kind": "try_ended", "try_n": 1, "state": end, "exit_code": 1}, {"kind": "ended", "state": end}])
        if state in ("assigned", "held") and (revoke or self.chance.random() < 0.15):
            kinds = [self.chance.choice(({"kind": "revoked"}, {"kind": "refused", "reason": "no"}))]
        if self.chance.random() < 0.05:
            kinds = [*self.chance.sample(kinds, len(kinds)), {"kind": "nonsense"}]
        return [AttemptEvent(attempt=attempt, seq=seq + position, at=at, **kind) for position, kind in enumerate(kinds)]

    def _pause(self) -> PauseJobs:
        until = self.book.now + HOUR if self.chance.random() < 0.3 else None
        return PauseJobs(jobs=(self._some_job(),), reason=self.chance.choice(("", "why")), until=until)

    def _resume(self) -> ResumeJobs:
        return ResumeJobs(jobs=(self._some_job(),))

    def _node(self) -> NodeChanged:
        node = self.chance.choice(("node-a", "node-b"))
        return NodeChanged(node=node, state=self.chance.choice(("up", "up", "up", "silent", "draining", "lost")))

    def _leave(self) -> RemoveNode:
        return RemoveNode(node="node-z")

    def _token(self) -> CreateToken | LogIn | RevokeToken | EndSession:
        token, hashed = f"t{self.chance.randint(0, 5)}", f"h{self.chance.randint(0, 5)}"
        projects = self.chance.choice(((), ("shop",)))
        return self.chance.choice(
            (
                CreateToken(token=token, hash=hashed, role=self.chance.choice(("viewer", "king")), projects=projects,
                    by=self.chance.choice(("", "t1"))),
                LogIn(token=token, hash=hashed, subject="ann", name="ann", role=self.chance.choice(("admin", "viewer", "")), projects=projects,
                      expires_at=self.book.now + self.chance.randint(0, 10**12)),
                RevokeToken(token=token),
                NoteTokenUses(uses={token: self.book.now - self.chance.randint(-100, 100), "t1": 5}),
                EndSession(session=token, until=self.book.now + self.chance.randint(0, 10**12)),
            )
        )  # fmt: skip

    def _authority(self) -> SetAuthority | DropAuthority:
        generation = self.chance.randint(1, 3)
        made = SetAuthority(generation=generation, certificates=self.chance.choice(("ca", "ca", "other", "")), sealed_key=b"sealed")
        return self.chance.choice((made, DropAuthority(generation=generation)))

    def _cluster_key(self) -> KeyMade | KeyUsed | KeysDropped:
        generation = self.chance.randint(1, 4)
        made = KeyMade(generation=generation, mark=self.chance.choice((b"markmark", b"markmark", b"another1", b"")))
        return self.chance.choice((made, made, KeyUsed(generation=generation), KeysDropped(before=generation)))

    def _secret(self) -> SetSecret | RemoveSecret | ResealSecrets:
        project, name, version = self.chance.choice(("", "shop")), self.chance.choice(("db", "key", "")), self.chance.randint(1, 3)
        sealed = self.chance.choice((b"sealed", b"sealed anew", b""))
        row = ResealedSecret(project=project, name=name, version=version, sealed=sealed)
        return self.chance.choice(
            (
                SetSecret(project=project, name=name, version=version, sealed=sealed),
                RemoveSecret(project=project, name=name),
                ResealSecrets(rows=(row,)),
            )
        )

    def _prune(self) -> Prune:
        before = self.book.now - self.chance.choice((10, 60, 600)) * SECOND
        created_before = self.book.now - self.chance.choice((0, 30, 10**6)) * SECOND
        return Prune(runs_before=before, created_before=created_before, results_before=before, events_before=before)
