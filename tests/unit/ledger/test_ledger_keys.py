"""The cluster's keys in the ledger: made, used when every member holds it, and those before it dropped."""

from __future__ import annotations

import pytest

from igor_node.ledger import query_keys
from igor_node.ledger.commands import KeyMade, KeysDropped, KeyUsed
from tests.unit.ledger.book import Book

MARKS = {n: bytes([n]) * 8 for n in range(1, 9)}


def made(generation: int, mark: bytes | None = None) -> KeyMade:
    return KeyMade(generation=generation, mark=MARKS[generation] if mark is None else mark)


def rows(book: Book) -> query_keys.KeyRows:
    return book.read(query_keys.keys)


def test_a_key_is_to_come_until_it_is_used(book: Book) -> None:
    book.done(made(1))
    assert rows(book).to_come is not None and rows(book).in_force is None
    book.done(KeyUsed(generation=1))
    book.done(made(2))
    found = rows(book)
    assert found.in_force is not None and found.in_force.generation == 1
    assert found.to_come is not None and (found.to_come.generation, found.to_come.mark) == (2, MARKS[2])
    book.done(KeyUsed(generation=2))
    found = rows(book)
    assert found.in_force is not None and found.in_force.generation == 2 and found.to_come is None and found.oldest == 1
    book.done(KeysDropped(before=2))
    assert rows(book).oldest == 2


def test_a_key_whose_maker_is_gone_is_passed_over(book: Book) -> None:
    """Another one is made, and that is used; the first never is."""
    for command in (made(1), KeyUsed(generation=1), made(2), made(3)):
        book.done(command)
    assert book.refused(KeyUsed(generation=2)).error == "Conflict"
    book.done(KeyUsed(generation=3))
    book.done(KeysDropped(before=3))
    assert [row.generation for row in rows(book).rows if row.dropped_at is None] == [3]


def test_what_is_done_twice_changes_nothing(book: Book) -> None:
    for command in (made(1), KeyUsed(generation=1)):
        assert book.done(command)["changed"] is True
        assert book.done(command)["changed"] is False


@pytest.mark.parametrize(
    ("command", "error"),
    [
        pytest.param(made(1, MARKS[2]), "Conflict", id="a generation is one key"),
        pytest.param(made(3, b"short"), "Invalid", id="no mark"),
        pytest.param(KeyUsed(generation=5), "NotFound", id="a key that nobody made"),
        pytest.param(KeysDropped(before=3), "Conflict", id="the one in force stays"),
    ],
)
def test_what_is_refused_changes_nothing(book: Book, command: KeyMade | KeyUsed | KeysDropped, error: str) -> None:
    for earlier in (made(1), KeyUsed(generation=1), made(2)):
        book.done(earlier)
    before = rows(book)
    assert book.refused(command).error == error
    assert rows(book) == before
