"""A machine of its own for each node: network namespaces on one bridge, and a packet filter to cut what is between them.

    with Switch(3) as switch:
        switch.plug(cluster)             # before the cluster is started
        switch.cut("n1", "n2")           # both ways; cut_one_way, isolate, lose, delay, heal

Addresses are 127.1.0.1, 127.1.0.2, …: a cluster without TLS is on loopback alone, and Linux routes that between machines where it is told to
(`route_localnet`); `Switch(3, OFF_LOOPBACK)` has addresses of a network as it is. What is cut is dropped where it arrives, silently: connections
hang, as when a cable is pulled. Clients (`Node.request`, `Node.program`) are on the node's own machine and reach it whatever is cut. Needs root; the
tests skip without.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.harness.delays import Carrier

PORT = 7946
LOOPBACK, OFF_LOOPBACK = "127.1.0", "10.99.0"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def need_namespaces() -> None:
    """Skips with a clear word where there are none to be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces and a packet filter")
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program `{program}` (Debian: apt-get install iproute2 iptables)")
    probe = f"igor-probe-{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"needs network namespaces: {made.stderr.strip()}")
    subprocess.run(["ip", "netns", "delete", probe], check=True)


class Switch:
    def __init__(self, size: int, network: str = LOOPBACK) -> None:
        self._network = network
        self._mark = f"igor-{uuid.uuid4().hex[:6]}"
        self._size = size
        self._numbers: dict[str, int] = {}
        self._carrier: Carrier | None = None

    def __enter__(self) -> Switch:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The links go with their ends."""
        if self._carrier is not None:
            self._carrier.stop()
        for name in [self._mark, *map(self._space, range(1, self._size + 1))]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def address(self, number: int) -> str:
        return f"{self._network}.{number}"

    def plug(self, cluster: Cluster) -> None:
        for number, node in enumerate(cluster.nodes, 1):
            self._numbers[node.name] = number
            node.prefix = ("ip", "netns", "exec", self._space(number))
            node.listen = f"{self.address(number)}:{PORT}"
            node.reach = self._reach(number)

    # --- what is cut

    def cut(self, one: str, other: str) -> None:
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """Nothing that `sender` sends arrives at `receiver`."""
        self._filter(receiver, "-s", self.address(self._numbers[sender]), "-j", "DROP")

    def lose(self, sender: str, receiver: str, share: float) -> None:
        """Of what `sender` sends so much is lost, by chance."""
        self._filter(
            receiver, "-s", self.address(self._numbers[sender]), "-m", "statistic", "--mode", "random", "--probability", f"{share}", "-j", "DROP"
        )

    def delay(self, sender: str, receiver: str, seconds: float) -> None:
        """What `sender` sends arrives so much later, in order."""
        if self._carrier is None:
            ports = {number: f"port{number}" for number in range(1, self._size + 1)}
            with inside(self._mark):
                self._carrier = Carrier(ports)
            for port in ports.values():
                _ip("-n", self._mark, "link", "set", port, "nomaster")
        self._carrier.delays_s[self._numbers[sender], self._numbers[receiver]] = seconds

    def isolate(self, node: str) -> None:
        for other in self._numbers:
            if other != node:
                self.cut(node, other)

    def heal(self) -> None:
        for number in self._numbers.values():
            _ip("netns", "exec", self._space(number), "iptables", "-w", "-F", "INPUT")
        if self._carrier is not None:
            self._carrier.stop()
            self._carrier = None
            for number in range(1, self._size + 1):
                _ip("-n", self._mark, "link", "set", f"port{number}", "master", "bridge")

    def _filter(self, node: str, *rule: str) -> None:
        _ip("netns", "exec", self._space(self._numbers[node]), "iptables", "-w", "-A", "INPUT", *rule)

    # --- how it is made

    def _space(self, number: int) -> str:
        return f"{self._mark}-{number}"

    def _make(self) -> None:
        _ip("netns", "add", self._mark)
        _ip("-n", self._mark, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._mark, "link", "set", "bridge", "up")
        for number in range(1, self._size + 1):
            self._make_machine(self._space(number), number)

    def _make_machine(self, space: str, number: int) -> None:
        _ip("netns", "add", space)
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "add", "wire", "type", "veth", "peer", "name", f"port{number}", "netns", self._mark)
        _ip("-n", self._mark, "link", "set", f"port{number}", "master", "bridge", "up")
        if self._network == LOOPBACK:  # addresses other than 127.0.0.1 are to leave the machine
            for name in ("all", "wire"):
                _ip("netns", "exec", space, "sysctl", "-qw", f"net.ipv4.conf.{name}.route_localnet=1", f"net.ipv4.conf.{name}.rp_filter=0")
            _ip("-n", space, "route", "delete", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
        _ip("-n", space, "address", "add", f"{self.address(number)}/24", "dev", "wire")
        _ip("-n", space, "link", "set", "wire", "up")

    def _reach(self, number: int) -> Any:
        def connect(connection: http.client.HTTPConnection) -> None:
            with inside(self._space(number)):
                connection.connect()

        return connect


@contextmanager
def inside(space: str) -> Iterator[None]:
    """This thread is on that machine: what it connects here stays there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/run/netns/{space}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            yield
        finally:
            _enter(home)
            os.close(there)
    finally:
        os.close(home)


def _enter(space: int) -> None:
    if _libc.setns(space, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
