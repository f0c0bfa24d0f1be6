"""The pre-loaded process: has one wrapper process for each attempt, in milliseconds, and knows nothing else.

A node starts it once (`igor_node/agent/launch.py`) with one end of a socket pair (SOCK_SEQPACKET) as a descriptor and ROOT as its working
directory. Each packet is the name of an attempt whose folder is ready. It answers only with what went wrong: `ATTEMPT fork ERROR` or
`ATTEMPT exit STATUS`. When the node is gone (end of file) it ends, without touching the wrappers that run something: they belong to nobody. When it
is killed the node starts another one.

With a packet may come a descriptor: what the attempt is given and nobody else may see (its secrets). It gets a process of its own.

A wrapper process runs one attempt at a time. Afterwards it waits a moment for another one: two thirds of a start's cost are the page faults of what
a new process touches for the first time. No guarantee is shared with it: whatever happens to one process still happens to one attempt.

A wrapper that is killed loses its command (PDEATHSIG), but what the command had started would stay. This process is the next subreaper above, so such
orphans come here, and are ended.
"""

from __future__ import annotations

import _socket  # the core of `socket`, which itself loads what every wrapper would have to carry
import gc
import os
import select
import signal
import sys
import time
import traceback

from wrapper import linux, protocol, run

REQUEST_BYTES = 512  # a name has at most 255
IDLE_LIMIT = 64  # wrappers that wait for another attempt: about 3 MiB each; fewer than run at once would have some forked anew each time
IDLE_S = 2.0  # and how long they do
ATTEMPTS_A_PROCESS = 200  # then it ends: what a long life may leave in its memory goes with it
PID_BYTES = 4
FD_BYTES = 4


class Wrapper:
    """One wrapper process as seen from here. `attempt` empty: it waits since `idle_since`."""

    __slots__ = ("attempt", "idle_since", "orders")

    def __init__(self, attempt: str, orders: int) -> None:
        self.attempt, self.orders = attempt, orders
        self.idle_since = 0.0


