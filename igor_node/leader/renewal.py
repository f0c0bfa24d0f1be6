"""The token with which a wrapper renews the lease of its own attempt, and nothing else, when its node is down.

Derived from the cluster's key and the attempt's id, so that any leader can hand out the same assignment again and check a renewal without asking
the ledger. The ledger keeps only the hash.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


def renewal_token(key: bytes, attempt: str) -> str:
    return hmac.new(key, b"igor renew " + attempt.encode(), hashlib.sha256).hexdigest()


def renewal_hash(key: bytes, attempt: str) -> str:
    return hashlib.sha256(renewal_token(key, attempt).encode()).hexdigest()


def is_renewal_token(keys: Sequence[bytes], attempt: str, token: str) -> bool:
    """By any of the keys that are held: an attempt may be older than the one in force."""
    return any(hmac.compare_digest(renewal_token(key, attempt).encode(), token.encode()) for key in keys)
