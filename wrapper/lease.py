"""The lease of one attempt, as its wrapper counts it, and the wrapper's own renewal while the node is silent.

Time counts from the *sending* of what renewed it, on CLOCK_BOOTTIME; the leader counts from the arrival, so it always waits longer. For half of
the lease the wrapper does nothing. Then it looks at the node's lease file; where that is no younger it asks the voters itself, from a short-lived
child process: names are resolved and connections time out there, while the wrapper goes on reading output, and the child's memory goes with it.
An end is an end: once the lease was found over, nothing renews it any more.
"""

from __future__ import annotations

import json
import os
import signal
import time

from wrapper import linux, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEVER = 1 << 62  # on CLOCK_BOOTTIME
ASK_TIMEOUT_S = 2.0  # one voter
ASK_LIMIT_S = 15  # all of them; the child ends itself then
ASK_AGAIN_SHARE = 20  # after a refusal: a twentieth of the lease later,
ASK_AGAIN_LIMITS_NS = (200_000_000, 10_000_000_000)  # but within these


class LeaseWatch:
    def __init__(self, spec: dict[str, Any], boot_id: str, lease_path: str, parent_pid: int) -> None:
        self.spec = spec
        self.lease_ns: int = spec["lease_ns"]
        self.binding = spec["on_node_loss"] == "rerun"  # else the command goes on without a lease, only the renewals go on
        self.boot_id = boot_id
        self.lease_path = lease_path
        self.parent_pid = parent_pid
        same_boot = spec["boot_id"] == boot_id
        self.from_boot_ns: int = spec["lease_from_boot_ns"] if same_boot else -self.lease_ns
        self.clock_ns: int = spec["clock_ns"]
        self.clock_good = same_boot
        self.over_for_good = False
        self.ask_at_boot_ns = 0
        self.asker_fd = -1  # of the child that asks now, -1 if none does
        self.asked_at_boot_ns = 0
        self.askers: set[int] = set()  # pids of asking children that have not been reaped
        self.delivered = False  # the leader has every event that `deliver` was given
        self.look(protocol.boot_ns())

    @property
    def end_boot_ns(self) -> int:
        return self.from_boot_ns + self.lease_ns

    def over(self, now: int) -> bool:
        """Whether nothing may run any more. Looks again first, so that a wrapper that was stopped or starved is not wrong by itself."""
        if self.binding and now >= self.end_boot_ns and not self.over_for_good:
            self.look(now)
            self.over_for_good = now >= self.end_boot_ns
        return self.over_for_good

    def look(self, now: int) -> None:
        """Read the node's lease file."""
        lease = protocol.read_lease(self.lease_path)
        if lease is None or lease.boot_id != self.boot_id:
            return
        self.clock_ns, self.clock_good = lease.clock_ns, True
        if not self.binding or lease.renews(self.lease_ns, self.from_boot_ns, now):
            self.from_boot_ns = max(self.from_boot_ns, lease.renewed_boot_ns)

    def leader_now(self) -> int:
        """The leader's clock, as far as this machine knows it."""
        return protocol.boot_ns() + self.clock_ns if self.clock_good else time.time_ns()

    def boot_ns_of(self, leader_at: int) -> int:
        """When, on CLOCK_BOOTTIME, the leader's clock shows this."""
        return leader_at - (self.clock_ns if self.clock_good else time.time_ns() - protocol.boot_ns())

    def next_look(self) -> int:
        """When `tend` is to be called."""
        if self.over_for_good:
            return NEVER
        end = self.end_boot_ns if self.binding else NEVER
        return end if self.asker_fd >= 0 else min(max(self.from_boot_ns + self.lease_ns // 2, self.ask_at_boot_ns), end)

    def tend(self, now: int) -> None:
        if now < self.next_look():
            return
        self.look(now)
        if now >= self.next_look() and self.asker_fd < 0 and self.spec["renew_addresses"] and not self.over(now):
            self._ask(now)
        least, most = ASK_AGAIN_LIMITS_NS
        self.ask_at_boot_ns = now + min(max(self.lease_ns // ASK_AGAIN_SHARE, least), most)

    def deliver(self, events: list[dict[str, Any]], now: int) -> None:
        """Tell the leader what happened, because the node is not there to do it; `delivered` says when it is committed."""
        if self.asker_fd < 0 and self.spec["renew_addresses"]:
            self._ask(now, events[-protocol.EVENTS_LIMIT :])

    def _ask(self, now: int, events: list[dict[str, Any]] | None = None) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pid = os.fork()
        if pid == 0:
            _asker(self.spec, write_end, self.parent_pid, events or [])
        os.close(write_end)
        self.askers.add(pid)
        self.asker_fd, self.asked_at_boot_ns = read_end, now

    def answered(self, now: int) -> bool:
        """The asking child wrote or ended. True when its descriptor is no longer to be watched."""
        try:
            data = os.read(self.asker_fd, 1)
        except BlockingIOError:
            return False
        os.close(self.asker_fd)
        self.asker_fd = -1
        self.delivered = self.delivered or data == DELIVERED
        if data in (RENEWED, DELIVERED) and (now < self.end_boot_ns or not self.binding):
            self.from_boot_ns = max(self.from_boot_ns, self.asked_at_boot_ns)
        return True


# --- in the child


REFUSED, RENEWED, DELIVERED = b"0", b"1", b"2"


def _asker(spec: dict[str, Any], answer_fd: int, parent_pid: int, events: list[dict[str, Any]]) -> None:
    """Never returns."""
    try:
        linux.die_with_parent(signal.SIGKILL)
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.alarm(ASK_LIMIT_S)
        if os.getppid() == parent_pid:
            delivered = bool(events) and report(spec, events)
            os.write(answer_fd, DELIVERED if delivered else RENEWED if ask_voters(spec) else REFUSED)
    finally:
        os._exit(0)


def report(spec: dict[str, Any], events: list[dict[str, Any]]) -> bool:
    """Whether the leader has committed all of them. The node sends them again when it is back, which changes nothing."""
    attempt = spec["attempt"]
    body = json.dumps({"events": [{**event, "attempt": attempt} for event in events]}).encode()
    addresses = list(spec["renew_addresses"])
    for address in addresses:
        try:
            answer, leader = _ask_one(spec, address, protocol.EVENTS_PATH.format(attempt=attempt), body)
        except (OSError, ValueError):
            continue  # dead, or not a node
        if answer.get("upto", 0) >= events[-1]["seq"]:
            return True
        if leader and leader not in addresses:
            addresses.append(leader)
    return False


def ask_voters(spec: dict[str, Any]) -> bool:
    """One voter after the other, and whomever they call the leader."""
    addresses = list(spec["renew_addresses"])
    voters = len(addresses)
    answers: list[dict[str, Any]] = []
    asked = protocol.boot_ns()
    for address in addresses:
        try:
            answer, leader = _ask_one(spec, address, protocol.RENEW_PATH.format(attempt=spec["attempt"]), b"{}")
        except (OSError, ValueError):
            continue  # dead, or not a node: the others decide
        answers.append({**answer, "after_s": (protocol.boot_ns() - asked) / 1e9})
        if protocol.renewed_by(answers, voters):
            return True
        if leader and leader not in addresses:
            addresses.append(leader)
    return False


def _ask_one(spec: dict[str, Any], address: str, path: str, body: bytes) -> tuple[dict[str, Any], str]:
    """The answer, and the leader's address if it names one."""
    from http.client import HTTPException  # only here: wrappers never pay for it
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, spec.get("authorities", ""))
    try:
        headers = {"Authorization": f"Bearer {spec['renew_token']}", "Content-Type": "application/json"}
        connection.request("POST", parts.path.rstrip("/") + path, body=body, headers=headers)
        response = connection.getresponse()
        answer, leader = json.loads(response.read(1 << 16)), response.getheader(protocol.LEADER_HEADER, "")
    except HTTPException as problem:
        raise ValueError(str(problem)) from problem
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    return answer, leader


def _connection(scheme: str, host: str, port: int | None, authorities: str) -> Any:
    """In a cluster with TLS whoever answers must have a certificate of the cluster's; which node it is does not count. The token is sent to nobody
    else: where there are authorities there is no connection in clear."""
    from http.client import HTTPConnection, HTTPSConnection

    if not authorities:
        if scheme != "http":
            raise ValueError("there is no CA to believe it by")
        return HTTPConnection(host, port, timeout=ASK_TIMEOUT_S)
    if scheme != "https":
        raise ValueError("a cluster with TLS is asked by HTTPS alone")
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(authorities)
    return HTTPSConnection(host, port, timeout=ASK_TIMEOUT_S, context=context)
