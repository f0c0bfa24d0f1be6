"""The formats that cross the border between a node and its wrappers: files of an attempt's folder, and the few words they exchange.

`igor_node/agent` and `wrapper` both import this module and agree on nothing else, so a node of the next release can look after wrappers of
the last one: fields are added, never renamed, and a reader ignores what it does not know. Standard library only, and only modules that the
pre-loaded process has anyway (`typing` alone would cost every wrapper's page tables a megabyte).

    ROOT/                       <data directory>/attempts, mode 0700
        lease                   one line, rewritten by the node at every answered heartbeat: `Lease`
        wake                    named pipe, read by the node: `ATTEMPT SIZE`, a line whenever an event file has grown; what is before SIZE
                                may be acted upon (an end is on disk)
        open/ATTEMPT/           made by `mkdir`, which is exclusive: an assignment delivered twice starts once
            spec.json           what to run: `SPEC_FIELDS`; written once by the node, before any wrapper exists
            lock                held (fcntl) by the wrapper as long as it lives; its holder alone writes the files below
            events              append-only, one checksummed JSON line an event; a torn last line is no line
            control.json        what the node asks for: `{"revoke": reason}` or `{"cancel": reason}`; replaced as a whole
            try-N.log           the first part of try N's output
            try-N.log.OFFSET    later parts; OFFSET is how much output had been stored before; the oldest are removed at the log's limit
            output-N, state-N, summary-N, progress-N, metrics-N      what the command of try N wrote to $IGOR_OUTPUT and its like
            work/               the scratch folder, unless the job names its own; removed when the attempt ends
        done/YYYYMMDD/ATTEMPT/  ended and acknowledged; the day is that of the run's creation

Whoever holds the lock goes on from what the event file says. That makes a second wrapper on the same folder harmless: it does not get the
lock, or it finds `ended`, or it finds a try that began and never ended, which it records as lost and never starts again.

Times: `*_boot_ns` are CLOCK_BOOTTIME of this machine, `*_at` are the leader's wall clock: boot + `clock_ns` (see `Lease`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC, EVENTS, LOCK, CONTROL, WORK = "spec.json", "events", "lock", "control.json", "work"
LEASE, WAKE, OPEN, DONE = "lease", "wake", "open", "done"

EVENT_KINDS = ("held", "try_started", "try_ended", "ended", "revoked", "refused")
LAST_KINDS = frozenset({"ended", "revoked", "refused"})  # nothing follows them
EVENT_LIMIT_BYTES = 8 * 1024  # one line; a reason is cut to fit
REASON_LIMIT = 500  # characters

SPEC_FIELDS = {
    "attempt": "RUN.STAGE.N",
    "command": "list of str: argv",
    "env": "the whole environment of the command but for what the wrapper adds a try (IGOR_TRY, IGOR_OUTPUT, …)",
    "workdir": "folder to run in, or null: a scratch folder",
    "umask": "or null: the node's",
    "user": "{uid, gid, groups}, or null: the node's",
    "due_at": "start the first try then",
    "clock_ns": "leader's wall clock minus CLOCK_BOOTTIME, as measured when the spec was written",
    "boot_id": "the boot in which `clock_ns` and `lease_from_boot_ns` are good",
    "lease_ns": "how long the attempt may go on without a renewal",
    "lease_from_boot_ns": "the first lease counts from here",
    "on_node_loss": "rerun | wait | fail: rerun ends the command with its lease",
    "retries": "{max, initial_ns, factor, max_ns, jitter, on: null | list of exit codes and `timeout`}",
    "timeout_ns": "or null, a try",
    "total_timeout_ns": "or null, all tries and the waits between them",
    "grace_ns": "between TERM and KILL",
    "success_codes": "list of int",
    "retry_codes": "list of int, or null",
    "skip_codes": "list of int",
    "log_limit_bytes": "a try",
    "renew_token": "good for renewing this attempt alone",
    "renew_addresses": "base URLs of the voters",
    "secrets": "name in the environment -> name of the secret; the values come through a descriptor, and are nowhere on disk",
    "authorities": "file with the CAs that they are believed by; empty: a cluster without TLS",
}


class Damaged(Exception):
    """A file of an attempt's folder that nobody could have left so: says which and where."""


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def read_boot_id() -> str:
    """The random id of this boot of the machine: CLOCK_BOOTTIME of another boot means nothing here."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def write_whole(path: str, data: bytes, *, sync: bool = False) -> None:
    """Replace a file so that a reader sees the old or the new one, never a part."""
    part = f"{path}.part"
    fd = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(part, path)


# --- spec and control


def load_json(path: str) -> dict[str, Any] | None:
    """A JSON object, or None where there is no file or not a whole one (a power cut may have taken its end)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = read_all(fd)
    finally:
        os.close(fd)
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)


