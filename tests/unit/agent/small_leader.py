"""A leader as small as an agent needs: one WebSocket route that welcomes, answers heartbeats, takes events and sends what a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from igor_node import stream
from igor_node.words import SECOND, new_id, wall_now


class SmallLeader:
    def __init__(self) -> None:
        self.term = 1
        self.leads = True
        self.leader_elsewhere = ""
        self.answers_beats = True
        self.acknowledges = True
        self.clock_ahead_ns = 0
        self.forget: tuple[str, ...] = ()
        self.hellos: list[stream.Hello] = []
        self.beats: list[stream.Heartbeat] = []
        self.goodbyes = 0
        self.events: dict[str, dict[int, stream.AttemptEvent]] = {}
        self.repeated = 0
        self.wrong: list[str] = []
        self.tokens: set[str] = set()
        self._socket: web.WebSocketResponse | None = None
        self._runner: web.AppRunner | None = None
        self.address = ""

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/v1/nodes/{node}/stream", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def drop(self) -> None:
        """End the stream, as a leader that dies would."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def now(self) -> int:
        return time.time_ns() + self.clock_ahead_ns

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.tokens.add(request.headers.get("Authorization", ""))
        if not self.leads:
            return web.json_response({"title": "Not the leader"}, status=421, headers={"Igor-Leader": self.leader_elsewhere})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            if frame.type is WSMsgType.BINARY:
                await self._take(socket, stream.decode_to_leader(frame.data))
        return socket

    async def _take(self, socket: web.WebSocketResponse, message: Any) -> None:
        match message:
            case stream.Hello():
                self.hellos.append(message)
                await socket.send_bytes(
                    stream.encode(
                        stream.Welcome(term=self.term, leader="me", received_at=self.now(), sent_at=self.now(), time_is_good=True, forget=self.forget)
                    )
                )
                self._socket = socket
            case stream.Heartbeat():
                self.beats.append(message)
                if self.answers_beats:
                    reply = stream.HeartbeatReply(seq=message.seq, term=self.term, received_at=self.now(), sent_at=self.now(), time_is_good=True)
                    await socket.send_bytes(stream.encode(reply))
            case stream.Events():
                await self._events(socket, message.events)
            case stream.Goodbye():
                self.goodbyes += 1

    async def _events(self, socket: web.WebSocketResponse, events: tuple[stream.AttemptEvent, ...]) -> None:
        upto: dict[str, int] = {}
        for event in events:
            known = self.events.setdefault(event.attempt, {})
            if event.seq in known:
                self.repeated += 1
                if known[event.seq] != event:
                    self.wrong.append(f"{event} was {known[event.seq]} before")
            elif event.seq != len(known) + 1:
                self.wrong.append(f"a gap before {event}")
                continue
            known[event.seq] = event
            upto[event.attempt] = len(known)
        if self.acknowledges:
            await socket.send_bytes(stream.encode(stream.Acknowledge(term=self.term, upto=upto)))

    # --- what tests do

    async def send(self, message: stream.ToNode) -> None:
        await until(lambda: self._socket is not None, "a stream")
        assert self._socket is not None
        await self._socket.send_bytes(stream.encode(message))

    async def assign(self, *assignments: stream.Assignment) -> None:
        await self.send(stream.Assign(term=self.term, assignments=assignments))

    def kinds(self, attempt: str) -> list[str]:
        return [event.kind for _, event in sorted(self.events.get(attempt, {}).items())]

    def last(self, attempt: str) -> stream.AttemptEvent | None:
        known = self.events.get(attempt)
        return known[max(known)] if known else None

    async def end_of(self, attempt: str, timeout_s: float = 20.0) -> stream.AttemptEvent:
        ends = ("ended", "revoked", "refused")
        await until(lambda: (last := self.last(attempt)) is not None and last.kind in ends, f"the end of {attempt}: {self.kinds(attempt)}", timeout_s)
        last = self.last(attempt)
        assert last is not None
        return last


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s:g} s in vain for {what}"
        await asyncio.sleep(0.005)


def assignment(command: str | tuple[str, ...], **changes: Any) -> stream.Assignment:
    run = changes.pop("run", None) or new_id(wall_now())
    values: dict[str, Any] = {
        "attempt": f"{run}.main.1", "run": run, "job": "shop/report", "project": "shop", "stage": "main", "n": 1, "fence": 7,
        "trigger": "schedule", "due_at": 0, "scheduled_at": 1_800_000_000 * SECOND, "created_at": 1_799_999_995 * SECOND,
        "command": command, "shell": "/bin/sh", "env": {}, "params": {}, "lease_ns": 180 * SECOND, "on_node_loss": "rerun", "retries": {},
    }  # fmt: skip
    return stream.Assignment(**(values | changes))
