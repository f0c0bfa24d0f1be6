"""The file of a backup: read back however it is cut, refused with its name and place when a single bit of it is wrong."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.backup import Check, Header, NotABackup, check_file

HEADER = Header(
    cluster="c", epoch=1, index=7, term=2, ledger_time=5, ledger_version=2, node="n", name="n1", program="0.1.0", taken_at=9, size=1000
)  # fmt: skip
LEDGER = bytes(range(250)) * 4


def whole() -> bytes:
    data = HEADER.encode() + LEDGER
    return data + hashlib.sha256(data).digest()


@given(st.lists(st.integers(1, 400), min_size=1))
def test_it_is_read_back_however_it_is_cut(cuts: list[int]) -> None:
    found = bytearray()
    check, data, position, turn = Check("f", found.extend), whole(), 0, 0
    while position < len(data):
        check.feed(data[position : position + cuts[turn % len(cuts)]])
        position, turn = position + cuts[turn % len(cuts)], turn + 1
    assert check.finish() == HEADER and bytes(found) == LEDGER


@given(st.integers(0, len(whole()) - 1), st.integers(0, 7))
def test_one_flipped_bit_is_noticed(place: int, bit: int) -> None:
    data = bytearray(whole())
    data[place] ^= 1 << bit
    check = Check("f")
    with pytest.raises(NotABackup, match=r"^f: "):
        check.feed(bytes(data))
        check.finish()


@given(st.integers(0, len(whole()) - 1))
def test_a_file_that_was_cut_off_says_where(length: int) -> None:
    check = Check("f")
    check.feed(whole()[:length])
    with pytest.raises(NotABackup, match=f"ends at byte {length}"):
        check.finish()


def test_what_follows_the_end_is_none_of_it(tmp_path) -> None:
    (tmp_path / "f").write_bytes(whole() + b"\0")
    with pytest.raises(NotABackup, match="behind its end"):
        check_file(tmp_path / "f")
