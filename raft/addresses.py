"""The places behind HOST:PORT. Numbers at once; names are asked of the system in a thread, so that no tick waits for a resolver."""

from __future__ import annotations

import socket
from typing import Any

from raft.threads import begin_thread

ANSWER_AGE_S = 5.0  # after which a name is resolved anew
PORT_MAX = 65_535

Address = tuple[socket.AddressFamily, Any]


class Names:
    """Asks anew when an answer is old: machines move."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, list[Address] | OSError]] = {}
        self._asking: set[str] = set()

    def find(self, address: str, now: float) -> list[Address] | None:
        """None while the answer is awaited. Raises OSError where there is none, ValueError where it is no address."""
        try:
            return look_up(address, numeric=True)
        except socket.gaierror:
            pass
        asked_at, answer = self._answers.get(address, (float("-inf"), []))
        if now - asked_at < ANSWER_AGE_S:
            if isinstance(answer, OSError):
                raise answer
            return answer
        if address not in self._asking:
            self._asking.add(address)
            if not begin_thread("raft-names", self._ask, address, now):
                self._asking.discard(address)
        return None

    def _ask(self, address: str, now: float) -> None:
        try:
            answer: list[Address] | OSError = look_up(address)
        except OSError as problem:
            answer = problem
        self._answers = {**self._answers, address: (now, answer)}
        self._asking.discard(address)


def look_up(address: str, *, numeric: bool = False) -> list[Address]:
    """All places of HOST:PORT, [::1]:PORT too. With `numeric` it never asks anybody. At least one, or OSError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > PORT_MAX:
        raise ValueError(f"{address!r} is not HOST:PORT")
    flags = socket.AI_NUMERICHOST if numeric else 0
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=flags)
    return [(family, place) for family, _, _, _, place in found]
