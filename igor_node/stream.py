"""What a node and the leader say to each other on the node's stream: the messages, nothing else.

Every node opens one WebSocket to the leader (`GET /v1/nodes/{id}/stream`, token of role `node`), found through any peer. Each
binary frame is one MessagePack-encoded message of the unions below; `agent` speaks `ToLeader`, `leader` speaks `ToNode`. This module is
below both because they know nothing of each other. Times: `*_at` are wall-clock Instants of the sender, `*_boot_ns` are the sender's
CLOCK_BOOTTIME in nanoseconds.

Leases: the leader's `HeartbeatReply` to heartbeat `seq` renews, for their own length, the leases of all attempts named in that heartbeat,
counted from the *sending* of the heartbeat by the node's CLOCK_BOOTTIME. The leader counts from its arrival plus nothing: it waits
lease + margin from when it *received* the last heartbeat that named the attempt, which is always later than the node's count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

PROTOCOL = 1
FRAME_LIMIT_BYTES = 4 * 1024 * 1024  # a frame larger than this closes the stream
EVENTS_PER_REPORT = 1_000  # keeps one ledger entry under 1 MiB at about 300 B an event


class Hello(msgspec.Struct, tag="hello", frozen=True, omit_defaults=True):
    """First message of a node. `attempts` are all attempts in its folders that have not ended *and been acknowledged*."""

    protocol: int
    node: str
    name: str
    address: str
    labels: dict[str, str]
    slots: int
    version: str
    cluster: str
    boot_id: str
    term: int  # the highest term this node has seen; a leader with a lower one must close the stream
    attempts: tuple[str, ...] = ()
    ledger_version: int = 0  # the highest that its program knows; 0: a program that does not say
    epoch: int = 0  # of its data directory; raised when the cluster is recovered or restored
    instance: str = ""  # drawn at each start: two of one node that live at the same time are a copied data directory


class Heartbeat(msgspec.Struct, tag="beat", frozen=True, omit_defaults=True):
    """Once a second. `attempts`: those whose wrapper holds its lock now. `mark`: the newest index with its digest that its ledger keeps.

    `clock_error_ns`: this node's wall clock less the leader's, by four time stamps of the heartbeat with the least round trip of the last 8, right
    within `clock_within_ns`; None until the leader has answered.
    """

    seq: int
    attempts: tuple[str, ...] = ()
    load_milli: int = 0  # load average of one minute, in thousandths
    memory_free_bytes: int = 0
    mark: tuple[int, bytes] | None = None
    clock_error_ns: int | None = None
    clock_within_ns: int = 0
    keys: tuple[bytes, ...] = ()  # marks of the cluster's keys that are on its disk
    trust: bytes = b""  # mark of its certificate's CA and of those that it trusts; empty without TLS


class AttemptEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an attempt's event file, in its order (`seq` from 1). Idempotent by (attempt, seq).

    kinds: `held` (wrapper waits), `try_started`, `try_ended`, `ended` (last: `state` says how), `revoked` (never started and never will),
    `refused` (this node cannot run it; `reason`). Which fields are set follows from the kind.
    """

    attempt: str
    seq: int
    kind: str
    at: int
    try_n: int = 0
    state: str = ""
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    max_rss_bytes: int | None = None
    cpu_ns: int | None = None
    pid: int | None = None
    duration_ns: int | None = None


class Events(msgspec.Struct, tag="events", frozen=True):
    """At most EVENTS_PER_REPORT. Sent again after a reconnect until acknowledged."""

    events: tuple[AttemptEvent, ...]


class Goodbye(msgspec.Struct, tag="bye", frozen=True):
    """The node stops in order (SIGTERM) or leaves; running commands go on under their wrappers."""

    leaving: bool = False


ToLeader = Hello | Heartbeat | Events | Goodbye


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """Answer to Hello. `forget`: attempts of the Hello that ended long ago for the ledger; their folders may go after `keep_logs`.
    `member`: voter or learner as of `index`; a node that is none any more must not answer from the ledger that it still has.
    `received_at` (of the Hello) and `sent_at` are the leader's wall clock: a young leader may let a Hello wait for seconds.
    """

    term: int
    leader: str
    received_at: int
    sent_at: int
    time_is_good: bool
    forget: tuple[str, ...] = ()
    member: bool = True
    index: int = 0


