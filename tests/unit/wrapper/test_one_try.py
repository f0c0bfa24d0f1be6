"""SEMANTICS, "The wrapper": one try of one attempt, with real processes: its events, its end, what the command sees and what it cost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.unit.wrapper.room import MILLISECOND, SECOND, Room, alive, wait_for
from wrapper import protocol


def kinds(events):
    return [event["kind"] for event in events]


def last_try(events):
    return [event for event in events if event["kind"] == "try_ended"][-1]


def test_events_come_in_their_order(room: Room) -> None:
    """`held`, `try_started`, `try_ended`, `ended`, numbered from 1, then the lock is free."""
    attempt = room.start(["/bin/true"])
    events = room.finish(attempt)
    assert kinds(events) == ["held", "try_started", "try_ended", "ended"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    assert events[-1]["state"] == "succeeded" and events[-1]["exit_code"] == 0
    room.wait_free(attempt)


@pytest.mark.parametrize(
    "command, changes, state, exit_code, number",
    [
        pytest.param("exit 0", {}, "succeeded", 0, None, id="0 is success"),
        pytest.param("exit 7", {}, "failed", 7, None, id="another code is failure"),
        pytest.param("exit 7", {"success_codes": [0, 7]}, "succeeded", 7, None, id="success_codes says more"),
        pytest.param("exit 9", {"skip_codes": [9]}, "skipped", 9, None, id="skip_codes skips"),
        pytest.param("kill -SEGV $$", {}, "failed", None, signal.SIGSEGV, id="a signal is failure"),
        pytest.param("kill -KILL $$", {}, "failed", None, signal.SIGKILL, id="KILL from elsewhere"),
    ],
)
def test_how_a_try_ends(room: Room, command: str, changes: dict, state: str, exit_code: int | None, number: int | None) -> None:
    """Exit code or signal, once, in the try and in the attempt."""
    events = room.run(command, **changes)
    assert kinds(events).count("ended") == 1
    for event in (last_try(events), events[-1]):
        assert (event["state"], event.get("exit_code"), event.get("signal")) == (state, exit_code, number)


@pytest.mark.parametrize(
    "command, changes, exit_code, words",
    [
        pytest.param(["/no/such/program"], {}, 127, b"cannot run /no/such/program", id="no such program"),
        pytest.param(["/etc/passwd"], {}, 126, b"cannot run /etc/passwd", id="not a program"),
        pytest.param(["/bin/true"], {"workdir": "/no/such/folder"}, 126, b"cannot enter /no/such/folder", id="no such folder"),
    ],
)
def test_what_cannot_start_says_why(room: Room, command: list[str], changes: dict, exit_code: int, words: bytes) -> None:
    """The exit codes of a shell, and the reason in the log."""
    attempt = room.start(command, **changes)
    assert last_try(room.finish(attempt))["exit_code"] == exit_code
    assert words in room.output(attempt, "stderr")


def test_it_waits_for_the_due_time_itself(room: Room) -> None:
    """A wrapper that is started early holds the fire, and starts it when it is due by the leader's clock."""
    due = protocol.boot_ns() + room.clock_ns + SECOND
    events = room.run(["/bin/true"], due_at=due)
    assert events[0]["kind"] == "held" and events[0]["at"] < due - 100 * MILLISECOND
    assert due <= events[1]["at"] < due + 500 * MILLISECOND


def test_the_command_has_its_own_world(room: Room) -> None:
    """Group of its own, empty stdin, default signals, no descriptor of ours, a scratch folder that is gone afterwards."""
    program = (
        "import os, signal, sys; print(os.getpgrp() == os.getpid(), sys.stdin.read() == '', "
        "signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, sorted(map(int, os.listdir('/proc/self/fd')))[:-1] == [0, 1, 2], os.getcwd())"
    )
    attempt = room.start(["python3", "-I", "-c", program], env={"PATH": os.environ["PATH"], "IGOR_ATTEMPT_ID": "x"})
    room.finish(attempt)
    assert room.output(attempt).decode().split() == ["True"] * 4 + [str(room.folder(attempt) / "work")]
    assert not (room.folder(attempt) / "work").exists()


