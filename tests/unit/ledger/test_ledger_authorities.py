"""The cluster's CAs in the ledger: one after the other, each for good, the newest always there."""

from __future__ import annotations

from igor_node.ledger import query_authorities
from igor_node.ledger.commands import DropAuthority, RegisterNode, RemoveNode, SetAuthority
from tests.unit.ledger.book import Book


def ca(generation: int, *, certificates: str = "", key: bytes = b"sealed") -> SetAuthority:
    return SetAuthority(generation=generation, certificates=certificates or f"certificate {generation}", sealed_key=key)


def kept(book: Book) -> list[tuple[int, str, bytes, bool]]:
    rows = book.read(query_authorities.authorities)
    return [(row.generation, row.certificates, row.sealed_key, row.dropped_at is not None) for row in rows]


def test_the_next_authority_follows_the_newest(book: Book) -> None:
    assert "generation 1" in book.refused(ca(2)).message
    book.done(ca(1))
    assert "generation 2" in book.refused(ca(3)).message
    book.done(ca(2))
    assert [row[0] for row in kept(book)] == [2, 1]


def test_of_two_at_once_one_is_refused(book: Book) -> None:
    book.done(ca(1))
    assert book.done(ca(2))["changed"] is True
    assert "another one" in book.refused(ca(2, certificates="of somebody else")).message
    assert book.done(ca(2))["changed"] is False


def test_its_key_can_be_sealed_anew(book: Book) -> None:
    book.done(ca(1))
    book.done(ca(1, key=b"sealed with the next key"))
    assert kept(book) == [(1, "certificate 1", b"sealed with the next key", False)]


def test_the_newest_cannot_be_dropped(book: Book) -> None:
    book.done(ca(1))
    assert "newest" in book.refused(DropAuthority(generation=1)).message
    book.done(ca(2))
    assert book.done(DropAuthority(generation=1))["changed"] is True
    assert book.done(DropAuthority(generation=1))["changed"] is False
    assert [(row[0], row[3]) for row in kept(book)] == [(2, False), (1, True)]
    assert book.refused(DropAuthority(generation=7)).error == "NotFound"


def test_what_is_no_authority_is_refused(book: Book) -> None:
    assert book.refused(SetAuthority(generation=1, certificates="", sealed_key=b"x")).error == "Invalid"
    assert book.refused(ca(1, certificates="x" * 70_000)).error == "Invalid"
    assert book.refused(ca(1, key=b"x" * 5_000)).error == "Invalid"


def test_who_was_taken_out_is_known_until_it_comes_back(book: Book) -> None:
    register = RegisterNode(node="node-a", name="a", address="127.0.0.1:1", token_id="t-1", token_hash="h-1")
    book.done(register)
    book.done(RemoveNode(node="node-a"))
    assert book.read(query_authorities.removed_nodes) == {"node-a": book.now}
    book.done(RegisterNode(node="node-a", name="a", address="127.0.0.1:1", token_id="t-2", token_hash="h-2"))
    assert book.read(query_authorities.removed_nodes) == {}
