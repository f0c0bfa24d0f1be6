"""Streams: events for every viewer from one reading, resumed where they broke off; logs from whatever node has them, to their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from igor_node.http import events, limits
from igor_node.http.api import logs
from igor_node.http.events import Frame, Reader
from igor_node.ledger import commands
from igor_node.ledger.query_events import EventRow
from igor_node.stream import AttemptEvent
from igor_node.words import SECOND, Role, wall_now
from tests.unit.http.test_http_jobs import pushed
from tests.unit.http.world import TOKENS, Node, World


class Stream:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def event(self) -> tuple[str, str, Any]:
        """Id, kind and data of the next event that is no beat."""
        while True:
            found = {"id": "", "event": "message", "data": ""}
            async with asyncio.timeout(5):
                while line := (await self.answer.content.readline()).decode().rstrip("\n"):
                    name, _, value = line.partition(": ")
                    found[name] = value
            if found["event"] != "beat":
                return found["id"], found["event"], json.loads(found["data"])


@asynccontextmanager
async def follow(world: World, node: Node | None = None, path: str = "/v1/events", *, opening: bool = True, **headers: str) -> AsyncIterator[Stream]:
    """`opening`: wait for the first beat, behind which nothing is missed."""
    send = {"Authorization": f"Bearer {TOKENS[Role.VIEWER]}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with world.session.get((node or world.leader).url + path, headers=send) as answer:
        assert answer.status == 200, await answer.text()
        if opening:
            await answer.content.readuntil(b"\n\n")
        yield Stream(answer)


def happen(world: World, name: str) -> None:
    world.cluster.do(commands.CreateToken(token=name, hash=name, role="viewer", name=name))


# --- events


async def test_what_happens_is_told(world: World) -> None:
    async with follow(world) as stream:
        happen(world, "one")
        number, kind, data = await stream.event()
        assert (kind, data["kind"], data["data"]["token"], data["number"]) == ("message", "token", "one", int(number))
        assert data["at"].endswith("Z")


async def test_every_viewer_gets_the_same(three: World) -> None:
    async with follow(three, three.nodes["n1"]) as one, follow(three, three.nodes["n2"]) as two, follow(three, three.nodes["n1"]) as other:
        happen(three, "x")
        happen(three, "y")
        heard = [[await stream.event() for _ in range(2)] for stream in (one, two, other)]
        assert heard[0] == heard[1] == heard[2]


@pytest.mark.parametrize("how", ["header", "query"])
async def test_a_reader_that_comes_back_misses_nothing(world: World, how: str) -> None:
    async with follow(world) as stream:
        happen(world, "first")
        last, _, _ = await stream.event()
    for name in ("a", "b", "c"):
        happen(world, name)
    again = {"Last_Event_ID": last} if how == "header" else {"path": f"/v1/events?after={last}"}
    async with follow(world, opening=False, **again) as stream:
        assert [(await stream.event())[2]["data"]["token"] for _ in range(3)] == ["a", "b", "c"]
        happen(world, "d")
        assert (await stream.event())[2]["data"]["token"] == "d"


async def test_from_the_beginning_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory no longer holds is read from the ledger, in order and without a gap."""
    monkeypatch.setattr(events, "EVENT_BATCH", 3)
    for n in range(10):
        happen(world, f"t{n}")
    async with follow(world, opening=False, Last_Event_ID="0") as stream:
        numbers: list[int] = []
        token = None
        while token != "t9":
            number, _, data = await stream.event()
            numbers.append(int(number))
            token = data["data"].get("token")
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 10


async def test_what_is_no_longer_kept_is_410(world: World) -> None:
    now = wall_now() + 48 * 3600 * SECOND
    world.cluster.do(commands.Prune(runs_before=0, results_before=0, events_before=now), at=now)
    world.cluster.do(commands.CreateToken(token="later", hash="later", role="viewer"), at=now)
    answer = await world.ask("GET", "/v1/events", Last_Event_ID="1")
    assert answer.status == 410 and answer.value["type"] == "urn:igor:Gone"


