"""The cluster's keys, by generation: voters and learners hold them, nobody else does.

With the newest, whatever is new is sealed and proved; the older ones open what was made before `igor-node rotate key`, until they are dropped.
The file `cluster.key` holds one line a generation, `GENERATION HEX`, the newest last; a bare line of hex is generation 1.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KEY_BYTES = 32
GENERATIONS_LIMIT = 100  # a file with more is not one of ours


@dataclass(frozen=True)
class KeyRing:
    """`current`: the generation of the newest key."""

    current: int
    by_generation: Mapping[int, bytes]

    @property
    def key(self) -> bytes:
        return self.by_generation[self.current]

    @property
    def newest_first(self) -> tuple[bytes, ...]:
        return tuple(self.by_generation[generation] for generation in sorted(self.by_generation, reverse=True))

    def with_key(self, generation: int, key: bytes) -> KeyRing:
        """With that key too. Raises ValueError where the generation has another one already."""
        known = self.by_generation.get(generation)
        if known is not None and known != key:
            raise ValueError(f"generation {generation} of the cluster's key is another key here")
        return KeyRing(max(self.current, generation), {**self.by_generation, generation: key})

    def without(self, generations: frozenset[int]) -> KeyRing:
        """Without what is out of use; the newest stays."""
        kept = {generation: key for generation, key in self.by_generation.items() if generation not in generations or generation == self.current}
        return KeyRing(self.current, kept)


class Keys:
    """The ring that is in force on this node, for parts that ask each time: it comes when the node becomes a member, and changes at a rotation.
    Without one `key` is a key that nobody else has, so that nothing signed elsewhere is ever good here; `on_missing` hears that it was asked for, in
    whatever thread."""

    def __init__(self, ring: KeyRing | None, on_missing: Callable[[], None] = lambda: None) -> None:
        self.ring = ring
        self._on_missing = on_missing
        self._nobodys = secrets.token_bytes(KEY_BYTES)

    @property
    def key(self) -> bytes:
        if self.ring is None:
            self._on_missing()
            return self._nobodys
        return self.ring.key


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