# --- lock: whether a wrapper lives, and which process it is

_FLOCK = "@hhqqi4x"  # struct flock of 64-bit Linux


def take_lock(fd: int) -> bool:
    """Hold the lock until this process ends or closes *any* descriptor of that file. Children never inherit it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def lock_holder(path: str) -> int:
    """The pid of the wrapper that holds the lock, 0 if none. Asking takes no lock, so it never stands in a wrapper's way."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return 0 if kind == fcntl.F_UNLCK else pid


# --- events


def event_line(event: dict[str, Any]) -> bytes:
    """`CRC32 JSON\\n`. `event` holds seq (from 1, without gaps), kind, at, and what the kind needs (stream.AttemptEvent names them)."""
    text = json.dumps(event, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def parse_events(data: bytes, next_seq: int = 1) -> tuple[list[dict[str, Any]], int]:
    """The whole events at the beginning of `data` and how many bytes they take. What follows is a line that is torn or still being written."""
    events: list[dict[str, Any]] = []
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        line = data[position:end]
        try:
            if len(line) < 10 or int(line[:8], 16) != zlib.crc32(line[9:]):
                break
            event = json.loads(line[9:])
        except ValueError:
            break
        if event["seq"] != next_seq:
            raise Damaged(f"event file: expected event {next_seq} at byte {position}, found {event['seq']}")
        events.append(event)
        next_seq += 1
        position = end + 1
    return events, position


class EventFile:
    """The event file in the hands of the one who holds the lock: what it says, and appending to it."""

    def __init__(self, path: str = EVENTS) -> None:
        self.fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        data = read_all(self.fd)
        self.events, self.size = parse_events(data)
        if len(data) > self.size:
            os.ftruncate(self.fd, self.size)  # a torn last line: what it said was never acted upon

    @property
    def finished(self) -> bool:
        return bool(self.events) and self.events[-1]["kind"] in LAST_KINDS

    def append(self, *events: dict[str, Any], sync: bool) -> None:
        """All or nothing: after an error (a full disk) the file is as before, and the caller tries again or gives up."""
        added: list[dict[str, Any]] = []
        for event in events:
            if "reason" in event:
                event["reason"] = event["reason"][:REASON_LIMIT]
            added.append({"seq": len(self.events) + len(added) + 1, **event})
        data = b"".join(map(event_line, added))
        try:
            if os.pwrite(self.fd, data, self.size) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fdatasync(self.fd)
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size += len(data)
        self.events += added

    def close(self) -> None:
        os.close(self.fd)


# --- lease: one file for all attempts of the node


LEADERLESS_S = 2.0  # a leader that no majority answers has stepped down by then (raft.settings.fallback_s, twice)
STEADY_GAP_NS = 5_000_000_000  # the longest time from the sending of one answered heartbeat to the answer of the next in a steady series


class Lease:
    """What the node knows of its leader, for all its attempts.

    Heartbeats sent up to `renewed_boot_ns` were answered. Since `steady_boot_ns`, when one of these answers came, none came later than
    STEADY_GAP_NS after the sending of the one before. The leader's clock is boot + `clock_ns`.

    From the moment a spec is written, and from a node's start on before it sends anything, every heartbeat names every attempt of `open/` that
    has not ended; so an attempt may count its lease from `renewed_boot_ns` under one condition: an answer that came when its lease was already
    over renews nothing, because the leader answers heartbeats without asking whether it has given an attempt up meanwhile. It is met when the
    file is read before the lease ends, or when the series has been steady since before that (and the lease is longer than the gap).

    One file for all, because a thousand waiting wrappers would cost a thousand writes a second otherwise.
    """

    __slots__ = ("boot_id", "clock_ns", "renewed_boot_ns", "steady_boot_ns")

    def __init__(self, boot_id: str, renewed_boot_ns: int, steady_boot_ns: int, clock_ns: int) -> None:
        self.boot_id, self.renewed_boot_ns, self.steady_boot_ns, self.clock_ns = boot_id, renewed_boot_ns, steady_boot_ns, clock_ns

    def line(self) -> bytes:
        """Of the same length every time, so that one `pwrite` replaces it."""
        text = b"%b %020d %020d %021d" % (self.boot_id.encode(), self.renewed_boot_ns, self.steady_boot_ns, self.clock_ns)
        return b"%b %08x\n" % (text, zlib.crc32(text))

    def renews(self, lease_ns: int, from_boot_ns: int, now_boot_ns: int) -> bool:
        """Whether a lease of this length that was last counted from `from_boot_ns` may be counted from `renewed_boot_ns` instead."""
        end = from_boot_ns + lease_ns
        in_time = now_boot_ns < end or (lease_ns > STEADY_GAP_NS and self.steady_boot_ns < end)
        return in_time and from_boot_ns < self.renewed_boot_ns


def read_lease(path: str) -> Lease | None:
    """None where there is no whole line; one that is being rewritten is read again by the next look."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, 256)
    finally:
        os.close(fd)
    try:
        text, crc = data.rstrip(b"\n").rsplit(b" ", 1)
        if int(crc, 16) != zlib.crc32(text):
            return None
        boot_id, renewed, steady, clock = text.split(b" ")
        return Lease(boot_id.decode(), int(renewed), int(steady), int(clock))
    except ValueError:
        return None


# --- output

STDOUT, STDERR, IGOR = b"O", b"E", b"I"
STREAMS = {STDOUT: "stdout", STDERR: "stderr", IGOR: "igor"}
LOG_PREFIX_BYTES = 21  # stream letter, 19 digits of nanoseconds, a space


def log_name(try_n: int, offset: int = 0) -> str:
    return f"try-{try_n}.log" if offset == 0 else f"try-{try_n}.log.{offset:015d}"


def log_records(stream: bytes, at: int, data: bytes) -> bytes:
    """`data` as lines `S<time> <bytes>\\n`. The letter is small where the command has not ended its line (yet): `o`, `e`.

    Every byte but the line feed stands as it came, so that nothing is lost of binary output, and a reader may begin at any line feed.
    """
    end = data.rfind(b"\n")
    out = b""
    if end >= 0:
        prefix = b"%b%019d " % (stream, at)
        out = prefix + data[:end].replace(b"\n", b"\n" + prefix) + b"\n"
    if end + 1 < len(data):
        out += b"%b%019d %b\n" % (stream.lower(), at, data[end + 1 :])
    return out


def parse_log_line(line: bytes) -> tuple[int, str, bool, bytes] | None:
    """(time, stream, whether the command ended its line here, bytes) of one stored line without its line feed; None if it is damaged."""
    stream = STREAMS.get(line[:1].upper())
    if stream is None or line[20:21] != b" " or not line[1:20].isdigit():
        return None
    return int(line[1:20]), stream, line[:1].isupper(), line[LOG_PREFIX_BYTES:]


# --- renewal by the wrapper: POST {address}/v1/attempts/{attempt}/renew, Authorization: Bearer {renew_token}

RENEW_PATH = "/v1/attempts/{attempt}/renew"
EVENTS_PATH = "/v1/attempts/{attempt}/events"  # body {"events": […]}; the leader's `{"renewed": true, "upto": SEQ}` once they are committed
EVENTS_LIMIT = 1_000  # of one report
LEADER_HEADER = "Igor-Leader"  # of an answer that is not the leader's: where the leader is


def renewed_by(answers: list[dict[str, Any]], voters: int) -> bool:
    """Whether these answers renew a lease, counted from when the asking began; `after_s` says how long after that each of them was here.

    The leader's `{"renewed": true}` does, and `{"no_leader": true, "for_s": S, "node": ID}` of a majority of the voters that have known none
    *together* since `LEADERLESS_S` before the asking began. A leader of that time has stepped down, because no majority answered it, and a later
    one counts every lease from the start of its own term. Voters that were cut off one after the other prove nothing: the leader had a majority
    all the time. How many voters there are is what the answers say, where that is more: the spec may be older than the last change of the members.
    """
    if any(answer.get("renewed") is True for answer in answers):
        return True
    voters = max([voters, *(answer["voters"] for answer in answers if isinstance(answer.get("voters"), int))])
    leaderless = {answer.get("node") for answer in answers if answer.get("no_leader") is True and answer.get("voter", True) and _long_enough(answer)}
    return len(leaderless) > voters // 2


def _long_enough(answer: dict[str, Any]) -> bool:
    return float(answer.get("for_s", 0.0)) - float(answer.get("after_s", 0.0)) >= LEADERLESS_S
