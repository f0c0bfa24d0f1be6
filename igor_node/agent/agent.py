"""The table of attempts on this node, and what happens to each: assigned, launched, watched, reported, acknowledged, put away.

`Agent.serve` runs until it is cancelled; that ends no command: wrappers go on by themselves, and the next agent on the same folders finds them. The
agent decides nothing about a run. It makes a folder, asks for a wrapper, reads what the wrapper records, and reports it; a restart loses nothing,
because everything it knows stands in the folders.

    assignment ─▶ folder made (exclusive) ─▶ wrapper asked for ─▶ events read and reported ─▶ end acknowledged ─▶ moved to done/
                                                  ▲                     │
                                                  └── the lock is free and no end is recorded: the wrapper was killed; another one goes on
                                                      from the event file (it never starts a try again that had begun)

An attempt is in the table before its folder is made, and from the start of the agent on, so that every heartbeat names it: wrappers rely on that
(`protocol.Lease`). Why an assignment that comes too late does not start: `pulse.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from igor_node import stream
from igor_node.agent.environment import command_environment, make_spec
from igor_node.agent.folders import ATTEMPT, Folders
from igor_node.agent.launch import Launcher
from igor_node.agent.link import HighestTerm, Link
from igor_node.agent.logs import Logs
from igor_node.agent.pulse import Pulse
from igor_node.agent.reports import Reports
from igor_node.words import SECOND, IgorError, NotFound, Span, wall_now
from wrapper import protocol

T = TypeVar("T")

LOOK_S = 1.0  # between two looks at all open attempts, for what was not told: a wrapper that was killed, a wake that was lost
LAUNCH_PATIENCE_NS = 3 * SECOND  # a wrapper that was asked for has its lock by then
LAUNCHES_LIMIT = 6  # without anything recorded in between; then the attempt is given up
ALL_EVENTS = 1 << 62  # a seq above every other
PRUNE_S = 600.0
WAKE_BYTES = 1 << 16
MISSING = -1  # in place of a size: there is no folder
KEEP_LOGS = Span(30 * 86_400 * SECOND)

log = structlog.get_logger("agent")


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """`folder` holds the attempts, `term_file` the highest term seen. `token` and `addresses` are asked anew for each connection.

    `on_standing(member, index)`: what a leader says this node is, as of that index; None: the cluster does not know it (any more).
    `on_refused`: the cluster will have no more of this process.
    """

    node: str
    name: str
    address: str
    cluster: str
    folder: Path
    term_file: Path
    token: Callable[[], str]
    addresses: Callable[[], Sequence[str]]  # base URLs, likely leader first
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)  # what the node's owner gives to every command
    users: tuple[str, ...] = ()  # as whom else commands may run
    keep_logs: Span = KEEP_LOGS
    ledger_version: int = 0  # the highest that this program knows
    mark: Callable[[], tuple[int, bytes] | None] = lambda: None  # the newest index and digest of the ledger here
    differs: Callable[[stream.Differs], Awaitable[None]] | None = None  # the leader says that the ledger here is wrong
    keys: Callable[[], tuple[bytes, ...]] = lambda: ()  # marks of the cluster's keys here
    trust: Callable[[], bytes] = lambda: b""  # mark of this node's CA
    renew: Callable[[], None] = lambda: None  # the leader says that the certificate is to be renewed
    epoch: int = 0
    on_standing: Callable[[bool | None, int], None] = lambda member, index: None
    on_refused: Callable[[str], None] = lambda reason: None
    asking: Callable[[], ssl.SSLContext | bool] = lambda: True  # for each connection to another node
    secrets: Callable[[str], Awaitable[dict[str, Any]]] | None = None  # of an attempt: what its wrapper is given; raises IgorError
    authorities: str = ""  # file with the CAs that wrappers trust; "": a cluster without TLS


@dataclass
class Open:
    """One attempt that has not ended and been acknowledged."""

    attempt: str
    read_bytes: int = 0  # of its event file
    last_seq: int = 0
    ended: bool = False
    broken: bool = False  # its event file cannot be read; it is not named any more
    launches: int = 0  # since something was recorded
    launched_boot_ns: int = 0
    has_secrets: bool | None = None  # None: its spec, of an earlier life of this node, was not looked at yet
    asks_for_secrets: bool = False  # just now
    missing_since_ns: int = 0  # on CLOCK_BOOTTIME; 0: its folder is there


class Agent:
    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.folders = Folders(settings.folder)
        self.folders.prepare()
        # One thread for all work on attempts' folders (`folders.py` says why one).
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="attempts")
        self.logs = Logs(self.folders)
        self.pulse = Pulse(settings.folder, protocol.read_boot_id())
        self.reports = Reports()
        self.launcher = Launcher(settings.folder, self._trouble)
        self.link = Link(
            self, self.pulse, self.reports, HighestTerm(settings.term_file), node=settings.node, token=settings.token, addresses=settings.addresses,
            asking=settings.asking,
        )  # fmt: skip
        self._open: dict[str, Open] = {}
        self._wake_rest = b""
        self._look_now = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._instance = secrets.token_hex(8)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        await self._attach()
        wake = os.open(self.settings.folder / protocol.WAKE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # read-write: it never ends
        loop.add_reader(wake, self._woken, wake)
        self.launcher.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look_loop())
                group.create_task(self._prune_loop())
                group.create_task(self.link.serve())
        finally:
            loop.remove_reader(wake)
            os.close(wake)
            for task in self._asking:
                task.cancel()
            self.launcher.close()
            self._disk.shutdown(wait=True)

    @property
    def running(self) -> int:
        return sum(not attempt.ended for attempt in self._open.values())

    # --- the beginning

    async def _attach(self) -> None:
        """What is there from before: alive, to be gone on with, or ended and not acknowledged."""
        for name in await self._on_disk(self.folders.open_attempts):
            self._open[name] = Open(name)
        await self._look()

    # --- what wrappers record

    def _woken(self, fd: int) -> None:
        try:
            data = self._wake_rest + os.read(fd, WAKE_BYTES)
        except BlockingIOError:
            return
        *lines, self._wake_rest = data.split(b"\n")
        told: dict[str, int] = {}
        for line in lines:
            name, _, size = line.decode(errors="replace").partition(" ")
            if size.isdigit():
                told[name] = int(size)
        for name, upto in told.items():
            if name in self._open:
                self._read_events(self._open[name], upto)

    def _read_events(self, entry: Open, upto: int) -> None:
        if entry.ended or entry.broken or upto <= entry.read_bytes:
            return
        try:
            with open(self.folders.path(entry.attempt) / protocol.EVENTS, "rb", buffering=0) as file:
                file.seek(entry.read_bytes)
                events, used = protocol.parse_events(file.read(upto - entry.read_bytes), entry.last_seq + 1)
            found = [msgspec.convert({**event, "attempt": entry.attempt}, stream.AttemptEvent) for event in events]
        except (OSError, protocol.Damaged, msgspec.ValidationError) as problem:
            log.error("the events of an attempt cannot be read", attempt=entry.attempt, reason=str(problem))
            entry.broken = True
            return
        if found:
            entry.read_bytes += used
            entry.last_seq = found[-1].seq
            entry.launches = 0
            entry.ended = found[-1].kind in protocol.LAST_KINDS
            self.reports.add(found)

    # --- looking after wrappers

    async def _look_loop(self) -> None:
        while True:
            self._look_now.clear()
            try:
                await self._look()
            except OSError as problem:  # no descriptor or no room just now: the next look may have them
                log.error("the attempts cannot be looked at", reason=str(problem))
            try:
                await asyncio.wait_for(self._look_now.wait(), LOOK_S)
            except TimeoutError:
                pass

    async def _look(self) -> None:
        names = [entry.attempt for entry in self._open.values() if not entry.ended and not entry.broken]
        for name, size, holder in await self._on_disk(self._survey, names):
            entry = self._open.get(name)
            if entry is None:
                continue
            if size == MISSING:
                self._miss(entry)
                continue
            entry.missing_since_ns = 0
            self._read_events(entry, size)
            if not holder and not entry.ended:
                await self._launch_again(entry)

    def _miss(self, entry: Open) -> None:
        """No folder, so no wrapper. For a moment that is the way of things; if it stays so the lease must not be kept alive for nobody."""
        now = protocol.boot_ns()
        entry.missing_since_ns = entry.missing_since_ns or now
        if now - entry.missing_since_ns > LAUNCH_PATIENCE_NS:
            log.error("the folder of an attempt is gone; its lease is left to run out", attempt=entry.attempt)
            entry.broken = True

    def _survey(self, names: list[str]) -> list[tuple[str, int, int]]:
        """(attempt, size of its events, pid of its wrapper). The lock first: a wrapper that ends in between has recorded its end by then."""
        found = []
        for name in names:
            folder = self.folders.path(name)
            if not folder.is_dir():
                found.append((name, MISSING, 0))  # the call that makes it, or brings it back, waits behind this one
                continue
            holder = protocol.lock_holder(str(folder / protocol.LOCK))
            found.append((name, _synced_size(folder / protocol.EVENTS, self._open.get(name)), holder))
        return found

    async def _launch_again(self, entry: Open) -> None:
        now = protocol.boot_ns()
        if now - entry.launched_boot_ns < LAUNCH_PATIENCE_NS:
            return
        if entry.launches >= LAUNCHES_LIMIT:
            reason = f"no wrapper could be started, {LAUNCHES_LIMIT} times in a row; `wrappers.log` in the node's attempts folder may say why"
            log.error("an attempt is given up", attempt=entry.attempt, reason=reason)
            await self._on_disk(self.folders.give_up, entry.attempt, reason, self.pulse.now())
            self._look_now.set()
            return
        self._launch(entry)

    def _launch(self, entry: Open) -> None:
        entry.launches += 1
        entry.launched_boot_ns = protocol.boot_ns()
        if entry.has_secrets is None:
            entry.has_secrets = self._names_secrets(entry.attempt)
        if not entry.has_secrets:
            self.launcher.request(entry.attempt)
        elif not entry.asks_for_secrets:
            entry.asks_for_secrets = True
            task = asyncio.ensure_future(self._launch_with_secrets(entry))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def _names_secrets(self, attempt: str) -> bool:
        try:
            return bool((protocol.load_json(str(self.folders.path(attempt) / protocol.SPEC)) or {}).get("secrets"))
        except OSError:
            return False  # the wrapper begins nothing without what its spec names

    async def _launch_with_secrets(self, entry: Open) -> None:
        """They go from memory to memory. Where nobody gives them just now the next look asks again: the wrapper begins nothing without."""
        assert self.settings.secrets is not None
        try:
            given = await self.settings.secrets(entry.attempt)
        except NotFound as problem:  # the ledger has ended it: whatever the leader says of it comes by the stream
            log.info("no secrets for an attempt", attempt=entry.attempt, reason=str(problem))
        except IgorError as problem:
            log.warning("the secrets of an attempt are not here yet; asking again", attempt=entry.attempt, reason=str(problem))
            entry.launches, entry.launched_boot_ns = entry.launches - 1, 0  # that was none
        else:
            self.launcher.request(entry.attempt, json.dumps(given).encode())
        finally:
            entry.asks_for_secrets = False

    def _trouble(self, attempt: str, what: str) -> None:
        log.warning("trouble with a wrapper", attempt=attempt, what=what)
        if (entry := self._open.get(attempt)) is not None:
            if what.startswith("exit"):
                entry.launched_boot_ns = 0  # it is known to be dead: no patience
            self._look_now.set()

    # --- what the leader says (link.Duties)

    def hello(self, term: int) -> stream.Hello:
        settings = self.settings
        return stream.Hello(
            protocol=stream.PROTOCOL, node=settings.node, name=settings.name, address=settings.address, labels=dict(settings.labels),
            slots=settings.slots, version=settings.version, cluster=settings.cluster, boot_id=self.pulse.boot_id, term=term,
            attempts=tuple(self._open), ledger_version=settings.ledger_version, epoch=settings.epoch, instance=self._instance,
        )  # fmt: skip

    def unknown(self) -> None:
        self.settings.on_standing(None, 0)

    def refused(self, reason: str) -> None:
        self.settings.on_refused(reason)

    def heartbeat(self, seq: int) -> stream.Heartbeat:
        attempts = tuple(name for name, entry in self._open.items() if not entry.ended and not entry.broken)
        load = int(os.getloadavg()[0] * 1000)
        mark = self.settings.mark()
        error_ns, within_ns = self.pulse.reading(wall_now())
        return stream.Heartbeat(
            seq=seq, attempts=attempts, load_milli=load, memory_free_bytes=_memory_free(), mark=mark,
            clock_error_ns=error_ns, clock_within_ns=within_ns, keys=self.settings.keys(), trust=self.settings.trust(),
        )  # fmt: skip

    async def handle(self, message: stream.ToNode) -> None:
        match message:
            case stream.Assign():
                await self._assign(message.assignments)
            case stream.Acknowledge():
                await self._acknowledge(message.upto)
            case stream.Revoke():
                await self._ask_all(message.attempts, "revoke", message.reason)
            case stream.Cancel():
                await self._ask_all(message.attempts, "cancel", message.reason)
            case stream.Differs() if self.settings.differs is not None:
                await self.settings.differs(message)
            case stream.Renew():
                self.settings.renew()
            case stream.Welcome():
                self.settings.on_standing(message.member, message.index)
                await self._forget(message.forget)

    async def _assign(self, assignments: Sequence[stream.Assignment]) -> None:
        """Folders are made first, for all of them in one go; then wrappers are asked for."""
        lease_base = self.pulse.lease_base
        specs = {}
        for assignment in assignments:
            name = assignment.attempt
            if name in self._open or not ATTEMPT.fullmatch(name):
                continue  # delivered before: its events tell what became of it
            clock_ns, boot_id = self.pulse.clock_ns, self.pulse.boot_id
            try:
                if assignment.user is not None and assignment.user not in self.settings.users:
                    raise KeyError(assignment.user)
                environment = command_environment(assignment, self.settings.name, self.settings.environment)
                specs[name] = make_spec(
                    assignment, environment=environment, clock_ns=clock_ns, boot_id=boot_id, lease_from_boot_ns=lease_base,
                    authorities=self.settings.authorities,
                )  # fmt: skip
            except KeyError:
                specs[name] = {"refuse": f"the owner of node {self.settings.name} does not let commands run as user {assignment.user}"}
            except msgspec.ValidationError as problem:
                specs[name] = {"refuse": f"the assignment cannot be understood: {problem}"}
            if not self.pulse.lease_good(assignment.lease_ns, protocol.boot_ns()):
                specs[name] = {"refuse": "the assignment came when its lease was already over"}
            self._open[name] = Open(name, has_secrets=bool(assignment.secrets))
        for name, outcome in (await self._on_disk(self._make_folders, specs)).items():
            self._made(self._open[name], outcome)

    def _make_folders(self, specs: Mapping[str, dict[str, Any]]) -> dict[str, str]:
        """attempt -> empty, or why it cannot run here; `taken` where there was a folder."""
        results = {}
        for name, spec in specs.items():
            try:
                if "refuse" in spec:
                    made = self.folders.create_ended(name, "refused", spec["refuse"], self.pulse.now())
                    results[name] = "refused" if made else "taken"
                else:
                    results[name] = "" if self.folders.create(name, spec) else self._take_again(name)
            except OSError as problem:
                self.folders.discard(name)
                results[name] = f"no folder could be made for it: {problem.strerror}"
        return results

    def _take_again(self, name: str) -> str:
        """The ledger has forgotten what it acknowledged (it went back to an older state), so it is told again."""
        if not self.folders.path(name).is_dir():
            self.folders.reopen(name)
        return "taken"

    def _made(self, entry: Open, problem: str) -> None:
        if not problem:
            self._launch(entry)
        elif problem in ("taken", "refused"):
            self._look_now.set()
        else:  # a full disk: the refusal itself is kept in memory alone, nothing has begun and nothing will
            entry.ended, entry.last_seq = True, 1
            self.reports.add([stream.AttemptEvent(attempt=entry.attempt, seq=1, kind="refused", at=self.pulse.now(), reason=problem)])

    async def _ask_all(self, attempts: Sequence[str], what: str, reason: str) -> None:
        for name in attempts:
            entry = self._open.get(name)
            if entry is None and ATTEMPT.fullmatch(name):
                await self._revoke_unknown(name, reason)
            elif entry is not None and not entry.ended:
                await self._on_disk(self.folders.ask, name, what, reason)

    async def _revoke_unknown(self, name: str, reason: str) -> None:
        """Its assignment never came, or is still under way: whoever delivers it later finds the folder taken."""
        self._open[name] = Open(name)
        if not await self._on_disk(self.folders.create_ended, name, "revoked", reason, self.pulse.now()):
            await self._on_disk(self._take_again, name)
        self._look_now.set()

    async def _acknowledge(self, upto: Mapping[str, int]) -> None:
        self.reports.acknowledge(upto)
        finished = [name for name, seq in upto.items() if (entry := self._open.get(name)) and entry.ended and seq >= entry.last_seq]
        await self._put_away(finished)

    async def _forget(self, attempts: Sequence[str]) -> None:
        """The ledger is done with them. One that still runs here was given up and perhaps replaced: it is ended, and its end put away later."""
        self.reports.acknowledge(dict.fromkeys(attempts, ALL_EVENTS))
        await self._put_away([name for name in attempts if (entry := self._open.get(name)) and entry.ended])
        for name in attempts:
            if name in self._open:
                await self._on_disk(self.folders.ask, name, "cancel", "the cluster has given this attempt up")

    async def _put_away(self, names: list[str]) -> None:
        for name in names:
            del self._open[name]
        if names:
            await self._on_disk(self.folders.finish, names)

    # --- the rest

    async def _prune_loop(self) -> None:
        while True:
            try:
                removed = await self._on_disk(self.folders.prune, wall_now(), self.settings.keep_logs)
            except OSError as problem:
                log.error("old attempts cannot be removed", reason=str(problem))
            else:
                log.debug("old attempts were removed", count=removed)
            await asyncio.sleep(PRUNE_S)

    async def _on_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)


def _synced_size(path: Path, entry: Open | None) -> int:
    """The size of an event file up to which it is on disk: what nobody told may not have been synced."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        size = os.fstat(fd).st_size
        if entry is None or size > entry.read_bytes:
            os.fdatasync(fd)
        return size
    finally:
        os.close(fd)


def _memory_free() -> int:
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
