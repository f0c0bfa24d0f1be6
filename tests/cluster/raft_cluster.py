"""A cluster of real processes of `bench/raft_node.py`, for the tests of consensus: start, kill -9, start again, ask; all are gone at the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from igor_node.trust import certificates
from igor_node.trust.contexts import AUTHORITIES, CERTIFICATE
from igor_node.trust.contexts import KEY as OWN_KEY

ROOT = Path(__file__).resolve().parents[2]
KEY = "ab" * 32
ANSWER_S = 20.0


class Failed(Exception):
    """What the process answered instead of `ok`: `name` is the exception's."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer.get('error')}: {answer.get('text')}")
        self.name = answer.get("error")
        self.text = answer.get("text", "")
        self.leader = answer.get("leader")


class Process:
    """One life of one node."""

    def __init__(
        self, node: str, folder: Path, *, found: bool, key: str = KEY, listen: str = "127.0.0.1:0", ledger: bool = False, tls: bool = False
    ) -> None:
        self.node = node
        command = [sys.executable, str(ROOT / "bench" / "raft_node.py"), "--node", node, "--folder", str(folder), "--cluster", "test"]
        command += [
            "--key",
            key,
            "--listen",
            listen,
            "--no-pickle",
            *(["--found"] if found else []),
            *(["--ledger"] if ledger else []),
            *(["--tls"] if tls else []),
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.errors = (folder.parent / f"{node}.log").open("a+b")
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment)
        self._numbers = itertools.count()
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._first: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def first_line(self) -> dict[str, Any]:
        return self._first.get(timeout=ANSWER_S)

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for text in self.popen.stdout:
            line = json.loads(text)
            self._answers[line["id"]].put(line) if "id" in line else self._first.put(line)
        gone = {"error": "Gone", "text": f"{self.node} is gone", "failed": "gone"}
        self._first.put(gone)
        for waiting in list(self._answers.values()):
            waiting.put(gone)

    def send(self, do: str, **what: Any) -> queue.SimpleQueue[dict[str, Any]]:
        number = next(self._numbers)
        answer = self._answers[number] = queue.SimpleQueue()
        try:
            with self._lock:
                assert self.popen.stdin is not None
                self.popen.stdin.write(json.dumps({"id": number, "do": do, **what}) + "\n")
                self.popen.stdin.flush()
        except (BrokenPipeError, ValueError):
            answer.put({"error": "Gone", "text": f"{self.node} is gone"})
        return answer

    def ask(self, do: str, **what: Any) -> Any:
        answer = self.send(do, **what).get(timeout=ANSWER_S)
        if "error" in answer:
            raise Failed(answer)
        return answer["ok"]

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(ANSWER_S)
        for pipe in (self.popen.stdin, self.popen.stdout, self.errors):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]


class Cluster:
    def __init__(self, folder: Path, *, ledger: bool = False, tls: bool = False) -> None:
        self.folder = folder
        self.authority = certificates.found_authority("test", int(time.time())) if tls else None
        self.ledger = ledger
        self.processes: dict[str, Process] = {}
        self.addresses: dict[str, str] = {}

    def start(self, node: str, *, found: bool = False, **options: Any) -> Process:
        """A later life listens where the first did, unless told otherwise."""
        options = {"listen": self.addresses.get(node, "127.0.0.1:0"), "ledger": self.ledger, "tls": self.authority is not None, **options}
        self._certify(node)
        process = self.processes[node] = Process(node, self.folder / node, found=found, **options)
        return process

    def _certify(self, node: str) -> None:
        """Each node its own certificate, in the files that `trust/contexts.py` reads."""
        folder = self.folder / node
        if self.authority is None or (folder / CERTIFICATE).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        key = certificates.new_key()
        request = certificates.ask(key, node, ("127.0.0.1",))
        made = certificates.certify(self.authority, request, node=node, cluster="test", now_s=int(time.time()))
        (folder / OWN_KEY).write_text(key)
        (folder / AUTHORITIES).write_text(self.authority.certificates)
        (folder / CERTIFICATE).write_text(certificates.chain(made, [self.authority.certificates]))

    def wait_ready(self, *nodes: str) -> None:
        for node in nodes:
            line = self.processes[node].first_line()
            assert "address" in line, (line, self.log(node))
            self.addresses[node] = line["address"]

    def log(self, node: str) -> str:
        return (self.folder / f"{node}.log").read_text()[-3000:]

    def three(self) -> None:
        """a founds, b and c join as learners and become voters."""
        self.start("a", found=True)
        self.start("b")
        self.start("c")
        self.wait_ready("a", "b", "c")
        wait_for(lambda: self.status("a")["terms"], "a leads its cluster of one")
        for node in "bc":
            self.processes["a"].ask("add_learner", node=node, address=self.addresses[node])
        for node in "bc":
            self.processes["a"].ask("add_voter", node=node)

    def status(self, node: str) -> dict[str, Any]:
        return self.processes[node].ask("status")

    def leader(self, among: str) -> str | None:
        """The node that leads with a lease and has applied its term's first entry."""
        for node in among:
            status = self.status(node)
            if status["is_leader"] and status["terms"] and status["terms"][-1] == status["term"]:
                return node
        return None

    def wait_leader(self, among: str) -> str:
        return wait_for(lambda: self.leader(among), f"one of {among} leads")

    def kill(self, *nodes: str) -> None:
        for node in nodes:
            self.processes[node].popen.send_signal(signal.SIGKILL)
        for node in nodes:
            self.processes.pop(node).kill()

    def rows(self, node: str) -> list[str]:
        return self.processes[node].ask("rows")

    def agree(self, nodes: str) -> list[str]:
        """Waits until all hold the same rows, up to the same index."""
        return wait_for(lambda: self._same(nodes), f"{nodes} agree", timeout_s=30)

    def _same(self, nodes: str) -> list[str] | None:
        indexes = {self.status(node)["applied_index"] for node in nodes} | {self.status(node)["last_index"] for node in nodes}
        if len(indexes) != 1:
            return None
        found = [self.rows(node) for node in nodes]
        return found[0] if all(rows == found[0] for rows in found) else None

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> Any:
    until = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < until, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def cluster_in(folder: Path, *, ledger: bool = False, tls: bool = False) -> Iterator[Cluster]:
    cluster = Cluster(folder, ledger=ledger, tls=tls)
    try:
        yield cluster
    finally:
        cluster.end()
