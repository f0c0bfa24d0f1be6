"""Tokens: what they look like, and what of one is kept."""

from __future__ import annotations

import pytest

from igor_node.http import auth
from igor_node.words import Unauthenticated

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
