"""What a wrapper waits for: output of the command, a signal, a time, the lease's next look, the answer of the child that asks the voters.

`turn` waits for the next of these and deals with it, whatever the attempt is at: before the due time, beside the command, between two tries. So no
output, full disk or open pipe holds up a lease, and no lease holds up output.
"""

from __future__ import annotations

import os
import select
import signal

from wrapper import linux, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrapper.lease import LeaseWatch
    from wrapper.output import Log

READ_BYTES = 1 << 16  # the size of a pipe
READS_A_TURN = 16  # of one pipe, so that one loud stream does not hold up a time-out


class Waiting:
    def __init__(self, lease: LeaseWatch) -> None:
        self.lease = lease
        self.poll = select.poll()
        self.timer = linux.make_timer()
        self.signals = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.poll.register(self.timer, select.POLLIN)
        self.poll.register(self.signals[0], select.POLLIN)
        self.watched_asker = -1
        self.pipes: dict[int, tuple[bytes, Log]] = {}  # read end -> stream letter, and where it goes
        signal.set_wakeup_fd(self.signals[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes `poll`

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for fd in (self.timer, *self.signals, self.lease.asker_fd):
            if fd >= 0:
                os.close(fd)

    def turn(self, until: int | None) -> None:
        """Wait for the next thing, `until` at the longest (on CLOCK_BOOTTIME). Then deal with what came."""
        look = self.lease.next_look()
        linux.set_timer(self.timer, look if until is None else min(until, look))
        for fd, _ in self.poll.poll():
            if fd in self.pipes:
                self._read(fd)
            elif fd == self.watched_asker:
                if self.lease.answered(protocol.boot_ns()):
                    self.poll.unregister(fd)
                    self.watched_asker = -1
            else:
                try:
                    os.read(fd, 512)
                except BlockingIOError:
                    pass
        self.lease.tend(protocol.boot_ns())
        if self.watched_asker < 0 <= self.lease.asker_fd:
            self.watched_asker = self.lease.asker_fd
            self.poll.register(self.watched_asker, select.POLLIN)

    # --- output

    def listen(self, fd: int, stream: bytes, log: Log) -> None:
        """What comes out of this pipe goes to the log, until its end or `close_pipes`."""
        os.set_blocking(fd, False)
        self.pipes[fd] = stream, log
        self.poll.register(fd, select.POLLIN)

    def drain(self) -> None:
        """What is in the pipes now; bounded, since a process that is not ours may hold the other end."""
        for fd in list(self.pipes):
            for _ in range(READS_A_TURN):
                if not self._read(fd):
                    break

    def close_pipes(self) -> None:
        for fd in list(self.pipes):
            self._close_pipe(fd)

    def _read(self, fd: int) -> bool:
        """Whether there may be more."""
        stream, log = self.pipes[fd]
        for _ in range(READS_A_TURN):
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return False
            if not data:
                self._close_pipe(fd)
                return False
            log.write(stream, data, self.lease.leader_now())
            if len(data) < READ_BYTES:
                return True
        return True

    def _close_pipe(self, fd: int) -> None:
        self.poll.unregister(fd)
        del self.pipes[fd]
        os.close(fd)
