"""The node's stream to the leader: find it, say Hello, beat once a second, send events, hand on what comes.

Whom to ask is asked anew for every connection (`addresses`, likely leader first); a node that does not lead says who does. Every message of a
leader carries its term: the highest is kept on disk, a lower one ends the stream, so a leader of the past commands nobody. A stream on which
heartbeats stay unanswered is given up; what was not acknowledged on it is sent again on the next.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec
import structlog

from igor_node import stream
from igor_node.agent.pulse import Pulse
from igor_node.agent.reports import Reports
from igor_node.words import Instant
from wrapper import protocol

BEAT_S = 1.0
SILENT_S = 4.0  # without an answer to any heartbeat; the leader calls a node silent after 5 s
CONNECT_S = 2.0
SEND_S = 5.0
GOODBYE_S = 1.0
PAUSES_S = (0.05, 0.3)  # between two rounds of all addresses, by chance within these, so that nodes do not come in step
BATCH_S = 0.002  # events wait this long for others
NOT_KNOWN = 401
NOT_THE_LEADER = 421  # HTTP status; the header says who is
FINAL_AFTER_S = 2.0  # a leader may take the process before this one for alive; what it says for longer counts
RESEND_S = 10.0  # events that were not acknowledged by then are sent again

log = structlog.get_logger("agent.link")


class Duties(Protocol):
    """What the agent does for the link."""

    def hello(self, term: int) -> stream.Hello: ...
    def heartbeat(self, seq: int) -> stream.Heartbeat: ...
    def unknown(self) -> None: ...
    def refused(self, reason: str) -> None: ...
    def handle(self, message: stream.ToNode) -> Coroutine[Any, Any, None]: ...


class Lost(Exception):
    """The stream is of no use any more; the message says why."""


class HighestTerm:
    """The highest term a leader has shown this node, on disk before anything that leader says is obeyed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        value = protocol.load_json(str(path)) or {}
        self.value: int = value.get("term", 0)

    def see(self, term: int) -> None:
        """Raises Lost for a leader of a lower term."""
        if term < self.value:
            raise Lost(f"a leader of term {term} is out of date, term {self.value} was seen")
        if term > self.value:
            protocol.write_whole(str(self._path), msgspec.json.encode({"term": term}), sync=True)
            self.value = term


