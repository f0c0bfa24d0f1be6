"""The pre-loaded process from the node's side: start it, ask it for wrappers, start another one when it dies.

It outlives nothing: when this node ends it ends too, and the wrappers go on. What it says about wrappers that failed is passed on as a name; the
truth about an attempt is in its folder, and a request that was lost or came twice is harmless (`wrapper/protocol.py`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

import wrapper
from wrapper.zygote import REQUEST_BYTES

WAIT_FOR_END_S = 2.0  # after its end of the socket was closed
RESTART_PAUSE_S = 0.5  # between two starts, when it dies at once
LOG_LIMIT_BYTES = 1024 * 1024  # of `wrappers.log`: tracebacks of wrappers, which ought to be none
_START = "import sys; sys.path.append(sys.argv.pop(2)); from wrapper.zygote import main; main()"

log = structlog.get_logger("agent.launch")


class Launcher:
    """`on_trouble(attempt, what)`: its wrapper could not be forked or ended with an error."""

    def __init__(self, root: Path, on_trouble: Callable[[str, str], None]) -> None:
        self._root = root
        self._on_trouble = on_trouble
        self._requests: deque[tuple[str, int]] = deque()  # with a descriptor, or -1
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(self._log_path(), "ab") as errors:
            self._process = subprocess.Popen(
                # Isolated and without `site`: it needs the standard library alone, and what it does not load no wrapper has to carry.
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, str(theirs.fileno()), str(Path(wrapper.__file__).parent.parent)],
                cwd=self._root,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,  # not this node's: whoever reads that would wait for the last wrapper's end
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self.starts += 1
        asyncio.get_running_loop().add_reader(ours, self._receive)
        self._send()

    def _log_path(self) -> Path:
        path = self._root / "wrappers.log"
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.rename(path.with_suffix(".log.1"))
        return path

    def request(self, attempt: str, given: bytes | None = None) -> None:
        """`given`: what nobody else may see; it comes to the wrapper as a file in memory that has no name."""
        self._requests.append((attempt, -1 if given is None else _in_memory(given)))
        if len(self._requests) == 1:
            self._send()

    def _send(self) -> None:
        if self._socket is None:
            return  # the next one gets them
        loop = asyncio.get_running_loop()
        while self._requests:
            attempt, descriptor = self._requests[0]
            try:
                if descriptor >= 0:
                    socket.send_fds(self._socket, [attempt.encode()], [descriptor])
                else:
                    self._socket.send(attempt.encode())
            except BlockingIOError:
                loop.add_writer(self._socket, self._send)
                return
            except OSError:
                return  # it has died; `_receive` sees the end of file
            self._requests.popleft()
            if descriptor >= 0:
                os.close(descriptor)
        loop.remove_writer(self._socket)

    def _receive(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(REQUEST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._died()
                return
            attempt, _, what = data.decode(errors="replace").partition(" ")
            self._on_trouble(attempt, what)

    def _died(self) -> None:
        code = self._close()
        log.warning("the pre-loaded process ended; another one is started", exit_code=code)
        self._restart = asyncio.get_running_loop().call_later(RESTART_PAUSE_S, self._start_again)

    def _start_again(self) -> None:
        try:
            self.start()
        except OSError as problem:  # no process or descriptor to be had just now; what runs goes on
            log.error("the pre-loaded process cannot be started; trying again", reason=str(problem))
            self._close()
            self._restart = asyncio.get_running_loop().call_later(RESTART_PAUSE_S, self._start_again)

    def _close(self) -> int | None:
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            return process.wait(WAIT_FOR_END_S)  # it has closed its end, so this takes no time
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def close(self) -> None:
        for _, descriptor in self._requests:
            if descriptor >= 0:
                os.close(descriptor)
        self._requests.clear()
        if self._restart is not None:
            self._restart.cancel()
        self._close()


def _in_memory(data: bytes) -> int:
    descriptor = os.memfd_create("igor", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