async def test_an_id_that_is_none_is_400(world: World) -> None:
    assert (await world.ask("GET", "/v1/events", Last_Event_ID="x")).status == 400


async def test_readers_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENT_READERS", 1)
    async with follow(world):
        answer = await world.ask("GET", "/v1/events")
        assert answer.status == 429 and answer.headers["Retry-After"]


def frame(number: int, encoded: bytes = b"frame", *, kind: str = "run", project: str | None = "shop") -> Frame:
    event = EventRow(number=number, at=0, kind=kind, project=project, job=None, run=None, stage=None, node=None, actor="", data={})
    return Frame(event, encoded)


def test_a_slow_reader_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is given up; nobody else waits for it."""
    monkeypatch.setattr(events, "EVENT_FRAMES_QUEUED", 3)
    dropped: list[bool] = []
    reader = Reader(0, lambda: dropped.append(True))
    for number in range(1, 6):
        reader.put(frame(number))
    assert (dropped, reader.dropped, reader.take()) == ([True], True, b"")


def test_a_frame_that_was_sent_is_not_sent_again() -> None:
    reader = Reader(3, lambda: None)
    for number in (2, 3, 4, 5):
        reader.put(frame(number, b"%d" % number))
    assert (reader.take(), reader.after) == (b"45", 5)


def test_a_reader_of_some_projects_gets_their_events_and_those_of_nodes() -> None:
    """The number from which it goes on stays young, though what others do is left out."""
    reader = Reader(0, lambda: None, ("shop",))
    events_of = [("run", "shop"), ("run", "web"), ("node", None), ("token", None), ("project", "web")]
    for number, (kind, project) in enumerate(events_of, start=1):
        reader.put(frame(number, b"%d" % number, kind=kind, project=project))
    assert reader.take() == b"13"
    reader.put(frame(6, project="web"))
    assert reader.take() == b"" and reader.beat().startswith(b"id: 6\nevent: beat\n")


async def test_the_last_events_without_a_stream(world: World) -> None:
    for name in ("a", "b", "c"):
        happen(world, name)
    answer = (await world.ask("GET", "/v1/events?last=2")).value
    assert [item["data"]["token"] for item in answer["items"]] == ["b", "c"] and answer["last"] == answer["items"][-1]["number"]


# --- logs


class Running:
    """One run, as its node reports it and writes its output."""

    def __init__(self, world: World, run: str, node: str) -> None:
        self.world, self.run, self.node = world, run, node
        self.attempt = f"{run}.main.1"
        self.seq = 0
        placement = commands.Placement(run=run, stage="main", node=node, attempt=self.attempt, renew_hash="0" * 64)
        world.cluster.do(commands.AssignStages(term=1, placements=(placement,)))
        self.report("held")

    def report(self, kind: str, **fields: Any) -> None:
        self.seq += 1
        event = AttemptEvent(attempt=self.attempt, seq=self.seq, kind=kind, at=wall_now(), **fields)
        self.world.cluster.do(commands.ReportEvents(node=self.node, events=(event,)))

    def begin(self, try_n: int = 1) -> list[str]:
        self.report("try_started", try_n=try_n)
        lines: list[str] = []
        self.world.nodes[self.node].output.lines[self.attempt, try_n] = lines
        return lines

    def end_try(self, try_n: int = 1, *, state: str = "succeeded", exit_code: int = 0) -> None:
        self.report("try_ended", try_n=try_n, state=state, exit_code=exit_code)

    def end(self, state: str = "succeeded") -> None:
        self.report("ended", state=state, exit_code=0 if state == "succeeded" else 1)


async def start(world: World, node: str) -> Running:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    return Running(world, run, node)


async def test_output_is_read_from_the_node_that_has_it(three: World) -> None:
    """Asked of any node."""
    running = await start(three, "n2")
    running.begin().extend(["one", "two", "three"])
    for node in three.nodes.values():
        page = (await three.ask("GET", f"/v1/runs/{running.run}/logs", node=node, role=Role.VIEWER)).value
        assert [(item["text"], item["stream"], item["stage"], item["attempt"], item["try"]) for item in page["items"]] == [
            (text, "stdout", "main", 1, 1) for text in ("one", "two", "three")
        ]
        assert page["complete"] is False


async def test_pages_go_on_where_the_last_one_ended(world: World) -> None:
    """Over all tries, until there is nothing more."""
    running = await start(world, "n1")
    running.begin(1).extend(["a1", "a2", "a3"])
    running.end_try(1, state="failed", exit_code=1)
    running.begin(2).extend(["b1", "b2"])
    running.end_try(2)
    running.end()
    texts: list[str] = []
    offset = ""
    while True:
        page = (await world.ask("GET", f"/v1/runs/{running.run}/logs?limit=2{offset}")).value
        texts += [item["text"] for item in page["items"]]
        if not page["items"]:
            break
        offset = f"&offset={page['next']}"
    assert texts == ["a1", "a2", "a3", "b1", "b2"] and page["complete"] is True
    again = (await world.ask("GET", f"/v1/runs/{running.run}/logs?try=2")).value
    assert [item["text"] for item in again["items"]] == ["b1", "b2"]


@pytest.mark.parametrize("query, status", [("stage=other", 404), ("offset=main.9.9:0", 404), ("offset=x", 400), ("limit=0", 400)])
async def test_what_is_not_there(world: World, query: str, status: int) -> None:
    running = await start(world, "n1")
    running.begin().append("line")
    assert (await world.ask("GET", f"/v1/runs/{running.run}/logs?{query}")).status == status


async def test_a_run_without_output(world: World) -> None:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    page = (await world.ask("GET", f"/v1/runs/{run}/logs")).value
    assert (page["items"], page["complete"]) == ([], False)


async def test_a_node_that_is_away_is_named(three: World) -> None:
    running = await start(three, "n2")
    running.begin().append("line")
    three.cluster.do(commands.RegisterNode(node="n2", name="n2", address="127.0.0.1:1", slots=4, version="test"))
    answer = await three.ask("GET", f"/v1/runs/{running.run}/logs", node=three.nodes["n1"])
    assert answer.status == 503 and "n2" in answer.value["detail"]


async def test_output_that_is_gone_is_404(world: World) -> None:
    running = await start(world, "n1")
    running.begin()
    world.leader.output.lines.clear()
    assert (await world.ask("GET", f"/v1/runs/{running.run}/logs")).status == 404


async def test_a_folder_that_moves_meanwhile_is_read_where_it_is_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that ends is put away: a reader may look for its files a moment too early."""
    running = await start(world, "n1")
    running.begin().append("line")
    output = world.leader.output
    original, moved = output.read, [True]

    async def read(attempt: str, try_n: int, offset: int, limit: int) -> Any:
        if moved:
            moved.clear()
            raise FileNotFoundError(attempt)
        return await original(attempt, try_n, offset, limit)

    monkeypatch.setattr(output, "read", read)
    page = (await world.ask("GET", f"/v1/runs/{running.run}/logs")).value
    assert [item["text"] for item in page["items"]] == ["line"]


