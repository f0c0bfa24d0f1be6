"""DESIGN §7, a node and its runs: an agent with real wrappers and a small leader."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from igor_node import stream
from igor_node.words import SECOND, Unavailable, wall_now
from tests.unit.agent.conftest import Nest
from tests.unit.agent.small_leader import SmallLeader, assignment, until
from tests.unit.wrapper.room import alive
from wrapper import protocol

WHOLE = ["held", "try_started", "try_ended", "ended"]


async def test_an_assignment_is_run_and_reported(nest: Nest, leader: SmallLeader) -> None:
    """Every event, in order, once; after the acknowledgement the folder is put away."""
    await nest.start()
    work = assignment("exit 3")
    await leader.assign(work)
    end = await leader.end_of(work.attempt)
    assert leader.kinds(work.attempt) == WHOLE
    assert (end.state, end.exit_code) == ("failed", 3)
    measured = leader.events[work.attempt][3]
    assert measured.max_rss_bytes and measured.duration_ns and measured.cpu_ns is not None
    await until(lambda: nest.done(work.attempt), "the folder in done/")
    assert not nest.path(work.attempt).exists()
    assert leader.tokens == {"Bearer node-token"}


async def test_what_a_command_sees(nest: Nest, leader: SmallLeader) -> None:
    """CONTRACT, "What a command sees"; nothing of the node's own environment."""
    agent = await nest.start()
    work = assignment("env", env={"GREETING": "hi", "IGOR_NODE": "forged"}, params={"day": "2026-11-24", "dry-run": "no"})
    await leader.assign(work)
    await leader.end_of(work.attempt)
    piece = await agent.logs.read(work.attempt, 1, 0, 1000)
    seen = dict(line.text.split("=", 1) for line in piece.lines)
    expected = {
        "IGOR_JOB": "shop/report", "IGOR_PROJECT": "shop", "IGOR_RUN": work.run, "IGOR_STAGE": "main", "IGOR_ATTEMPT": "1", "IGOR_TRY": "1",
        "IGOR_FENCE": "7", "IGOR_NODE": "node-1", "IGOR_TRIGGER": "schedule", "IGOR_SCHEDULED_TIME": "2027-01-15T08:00:00Z",
        "IGOR_CREATED_AT": "2027-01-15T07:59:55Z", "IGOR_PARAM_DAY": "2026-11-24", "IGOR_PARAM_DRY_RUN": "no", "GREETING": "hi", "SITE": "berlin",
        "LANG": "C.UTF-8", "IGOR_ATTEMPT_ID": work.attempt,
    }  # fmt: skip
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["TRACEPARENT"].startswith("00-") and len(seen["TRACEPARENT"]) == 55
    assert {"PATH", "HOME", "USER", "IGOR_OUTPUT", "IGOR_STATE", "IGOR_SUMMARY", "IGOR_PROGRESS", "IGOR_METRICS"} <= set(seen)
    assert not {name for name in seen if name.startswith(("PYTEST", "VIRTUAL_ENV", "PYTHON"))}


async def test_an_assignment_delivered_twice_starts_once(nest: Nest, leader: SmallLeader) -> None:
    """At once, while it runs, and after it was put away (then its events come again)."""
    await nest.start()
    work = assignment("echo x >> ../count; sleep 0.2")
    await leader.assign(work, work)
    await leader.assign(work)
    await leader.end_of(work.attempt)
    await until(lambda: nest.done(work.attempt), "the folder in done/")
    leader.events.clear()
    await leader.assign(work)
    await leader.end_of(work.attempt)
    await until(lambda: nest.done(work.attempt), "the folder in done/ again")
    assert (nest.done(work.attempt)[0] / "count").read_text() == "x\n"