class HeartbeatReply(msgspec.Struct, tag="beat", frozen=True):
    """`received_at`/`sent_at` are the leader's wall clock: with the node's two stamps they give the offset.

    `time_is_good`: a majority of the voters agrees with that clock. Until then the node starts nothing by it: it goes on by the last good one.
    """

    seq: int
    term: int
    received_at: int
    sent_at: int
    time_is_good: bool


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything a node needs to run one attempt. Delivered at least once; the folder's exclusive creation makes it start once."""

    attempt: str
    run: str
    job: str
    project: str
    stage: str
    n: int
    fence: int
    trigger: str
    due_at: int  # leader's clock; the wrapper starts the first try then
    scheduled_at: int | None
    created_at: int
    command: tuple[str, ...] | str  # `${{ }}` already put in
    shell: str
    env: dict[str, str]
    params: dict[str, str]
    lease_ns: int
    on_node_loss: str
    retries: dict[str, Any]  # definitions.jobs.Retries as plain data
    timeout_ns: int | None = None
    total_timeout_ns: int | None = None
    grace_ns: int = 10_000_000_000
    success_codes: tuple[int, ...] = (0,)
    retry_codes: tuple[int, ...] | None = None
    skip_codes: tuple[int, ...] = ()
    workdir: str | None = None
    umask: int | None = None
    user: str | None = None
    log_limit_bytes: int = 100 * 1024 * 1024
    secrets: dict[str, str] = {}  # name in the environment -> name of the secret; the values are asked for
    renew_token: str = ""  # good for renewing this attempt alone
    renew_addresses: tuple[str, ...] = ()  # base URLs of voters


class Assign(msgspec.Struct, tag="assign", frozen=True):
    term: int
    assignments: tuple[Assignment, ...]


class Revoke(msgspec.Struct, tag="revoke", frozen=True):
    """Do not start these if they have not started; answered by an event `revoked`, or by the `try_started` that came first."""

    term: int
    attempts: tuple[str, ...]
    reason: str


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """End these: TERM, then KILL after their grace. An attempt that is still held is revoked."""

    term: int
    attempts: tuple[str, ...]
    reason: str


class Differs(msgspec.Struct, tag="differs", frozen=True):
    """The node's ledger is not what the majority's is: `digest` is right at index `upto`, and at `after` the node was right still (0: not known)."""

    term: int
    after: int
    upto: int
    digest: bytes


class Renew(msgspec.Struct, tag="renew", frozen=True):
    """The cluster's CA is another one: the node shall ask for a new certificate now."""

    term: int


class Acknowledge(msgspec.Struct, tag="ack", frozen=True):
    """For each attempt the highest seq that is committed. An attempt whose `ended`/`revoked`/`refused` is acknowledged is finished."""

    term: int
    upto: dict[str, int]


class Farewell(msgspec.Struct, tag="farewell", frozen=True):
    """Not the leader (any more): go to `leader` (an address, may be empty) instead. `final`: the node must not go on, `reason` says why."""

    term: int
    leader: str
    reason: str
    final: bool = False


ToNode = Welcome | HeartbeatReply | Assign | Revoke | Cancel | Acknowledge | Differs | Renew | Farewell

encode = msgspec.msgpack.Encoder().encode


def _decoder(kinds: Any) -> Callable[[bytes], Any]:
    """Whatever cannot be read is a msgspec.DecodeError."""
    decode = msgspec.msgpack.Decoder(kinds).decode

    def whole(frame: bytes) -> Any:
        try:
            return decode(frame)
        except (UnicodeDecodeError, RecursionError) as problem:
            raise msgspec.DecodeError(str(problem)) from None

    return whole


decode_to_leader = _decoder(ToLeader)
decode_to_node = _decoder(ToNode)