async def test_a_fault_behind_the_beginning_breaks_the_stream_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has begun, so it cannot become a problem; its reader must not take it for whole."""
    running = await start(world, "n1")
    running.begin().append("line")
    async with follow_log(world, running.run) as log:
        assert (await log.line())["text"] == "line"

        async def read(*arguments: Any) -> Any:
            raise RuntimeError("a fault of our own")

        monkeypatch.setattr(world.leader.output, "read", read)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(log.answer.content.read(), 5)


class Lines(Stream):
    async def line(self) -> Any:
        async with asyncio.timeout(5):
            while True:
                line = (await self.answer.content.readline()).strip()
                if line:
                    return json.loads(line)


@asynccontextmanager
async def follow_log(world: World, run: str, node: Node | None = None, **query: str) -> AsyncIterator[Lines]:
    asked = "&".join(f"{name}={value}" for name, value in {"follow": "1", **query}.items())
    async with follow(world, node, f"/v1/runs/{run}/logs?{asked}", opening=False) as stream:
        yield Lines(stream.answer)


@pytest.mark.parametrize("asked", ["n1", "n3"])
async def test_a_log_is_followed_to_its_end(three: World, asked: str) -> None:
    """Lines as they come, over all tries, then `complete` with the state."""
    running = await start(three, "n3")
    lines = running.begin(1)
    async with follow_log(three, running.run, three.nodes[asked]) as log:
        for text in ("one", "two"):
            lines.append(text)
            assert (await log.line())["text"] == text
        lines.append("last")
        running.end_try(1, state="failed", exit_code=1)
        running.begin(2).append("again")
        running.end_try(2)
        running.end()
        assert [(await log.line())["text"] for _ in range(2)] == ["last", "again"]
        end = await log.line()
        assert (end["complete"], end["state"]) == (True, "succeeded")
        assert await log.answer.content.read() == b""


async def test_a_log_is_followed_from_before_the_start(world: World) -> None:
    """Also when the run waits, and when it never writes."""
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    async with follow_log(world, run) as log:
        running = Running(world, run, "n1")
        running.begin().append("begun")
        assert (await log.line())["text"] == "begun"
        running.end_try()
        running.end()
        assert (await log.line())["complete"] is True


async def test_a_log_that_broke_off_goes_on(world: World) -> None:
    running = await start(world, "n1")
    lines = running.begin()
    lines.extend(["one", "two"])
    async with follow_log(world, running.run) as log:
        first = await log.line()
    async with follow_log(world, running.run, offset=first["next"]) as log:
        assert (await log.line())["text"] == "two"


async def test_a_line_without_its_end_is_held_back(world: World) -> None:
    """Followers see whole lines; at the end what there is."""
    running = await start(world, "n1")
    lines = running.begin()
    lines.append("half…")
    async with follow_log(world, running.run) as log:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await log.line()
        lines[0] = "half and half"
        assert (await log.line())["text"] == "half and half"
        lines.append("no end…")
        running.end_try()
        running.end()
        assert (await log.line())["partial"] is True and (await log.line())["complete"] is True


async def test_a_quiet_log_gives_signs_of_life(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PING_S", 0.05)
    running = await start(world, "n1")
    running.begin()
    async with follow_log(world, running.run) as log:
        assert await asyncio.wait_for(log.answer.content.readline(), 5) == b"\n"


def test_limits_fit_together() -> None:
    """A page that calls a stream stale after 12 s must hear something before; a queue holds more than one batch."""
    assert limits.PING_S * 2 < 12 and limits.EVENT_BATCH < limits.EVENT_FRAMES_QUEUED <= limits.EVENT_FRAMES_KEPT


# --- through a node that holds no ledger


async def test_a_worker_passes_streams_on(tmp_path: Path) -> None:
    async with World(tmp_path, "n1", "w", workers=["w"]) as world:
        async with follow(world, world.nodes["w"]) as stream:
            happen(world, "far")
            assert (await stream.event())[2]["data"]["token"] == "far"
        running = await start(world, "n1")
        running.begin().append("line")
        async with follow_log(world, running.run, world.nodes["w"]) as log:
            assert (await log.line())["text"] == "line"
            running.end_try()
            running.end()
            assert (await log.line())["complete"] is True


async def test_a_stream_that_breaks_behind_a_worker_breaks_here_too(tmp_path: Path) -> None:
    """Its reader must not take it for the end."""
    async with World(tmp_path, "n1", "w", workers=["w"]) as world, follow(world, world.nodes["w"]) as stream:
        await world.stop("n1")
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(stream.answer.content.read(), 5)
