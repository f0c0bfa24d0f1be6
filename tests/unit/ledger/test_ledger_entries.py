"""Entries of the log: time that never goes back, ids that count once, and what must halt instead of being applied."""

from __future__ import annotations

import msgspec
import pytest

from igor_node.ledger import query_audit, query_cluster, query_events, query_jobs, query_prune
from igor_node.ledger.apply import APPLY
from igor_node.ledger.commands import AnyCommand, CreateRun, CreateToken, Prune, Refused
from igor_node.ledger.transaction import BrokenInvariant
from igor_node.words import ERROR_BY_NAME, SECOND
from raft.interface import Entry, Kind, Member, Members
from tests.unit.ledger.book import START, Book, job, make_id

DAY = 24 * 3600 * SECOND


def test_every_command_has_its_function() -> None:
    """The table is complete."""
    assert set(APPLY) == set(AnyCommand.__args__)


def test_ledger_time_never_goes_back(book: Book) -> None:
    """A proposer whose clock is behind writes with the time of the last entry."""
    book.push(job())
    book.now -= 3600 * SECOND
    book.create()
    assert book.read(query_cluster.position).time == START
    assert book.sql("SELECT created_at FROM runs") == [(START,)]


def test_the_same_command_again_gives_the_first_answer(book: Book) -> None:
    """Done or refused, whatever has changed since; also within one batch."""
    book.push(job())
    command = CreateRun(job="shop/report", run=(run := book.new_id()))
    first = book.apply(command, id=(key := book.new_id()))
    assert book.apply(command, id=key) == first
    entry = book.entry(CreateRun(job="shop/report", run=book.new_id()))
    twin = Entry(entry.index + 1, entry.term, entry.kind, entry.data)
    results = book.ledger.apply([entry, twin])
    assert results[0] == results[1]
    assert book.sql("SELECT count(*) FROM runs") == [(2,)]
    assert run in [row[0] for row in book.sql("SELECT id FROM runs")]
    no = book.apply(CreateRun(job="shop/none", run=book.new_id()), id=(key := book.new_id()))
    book.push(job("none"), job())
    assert book.apply(CreateRun(job="shop/none", run=book.new_id()), id=key) == no


def test_an_id_that_came_late_is_still_known(book: Book) -> None:
    """Ids sort by time, and an older one may come after a newer one."""
    old = make_id(START - 60 * SECOND, 7)
    book.push(job())
    first = book.apply(CreateRun(job="shop/report", run=book.new_id()), id=old)
    assert book.apply(CreateRun(job="shop/report", run=book.new_id()), id=old) == first


@pytest.mark.parametrize(
    "identifier, error",
    [
        pytest.param(make_id(START - DAY - SECOND, 1), "Conflict", id="older than a day"),
        pytest.param(make_id(START - DAY + SECOND, 1), None, id="just younger"),
        pytest.param("short", "Malformed", id="no id"),
        pytest.param("!" * 20, "Malformed", id="other characters"),
    ],
)
def test_an_old_id_is_refused_never_applied(book: Book, identifier: str, error: str | None) -> None:
    """Its answer may be forgotten already."""
    result = book.apply(CreateToken(token="t", hash="h", role="viewer"), id=identifier)
    assert getattr(result, "error", None) == error


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no MessagePack"),
        pytest.param(msgspec.msgpack.encode([1, 2]), id="no envelope"),
        pytest.param(msgspec.msgpack.encode({"id": "x", "at": 1}), id="no command"),
        pytest.param(msgspec.msgpack.encode({"id": "x", "at": 1, "command": {"type": "create_run"}}), id="a field is missing"),
        pytest.param(msgspec.msgpack.encode({"id": 1, "at": 1, "command": {"type": "prune"}}), id="another type"),
        pytest.param(
            msgspec.msgpack.encode(
                {"id": "0" * 20, "at": 2**63, "command": {"type": "prune", "runs_before": 0, "results_before": 0, "events_before": 0}}
            ),
            id="no time",
        ),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(book: Book, data: bytes) -> None:
    """A value, and the index moves on."""
    result = book.ledger.apply([Entry(1, 1, Kind.COMMAND, data)])[0]
    assert isinstance(result, Refused) and result.error == "Malformed"
    assert book.ledger.applied().index == 1


def test_a_command_of_a_later_version_halts(book: Book) -> None:
    """Nothing of its batch is kept: this ledger must not go on without it."""
    good = book.entry(CreateToken(token="t", hash="h", role="viewer"))
    bad = Entry(2, 1, Kind.COMMAND, msgspec.msgpack.encode({"id": "x", "at": 1, "command": {"type": "teleport"}}))
    with pytest.raises(BrokenInvariant, match="teleport"):
        book.ledger.apply([good, bad])
    assert book.ledger.applied().index == 0
    assert book.read(query_cluster.tokens) == []


