"""The commands of the ledger: one struct a decision, the envelope that carries it, and the results that apply gives back.

A decision is a log entry. Whoever proposes it puts in the time, every id and everything that chance or a schedule decides; `apply` reads
nothing but the ledger and the command, checks the preconditions again, and answers with `Done` or `Refused` (a refusal is a value, never an
exception). Times are Instants, spans nanoseconds. Encoded as MessagePack; a field may be added with a default, a struct's tag never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from igor_node.stream import AttemptEvent


class Command(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    pass


# --- the cluster and its nodes


class FoundCluster(Command, frozen=True, kw_only=True, omit_defaults=True, tag="found_cluster"):
    """First command of a cluster. Refused once a cluster exists."""

    cluster: str
    tzdata: str
    wanted_voters: int = 3


class RaiseLedgerVersion(Command, frozen=True, kw_only=True, omit_defaults=True, tag="raise_ledger_version"):
    """From this entry on the commands of `version` may be in the log, and its tables are there. Proposed when every voter and learner knows it."""

    version: int


class RegisterNode(Command, frozen=True, kw_only=True, omit_defaults=True, tag="register_node"):
    """A node joined, or came back with another address, name, label or number of slots. `token_hash` hex SHA-256, set at the first time.
    `ephemeral`: it never votes, and is taken out when it stops or is lost; of a node that is known what it was at first stays."""

    node: str
    name: str
    address: str
    labels: dict[str, str] = {}
    slots: int = 1
    version: str = ""
    token_id: str = ""
    token_hash: str = ""
    ephemeral: bool = False


class NodeChanged(Command, frozen=True, kw_only=True, omit_defaults=True, tag="node_changed"):
    """`state` of words.NodeState. `lost` here does not touch attempts: AttemptsLost does."""

    node: str
    state: str
    reason: str = ""


class RemoveNode(Command, frozen=True, kw_only=True, omit_defaults=True, tag="remove_node"):
    """The node left for good: its token ends. Refused while it has attempts that have not ended."""

    node: str
    reason: str = ""


class SetAuthority(Command, frozen=True, kw_only=True, omit_defaults=True, tag="set_authority"):
    """A CA of the cluster: the first at founding, the next at a rotation. `certificates`: PEM, its own first. `sealed_key` is opened with the
    cluster's key alone (trust/sealing.py); the same CA again with its key sealed anew is a rotation of that key."""

    generation: int
    certificates: str
    sealed_key: bytes


class DropAuthority(Command, frozen=True, kw_only=True, omit_defaults=True, tag="drop_authority"):
    """Certificates of this CA are believed no more; the newest cannot be dropped. It stays in what nodes show, for the tokens that name it."""

    generation: int


class KeyMade(Command, frozen=True, kw_only=True, omit_defaults=True, tag="key_made"):
    """One of the cluster's keys that is to come: every member fetches it. `mark` names it (trust/keys.py)."""

    generation: int
    mark: bytes


class KeyUsed(Command, frozen=True, kw_only=True, omit_defaults=True, tag="key_used"):
    """It is in force from here on: every member holds it."""

    generation: int


class KeysDropped(Command, frozen=True, kw_only=True, omit_defaults=True, tag="keys_dropped"):
    """Nothing needs the keys before this one, which is in force; members forget them."""

    before: int


class SetSecret(Command, frozen=True, kw_only=True, omit_defaults=True, tag="set_secret"):
    """`project` "": of the whole cluster. `version`: the next one, which the seal names too. `sealed`: trust/sealing.py."""

    project: str = ""
    name: str
    version: int
    sealed: bytes


class RemoveSecret(Command, frozen=True, kw_only=True, omit_defaults=True, tag="remove_secret"):
    project: str = ""
    name: str


class ResealedSecret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    project: str = ""
    name: str
    version: int
    sealed: bytes


class ResealSecrets(Command, frozen=True, kw_only=True, omit_defaults=True, tag="reseal_secrets"):
    """The same values by another of the cluster's keys."""

    rows: tuple[ResealedSecret, ...]


class CreateToken(Command, frozen=True, kw_only=True, omit_defaults=True, tag="create_token"):
    """`projects`: it is good for these alone; none: for all. `by`: the token that makes it, which must still be good when this is applied."""

    token: str  # its id
    hash: str
    role: str
    name: str = ""
    projects: tuple[str, ...] = ()
    expires_at: int | None = None
    by: str = ""


class RevokeToken(Command, frozen=True, kw_only=True, omit_defaults=True, tag="revoke_token"):
    token: str


