"""Secrets in output: whole, in pieces of any size, in lines and encodings; and what only looks like the beginning of one is shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
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


@pytest.mark.parametrize("length", [4, 5, 6, 30, 31, 32, 33])
@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("behind", ["", "\n", "@host"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_more_than_the_secret(length: int, before: str, behind: str, encode: Callable[[bytes], bytes]) -> None:
    """As in a header `Authorization: Basic`, and of `echo "$SECRET" | base64`: what is left decodes to no two bytes of it."""
    value = "\xffs3cr3t?of>the~warehouse+of-shop"[: length - 1]
    raw = value.encode()
    shown = masked([value], [encode(before.encode() + raw + behind.encode())])
    assert MASK in shown
    pieces = [piece.strip(b"=") for piece in shown.split(MASK)]
    assert all(len(piece) * 6 < (len(outside) + 2) * 8 for piece, outside in zip(pieces, (before, behind), strict=True)), shown


@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines(width: int) -> None:
    value = "".join(chr(33 + number % 90) for number in range(200))
    encoded = base64.b64encode(value.encode())
    lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
    shown = masked([value], [b"\n".join(lines)])
    assert all(line not in shown for line in lines) and shown == MASK + b"="


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("width", [19, 64, 76])
def test_base64_that_lines_break_anywhere(width: int, ending: bytes, size: int) -> None:
    """As of `env | base64`: the secret begins anywhere in a line. What is shown holds four characters in a row of it at most."""
    value = "s3cr3t?of>the~warehouse+of-shop\xff"
    for before in range(60):
        text = "x" * before + value + "y" * 20
        encoded = base64.b64encode(text.encode())
        alone = encoded[-(-before * 8 // 6) : (before + len(value.encode())) * 8 // 6]
        data = ending.join(encoded[at : at + width] for at in range(0, len(encoded), width))
        shown = masked([value], [data[at : at + size] for at in range(0, len(data), size)])
        flat = shown.replace(ending, b"")
        assert shown.count(MASK) == 1 and not any(alone[at : at + 5] in flat for at in range(len(alone) - 4)), (before, shown)


def test_the_end_of_a_line_is_not_held_back_for_a_letter_or_three() -> None:
    encoded = base64.b64encode(b"s3cr3t-of-the-warehouse")
    masker = Masker(forms_of(["s3cr3t-of-the-warehouse"]))
    assert masker.feed(b"x " + encoded[:3] + b"\n") == b"x " + encoded[:3] + b"\n"
    assert masker.feed(encoded[3:] + b"\n") == b"***=\n"
    assert masker.feed(b"x " + encoded[:4] + b"\n") == b"x "
    assert masker.feed(b"other\n") == encoded[:4] + b"\nother\n"


@pytest.mark.parametrize("plain", [True, False])
def test_as_json_writes_it(plain: bool) -> None:
    value = 'a "quoted"\tpass\\word of \u00fc'
    shown = masked([value], [json.dumps({"password": value}, ensure_ascii=plain).encode()])
    assert shown == b'{"password": "***"}'


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