async def test_hello_and_heartbeats_name_the_attempts(nest: Nest, leader: SmallLeader) -> None:
    await nest.start()
    work = assignment("sleep 60")
    await leader.assign(work)
    await until(lambda: "try_started" in leader.kinds(work.attempt), "the start")
    await until(lambda: leader.beats and leader.beats[-1].attempts == (work.attempt,), "a heartbeat that names it")
    assert leader.beats[-1].memory_free_bytes > 0
    await leader.drop()
    await until(lambda: len(leader.hellos) == 2, "another Hello")
    assert leader.hellos[1].attempts == (work.attempt,)
    assert leader.hellos[0].boot_id == protocol.read_boot_id() and leader.hellos[1].term == 1


async def test_revoke_and_cancel(nest: Nest, leader: SmallLeader) -> None:
    """A held fire is revoked; a running command is cancelled; what never came here is revoked too, and stays so."""
    await nest.start()
    held = assignment("true", due_at=wall_now() + 60 * SECOND)
    running, unknown = assignment("echo on > ../on; sleep 60"), assignment("echo x > ../on")
    await leader.assign(held, running)
    await until(lambda: (nest.path(running.attempt) / "on").exists() and leader.kinds(held.attempt) == ["held"], "both under way")
    await leader.send(stream.Revoke(term=1, attempts=(held.attempt, unknown.attempt), reason="paused"))
    await leader.send(stream.Cancel(term=1, attempts=(running.attempt,), reason="ann"))
    assert (await leader.end_of(held.attempt)).kind == "revoked"
    end = await leader.end_of(running.attempt)
    assert (end.state, end.reason) == ("cancelled", "ann")
    assert (await leader.end_of(unknown.attempt)).kind == "revoked"
    await leader.assign(unknown)
    await until(lambda: nest.done(unknown.attempt), "the folder in done/")
    assert leader.kinds(unknown.attempt) == ["revoked"]


async def test_unacknowledged_events_come_again(nest: Nest, leader: SmallLeader) -> None:
    """On the next stream, and the next leader knows them from it; nothing is put away before."""
    await nest.start()
    leader.acknowledges = False
    work = assignment("true")
    await leader.assign(work)
    await leader.end_of(work.attempt)
    assert nest.path(work.attempt).exists()
    leader.acknowledges = True
    await leader.drop()
    await until(lambda: nest.done(work.attempt), "the folder in done/")
    assert leader.repeated == 4 and work.attempt in leader.hellos[-1].attempts


async def test_what_the_ledger_has_forgotten(nest: Nest, leader: SmallLeader) -> None:
    """Ended: put away. Still running: ended first."""
    await nest.start()
    ended, running = assignment("true"), assignment("sleep 60")
    leader.acknowledges = False
    await leader.assign(ended, running)
    await leader.end_of(ended.attempt)
    await until(lambda: "try_started" in leader.kinds(running.attempt), "the start")  # what it forgets was heard: the rest is sent without it
    leader.acknowledges, leader.forget = True, (ended.attempt, running.attempt)
    await leader.drop()
    assert (await leader.end_of(running.attempt)).state == "cancelled"
    await until(lambda: nest.done(ended.attempt) and nest.done(running.attempt), "both put away")


async def test_a_leader_of_an_older_term_is_not_obeyed(nest: Nest, leader: SmallLeader, tmp_path: Path) -> None:
    """Not within a stream, not after a restart."""
    leader.term = 5
    await nest.start()
    await until(lambda: leader.beats, "a heartbeat")
    leader.term = 4
    work = assignment("echo x > ../count")
    await leader.assign(work)
    await until(lambda: len(leader.hellos) > 1, "another Hello")
    await nest.stop()
    await nest.start()
    again = len(leader.hellos)
    assert leader.hellos[-1].term == 5
    await until(lambda: len(leader.hellos) > again, "that it leaves this leader too")
    assert not nest.path(work.attempt).exists()
    assert (tmp_path / "term.json").read_text() == '{"term":5}'


