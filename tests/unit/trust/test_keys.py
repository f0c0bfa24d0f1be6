"""The ring of the cluster's keys: what is written is read again, and nothing that is not a ring is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.trust.keys import KeyRing, merged, new_ring, parse_ring, write_ring
from raft.wire import mark_of

keys = st.binary(min_size=32, max_size=32)
rings = st.dictionaries(st.integers(1, 10_000), keys, min_size=1, max_size=20).map(lambda found: KeyRing(max(found), found))


@given(rings)
def test_what_is_written_is_read_again(ring: KeyRing) -> None:
    assert parse_ring(write_ring(ring)) == ring


def test_a_bare_line_is_generation_one() -> None:
    """So is the file of a cluster that never rotated its key."""
    ring = new_ring()
    assert parse_ring(ring.key.hex() + "\n") == ring


@given(rings, keys)
def test_a_key_is_held_before_it_is_in_force(ring: KeyRing, key: bytes) -> None:
    grown = ring.with_key(ring.newest + 1, key)
    assert grown.key == ring.key
    assert grown.newest_first[0] == key
    used = grown.using(grown.newest)
    assert used.key == key
    assert used.only(lambda generation: False).by_generation == {grown.newest: key}
    assert ring.using(ring.newest + 1) == ring


@given(rings, rings)
def test_of_what_another_member_gives_the_ledger_names_what_counts(own: KeyRing, theirs: KeyRing) -> None:
    """A key that the ledger names by its mark is never replaced by another; one that it does not name came to nothing."""
    named = {generation: mark_of(key) for generation, key in own.by_generation.items() if generation % 2}
    found = merged(own, theirs, named)
    for generation, key in found.by_generation.items():
        if generation in named:
            assert mark_of(key) == named[generation]
        else:
            assert key == theirs.by_generation.get(generation, own.by_generation.get(generation))
    assert found.by_generation.keys() >= own.by_generation.keys() and found.current == own.current
    assert merged(None, theirs, {}) == theirs


def test_one_generation_is_one_key() -> None:
    ring = new_ring()
    assert ring.with_key(1, ring.key) == ring
    with pytest.raises(ValueError, match="another key"):
        ring.with_key(1, b"x" * 32)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("1 " + "ab" * 31, id="a byte is missing"),
        pytest.param("0 " + "ab" * 32, id="generations count from one"),
        pytest.param("1 " + "ab" * 32 + "\n1 " + "cd" * 32, id="a generation twice"),
        pytest.param("x " + "ab" * 32, id="no number"),
        pytest.param("zz" * 32, id="no hex"),
        pytest.param("\n".join(f"{n} " + "ab" * 32 for n in range(1, 102)), id="too many"),
    ],
)
def test_what_is_no_ring_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_ring(text)
