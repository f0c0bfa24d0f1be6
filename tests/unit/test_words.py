"""The words: ids sort by time, instants and spans are read back as they were written, errors map to one status and one exit code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node import words
from igor_node.words import Instant, format_instant, format_span, id_time, new_id, parse_instant, parse_span

INSTANTS = st.integers(min_value=0, max_value=4_000_000_000 * words.SECOND).map(Instant)


@given(INSTANTS)
def test_an_instant_is_read_back(instant: Instant) -> None:
    assert parse_instant(format_instant(instant)) == instant


def test_years_have_four_digits() -> None:
    assert format_instant(parse_instant("0987-06-05T04:03:02Z")) == "0987-06-05T04:03:02Z"


@given(st.integers(min_value=0, max_value=10**9).map(lambda ms: ms * words.MILLISECOND))
def test_a_span_is_read_back(span: int) -> None:
    assert parse_span(format_span(span)) == span


@pytest.mark.parametrize("text", ["90", "30 minutes", "010", "", "s", "1.5h", "1s1h", "-5s", "١s"])
def test_a_duration_needs_whole_numbers_with_units(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number with its unit"):
        parse_span(text)


@pytest.mark.parametrize("text", ["2027-01-01", "2027-01-01T00:00:00", "tomorrow", "2027-13-01T00:00:00Z"])
def test_a_time_needs_an_offset(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_instant(text)


@given(INSTANTS)
def test_ids_made_in_one_millisecond_sort_as_they_were_made(now: Instant) -> None:
    ids = [new_id(now) for _ in range(20)]
    assert ids == sorted(set(ids))
    assert all(id_time(one) // words.MILLISECOND == now // words.MILLISECOND for one in ids)


def test_every_error_has_a_status_an_exit_code_and_stands_in_the_table() -> None:
    subclasses = {error for error in vars(words).values() if isinstance(error, type) and issubclass(error, words.IgorError)} - {words.IgorError}
    assert subclasses == set(words.ERRORS)
    assert all(400 <= error.status < 600 and 1 <= error.exit_code <= 7 and error.title for error in words.ERRORS)
