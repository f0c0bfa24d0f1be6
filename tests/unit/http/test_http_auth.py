"""Tokens: what they look like, and what of one is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from igor_node.http import auth, identity
from igor_node.words import Role, Unauthenticated
from tests.unit.http.world import World

KEY = b"k" * 32


def test_a_token_is_its_id_and_the_hash_of_its_secret() -> None:
    text = auth.compose_token("t1", "secret")
    given = auth.parse_token(text)
    assert (text, given.id, given.hash) == ("igor1.none.t1.secret", "t1", auth.hash_secret("secret"))


@pytest.mark.parametrize(
    "text", ["", "x", "igor1.none.t1", "igor2.none.t1.s", "igor1.none.t 1.s", "igor1.none..s", "igor1.none.t1.s\n", "igor1.none.t.s.u"]
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        auth.parse_token(text)


def test_a_derived_secret_is_the_same_for_the_same_purpose_alone() -> None:
    assert auth.derive_secret(KEY, "node a") == auth.derive_secret(KEY, "node a")
    assert len({auth.derive_secret(KEY, "node a"), auth.derive_secret(KEY, "node b"), auth.derive_secret(b"other", "node a")}) == 3


async def test_the_last_use_of_a_token_is_told_to_the_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever node it was used at, a worker too; a token that is not used is not told of, and nothing is written for it."""
    monkeypatch.setattr(identity, "TELL_USES_S", 0.05)
    async with World(tmp_path, "n1", "n2", "w", workers=["w"]) as fleet:
        for node, role in (("n2", Role.VIEWER), ("w", Role.OPERATOR)):
            assert (await fleet.ask("GET", "/v1/jobs", node=fleet.nodes[node], role=role)).status == 200

        async def used() -> set[str]:
            listed = (await fleet.ask("GET", "/v1/tokens", role=Role.ADMIN)).value["items"]
            return {row["id"] for row in listed if row["last_used_at"] is not None}

        end = asyncio.get_running_loop().time() + 10
        while not {"t-viewer", "t-operator", "t-admin"} <= await used():
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.02)
        assert "t-deployer" not in await used()
        before = fleet.cluster.index
        await asyncio.sleep(0.3)  # several rounds in which nothing new is to be told
        assert fleet.cluster.index == before
