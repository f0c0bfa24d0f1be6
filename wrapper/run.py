"""One attempt, from its due time to its end: the life of a wrapper.

The pre-loaded process has one of these processes for each attempt and calls `main` in it. It takes the folder's lock and goes on from what the
event file says: usually nothing, so it waits for the due time and starts the command; or a try that began and never ended, because a wrapper before
it was killed: that try is lost and `retries` decides about a next. What it promises (SEMANTICS, "The wrapper", "What Igor promises" 2):

* "try n begins" is on disk before the fork, so no try number starts twice, through any crash;
* the lease is looked at before every start and after that sync, and under `rerun` its end ends the command: KILL, at once;
* the command dies with the wrapper (PDEATHSIG), and nothing below it outlives its try: orphans come to the wrapper (subreaper) and are ended;
* one end, on disk, after everything else; then the lock goes with the process.

It never asks the node for anything, waits for nobody, and no output, full disk or open pipe makes it hang.
"""

from __future__ import annotations

import os
import select
import signal
import time

from wrapper import linux, protocol, retry
from wrapper.lease import LeaseWatch
from wrapper.output import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_BYTES = 1 << 16  # the size of a pipe
READS_A_TURN = 16  # of one pipe, so that one loud stream does not hold up a time-out
LINGER_NS = 1_000_000_000  # what the command left behind may end by itself (a `tee` at the end of a pipe) before it is told to
LEFTOVER_GRACE_NS = 2_000_000_000  # between TERM and KILL for it, if the job's own grace is not shorter
KILL_LIMIT_NS = 5_000_000_000  # a process that a KILL has not ended by then hangs in the kernel and is reported
KILL_PAUSE_S = 0.002
DISK_PAUSE_S = 0.5  # between tries to write an event on a full disk
FILES = ("output", "state", "summary", "progress", "metrics")  # $IGOR_OUTPUT and so on


class Outcome:
    """How a try ended."""

    __slots__ = ("cpu_ns", "duration_ns", "exit_code", "max_rss_bytes", "reason", "signal", "state")

    def __init__(self, state: str, reason: str = "", exit_code: int | None = None, signal: int | None = None) -> None:
        self.state, self.reason, self.exit_code, self.signal = state, reason, exit_code, signal
        self.max_rss_bytes = self.cpu_ns = self.duration_ns = 0

    def event(self, kind: str, at: int) -> dict[str, Any]:
        event: dict[str, Any] = {"kind": kind, "at": at, "state": self.state}
        if self.exit_code is not None:
            event["exit_code"] = self.exit_code
        if self.signal is not None:
            event["signal"] = self.signal
        if self.reason:
            event["reason"] = self.reason
        return event