async def test_it_finds_the_leader(nest: Nest, leader: SmallLeader) -> None:
    """Through a node that is down and one that does not lead but says who does."""
    other = SmallLeader()
    await other.start()
    other.leads, other.leader_elsewhere = False, leader.address
    try:
        agent = await nest.start("http://127.0.0.1:9", other.address)
        await until(lambda: agent.link.leader == leader.address, "the leader")
    finally:
        await other.stop()


async def test_it_leaves_a_leader_that_does_not_answer(nest: Nest, leader: SmallLeader) -> None:
    await nest.start()
    leader.answers_beats = False
    await until(lambda: len(leader.hellos) == 2, "another Hello")


async def test_farewell_shows_the_way(nest: Nest, leader: SmallLeader) -> None:
    other = SmallLeader()
    await other.start()
    try:
        await nest.start()
        await leader.send(stream.Farewell(term=1, leader=other.address, reason="handed over"))
        await until(lambda: other.hellos, "a Hello at the other")
    finally:
        await other.stop()


async def test_starts_follow_the_leaders_clock(nest: Nest, leader: SmallLeader) -> None:
    """The leader's clock is an hour ahead: its due time is met, its times are written."""
    leader.clock_ahead_ns = 3600 * SECOND
    agent = await nest.start()
    await until(lambda: len(leader.beats) >= 2, "heartbeats")
    assert abs(agent.pulse.now() - leader.now()) < 0.5 * SECOND
    work = assignment("true", due_at=leader.now() + SECOND // 2)
    await leader.assign(work)
    await leader.end_of(work.attempt)
    held, started = leader.events[work.attempt][1].at, leader.events[work.attempt][2].at
    assert held < work.due_at <= started < work.due_at + SECOND // 2


async def test_an_assignment_that_comes_too_late_is_refused(nest: Nest, leader: SmallLeader) -> None:
    """Its lease counts from the last heartbeat that was answered before it came."""
    agent = await nest.start()
    await until(lambda: leader.beats, "a heartbeat")
    leader.answers_beats = False
    await until(lambda: not agent.pulse.lease_good(SECOND, protocol.boot_ns()), "that a lease of a second would be over")
    work = assignment("echo x > ../count", lease_ns=SECOND)
    await leader.assign(work)
    assert (await leader.end_of(work.attempt)).kind == "refused"
    assert leader.kinds(work.attempt) == ["refused"]


async def test_heartbeats_renew_leases(nest: Nest, leader: SmallLeader) -> None:
    """A command lives for longer than its lease, and ends with the last when the answers stop."""
    await nest.start()
    work = assignment("sleep 3.5; echo on > ../on; sleep 60", lease_ns=3 * SECOND)  # without renewals it never gets to the echo
    await leader.assign(work)
    await until(lambda: (nest.path(work.attempt) / "on").exists(), "the command behind its first lease")
    leader.answers_beats = leader.leads = False
    stopped = time.monotonic()
    await leader.drop()
    path = nest.path(work.attempt) / "events"
    await until(lambda: b'"lost"' in path.read_bytes(), "the end of the lease")
    assert time.monotonic() - stopped < 5
    leader.answers_beats = leader.leads = True
    assert (await leader.end_of(work.attempt)).state == "lost"


# --- restarts and deaths


async def test_kill_9_of_the_node_while_a_command_runs(nest: Nest, leader: SmallLeader) -> None:
    """The command goes on; the node comes back, finds it, reports its end: one try, the right exit code, all output."""
    await nest.start_process()
    work = assignment("for i in 1 2 3 4 5 6 7 8; do echo line $i; done; while [ ! -e ../go ]; do sleep 0.02; done; echo end; exit 9")
    await leader.assign(work)
    await until(lambda: "try_started" in leader.kinds(work.attempt), "the start")
    nest.kill_process()
    agent = await nest.start()
    assert leader.hellos[-1].attempts == (work.attempt,)
    (nest.path(work.attempt) / "go").touch()
    end = await leader.end_of(work.attempt)
    assert (end.state, end.exit_code) == ("failed", 9)
    assert leader.kinds(work.attempt) == WHOLE
    piece = await agent.logs.read(work.attempt, 1, 0, 1000)
    assert [line.text for line in piece.lines] == [*(f"line {i}" for i in range(1, 9)), "end"]


async def test_a_fire_that_comes_due_while_the_node_is_down(nest: Nest, leader: SmallLeader) -> None:
    """It starts in time, and ends; both are reported when the node is back."""
    await nest.start_process()
    work = assignment("exit 4", due_at=wall_now() + SECOND)
    await leader.assign(work)
    await until(lambda: leader.kinds(work.attempt) == ["held"], "held")
    nest.kill_process()
    await until(lambda: b'"ended"' in (nest.path(work.attempt) / "events").read_bytes(), "the end")
    await nest.start()
    assert (await leader.end_of(work.attempt)).exit_code == 4
    assert 0 <= leader.events[work.attempt][2].at - work.due_at < SECOND // 2


async def test_kill_9_of_the_preloaded_process(nest: Nest, leader: SmallLeader) -> None:
    """What runs goes on, what comes next is started by the next one."""
    agent = await nest.start()
    work, later = assignment("sleep 0.8; exit 4"), assignment("exit 5")
    await leader.assign(work)
    await until(lambda: "try_started" in leader.kinds(work.attempt), "the start")
    assert agent.launcher.pid is not None
    os.kill(agent.launcher.pid, signal.SIGKILL)
    await leader.assign(later)
    assert (await leader.end_of(later.attempt)).exit_code == 5
    assert (await leader.end_of(work.attempt)).exit_code == 4
    assert leader.kinds(later.attempt) == WHOLE and agent.launcher.starts == 2


async def test_kill_9_of_a_wrapper(nest: Nest, leader: SmallLeader) -> None:
    """Its try is lost and never started again; the next one is."""
    await nest.start()
    work = assignment('echo $$ > ../pid-$IGOR_TRY; test "$IGOR_TRY" = 2 || sleep 60', retries={"max": 1, "backoff": {"initial_ns": 0}})
    await leader.assign(work)
    path = nest.path(work.attempt)
    await until(lambda: (path / "pid-1").exists() and (path / "pid-1").read_text().endswith("\n"), "the command")
    pid = int((path / "pid-1").read_text())
    os.kill(protocol.lock_holder(str(path / "lock")), signal.SIGKILL)
    assert (await leader.end_of(work.attempt)).state == "succeeded"
    assert not alive(pid)
    assert [event.state for event in leader.events[work.attempt].values() if event.kind == "try_ended"] == ["lost", "succeeded"]


async def test_a_wrapper_killed_while_the_node_was_down(nest: Nest, leader: SmallLeader) -> None:
    """Found at the start: the lock is free and no end is recorded."""
    await nest.start_process()
    work = assignment("echo x >> ../count; sleep 60")
    await leader.assign(work)
    path = nest.path(work.attempt)
    await until(lambda: (path / "count").exists() and (path / "count").read_text(), "the command")
    nest.kill_process()
    os.kill(protocol.lock_holder(str(path / "lock")), signal.SIGKILL)
    await nest.start()
    end = await leader.end_of(work.attempt)
    assert (end.state, end.reason) == ("failed", "lost: wrapper died")
    assert (nest.done(work.attempt) or [path])[0].joinpath("count").read_text() == "x\n"


async def test_an_orderly_stop_ends_no_command(nest: Nest, leader: SmallLeader) -> None:
    await nest.start()
    work = assignment("sleep 0.5; exit 4")
    await leader.assign(work)
    await until(lambda: "try_started" in leader.kinds(work.attempt), "the start")
    await nest.stop()
    assert leader.goodbyes == 1
    await until(lambda: b'"ended"' in (nest.path(work.attempt) / "events").read_bytes(), "the end")
    await nest.start()
    assert (await leader.end_of(work.attempt)).exit_code == 4


async def test_a_crash_between_folder_and_spec(nest: Nest, leader: SmallLeader) -> None:
    """Nothing had begun: the folder goes, and the assignment that comes again is run."""
    work = assignment("true")
    nest.path(work.attempt).mkdir(parents=True)
    await nest.start()
    assert leader.hellos[-1].attempts == ()
    await leader.assign(work)
    assert (await leader.end_of(work.attempt)).state == "succeeded"


async def test_a_wrapper_that_can_never_be_had(nest: Nest, leader: SmallLeader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for again and again; then the attempt goes back to the leader."""
    agent = await nest.start()
    monkeypatch.setattr("igor_node.agent.agent.LAUNCH_PATIENCE_NS", 0)
    monkeypatch.setattr("igor_node.agent.agent.LOOK_S", 0.02)
    monkeypatch.setattr(agent.launcher, "request", lambda attempt: None)
    work = assignment("true")
    await leader.assign(work)
    end = await leader.end_of(work.attempt)
    assert end.kind == "refused" and "wrappers.log" in end.reason


async def test_a_full_disk_refuses(nest: Nest, leader: SmallLeader, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await nest.start()

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(agent.folders, "create", full)
    work = assignment("true")
    await leader.assign(work)
    end = await leader.end_of(work.attempt)
    assert end.kind == "refused" and "No space left" in end.reason


async def test_lost_wakes_cost_a_second(nest: Nest, leader: SmallLeader) -> None:
    """The pipe is only a wake: the files are looked at anyway."""
    await nest.start()
    (nest.folder / "attempts" / "wake").unlink()
    work = assignment("true")
    await leader.assign(work)
    assert (await leader.end_of(work.attempt, 4)).state == "succeeded"


async def test_three_hundred_at_once(nest: Nest, leader: SmallLeader) -> None:
    """Assignments come in batches; every one is run and reported once."""
    await nest.start()
    work = [assignment(("/bin/sh", "-c", f"exit {n % 5}")) for n in range(300)]
    for start in range(0, 300, 50):
        await leader.assign(*work[start : start + 50])
    for n, each in enumerate(work):
        assert (await leader.end_of(each.attempt, 60)).exit_code == n % 5
        assert leader.kinds(each.attempt) == WHOLE
    await until(lambda: not os.listdir(nest.folder / "attempts" / "open"), "all folders put away")


async def test_old_attempts_are_removed(nest: Nest, leader: SmallLeader) -> None:
    agent = await nest.start()
    work = assignment("true")
    await leader.assign(work)
    await until(lambda: nest.done(work.attempt), "the folder in done/")
    day = 86_400 * SECOND
    assert agent.folders.prune(wall_now(), agent.settings.keep_logs) == 0
    assert agent.folders.prune(wall_now() + 32 * day, agent.settings.keep_logs) == 1
    assert not nest.done(work.attempt)


async def test_an_attempt_whose_folder_is_gone_keeps_no_lease(nest: Nest, leader: SmallLeader) -> None:
    """Somebody removed the folder by hand: no heartbeat names the attempt any more, so the leader gives it up in time."""
    agent = await nest.start()
    work = assignment("sleep 60", due_at=wall_now() + 30 * SECOND)
    await leader.assign(work)
    await until(lambda: protocol.lock_holder(str(nest.path(work.attempt) / "lock")), "the wrapper")
    os.kill(protocol.lock_holder(str(nest.path(work.attempt) / "lock")), signal.SIGKILL)
    shutil.rmtree(nest.path(work.attempt))
    await until(lambda: work.attempt not in agent.heartbeat(10**6).attempts, "the heartbeats to forget it")


async def test_a_stream_that_is_lost_while_an_assignment_is_taken(nest: Nest, leader: SmallLeader) -> None:
    """The disk is slow, so the stream is given up meanwhile: the assignment is taken to its end all the same, and never half."""
    agent = await nest.start()
    await until(lambda: leader.beats, "a stream")
    slow = threading.Event()
    agent._disk.submit(slow.wait)
    work = assignment("true")
    await leader.assign(work)
    await until(lambda: "_read" in ended_or_ending(), "the stream to be given up")
    slow.set()
    await leader.end_of(work.attempt)
    await until(lambda: nest.done(work.attempt), "the folder in done/")


def ended_or_ending() -> set[str]:
    """The link's tasks that are told to end, and those that have."""
    tasks = {task.get_coro().__name__: task for task in asyncio.all_tasks() if hasattr(task.get_coro(), "__name__")}  # type: ignore[union-attr]
    return {name for name in ("_read", "_beat", "_report") if name not in tasks or tasks[name].cancelling()}


class Vault:
    """Who gives attempts their secrets; `closed`: nobody just now."""

    def __init__(self, given: dict[str, Any], *, closed: bool = False) -> None:
        self.given, self.closed = given, closed
        self.asked: list[str] = []

    async def give(self, attempt: str) -> dict[str, Any]:
        self.asked.append(attempt)
        if self.closed:
            raise Unavailable("no leader is known")
        return self.given


def files_with(folder: Path, needle: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


async def test_secrets_are_in_the_environment_of_the_command_alone(nest: Nest, leader: SmallLeader) -> None:
    """The same for each try of one wrapper; in no file of the node, and masked in the output."""
    vault = Vault({"values": {"DB": "pl4nted-value"}})
    agent = await nest.start(secrets=vault.give)
    command = 'printf %s "$DB" | wc -c > ../seen-$IGOR_TRY; echo "it is $DB"; test "$IGOR_TRY" = 2'
    work = assignment(command, secrets={"DB": "db"}, retries={"max": 1, "backoff": {"initial_ns": 0}})
    await leader.assign(work)
    assert (await leader.end_of(work.attempt)).state == "succeeded"
    await until(lambda: nest.done(work.attempt), "the folder in done/")
    assert [(nest.done(work.attempt)[0] / f"seen-{n}").read_text() for n in (1, 2)] == ["13\n", "13\n"]
    assert [line.text for n in (1, 2) for line in (await agent.logs.read(work.attempt, n, 0, 1000)).lines] == ["it is ***"] * 2
    assert vault.asked == [work.attempt] and files_with(nest.folder, b"pl4nted") == []


async def test_nothing_begins_without_its_secrets(nest: Nest, leader: SmallLeader) -> None:
    """While nobody gives them it is asked again, also after the agent's next start; what needs none does not wait."""
    closed = Vault({}, closed=True)
    await nest.start(secrets=closed.give)
    work, other = assignment('echo "$DB" | wc -c > ../seen', secrets={"DB": "db"}), assignment("true")
    await leader.assign(work, other)
    assert (await leader.end_of(other.attempt)).state == "succeeded"
    await until(lambda: len(closed.asked) >= 3, "the third question")
    assert leader.kinds(work.attempt) == [] and not (nest.path(work.attempt) / "seen").exists()
    await nest.stop()
    opened = Vault({"values": {"DB": "given at last"}})
    await nest.start(secrets=opened.give)
    assert (await leader.end_of(work.attempt)).state == "succeeded"
    await until(lambda: nest.done(work.attempt), "the folder in done/")
    assert (nest.done(work.attempt)[0] / "seen").read_text() == "14\n" and set(opened.asked) == {work.attempt}


async def test_a_secret_that_is_missing_fails_the_attempt(nest: Nest, leader: SmallLeader) -> None:
    await nest.start(secrets=Vault({"refuse": "secret db is not set"}).give)
    work = assignment("echo x > ../seen", secrets={"DB": "db"}, retries={"max": 3, "backoff": {"initial_ns": 0}})
    await leader.assign(work)
    end = await leader.end_of(work.attempt)
    assert (end.state, end.reason, leader.kinds(work.attempt)) == ("failed", "secret db is not set", ["ended"])
