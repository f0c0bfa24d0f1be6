"""The gate's rules, one by one: what of an append is new, where a leader goes on, who gets a vote, what a majority has reached."""

from __future__ import annotations

import math
import random

import pytest

from raft import gate
from raft.interface import Entry
from raft.messages import Append, VoteRequest


class Log:
    """Terms by index, as a journal whose base is (base, base_term)."""

    def __init__(self, terms: list[int], base: int = 0, base_term: int = 0) -> None:
        self.base = base
        self.terms = [base_term, *terms]

    @property
    def last(self) -> int:
        return self.base + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        return self.terms[index - self.base] if self.base <= index <= self.last else None


def append(prev: int, prev_term: int, *terms: int) -> Append:
    entries = [Entry(index, term, 0, b"") for index, term in enumerate(terms, prev + 1)]
    return Append(9, 1, prev, prev_term, 0, entries)


def trim(log: Log, message: Append, commit: int = 0) -> gate.Trimmed | gate.Mismatch:
    return gate.trim(message, log.base, log.last, commit, log.term_at)


@pytest.mark.parametrize(
    "log, message, prev, new, cut, covered",
    [
        pytest.param(Log([1, 1]), append(2, 1, 2, 2), 2, 2, False, 4, id="entries that follow the log are all new"),
        pytest.param(Log([1, 1]), append(2, 1), 2, 0, False, 2, id="a heartbeat at the end"),
        pytest.param(Log([1, 1, 2]), append(1, 1, 1), 2, 0, False, 2, id="a repeated append leaves what follows, and vouches for its own only"),
        pytest.param(Log([1, 1, 2]), append(1, 1), 1, 0, False, 1, id="a late heartbeat leaves what follows"),
        pytest.param(Log([1, 1]), append(1, 1, 1, 3), 2, 1, False, 3, id="half of it is known"),
        pytest.param(Log([1, 2, 2]), append(1, 1, 3), 1, 1, True, 2, id="a conflict cuts"),
        pytest.param(Log([1, 2, 2]), append(0, 0, 1, 2, 3), 2, 1, True, 3, id="a conflict behind entries that are known"),
        pytest.param(Log([2, 2], base=5, base_term=1), append(3, 1, 1, 1, 2, 2, 2), 7, 1, False, 8, id="it begins before the log does"),
        pytest.param(Log([2, 2], base=5, base_term=1), append(1, 1, 1, 1), 5, 0, False, 5, id="it ends before the log begins: committed long ago"),
    ],
)
def test_what_of_an_append_is_new(log: Log, message: Append, prev: int, new: int, cut: bool, covered: int):
    found = trim(log, message)
    assert isinstance(found, gate.Trimmed)
    assert (found.prev_index, len(found.entries), found.cut, found.covered) == (prev, new, cut, covered)
    assert found.prev_term == log.term_at(prev)
    assert found.entries == message.entries[len(message.entries) - new :]


@pytest.mark.parametrize(
    "log, message, commit, hint",
    [
        pytest.param(Log([1, 1]), append(9, 3, 3), 0, 3, id="behind the end: at the end"),
        pytest.param(Log([1, 2, 2, 2]), append(4, 3), 0, 2, id="where the conflicting term begins"),
        pytest.param(Log([1, 2, 2, 2]), append(4, 3), 2, 3, id="never at or below the commit index"),
        pytest.param(Log([2, 2], base=5, base_term=2), append(7, 3), 5, 6, id="never before the log begins"),
    ],
)
def test_where_the_leader_should_go_on(log: Log, message: Append, commit: int, hint: int):
    assert trim(log, message, commit) == gate.Mismatch(hint)


def test_whatever_is_sent_the_log_becomes_the_leaders_up_to_what_is_covered():
    """Against a plain model: random logs that share a beginning, random windows of the leader's."""
    chance = random.Random(4)
    for _ in range(3000):
        common = sorted(chance.choices(range(1, 4), k=chance.randrange(6)))
        mine = [*common, *sorted(chance.choices(range(4, 6), k=chance.randrange(5)))]
        leaders = [*common, *sorted(chance.choices(range(6, 8), k=chance.randrange(5)))]
        if chance.random() < 0.3:
            mine = leaders[: chance.randrange(len(leaders) + 1)]
        log = Log(mine)
        prev = chance.randrange(len(leaders) + 1)
        sent = leaders[prev : prev + chance.randrange(4)]
        found = trim(log, append(prev, [0, *leaders][prev], *sent))
        if isinstance(found, gate.Mismatch):
            assert prev > len(mine) or [0, *mine][prev] != [0, *leaders][prev]
            assert found.hint <= max(prev, 1)
            continue
        kept = mine[: found.prev_index] if found.cut else mine
        after = kept[: found.prev_index] + [entry.term for entry in found.entries] + (kept[found.prev_index :] if not found.entries else [])
        assert after[: found.covered] == leaders[: found.covered]
        assert found.covered == prev + len(sent)
        assert found.cut or after[: len(mine)] == mine


@pytest.mark.parametrize(
    "index, term, expected",
    [(5, 3, True), (6, 3, True), (4, 3, False), (9, 2, False), (1, 4, True)],
    ids=["the same", "longer", "shorter", "longer, of an older term", "shorter, of a newer term"],
)
def test_a_log_is_up_to_date_by_term_and_then_by_length(index: int, term: int, expected: bool):
    assert gate.up_to_date(VoteRequest(9, index, term), 5, 3) is expected


@pytest.mark.parametrize(
    "transfer, leads, now, refused",
    [
        pytest.param(False, False, 10.79, True, id="a leader was heard just now"),
        pytest.param(False, False, 10.81, False, id="a leader was heard long ago"),
        pytest.param(False, True, 99.0, True, id="I lead myself"),
        pytest.param(True, True, 10.1, False, id="the leader asked for it"),
    ],
)
def test_no_vote_while_a_leader_is_heard(transfer: bool, leads: bool, now: float, refused: bool):
    request = VoteRequest(9, 1, 1, transfer=transfer)
    assert gate.hears_a_leader(request, leads=leads, heard_at=10.0, now=now, election_min_s=0.8) is refused


@pytest.mark.parametrize(
    "term, expected", [(4, True), (3, False), (2, False)], ids=["the next term", "this term, in which I may have voted", "an old term"]
)
def test_a_vote_in_advance_is_for_a_term_that_is_still_to_come(term: int, expected: bool):
    assert gate.grants_in_advance(VoteRequest(term, 5, 3, pre=True), 3, 5, 3) is expected


@pytest.mark.parametrize(
    "reached, own, expected",
    [
        pytest.param([], 7, 7, id="alone"),
        pytest.param([3], 7, 3, id="of two both"),
        pytest.param([3, 5], 7, 5, id="of three two"),
        pytest.param([1, 2, 3], math.inf, 2, id="of four three"),
        pytest.param([1, 2, 3, 4], math.inf, 3, id="of five three"),
    ],
)
def test_what_a_majority_has_reached(reached: list[float], own: float, expected: float):
    assert gate.majority(reached, own) == expected