class NoteTokenUses(Command, frozen=True, kw_only=True, omit_defaults=True, tag="note_token_uses"):
    """Token -> when it was last used on the node that tells. Those of nodes are left out: they are used all the time."""

    uses: dict[str, int]


class LogIn(Command, frozen=True, kw_only=True, omit_defaults=True, tag="log_in"):
    """A person whom the provider of identities vouches for: a token that ends by itself. Earlier log-ins of the same `subject` end when they are
    wider than this one, or too many. `role` "": the provider knows the person, the settings give them nothing; all their log-ins end."""

    token: str
    hash: str
    subject: str  # the provider's, with its issuer: never given to another person
    name: str
    role: str
    projects: tuple[str, ...] = ()
    expires_at: int


class EndSession(Command, frozen=True, kw_only=True, omit_defaults=True, tag="end_session"):
    """Somebody logged out of the page: the session's cookie is refused from now on, until it would have ended by itself."""

    session: str
    until: int


# --- definitions


class PushProject(Command, frozen=True, kw_only=True, omit_defaults=True, tag="push_project"):
    """The whole project. `jobs` are JSON texts of definitions.jobs.Job; `pools`: slots by name. `if_version` None: whatever is there; 0: must be
    new."""

    project: str
    jobs: tuple[bytes, ...]
    sources: dict[str, str] = {}
    if_version: int | None = None
    prune: bool = False
    source: str = ""
    pools: dict[str, int] = {}


class StagePush(Command, frozen=True, kw_only=True, omit_defaults=True, tag="stage_push"):
    """A piece of an encoded PushProject that is larger than an entry. With the last piece, in whatever order they come, the push takes effect.

    `push` is an id of its own, the same in all its pieces. The answer to the last is that of the push; if it is refused the pieces are gone too.
    """

    push: str
    part: int  # from 0
    parts: int
    data: bytes


class PauseJobs(Command, frozen=True, kw_only=True, omit_defaults=True, tag="pause_jobs"):
    jobs: tuple[str, ...]
    reason: str = ""
    until: int | None = None


class ResumeJobs(Command, frozen=True, kw_only=True, omit_defaults=True, tag="resume_jobs"):
    jobs: tuple[str, ...]


# --- fires and runs


