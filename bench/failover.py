"""How long is a cluster without a leader that takes writes?

Question: time until a write through a surviving node is acknowledged again, after `kill -9` of the leader; the longest wait of a client that writes
all the time, while the leader is stopped in order (SIGTERM: it hands over); and the time from the healing of a partition to all nodes level: the
same leader, and everything applied that was committed then. Three real nodes on this machine; the partitions need root (network namespaces). With
`--etcd` the same kills for Debian's etcd-server with its defaults beside it. Unit: milliseconds. Goals: killed p50 <= 1,000 and p99 <= 1,500;
hand-over p99 <= 150; healed p99 <= 1,000. Prints a table and writes JSON with versions and parameters.

    python -m bench.failover [--kills 50] [--hand-overs 50] [--heals 30] [--etcd] [--seed 1] [--json out/failover.json]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.written import written
from tests.harness.cluster import Cluster, Node
from tests.harness.networks import Switch
from tests.harness.processes import wait_for

GOALS_MS = {"killed": (1_000, 1_500), "handed_over": (None, 150), "healed": (None, 1_000)}
GIVE_UP_S = 15.0
ETCD_ASK_S = 0.2
STEADY_S = 1.5  # between two failures: every node is up and hears the leader


# --- Igor


def write(node: Node, timeout_s: float) -> bool:
    """One small command through this node."""
    try:
        return node.request("POST", "/v1/jobs/bench/idle/pause", {}, timeout_s=timeout_s)[0] == 200
    except OSError:
        return False


def until_written(nodes: list[Node], begun: float) -> float:
    """Milliseconds since `begun` until one of them acknowledged a write; each is asked all the time, as by a client of its own."""
    done, times = threading.Event(), []

    def ask(node: Node) -> None:
        while not done.is_set() and time.monotonic() < begun + GIVE_UP_S:
            if write(node, GIVE_UP_S):
                times.append(time.monotonic())
                done.set()
            else:
                time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (min(times, default=begun + GIVE_UP_S) - begun) * 1000


def steady(cluster: Cluster) -> tuple[Node, list[Node]]:
    cluster.wait_voters()
    cluster.wait_level()
    time.sleep(STEADY_S)
    leader = cluster.leader()
    return leader, [node for node in cluster.nodes if node is not leader]


def killed(cluster: Cluster, chance: random.Random) -> float:
    leader, others = steady(cluster)
    time.sleep(chance.uniform(0, 0.1))  # anywhere between two heartbeats
    begun = time.monotonic()
    leader.kill()
    took = until_written(others, begun)
    leader.start()
    return took


def handed_over(cluster: Cluster, chance: random.Random) -> float:
    leader, others = steady(cluster)
    writer, waits, over = chance.choice(others), [], threading.Event()

    def keep_writing() -> None:
        while not over.is_set():
            begun = time.monotonic()
            while not write(writer, GIVE_UP_S):
                time.sleep(0.005)
            waits.append((time.monotonic() - begun) * 1000)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    time.sleep(chance.uniform(0.1, 0.3))
    leader.stop()
    time.sleep(0.3)
    over.set()
    thread.join()
    leader.start()
    return max(waits)


def healed(cluster: Cluster, switch: Switch, chance: random.Random) -> float:
    """The leader or a follower is cut off for a while, and the others go on writing."""
    steady(cluster)
    cut = chance.choice(cluster.nodes)
    rest = [node for node in cluster.nodes if node is not cut]
    switch.isolate(cut.name)
    until = time.monotonic() + chance.uniform(2.0, 6.0)
    until_written(rest, time.monotonic())
    while time.monotonic() < until:
        write(chance.choice(rest), GIVE_UP_S)
    switch.heal()
    begun = time.monotonic()
    cluster.wait_level()
    return (time.monotonic() - begun) * 1000


# --- etcd


class Etcd:
    """Three members with their defaults, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(6)
        self.clients, self.peers = ports[:3], ports[3:]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * 3
        for number in range(3):
            self.start(number)

    def start(self, number: int) -> None:
        client, peer = (f"http://127.0.0.1:{ports[number]}" for ports in (self.clients, self.peers))
        members = ",".join(f"m{one}=http://127.0.0.1:{port}" for one, port in enumerate(self.peers))
        command = ["etcd", "--name", f"m{number}", "--data-dir", str(self.folder / f"m{number}"), "--listen-client-urls", client,
                   "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                   "--initial-cluster", members, "--logger", "zap", "--log-level", "error"]  # fmt: skip
        self.processes[number] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, number: int, path: str, body: dict[str, Any], timeout_s: float) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.clients[number], timeout=timeout_s)
        try:
            connection.request("POST", path, json.dumps(body))
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def put(self, number: int) -> bool:
        """Asked again soon: a put that a member took while there was no leader is held until it fails, 7 s later."""
        word = base64.b64encode(b"x").decode()
        return self.ask(number, "/v3/kv/put", {"key": word, "value": word}, ETCD_ASK_S) is not None

    def leader(self) -> int | None:
        for number in range(3):
            status = self.ask(number, "/v3/maintenance/status", {}, 2.0)
            if status is not None and status.get("leader") == status["header"]["member_id"]:
                return number
        return None

    def killed(self) -> float:
        wait_for(lambda: all(self.put(number) for number in range(3)) and self.leader() is not None, 30, "etcd to serve")
        time.sleep(STEADY_S)
        leader = self.leader()
        assert leader is not None
        process = self.processes[leader]
        assert process is not None
        begun = time.monotonic()
        process.kill()
        process.wait()
        others = [number for number in range(3) if number != leader]
        while not any(self.put(number) for number in others):
            time.sleep(0.01)
        took = (time.monotonic() - begun) * 1000
        self.start(leader)
        return took

    def close(self) -> None:
        for process in self.processes:
            if process is not None:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