def main(attempt: str, boot_id: str) -> bool:
    """In a process of the pre-loaded one's making, whose working directory is ROOT. Returns whether this process may run another attempt."""
    try:
        os.chdir(f"{protocol.OPEN}/{attempt}")
    except FileNotFoundError:
        return True  # asked for twice, and the first wrapper's end is acknowledged and put away already
    lock = os.open(protocol.LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        if not protocol.take_lock(lock):
            return True
        events = protocol.EventFile()
        try:
            return _live(attempt, boot_id, events)
        finally:
            events.close()
    finally:
        os.close(lock)  # lets it go


def _live(attempt: str, boot_id: str, events: protocol.EventFile) -> bool:
    spec = protocol.load_json(protocol.SPEC)
    if events.finished:
        return True
    if spec is None:
        _without_spec(events)
        _tell(attempt, events.size)
        return True
    wrapper = Wrapper(attempt, spec, events, boot_id)
    wrapper.live()
    wrapper.stand_by()
    wrapper.close()
    return _has_no_child()


def _has_no_child() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False  # something that not even KILL ended: it stays with a wrapper of its own


def _without_spec(events: protocol.EventFile) -> None:
    """A power cut took the spec. If a try had begun its end is known: the machine's. If not, the node makes the folder anew."""
    if events.events:
        outcome = Outcome("lost", "the machine lost power")
        events.append(outcome.event("ended", time.time_ns()), sync=True)


def _tell(attempt: str, size: int) -> bool:
    """Wake the node; whether there is one. A pipe and not a datagram socket: those hold ten messages by default, this one hundreds."""
    try:
        fd = os.open(f"../../{protocol.WAKE}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # nobody has it open: the node is down, and reads the file when it is back
    try:
        os.write(fd, b"%b %d\n" % (attempt.encode(), size))
    except OSError:
        pass  # the node is busy: it looks at all files every now and then
    finally:
        os.close(fd)
    return True


class Wrapper:
    def __init__(self, attempt: str, spec: dict[str, Any], events: protocol.EventFile, boot_id: str) -> None:
        self.attempt, self.spec, self.events = attempt, spec, events
        self.pid = os.getpid()
        self.lease = LeaseWatch(spec, boot_id, f"../../{protocol.LEASE}", self.pid)
        self.other_boot = spec["boot_id"] != boot_id
        self.poll = select.poll()
        self.timer = linux.make_timer()
        self.poll.register(self.timer, select.POLLIN)
        self.watched_asker = -1
        self.pipes: dict[int, bytes] = {}  # read end -> stream letter
        self.log: Log | None = None
        self.cancelled = ""  # why the attempt shall end
        self.revoked = ""  # why it shall not start
        self.control_changed = True
        self.command_pid = 0
        self.status: int | None = None
        self.alone = True  # no child is left
        self.max_rss_bytes = self.cpu_ns = 0
        self.unwritten: list[dict[str, Any]] = []  # events that are written together with the next
        self._catch_signals()

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for fd in (self.timer, *self.signals, self.lease.asker_fd):
            if fd >= 0:
                os.close(fd)

    def _catch_signals(self) -> None:
        self.signals = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.poll.register(self.signals[0], select.POLLIN)
        signal.set_wakeup_fd(self.signals[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGUSR1, self._on_poke)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes `poll`

    def _on_term(self, *_: object) -> None:
        self.cancelled = self.cancelled or "the wrapper was told to end"

    def _on_poke(self, *_: object) -> None:
        self.control_changed = True

    # --- the story

    def live(self) -> None:
        try_n, last = self._history()
        if try_n == 0:
            if not self._hold():
                return
        elif not self._go_on(try_n, last or self._lost_try(), recorded=last is not None):
            return
        while True:
            try_n += 1
            if not self._go_on(try_n, self._try(try_n), recorded=False):
                return

    def stand_by(self) -> None:
        """While the node is down, tell the leader itself how it ended: the job's next run may wait for that, and nobody shall rerun what has ended.

        Until that is done the lease is kept alive, as long as it can be.
        """
        begin = now = protocol.boot_ns()
        while not self.lease.delivered and not self._lease_over() and now - begin < STAND_BY_LIMIT_NS:
            if _tell(self.attempt, self.events.size):
                return  # the node is (back) there, and reads the file
            self.lease.deliver(self.events.events, now)
            self._turn(now + min(STAND_BY_LOOKS_NS[1], STAND_BY_LOOKS_NS[0] + (now - begin) // 8))
            self._reap()
            now = protocol.boot_ns()

    def _history(self) -> tuple[int, Outcome | None]:
        """The number of the last try that began, and how it ended, if it did."""
        try_n, outcome = 0, None
        for event in self.events.events:
            if event["kind"] == "try_started":
                try_n, outcome = event["try_n"], None
            elif event["kind"] == "try_ended":
                outcome = Outcome(event["state"], event.get("reason", ""), event.get("exit_code"), event.get("signal"))
        return try_n, outcome

    def _lost_try(self) -> Outcome:
        """The wrapper before this one was killed. Its command has died with it; what that had started may be left with the machine's init."""
        cookie = f"IGOR_ATTEMPT_ID={self.attempt}".encode()
        deadline = protocol.boot_ns() + KILL_LIMIT_NS
        while (left := linux.processes_with(cookie)) and protocol.boot_ns() < deadline:
            _signal_all(left, signal.SIGKILL)
            time.sleep(KILL_PAUSE_S)
        return Outcome("lost", "the machine restarted" if self.other_boot else "wrapper died")

    def _hold(self) -> bool:
        """Wait for the due time. False: it was revoked, or its lease ran out."""
        if not self.events.events:  # else a wrapper before this one has said so
            self.unwritten.append({"kind": "held", "at": self._at(), "pid": self.pid})
        while not self._asked_to_end() and not self._lease_over() and protocol.boot_ns() < (due := self._due_boot_ns()):
            if self.unwritten:
                self._record(sync=False)
            self._turn(due)
        if reason := self._asked_to_end():
            self._record({"kind": "revoked", "at": self._at(), "reason": reason}, sync=True)
            return False
        if self._lease_over():
            self._record(Outcome("lost", "its lease ran out before it could start").event("ended", self._at()), sync=True)
            return False
        return True

    def _go_on(self, try_n: int, outcome: Outcome, *, recorded: bool) -> bool:
        """After a try: record it, and wait for the next one if there is to be one."""
        ended = [] if recorded else [self._try_ended(try_n, outcome)]
        retry_at = self._retry_at(try_n, outcome)
        if retry_at is None:
            self._end(outcome, *ended)
            return False
        if ended:
            self._record(*ended, sync=False)
        while not (reason := self._asked_to_end()) and not self._lease_over() and protocol.boot_ns() < retry_at:
            self._turn(retry_at)
        if reason:
            self._end(Outcome("cancelled", reason))
        elif self._lease_over():
            self._end(Outcome("lost", "its lease ran out between two tries"))
        else:
            return True
        return False

    def _retry_at(self, try_n: int, outcome: Outcome) -> int | None:
        """When the next try is due; None if there is none. Adds to the outcome, which the attempt ends with then, that time was too short."""
        if outcome.state == "lost" and outcome.reason == LEASE_OVER:
            return None
        if not retry.wants_retry(self.spec, try_n=try_n, state=outcome.state, exit_code=outcome.exit_code, signal=outcome.signal):
            return None
        chance = int.from_bytes(os.urandom(4), "big") / 2**32
        at = protocol.boot_ns() + retry.backoff_ns(self.spec, try_n, chance)
        total = self._total_deadline()
        if total is not None and at >= total:
            outcome.reason = f"{outcome.reason}; no time is left in total_timeout for another try".lstrip("; ")
            return None
        return at

    def _try_ended(self, try_n: int, outcome: Outcome) -> dict[str, Any]:
        event = outcome.event("try_ended", self._at())
        event |= {"try_n": try_n, "max_rss_bytes": outcome.max_rss_bytes, "cpu_ns": outcome.cpu_ns, "duration_ns": outcome.duration_ns}
        return event

    def _end(self, outcome: Outcome, *before: dict[str, Any]) -> None:
        self._remove_scratch()
        if outcome.state == "lost" and not self._lease_over():
            # The lease is good and the retries are used up: a failure of the attempt, not the loss of a node that is answered by a rerun elsewhere.
            outcome = Outcome("failed", f"lost: {outcome.reason}")
        self._record(*before, outcome.event("ended", self._at()), sync=True)

    def _remove_scratch(self) -> None:
        try:
            os.rmdir(protocol.WORK)
        except FileNotFoundError:
            pass
        except OSError:
            import shutil  # rarely needed: most commands leave nothing there

            shutil.rmtree(protocol.WORK, ignore_errors=True)

    # --- one try

    def _try(self, try_n: int) -> Outcome:
        started = {"kind": "try_started", "at": self._at(), "try_n": try_n}
        self._record(started, sync=True)
        if self._lease_over():  # the sync may have taken long
            return Outcome("lost", LEASE_OVER)
        begin = protocol.boot_ns()
        self.log = Log(try_n, self.spec["log_limit_bytes"])
        self.status, self.alone = None, False
        self.max_rss_bytes = self.cpu_ns = 0
        try:
            if try_n == 1:
                _sync_names()
            self._start(try_n)
        except OSError as problem:  # no process, descriptor or memory left
            return Outcome("failed", f"cannot start: {problem.strerror}")
        _tell(self.attempt, self.events.size)
        outcome = self._watch(begin)
        outcome.duration_ns = protocol.boot_ns() - begin
        left = self._clear_up()
        if left:
            text = "left behind: pid " + ", ".join(map(str, left))
            outcome.reason = f"{outcome.reason}; {text}".lstrip("; ")
            self.log.note(text, self._at())
        self.log.close(self._at())
        outcome.max_rss_bytes, outcome.cpu_ns = self.max_rss_bytes, self.cpu_ns
        return outcome

    def _start(self, try_n: int) -> None:
        environment = self._environment(try_n)
        if self.spec["workdir"] is None:
            try:
                os.mkdir(protocol.WORK, 0o700)
            except OSError:
                pass  # there from the try before; if not, the command says that it cannot enter it
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self.command_pid = os.fork()
        if self.command_pid == 0:
            _become_command(self.spec, environment, out_write, err_write, self.pid)
        os.close(out_write)
        os.close(err_write)
        for fd, stream in ((out_read, protocol.STDOUT), (err_read, protocol.STDERR)):
            os.set_blocking(fd, False)
            self.pipes[fd] = stream
            self.poll.register(fd, select.POLLIN)

    def _environment(self, try_n: int) -> dict[str, str]:
        folder = os.getcwd()
        added = {f"IGOR_{name.upper()}": f"{folder}/{name}-{try_n}" for name in FILES}
        environment: dict[str, str] = self.spec["env"] | added | {"IGOR_TRY": str(try_n)}
        return environment

    def _watch(self, begin: int) -> Outcome:
        """Until the command has ended, by itself or because it had to."""
        stop: Outcome | None = None
        kill_at = None
        deadlines = self._deadlines(begin)
        while self.status is None:
            now = protocol.boot_ns()
            if self._lease_over() and (stop is None or stop.reason != LEASE_OVER):
                stop, kill_at = Outcome("lost", LEASE_OVER), now
            if stop is None and (stop := self._must_stop(now, deadlines)):
                kill_at = now + self.spec["grace_ns"]
                self._signal_tree(signal.SIGTERM)
            if stop is not None and kill_at is not None and now >= kill_at:
                self._kill_tree()
                if self.status is None:
                    return stop  # it hangs in the kernel; `_clear_up` names it
                continue
            self._turn(kill_at if kill_at is not None else min((at for at, _ in deadlines), default=None))
            self._reap()
        exit_code = os.waitstatus_to_exitcode(self.status)
        code, number = (exit_code, None) if exit_code >= 0 else (None, -exit_code)
        if stop is None:
            return Outcome(retry.state_of(self.spec, code, number), "", code, number)
        stop.exit_code, stop.signal = code, number
        return stop

    def _deadlines(self, begin: int) -> list[tuple[int, Outcome]]:
        found = []
        if self.spec["timeout_ns"] is not None:
            found.append((begin + self.spec["timeout_ns"], Outcome("timed_out", "timeout")))
        if (total := self._total_deadline()) is not None:
            found.append((total, Outcome("timed_out", "total_timeout")))
        return sorted(found, key=lambda pair: pair[0])

    def _must_stop(self, now: int, deadlines: list[tuple[int, Outcome]]) -> Outcome | None:
        if reason := self._asked_to_end():
            return Outcome("cancelled", reason)
        return next((outcome for at, outcome in deadlines if now >= at), None)

    def _total_deadline(self) -> int | None:
        if self.spec["total_timeout_ns"] is None:
            return None
        first = next((event["at"] for event in self.events.events if event["kind"] == "try_started"), self._at())
        return int(first - self.lease.clock_ns + self.spec["total_timeout_ns"])

    # --- the tree below

    def _clear_up(self) -> list[int]:
        """The command has ended: take what is left in its pipes, and end whatever it left running. Returns what not even KILL ended."""
        self._linger(LINGER_NS)
        if not self.alone:
            self._signal_tree(signal.SIGTERM)
            self._linger(min(self.spec["grace_ns"], LEFTOVER_GRACE_NS))
        left = [] if self.alone else self._kill_tree()
        self._drain()
        for fd in list(self.pipes):
            self._close_pipe(fd)
        return left

    def _linger(self, limit_ns: int) -> None:
        until = protocol.boot_ns() + limit_ns
        self._reap()
        while not self.alone and protocol.boot_ns() < until and not self._lease_over():
            self._turn(until)
            self._reap()

    def _tree(self) -> list[int]:
        return [pid for pid in linux.descendants(self.pid) if pid not in self.lease.askers]

    def _signal_tree(self, number: int) -> None:
        pids = self._tree()
        _signal_all(pids, number)
        if number == signal.SIGTERM:
            _signal_all(pids, signal.SIGCONT)  # one that is stopped could not hear it

    def _kill_tree(self) -> list[int]:
        """KILL until nothing is left: what forks meanwhile is found by the next look. Returns what is left after KILL_LIMIT_NS."""
        deadline = protocol.boot_ns() + KILL_LIMIT_NS
        while True:
            self._reap()
            left = self._tree()
            if not left or protocol.boot_ns() > deadline:
                self.alone = True
                return left
            _signal_all(left, signal.SIGKILL)
            self._drain()
            time.sleep(KILL_PAUSE_S)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.alone = True
                return
            if pid == 0:
                # A child that lives: the command, something it left, or the one that asks the voters.
                self.alone = self.status is not None and bool(self.lease.askers) and not self._tree()
                return
            if pid == self.command_pid:
                self.status, self.command_pid = status, 0
            if pid in self.lease.askers:
                self.lease.askers.discard(pid)
            else:
                self.max_rss_bytes = max(self.max_rss_bytes, usage.ru_maxrss * 1024)
                self.cpu_ns += int((usage.ru_utime + usage.ru_stime) * 1e9)

    # --- waiting

    def _turn(self, until: int | None) -> None:
        """Wait for the next thing: output, a signal, `until`, or the lease's next look. Then deal with what came."""
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

    def _read(self, fd: int) -> bool:
        """Whether there may be more."""
        for _ in range(READS_A_TURN):
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return False
            if not data:
                self._close_pipe(fd)
                return False
            if self.log is not None:
                self.log.write(self.pipes[fd], data, self._at())
            if len(data) < READ_BYTES:
                return True
        return True

    def _drain(self) -> None:
        """What is in the pipes now; bounded, since a process that is not ours may hold the other end."""
        for fd in list(self.pipes):
            for _ in range(READS_A_TURN):
                if not self._read(fd):
                    break

    def _close_pipe(self, fd: int) -> None:
        self.poll.unregister(fd)
        del self.pipes[fd]
        os.close(fd)

    # --- small questions

    def _at(self) -> int:
        """Now, by the leader's clock."""
        return protocol.boot_ns() + self.lease.clock_ns if self.lease.clock_good else time.time_ns()

    def _due_boot_ns(self) -> int:
        clock_ns = self.lease.clock_ns if self.lease.clock_good else time.time_ns() - protocol.boot_ns()
        return int(self.spec["due_at"] - clock_ns)

    def _lease_over(self) -> bool:
        return self.lease.over(protocol.boot_ns())

    def _asked_to_end(self) -> str:
        """Why the attempt shall end, or shall not begin; empty if nobody wants that."""
        if self.control_changed:
            self.control_changed = False
            control = protocol.load_json(protocol.CONTROL) or {}
            self.cancelled = control.get("cancel") or self.cancelled
            self.revoked = control.get("revoke") or self.revoked
        begun = any(event["kind"] == "try_started" for event in self.events.events)
        return self.cancelled or ("" if begun else self.revoked)

    def _record(self, *events: dict[str, Any], sync: bool) -> None:
        """Append events; on a full disk wait until there is room, because nothing may happen that is not recorded."""
        events = (*self.unwritten, *events)
        self.unwritten = []
        while True:
            try:
                self.events.append(*events, sync=sync)
                break
            except OSError:
                time.sleep(DISK_PAUSE_S)
        if events[-1]["kind"] != "try_started":  # a start is told after the fork: the command comes first
            _tell(self.attempt, self.events.size)


LEASE_OVER = "its lease ran out"
STAND_BY_LOOKS_NS = (200_000_000, 10_000_000_000)  # between two looks at node and leader: often through an election, seldom in a long outage
STAND_BY_LIMIT_NS = 86_400 * 1_000_000_000  # a machine without its node for a day counts as lost all the same


def _sync_names() -> None:
    """Once an attempt: its folder and what is in it must survive a power cut, or a second delivery would start it again."""
    for path, flags in ((protocol.SPEC, os.O_RDONLY), (".", os.O_DIRECTORY), ("..", os.O_DIRECTORY)):
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # ended meanwhile, or a set-user-ID program: the caller looks again


def _become_command(spec: dict[str, Any], environment: dict[str, str], out: int, err: int, parent: int) -> None:
    """In the child: never returns. What goes wrong before exec is said on its own stderr, with the exit codes of a shell."""
    status = 126
    try:
        linux.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)  # the wrapper died before it could be said
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores these two; a command expects them
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if spec["umask"] is not None:
            os.umask(spec["umask"])
        what = "enter " + (spec["workdir"] or protocol.WORK)
        os.chdir(protocol.WORK) if spec["workdir"] is None else os.chdir(spec["workdir"])
        argv = spec["command"]
        what = f"run {argv[0]}"
        os.execvpe(argv[0], argv, environment)
    except OSError as problem:
        if isinstance(problem, FileNotFoundError) and what.startswith("run"):
            status = 127
        os.write(2, f"igor: cannot {what}: {problem.strerror}\n".encode())
    except BaseException as problem:
        os.write(2, f"igor: cannot start the command: {problem!r}\n".encode())
    finally:
        os._exit(status)
