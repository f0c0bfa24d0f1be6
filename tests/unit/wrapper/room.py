"""A folder for attempts and a real pre-loaded process on it: what the tests of `wrapper` and `igor_node.agent` work in.

Leaves nothing behind: whatever works inside the folder, or has the cookie of one of its attempts, is ended by its pid.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import wrapper
from wrapper import linux, protocol

T = TypeVar("T")
SECOND = 1_000_000_000
MILLISECOND = 1_000_000
PACKAGES = Path(wrapper.__file__).parent.parent
START = "import sys; sys.path.append(sys.argv.pop(2)); from wrapper.zygote import main; main()"


def wait_for(condition: Callable[[], T], what: str, timeout_s: float = 15.0) -> T:
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(0.005)
    return answer


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Room:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / protocol.OPEN).mkdir(parents=True)
        self.boot_id = protocol.read_boot_id()
        self.clock_ns = time.time_ns() - protocol.boot_ns()
        self.names: list[str] = []
        self.zygote: subprocess.Popen[bytes] | None = None
        self.ear = -1
        self.node_up()

    # --- the node, as far as a wrapper notices it: it holds the pipe open

    def node_up(self) -> None:
        path = self.root / protocol.WAKE
        if not path.exists():
            os.mkfifo(path)
        self.ear = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def node_down(self) -> None:
        os.close(self.ear)
        self.ear = -1

    # --- the pre-loaded process

    def start_zygote(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.zygote = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", START, str(theirs.fileno()), str(PACKAGES)],
            cwd=self.root, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, env={},
        )  # fmt: skip
        theirs.close()
        ours.settimeout(15)
        self.control = ours

    def kill_zygote(self) -> None:
        assert self.zygote is not None
        self.zygote.kill()
        self.zygote.wait()
        self.control.close()
        self.zygote = None

    # --- attempts

    def spec(self, attempt: str, command: list[str] | str, **changes: Any) -> dict[str, Any]:
        now = protocol.boot_ns()
        retries = {"max": 0, "initial_ns": 10 * MILLISECOND, "factor": 2.0, "max_ns": SECOND, "jitter": 0.0, "on": None}
        spec = {
            "attempt": attempt,
            "command": ["/bin/sh", "-c", command] if isinstance(command, str) else command,
            "env": {"PATH": os.defpath + ":/usr/sbin:/sbin", "IGOR_ATTEMPT_ID": attempt},
            "workdir": None, "umask": None, "due_at": 0, "clock_ns": self.clock_ns, "boot_id": self.boot_id,
            "lease_ns": 180 * SECOND, "lease_from_boot_ns": now, "on_node_loss": "rerun",
            "retries": retries | changes.pop("retries", {}),
            "timeout_ns": None, "total_timeout_ns": None, "grace_ns": 10 * SECOND,
            "success_codes": [0], "retry_codes": None, "skip_codes": [], "log_limit_bytes": 100 * 1024 * 1024,
            "renew_token": "secret", "renew_addresses": [], "authorities": "", "user": None, "secrets": {},
        }  # fmt: skip
        assert set(spec) == set(protocol.SPEC_FIELDS), "the tests know every field"
        return spec | changes

    def make(self, command: list[str] | str, name: str | None = None, **changes: Any) -> str:
        attempt = name or f"run{len(self.names)}-{os.getpid()}.main.1"
        self.names.append(attempt)
        folder = self.folder(attempt)
        folder.mkdir()
        protocol.write_whole(str(folder / protocol.SPEC), json.dumps(self.spec(attempt, command, **changes)).encode())
        return attempt

    def launch(self, attempt: str) -> None:
        self.control.send(attempt.encode())

    def start(self, command: list[str] | str, **changes: Any) -> str:
        attempt = self.make(command, **changes)
        self.launch(attempt)
        return attempt

    def run(self, command: list[str] | str, **changes: Any) -> list[dict[str, Any]]:
        """Start, wait for the end, return the events."""
        return self.finish(self.start(command, **changes))

    def finish(self, attempt: str, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        return wait_for(lambda: self.ended(attempt), f"the end of {attempt}: {self.events(attempt)}", timeout_s)

    def ended(self, attempt: str) -> list[dict[str, Any]]:
        events = self.events(attempt)
        return events if events and events[-1]["kind"] in protocol.LAST_KINDS else []

    def folder(self, attempt: str) -> Path:
        return self.root / protocol.OPEN / attempt

    def events(self, attempt: str) -> list[dict[str, Any]]:
        try:
            return protocol.parse_events((self.folder(attempt) / protocol.EVENTS).read_bytes())[0]
        except FileNotFoundError:
            return []

    def kinds(self, attempt: str) -> list[str]:
        return [event["kind"] for event in self.events(attempt)]

    def wait_kind(self, attempt: str, kind: str) -> list[dict[str, Any]]:
        return wait_for(lambda: self.events(attempt) if kind in self.kinds(attempt) else [], f"{kind} of {attempt}")

    def wait_file(self, attempt: str, name: str) -> str:
        """The first line of a file that the command writes into its scratch folder's parent."""
        path = self.folder(attempt) / name
        return wait_for(lambda: path.read_text() if path.exists() and path.read_text().endswith("\n") else "", str(path)).strip()

    def wrapper_pid(self, attempt: str) -> int:
        return wait_for(lambda: protocol.lock_holder(str(self.folder(attempt) / protocol.LOCK)), f"a wrapper of {attempt}")

    def wait_free(self, attempt: str) -> None:
        wait_for(lambda: not protocol.lock_holder(str(self.folder(attempt) / protocol.LOCK)), f"the lock of {attempt}")

    def log(self, attempt: str, try_n: int = 1, offset: int = 0) -> list[tuple[str, bool, bytes]]:
        """(stream, whether the line was ended, bytes) of every stored line in the part that begins there."""
        data = (self.folder(attempt) / protocol.log_name(try_n, offset)).read_bytes()
        parsed = [protocol.parse_log_line(line) for line in data.split(b"\n")[:-1]]
        assert None not in parsed
        return [line[1:] for line in parsed if line is not None]

    def output(self, attempt: str, stream: str = "stdout", try_n: int = 1, offset: int = 0) -> bytes:
        return b"".join(text + b"\n" * ended for name, ended, text in self.log(attempt, try_n, offset) if name == stream)

    def ask(self, attempt: str, what: str, reason: str = "a person asked") -> None:
        protocol.write_whole(str(self.folder(attempt) / protocol.CONTROL), json.dumps({what: reason}).encode())
        if pid := protocol.lock_holder(str(self.folder(attempt) / protocol.LOCK)):
            os.kill(pid, signal.SIGUSR1)

    # --- the end

    def close(self) -> None:
        if self.ear >= 0:
            self.node_down()
        if self.zygote is not None:
            self.control.close()
            try:
                self.zygote.wait(5)
            except subprocess.TimeoutExpired:
                self.kill_zygote()
        deadline = time.monotonic() + 10
        while (left := self._mine()) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)

    def _mine(self) -> list[int]:
        inside = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    where = os.readlink(f"/proc/{name}/cwd")
                except OSError:
                    continue
                if where.startswith(str(self.root)):
                    inside.append(int(name))
        for attempt in self.names:
            inside += linux.processes_with(f"IGOR_ATTEMPT_ID={attempt}".encode())
        return [pid for pid in inside if alive(pid)]
