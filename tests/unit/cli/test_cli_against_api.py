"""`igor` against the real API: the same handlers, ledger and rules that a node has, on real ports, in three nodes without consensus.

The other files hold the command line to shapes; this one holds the shapes to the API.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from igor_node import words
from igor_node.cli import command
from igor_node.cli.igor import igor as program
from igor_node.ledger import commands
from tests.unit.http.world import TOKENS, World

from .answering import dead_address
from .conftest import Ended

HELLO = """\
apiVersion: igor/v1
kind: Job
name: hello
description: Says hello
schedule: {cron: "0 2 * * *", timezone: Europe/Berlin}
params: {day: {type: date, default: "2026-11-24"}}
command: ["echo", "hello", "${{ params.day }}"]
"""
CALL = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "world"
    folder.mkdir()
    async with World(folder, "n1", "n2", "n3") as nodes:
        yield nodes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "demo"
    made.mkdir()
    (made / "hello.yaml").write_text(HELLO)
    return made


@pytest.fixture
def call(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CALL:
    """Calls `igor` with a dead node first, then one that does not lead."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "IGOR_DATA_DIR", "IGOR_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IGOR_NODE", ",".join([dead_address(), world.follower.url, world.leader.url]))
    monkeypatch.setenv("IGOR_TOKEN", TOKENS[words.Role.ADMIN])
    monkeypatch.setattr("igor_node.cli.client.PATIENCE_S", 3.0)

    async def igor(*arguments: str) -> Ended:
        capsys.readouterr()
        code = await asyncio.to_thread(command.run, program, "igor", arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return igor


async def test_a_project_from_plan_to_push_to_nothing_to_do(call: CALL, folder: Path) -> None:
    planned = await call("plan", str(folder))
    assert planned.code == 3 and planned.out.startswith("+ demo/hello\n"), planned.err
    pushed = await call("push", str(folder))
    assert (pushed.code, pushed.out) == (0, "+ demo/hello\n") and "version 1: 1 created" in pushed.err
    assert (await call("plan", str(folder))).code == 0
    (folder / "hello.yaml").write_text(HELLO.replace("Says hello", "Greets"))
    planned = await call("plan", str(folder))
    assert planned.code == 3 and planned.out == '~ demo/hello\n    description: "Says hello" -> "Greets"\n'
    assert json.loads((await call("push", str(folder), "--json")).out)["version"] == 2
    assert (await call("push", str(folder), "--if-version", "1")).code == 5


async def test_faults_of_definitions_change_nothing(call: CALL, folder: Path) -> None:
    (folder / "hello.yaml").write_text(HELLO.replace("Europe/Berlin", "Europe/Berln"))
    (folder / "other.yaml").write_text(HELLO.replace("params:", "parms:").replace("name: hello", "name: other"))
    for verb in ("validate", "plan", "push"):
        ended = await call(verb, str(folder))
        lines = ended.err.splitlines()
        assert ended.code == 2 and ended.out == "" and lines[0].startswith("hello.yaml:5: schedule.timezone: "), ended.err
        assert lines[1].startswith("other.yaml:6: parms: ") and len(lines) == 3
    assert (await call("jobs", "-o", "name")).out == ""


async def test_jobs_and_what_is_to_come(call: CALL, folder: Path) -> None:
    await call("push", str(folder))
    listed = await call("jobs", "-o", "wide")
    assert "demo/hello" in listed.out and "02:00" in listed.out and "Says hello" in listed.out
    shown = await call("job", "show", "hello")
    assert "next fires:  20" in shown.out and 'stage main: ["echo","hello"' in shown.out, shown.out
    assert (await call("upcoming", "--hours", "48", "-o", "name")).out.startswith("demo/hello\ndemo/hello\n")
    assert "demo/hello: paused" in (await call("job", "pause", "demo/hello", "-m", "moving")).err
    assert "paused: moving" in (await call("job", "show", "hello")).out
    assert "demo/hello: resumed" in (await call("job", "resume", "demo/hello")).err
    assert (await call("job", "show", "nothing")).code == 4


async def test_a_run_from_its_making_to_its_cancelling(call: CALL, folder: Path) -> None:
    await call("push", str(folder))
    made = await call("run", "hello", "-p", "day=2026-12-01", "--key", "tonight")
    run = made.out.strip()
    assert made.code == 0 and len(run) == 20
    again = await call("run", "hello", "-p", "day=2026-12-01", "--key", "tonight")
    assert again.out.strip() == run and "made earlier with this key" in again.err
    for reference in (run, run[:18], "hello@latest", "demo/hello@latest"):
        assert json.loads((await call("show", reference, "--json")).out)["id"] == run
    assert run in (await call("runs", "--job", "hello", "--state", "live")).out
    why = await call("why", "hello@latest")
    assert why.code == 0 and why.out.strip()
    waited = await call("run", "hello", "--wait", "--timeout", "200ms")
    assert waited.code == 8
    assert (await call("cancel", run, "-m", "wrong day")).code == 0
    watched = await call("watch", run)
    assert watched.code == 12 and "cancelled" in watched.out
    assert (await call("run", "hello", "-p", "day=soon")).code == 2
    assert (await call("show", "0000nothing")).code == 4
    assert (await call("logs", run)).out == "" and (await call("logs", run, "-f")).out == ""


async def test_why_of_a_time_that_made_no_run(call: CALL, folder: Path) -> None:
    await call("push", str(folder))
    ended = await call("why", "hello@2020-01-01T01:00:00Z")
    assert ended.code == 0 and "not scheduled: " in ended.out


async def test_audit_events_status_and_nodes(call: CALL, folder: Path) -> None:
    await call("push", str(folder))
    audit = await call("audit", "--from", "1h", "--json")
    assert audit.code == 0 and json.loads(audit.out)["doubled"] == 0, audit.err
    events = await call("events")
    assert events.code == 0 and "project" in events.out
    assert [event["kind"] for event in map(json.loads, (await call("events", "--limit", "1", "--json")).out.splitlines())]
    status = await call("status")
    assert "leader    n1" in status.out and "voters    n1, n2, n3" in status.out
    assert (await call("nodes", "-o", "name")).out == "n1\nn2\nn3\n"


async def test_tokens_and_the_way_in(call: CALL, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = json.loads((await call("token", "create", "--role", "viewer", "--name", "board", "--ttl", "1h", "--json")).out)
    assert made["token"].startswith("igor1.none.") and made["expires_at"]
    assert made["id"] in (await call("token", "list")).out
    link = await call("ui", "--print")
    assert link.out.startswith("http://127.0.0.1:") and "/login?code=" in link.out
    assert (await call("login")).code == 0
    monkeypatch.delenv("IGOR_NODE")
    monkeypatch.setenv("IGOR_TOKEN", made["token"])
    me = await call("whoami")
    assert "viewer" in me.out and "board" in me.out and "contexts/" in me.out
    assert (await call("token", "list")).code == 6
    monkeypatch.setenv("IGOR_TOKEN", TOKENS[words.Role.ADMIN])
    assert (await call("token", "revoke", made["id"])).code == 0
    monkeypatch.setenv("IGOR_TOKEN", made["token"])
    assert (await call("whoami")).code == 6


async def test_without_a_quorum_reads_are_answered_and_writes_are_7(call: CALL, world: World, folder: Path) -> None:
    await call("push", str(folder))
    world.cluster.leader = None
    for node in world.nodes.values():
        node.replica.quorum = False
    assert (await call("jobs", "-o", "name")).out == "demo/hello\n"
    refused = await call("run", "hello")
    assert refused.code == 7 and ("quorum" in refused.err or "leader" in refused.err)


async def test_logs_of_two_tries_on_another_node(call: CALL, world: World, folder: Path) -> None:
    await call("push", str(folder))
    run = (await call("run", "hello")).out.strip()
    attempt = f"{run}.main.1"
    world.cluster.do(
        commands.AssignStages(term=1, placements=(commands.Placement(run=run, stage="main", node="n3", attempt=attempt, renew_hash="0" * 64),))
    )
    world.nodes["n3"].output.lines = {(attempt, 1): ["one", "two"], (attempt, 2): ["three"]}
    now = words.wall_now()
    kinds = [
        ("held", 0, "", None),
        ("try_started", 1, "", None),
        ("try_ended", 1, "failed", 3),
        ("try_started", 2, "", None),
        ("try_ended", 2, "succeeded", 0),
    ]
    events = [
        commands.AttemptEvent(attempt=attempt, seq=seq, kind=kind, at=now + seq, try_n=n, state=state, exit_code=code)
        for seq, (kind, n, state, code) in enumerate([*kinds, ("ended", 0, "succeeded", 0)], start=1)
    ]
    world.cluster.do(commands.ReportEvents(node="n3", events=tuple(events)))
    ended = await call("logs", run)
    assert ended.out == "one\ntwo\nthree\n" and "try 2" in ended.err
    assert (await call("logs", run, "-f")).out == "one\ntwo\nthree\n"
    assert (await call("logs", run, "--failed")).out == "one\ntwo\n"
    assert (await call("logs", run, "--tail", "1", "-f")).out == "three\n"
    assert (await call("logs", run, "--try", "2")).out == "three\n"
    assert (await call("watch", run)).code == 0
    assert "exit code 3" in (await call("show", run)).out
