"""Tokens, log-ins of people and ended sessions in the ledger."""

from __future__ import annotations

import pytest

from igor_node.ledger import apply_tokens, query_cluster
from igor_node.ledger.commands import CreateToken, EndSession, LogIn, NoteTokenUses, Prune, RegisterNode, RevokeToken
from igor_node.words import SECOND
from tests.unit.ledger.book import Book

HOUR = 3600 * SECOND


def good(book: Book) -> list[str]:
    return [row.token for row in book.read(query_cluster.tokens) if row.good_at(book.now)]


def test_tokens_expire_and_are_revoked(book: Book) -> None:
    """At the very instant; a second revoke says the same."""
    book.done(CreateToken(token="t", hash="h", role="viewer", name="ci", expires_at=book.now + 10))
    (row,) = book.read(query_cluster.tokens)
    assert row.good_at(book.now + 9) and not row.good_at(book.now + 10)
    book.done(RevokeToken(token="t"))
    book.done(RevokeToken(token="t"))
    (row,) = book.read(query_cluster.tokens)
    assert not row.good_at(book.now) and row.revoked_at == book.now


def test_a_token_says_for_what_it_is_good_and_who_made_it(book: Book) -> None:
    book.done(CreateToken(token="t", hash="h", role="deployer", name="ci", projects=("shop", "web")))
    (row,) = book.read(query_cluster.tokens)
    assert (row.role, row.name, row.projects, row.made_by) == ("deployer", "ci", ("shop", "web"), "ann")


def test_a_token_that_has_ended_makes_no_other(book: Book) -> None:
    """However long the command was on its way: revocation is exact in the order of the ledger."""
    book.done(CreateToken(token="maker", hash="h1", role="admin", expires_at=book.now + HOUR))
    book.done(CreateToken(token="made", hash="h2", role="admin", by="maker"))
    book.now += HOUR
    assert book.refused(CreateToken(token="late", hash="h3", role="admin", by="maker")).error == "Unauthenticated"
    book.done(RevokeToken(token="made"))
    assert book.refused(CreateToken(token="later", hash="h4", role="admin", by="made")).error == "Unauthenticated"
    assert book.refused(CreateToken(token="none", hash="h5", role="admin", by="nobody")).error == "Unauthenticated"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"projects": ("a/b",)}, "not a name"),
        ({"projects": ("",)}, "not a name"),
        ({"projects": tuple(f"p{n}" for n in range(101))}, "101 projects"),
        ({"name": "x" * 101}, "too long"),
    ],
)
def test_tokens_that_are_refused(book: Book, fields: dict, words: str) -> None:  # type: ignore[type-arg]
    refused = book.refused(CreateToken(token="t", hash="h", role="viewer", **fields))
    assert refused.error == "Invalid" and words in refused.message and not good(book)