class Zygote:
    def __init__(self, control: int) -> None:
        self.control = control
        self.channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, control)
        self.boot_id = protocol.read_boot_id()
        self.root = os.open(".", os.O_DIRECTORY | os.O_CLOEXEC)
        self.wrappers: dict[int, Wrapper] = {}
        self.idle: list[int] = []  # their pids; the last is the one whose memory is warmest
        self.reports, self.report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # a wrapper writes its pid when it has nothing to do
        self.signals, self.signal_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.signal_end, warn_on_full_buffer=False)

    def serve(self) -> None:
        linux.become_subreaper()
        linux.name_process("igor-zygote")
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a wrapper that is poked before it listens must not die of it
        gc.collect()
        gc.freeze()  # a collection in a wrapper would touch, and so copy, every page
        gc.disable()
        poll = select.poll()
        for fd in (self.control, self.reports, self.signals):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll(IDLE_S * 1000 if self.idle else None):
                if fd == self.reports:
                    self._note_idle()
                elif fd == self.signals:
                    os.read(self.signals, 4096)
                    self._reap()
                elif not self._request():
                    return
            self._end_idle()

    def _request(self) -> bool:
        """False when the node is gone."""
        try:
            data, beside, _, _ = self.channel.recvmsg(REQUEST_BYTES, _socket.CMSG_LEN(FD_BYTES), _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        name, given = data.decode(), int.from_bytes(beside[0][2][:FD_BYTES], sys.byteorder) if beside else -1
        if name and (given >= 0 or not self._hand_to_idle(name)):
            self._fork(name, given)
        if given >= 0:
            os.close(given)
        return bool(name)

    # --- wrappers that wait

    def _note_idle(self) -> None:
        data = os.read(self.reports, 1024 * PID_BYTES)
        for start in range(0, len(data), PID_BYTES):
            pid = int.from_bytes(data[start : start + PID_BYTES], "little")
            if pid in self.wrappers:
                self.wrappers[pid].attempt, self.wrappers[pid].idle_since = "", time.monotonic()
                self.idle.append(pid)

    def _hand_to_idle(self, name: str) -> bool:
        while self.idle:
            wrapper = self.wrappers[self.idle.pop()]
            try:
                os.write(wrapper.orders, name.encode())
            except OSError:
                continue  # killed while it waited; it is about to be reaped
            wrapper.attempt = name
            return True
        return False

    def _end_idle(self) -> None:
        now = time.monotonic()
        while self.idle and (len(self.idle) > IDLE_LIMIT or now - self.wrappers[self.idle[0]].idle_since > IDLE_S):
            self._close_orders(self.wrappers[self.idle.pop(0)])

    def _close_orders(self, wrapper: Wrapper) -> None:
        if wrapper.orders >= 0:
            os.close(wrapper.orders)
            wrapper.orders = -1

    # --- new ones

    def _fork(self, name: str, given: int) -> None:
        read_end = write_end = -1
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            pid = os.fork()
        except OSError as problem:
            self._answer(f"{name} fork {problem.strerror}")
            for fd in (read_end, write_end):
                if fd >= 0:
                    os.close(fd)
            return
        if pid == 0:
            os.close(write_end)
            self._child(name, read_end, given)
        os.close(read_end)
        self.wrappers[pid] = Wrapper(name, write_end)

    def _child(self, name: str, orders: int, given: int) -> None:
        """Never returns. `given`: a descriptor for this attempt alone, or -1; whoever had one runs no other attempt, for its memory holds it."""
        status = 1
        try:
            os.setsid()
            linux.become_subreaper()
            linux.name_process("igor-wrapper")
            signal.set_wakeup_fd(-1)
            for fd in (self.control, self.signals, self.signal_end, self.reports):
                os.close(fd)
            for other in self.wrappers.values():
                self._close_orders(other)  # or they would not notice the end of the pre-loaded process
            me = os.getpid().to_bytes(PID_BYTES, "little")
            for _ in range(ATTEMPTS_A_PROCESS):
                if not name or not run.main(name, self.boot_id, given) or given >= 0:
                    break
                os.fchdir(self.root)
                os.write(self.report, me)
                name = os.read(orders, REQUEST_BYTES).decode()
            status = 0
        except BrokenPipeError:
            status = 0  # the pre-loaded process is gone: there is nobody to tell, and no next attempt
        except BaseException:
            sys.stderr.write(f"wrapper of {name}:\n{traceback.format_exc()}")
            sys.stderr.flush()
        finally:
            os._exit(status)

    # --- what has ended

    def _reap(self) -> None:
        orphans = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            wrapper = self.wrappers.pop(pid, None)
            if wrapper is None:
                orphans = True  # one of them has ended, and may have handed over its own
                continue
            self._close_orders(wrapper)
            if pid in self.idle:
                self.idle.remove(pid)
            if status != 0 and wrapper.attempt:
                orphans = True
                self._answer(f"{wrapper.attempt} exit {os.waitstatus_to_exitcode(status)}")
        if orphans:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """A dead wrapper's processes became children of this one; each that is ended hands over its own. SIGCHLD brings us back for the rest."""
        for pid in linux.children(os.getpid()):
            if pid not in self.wrappers:
                for below in [pid, *linux.descendants(pid)]:
                    try:
                        os.kill(below, signal.SIGKILL)
                    except (ProcessLookupError, PermissionError):
                        pass  # ended meanwhile

    def _answer(self, text: str) -> None:
        try:
            os.write(self.control, text.encode()[:REQUEST_BYTES])
        except OSError:
            pass  # the node is gone or does not read: it looks at the folders anyway


def main() -> None:
    """`python -I -S -c … DESCRIPTOR`; the working directory is ROOT."""
    Zygote(int(sys.argv[1])).serve()
