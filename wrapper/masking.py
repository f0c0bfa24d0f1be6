"""Secrets out of a command's output: whatever shows one of them becomes ***, also where it comes in pieces.

A secret is looked for as it is, line by line where it has several, in base64, and as JSON and URLs write it. What may be the beginning of one is
held back until it is known; so at most one secret's length of output waits, and comes with the next or at the end of the try. One of fewer than
four bytes cannot be told from other output: the cluster takes none. What a command encodes in yet another way (hex, compressed, base64 broken
within it) is not recognised: this guards against mishaps, not against whoever writes the command.
"""

from __future__ import annotations

import re

MASK = b"***"
LEAST_BYTES = 4
LINE_WIDTHS = (64, 76)  # of base64 in PEM, and as the program of that name writes it
LEAST_LINE_BYTES = 8  # of a last line: a shorter one tells little, and would be found everywhere
_FOR_URLS = bytes.maketrans(b"+/", b"-_")


class Masker:
    """Of one stream."""

    def __init__(self, forms: list[bytes]) -> None:
        self._forms = forms
        self._find = re.compile(b"|".join(map(re.escape, forms)))
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown now."""
        data = self._held + data
        shown: list[bytes] = []
        at, begun = 0, self._begun(data, 0)
        while (found := self._find.search(data, at)) is not None and found.start() < begun:
            shown += (data[at : found.start()], MASK)
            at = found.end()
            if begun < at:
                begun = self._begun(data, at)
        shown.append(data[at:begun])
        self._held = data[begun:]
        return b"".join(shown)

    def end(self) -> bytes:
        """What was held back: no secret, or a short one that might have become a longer one."""
        held, self._held = self._held, b""
        return self._find.sub(MASK, held)

    def _begun(self, data: bytes, since: int) -> int:
        """From where on the data may be the beginning of a secret; its end where it is none."""
        begun = len(data)
        for form in self._forms:
            at = max(since, len(data) - len(form) + 1)
            while 0 <= (at := data.find(form[:LEAST_BYTES], at)) < begun and not form.startswith(data[at:]):
                at += 1
            last = range(max(since, len(data) - LEAST_BYTES + 1), len(data))
            places = [at] * (at >= 0) + [place for place in last if form.startswith(data[place:])]
            begun = min([begun, *places])
        return begun


def forms_of(values: list[str]) -> list[bytes]:
    """In which a value may be shown; the longest first, so that none is left half."""
    import json
    from urllib.parse import quote, quote_plus

    found: set[bytes] = set()
    for value in values:
        raw = value.encode()
        lines = [raw, *raw.splitlines(), *(line.strip() for line in raw.splitlines())]
        for_urls = [quote(value, safe=""), quote(value), quote_plus(value)]
        in_json = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        found.update([*lines, *(form.encode() for form in for_urls + in_json), *_in_base64(raw)])
    return sorted((form for form in found if len(form) >= LEAST_BYTES), key=lambda form: (-len(form), form))


def _in_base64(raw: bytes) -> list[bytes]:
    """Also where something stands before or behind it in what is encoded (`user:password` of a header, the newline of `echo`): then of its characters
    those that it alone decides. And in lines, as `base64` and PEM break them."""
    import base64

    whole = base64.b64encode(raw)
    found = [whole.rstrip(b"=")]
    for before, undecided in ((0, 0), (1, 2), (2, 3)):
        decided = (before + len(raw)) * 8 // 6
        found.append(base64.b64encode(bytes(before) + raw)[undecided:decided])
    decided = len(raw) * 8 // 6
    for width in LINE_WIDTHS:
        lines = [whole[at : min(at + width, decided)] for at in range(0, decided, width)]
        found += [line for line in lines if len(line) >= LEAST_LINE_BYTES]
    return found + [form.translate(_FOR_URLS) for form in found]
