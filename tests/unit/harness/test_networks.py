"""The harness's network: machines reach each other, what is cut is cut, what is delayed comes late and whole, and healing makes all of it good."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.harness.cluster import Cluster
from tests.harness.networks import PORT, Switch, inside, need_namespaces

DELAY_S = 0.15
DATA = bytes(range(256)) * 200  # more than one segment


@pytest.fixture
def switch() -> Iterator[Switch]:
    need_namespaces()
    with Switch(2) as made, closing(Cluster(2)) as cluster:
        made.plug(cluster)
        yield made


def received(sock: socket.socket) -> bytes:
    got = bytearray()
    while len(got) < len(DATA):
        piece = sock.recv(1 << 16)
        if not piece:
            raise ConnectionError("closed early")
        got += piece
    return bytes(got)


def echo(switch: Switch) -> float:
    """Seconds from the begin of a connection from n1 to n2 until n2's answer is there; OSError where none comes."""
    with inside(switch._space(2)):
        listener = socket.create_server((switch.address(2), PORT))
    listener.settimeout(1.5)

    def answer() -> None:
        try:
            with listener.accept()[0] as heard:
                heard.settimeout(10)
                heard.sendall(received(heard))
        except OSError:
            pass  # nobody came

    thread = threading.Thread(target=answer)
    thread.start()
    began = time.monotonic()
    try:
        with inside(switch._space(1)):
            speaker = socket.create_connection((switch.address(2), PORT), timeout=1)
        with speaker:
            speaker.sendall(DATA)
            assert received(speaker) == DATA
        return time.monotonic() - began
    finally:
        listener.close()
        thread.join()


def test_what_is_delayed_comes_late_and_whole(switch: Switch) -> None:
    """There and back, for the connection and for what is said on it."""
    switch.delay("n1", "n2", DELAY_S)
    switch.delay("n2", "n1", DELAY_S)
    assert echo(switch) >= 4 * DELAY_S
    switch.heal()
    assert min(echo(switch) for _ in range(5)) < 4 * DELAY_S


def test_what_is_cut_is_cut(switch: Switch) -> None:
    echo(switch)
    switch.cut_one_way("n2", "n1")
    with pytest.raises(OSError, match="timed out"):
        echo(switch)
    switch.heal()
    echo(switch)
