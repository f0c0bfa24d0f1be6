"""Packets that take their time: in place of a switch, a thread that carries frames from port to port, each so late as the test says.

Some kernels have no netem. `Switch.delay` (networks.py) takes its ports off the bridge and gives them to a `Carrier`; frames pass whole, with the
kernel's word on checksums and segments still to be made (PACKET_VNET_HDR), and keep their order on each way.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import threading
import time
from collections.abc import Mapping

ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING = 263, 15, 4
FRAME_BYTES = 70_000  # a frame may hold what will be many segments
LOOK_S = 0.05


class Carrier:
    """Between ports by their numbers. Made in the network namespace of the ports; the thread may run anywhere."""

    def __init__(self, ports: Mapping[int, str]) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self.delays_s: dict[tuple[int, int], float] = {}
        self._stopped = threading.Event()
        try:
            for number, name in ports.items():
                self._sockets[number] = opened(name)
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._carry, name="carrier", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(10)
        self._close()

    def _close(self) -> None:
        for port in self._sockets.values():
            port.close()

    def _carry(self) -> None:
        due: list[tuple[float, int, int, bytes]] = []
        numbers = itertools.count()
        poll = select.poll()
        by_descriptor = {port.fileno(): number for number, port in self._sockets.items()}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while not self._stopped.is_set():
            wait_s = min(LOOK_S, max(0.0, due[0][0] - time.monotonic())) if due else LOOK_S
            for descriptor, _ in poll.poll(wait_s * 1000):
                source = by_descriptor[descriptor]
                frame, where = self._sockets[source].recvfrom(FRAME_BYTES)
                if where[2] != PACKET_OUTGOING:
                    now = time.monotonic()
                    for target in self._sockets:
                        if target != source:  # to all: who is not meant drops it
                            heapq.heappush(due, (now + self.delays_s.get((source, target), 0.0), next(numbers), target, frame))
            while due and due[0][0] <= time.monotonic():
                self._send(*due[0][2:])
                heapq.heappop(due)

    def _send(self, target: int, frame: bytes) -> None:
        try:
            self._sockets[target].send(frame)
        except OSError:
            pass  # lost, as frames may be


def opened(port: str) -> socket.socket:
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    try:
        found.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        found.bind((port, ETH_P_ALL))
    except BaseException:
        found.close()
        raise
    return found
