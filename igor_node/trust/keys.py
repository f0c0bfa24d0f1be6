"""The cluster's keys, by generation: voters and learners hold them, nobody else does.

With the one in force whatever is new is sealed and signed; an older one opens what was made before `igor-node rotate key`, until it is dropped, and
one that is to come waits until every member holds it. The file `cluster.key` holds one line a generation, `GENERATION HEX`, the newest last; a bare
line of hex is generation 1. The ledger knows each key's mark, which names it and does not tell it (wire.mark_of), and which one is in force.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raft.wire import mark_of

KEY_BYTES = 32
GENERATIONS_LIMIT = 100  # a file with more is not one of ours


@dataclass(frozen=True)
class KeyRing:
    """`current`: the generation that is in force."""

    current: int
    by_generation: Mapping[int, bytes]

    @property
    def key(self) -> bytes:
        return self.by_generation[self.current]

    @property
    def newest_first(self) -> tuple[bytes, ...]:
        return tuple(self.by_generation[generation] for generation in sorted(self.by_generation, reverse=True))

    @property
    def newest(self) -> int:
        return max(self.by_generation)

    def has(self, generation: int, mark: bytes) -> bool:
        key = self.by_generation.get(generation)
        return key is not None and mark_of(key) == mark

    def with_key(self, generation: int, key: bytes) -> KeyRing:
        """With that key too. Raises ValueError where the generation has another one already."""
        known = self.by_generation.get(generation)
        if known is not None and known != key:
            raise ValueError(f"generation {generation} of the cluster's key is another key here")
        return KeyRing(self.current, {**self.by_generation, generation: key})

    def using(self, generation: int) -> KeyRing:
        """With that one in force, where it is here."""
        return KeyRing(generation, self.by_generation) if generation in self.by_generation else self

    def only(self, wanted: Callable[[int], bool]) -> KeyRing:
        """Without what is not wanted; the one in force stays."""
        kept = {generation: key for generation, key in self.by_generation.items() if wanted(generation) or generation == self.current}
        return KeyRing(self.current, kept)


def merged(own: KeyRing | None, theirs: KeyRing, marks: Mapping[int, bytes]) -> KeyRing:
    """What another member gave, beside what is here. Where the ledger names a generation by its mark, that key alone is taken, or kept; a key that
    it does not name came to nothing, so what whoever leads has counts."""
    known = {generation: key for generation, key in theirs.by_generation.items() if marks.get(generation) in (None, mark_of(key))}
    if own is None:
        return KeyRing(theirs.current, theirs.by_generation)
    return KeyRing(own.current, {**own.by_generation, **known})


class Keys:
    """The ring of this node, for parts that ask each time: it comes when the node becomes a member, and changes at a rotation.
    Without one `key` is a key that nobody else has, so that nothing signed elsewhere is ever good here. Any thread may ask."""

    def __init__(self, ring: KeyRing | None) -> None:
        self.ring = ring
        self._nobodys = secrets.token_bytes(KEY_BYTES)

    @property
    def key(self) -> bytes:
        """The one in force."""
        return self._nobodys if self.ring is None else self.ring.key

    def all(self) -> Sequence[bytes]:
        """Newest first; none where there is no ring."""
        return () if self.ring is None else self.ring.newest_first


def new_ring() -> KeyRing:
    return KeyRing(1, {1: secrets.token_bytes(KEY_BYTES)})


def parse_ring(text: str) -> KeyRing:
    """What the file says. Raises ValueError."""
    keys: dict[int, bytes] = {}
    lines = [line for line in text.splitlines() if line.strip()]
    if not 0 < len(lines) <= GENERATIONS_LIMIT:
        raise ValueError(f"{len(lines)} keys; expected 1 to {GENERATIONS_LIMIT}")
    for line in lines:
        first, _, rest = line.strip().rpartition(" ")
        generation, key = int(first or "1"), bytes.fromhex(rest)
        if len(key) != KEY_BYTES or generation < 1 or generation in keys:
            raise ValueError(f"expected GENERATION HEX, {KEY_BYTES} bytes each, every generation once")
        keys[generation] = key
    return KeyRing(max(keys), keys)


def write_ring(ring: KeyRing) -> str:
    return "".join(f"{generation} {ring.by_generation[generation].hex()}\n" for generation in sorted(ring.by_generation))