class Fire(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One scheduled time of one job. `outcome` "" makes a run; "skipped" or "missed" records it as one that never starts, with `reason`."""

    job: str
    run: str
    scheduled_at: int
    due_at: int
    outcome: str = ""
    reason: str = ""


class Stretch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Many fires of one job that had no run, as one record. It grows the job's last stretch when outcome and reason are the same."""

    job: str
    first: int
    last: int
    count: int
    outcome: str  # skipped | missed
    reason: str


class FireRuns(Command, frozen=True, kw_only=True, omit_defaults=True, tag="fire_runs"):
    """Fires in the order of their scheduled time, and how far each job's schedule has been decided (inclusive).

    Each fire is checked against its job's `decided_until`, `version`, pause and overlap policy again; what fails is refused alone and named in the
    result (`{"refused": [[job, scheduled_at, why], ...]}`), the others stand. `decided` moves only for jobs without a refusal.
    """

    term: int
    fires: tuple[Fire, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    decided: dict[str, int] = {}
    versions: dict[str, int] = {}  # job -> project version the schedule was read from


class CreateRun(Command, frozen=True, kw_only=True, omit_defaults=True, tag="create_run"):
    """A run on demand. `key`: the client's Idempotency-Key, kept 24 h; the same key again answers with the first run."""

    job: str
    run: str
    params: dict[str, str] = {}
    trigger: str = "manual"
    key: str | None = None
    beside: bool = False  # `--now`: beside an earlier run, whatever the overlap policy


class CreateBackfill(Command, frozen=True, kw_only=True, omit_defaults=True, tag="create_backfill"):
    """Runs for past scheduled times, in this order, at most `parallel` at once. The leader has them made one after the other (BackfillRuns)."""

    backfill: str
    job: str
    times: tuple[int, ...]
    parallel: int = 1
    reason: str = ""


class BackfillRuns(Command, frozen=True, kw_only=True, omit_defaults=True, tag="backfill_runs"):
    """The next runs of a backfill, as far as the job's overlap policy lets them. `runs`: ids."""

    term: int
    backfill: str
    runs: tuple[str, ...]


class CancelBackfill(Command, frozen=True, kw_only=True, omit_defaults=True, tag="cancel_backfill"):
    """No more of its runs are made, and those that have not ended are cancelled."""

    backfill: str
    reason: str = ""


class CancelRun(Command, frozen=True, kw_only=True, omit_defaults=True, tag="cancel_run"):
    run: str
    reason: str = ""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    stage: str
    node: str
    attempt: str
    renew_hash: str  # hex SHA-256 of the attempt's renewal token
    reasons: str = ""  # what the others lacked, for `why`


class AssignStages(Command, frozen=True, kw_only=True, omit_defaults=True, tag="assign_stages"):
    """Each placement is checked again: stage still queued, overlap allows, node up and with free slots. What fails is refused alone."""

    term: int
    placements: tuple[Placement, ...]


class WaitReason(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    stage: str
    reason: str


class ExplainWaits(Command, frozen=True, kw_only=True, omit_defaults=True, tag="explain_waits"):
    """Why stages are not placed yet. Proposed only when a reason changed."""

    waits: tuple[WaitReason, ...]


class ReportEvents(Command, frozen=True, kw_only=True, omit_defaults=True, tag="report_events"):
    """Events of attempts on one node, in order. (attempt, seq) is applied once; a gap in seq is refused and asked for again."""

    node: str
    events: tuple[AttemptEvent, ...]


class AttemptsLost(Command, frozen=True, kw_only=True, omit_defaults=True, tag="attempts_lost"):
    """Leases and margins have run out (`rerun`), or the job's rule says so. Attempts that ended meanwhile are left as they are.

    `decision`: "" goes by the job's `on_node_loss`; "rerun" or "fail" is what a person decided about an attempt whose job waits for its node.
    """

    term: int
    attempts: tuple[str, ...]
    reason: str
    decision: str = ""


class DecideLost(Command, frozen=True, kw_only=True, omit_defaults=True, tag="decide_lost"):
    """A person's word on what a run has on nodes that are not heard and are waited for (`on_node_loss: wait`). `decision`: rerun or fail."""

    run: str
    decision: str
    reason: str = ""


class Prune(Command, frozen=True, kw_only=True, omit_defaults=True, tag="prune"):
    """Forget runs that ended before `runs_before`, command results and events before theirs; a bounded number a command.

    `created_before`: forget also those that were made before it and have ended, however lately: there are more runs than are kept.
    """

    runs_before: int
    created_before: int = 0
    results_before: int
    events_before: int
    activity_before: int = 0


AnyCommand = (
    FoundCluster
    | RaiseLedgerVersion
    | RegisterNode
    | NodeChanged
    | RemoveNode
    | SetAuthority
    | DropAuthority
    | KeyMade
    | KeyUsed
    | KeysDropped
    | SetSecret
    | RemoveSecret
    | ResealSecrets
    | CreateToken
    | RevokeToken
    | NoteTokenUses
    | LogIn
    | EndSession
    | PushProject
    | StagePush
    | PauseJobs
    | ResumeJobs
    | FireRuns
    | CreateRun
    | CancelRun
    | CreateBackfill
    | BackfillRuns
    | CancelBackfill
    | AssignStages
    | ExplainWaits
    | ReportEvents
    | AttemptsLost
    | DecideLost
    | Prune
)


class Origin(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Of a command that a person or a token sent: the token's id, and the address they came from."""

    token: str = ""
    address: str = ""


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`id` from words.new_id: its time says when it was made; one older than 24 h of ledger time is refused. `at`: the proposer's clock.

    Decoded by versions.CommandSet, with the commands that a build knows; proposed through its `entry`, which knows what the cluster knows.
    """

    id: str
    at: int
    actor: str = ""
    origin: Origin | None = None
    command: AnyCommand


class Done(msgspec.Struct, tag="done", frozen=True, omit_defaults=True):
    value: Any = None


class Refused(msgspec.Struct, tag="refused", frozen=True, omit_defaults=True):
    """`error` is the name of a class in words.ERRORS; `faults` its lines where it is Invalid."""

    error: str
    message: str
    hint: str = ""


Result = Done | Refused

encode_envelope = msgspec.msgpack.Encoder(order="deterministic").encode
encode_push: Callable[[PushProject], bytes] = encode_envelope
decode_push: Callable[[bytes], PushProject] = msgspec.msgpack.Decoder(PushProject).decode
encode_result: Callable[[Result], bytes] = encode_envelope
decode_result: Callable[[bytes], Result] = msgspec.msgpack.Decoder(Result).decode
