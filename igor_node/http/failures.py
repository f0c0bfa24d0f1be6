"""How often somebody may fail to log in: per address, and for this node as a whole.

A failure is a token, session or code that is not ours; a request without any, a token that has ended, a page whose session is over are none. An
address that failed `BURST` times gets 429 for what this node has not seen to be good before, until its credit is back, one failure each `REFILL_S`.
When the node as a whole hears too many, wrong tokens are answered 429 without asking other nodes; good ones go through. Addresses of IPv6 count by
their /64, which is what one host gets. Memory is bounded: the address that was quiet for longest is forgotten.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from igor_node.words import SECOND, TooMany

BURST = 20  # failures at once: a person who mistypes, a script with yesterday's token
REFILL_S = 3.0  # seconds a failure: 20 a minute
NODE_BURST = 300
NODE_REFILL_S = 0.1  # 600 a minute, from all addresses
ADDRESSES = 4_096  # remembered at once, about 150 bytes each
IPV6_HOST_BITS = 64


class Credit:
    """A bucket of failures that fills with time."""

    __slots__ = ("_at", "_left")

    def __init__(self, burst: int, now: int) -> None:
        self._left = float(burst)
        self._at = now

    def left(self, burst: int, refill_s: float, now: int) -> float:
        self._left = min(float(burst), self._left + (now - self._at) / (refill_s * SECOND))
        self._at = now
        return self._left

    def spend(self) -> None:
        self._left = max(0.0, self._left - 1.0)


class Failures:
    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._addresses: OrderedDict[str, Credit] = OrderedDict()
        self._node = Credit(NODE_BURST, now_ns())

    def check(self, address: str) -> None:
        """Before a try. Raises TooMany."""
        credit = self._addresses.get(host_part(address))
        if credit is not None and (left := credit.left(BURST, REFILL_S, self._now_ns())) < 1.0:
            wait_s = max(1, round((1.0 - left) * REFILL_S + 0.5))
            raise TooMany(f"too many failed log-ins from {address}", hint="check the token; then ask again later", retry_after_s=wait_s)

    def check_node(self) -> None:
        """Before other nodes are asked. Raises TooMany."""
        if self._node.left(NODE_BURST, NODE_REFILL_S, self._now_ns()) < 1.0:
            raise TooMany("too many failed log-ins at this node", hint="check the token; then ask again later", retry_after_s=1)

    def count(self, address: str) -> None:
        """A try failed."""
        key, now = host_part(address), self._now_ns()
        credit = self._addresses.pop(key, None) or Credit(BURST, now)
        credit.left(BURST, REFILL_S, now)
        credit.spend()
        self._addresses[key] = credit
        if len(self._addresses) > ADDRESSES:
            self._addresses.popitem(last=False)
        self._node.left(NODE_BURST, NODE_REFILL_S, now)
        self._node.spend()


@lru_cache(maxsize=1_000)
def host_part(address: str) -> str:
    """What one host has for certain: an IPv4 address, the first half of an IPv6 one; whatever else is given stands for itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_HOST_BITS), strict=False)) if not parsed.is_loopback else str(parsed)
    return str(parsed)