def test_entries_must_follow_each_other(book: Book) -> None:
    """A gap or a repetition is not the log."""
    entry = book.entry(CreateToken(token="t", hash="h", role="viewer"))
    with pytest.raises(BrokenInvariant):
        book.ledger.apply([Entry(2, 1, entry.kind, entry.data)])
    book.ledger.apply([entry])
    with pytest.raises(BrokenInvariant):
        book.ledger.apply([entry])


def test_members_are_kept_with_the_index(book: Book) -> None:
    """The whole list, in the same transaction; entries of other kinds have no answer."""
    members = Members(voters=(Member("a", "127.0.0.1:1"),), learners=(Member("b", "127.0.0.1:2"),))
    entries = [Entry(1, 4, Kind.NOOP, b""), Entry(2, 4, Kind.MEMBERS, msgspec.msgpack.encode(members))]
    assert book.ledger.apply(entries) == [None, None]
    applied = book.ledger.applied()
    assert (applied.index, applied.term, applied.members) == (2, 4, members)


def test_topics_and_index_are_told_after_the_commit(book: Book) -> None:
    """Who hears of them can read them already."""
    book.push(job())
    book.create()
    index, topics = book.heard[-1]
    assert index == book.read(query_cluster.position).index
    assert {"runs", "stages", "events"} <= topics
    assert "projects" in book.heard[-2][1]


def test_errors_have_names_that_the_api_knows(book: Book) -> None:
    """A refusal's error is a class of words.ERRORS."""
    book.push(job())
    for command in (CreateRun(job="x", run="y"), CreateToken(token="t", hash="h", role="x")):
        assert book.refused(command).error in ERROR_BY_NAME


# --- prune


def test_prune_forgets_old_ended_runs_and_nothing_else(book: Book) -> None:
    """Live runs, young ones and `decided_until` stay; the audit knows from when it can speak."""
    book.node()
    book.push(job(), job("other"))
    waits = book.fire("shop/other")
    old = book.fire()
    book.carry_out(old)
    book.now += 10 * DAY
    young = book.fire()
    book.carry_out(young)
    decided = book.read(lambda c: query_jobs.job(c, "report")).decided_until
    value = book.done(Prune(runs_before=book.now - DAY, results_before=book.now, events_before=book.now - DAY))
    assert (value["runs"], value["more"]) == (1, False)
    assert [row[0] for row in book.sql("SELECT id FROM runs ORDER BY id")] == sorted([waits, young])
    assert book.sql("SELECT count(*) FROM tries") == [(1,)]
    assert book.read(lambda c: query_jobs.job(c, "report")).decided_until == decided
    assert book.read(lambda c: query_audit.audit_job(c, "shop/report", 0, 2**62)).pruned_before == book.now - DAY
    first, last = book.read(query_events.event_bounds)
    assert first > 1 and last >= first


def test_prune_forgets_what_is_too_many(book: Book) -> None:
    """Runs made before a moment go when they have ended, however lately; one that goes on stays, and those after it are reached all the same."""
    book.node()
    book.push(job(), job("other"))
    going_on = book.fire("shop/other")
    ended = [book.fire() for _ in range(3)]
    for run in ended:
        book.carry_out(run)
    before = book.read(lambda c: query_prune.created_before(c, 1))
    assert before is not None
    value = book.done(Prune(runs_before=0, created_before=before, results_before=0, events_before=0))
    assert value["runs"] == 2
    assert [row[0] for row in book.sql("SELECT id FROM runs ORDER BY id")] == [going_on, ended[-1]]
    assert book.sql("SELECT runs FROM position") == [(2,)]
    assert book.read(lambda c: query_audit.audit_job(c, "shop/report", 0, 2**62)).pruned_before == before


def test_results_and_keys_are_kept_for_a_day(book: Book) -> None:
    """Whatever the command asks for."""
    book.push(job())
    book.done(CreateRun(job="shop/report", run=book.new_id(), key="k"))
    book.now += DAY // 2
    assert book.done(Prune(runs_before=0, results_before=2**62, events_before=0))["results"] == 0
    book.now += DAY
    value = book.done(Prune(runs_before=0, results_before=2**62, events_before=0))
    assert (value["results"], value["keys"]) == (2, 1)


def test_a_prune_is_bounded(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there is more."""
    monkeypatch.setattr("igor_node.ledger.apply_prune.RUNS_PER_PRUNE", 2)
    book.push(job())
    for _ in range(3):
        book.fire(outcome="skipped", reason="x")
    book.now += DAY
    prune = Prune(runs_before=book.now, results_before=0, events_before=0)
    answers = [book.done(prune) for _ in range(2)]
    assert [(answer["runs"], answer["more"]) for answer in answers] == [(2, True), (1, False)]
