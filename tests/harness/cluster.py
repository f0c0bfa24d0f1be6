"""A real cluster on this machine: real `igor-node` processes on loopback, ports chosen by the OS, everything gone at the end.

Used by the cluster tests, the browser tests, `make demo`, `make demo-check` and the benchmarks. A `Node` is one data directory and at most one
running process; a `Cluster` is the nodes together, with a client for the API (`api`) and the command line (`igor`). Ending is thorough: whatever
belongs to a node (its pre-loaded process, its wrappers, their commands) is killed when the cluster closes, also after a failure.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.harness.processes import MARK, end_machine, wait_for

START_TIMEOUT_S = 30.0


class ApiError(Exception):
    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status
        self.problem = problem


class Node:
    """`environment`, `prefix` (a program that runs the node: `ip netns exec NAME`), `listen` and `reach` (how a client's connection is opened) are
    for harnesses that put a node on a machine of its own; they count from the next start."""

    def __init__(self, cluster: Cluster, name: str, options: Sequence[str] = ()) -> None:
        self.cluster = cluster
        self.name = name
        self.options = tuple(options)
        self.environment: dict[str, str] = {}
        self.prefix: tuple[str, ...] = ()
        self.listen = "127.0.0.1:0"
        self.reach: Callable[[http.client.HTTPConnection], None] = lambda connection: connection.connect()
        self.folder = cluster.folder / name
        self.mark = f"{cluster.mark}-{name}"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = cluster.folder / f"{name}.log"

    def start(self, *, join: Node | None = None, wait: bool = True, arguments: Sequence[str] = ()) -> Node:
        """Founds (an empty folder), joins, or goes on: whatever fits the folder; or exactly what `arguments` say."""
        program = [sys.executable, "-m", "igor_node.cli.node"]
        command = list(program)
        if join is not None and not (self.folder / "node.json").exists():
            command += ["join", join.address, "--token-file", str(join.folder / "join.token")]
        else:
            command += ["start"]
        if not (self.folder / "node.json").exists():
            command += ["--listen", self.listen, "--name", self.name, *self.options]
        command += ["--data-dir", str(self.folder)]
        command = [*self.prefix, *(program + list(arguments) if arguments else command), "--log-format", "json"]
        (self.folder / "address").unlink(missing_ok=True)
        environment = {**self.cluster.environment, **self.environment, MARK: self.mark}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        if wait:
            self.wait_up()
        return self

    def wait_up(self) -> None:
        def up() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
            return (self.folder / "address").exists() and self.healthy()

        wait_for(up, START_TIMEOUT_S, f"{self.name} to serve")

    def healthy(self) -> bool:
        try:
            return self.request("GET", "/healthz", token=None)[0] == 200
        except OSError:
            return False

    @property
    def address(self) -> str:
        return (self.folder / "address").read_text().strip()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL to the node's process alone; its wrappers and their commands go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 20) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def program(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """`igor-node` with these arguments, to its end."""
        command = [*self.prefix, sys.executable, "-m", "igor_node.cli.node", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=self.cluster.environment)

    def end_machine(self) -> None:
        """Everything of this node dies at once: node, pre-loaded process, wrappers, commands."""
        end_machines([self])

    def request(
        self, method: str, path: str, body: Any = None, *, token: str | None = "", headers: dict[str, str] | None = None, timeout_s: float = 10
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and decoded body of one request to this node alone. Raises OSError where it does not answer."""
        where = urlsplit(self.address)
        connection = self.connection(where.hostname or "", where.port, timeout_s)
        send = dict(headers or {})
        if token is not None:
            send["Authorization"] = f"Bearer {token or self.cluster.token}"
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            send.setdefault("Content-Type", "application/json")
        try:
            self.reach(connection)
            connection.request(method, path, data, send)
            answer = connection.getresponse()
            raw = answer.read()
        except http.client.HTTPException as problem:
            raise ConnectionError(str(problem)) from problem
        finally:
            connection.close()
        got = {name.lower(): value for name, value in answer.getheaders()}
        decoded = json.loads(raw) if "json" in got.get("content-type", "") and "ndjson" not in got.get("content-type", "") and raw else raw
        return answer.status, got, decoded

    def connection(self, host: str, port: int | None, timeout_s: float) -> http.client.HTTPConnection:
        """In a cluster with TLS one that believes the node's own `ca.crt`."""
        if not (self.folder / "ca.crt").exists():
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))  # with the host's name: browsers look at it too
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