def test_good_tokens_are_bounded(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of nodes are not counted, and those that ended make room."""
    monkeypatch.setattr(apply_tokens, "TOKENS_LIMIT", 2)
    book.done(RegisterNode(node="n", name="n", address="x", token_id="t-n", token_hash="h-n"))
    book.done(CreateToken(token="a", hash="a", role="viewer"))
    book.done(CreateToken(token="b", hash="b", role="viewer", expires_at=book.now + HOUR))
    assert "revoke some" in book.refused(CreateToken(token="c", hash="c", role="viewer")).hint
    book.now += HOUR
    book.done(CreateToken(token="c", hash="c", role="viewer"))


# --- people


def log_in(book: Book, token: str, role: str = "operator", projects: tuple[str, ...] = (), subject: str = "iss ann") -> LogIn:
    return LogIn(token=token, hash=f"h-{token}", subject=subject, name="ann@example", role=role, projects=projects, expires_at=book.now + HOUR)


def test_a_person_logs_in_on_several_machines(book: Book) -> None:
    for token in ("l1", "l2"):
        assert book.done(log_in(book, token))["ended"] == []
    book.done(log_in(book, "other", subject="iss bob"))
    assert good(book) == ["l1", "l2", "other"]


def test_too_many_log_ins_end_the_oldest(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_tokens, "LOGINS_LIMIT", 2)
    for token in ("l1", "l2"):
        book.done(log_in(book, token))
        book.now += SECOND
    assert book.done(log_in(book, "l3"))["ended"] == ["l1"] and good(book) == ["l2", "l3"]


@pytest.mark.parametrize(
    "before, now, stays",
    [
        pytest.param(("admin", ()), ("operator", ()), False, id="the role became smaller"),
        pytest.param(("operator", ()), ("admin", ()), True, id="the role became larger"),
        pytest.param(("operator", ()), ("operator", ("shop",)), False, id="it became bound to a project"),
        pytest.param(("operator", ("shop", "web")), ("operator", ("shop",)), False, id="a project was taken away"),
        pytest.param(("operator", ("shop",)), ("operator", ("shop", "web")), True, id="a project was added"),
        pytest.param(("operator", ("shop",)), ("viewer", ()), False, id="another role for all projects"),
        pytest.param(("viewer", ()), ("", ()), False, id="no group is left"),
    ],
)
def test_what_a_person_lost_ends_everywhere(book: Book, before: tuple, now: tuple, stays: bool) -> None:  # type: ignore[type-arg]
    """With the next log-in, on whatever machine it is."""
    book.done(log_in(book, "before", *before))
    book.done(log_in(book, "bobs", *before, subject="iss bob"))
    book.done(log_in(book, "now", *now))
    assert ("before" in good(book)) is stays and "bobs" in good(book) and ("now" in good(book)) is bool(now[0])


def test_no_log_in_makes_a_node(book: Book) -> None:
    assert book.refused(log_in(book, "l", "node")).error == "Invalid"


def test_a_session_ends_once_and_is_forgotten_after_its_end(book: Book) -> None:
    for _ in range(2):
        book.done(EndSession(session="s", until=book.now + HOUR))
    book.done(EndSession(session="long gone", until=book.now))
    assert book.sql("SELECT session FROM ended_sessions") == [("s",)]
    book.now += HOUR + 1
    book.done(Prune(runs_before=0, results_before=0, events_before=0))
    assert book.sql("SELECT session FROM ended_sessions") == []


def test_tokens_that_ended_are_forgotten_but_those_of_nodes(book: Book) -> None:
    """A node that comes back would get the old secret again."""
    book.done(RegisterNode(node="n", name="n", address="x", token_id="t-n", token_hash="h-n"))
    book.done(RegisterNode(node="n", name="n", address="x", token_id="t-n2", token_hash="h-n2"))
    book.done(CreateToken(token="revoked", hash="a", role="viewer"))
    book.done(CreateToken(token="expired", hash="b", role="viewer", expires_at=book.now + 1))
    book.done(CreateToken(token="good", hash="c", role="viewer"))
    book.done(RevokeToken(token="revoked"))
    book.now += HOUR
    book.done(Prune(runs_before=book.now, results_before=0, events_before=0))
    assert [row.token for row in book.read(query_cluster.tokens)] == ["good", "t-n", "t-n2"]


def test_the_last_use_of_a_token_goes_forward_and_not_beyond_now(book: Book) -> None:
    """Nodes tell what they saw in any order, by clocks of their own; those of nodes are used all the time."""
    book.done(CreateToken(token="t", hash="h", role="viewer"))
    book.done(RegisterNode(node="a", name="a", address="127.0.0.1:1", slots=1, token_id="n-a", token_hash="of a"))
    for told, kept in ((-20, -20), (-30, -20), (-10, -10), (+HOUR, 0)):
        book.done(NoteTokenUses(uses={"t": book.now + told, "n-a": book.now, "nobody": 1}))
        rows = {row.token: row.last_used_at for row in book.read(query_cluster.tokens)}
        assert rows["t"] == book.now + kept and rows.get("n-a") is None
    assert book.refused(NoteTokenUses(uses={str(n): 1 for n in range(2_000)})).error == "Invalid"
