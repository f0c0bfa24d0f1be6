"""A node: puts the parts together, and is the only module that knows them all.

run_node(settings, join)          from `igor-node start` and `join`; returns the process's exit code
  lock the data directory         one process a directory (data_dir.py)
  open the port                   so that the address is known before anybody is told of it
  found, join or go on            whatever the directory and the call say
  ledger, replica, reads          consensus and the replicated state
  leader, agent, http             the loops of a leader whenever this node leads; runs of this node; the API
  wait for SIGTERM, or a halt     hand over leadership, stop in order; running commands go on under their wrappers
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import structlog

from igor_node import __version__, certified
from igor_node.agent.agent import Agent, AgentSettings
from igor_node.data_dir import DataDir, DataDirProblem, Identity
from igor_node.edges import SystemClock
from igor_node.founding import Founding
from igor_node.http.api.secrets import opened
from igor_node.http.app import make_app
from igor_node.http.listener import Listener, address_of, is_loopback, open_port
from igor_node.http.origins import host_of
from igor_node.http.services import Me, Services
from igor_node.leader.leader import Leader
from igor_node.leader.renewal import is_renewal_token
from igor_node.ledger import distrust, query_authorities, query_cluster, query_digests, query_secrets
from igor_node.ledger.changes import Changes
from igor_node.ledger.commands import Envelope, SetAuthority
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.pages import DamagedLedger
from igor_node.ledger.reads import Reads
from igor_node.own_keys import OwnKeys
from igor_node.peers import MOVED_LIMIT, RefusedByCluster, ask_around, ask_node, ask_to_join, whereabouts
from igor_node.settings import Join, NodeSettings, default_name, split_address
from igor_node.stream import Differs
from igor_node.tasks import first_of
from igor_node.trust.contexts import AUTHORITIES, Trust
from igor_node.trust.keys import Keys, new_ring, parse_ring
from igor_node.trust.pins import PLAIN, NotThisCluster, asking_context, fetch_authority, fingerprint_in
from igor_node.words import SECOND, USER_LABEL, Conflict, IgorError, Invalid, NotFound, Unavailable, base_url
from raft.interface import Halted, Members, NotLeader, Unknown
from raft.recovery import read_epoch
from raft.reinstall import fetch_copy
from raft.replica import Replica
from raft.snapshot import TransferFailed
from raft.wire import MAGIC, mark_of

STOPPED, FAILED, USAGE, REFUSED = 0, 1, 2, 4  # exit codes; 3 is DataDirProblem's own
REMOVE_TIMEOUT_S = 30.0
JOIN_AGAIN_S = 2.0  # a node that goes on and could not tell its cluster so
LOOK_AROUND_S = (0.3, 0.9)  # between two rounds of asking for the others while no leader is known; by chance within these
NOTE_PEERS_S = 0.2  # how soon an address that was learned is kept
ASK_MEMBERS_NS = 60 * SECOND  # how often a node without a ledger asks for the members
HAND_OVER_S = 1.5  # a planned stop costs no election time-out
SECRETS_PATIENCE_S = 1.0  # with the leader; commands are handed out longer than that before they are due
REINSTALL_PAUSE_S = 1.0
PIN_TIMEOUT_S = 5.0  # until a peer has shown its certificates
RENEW_LOOK_S = 600.0  # between two looks at the certificate's end
RENEW_AGAIN_S = 5.0
LEADER_PAUSE_S = 1.0  # after a fault in a leader's loops, before they are started again

log = structlog.get_logger("node")


def run_node(settings: NodeSettings, *, join: Join | None) -> int:
    """Serves until it is told to stop. Whatever forbids a start is one line on standard error."""
    configure_logging(settings)
    try:
        return asyncio.run(Node(settings, join).run())
    except DataDirProblem as problem:
        return _say(problem, problem.exit_code)
    except RefusedByCluster as problem:
        return _say(problem, REFUSED)
    except Invalid as problem:
        return _say(problem, USAGE)
    except (IgorError, Halted, OSError) as problem:
        return _say(problem, FAILED)


def _say(problem: BaseException, code: int) -> int:
    print(f"igor-node: {problem}", file=sys.stderr)
    return code


def configure_logging(settings: NodeSettings) -> None:
    """Lines to standard error: text on a terminal, JSON otherwise. Libraries' own lines take the same way."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.getLogger("asyncio").setLevel("WARNING")
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class Node:
    def __init__(self, settings: NodeSettings, join: Join | None) -> None:
        self.settings = settings
        self.join = join
        self.data = DataDir(settings.data_dir)
        self.clock = SystemClock()
        self.changes = Changes()
        self.stop = asyncio.Event()
        self.halted: str | None = None
        self.refused: str | None = None
        self.epoch = 0  # the highest that this node was told of
        self.moved: dict[str, str] = {}  # node -> HOST:PORT, as others said while no leader was known
        self.introduced = True  # false: `join` found nobody who could write it down
        self.current_from = 0  # the ledger here answers from this index on
        self.unknown = False  # somebody said that the cluster does not know this node (any more)
        self.tls = False
        self.trust: Trust | None = None
        self.pinned: Any = None  # what to ask with instead, as long as this node has no certificate that is good
        self.removed: frozenset[str] = frozenset()  # nodes whose certificates are good for nothing any more
        self.keys = Keys(None)
        self.wants_key = asyncio.Event()
        self.wants_certificate = asyncio.Event()  # the cluster's CA is another one
        self.trust_mark = b""
        self.listening = ""  # HOST:PORT
        self.identity: Identity
        self.ledger: Ledger
        self.replica: Replica
        self.agent: Agent
        self.own_keys: OwnKeys
        self.reads: Reads

    async def run(self) -> int:
        self._handle_signals()
        self.data.lock()
        if self.join is not None and self.join.reset:
            self.data.reset()
        known = self.data.read_identity()
        self.tls = self._has_tls(known)
        sock = self._open_port(known)
        try:
            self.listening = address_of(sock)
            self.identity = await self._become(known, self.settings.advertise or self.listening)
            self.keys = Keys(self.data.ring())
            if self.keys.ring is None and not self.tls:
                raise DataDirProblem(f"{self.data.path / 'cluster.key'} is missing", hint="restore it, or join anew with an empty folder")
            if self.tls and self.trust is None:
                self.trust = self._make_trust()
            await self._serve(sock)
        finally:
            sock.close()
        if self.refused is not None:
            raise RefusedByCluster(self.refused)
        if self.halted is not None:
            raise Halted(f"the node has stopped: {self.halted}")
        return STOPPED

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)

    # --- who this node is

    def _open_port(self, known: Identity | None) -> Any:
        """The address asked for; a node that was in service before keeps its own where none, or any port, was asked for."""
        host, port = split_address(self.settings.listen)
        if known is not None and ("listen" not in self.settings.given or port == 0):
            before_host, before_port = split_address(known.listen or known.address)
            try:
                return open_port(before_host if "listen" not in self.settings.given else host, before_port)
            except Conflict:
                if port != 0 or "listen" not in self.settings.given:
                    raise
        return open_port(host, port)

    def _has_tls(self, known: Identity | None) -> bool:
        """It is decided when the cluster is founded. Raises Invalid where a cluster without it is to be served off loopback."""
        host = self.settings.listen_host
        if known is not None:
            tls = known.tls
        elif self.join is not None:
            tls = fingerprint_in(self.join.token) is not None
        else:
            tls = self.settings.tls == "on" or not is_loopback(host)
        if not tls and not is_loopback(host):
            whose = "this cluster was founded" if known is not None or self.join is not None else "a cluster is founded"
            raise Invalid(
                f"{host} is not on loopback, and {whose} without TLS",
                hint="listen on 127.0.0.1, [::1] or localhost; a cluster for several machines is founded off loopback, or with --tls on",
            )
        if not tls and self.settings.tls == "on":
            raise Invalid("this cluster was founded without TLS", hint="found another one with --tls on")
        if tls and self.settings.auth == "off":
            raise Invalid("auth is off, and this cluster has TLS", hint="only a cluster without TLS, on loopback alone, may do without tokens")
        return tls

    async def _become(self, known: Identity | None, address: str) -> Identity:
        if known is not None:
            if self.join is not None and self.join.ephemeral and not known.ephemeral:
                hint = "leave --ephemeral out; or take this node out (igor-node leave) and join anew with --reset"
                raise Invalid(f"{self.data.path} is node {known.name}, which joined to stay", hint=hint)
            if self.join is not None and self.join.token is not None and not certified.knows_ca(self.data, fingerprint_in(self.join.token)):
                raise RefusedByCluster(
                    "the token is of another cluster",
                    hint=f"{self.data.path} is node {known.name} of cluster {known.cluster}; to give that up and join anew: igor-node join --reset",
                )
            if self.tls:
                await self._trust_again()
            await self._look_for_itself(known, address)
            await self._check_cluster(known, address)
            if self.pinned is not None and not self.introduced:
                raise Unavailable("no peer could be asked for a new certificate", hint="is one of them running, and is the address right?")
            given = {name: getattr(self.settings, name) for name in ("name", "labels", "slots") if name in self.settings.given}
            identity = msgspec.structs.replace(known, address=address, listen=self.listening, pid=os.getpid(), **given)
        elif self.join is not None:
            identity = await self._join(address)
        else:
            identity = Identity(
                name=self.settings.name or default_name(), id=secrets.token_hex(8), cluster=secrets.token_hex(8), address=address, founder=True,
                pid=os.getpid(), labels=dict(self.settings.labels), slots=self.settings.slots, listen=self.listening, tls=self.tls,
            )  # fmt: skip
            ring = new_ring()
            self.data.write_ring(ring)
            if self.tls:
                certified.found(
                    self.data, ring, node=identity.id, cluster=identity.cluster, named=certified.names(address, self.listening), now_s=self._now_s()
                )
        self.data.write_identity(identity)
        return identity

    async def _look_for_itself(self, known: Identity, address: str) -> None:
        """Before it serves: is somebody in service already with this identity, and has the cluster been recovered meanwhile?"""
        self.epoch = read_epoch(self.data.path / "raft").epoch
        urls = [*self._told(), *self.data.peers(), self._url(known.address)]
        answers = await ask_around([url for url in urls if url != self._url(address)], self._node_token(), self._asking())
        answers = [(url, found) for url, found in answers if found.cluster == known.cluster]
        for url, found in answers:
            if found.id == known.id:
                raise RefusedByCluster(
                    f"node {known.name} is in service at {url} already: {self.data.path} is a copy of its data directory",
                    hint="an identity is used once; to make this another node: igor-node join --reset",
                )
            self.epoch = max(self.epoch, found.epoch)
        self._note_moved(whereabouts(answers))

    async def _check_cluster(self, known: Identity, address: str) -> None:
        """`join` on a directory in use goes on in its own cluster, and is refused by another one. Where nobody answers, it goes on."""
        if self.join is None:
            return
        body = {
            "id": known.id, "name": known.name, "address": address, "labels": known.labels, "slots": known.slots, "version": __version__,
            "cluster": known.cluster, "epoch": self.epoch, "ephemeral": known.ephemeral, **self._signing_request(known.id, address),
        }  # fmt: skip
        try:
            answer = await ask_to_join(self._told(), self.join.token or self._node_token(), body, within_s=0, tls=self._asking())
            self._take_certificate(answer)
            self.data.write("node.token", answer["token"] + "\n", secret=True)  # another one, where the node had left
            self.introduced = True
        except Unavailable as problem:
            if self.introduced:
                log.warning("no peer could take it in; the node goes on as what it is, and asks again", reason=problem.message)
            self.introduced = False  # they may wait for this very node to have a quorum
        except RefusedByCluster as problem:
            hint = f"{self.data.path} is node {known.name} of cluster {known.cluster}; to give that up and join anew: igor-node join --reset"
            raise RefusedByCluster(problem.message, hint=hint) from None

    async def _join(self, address: str) -> Identity:
        """Asks the peers, one after the other, until one of them has registered this node."""
        assert self.join is not None
        token = self.join.token
        if token is None:
            raise RefusedByCluster("joining needs a token", hint="give --token-file with the founder's join.token")
        name = self.settings.name or default_name()
        node = self.data.read("node.id") or secrets.token_hex(8)
        self.data.write("node.id", node + "\n")  # an answer that was lost must not leave a second node behind
        labels, slots = dict(self.settings.labels), self.settings.slots
        tls = await self._pin(token)
        body = {
            "id": node, "name": name, "address": address, "labels": labels, "slots": slots, "version": __version__,
            "ephemeral": self.join.ephemeral, **self._signing_request(node, address),
        }  # fmt: skip
        answer = await ask_to_join(self._told(), token, body, tls=tls)
        self.epoch = answer["epoch"]
        self._take_certificate(answer)
        if "key" in answer:
            self.data.write_ring(parse_ring(answer["key"]))
        self.data.write("node.token", answer["token"] + "\n", secret=True)
        self.data.write_peers([*self._told(), *(self._url(member["address"]) for member in answer["members"] if member["address"] != address)])
        self.data.remove("node.id")
        return Identity(
            name=answer.get("name", name), id=node, cluster=answer["cluster"], address=address, pid=os.getpid(), labels=labels, slots=slots,
            listen=self.listening, tls=self.tls, ephemeral=self.join.ephemeral,
        )  # fmt: skip

    # --- TLS

    async def _pin(self, token: str) -> Any:
        """Finds the CA that the token names at one of the peers, before anything is said to any of them. What to ask with from then on."""
        fingerprint = fingerprint_in(token)
        if fingerprint is None:
            return True
        silent: list[str] = []
        for url in self._told():
            host, port = split_address(url.partition("://")[2])
            try:
                authority = await asyncio.to_thread(fetch_authority, host, port, fingerprint, PIN_TIMEOUT_S)
                return asking_context(authority)
            except NotThisCluster as problem:
                raise RefusedByCluster(f"{url}: {problem}", hint="is the token of this cluster, and the address that of one of its nodes?") from None
            except OSError as problem:
                silent.append(f"{url} ({str(problem.strerror or problem).lower()})")
        raise Unavailable(f"no peer could be asked to join: {', '.join(silent)}", hint="is one of them running, and is the address right?")

    def _signing_request(self, node: str, address: str) -> dict[str, str]:
        return {"request": certified.ask(self.data, node, certified.names(address, self.listening))} if self.tls else {}

    def _take_certificate(self, answer: Mapping[str, Any]) -> None:
        if not self.tls:
            return
        certified.take(self.data, certified.Signed(certificate=answer["certificate"], authorities=answer["authorities"]))
        if self.trust is not None:
            self.trust.renew()
            self.trust_mark = certified.trust_mark(self.data)

    async def _trust_again(self) -> None:
        """Of a node that was in service before. Where its certificate has ended it must show a token to get another. Raises RefusedByCluster."""
        if certified.facts(self.data).ends_s > self._now_s():
            self.trust = self._make_trust()
        elif self.join is not None and self.join.token is not None:
            self.pinned = await self._pin(self.join.token)
        else:
            raise RefusedByCluster("this node's certificate has ended while it was away", hint="igor-node join PEER --token-file F gets another")

    def _make_trust(self) -> Trust:
        self.trust_mark = certified.trust_mark(self.data)
        return Trust(self.data.path, lambda node: node not in self.removed)

    def _asking(self) -> Any:
        """For connections to other nodes."""
        return self.trust.asking() if self.trust is not None else True if self.pinned is None else self.pinned

    async def _sign(self, request: str, node: str) -> certified.Signed:
        ring = self.keys.ring
        if ring is None:
            raise Unavailable("this node does not hold the cluster's key", hint="ask the leader")
        cluster, now_s = self.identity.cluster, self._now_s()
        return await self.reads.query(lambda connection: certified.sign(connection, ring, request, node=node, cluster=cluster, now_s=now_s))

    async def _renew(self) -> None:
        """Asks for another certificate in time, when the node is asked under other names, or when the leader says that the CA is another one."""
        named = certified.names(self.identity.address, self.listening)
        while self.tls:
            if self.wants_certificate.is_set() or certified.wants_renewal(certified.facts(self.data), named, self._now_s()):
                self.wants_certificate.clear()
                try:
                    answer = await self._ask_leader("POST", "/v1/node/certificate", self._signing_request(self.identity.id, self.identity.address))
                    self._take_certificate(answer)
                    log.info("the certificate of this node was renewed")
                except (IgorError, KeyError) as problem:
                    log.warning("the certificate of this node could not be renewed yet", reason=str(problem))
                    await self.clock.sleep(RENEW_AGAIN_S)  # what asked for it asks again: a date, or the leader
                    continue
            await first_of(self.wants_certificate.wait(), self.clock.sleep(RENEW_LOOK_S))

    async def _next_authority(self) -> SetAuthority:
        ring = self.keys.ring
        if ring is None:
            raise Unavailable("this node does not hold the cluster's key", hint="ask the leader")
        cluster, now_s = self.identity.cluster, self._now_s()
        return await self.reads.query(lambda connection: certified.next_authority(connection, ring, cluster, now_s))

    async def _ask(self, url: str) -> dict[str, Any]:
        return await ask_node("GET", url, self._node_token(), None, self._asking())

    async def _ask_leader(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        leader = self._leader_address()
        if leader is None:
            raise Unavailable("no leader is known")
        return await ask_node(method, f"{leader}{path}", self._node_token(), body, self._asking())

    async def _secrets(self, attempt: str) -> dict[str, Any]:
        """What the wrapper of an attempt on this node is given. The leader is asked, since the ledger here may be behind a value that was set just
        now; where it does not answer, what is here will do: whoever hands out a command before it is due counts on no leader at that moment."""
        try:
            async with asyncio.timeout(SECRETS_PATIENCE_S):
                return await self._ask_leader("POST", f"/v1/attempts/{attempt}/secrets")
        except (Unavailable, TimeoutError) as problem:
            given = await self._secrets_here(attempt)
            if given is None:
                raise Unavailable(f"the leader gives no secrets: {problem or 'it does not answer'}") from None
            return given

    async def _secrets_here(self, attempt: str) -> dict[str, Any] | None:
        """From this node's own ledger. None: it does not have them, or is behind the attempt, or the key has not come yet."""
        if self.keys.ring is None or not self._holds_ledger():
            return None
        try:
            wanted = await self.reads.query(lambda connection: query_secrets.wanted_by(connection, attempt))
        except NotFound:
            return None
        given = opened(self.keys.ring, wanted)
        return None if "refuse" in given else given

    def _labels(self) -> dict[str, str]:
        """With one for each user as whom commands may run here."""
        own = {name: value for name, value in self.identity.labels.items() if not name.startswith(USER_LABEL)}
        return own | {f"{USER_LABEL}{user}": "yes" for user in self.settings.users}

    def _note_removed(self, removed: frozenset[str]) -> None:
        """Nodes that were taken out are cut off."""
        if removed != self.removed:
            self.removed = removed
            self.replica.check_members()

    def _now_s(self) -> int:
        return self.clock.now() // SECOND

    # --- service

    async def _serve(self, sock: Any) -> None:
        me = self.identity
        folder = self.data.path
        async with AsyncExitStack() as stack:
            opened = await self._open_ledger(folder / "ledger.sqlite")
            if opened is None:
                return
            ledger = self.ledger = opened
            stack.callback(ledger.close)
            log.info("the ledger is open", index=ledger.applied().index, version=ledger.version)
            self.changes.notify(ledger.applied().index, ())
            self.reads = Reads(folder / "ledger.sqlite")
            stack.callback(self.reads.close)
            self.own_keys = self._make_own_keys()
            await self.own_keys.use()
            self.replica = await self._start_replica()
            stack.push_async_callback(self.replica.close)
            leader = Leader(
                node=me.id, replica=self.replica, ledger=ledger, reads=self.reads, changes=self.changes, clock=self.clock, keys=self.keys,
                leader_address=self._leader_address, epoch=self.epoch, tls=self.tls,
            )  # fmt: skip
            self.agent = self._make_agent()
            services = self._services(leader)
            serving = self.trust.serving if self.trust is not None else None
            await stack.enter_async_context(Listener(sock, make_app(services), MAGIC, self.replica.adopt, serving))
            founding = self._make_founding()
            if me.founder:
                await founding.found()
            await founding.finish_recovery()
            self.data.write("address", self._url(me.address) + "\n")
            log.info("in service", name=me.name, id=me.id, cluster=me.cluster, address=self._url(me.address), version=__version__)
            async with asyncio.TaskGroup() as tasks:
                parts = (self._lead(leader), self.agent.serve(), self._remember_peers(), self._find_others(), self._introduce(),
                         self._renew(), self.own_keys.follow())  # fmt: skip
                work = [tasks.create_task(part) for part in parts]
                await self.stop.wait()
                log.info("stopping", reason=self.refused or self.halted or "asked to stop")
                await self._hand_over()
                await self._leave_if_ephemeral()
                for task in work:
                    task.cancel()

    async def _start_replica(self) -> Replica:
        me, folder = self.identity, self.data.path / "raft"
        before, loop = read_epoch(folder).epoch, asyncio.get_running_loop()
        if self.epoch > before:
            self.data.remove("term")  # of leaders that the new epoch never had
        try:
            replica = await Replica.start(
                node=me.id, address=me.address, folder=folder, machine=self.ledger, cluster=me.cluster, key=self.keys.all,
                epoch=self.epoch, found=me.founder, on_halt=self._halt, trust=self.trust, on_missing_key=lambda: _soon(loop, self.wants_key.set),
            )  # fmt: skip
        except Halted as problem:
            if self.epoch > before:
                raise RefusedByCluster(str(problem)) from problem
            raise
        self.epoch = replica.status().epoch
        replica.hint(self.moved)
        return replica

    def _make_agent(self) -> Agent:
        me = self.identity
        return Agent(
            AgentSettings(
                node=me.id, name=me.name, cluster=me.cluster, address=me.address, version=__version__, folder=self.data.path / "attempts",
                term_file=self.data.path / "term", token=self._node_token, addresses=self._where_to_look, labels=self._labels(), slots=me.slots,
                users=self.settings.users, environment=self.settings.environment,
                ledger_version=self.ledger.known.highest, mark=lambda: self.ledger.mark,
                differs=self._differs, epoch=self.epoch, on_standing=self._note_standing, on_refused=self._refuse,
                keys=lambda: tuple(map(mark_of, self.keys.all())), trust=lambda: self.trust_mark, renew=self.wants_certificate.set,
                asking=self._asking, secrets=self._secrets, authorities=str(self.data.path / AUTHORITIES) if self.tls else "",
            )
        )  # fmt: skip

    def _make_own_keys(self) -> OwnKeys:
        return OwnKeys(
            keys=self.keys, wanted=self.wants_key, data=self.data, reads=self.reads, changes=self.changes, clock=self.clock,
            is_member=lambda: self._members().find(self.identity.id) is not None, peers=self._peers, ask=self._ask,
        )  # fmt: skip

    def _make_founding(self) -> Founding:
        return Founding(
            me=self.identity, data=self.data, keys=self.keys, reads=self.reads, replica=self.replica, clock=self.clock, epoch=self.epoch,
            voters=self.settings.voters, fingerprint=self._fingerprint, entry=self._entry,
        )  # fmt: skip

    def _services(self, leader: Leader) -> Services:
        me = self.identity
        return Services(
            me=Me(id=me.id, name=me.name, address=self._url(me.address), cluster=me.cluster, version=__version__, epoch=self.epoch),
            clock=self.clock,
            keys=self.keys,
            tls=self.tls,
            asking=self._asking,
            permitted=lambda node: node not in self.removed,
            sign=self._sign if self.tls else None,
            make_key=self.own_keys.make,
            next_authority=self._next_authority if self.tls else None,
            fingerprint=self._fingerprint,
            node_token=self._node_token,
            replica=self.replica,
            reads=self.reads,
            changes=self.changes,
            holds_ledger=self._holds_ledger,
            peers=self._peers,
            leader_address=self._leader_address,
            streams=leader.streams,
            renew=leader.renew,
            views=leader.views,
            logs=self.agent.logs,
            own_token=lambda attempt, token: is_renewal_token(self.keys.all(), attempt, token),
            auth=self.settings.auth == "required",
            oidc=self.settings.oidc,
            hosts=self._further_hosts(),
            leave=self._remove_member,
            entry=self._entry,
            addresses=self.replica.addresses,
            snapshot=self.ledger.snapshot,
            folder=self.data.path,
        )

    def _further_hosts(self) -> frozenset[str]:
        """Names under which people open the page, besides this node's addresses."""
        redirect = self.settings.oidc.redirect if self.settings.oidc is not None else ""
        return frozenset({host_of(redirect)} if redirect else ())

    async def _lead(self, leader: Leader) -> None:
        """The loops of a leader, for each term that this node leads. A fault in them is logged, and they begin anew from the ledger."""
        async for term in self.replica.leadership():
            self.current_from = 0  # whoever leads is a member, and has applied all that there is
            while self.replica.leads(term) and not self.stop.is_set():
                try:
                    await leader.serve(term)
                except Exception:
                    log.exception("the leader's loops failed; they start again", term=term)
                    await self.clock.sleep(LEADER_PAUSE_S)
            # A cancel that arrives while the loops end by themselves is swallowed by their task group (Python 3.11), so the stop is looked at too.
            if self.stop.is_set():
                return

    async def _hand_over(self) -> None:
        """A planned stop of a leader costs nobody an election time-out."""
        others = [voter for voter in self.replica.status().members.voters if voter.id != self.identity.id]
        if self.halted is None and self.replica.is_leader() and others:
            try:
                if await self.replica.transfer_leadership(None, HAND_OVER_S):
                    log.info("handed the leadership over")
            except (NotLeader, Unknown, Halted):
                return  # nobody could take it, so they elect

    async def _leave_if_ephemeral(self) -> None:
        """Unless something runs here, which goes on: then the leader takes it out when it has been lost for its lease."""
        if not self.identity.ephemeral or self.refused is not None or self.halted is not None:
            return
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._ask_leader("DELETE", f"/v1/nodes/{self.identity.id}")
            log.info("left the cluster")
        except (IgorError, TimeoutError) as problem:
            log.warning("an ephemeral node stops and could not leave; it is taken out when it is lost", reason=str(problem) or "no answer in time")

    # --- a ledger that is not what the majority's is

    async def _differs(self, word: Differs) -> None:
        """The leader says so. What it calls wrong is looked up once more: the word may be about a ledger that was replaced meanwhile."""
        kept = (await self.reads.query(query_digests.digests)).marks
        if kept.get(word.upto, word.digest.hex()) == word.digest.hex() or self.halted is not None:
            return
        found = await asyncio.to_thread(distrust.distrust, self.ledger, word.after, word.upto)
        await self._hand_over()
        self._halt(f"the ledger here {found}; start this node again, and it takes a copy from another member")

    async def _open_ledger(self, path: Path) -> Ledger | None:
        """None: told to stop while it waits for a copy of another member."""
        loop = asyncio.get_running_loop()

        def opened() -> Ledger:
            return Ledger(
                path, lambda index, topics: _soon(loop, self.changes.notify, index, topics), on_damage=lambda found: _soon(loop, self._damaged, found)
            )

        if not await self._reinstall(path):
            return None
        try:
            return opened()
        except DamagedLedger as problem:
            await asyncio.to_thread(distrust.distrust_damaged, path, self.identity.id, problem)
        return opened() if await self._reinstall(path) else None

    def _damaged(self, found: Halted) -> None:
        """Found beside the work: the next start takes a copy."""
        try:
            distrust.distrust_damaged(self.data.path / "ledger.sqlite", self.identity.id, found, self.ledger.applied().members)
            self._halt(f"{found}; start this node again, and it takes a copy from another member")
        except Halted as nobody:
            self._halt(str(nobody))
        except OSError as problem:  # the same disk: the next start looks at the ledger as at any
            self._halt(f"{found}; nor could that be noted: {problem.strerror}")

    async def _reinstall(self, path: Path) -> bool:
        """Before consensus begins: a node without a ledger it can trust is down, and neither votes nor acknowledges. False: it was told to stop."""
        found = distrust.distrusted(path)
        if found is None:
            return True
        log.warning("the ledger of this node is replaced by a copy from another member", reason=found.damage or f"it {found}")
        me, fresh = self.identity, self.data.path / "copy.part"
        while not self.stop.is_set():
            try:
                stands = await asyncio.to_thread(
                    fetch_copy, node=me.id, address=me.address, cluster=me.cluster, key=self.keys.all, folder=self.data.path / "raft",
                    members=found.members, path=fresh, trust=self.trust,
                )  # fmt: skip
            except TransferFailed as problem:
                log.warning("no member could give a copy of the ledger; asking again", reason=str(problem))
                await self.clock.sleep(REINSTALL_PAUSE_S)
                continue
            await asyncio.to_thread(distrust.install, path, fresh)
            log.info("the ledger was replaced", index=stands.index)
            return True
        return False

    def _halt(self, reason: str) -> None:
        self.halted = reason
        if hasattr(self, "replica") and self.replica.was_refused:  # a ledger may be found damaged before there is a replica
            self.refused = reason
        self.stop.set()

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.stop.set()

    def _note_standing(self, member: bool | None, index: int) -> None:
        """A leader's word on what this node is. One that is no member gets no entries: until it is one again what it holds is of the past."""
        self.unknown = member is None
        if member and self.keys.ring is None:
            self.wants_key.set()
        if member is False or (member and self.current_from > index):
            self.current_from = index

    async def _remove_member(self, node: str) -> None:
        """Takes a node out of consensus before the ledger forgets it; a leader that leaves hands over, and the next leader does it."""
        if self._members().find(node) is None:
            return
        if node == self.identity.id:
            await self._hand_over()
            raise Unavailable("the leader itself is to leave: it has handed over", hint="ask again in a moment; the new leader takes it out")
        await self.replica.remove(node, REMOVE_TIMEOUT_S)

    # --- answers for the other parts; asked anew each time

    def _entry(self, envelope: Envelope) -> bytes:
        """The command as the cluster understands it now. Raises TooNew where it does not yet."""
        return self.ledger.known.entry(envelope, self.ledger.version)

    def _members(self) -> Members:
        return self.replica.status().members

    def _told(self) -> list[str]:
        """The peers that `join` was given, as URLs."""
        return [self._url(url.partition("://")[2] or url) for url in self.join.peers] if self.join is not None else []

    def _url(self, address: str) -> str:
        return base_url(address, tls=self.tls)

    def _fingerprint(self) -> str:
        return certified.fingerprint(self.data) if self.tls else PLAIN

    def _node_token(self) -> str:
        return self.data.read("node.token") or ""

    def _holds_ledger(self) -> bool:
        """A new learner is asked only from the moment it has applied the entry that made it one: what it answers is never older than its joining.
        One that was taken out learns it from a leader, if not from the log (`_note_standing`). Whoever hears a leader or leads is a member, though:
        after a power cut of all, while the ledgers are behind their journals, each is told by the others, and by itself, that it is not known."""
        if self.unknown and not self.replica.status().quorum:
            return False
        applied, me = self.ledger.applied(), self.identity.id
        return applied.index >= self.current_from and applied.members.find(me) is not None and self._members().find(me) is not None

    def _leader_address(self) -> str | None:
        leader = self.replica.leader()
        if leader == self.identity.id:
            return self._url(self.identity.address)
        address = self._address_of(leader) if leader is not None else None
        return self._url(address) if address is not None else (self.agent.link.leader or None)

    def _address_of(self, node: str) -> str | None:
        """Of a member: where it was reached last rather than where the list of members has it."""
        member = self._members().find(node)
        return self.replica.addresses().get(node) or (member.address if member is not None else None)

    def _peers(self) -> Sequence[str]:
        """Base URLs of other nodes that hold the ledger, the likely leader first."""
        leader = self._leader_address()
        members = self._members()
        urls = [self._url(self._address_of(member.id) or member.address) for member in (*members.voters, *members.learners)] or self.data.peers()
        return [url for url in dict.fromkeys([*([leader] if leader else []), *urls]) if url != self._url(self.identity.address)]

    def _where_to_look(self) -> Sequence[str]:
        """Where the agent looks for the leader: what consensus knows, then whomever this node ever knew."""
        leader, own = self._leader_address(), self._url(self.identity.address)
        return list(dict.fromkeys([*([leader] if leader else []), *self._peers(), own, *self._acquaintances()]))

    def _acquaintances(self) -> list[str]:
        """Whomever this node ever knew, or was told of."""
        return [*self._told(), *(self._url(address) for node, address in self.moved.items() if node != self.identity.id), *self.data.peers()]

    # --- who else is there

    async def _remember_peers(self) -> None:
        """Keeps D/peers fresh: a node or a client that comes back alone has somebody to ask, and knows whoever moved while it was there."""
        kept: Any = None
        asked_at = 0
        while True:
            leader, now = self.agent.link.leader, self.clock.monotonic_ns()
            if self._holds_ledger():
                seen = (self.changes.last(("nodes",)), self.replica.addresses())
                if seen != kept:
                    kept = seen
                    rows = await self.reads.query(query_cluster.nodes)
                    self._note_removed(frozenset(await self.reads.query(query_authorities.removed_nodes)))
                    self.data.write_peers([self._url(seen[1].get(row.node, row.address)) for row in rows if row.node != self.identity.id])
            elif leader and now - asked_at > ASK_MEMBERS_NS:
                asked_at = now
                for _, found in await ask_around([leader], self._node_token(), self._asking()):
                    self.data.write_peers([self._url(address) for node, address in sorted(found.addresses.items()) if node != self.identity.id])
            await self.clock.sleep(NOTE_PEERS_S)

    async def _find_others(self) -> None:
        """While no leader is known: the others may have moved, and whoever is where this node looks may know where."""
        while True:
            await self.clock.sleep(random.uniform(*LOOK_AROUND_S))
            if self.replica.leader() is not None or self.agent.link.leader:
                continue
            answers = await ask_around([*self._peers(), *self._acquaintances()], self._node_token(), self._asking())
            self._note_moved(whereabouts([(url, found) for url, found in answers if found.cluster == self.identity.cluster]))
            self.replica.hint(self.moved)

    def _note_moved(self, addresses: Mapping[str, str]) -> None:
        self.moved = dict(list({**self.moved, **addresses}.items())[:MOVED_LIMIT])

    async def _introduce(self) -> None:
        """A node that `join` let go on without an answer asks until it has one; a refusal ends it."""
        while not self.introduced:
            await self.clock.sleep(JOIN_AGAIN_S)
            try:
                await self._check_cluster(self.identity, self.identity.address)
            except RefusedByCluster as problem:
                self._refuse(str(problem))
                return


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """From the Raft thread; a loop that is closing needs no news."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)
