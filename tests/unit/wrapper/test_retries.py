"""SEMANTICS, "The wrapper": which failures are tried again, when, and for how long. Rules as tables, then real processes."""

from __future__ import annotations

import pytest

from tests.unit.wrapper.room import MILLISECOND, SECOND, Room
from wrapper import retry


def rules(**changes):
    retries = {"max": 2, "initial_ns": 10 * SECOND, "factor": 2.0, "max_ns": 60 * SECOND, "jitter": 0.0, "on": None} | changes.pop("retries", {})
    return {"retries": retries, "success_codes": [0], "retry_codes": None, "skip_codes": []} | changes


@pytest.mark.parametrize(
    "changes, try_n, state, exit_code, number, again",
    [
        pytest.param({}, 1, "failed", 1, None, True, id="every failure by default"),
        pytest.param({}, 2, "failed", 1, None, True, id="max counts the tries after the first"),
        pytest.param({}, 3, "failed", 1, None, False, id="no more than max"),
        pytest.param({"retries": {"max": 0}}, 1, "failed", 1, None, False, id="none by default"),
        pytest.param({}, 1, "succeeded", 0, None, False, id="success"),
        pytest.param({}, 1, "skipped", 9, None, False, id="skipped"),
        pytest.param({}, 1, "cancelled", None, 15, False, id="cancelled"),
        pytest.param({}, 1, "timed_out", None, 9, True, id="a time-out by default"),
        pytest.param({"retries": {"on": [75]}}, 1, "timed_out", None, 9, False, id="a time-out only if named"),
        pytest.param({"retries": {"on": [75, "timeout"]}}, 1, "timed_out", None, 9, True, id="a time-out that is named"),
        pytest.param({"retries": {"on": [75]}}, 1, "failed", 75, None, True, id="a code that is named"),
        pytest.param({"retries": {"on": [75]}}, 1, "failed", 1, None, False, id="a code that is not named"),
        pytest.param({"retry_codes": [75]}, 1, "failed", 75, None, True, id="retry_codes"),
        pytest.param({"retry_codes": [75]}, 1, "failed", 1, None, False, id="not in retry_codes"),
        pytest.param({"retry_codes": [75], "retries": {"on": [76]}}, 1, "failed", 76, None, True, id="either list"),
        pytest.param({"retries": {"on": [137]}}, 1, "failed", None, 9, True, id="a signal counts as 128 + its number"),
        pytest.param({"retries": {"on": [75]}}, 1, "lost", None, None, True, id="lost: no code can be known"),
    ],
)
def test_wants_retry(changes: dict, try_n: int, state: str, exit_code: int | None, number: int | None, again: bool) -> None:
    assert retry.wants_retry(rules(**changes), try_n=try_n, state=state, exit_code=exit_code, signal=number) is again


@pytest.mark.parametrize(
    "try_n, jitter, chance, seconds",
    [
        pytest.param(1, 0.0, 0.9, 10, id="initial"),
        pytest.param(3, 0.0, 0.9, 40, id="factor"),
        pytest.param(4, 0.0, 0.9, 60, id="max"),
        pytest.param(10_000, 0.0, 0.9, 60, id="max after any number of tries"),
        pytest.param(1, 0.5, 0.5, 7.5, id="jitter takes away"),
        pytest.param(1, 1.0, 0.0, 10, id="jitter may take nothing"),
    ],
)
def test_backoff(try_n: int, jitter: float, chance: float, seconds: float) -> None:
    assert retry.backoff_ns(rules(retries={"jitter": jitter}), try_n, chance) == int(seconds * SECOND)


def kinds(events):
    return [event["kind"] for event in events]


def test_it_tries_until_it_succeeds(room: Room) -> None:
    """Each try has its number, its output, its record; the attempt ends like its last."""
    attempt = room.start('echo "try $IGOR_TRY"; test "$IGOR_TRY" = 3', retries={"max": 5})
    events = room.finish(attempt)
    assert kinds(events) == ["held"] + ["try_started", "try_ended"] * 3 + ["ended"]
    assert [event["state"] for event in events if event["kind"] == "try_ended"] == ["failed", "failed", "succeeded"]
    assert [room.output(attempt, try_n=n) for n in (1, 2, 3)] == [b"try 1\n", b"try 2\n", b"try 3\n"]


def test_waits_grow(room: Room) -> None:
    events = room.run("exit 1", retries={"max": 3, "initial_ns": 50 * MILLISECOND, "factor": 3.0})
    ends = [event["at"] for event in events if event["kind"] == "try_ended"]
    starts = [event["at"] for event in events if event["kind"] == "try_started"]
    waits = [start - end for start, end in zip(starts[1:], ends, strict=False)]
    assert [wait >= expected * MILLISECOND for wait, expected in zip(waits, (50, 150, 450), strict=True)] == [True] * 3
    assert events[-1]["state"] == "failed" and events[-1]["exit_code"] == 1


def test_a_time_out_is_a_try(room: Room) -> None:
    events = room.run('test "$IGOR_TRY" = 2 || sleep 60', timeout_ns=200 * MILLISECOND, retries={"max": 1})
    assert [event["state"] for event in events if event["kind"] == "try_ended"] == ["timed_out", "succeeded"]


def test_total_timeout_covers_all_tries(room: Room) -> None:
    """In a try it ends that try and the attempt; where the next try could not begin before it there is none."""
    events = room.run("sleep 0.1; exit 1", total_timeout_ns=400 * MILLISECOND, retries={"max": 50, "initial_ns": 20 * MILLISECOND, "factor": 1.0})
    assert 1 <= kinds(events).count("try_started") <= 4
    assert events[-1]["state"] in ("timed_out", "failed") and "total_timeout" in events[-1]["reason"]


def test_cancel_between_two_tries(room: Room) -> None:
    attempt = room.start("exit 1", retries={"max": 3, "initial_ns": 60 * SECOND, "max_ns": 60 * SECOND})
    room.wait_kind(attempt, "try_ended")
    room.ask(attempt, "cancel", "enough")
    events = room.finish(attempt)
    assert kinds(events) == ["held", "try_started", "try_ended", "ended"]
    assert (events[-1]["state"], events[-1]["reason"]) == ("cancelled", "enough")
