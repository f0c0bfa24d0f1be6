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

import json
import os
import signal
import time

from wrapper import protocol, retry
from wrapper.lease import LeaseWatch
from wrapper.one_try import LEASE_OVER, Outcome, Try
from wrapper.tree import Tree, kill_marked
from wrapper.waiting import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wrapper.masking import Forms

DISK_PAUSE_S = 0.5  # between tries to write an event on a full disk
STAND_BY_LOOKS_NS = (200_000_000, 10_000_000_000)  # between two looks at node and leader: often through an election, seldom in a long outage
STAND_BY_LIMIT_NS = 86_400 * 1_000_000_000  # a machine without its node for a day counts as lost all the same


def main(attempt: str, boot_id: str, given: int = -1) -> bool:
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
            return _live(attempt, boot_id, events, given)
        finally:
            events.close()
    finally:
        os.close(lock)  # lets it go


def _live(attempt: str, boot_id: str, events: protocol.EventFile, given: int) -> bool:
    spec = protocol.load_json(protocol.SPEC)
    if events.finished:
        return True
    if spec is None:
        _without_spec(events)
        _tell(attempt, events.size)
        return True
    secrets = _secrets(given)
    if spec.get("secrets") and secrets is None:
        return True  # whoever asks again has them; nothing may begin without
    wrapper = Wrapper(attempt, spec, events, boot_id, secrets or {})
    wrapper.live()
    wrapper.stand_by()
    wrapper.waiting.close()
    return _has_no_child()


def _secrets(given: int) -> dict[str, Any] | None:
    """{"values": {name in the environment: value}}, or {"refuse": why it must not begin}; None: nothing was given."""
    if given < 0:
        return None
    with open(given, "rb") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _forms(secrets: dict[str, str]) -> Forms | None:
    if not secrets:
        return None
    from wrapper.masking import forms_of  # only here: few wrappers have secrets

    return forms_of(list(secrets.values()))


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


class Control:
    """Why the attempt shall end, or shall not begin: by the file `control` and SIGUSR1, or by SIGTERM."""

    def __init__(self) -> None:
        self.cancelled = ""
        self.revoked = ""
        self.changed = True  # the file is to be read
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGUSR1, self._on_poke)

    def _on_term(self, *_: object) -> None:
        self.cancelled = self.cancelled or "the wrapper was told to end"

    def _on_poke(self, *_: object) -> None:
        self.changed = True

    def look(self) -> None:
        if self.changed:
            self.changed = False
            control = protocol.load_json(protocol.CONTROL) or {}
            self.cancelled = control.get("cancel") or self.cancelled
            self.revoked = control.get("revoke") or self.revoked


class Wrapper:
    """The life of the attempt: what there is to be done, what follows a try, and what is written down. What happens within a try is `Try`'s."""

    def __init__(self, attempt: str, spec: dict[str, Any], events: protocol.EventFile, boot_id: str, secrets: dict[str, Any]) -> None:
        self.attempt, self.spec, self.events = attempt, spec, events
        self.secrets: dict[str, str] = secrets.get("values", {})
        self.refuse: str = secrets.get("refuse", "")
        self.masked = _forms(self.secrets)
        self.other_boot = spec["boot_id"] != boot_id
        self.lease = LeaseWatch(spec, boot_id, f"../../{protocol.LEASE}", os.getpid())
        self.waiting = Waiting(self.lease)
        self.control = Control()
        self.tree = Tree(self.lease.askers)
        self.unwritten: list[dict[str, Any]] = []  # events that are written together with the next

    def live(self) -> None:
        try_n, last = self._history()
        if self.refuse:
            self._end(Outcome("failed", self.refuse))
            return
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
            self.waiting.turn(now + min(STAND_BY_LOOKS_NS[1], STAND_BY_LOOKS_NS[0] + (now - begin) // 8))
            self.tree.reap()
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
        kill_marked(f"IGOR_ATTEMPT_ID={self.attempt}".encode())
        return Outcome("lost", "the machine restarted" if self.other_boot else "wrapper died")

    def _hold(self) -> bool:
        """Wait for the due time. False: it was revoked, or its lease ran out."""
        if not self.events.events:  # else a wrapper before this one has said so
            self.unwritten.append({"kind": "held", "at": self.lease.leader_now(), "pid": os.getpid()})
        while not self._asked_to_end() and not self._lease_over() and protocol.boot_ns() < (due := self.lease.boot_ns_of(self.spec["due_at"])):
            if self.unwritten:
                self._record(sync=False)
            self.waiting.turn(due)
        if reason := self._asked_to_end():
            self._record({"kind": "revoked", "at": self.lease.leader_now(), "reason": reason}, sync=True)
            return False
        if self._lease_over():
            self._record(Outcome("lost", "its lease ran out before it could start").event("ended", self.lease.leader_now()), sync=True)
            return False
        return True

    def _try(self, try_n: int) -> Outcome:
        self._record({"kind": "try_started", "at": self.lease.leader_now(), "try_n": try_n}, sync=True)
        if self._lease_over():  # the sync may have taken long
            return Outcome("lost", LEASE_OVER)
        one = Try(try_n, self.spec, self.lease, self.waiting, self.tree, self._asked_to_end, self.secrets, self.masked)
        try:
            if try_n == 1:
                _sync_names()
            one.start()
        except OSError as problem:  # no process, descriptor or memory left
            return Outcome("failed", f"cannot start: {problem.strerror}")
        _tell(self.attempt, self.events.size)
        return one.see_through(self._total_deadline())

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
            self.waiting.turn(retry_at)
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
        event = outcome.event("try_ended", self.lease.leader_now())
        event |= {"try_n": try_n, "max_rss_bytes": outcome.max_rss_bytes, "cpu_ns": outcome.cpu_ns, "duration_ns": outcome.duration_ns}
        return event

    def _end(self, outcome: Outcome, *before: dict[str, Any]) -> None:
        self._remove_scratch()
        if outcome.state == "lost" and not self._lease_over():
            # The lease is good and the retries are used up: a failure of the attempt, not the loss of a node that is answered by a rerun elsewhere.
            outcome = Outcome("failed", f"lost: {outcome.reason}")
        self._record(*before, outcome.event("ended", self.lease.leader_now()), sync=True)

    def _remove_scratch(self) -> None:
        try:
            os.rmdir(protocol.WORK)
        except FileNotFoundError:
            pass
        except OSError:
            import shutil  # rarely needed: most commands leave nothing there

            shutil.rmtree(protocol.WORK, ignore_errors=True)

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

    # --- small questions

    def _total_deadline(self) -> int | None:
        if self.spec["total_timeout_ns"] is None:
            return None
        first = next((event["at"] for event in self.events.events if event["kind"] == "try_started"), self.lease.leader_now())
        return int(first - self.lease.clock_ns + self.spec["total_timeout_ns"])

    def _lease_over(self) -> bool:
        return self.lease.over(protocol.boot_ns())

    def _asked_to_end(self) -> str:
        """Why the attempt shall end, or shall not begin; empty if nobody wants that."""
        self.control.look()
        begun = any(event["kind"] == "try_started" for event in self.events.events)
        return self.control.cancelled or ("" if begun else self.control.revoked)


def _sync_names() -> None:
    """Once an attempt: its folder and what is in it must survive a power cut, or a second delivery would start it again."""
    for path, flags in ((protocol.SPEC, os.O_RDONLY), (".", os.O_DIRECTORY), ("..", os.O_DIRECTORY)):
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