def test_sigpipe_is_as_a_command_expects_it(room: Room) -> None:
    """`yes | head` ends: Python's own ignoring of SIGPIPE is not inherited."""
    attempt = room.start("yes | head -n 1")
    assert room.finish(attempt)[-1]["state"] == "succeeded"
    assert room.output(attempt) == b"y\n" and room.output(attempt, "stderr") == b""


def test_what_the_command_wrote_stays(room: Room) -> None:
    """IGOR_TRY and the files of a try."""
    attempt = room.start('echo "n=$IGOR_TRY" > "$IGOR_OUTPUT"; echo 0.5 > "$IGOR_PROGRESS"')
    room.finish(attempt)
    assert (room.folder(attempt) / "output-1").read_text() == "n=1\n"
    assert (room.folder(attempt) / "progress-1").read_text() == "0.5\n"


def test_umask_and_workdir(room: Room, tmp_path: Path) -> None:
    attempt = room.start("touch made; pwd", umask=0o027, workdir=str(tmp_path))
    room.finish(attempt)
    assert room.output(attempt).decode().strip() == str(tmp_path)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640


def test_a_try_is_measured(room: Room) -> None:
    """Peak memory, CPU time, duration."""
    program = "import time; a = bytearray(60_000_000); t = time.process_time()\nwhile time.process_time() - t < 0.2: pass"
    event = last_try(room.run(["python3", "-c", program], env={"PATH": os.environ["PATH"]}))
    assert event["max_rss_bytes"] > 60_000_000
    assert event["cpu_ns"] > 200 * MILLISECOND
    assert event["duration_ns"] > 200 * MILLISECOND


# --- ending a tree


def test_timeout_terminates(room: Room) -> None:
    """TERM is enough for a command that listens."""
    attempt = room.start("trap 'echo bye; exit 3' TERM; while :; do sleep 0.02; done", timeout_ns=200 * MILLISECOND)
    event = last_try(room.finish(attempt))
    assert (event["state"], event["exit_code"], event["reason"]) == ("timed_out", 3, "timeout")
    assert room.output(attempt) == b"bye\n"


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def note(name):
    with open(f"../{name}", "w") as file:
        print(os.getpid(), file=file)
if os.fork() == 0:          # a session of its own, and an orphan
    os.setsid()
    if os.fork() == 0:
        note("orphan")
        time.sleep(60)
    os._exit(0)
if os.fork() == 0:          # stopped: it cannot even hear
    note("stopped")
    os.kill(os.getpid(), signal.SIGSTOP)
