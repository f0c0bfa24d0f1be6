"""Pushes that are larger than an entry: pieces that take effect with the last one, are bounded, and are forgotten when they stay incomplete."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.definitions.jobs import encode_job
from igor_node.ledger import apply_staged, query_jobs
from igor_node.ledger.commands import Prune, PushProject, StagePush, encode_push
from igor_node.words import SECOND
from raft.interface import ENTRY_LIMIT_BYTES
from tests.unit.ledger.book import Book, job

HOUR = 3600 * SECOND


def pieces(push: str, command: PushProject, count: int) -> list[StagePush]:
    data = encode_push(command)
    size = -(-len(data) // count)
    return [StagePush(push=push, part=n, parts=count, data=data[n * size : (n + 1) * size]) for n in range(count)]


def project(*names: str, **how: Any) -> PushProject:
    return PushProject(project="shop", jobs=tuple(encode_job(job(name)) for name in names), **how)


def names(book: Book) -> list[str]:
    return [row.name for row in book.read(query_jobs.jobs)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["in order", "the last one first"])
def test_a_push_takes_effect_with_its_last_piece(book: Book, order: tuple[int, ...]) -> None:
    """Not before; then it is answered as a push in one piece would be, and the pieces are gone."""
    parts = pieces("p", project("a", "b"), 3)
    for staged, part in enumerate(order[:-1], 1):
        assert book.done(parts[part]) == {"staged": staged, "parts": 3}
        assert names(book) == []
    assert book.done(parts[order[-1]])["created"] == ["a", "b"]
    assert names(book) == ["a", "b"]
    assert book.sql("SELECT count(*) FROM staged") == [(0,)]


def test_a_piece_that_comes_twice_counts_once(book: Book) -> None:
    """Under its own id it gets its first answer; under another it changes nothing; with another content it is refused."""
    first, second = pieces("p", project("a"), 2)
    answer = book.done(first, id=(key := book.new_id()))
    assert book.done(first, id=key) == answer
    assert book.done(first) == {"staged": 1, "parts": 2}
    assert book.refused(StagePush(push="p", part=0, parts=2, data=b"x")).error == "Conflict"
    assert book.refused(StagePush(push="p", part=1, parts=3, data=b"x")).error == "Conflict"
    assert book.done(second)["created"] == ["a"]


def test_the_last_piece_asked_again_gives_the_answer_of_the_push(book: Book) -> None:
    """Who got no answer sends all of it again, and nothing is pushed twice."""
    parts = pieces("p", project("a"), 2)
    keys = [book.new_id(), book.new_id()]
    answers = [book.done(part, id=key) for part, key in zip(parts, keys, strict=True)]
    assert [book.done(part, id=key) for part, key in zip(parts, keys, strict=True)] == answers
    assert answers[1]["version"] == 1
    assert book.sql("SELECT count(*) FROM versions") == [(1,)]


def test_a_refused_push_leaves_no_pieces(book: Book) -> None:
    """A version that is not the current one, and what is no push at all."""
    first, second = pieces("p", project("a", if_version=7), 2)
    book.done(first)
    assert book.refused(second).error == "StaleVersion"
    book.done(StagePush(push="q", part=0, parts=2, data=b"no"))
    assert book.refused(StagePush(push="q", part=1, parts=2, data=b"push")).error == "Malformed"
    assert book.sql("SELECT count(*) FROM staged") == [(0,)]
    assert names(book) == []


@pytest.mark.parametrize(
    "part, parts, size",
    [
        pytest.param(0, 0, 1, id="no parts"),
        pytest.param(2, 2, 1, id="past the last"),
        pytest.param(-1, 2, 1, id="before the first"),
        pytest.param(0, apply_staged.PARTS_LIMIT + 1, 1, id="more than 64 MiB"),
        pytest.param(0, 2, 0, id="empty"),
        pytest.param(0, 2, apply_staged.PART_BYTES + 1, id="too large"),
    ],
)
def test_what_is_no_part_is_refused(book: Book, part: int, parts: int, size: int) -> None:
    """With its numbers, and nothing is kept."""
    assert book.refused(StagePush(push="p", part=part, parts=parts, data=bytes(size))).error == "Malformed"
    assert book.sql("SELECT count(*) FROM staged") == [(0,)]


def test_a_piece_of_the_largest_size_fits_into_an_entry(book: Book) -> None:
    """With everything that stands around it."""
    command = StagePush(push="p" * 20, part=apply_staged.PARTS_LIMIT - 1, parts=apply_staged.PARTS_LIMIT, data=bytes(apply_staged.PART_BYTES))
    assert len(book.entry(command, actor="x" * 200).data) < ENTRY_LIMIT_BYTES


def test_only_so_many_are_staged_at_once(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused until one of them is done or forgotten; those under way go on."""
    monkeypatch.setattr(apply_staged, "STAGINGS_LIMIT", 2)
    parts = {push: pieces(push, project(push), 2) for push in ("a", "b", "c")}
    book.done(parts["a"][0])
    book.done(parts["b"][0])
    assert book.refused(parts["c"][0]).error == "TooMany"
    book.done(parts["a"][1])
    book.done(parts["c"][0])


@pytest.mark.parametrize("by", ["another push", "prune"])
def test_an_incomplete_push_is_forgotten_after_an_hour(book: Book, by: str) -> None:
    """Of ledger time, from its newest piece on."""
    first, second, third = pieces("p", project("a"), 3)
    book.done(first)
    book.now += HOUR
    book.done(second)
    remind = {"another push": StagePush(push="q", part=0, parts=2, data=b"x"), "prune": Prune(runs_before=0, results_before=0, events_before=0)}[by]
    book.now += HOUR
    book.done(remind)
    assert book.sql("SELECT count(*) FROM staged WHERE push = 'p'") == [(2,)]
    book.now += 1
    book.done(remind)
    assert book.sql("SELECT count(*) FROM staged WHERE push = 'p'") == [(0,)]
    assert book.done(third) == {"staged": 1, "parts": 3}
