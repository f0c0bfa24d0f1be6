"""Whose ledger is wrong: what a majority of the voters holds is right, and where none agrees nobody is named."""

from __future__ import annotations

import pytest

from igor_node.rules.divergence import Verdict, who_differs


def verdict(agree: str, differ: str = "") -> Verdict:
    return Verdict(frozenset(agree), frozenset(differ))


@pytest.mark.parametrize(
    "voters, digests, expected",
    [
        pytest.param("a", {"a": b"1"}, verdict("a"), id="a voter that is alone is right"),
        pytest.param("a", {"a": b"1", "l": b"2"}, verdict("a", "l"), id="so a learner that differs from it is wrong"),
        pytest.param("abc", {"a": b"1", "b": b"1"}, verdict("ab"), id="two of three agree"),
        pytest.param("abc", {"a": b"1", "b": b"1", "c": b"2"}, verdict("ab", "c"), id="the third differs"),
        pytest.param("abc", {"a": b"1", "b": b"2", "c": b"2"}, verdict("bc", "a"), id="also where the third is the leader"),
        pytest.param("abc", {"a": b"1", "b": b"2"}, Verdict(), id="one against one: wait for the third"),
        pytest.param("abc", {"a": b"1", "b": b"2", "l": b"1"}, Verdict(), id="a learner has no voice in that"),
        pytest.param("abc", {"a": b"1", "b": b"2", "c": b"3"}, Verdict(undecided=True), id="all three differ"),
        pytest.param("ab", {"a": b"1", "b": b"2"}, Verdict(undecided=True), id="two voters that differ"),
        pytest.param("abcde", {"a": b"1", "b": b"1", "c": b"1", "d": b"2", "l": b"3"}, verdict("abc", "dl"), id="three of five"),
    ],
)
def test_who_differs(voters: str, digests: dict[str, bytes], expected: Verdict) -> None:
    """A table of votes."""
    assert who_differs(digests, list(voters)) == expected
