"""SEMANTICS, "What Igor promises" 2 and 4: kill -9 of the pre-loaded process, of wrappers, of everything, and what is found afterwards."""

from __future__ import annotations

import os
import signal

import pytest

from tests.unit.wrapper.room import SECOND, Room, alive, wait_for
from wrapper import protocol


def kinds(events):
    return [event["kind"] for event in events]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_the_death_of_the_preloaded_process_ends_nothing(room: Room) -> None:
    """A running command, its output, its retries and its exit code: all as if nothing had happened. The next one serves the same folders."""
    attempt = room.start('echo $$ > ../pid; for i in 1 2 3 4 5; do echo "$IGOR_TRY $i"; sleep 0.05; done; test "$IGOR_TRY" = 2', retries={"max": 1})
    pid = int(room.wait_file(attempt, "pid"))
    room.kill_zygote()
    assert alive(pid)
    room.start_zygote()
    other = room.start(["/bin/true"])
    events = room.finish(attempt)
    assert kinds(events) == ["held"] + ["try_started", "try_ended"] * 2 + ["ended"]
    assert events[-1]["exit_code"] == 0
    assert room.output(attempt, try_n=2) == b"".join(b"2 %d\n" % i for i in range(1, 6))
    assert room.finish(other)[-1]["state"] == "succeeded"