note("command")
time.sleep(60)
"""


def test_timeout_kills_the_whole_tree(room: Room) -> None:
    """After the grace KILL, for every descendant: those that ignore TERM, left the session, lost their parent or are stopped."""
    attempt = room.start(
        ["python3", "-c", STUBBORN], env={"PATH": os.environ["PATH"], "IGOR_ATTEMPT_ID": "stubborn"}, timeout_ns=SECOND, grace_ns=200 * MILLISECOND
    )
    pids = [int(room.wait_file(attempt, name)) for name in ("orphan", "stopped", "command")]
    events = room.finish(attempt)
    assert last_try(events)["state"] == "timed_out" and last_try(events)["signal"] == signal.SIGKILL
    assert not any(alive(pid) for pid in pids)


def test_nothing_outlives_its_try(room: Room) -> None:
    """A command that ends well and leaves a background process: its exit code counts, the rest is ended, nobody waits for its stdout."""
    attempt = room.start("sleep 60 & echo $! > ../left; echo done")
    pid = int(room.wait_file(attempt, "left"))
    began = time.monotonic()
    events = room.finish(attempt)
    assert events[-1]["state"] == "succeeded" and time.monotonic() - began < 8
    assert room.output(attempt) == b"done\n"
    assert not alive(pid)


def test_a_background_process_may_finish_its_words(room: Room) -> None:
    """What ends by itself within a second is heard to its end."""
    attempt = room.start("(sleep 0.2; echo late) & echo early")
    room.finish(attempt)
    assert room.output(attempt) == b"early\nlate\n"


def test_cancel_ends_a_running_command(room: Room) -> None:
    """TERM, then the attempt is cancelled, whatever exit code the command gives."""
    attempt = room.start("trap 'exit 0' TERM; echo on > ../on; while :; do sleep 0.02; done", retries={"max": 3})
    room.wait_file(attempt, "on")
    room.ask(attempt, "cancel", "ann wants it so")
    events = room.finish(attempt)
    assert (events[-1]["state"], events[-1]["reason"]) == ("cancelled", "ann wants it so")
    assert kinds(events).count("try_started") == 1


def test_sigterm_to_the_wrapper_cancels(room: Room) -> None:
    attempt = room.start("echo on > ../on; exec sleep 60")
    room.wait_file(attempt, "on")
    os.kill(room.wrapper_pid(attempt), signal.SIGTERM)
    assert room.finish(attempt)[-1]["state"] == "cancelled"


@pytest.mark.parametrize("what", ["revoke", "cancel"])
def test_a_held_fire_is_revoked(room: Room, what: str) -> None:
    """Before the due time both mean: it never starts."""
    attempt = room.start("echo on > ../on", due_at=protocol.boot_ns() + room.clock_ns + 60 * SECOND)
    room.wait_kind(attempt, "held")
    room.ask(attempt, what, "the job was paused")
    events = room.finish(attempt)
    assert kinds(events) == ["held", "revoked"] and events[-1]["reason"] == "the job was paused"
    assert not (room.folder(attempt) / "on").exists()


def test_what_is_asked_before_there_is_a_wrapper_counts(room: Room) -> None:
    """The control file is the truth, the signal only wakes."""
    attempt = room.make("echo on > ../on")
    room.ask(attempt, "revoke")
    room.launch(attempt)
    assert kinds(room.finish(attempt)) == ["held", "revoked"]


def test_a_revocation_comes_too_late_for_a_started_command(room: Room) -> None:
    """Started and revoked: exactly one."""
    attempt = room.start("echo on > ../on; sleep 0.3; exit 5")
    room.wait_file(attempt, "on")
    room.ask(attempt, "revoke")
    events = room.finish(attempt)
    assert "revoked" not in kinds(events) and events[-1]["exit_code"] == 5


def test_fifty_attempts_in_few_processes(room: Room) -> None:
    """A wrapper process runs one attempt after another; each has its own events, output and end."""
    attempts = [room.start(f"echo {n}; exit {n % 3}") for n in range(50)]
    for n, attempt in enumerate(attempts):
        events = room.finish(attempt)
        assert kinds(events) == ["held", "try_started", "try_ended", "ended"]
        assert events[-1]["exit_code"] == n % 3
        assert room.output(attempt) == f"{n}\n".encode()
    assert len({room.events(attempt)[0]["pid"] for attempt in attempts}) < 50


def test_a_second_request_is_harmless(room: Room) -> None:
    """While it runs, and when it has ended."""
    attempt = room.start("echo x >> ../count; sleep 0.3")
    room.wait_kind(attempt, "try_started")
    room.launch(attempt)
    room.finish(attempt)
    room.launch(attempt)
    room.run(["/bin/true"])
    assert (room.folder(attempt) / "count").read_text() == "x\n"
    assert len(room.events(attempt)) == 4


def test_idle_wrappers_go_away(room: Room) -> None:
    attempt = room.start(["/bin/true"])
    pid = room.finish(attempt)[0]["pid"]
    wait_for(lambda: not alive(pid), "the end of an idle wrapper", 10)
