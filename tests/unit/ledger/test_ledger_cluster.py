"""Nodes and tokens in the ledger."""

from __future__ import annotations

import pytest

from igor_node.ledger import query_cluster
from igor_node.ledger.commands import CreateToken, FoundCluster, NodeChanged, RegisterNode, RemoveNode, RevokeToken
from igor_node.ledger.query_cluster import TokenRow
from igor_node.words import NotFound
from tests.unit.ledger.book import Book, job


def register(name: str = "a", **fields: object) -> RegisterNode:
    return RegisterNode(node=f"node-{name}", name=name, address="127.0.0.1:1", slots=4, token_id=f"t-{name}", token_hash=f"h-{name}", **fields)  # type: ignore[arg-type]


def good_token(book: Book, token_hash: str, now: int) -> TokenRow | None:
    ((token,),) = book.sql("SELECT token FROM tokens WHERE hash = ?", token_hash)
    return next((row for row in book.read(query_cluster.tokens) if row.token == token and row.good_at(now)), None)


def test_a_cluster_is_founded_once(book: Book) -> None:
    """The second founder is told which cluster this is."""
    assert book.read(query_cluster.cluster) is None
    book.done(FoundCluster(cluster="c1", tzdata="2026.6"))
    assert "c1" in book.refused(FoundCluster(cluster="c2", tzdata="2026.6")).message
    found = book.read(query_cluster.cluster)
    assert found is not None and (found.cluster, found.wanted_voters, found.founded_at) == ("c1", 3, book.now)


def test_a_node_registers_and_comes_back_changed(book: Book) -> None:
    """The same again changes nothing; another address does, and keeps its state."""
    assert book.done(register(labels={"zone": "eu"}))["changed"] is True
    assert book.done(register(labels={"zone": "eu"}))["changed"] is False
    book.done(NodeChanged(node="node-a", state="silent", reason="no heartbeat"))
    assert book.done(register(labels={"zone": "us"}))["changed"] is True
    found = book.read(lambda c: query_cluster.node(c, "a"))
    assert (found.node, found.state, found.labels, found.used) == ("node-a", "silent", {"zone": "us"}, 0)


def test_the_name_of_a_lost_node_can_be_taken(book: Book) -> None:
    """Its machine was replaced: the lost node goes, with its token. While it is only silent its name is its own."""
    book.done(register())
    book.done(NodeChanged(node="node-a", state="silent", reason="no heartbeat"))
    new = RegisterNode(node="node-b", name="a", address="x", token_id="t-b", token_hash="h-b")
    assert "already" in book.refused(new).message
    book.done(NodeChanged(node="node-a", state="lost", reason="no sign of life"))
    book.done(new)
    assert [(row.node, row.name) for row in book.read(query_cluster.nodes)] == [("node-b", "a")]
    assert good_token(book, "h-a", book.now) is None and good_token(book, "h-b", book.now) is not None


def test_a_lost_node_with_attempts_keeps_its_row_under_a_former_name(book: Book) -> None:
    """What became of them is still to be decided, and the watch looks at registered nodes."""
    book.done(register())
    book.push(job())
    book.placed(book.create())
    book.done(NodeChanged(node="node-a", state="lost", reason="no sign of life"))
    book.done(RegisterNode(node="node-b", name="a", address="x"))
    assert [(row.node, row.name, row.running) for row in book.read(query_cluster.nodes)] == [("node-b", "a", 0), ("node-a", "a.node-a", 1)]


def test_its_token_is_good_until_it_leaves(book: Book) -> None:
    """Found by its hash; a removed node's token is revoked."""
    book.done(register())
    token = good_token(book, "h-a", book.now)
    assert token is not None and (token.role, token.node) == ("node", "node-a")
    book.done(RemoveNode(node="node-a"))
    assert good_token(book, "h-a", book.now) is None
    assert book.read(query_cluster.nodes) == []


@pytest.mark.parametrize(
    "command, error",
    [
        pytest.param(RegisterNode(node="node-b", name="a", address="x"), "Conflict", id="another node has the name"),
        pytest.param(RegisterNode(node="node-b", name="b c", address="x"), "Invalid", id="no name"),
        pytest.param(RegisterNode(node="node-b", name="b", address="x", slots=-1), "Invalid", id="no number of slots"),
        pytest.param(RegisterNode(node="node-b", name="b", address="x", token_id="t-a", token_hash="z"), "Conflict", id="another token of that id"),
        pytest.param(RegisterNode(node="node-b", name="b", address="x", token_id="t-b", token_hash="h-a"), "Conflict", id="that token, another id"),
        pytest.param(NodeChanged(node="node-z", state="up"), "NotFound", id="an unknown node changes"),
        pytest.param(NodeChanged(node="node-a", state="asleep"), "Invalid", id="no state"),
        pytest.param(RemoveNode(node="node-z"), "NotFound", id="an unknown node leaves"),
        pytest.param(CreateToken(token="t", hash="h", role="king"), "Invalid", id="no role"),
        pytest.param(CreateToken(token="t-a", hash="h", role="viewer"), "Conflict", id="a token's id twice"),
        pytest.param(RevokeToken(token="none"), "NotFound", id="an unknown token"),
    ],
)
def test_what_is_refused(book: Book, command: RegisterNode, error: str) -> None:
    """And changes nothing."""
    book.done(register())
    before = book.dump()
    assert book.refused(command).error == error
    changed = set(before) ^ set(book.dump())
    assert [line for line in changed if "results" not in line and "position" not in line] == []


def test_a_name_is_free_again_when_its_node_has_left(book: Book) -> None:
    """And runs of the past still show it."""
    book.push(job())
    book.node("a")
    run = book.create()
    book.carry_out(run)
    book.done(RemoveNode(node="node-a"))
    book.done(RegisterNode(node="node-2", name="a", address="x"))
    assert book.run(run)["stages"][0]["attempts"][0]["node"] == "a"
    with pytest.raises(NotFound):
        book.read(lambda c: query_cluster.node(c, "node-a"))


def test_a_node_with_open_attempts_cannot_leave(book: Book) -> None:
    """It has to be drained first."""
    book.push(job())
    book.node("a")
    book.placed(book.create())
    assert "1 attempts that have not ended" in book.refused(RemoveNode(node="node-a")).message


def test_a_node_comes_back_under_a_new_token(book: Book) -> None:
    """The old one ends."""
    book.done(register())
    book.done(RegisterNode(node="node-a", name="a", address="x", token_id="t2", token_hash="h2"))
    assert good_token(book, "h-a", book.now) is None
    assert good_token(book, "h2", book.now) is not None
