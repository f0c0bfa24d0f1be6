"""Whether a node answers from its own ledger: what leaders and others said of it, against what consensus shows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from igor_node.ledger import query_secrets
from igor_node.node import Node
from igor_node.trust.keys import KeyRing, Keys
from igor_node.trust.sealing import purpose_of_secret, seal
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


async def test_what_a_node_cannot_open_yet_it_asks_of_the_leader(node: Any) -> None:
    """Its ledger may hold a secret that was sealed with a newer key than has come to it: no reason to fail an attempt."""
    newer = KeyRing(2, {2: bytes(32)})
    sealed = seal(newer, purpose_of_secret("shop", "db", 1), b"value")
    secret = query_secrets.SealedSecret(project="shop", name="db", version=1, sealed=sealed)
    wanted = query_secrets.Wanted(node="a", project="shop", by_variable={"DB": secret}, missing=())

    async def query(_: Any) -> Any:
        return wanted

    async def ask_leader(*asked: str) -> Any:
        return {"values": {"DB": "the leader's"}, "asked": asked}

    node.reads, node._ask_leader = SimpleNamespace(query=query), ask_leader
    node.keys = SimpleNamespace(ring=KeyRing(1, {1: bytes(32)}))
    assert (await node._secrets("r.main.1"))["asked"] == ("POST", "/v1/attempts/r.main.1/secrets")
    node.keys = SimpleNamespace(ring=newer)
    assert await node._secrets("r.main.1") == {"values": {"DB": "value"}}


def test_who_was_taken_out_answers_once_it_is_up_to_its_return(node: Any) -> None:
    node._note_standing(False, 25)
    assert not node._holds_ledger()
    node._note_standing(True, 20)
    assert node._holds_ledger()
