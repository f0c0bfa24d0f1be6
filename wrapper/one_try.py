"""One try: the command, from its fork to the end of the last process that it left behind.

`run.py` has written and synced "try n begins" before it calls `start`, and writes down the Outcome that `see_through` returns. In between the
command has its pipes read, is ended when time is up, when somebody asks for it, or when the lease is over (KILL, at once), and what it leaves
running is ended too.
"""

from __future__ import annotations

import os
import signal

from wrapper import linux, protocol, retry
from wrapper.output import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wrapper.lease import LeaseWatch
    from wrapper.masking import Forms
    from wrapper.tree import Tree
    from wrapper.waiting import Waiting

LEASE_OVER = "its lease ran out"
LINGER_NS = 1_000_000_000  # what the command left behind may end by itself (a `tee` at the end of a pipe) before it is told to
LEFTOVER_GRACE_NS = 2_000_000_000  # between TERM and KILL for it, if the job's own grace is not shorter
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


class Try:
    def __init__(
        self,
        n: int,
        spec: dict[str, Any],
        lease: LeaseWatch,
        waiting: Waiting,
        tree: Tree,
        asked_to_end: Callable[[], str],
        secrets: dict[str, str],
        masked: Forms | None,
    ) -> None:
        """`secrets`: for the command's environment alone. `masked`: what must not be seen in its output."""
        self.n, self.spec, self.secrets = n, spec, secrets
        self.lease, self.waiting, self.tree = lease, waiting, tree
        self.asked_to_end = asked_to_end
        self.log = Log(n, spec["log_limit_bytes"], masked)
        self.begin = protocol.boot_ns()

    def start(self) -> None:
        """Raises OSError where no process, descriptor or memory is left."""
        environment = self._environment()
        if self.spec["workdir"] is None:
            try:
                os.mkdir(protocol.WORK, 0o700)
                if user := self.spec.get("user"):
                    os.chown(protocol.WORK, user["uid"], user["gid"])
            except OSError:
                pass  # there from the try before; if not, the command says that it cannot enter it
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _become_command(self.spec, environment, out_write, err_write, self.tree.pid)
        self.tree.begin(pid)
        os.close(out_write)
        os.close(err_write)
        self.waiting.listen(out_read, protocol.STDOUT, self.log)
        self.waiting.listen(err_read, protocol.STDERR, self.log)

    def see_through(self, total_deadline: int | None) -> Outcome:
        """Until the command has ended and nothing of it is left."""
        outcome = self._watch(self._deadlines(total_deadline))
        outcome.duration_ns = protocol.boot_ns() - self.begin
        left = self._clear_up()
        if left:
            text = "left behind: pid " + ", ".join(map(str, left))
            outcome.reason = f"{outcome.reason}; {text}".lstrip("; ")
            self.log.note(text, self.lease.leader_now())
        self.log.close(self.lease.leader_now())
        outcome.max_rss_bytes, outcome.cpu_ns = self.tree.max_rss_bytes, self.tree.cpu_ns
        return outcome

    def _environment(self) -> dict[str, str]:
        folder = os.getcwd()
        added = {f"IGOR_{name.upper()}": f"{folder}/{name}-{self.n}" for name in FILES}
        environment: dict[str, str] = self.spec["env"] | self.secrets | added | {"IGOR_TRY": str(self.n)}
        return environment

    def _deadlines(self, total_deadline: int | None) -> list[tuple[int, Outcome]]:
        found = []
        if self.spec["timeout_ns"] is not None:
            found.append((self.begin + self.spec["timeout_ns"], Outcome("timed_out", "timeout")))
        if total_deadline is not None:
            found.append((total_deadline, Outcome("timed_out", "total_timeout")))
        return sorted(found, key=lambda pair: pair[0])

    def _watch(self, deadlines: list[tuple[int, Outcome]]) -> Outcome:
        """Until the command has ended, by itself or because it had to."""
        stop: Outcome | None = None
        kill_at = None
        while self.tree.status is None:
            now = protocol.boot_ns()
            if self.lease.over(now) and (stop is None or stop.reason != LEASE_OVER):
                stop, kill_at = Outcome("lost", LEASE_OVER), now
            if stop is None and (stop := self._must_stop(now, deadlines)):
                kill_at = now + self.spec["grace_ns"]
                self.tree.terminate()
            if stop is not None and kill_at is not None and now >= kill_at:
                self.tree.kill(self.waiting.drain)
                if self.tree.status is None:
                    return stop  # it hangs in the kernel; `_clear_up` names it
                continue
            self.waiting.turn(kill_at if kill_at is not None else min((at for at, _ in deadlines), default=None))
            self.tree.reap()
        exit_code = os.waitstatus_to_exitcode(self.tree.status)
        code, number = (exit_code, None) if exit_code >= 0 else (None, -exit_code)
        if stop is None:
            return Outcome(retry.state_of(self.spec, code, number), "", code, number)
        stop.exit_code, stop.signal = code, number
        return stop

    def _must_stop(self, now: int, deadlines: list[tuple[int, Outcome]]) -> Outcome | None:
        if reason := self.asked_to_end():
            return Outcome("cancelled", reason)
        return next((outcome for at, outcome in deadlines if now >= at), None)

    def _clear_up(self) -> list[int]:
        """The command has ended: take what is left in its pipes, and end whatever it left running. Returns what not even KILL ended."""
        self._linger(LINGER_NS)
        if not self.tree.alone:
            self.tree.terminate()
            self._linger(min(self.spec["grace_ns"], LEFTOVER_GRACE_NS))
        left = [] if self.tree.alone else self.tree.kill(self.waiting.drain)
        self.waiting.drain()
        self.waiting.close_pipes()
        return left

    def _linger(self, limit_ns: int) -> None:
        until = protocol.boot_ns() + limit_ns
        self.tree.reap()
        while not self.tree.alone and (now := protocol.boot_ns()) < until and not self.lease.over(now):
            self.waiting.turn(until)
            self.tree.reap()


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
        if spec["workdir"] is None:
            os.chdir(protocol.WORK)  # it lies where only the node may go
        if spec.get("user"):
            what = "become another user"
            _become_user(spec["user"], parent)
            what = "enter " + (spec["workdir"] or protocol.WORK)
        if spec["workdir"] is not None:
            os.chdir(spec["workdir"])
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


def _become_user(user: dict[str, Any], parent: int) -> None:
    """For good: real, effective and saved. Linux forgets who is to die with its parent when that changes, so it is said again."""
    os.setgroups(user["groups"])
    os.setresgid(user["gid"], user["gid"], user["gid"])
    os.setresuid(user["uid"], user["uid"], user["uid"])
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(126)
