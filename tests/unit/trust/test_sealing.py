"""What is sealed is opened by who holds the key, for what it was sealed, whole; by nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.trust.keys import new_ring
from igor_node.trust.sealing import Sealed, generation_of, seal, unseal

RING = new_ring()


@given(st.binary(max_size=2_000), st.text(max_size=50))
def test_what_is_sealed_is_opened(plain: bytes, purpose: str) -> None:
    sealed = seal(RING, purpose, plain)
    assert unseal(RING, purpose, sealed) == plain
    assert sealed != seal(RING, purpose, plain), "a nonce is used once"
    assert len(plain) < 8 or plain not in sealed


def test_it_is_opened_after_a_rotation_too_until_the_old_key_is_dropped() -> None:
    sealed = seal(RING, "ca 1", b"x")
    rotated = RING.with_key(2, b"k" * 32).using(2)
    assert unseal(rotated, "ca 1", sealed) == b"x" and generation_of(seal(rotated, "ca 1", b"x")) == 2
    with pytest.raises(Sealed, match="generation 1 of the cluster's key, which is not here"):
        unseal(rotated.only(lambda generation: generation > 1), "ca 1", sealed)


def test_one_cannot_be_put_in_the_place_of_another() -> None:
    with pytest.raises(Sealed, match="sealed for something else"):
        unseal(RING, "secret demo/a/1", seal(RING, "secret demo/b/1", b"x"))


def test_another_cluster_of_the_same_generation_opens_nothing() -> None:
    with pytest.raises(Sealed):
        unseal(new_ring(), "ca 1", seal(RING, "ca 1", b"x"))


@given(st.data())
def test_a_changed_byte_is_found(data: st.DataObject) -> None:
    sealed = bytearray(seal(RING, "ca 1", b"the key of a CA"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Sealed):
        unseal(RING, "ca 1", bytes(sealed))


@given(st.binary(max_size=40))
def test_what_is_not_sealed_is_said_so(junk: bytes) -> None:
    with pytest.raises(Sealed):
        unseal(RING, "ca 1", junk)
