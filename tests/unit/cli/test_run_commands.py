"""`run`, `watch`, `cancel`, `logs`, `show`, `runs`, `why`: what is sent, what is printed where, and the exit codes that scripts rely on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from igor_node import words
from igor_node.cli.follow import EXIT_OF_STATE

from .answering import Asked, FakeNode, Reply, dead_address, problem
from .conftest import Igor

RUN_ID = "06qk3v0000000000000a"
PATH = f"/v1/runs/{RUN_ID}"


def a_run(state: str = "running", **more: Any) -> dict[str, Any]:
    tries = [
        {"n": 1, "state": "failed", "exit_code": 3, "started_at": "2026-11-24T02:00:01Z", "ended_at": "2026-11-24T02:00:02.5Z"},
        {"n": 2, "state": "succeeded"},
    ]
    stage = {"name": "main", "state": state, "reason": "", "attempts": [{"n": 1, "node": "n2", "state": state, "fence": 1, "tries": tries}]}
    run = {"id": RUN_ID, "job": "demo/hello", "project": "demo", "version": 3, "state": state, "reason": "", "trigger": "manual", "params": {}}
    times = {
        "scheduled_time": None,
        "created_at": "2026-11-24T02:00:00Z",
        "started_at": "2026-11-24T02:00:01Z",
        "ended_at": None,
        "lateness_s": 0.012,
    }
    return {**run, **times, "stages": [stage], **more}


def serve_states(node: FakeNode, *states: str) -> None:
    """The run is in each state once, then stays in the last."""
    seen = itertools.chain(states, itertools.repeat(states[-1]))
    node.on("GET", PATH, lambda asked: Reply(a_run(next(seen))))


def serve_made(node: FakeNode, status: int = 201) -> None:
    node.on("POST", "/v1/jobs/demo%2Fhello/runs", Reply(a_run("queued"), status))


# --- run


def test_run_prints_the_id_and_sends_params_with_a_key(igor: Igor, node: FakeNode) -> None:
    """The id is data, the words are not."""
    serve_made(node)
    ended = igor("run", "demo/hello", "-p", "day=2026-11-24", "-p", "text=a=b")
    assert (ended.code, ended.out) == (0, f"{RUN_ID}\n") and "queued" in ended.err
    assert node.asked[0].body == {"params": {"day": "2026-11-24", "text": "a=b"}}
    assert len(node.asked[0].headers["idempotency-key"]) == 20 and node.asked[0].headers["authorization"] == "Bearer igor1.none.t.secret"


def test_a_key_that_was_known_says_so(igor: Igor, node: FakeNode) -> None:
    serve_made(node, 200)
    ended = igor("run", "demo/hello", "--key", "tonight", "--now")
    assert node.asked[0].headers["idempotency-key"] == "tonight" and "made earlier with this key" in ended.err


@pytest.mark.parametrize("state, code", [(state.value, code) for state, code in EXIT_OF_STATE.items()])
def test_run_wait_ends_with_the_code_of_the_state(igor: Igor, node: FakeNode, state: str, code: int) -> None:
    serve_made(node)
    serve_states(node, "queued", "running", state)
    ended = igor("run", "demo/hello", "--wait")
    assert (ended.code, ended.out) == (code, f"{RUN_ID}\n") and f"demo/hello {RUN_ID} {state}" in ended.err


def test_the_codes_of_states_are_those_of_the_contract() -> None:
    assert {state.value: code for state, code in EXIT_OF_STATE.items()} == {
        "succeeded": 0, "failed": 10, "timed_out": 11, "cancelled": 12, "lost": 13, "skipped": 14, "missed": 14,
    }  # fmt: skip
    assert set(EXIT_OF_STATE) == words.RUN_ENDS


def test_run_wait_json_is_the_ended_run_alone(igor: Igor, node: FakeNode) -> None:
    serve_made(node)
    serve_states(node, "running", "failed")
    ended = igor("run", "demo/hello", "--wait", "--json")
    assert ended.code == 10 and json.loads(ended.out)["state"] == "failed"


def test_a_wait_that_is_too_long_ends_with_8(igor: Igor, node: FakeNode) -> None:
    serve_made(node)
    serve_states(node, "running")
    ended = igor("run", "demo/hello", "--wait", "--timeout", "100ms")
    assert ended.code == 8 and f"igor watch {RUN_ID}" in ended.err


def test_waiting_outlives_nodes_that_do_not_answer(igor: Igor, node: FakeNode) -> None:
    """A run does not stop because nobody can be asked about it."""
    serve_made(node)
    away = time.monotonic() + 0.5  # longer than one call is patient
    node.on("GET", PATH, lambda asked: problem("Unavailable", 503, "behind") if time.monotonic() < away else Reply(a_run("succeeded")))
    assert igor("run", "demo/hello", "--wait").code == 0


def log_lines(*texts: str) -> list[dict[str, Any]]:
    return [
        {"offset": n, "time": "2026-11-24T02:00:01.5Z", "stream": "stdout", "stage": "main", "attempt": 1, "try": 1 + (text == "again"), "text": text}
        for n, text in enumerate(texts)
    ]


def serve_log(node: FakeNode, *texts: str) -> None:
    lines = log_lines(*texts)

    def log(asked: Asked) -> Reply:
        start = int(asked.query.get("offset", 0))
        if asked.query.get("follow"):
            return Reply(lines=lambda asked: iter([*map(json.dumps, lines[start:]), "", '{"complete":true,"state":"succeeded"}']))
        page = lines[start : start + 2]
        return Reply({"items": page, "next": start + len(page), "complete": True})

    node.on("GET", f"{PATH}/logs", log)


def test_run_follow_prints_the_output_then_ends_as_wait(igor: Igor, node: FakeNode) -> None:
    serve_made(node)
    serve_states(node, "succeeded")
    serve_log(node, "one", "two")
    ended = igor("run", "demo/hello", "--follow")
    assert (ended.code, ended.out) == (0, "one\ntwo\n") and "succeeded" in ended.err


@pytest.mark.parametrize("text", ["day", "=x", ""])
def test_a_param_without_a_name_or_value_is_a_usage_error(igor: Igor, node: FakeNode, text: str) -> None:
    ended = igor("run", "demo/hello", "-p", text)
    assert ended.code == 2 and "expected NAME=VALUE" in ended.err and node.asked == []


@pytest.mark.parametrize(
    "reply, code, said",
    [
        (problem("NotFound", 404, 'there is no job "demo/hello"'), 4, "there is no job"),
        (problem("Conflict", 409, "hello is in two projects", hint="say project/name"), 5, "say project/name"),
        (problem("Denied", 403, "a viewer may not run jobs"), 6, "a viewer may not"),
        (problem("Unauthenticated", 401, "no such token"), 6, "no such token"),
        (problem("Invalid", 422, "params", faults=["params.day: is missing; expected a date"]), 2, "params.day: is missing; expected a date\n"),
        (problem("TooMany", 429, "slow down"), 1, "slow down"),
    ],
)
def test_refusals_have_the_codes_of_the_contract(igor: Igor, node: FakeNode, reply: Reply, code: int, said: str) -> None:
    node.on("POST", "/v1/jobs/demo%2Fhello/runs", reply)
    ended = igor("run", "demo/hello")
    assert ended.code == code and said in ended.err and ended.out == "" and "Traceback" not in ended.err


def test_no_node_at_all_is_7(igor: Igor, node: FakeNode) -> None:
    address = dead_address()
    ended = igor("run", "demo/hello", "--node", address)
    assert ended.code == 7 and address in ended.err


# --- watch, cancel


def test_watch_says_each_state_once(igor: Igor, node: FakeNode) -> None:
    serve_states(node, "queued", "running", "running", "timed_out")
    ended = igor("watch", RUN_ID)
    assert ended.code == 11 and ended.err.count("stage main: running on n2") == 1 and "timed_out" in ended.out


def test_cancel_means_the_run_it_found(igor: Igor, node: FakeNode) -> None:
    """`@latest` is resolved once: a retry must not hit a later run."""
    node.on("GET", "/v1/runs/demo%2Fhello%40latest", a_run()).on("POST", f"{PATH}/cancel", a_run())
    ended = igor("cancel", "demo/hello@latest", "-m", "wrong day")
    assert (ended.code, ended.out) == (0, f"{RUN_ID}\n") and node.asked[1].body == {"reason": "wrong day"}


def test_lost_sends_what_was_decided(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/runs/demo%2Fhello%40latest", a_run()).on("POST", f"{PATH}/lost", a_run("failed", reason="lost"))
    ended = igor("lost", "demo/hello@latest", "--fail", "-m", "the machine burnt")
    assert ended.code == 0 and node.asked[1].body == {"decision": "fail", "reason": "the machine burnt"}
    assert igor("lost", "demo/hello@latest").code == 2


def test_backfill_prints_times_or_the_id(igor: Igor, node: FakeNode) -> None:
    times = ["2026-11-01T02:00:00Z", "2026-11-02T02:00:00Z"]
    node.on("POST", "/v1/jobs/demo%2Fhello/backfill", {"id": None, "job": "demo/hello", "total": 2, "left_out": 1, "times": times})
    ended = igor("backfill", "demo/hello", "--from", "2026-11-01T00:00:00Z", "--to", "2026-11-03T00:00:00Z", "--dry-run", "--parallel", "3")
    assert ended.code == 0 and ended.out.split("\n")[:2] == [time.replace("T", " ") for time in times]
    assert "2 runs of demo/hello would be made; 1 left out" in ended.err
    body = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-03T00:00:00Z", "dry_run": True, "again": False, "parallel": 3, "reverse": False}
    assert node.asked[-1].body == {**body, "reason": ""}
    node.on("POST", "/v1/jobs/demo%2Fhello/backfill", Reply({"id": "b1", "job": "demo/hello", "total": 2, "left_out": 0}, 201))
    ended = igor("backfill", "demo/hello", "--from", "2026-11-01T00:00:00Z", "--to", "2026-11-03T00:00:00Z")
    assert (ended.code, ended.out) == (0, "b1\n") and "one after the other" in ended.err


def test_backfills_are_listed_and_cancelled(igor: Igor, node: FakeNode) -> None:
    one = {"id": "b1", "job": "demo/hello", "state": "running", "made": 1, "total": 4, "from": "2026-11-01T02:00:00Z", "to": "2026-11-04T02:00:00Z"}
    node.on("GET", "/v1/backfills", {"items": [{**one, "runs": {"succeeded": 1}, "created_by": "ann"}]})
    assert "1 of 4" in igor("backfills").out
    node.on("POST", "/v1/backfills/b1/cancel", {**one, "state": "cancelled"})
    ended = igor("backfills", "--cancel", "b1", "-m", "wrong week", "-y")
    assert (ended.code, ended.out) == (0, "b1\n") and node.asked[-1].body == {"reason": "wrong week"}


# --- logs


def test_logs_are_all_tries_in_order_over_all_pages(igor: Igor, node: FakeNode) -> None:
    node.on("GET", PATH, a_run("succeeded"))
    serve_log(node, "one", "two", "three", "again")
    ended = igor("logs", RUN_ID)
    assert (ended.code, ended.out) == (0, "one\ntwo\nthree\nagain\n") and "try 2" in ended.err


def test_logs_tail_failed_and_wide(igor: Igor, node: FakeNode) -> None:
    node.on("GET", PATH, a_run("succeeded"))
    serve_log(node, "one", "two", "three", "again")
    assert igor("logs", RUN_ID, "--tail", "2").out == "three\nagain\n"
    assert igor("logs", RUN_ID, "--failed").out == "one\ntwo\nthree\n"
    assert igor("logs", RUN_ID, "--tail", "1", "-o", "wide").out == "2026-11-24 02:00:01.500Z main.1.2 stdout  again\n"


def test_logs_follow_goes_to_the_end_and_ends_with_0(igor: Igor, node: FakeNode) -> None:
    node.on("GET", PATH, a_run())
    serve_log(node, "one", "two", "three")
    assert igor("logs", RUN_ID, "-f").out == "one\ntwo\nthree\n"
    ended = igor("logs", RUN_ID, "-f", "--tail", "1", "--json")
    assert ended.code == 0 and [json.loads(line)["text"] for line in ended.out.splitlines()] == ["three"]


def test_logs_of_a_run_without_output_say_so_on_stderr(igor: Igor, node: FakeNode) -> None:
    node.on("GET", PATH, a_run("skipped", reason="queue full"))
    serve_log(node)
    ended = igor("logs", RUN_ID)
    assert ended.code == 0 and ended.out == "" and "skipped" in ended.err and "queue full" in ended.err


def test_a_log_that_breaks_off_goes_on_where_it_was(igor: Igor, node: FakeNode) -> None:
    lines = [json.dumps(line) for line in log_lines("one", "two", "three")]
    node.on("GET", PATH, a_run())

    def stream(asked: Asked) -> Iterator[str]:
        start = int(asked.query.get("offset", 0))
        yield from lines[start : start + 1]
        if start + 1 >= len(lines):
            yield '{"complete":true}'

    node.on("GET", f"{PATH}/logs", Reply(lines=stream, cut=True))
    assert igor("logs", RUN_ID, "-f").out == "one\ntwo\nthree\n"


# --- show, runs, why


def test_show_tells_stages_attempts_and_tries(igor: Igor, node: FakeNode) -> None:
    node.on("GET", PATH, a_run("succeeded"))
    out = igor("show", RUN_ID).out
    assert "attempt 1 on n2" in out and "try 1: failed, exit code 3, from 2026-11-24 02:00:01Z, took 1.5s" in out and "0.012s late" in out
    assert json.loads(igor("show", RUN_ID, "--json").out) == a_run("succeeded")
    assert igor("--json", "show", RUN_ID).out == igor("show", RUN_ID, "-o", "json").out


def test_runs_reads_as_many_pages_as_the_limit_needs(igor: Igor, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igor_node.cli.client.PAGE_ITEMS", 2)

    def page(asked: Asked) -> Reply:
        start = int(asked.query.get("cursor", 0))
        return Reply({"items": [a_run(id=f"r{n}") for n in range(start, start + int(asked.query["limit"]))], "next": str(start + 2)})

    node.on("GET", "/v1/runs", page)
    assert igor("runs", "--limit", "3", "-o", "name", "--job", "hello", "--state", "failed", "--state", "lost").out == "r0\nr1\nr2\n"
    assert node.asked[0].query == {"job": "hello", "state": "failed,lost", "limit": "2"} and node.asked[1].query["limit"] == "1"


def test_an_empty_list_is_words_in_a_table_and_data_in_json(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/runs", {"items": [], "next": None})
    ended = igor("runs")
    assert ended.out == "" and "there are no such runs" in ended.err
    assert json.loads(igor("runs", "--json").out) == {"items": [], "next": None}
    assert igor("runs", "-o", "jsonl", "-q").out == ""


def test_a_job_cannot_steer_the_terminal(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/runs", {"items": [a_run(reason="\x1b[2Jgone\nnext")], "next": None})
    out = igor("runs").out
    assert "\x1b" not in out and len(out.splitlines()) == 2


def test_reads_without_a_quorum_say_their_age(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/runs", Reply({"items": [a_run()], "next": None}, headers={"Igor-Age": "12"}))
    assert "no quorum: this is what the node knew 12.0s ago" in igor("runs").err


# --- events


def an_event(number: int, **more: Any) -> dict[str, Any]:
    event = {"number": number, "at": "2026-11-24T02:00:00Z", "kind": "run", "project": "demo", "job": "demo/hello", "run": RUN_ID, "stage": None}
    return {**event, "node": None, "actor": "founder (t)", "data": {"state": "running"}, **more}


def test_events_are_a_line_each(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/events", {"items": [an_event(7)], "last": 7}).on("GET", "/v1/cluster", {"nodes": [{"id": "a1", "name": "n1"}]})
    assert igor("events", "--limit", "3").out == f"2026-11-24 02:00:00Z  run  demo/hello {RUN_ID}  state=running by founder (t)\n"
    assert node.asked[1].query == {"last": "3"}
    node.on("GET", "/v1/events", {"items": [an_event(8, kind="stage", node="a1", data={"reason": ""}, actor="")], "last": 8})
    assert igor("events").out == f"2026-11-24 02:00:00Z  stage  n1 demo/hello {RUN_ID}\n"
    node.on("GET", "/v1/events", {"items": [an_event(7)], "last": 7})
    assert json.loads(igor("events", "--json").out) == an_event(7)


def test_events_follow_goes_on_after_the_last(igor: Igor, node: FakeNode) -> None:
    """Without gap or repetition; the stream has no end of its own."""

    def events(asked: Asked) -> Reply:
        if "last" in asked.query:
            return Reply({"items": [an_event(7)], "last": 7})
        if asked.headers["last-event-id"] == "7":
            return Reply(lines=lambda asked: iter(["event: beat", "data: {}", "", "id: 8", f"data: {json.dumps(an_event(8))}", ""]), cut=True)
        return problem("Denied", 403, "that is enough")

    node.on("GET", "/v1/events", events).on("GET", "/v1/cluster", {"nodes": []})
    ended = igor("events", "-f", "-o", "name")
    assert ended.out == "7\n8\n" and ended.code == 6


# --- as shells see it


def program(node: FakeNode, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "IGOR_NODE": node.address, "IGOR_TOKEN": "t", "HOME": "/nonexistent"}
    command = [sys.executable, "-m", "igor_node.cli.igor", *arguments]
    # A suite that was started in the background has SIGINT ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_waiting_not_the_run(node: FakeNode) -> None:
    """130, and the words say how to go on."""
    serve_made(node)
    serve_states(node, "running")
    waiting = program(node, "run", "demo/hello", "--wait")
    assert waiting.stdout is not None and waiting.stdout.readline() == f"{RUN_ID}\n"
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 130 and f"igor watch {RUN_ID}" in err and "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(node: FakeNode) -> None:
    """`igor logs RUN | head -1` prints a line and nothing else."""
    node.on("GET", PATH, a_run("succeeded"))
    serve_log(node, *["x" * 1000] * 5000)
    reading = program(node, "logs", RUN_ID, "-f")
    assert reading.stdout is not None and reading.stdout.readline() == "x" * 1000 + "\n"
    reading.stdout.close()
    assert reading.stderr is not None and reading.stderr.read() == "" and reading.wait(10) == 1
