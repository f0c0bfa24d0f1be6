"""Secrets in the ledger: a version each, the value of the newest alone, sealed anew only where it is still the one."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.ledger import query_secrets
from igor_node.ledger.apply_secrets import SEALED_LIMIT_BYTES, VERSIONS_KEPT
from igor_node.ledger.commands import Done, Refused, RemoveSecret, ResealedSecret, ResealSecrets, SetSecret
from tests.unit.ledger.book import Book


def put(book: Book, version: int, sealed: bytes = b"sealed", **more: Any) -> Any:
    return book.apply(SetSecret(name="db", version=version, sealed=sealed, **more))


def test_each_setting_is_the_next_version_and_the_former_value_goes(book: Book) -> None:
    assert put(book, 1, b"one") == Done({"name": "db", "version": 1})
    assert put(book, 2, b"two") == Done({"name": "db", "version": 2})
    assert [row.sealed for row in book.read(query_secrets.sealed)] == [b"two"]
    versions = book.read(lambda connection: query_secrets.versions(connection, "", "db"))
    assert [(row.version, row.ended_at is None) for row in versions] == [(2, True), (1, False)]
    kept = book.read(lambda connection: connection.execute("SELECT sealed FROM secrets WHERE version = 1").fetchone())
    assert kept == (None,)


def test_of_many_versions_the_last_are_kept(book: Book) -> None:
    """And no number comes twice, also after a removal."""
    for version in range(1, VERSIONS_KEPT + 6):
        assert isinstance(put(book, version), Done)
    kept = [row.version for row in book.read(lambda connection: query_secrets.versions(connection, "", "db"))]
    assert kept == list(range(VERSIONS_KEPT + 5, 5, -1))
    book.apply(RemoveSecret(name="db"))
    assert put(book, 1).error == "Conflict" and isinstance(put(book, VERSIONS_KEPT + 6), Done)


@pytest.mark.parametrize("version", [0, 1, 3, 10])
def test_whoever_was_slower_is_told(book: Book, version: int) -> None:
    """Its seal names a version that is another's."""
    put(book, 1)
    refused = put(book, version)
    assert isinstance(refused, Refused) and (refused.error, refused.message) == ("Conflict", f"the next version of secret db is 2, not {version}")


@pytest.mark.parametrize("sealed", [b"", bytes(SEALED_LIMIT_BYTES + 1)])
def test_what_is_no_secret_is_refused(book: Book, sealed: bytes) -> None:
    assert put(book, 1, sealed).error == "Invalid"
    assert book.read(query_secrets.sealed) == []


def test_one_of_a_project_is_another_than_the_clusters(book: Book) -> None:
    put(book, 1, b"of all")
    put(book, 1, b"of one", project="shop")
    assert book.apply(RemoveSecret(name="db", project="shop")) == Done({"name": "db", "version": 1})
    assert [row.sealed for row in book.read(query_secrets.sealed)] == [b"of all"]
    assert book.apply(RemoveSecret(name="db", project="shop")).error == "NotFound"


def test_sealed_anew_is_what_is_still_set(book: Book) -> None:
    put(book, 1, b"one")
    put(book, 1, b"mine", project="shop")
    put(book, 2, b"two", project="shop")
    rows = (
        ResealedSecret(name="db", version=1, sealed=b"one anew"), ResealedSecret(project="shop", name="db", version=1, sealed=b"late"),
        ResealedSecret(name="unknown", version=1, sealed=b"x"),
    )  # fmt: skip
    assert book.apply(ResealSecrets(rows=rows)) == Done({"resealed": 1})
    assert [row.sealed for row in book.read(query_secrets.sealed)] == [b"one anew", b"two"]
