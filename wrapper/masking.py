"""Secrets out of a command's output: whatever shows one of them becomes ***, also where it comes in pieces.

A secret is looked for as it is, line by line where it has several, in base64, and as URLs write it. What may be the beginning of one is held back
until it is known; so at most one secret's length of output waits, and comes with the next or at the end of the try. One of fewer than four bytes
cannot be told from other output: the cluster takes none.
"""

from __future__ import annotations

import re

MASK = b"***"
LEAST_BYTES = 4


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
    import base64
    from urllib.parse import quote, quote_plus

    found: set[bytes] = set()
    for value in values:
        raw = value.encode()
        parts = [raw, *raw.splitlines(), *(line.strip() for line in raw.splitlines())]
        encoded = [base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"="), quote(value, safe="").encode()]
        encoded += [quote(value).encode(), quote_plus(value).encode()]
        found.update(part for part in [*parts, *encoded] if len(part) >= LEAST_BYTES)
    return sorted(found, key=lambda form: (-len(form), form))