# --- the report


def repeat(name: str, count: int, once: Callable[[], float]) -> list[float]:
    times = []
    for number in range(count):
        times.append(once())
        print(f"\r  {name} {number + 1}/{count}: {times[-1]:8.1f} ms", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 50 + "\r", end="", file=sys.stderr)
    return times


def summary(times: list[float]) -> dict[str, Any]:
    times = sorted(times)
    at = lambda share: round(times[min(len(times) - 1, int(len(times) * share))], 1)  # noqa: E731
    return {"n": len(times), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": round(times[-1], 1), "times_ms": [round(one, 1) for one in times]}


def met(name: str, figures: dict[str, Any]) -> bool:
    middle, tail = GOALS_MS.get(name, (None, None))
    return (middle is None or figures["p50_ms"] <= middle) and (tail is None or figures["p99_ms"] <= tail)


def prepare(cluster: Cluster) -> None:
    cluster.push("bench", {"name": "idle", "command": "true"})


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    chance = random.Random(options.seed)
    found: dict[str, list[float]] = {}
    with Cluster(3) as cluster:
        prepare(cluster)
        if options.kills:
            found["killed"] = repeat("killed", options.kills, lambda: killed(cluster, chance))
        if options.hand_overs:
            found["handed_over"] = repeat("handed over", options.hand_overs, lambda: handed_over(cluster, chance))
    if options.heals and os.geteuid() == 0:
        with Switch(3) as switch:
            cluster = Cluster(3)
            switch.plug(cluster)
            with cluster:
                prepare(cluster)
                found["healed"] = repeat("healed", options.heals, lambda: healed(cluster, switch, chance))
    if options.etcd and shutil.which("etcd"):
        with tempfile.TemporaryDirectory(prefix="igor-etcd-") as folder:
            etcd = Etcd(Path(folder))
            try:
                found["etcd_killed"] = repeat("etcd killed", options.kills, etcd.killed)
            finally:
                etcd.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--hand-overs", type=int, default=50)
    parser.add_argument("--heals", type=int, default=30, help="partitions; none without root")
    parser.add_argument("--etcd", action="store_true", help="the same kills for three members of etcd, where it is installed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("out/failover.json"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is cleaned up
    figures = {name: summary(times) for name, times in measure(options).items()}
    found = {
        "question": "how long a cluster of three takes no writes",
        "parameters": {"kills": options.kills, "hand_overs": options.hand_overs, "heals": options.heals, "seed": options.seed},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release()},
        "versions": {name: version(name) for name in ("igor-node", "pysyncobj")},
        "figures": figures,
        "goals_ms": {name: {"p50": middle, "p99": tail} for name, (middle, tail) in GOALS_MS.items()},
        "goals_met": all(met(name, one) for name, one in figures.items()),
    }
    print(f"  {'':<14}{'n':>5}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for name, one in figures.items():
        verdict = "" if met(name, one) else "  goal missed"
        print(f"  {name.replace('_', ' '):<14}{one['n']:>5}{one['p50_ms']:>10}{one['p99_ms']:>10}{one['max_ms']:>10}{verdict}")
    return written(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
