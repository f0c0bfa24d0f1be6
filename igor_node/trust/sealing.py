"""Sealing: what the ledger keeps, and every backup with it, but only who holds the cluster's key may read.

    generation of the key u32 | nonce 12 bytes | AES-256-GCM of the plain bytes, with the purpose as associated data

The purpose says what a sealed value is for (`ca 1`, `secret demo/db/3`), so that one cannot be put in the place of another. Each generation of the
cluster's key seals with a key of its own that is derived from it: what proves and signs with the cluster's key itself has nothing to do with this.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from igor_node.trust.keys import KeyRing

NONCE_BYTES = 12
_GENERATION = struct.Struct(">I")


class Sealed(Exception):
    """It cannot be opened here; the text is for a person."""


def seal(ring: KeyRing, purpose: str, plain: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return _GENERATION.pack(ring.current) + nonce + _cipher(ring.key).encrypt(nonce, plain, purpose.encode())


def unseal(ring: KeyRing, purpose: str, sealed: bytes) -> bytes:
    """Raises Sealed."""
    generation = generation_of(sealed)
    key = ring.by_generation.get(generation)
    if key is None:
        raise Sealed(f"{purpose} is sealed with generation {generation} of the cluster's key, which is not here")
    nonce = sealed[_GENERATION.size : _GENERATION.size + NONCE_BYTES]
    try:
        return _cipher(key).decrypt(nonce, sealed[_GENERATION.size + NONCE_BYTES :], purpose.encode())
    except (InvalidTag, ValueError):
        raise Sealed(f"{purpose} cannot be opened: it is damaged, or sealed for something else") from None


def generation_of(sealed: bytes) -> int:
    """Of the key that opens it. Raises Sealed."""
    if len(sealed) < _GENERATION.size + NONCE_BYTES:
        raise Sealed("this is too short to be sealed")
    return int(_GENERATION.unpack_from(sealed)[0])


def purpose_of_ca(generation: int) -> str:
    return f"ca {generation}"


def purpose_of_secret(project: str, name: str, version: int) -> str:
    return f"secret {project}/{name}/{version}"


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(hmac.new(key, b"igor seal", hashlib.sha256).digest())
