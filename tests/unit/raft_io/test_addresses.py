"""Names of nodes: asked of the system in a thread, believed for a few seconds, asked anew. Machines move, and their names with them."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from raft import addresses
from raft.addresses import ANSWER_AGE_S, Names

SECOND = 10.0


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the system says of names."""
    known: dict[str, str] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **how: Any) -> Any:
        if how.get("flags"):
            return real(host, port, **how)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(known[host], port, **how)

    monkeypatch.setattr(addresses.socket, "getaddrinfo", getaddrinfo)
    return known


def answer(names: Names, now: float) -> list[str]:
    """Asks until there is an answer; the hosts in it."""
    until = time.monotonic() + SECOND
    while (found := names.find("node.example:7946", now)) is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    return [place[0] for _, place in found]


def test_a_name_that_moves_is_found_where_it_is_now(hosts: dict[str, str]) -> None:
    """The old place is believed for ANSWER_AGE_S and no longer."""
    names = Names()
    hosts["node.example"] = "127.0.0.1"
    assert answer(names, 100.0) == ["127.0.0.1"]
    hosts["node.example"] = "127.0.0.2"
    assert answer(names, 100.0 + ANSWER_AGE_S - 0.1) == ["127.0.0.1"]
    assert names.find("node.example:7946", 100.0 + ANSWER_AGE_S + 0.1) is None
    assert answer(names, 100.0 + ANSWER_AGE_S + 0.1) == ["127.0.0.2"]


def test_a_name_that_nobody_knows_is_asked_for_again(hosts: dict[str, str]) -> None:
    """An error is an answer, for as long as any other."""
    names = Names()
    with pytest.raises(OSError, match="Name or service not known"):
        answer(names, 100.0)
    hosts["node.example"] = "127.0.0.1"
    assert answer(names, 101.0 + ANSWER_AGE_S) == ["127.0.0.1"]


def test_without_a_thread_it_is_asked_later(hosts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no process left, for a moment."""

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = Names()
    hosts["node.example"] = "127.0.0.1"
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert names.find("node.example:7946", 100.0) is None
    assert answer(names, 100.0) == ["127.0.0.1"]


def test_a_slow_resolver_is_asked_once(hosts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody waits for it."""
    asked, go_on = [], threading.Event()

    def slow(address: str, *, numeric: bool = False) -> Any:
        if numeric:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        asked.append(address)
        go_on.wait(SECOND)
        return [(socket.AF_INET, ("127.0.0.1", 7946))]

    monkeypatch.setattr(addresses, "look_up", slow)
    names = Names()
    for _ in range(5):
        assert names.find("node.example:7946", 100.0) is None
    go_on.set()
    assert answer(names, 100.0) == ["127.0.0.1"] and asked == ["node.example:7946"]