class Cluster:
    """`with Cluster(3) as cluster:` gives a cluster in service; `folder` keeps data and logs (a temporary one unless given)."""

    def __init__(
        self, size: int = 3, *, folder: Path | None = None, options: Sequence[Sequence[str]] = (), environment: dict[str, str] | None = None
    ):
        self.mark = uuid.uuid4().hex
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="igor-cluster-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {**{k: v for k, v in os.environ.items() if not k.startswith("IGOR_")}, **(environment or {})}
        own = list(options) + [()] * size
        self.nodes = [Node(self, f"n{number + 1}", own[number]) for number in range(size)]
        self._last = 0

    def __enter__(self) -> Cluster:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            for node in self.nodes:
                print(f"--- last lines of {node.name}\n{node.tail(25)}", file=sys.stderr)
        self.close()

    def start(self) -> Cluster:
        founder, *others = self.nodes
        founder.start()
        for node in others:
            node.start(join=founder, wait=False)
        for node in others:
            node.wait_up()
        self.wait_voters()
        return self

    def close(self) -> None:
        end_machines(self.nodes)
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- asking

    @property
    def token(self) -> str:
        return (self.nodes[0].folder / "admin.token").read_text().strip()

    def api(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, timeout_s: float = 20) -> Any:
        """The body of the first node's answer that is not a 503. What was once seen is seen by every later call. Raises ApiError for 4xx and 5xx."""
        end = time.monotonic() + timeout_s
        while True:
            for node in self.nodes:
                if not node.running:
                    continue
                send = {**(headers or {}), **({"Igor-Index": str(self._last)} if method == "GET" and self._last else {})}
                try:
                    status, got, answer = node.request(method, path, body, headers=send)
                except OSError:
                    continue
                if status == 503 and time.monotonic() < end:
                    continue
                if got.get("igor-index", "").isdigit():
                    self._last = max(self._last, int(got["igor-index"]))
                if status >= 400:
                    raise ApiError(status, answer)
                return answer
            if time.monotonic() > end:
                raise AssertionError(f"no node answered {method} {path} within {timeout_s:.0f} s")
            time.sleep(0.1)

    def igor(self, *arguments: str, timeout_s: float = 60, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The command line with all nodes' addresses and the admin token."""
        addresses = ",".join(node.address for node in self.nodes if (node.folder / "address").exists())
        return subprocess.run(
            [*self.nodes[0].prefix, sys.executable, "-m", "igor_node.cli.igor", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**self.environment, "IGOR_NODE": addresses, "IGOR_TOKEN": self.token, **(env or {})},
        )

    def push(self, project: str, *jobs: dict[str, Any]) -> Any:
        """Pushes jobs given as plain objects (kind and apiVersion are put in), whatever version is there."""
        objects = [{"apiVersion": "igor/v1", "kind": "Job", **job} for job in jobs]
        try:
            version = self.api("GET", f"/v1/projects/{project}")["version"]
            condition = {"If-Match": f'"{version}"'}
        except ApiError as problem:
            if problem.status != 404:
                raise
            condition = {"If-None-Match": "*"}
        return self.api("PUT", f"/v1/projects/{project}", {"definitions": objects, "sources": {}, "artifact": None, "prune": True}, headers=condition)

    def status(self) -> Any:
        return self.api("GET", "/v1/cluster")

    def leader(self) -> Node:
        def known() -> Node | None:
            for node in self.nodes:
                if node.running:
                    try:
                        status, _, answer = node.request("GET", "/v1/cluster")
                    except OSError:
                        continue
                    if status == 200 and answer["leader"]:
                        found = next((n for n in self.nodes if n.name == answer["leader"]), None)
                        if found is not None and found.running:
                            return found
            return None

        return wait_for(known, 20, "a leader")

    def wait_voters(self, count: int | None = None, timeout_s: float = 40) -> None:
        wanted = min(count or len(self.nodes), 3)

        def enough() -> bool:
            try:
                seen = self.status()
            except (ApiError, AssertionError, OSError):
                return False
            up = [node for node in seen["nodes"] if node["state"] == "up"]
            return len(seen["voters"]) >= wanted and bool(seen["leader"]) and len(up) >= len(self.nodes)

        wait_for(enough, timeout_s, f"{wanted} voters")

    def wait_level(self, timeout_s: float = 30) -> None:
        """Every running node has applied what its own leader has committed, in the same term."""

        def level() -> bool:
            stands = self.stands()
            least = max((stand["commit_index"] for stand in stands), default=0)
            return len({(stand["term"], stand["leader"]) for stand in stands}) == 1 and all(stand["applied_index"] >= least for stand in stands)

        wait_for(level, timeout_s, "all nodes to be level", poll_s=0.02)

    def stands(self) -> list[Any]:
        """What every running node says of the cluster, each for itself; none where one of them does not answer just now."""
        try:
            answers = [node.request("GET", "/v1/cluster") for node in self.nodes if node.running]
        except OSError:
            return []
        return [answer for _, _, answer in answers] if all(status == 200 for status, _, _ in answers) else []

    def run(self, run: str) -> Any:
        return self.api("GET", f"/v1/runs/{run}")

    def wait_run(self, run: str, *states: str, timeout_s: float = 60) -> Any:
        """The run once it is in one of `states` (default: any end state)."""
        wanted = states or ("succeeded", "failed", "timed_out", "cancelled", "lost", "skipped", "missed")
        return wait_for(lambda: (lambda found: found if found["state"] in wanted else None)(self.run(run)), timeout_s, f"run {run} to be {wanted}")


def end_machines(nodes: Sequence[Node]) -> None:
    """Everything of all these nodes dies at one instant: the power goes."""
    end_machine(*((node.mark, node.folder) for node in nodes))
    for node in nodes:
        if node.process is not None:
            node.process.wait()


def stop_gently(nodes: Sequence[Node]) -> None:
    for node in nodes:
        if node.running:
            node.signal(signal.SIGTERM)
    for node in nodes:
        if node.process is not None:
            node.process.wait(20)