def test_the_end_of_the_node_ends_the_preloaded_process_alone(room: Room) -> None:
    """End of file on its socket: it goes, a held fire still starts."""
    attempt = room.start(["/bin/true"], due_at=protocol.boot_ns() + room.clock_ns + SECOND // 2)
    room.wait_kind(attempt, "held")
    room.control.close()
    assert room.zygote is not None
    assert room.zygote.wait(10) == 0
    assert room.finish(attempt)[-1]["state"] == "succeeded"


def test_a_killed_wrapper_takes_its_command_along(room: Room) -> None:
    """And everything that the command had started: the pre-loaded process gets the orphans. It tells the node."""
    attempt = room.start("sleep 60 & echo $! > ../child; setsid sleep 61 & echo $$ > ../pid; wait")
    pids = [int(room.wait_file(attempt, name)) for name in ("pid", "child")]
    kill(room.wrapper_pid(attempt))
    wait_for(lambda: not any(alive(pid) for pid in pids), "the end of the command and its child")
    assert room.control.recv(500).decode() == f"{attempt} exit -9"


def test_a_lost_try_is_never_started_again(room: Room) -> None:
    """Without retries the attempt has failed; its reason says how."""
    attempt = room.start("echo $IGOR_TRY >> ../tries; echo on > ../on; sleep 60")
    room.wait_file(attempt, "on")
    kill(room.wrapper_pid(attempt))
    room.wait_free(attempt)
    room.launch(attempt)
    events = room.finish(attempt)
    assert kinds(events) == ["held", "try_started", "try_ended", "ended"]
    assert (events[-2]["state"], events[-2]["reason"]) == ("lost", "wrapper died")
    assert (events[-1]["state"], events[-1]["reason"]) == ("failed", "lost: wrapper died")
    assert (room.folder(attempt) / "tries").read_text() == "1\n"


def test_retries_decide_about_a_next_try(room: Room) -> None:
    attempt = room.start('echo $IGOR_TRY >> ../tries; echo on > ../on; test "$IGOR_TRY" = 2 || sleep 60', retries={"max": 1})
    room.wait_file(attempt, "on")
    kill(room.wrapper_pid(attempt))
    room.wait_free(attempt)
    room.launch(attempt)
    events = room.finish(attempt)
    assert [event["state"] for event in events if event["kind"] == "try_ended"] == ["lost", "succeeded"]
    assert events[-1]["state"] == "succeeded"
    assert (room.folder(attempt) / "tries").read_text() == "1\n2\n"


def test_orphans_of_a_dead_machine_end_before_the_next_try(room: Room) -> None:
    """Pre-loaded process and wrapper killed at once: what the command had started went to init, and is found by its environment."""
    attempt = room.start('test "$IGOR_TRY" = 2 || { setsid sleep 60 & echo $! > ../child; echo on > ../on; sleep 60; }', retries={"max": 1})
    room.wait_file(attempt, "on")
    child = int(room.wait_file(attempt, "child"))
    wrapper = room.wrapper_pid(attempt)
    room.kill_zygote()
    kill(wrapper)
    room.wait_free(attempt)
    room.start_zygote()
    room.launch(attempt)
    assert room.finish(attempt)[-1]["state"] == "succeeded"
    assert not alive(child)


def test_a_wrapper_that_died_while_it_waited(room: Room) -> None:
    """Nothing had begun: the next one waits on, `held` is said once."""
    due = protocol.boot_ns() + room.clock_ns + SECOND
    attempt = room.start("echo x >> ../count", due_at=due)
    room.wait_kind(attempt, "held")
    kill(room.wrapper_pid(attempt))
    room.wait_free(attempt)
    room.launch(attempt)
    events = room.finish(attempt)
    assert kinds(events) == ["held", "try_started", "try_ended", "ended"]
    assert events[1]["at"] >= due
    assert (room.folder(attempt) / "count").read_text() == "x\n"


def test_a_wrapper_that_died_between_two_tries(room: Room) -> None:
    """The end of the first is recorded once, the second comes."""
    attempt = room.start('test "$IGOR_TRY" = 2', retries={"max": 1, "initial_ns": SECOND // 2})
    room.wait_kind(attempt, "try_ended")
    kill(room.wrapper_pid(attempt))
    room.wait_free(attempt)
    room.launch(attempt)
    assert kinds(room.finish(attempt)) == ["held"] + ["try_started", "try_ended"] * 2 + ["ended"]


@pytest.mark.parametrize("policy, state", [("rerun", "lost"), ("wait", "failed"), ("fail", "failed")])
def test_after_a_restart_of_the_machine(room: Room, policy: str, state: str) -> None:
    """The lease of another boot is over: under `rerun` the leader decides, else the retries of the attempt do."""
    attempt = room.make("echo x >> ../count", boot_id="another-boot", on_node_loss=policy)
    events = protocol.EventFile(str(room.folder(attempt) / protocol.EVENTS))
    events.append({"kind": "held", "at": 1}, {"kind": "try_started", "at": 2, "try_n": 1}, sync=True)
    events.close()
    room.launch(attempt)
    found = room.finish(attempt)
    assert (found[-2]["state"], found[-2]["reason"]) == ("lost", "the machine restarted")
    assert found[-1]["state"] == state
    assert not (room.folder(attempt) / "count").exists()


def test_a_power_cut_that_took_the_spec(room: Room) -> None:
    """Something had begun, nobody knows what: it ends as lost. (If nothing had, the node removes the folder.)"""
    attempt = room.make("true")
    events = protocol.EventFile(str(room.folder(attempt) / protocol.EVENTS))
    events.append({"kind": "try_started", "at": 2, "try_n": 1}, sync=True)
    events.close()
    (room.folder(attempt) / protocol.SPEC).write_bytes(b"")
    room.launch(attempt)
    assert room.finish(attempt)[-1]["state"] == "lost"


def test_a_torn_event_is_no_event(room: Room) -> None:
    """A crash in the middle of `try_started`: the command cannot have begun, so it is started."""
    attempt = room.make("echo x >> ../count")
    whole = protocol.event_line({"seq": 1, "kind": "held", "at": 1})
    torn = protocol.event_line({"seq": 2, "kind": "try_started", "at": 2, "try_n": 1})[:-5]
    (room.folder(attempt) / protocol.EVENTS).write_bytes(whole + torn)
    room.launch(attempt)
    assert kinds(room.finish(attempt)) == ["held", "try_started", "try_ended", "ended"]
    assert (room.folder(attempt) / "count").read_text() == "x\n"


def test_kills_at_many_moments(room: Room) -> None:
    """Wrappers killed 0 to 30 ms after the request, and asked for again until there is an end: no try number begins twice."""
    for delay_ms in range(0, 31, 2):
        attempt = room.start("echo $IGOR_TRY >> ../tries; sleep 0.005", retries={"max": 20, "initial_ns": 0})
        signal.sigtimedwait([], delay_ms / 1000)
        if pid := protocol.lock_holder(str(room.folder(attempt) / protocol.LOCK)):
            kill(pid)
            room.wait_free(attempt)
        room.launch(attempt)
        events = room.finish(attempt)
        tries = room.folder(attempt) / "tries"
        begun = tries.read_text().split() if tries.exists() else []
        assert len(begun) == len(set(begun)), f"delay {delay_ms} ms: {begun}"
        numbers = [event["try_n"] for event in events if event["kind"] == "try_started"]
        assert numbers == list(range(1, len(numbers) + 1)) and set(begun) <= set(map(str, numbers))
        assert kinds(events).count("ended") == 1 and events[-1]["state"] == "succeeded"


def test_a_request_for_what_was_put_away_is_harmless(room: Room) -> None:
    """A wrapper is asked for, but the folder has moved: nothing starts, nothing is said, and the next request is served."""
    room.launch("gone0.main.1")
    assert room.run("exit 5")[-1]["exit_code"] == 5
    room.control.settimeout(0.2)
    with pytest.raises(TimeoutError):
        room.control.recv(4096)
