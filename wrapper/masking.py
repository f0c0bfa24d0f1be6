"""Secrets out of a command's output: whatever shows one of them becomes ***, also where it comes in pieces.

A secret is looked for as it is, line by line where it has several, in base64, also where lines break that anywhere, and as JSON and URLs write it.
What may be the beginning of one is held back until it is known; so at most one secret's length of output waits, and comes with the next or at the
end of the try. One of fewer than four bytes cannot be told from other output: the cluster takes none. What a command encodes in yet another way
(hex, compressed) is not recognised: this guards against mishaps, not against whoever writes the command.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

MASK = b"***"
LEAST_BYTES = 4
SHOWN_BYTES = 3  # of base64, before a line break: what so few of its characters may begin is not held back at the end of every line
LEAST_ENCODED_BYTES = LEAST_BYTES + SHOWN_BYTES
_BREAKS = b"\r\n"
_FOR_URLS = bytes.maketrans(b"+/", b"-_")


class Forms(NamedTuple):
    """In which values may be shown, the longest first, so that none is left half. `encoded`: those in base64, which lines may break."""

    whole: list[bytes]
    encoded: list[bytes]


class Masker:
    """Of one stream."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._find = _any_of(forms.whole)
        self._find_broken = _any_of([form[SHOWN_BYTES:] for form in forms.encoded])
        self._reach = 2 * max(map(len, forms.encoded), default=0)  # of base64 with its line breaks, however short the lines
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown now."""
        data = self._held + data
        broken = self._broken(data)
        shown: list[bytes] = []
        at, begun = 0, self._begun(data, 0)
        while (found := self._next(data, at, broken)) is not None and found[0] < begun:
            shown += (data[at : found[0]], MASK)
            at = found[1]
            if begun < at:
                begun = self._begun(data, at)
        shown.append(data[at:begun])
        self._held = data[begun:]
        return b"".join(shown)

    def end(self) -> bytes:
        """What was held back: no secret, or a short one that might have become a longer one."""
        data, self._held = self._held, b""
        broken = self._broken(data)
        shown: list[bytes] = []
        at = 0
        while (found := self._next(data, at, broken)) is not None:
            shown += (data[at : found[0]], MASK)
            at = found[1]
        return b"".join([*shown, data[at:]])

    def _next(self, data: bytes, at: int, broken: list[tuple[int, int]]) -> tuple[int, int] | None:
        """Where the next secret stands, from `at` on."""
        found = self._find.search(data, at)
        places = [] if found is None else [found.span()]
        places += [(max(start, at), end) for start, end in broken if end > at][:1]
        return min(places, key=lambda place: (place[0], -place[1]), default=None)

    def _broken(self, data: bytes) -> list[tuple[int, int]]:
        """Where base64 of a secret stands, whether lines break it or not, and though its first characters may have been shown before a break."""
        flat, spots = _without_breaks(data)
        found = []
        for match in self._find_broken.finditer(flat):
            needle = match.group()
            before = max(_shared(flat[: match.start()], form[:SHOWN_BYTES]) for form in self._forms.encoded if form[SHOWN_BYTES:] == needle)
            found.append((_spot(spots, match.start() - before), _spot(spots, match.end() - 1) + 1))
        return found

    def _begun(self, data: bytes, since: int) -> int:
        """From where on the data may be the beginning of a secret; its end where it is none."""
        begun = len(data)
        for form in self._forms.whole:
            at = max(since, len(data) - len(form) + 1)
            while 0 <= (at := data.find(form[:LEAST_BYTES], at)) < begun and not form.startswith(data[at:]):
                at += 1
            last = range(max(since, len(data) - LEAST_BYTES + 1), len(data))
            places = [at] * (at >= 0) + [place for place in last if form.startswith(data[place:])]
            begun = min([begun, *places])
        return min(begun, self._begun_broken(data, since))

    def _begun_broken(self, data: bytes, since: int) -> int:
        """The same of base64 that lines break. At the end of a line a few characters are not enough to hold it back."""
        first = max(since, len(data) - self._reach)
        least = LEAST_BYTES if data.endswith(b"\n") else 1
        flat, spots = _without_breaks(data[first:])
        begun = len(data)
        for form in (form[cut:] for form in self._forms.encoded for cut in (0, SHOWN_BYTES)):
            at = max(0, len(flat) - len(form) + 1)
            while (at := flat.find(form[:least], at)) >= 0 and not form.startswith(flat[at:]):
                at += 1
            if at >= 0:
                begun = min(begun, first + _spot(spots, at))
        return begun


def _any_of(forms: list[bytes]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, forms)) or b"(?!)")


def _without_breaks(data: bytes) -> tuple[bytes, list[int]]:
    """And, for each byte that was taken out, which byte of what is left it stood before."""
    return data.translate(None, _BREAKS), [match.start() - number for number, match in enumerate(re.finditer(rb"[\r\n]", data))]


def _spot(spots: list[int], at: int) -> int:
    """Where a byte stood before the breaks were taken out."""
    return at + bisect_right(spots, at)


def _shared(text: bytes, beginning: bytes) -> int:
    """How many bytes at the end of the text are those at the end of the beginning."""
    return next(length for length in range(len(beginning), -1, -1) if text.endswith(beginning[len(beginning) - length :]))


def forms_of(values: list[str]) -> Forms:
    import json
    from urllib.parse import quote, quote_plus

    found: set[bytes] = set()
    encoded: set[bytes] = set()
    for value in values:
        raw = value.encode()
        lines = [raw, *raw.splitlines(), *(line.strip() for line in raw.splitlines())]
        for_urls = [quote(value, safe=""), quote(value), quote_plus(value)]
        in_json = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        found.update([*lines, *(form.encode() for form in for_urls + in_json)])
        encoded.update(_in_base64(raw))
    return Forms(_longest_first(found | encoded, LEAST_BYTES), _longest_first(encoded, LEAST_ENCODED_BYTES))


def _longest_first(forms: set[bytes], least: int) -> list[bytes]:
    return sorted((form for form in forms if len(form) >= least), key=lambda form: (-len(form), form))


def _in_base64(raw: bytes) -> list[bytes]:
    """Also where something stands before or behind it in what is encoded (`user:password` of a header, the newline of `echo`): then of its characters
    those that it alone decides."""
    import base64

    found = [base64.b64encode(raw).rstrip(b"=")]
    for before, undecided in ((0, 0), (1, 2), (2, 3)):
        decided = (before + len(raw)) * 8 // 6
        found.append(base64.b64encode(bytes(before) + raw)[undecided:decided])
    return found + [form.translate(_FOR_URLS) for form in found]
