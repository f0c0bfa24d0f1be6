"""Secrets in output: whole, in pieces of any size, in lines and encodings; and what only looks like the beginning of one is shown."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.masking import MASK, Masker, forms_of


def masked(values: list[str], pieces: list[bytes]) -> bytes:
    masker = Masker(forms_of(values))
    return b"".join([*(masker.feed(piece) for piece in pieces), masker.end()])


SECRET = "s3cr3t/pa ss+word"


@pytest.mark.parametrize(
    "form",
    [SECRET, base64.b64encode(SECRET.encode()).decode(), base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="), quote(SECRET, safe="")],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_every_form_in_pieces_of_any_size(form: str, size: int) -> None:
    data = f"before {form} after s3cr3\n".encode()
    shown = masked([SECRET], [data[at : at + size] for at in range(0, len(data), size)])
    assert form.encode() not in shown and shown.startswith(b"before ***") and shown.endswith(b"after s3cr3\n")


def test_a_value_of_several_lines_is_masked_line_by_line() -> None:
    """As `cat` of a key with an indentation would show it."""
    value = "-----BEGIN KEY-----\n  MIIBVAIBADANBg\nabcd\n-----END KEY-----\n"
    assert masked([value], [b"  MIIBVAIBADANBg\n", b"x abcd y\n"]) == b"***\nx *** y\n"


def test_what_may_be_a_beginning_waits_and_then_comes() -> None:
    masker = Masker(forms_of(["abcdef"]))
    assert masker.feed(b"xabc") == b"x"
    assert masker.feed(b"x") == b"abcx"
    assert (masker.feed(b"abcde"), masker.end()) == (b"", b"abcde")


def test_the_longer_of_two_goes_first() -> None:
    assert masked(["token", "token-of-all"], [b"token-of-all token"]) == MASK + b" " + MASK
    assert masked(["token", "token-of-all"], [b"token", b"-of", b"-all to", b"ken"]) == MASK + b" " + MASK
    assert masked(["token", "token-of-all"], [b"token-of-a"]) == MASK + b"-of-a"


@given(st.text(min_size=4, max_size=20), st.lists(st.binary(max_size=30), max_size=10), st.integers(0, 10), st.randoms(use_true_random=False))
def test_no_split_lets_a_secret_through(value: str, noise: list[bytes], where: int, chance: object) -> None:
    raw = value.encode()
    data = b"".join(noise[:where]) + raw + b"".join(noise[where:])
    whole = masked([value], [data])
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(5))  # type: ignore[attr-defined]
    pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    shown = masked([value], pieces)
    assert MASK in shown
    assert shown == whole
    assert raw not in shown.replace(MASK, b"\0")
