"""Whether a node answers from its own ledger: what leaders and others said of it, against what consensus shows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from igor_node import node as node_module
from igor_node.ledger import query_secrets
from igor_node.node import Node
from igor_node.trust.keys import KeyRing, Keys
from igor_node.trust.sealing import purpose_of_secret, seal
from igor_node.words import Unavailable
from raft.interface import Applied, Member, Members

MEMBERS = Members(voters=(Member("a", "127.0.0.1:1"), Member("b", "127.0.0.1:2"), Member("c", "127.0.0.1:3")))


@pytest.fixture
def node() -> Any:
    """Node a, which has applied 20 entries, and hears a leader."""
    made = object.__new__(Node)
    made.current_from, made.unknown, made.wants_key = 0, False, asyncio.Event()
    made.keys = Keys(KeyRing(1, {1: bytes(32)}))
    made.identity = SimpleNamespace(id="a")  # type: ignore[assignment]
    made.ledger = SimpleNamespace(applied=lambda: Applied(20, 3, MEMBERS))  # type: ignore[assignment]
    made.replica = SimpleNamespace(status=lambda: SimpleNamespace(members=MEMBERS, quorum=made.hears))  # type: ignore[assignment]
    made.hears = True  # type: ignore[attr-defined]
    return made


def test_who_is_told_that_it_is_not_known_answers_as_soon_as_it_hears_a_leader(node: Any) -> None:
    """Those who said so had ledgers that were behind, as after a power cut of all; who was taken out hears none."""
    node.hears = False
    assert node._holds_ledger()
    node._note_standing(None, 0)
    assert not node._holds_ledger()
    node.hears = True
    assert node._holds_ledger()
    node._note_standing(None, 0)
    assert node._holds_ledger()


async def test_secrets_are_the_leaders_and_where_it_is_silent_those_of_the_ledger_here(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that was set just now may not be here yet. What is sealed with a key that has not come is no reason to fail an attempt."""
    ring = KeyRing(2, {2: bytes(32)})
    sealed = seal(ring, purpose_of_secret("shop", "db", 1), b"value")
    secret = query_secrets.SealedSecret(project="shop", name="db", version=1, sealed=sealed)
    wanted = query_secrets.Wanted(node="a", project="shop", by_variable={"DB": secret}, missing=())

    async def query(_: Any) -> Any:
        return wanted

    async def tells(*asked: str) -> Any:
        return {"values": {"DB": "set just now"}, "asked": asked}

    async def refuses(*_: str) -> Any:
        raise Unavailable("no leader is known")

    async def hangs(*_: str) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(node_module, "SECRETS_PATIENCE_S", 0.01)
    node.reads, node.keys = SimpleNamespace(query=query), SimpleNamespace(ring=ring)
    node._ask_leader = tells
    assert await node._secrets("r.main.1") == {"values": {"DB": "set just now"}, "asked": ("POST", "/v1/attempts/r.main.1/secrets")}
    for silent in (refuses, hangs):
        node._ask_leader, node.keys = silent, SimpleNamespace(ring=ring)
        assert await node._secrets("r.main.1") == {"values": {"DB": "value"}}
        node.keys = SimpleNamespace(ring=KeyRing(1, {1: bytes(32)}))
        with pytest.raises(Unavailable):
            await node._secrets("r.main.1")


def test_who_was_taken_out_answers_once_it_is_up_to_its_return(node: Any) -> None:
    node._note_standing(False, 25)
    assert not node._holds_ledger()
    node._note_standing(True, 20)
    assert node._holds_ledger()