class Link:
    def __init__(
        self,
        duties: Duties,
        pulse: Pulse,
        reports: Reports,
        term: HighestTerm,
        *,
        node: str,
        token: Callable[[], str],
        addresses: Callable[[], Sequence[str]],
        asking: Callable[[], ssl.SSLContext | bool] = lambda: True,
    ) -> None:
        self._duties, self._pulse, self._reports, self._term = duties, pulse, reports, term
        self._node, self._token, self._addresses, self._asking = node, token, addresses, asking
        self._hint = ""
        self._said: set[tuple[str, str]] = set()
        self._refused_at: float | None = None
        self.leader = ""  # the address of the one that is connected

    async def serve(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_S)) as session:
            while True:
                await self._round(session)
                await asyncio.sleep(random.uniform(*PAUSES_S))

    async def _round(self, session: aiohttp.ClientSession) -> None:
        """Every known address once, and each leader that one of them names; a hint is followed at once."""
        asked: set[str] = set()
        while (address := self._next(asked)) is not None:
            asked.add(address)
            try:
                await self._talk(session, address)
            except aiohttp.WSServerHandshakeError as refusal:
                self._hint = refusal.headers.get(protocol.LEADER_HEADER, "") if refusal.headers else ""
                if refusal.status == NOT_KNOWN:
                    self._duties.unknown()
                    self._say(address, "it does not know this node (any more); a node that left comes back by `igor-node join`")
                elif refusal.status != NOT_THE_LEADER:
                    self._say(address, f"it refused the stream with HTTP status {refusal.status}")
            except (aiohttp.ClientError, TimeoutError, OSError, Lost, msgspec.DecodeError) as problem:
                self._say(address, str(problem) or type(problem).__name__)

    def _say(self, address: str, reason: str) -> None:
        """Once until the next connection: an outage would fill the log otherwise."""
        if (address, reason) not in self._said:
            self._said.add((address, reason))
            log.info("no stream to this node", address=address, reason=reason)

    def _next(self, asked: set[str]) -> str | None:
        hint, self._hint = self._hint, ""
        candidates = ([hint] if hint else []) + list(self._addresses())
        return next((address for address in candidates if address not in asked), None)

    async def _talk(self, session: aiohttp.ClientSession, address: str) -> None:
        """One stream, from Hello until it is lost."""
        url = f"{address.rstrip('/')}/v1/nodes/{self._node}/stream".replace("http", "ws", 1)
        headers = {"Authorization": f"Bearer {self._token()}"}
        async with asyncio.timeout(CONNECT_S):
            socket = await session.ws_connect(
                url, headers=headers, max_msg_size=stream.FRAME_LIMIT_BYTES, timeout=aiohttp.ClientWSTimeout(ws_close=1.0), ssl=self._asking()
            )
        try:
            await self._greet(socket)
            self.leader = address
            self._refused_at = None
            self._said.clear()
            log.info("connected to the leader", address=address, term=self._term.value)
            await self._exchange(socket)
        except asyncio.CancelledError:
            await _say_goodbye(socket)
            raise
        finally:
            self.leader = ""
            await socket.close()

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        sent = protocol.boot_ns()
        await _send(socket, self._duties.hello(self._term.value))
        async with asyncio.timeout(SILENT_S):
            message = await self._receive(socket)
        if not isinstance(message, stream.Welcome):
            raise Lost("the answer to Hello was not Welcome")
        self._pulse.connected(sent, protocol.boot_ns(), Instant(message.received_at), Instant(message.sent_at), good=message.time_is_good)
        await self._duties.handle(message)
        self._reports.send_again()

    async def _exchange(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read, beat and report until one of the three fails; the other two end with it."""
        parts: tuple[Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]], ...] = (self._read, self._beat, self._report)
        tasks = [asyncio.ensure_future(part(socket)) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await self._receive(socket)
            now = protocol.boot_ns()
            if isinstance(message, stream.HeartbeatReply):
                received, sent = Instant(message.received_at), Instant(message.sent_at)
                self._pulse.answered(message.seq, now, received, sent, good=message.time_is_good)
            else:
                await _to_its_end(self._duties.handle(message))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> stream.ToNode:
        frame = await socket.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            raise Lost("the leader closed the stream")
        message: stream.ToNode = stream.decode_to_node(frame.data)
        if isinstance(message, stream.Farewell):
            self._hint = message.leader
            if message.final:
                self._refused_for_good(message.reason)
            raise Lost(message.reason)
        self._term.see(message.term)
        return message

    def _refused_for_good(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        self._refused_at = now if self._refused_at is None else self._refused_at
        if now - self._refused_at >= FINAL_AFTER_S:
            self._duties.refused(reason)

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        last_look = protocol.boot_ns()
        while True:
            now = protocol.boot_ns()
            if now - self._pulse.answered_boot_ns > SILENT_S * 1e9:
                raise Lost(f"the leader has not answered for {SILENT_S:g} s")
            if self._reports.unacknowledged == 0:
                last_look = now
            elif now - last_look > RESEND_S * 1e9:
                self._reports.send_again()
                last_look = now
            await _send(socket, self._duties.heartbeat(self._pulse.beat(now)))
            await asyncio.sleep(BEAT_S)

    async def _report(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._reports.wanted()
            await asyncio.sleep(BATCH_S)
            if events := self._reports.take():
                await _send(socket, stream.Events(events))


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """What the leader said is done whole, also when the stream is lost meanwhile: half of it would be an attempt in the table that nobody makes."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _send(socket: aiohttp.ClientWebSocketResponse, message: stream.ToLeader) -> None:
    async with asyncio.timeout(SEND_S):
        await socket.send_bytes(stream.encode(message))


async def _say_goodbye(socket: aiohttp.ClientWebSocketResponse) -> None:
    try:
        async with asyncio.timeout(GOODBYE_S):
            await socket.send_bytes(stream.encode(stream.Goodbye()))
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass  # the leader notices the silence
