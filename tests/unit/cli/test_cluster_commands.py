"""Commands about definitions, jobs, nodes and the way in: what is sent, what is printed, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from igor_node import words
from igor_node.cli import contexts, define, operate

from .answering import FakeNode, Reply, dead_address, problem
from .conftest import Igor

CLUSTER = {
    "id": "c1",
    "leader": "n2",
    "term": 14,
    "voters": ["n1", "n2", "n3"],
    "nodes": [
        {"name": "n1", "address": "http://127.0.0.1:1001", "role": "voter", "state": "up", "labels": {"zone": "eu"}, "slots": 4, "running": 1},
        {"name": "n2", "address": "http://127.0.0.1:1002", "role": "voter", "state": "up", "labels": {}, "slots": 4, "running": 0},
        {"name": "n3", "address": "http://127.0.0.1:1003", "role": "voter", "state": "silent", "labels": {}, "slots": 4, "running": 0},
    ],
    "commit_index": 90,
    "applied_index": 88,
    "highly_available": True,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose definitions are valid, without the cost of the loader."""
    loaded = SimpleNamespace(project="demo", objects=[{"kind": "Job", "name": "hello"}], sources={"hello.yaml": "…"}, jobs=[])
    monkeypatch.setattr(define, "load", lambda path: loaded)
    return tmp_path


# --- push and plan


def test_a_first_push_asks_that_the_project_be_new(igor: Igor, node: FakeNode, folder: Path) -> None:
    node.on("PUT", "/v1/projects/demo", {"project": "demo", "version": 1, "created": ["demo/hello"], "changed": [], "removed": []})
    ended = igor("push", str(folder))
    assert (ended.code, ended.out) == (0, "+ demo/hello\n") and "project demo is at version 1: 1 created" in ended.err
    put = node.asked[-1]
    assert put.headers["if-none-match"] == "*" and "if-match" not in put.headers and "idempotency-key" in put.headers
    assert (
        put.body["definitions"] == [{"kind": "Job", "name": "hello"}] and put.body["sources"] == {"hello.yaml": "…"} and put.body["artifact"] is None
    )


def test_a_push_is_for_the_version_that_is_there_or_that_was_named(igor: Igor, node: FakeNode, folder: Path) -> None:
    node.on("GET", "/v1/projects/demo", {"version": 6}).on("PUT", "/v1/projects/demo", {"version": 7})
    assert igor("push", str(folder)).code == 0 and node.asked[-1].headers["if-match"] == '"6"'
    assert igor("push", str(folder), "--if-version", "5").code == 0 and node.asked[-1].headers["if-match"] == '"5"'
    assert igor("push", str(folder), "--if-version", "0").code == 0 and node.asked[-1].headers["if-none-match"] == "*"


def test_a_push_for_another_version_is_a_conflict(igor: Igor, node: FakeNode, folder: Path) -> None:
    node.on("PUT", "/v1/projects/demo", problem("StaleVersion", 412, "demo is at version 8, not 5", hint="igor plan shows the difference"))
    ended = igor("push", str(folder), "--if-version", "5")
    assert ended.code == 5 and "demo is at version 8, not 5; igor plan" in ended.err


def test_faults_that_the_cluster_finds_are_lines_like_those_found_here(igor: Igor, node: FakeNode, folder: Path) -> None:
    faults = ["a.yaml:7: schedule.timezone: no such zone; expected IANA", "b.yaml:2: nmae: unknown field; expected name"]
    node.on("PUT", "/v1/projects/demo", problem("Invalid", 422, "the definitions are not valid", faults=faults))
    ended = igor("push", str(folder), "--if-version", "0")
    assert ended.code == 2 and ended.err.splitlines() == [*faults, "igor: the definitions are not valid"]


def test_plan_ends_with_3_when_there_are_changes(igor: Igor, node: FakeNode, folder: Path) -> None:
    change = {"job": "demo/hello", "change": "change", "fields": [{"field": "timeout", "before": "30s", "after": "1m"}]}
    node.on("POST", "/v1/projects/demo/plan", {"project": "demo", "version": 6, "changes": [change]})
    ended = igor("plan", str(folder))
    assert ended.code == 3 and ended.out == '~ demo/hello\n    timeout: "30s" -> "1m"\n'
    node.on("POST", "/v1/projects/demo/plan", {"project": "demo", "version": 6, "changes": []})
    ended = igor("plan", str(folder))
    assert (ended.code, ended.out) == (0, "") and "no changes" in ended.err


def test_a_folder_that_is_none_is_a_fault(igor: Igor, tmp_path: Path) -> None:
    ended = igor("validate", str(tmp_path / "nothing"))
    assert ended.code == 2 and "is not a folder" in ended.err


def test_init_writes_a_project_and_never_over_one(igor: Igor, tmp_path: Path) -> None:
    ended = igor("init", str(tmp_path / "my jobs"))
    assert ended.code == 0 and "name: my-jobs\n" in (tmp_path / "my jobs" / "project.yaml").read_text()
    assert igor("init", str(tmp_path / "my jobs")).code == 5


# --- jobs


def test_pause_and_resume_say_what_they_did(igor: Igor, node: FakeNode) -> None:
    node.on("POST", "/v1/jobs/hello/pause", {"id": "demo/hello", "paused": True}).on("POST", "/v1/jobs/hello/resume", {"id": "demo/hello"})
    ended = igor("job", "pause", "hello", "-m", "moving", "--until", "2027-01-01")
    assert ended.code == 0 and "demo/hello: paused" in ended.err
    assert node.asked[0].body == {"reason": "moving", "until": "2027-01-01T00:00:00Z"}
    assert "demo/hello: resumed" in igor("job", "resume", "hello").err and node.asked[1].body == {}


def test_pause_of_many_says_how_many(igor: Igor, node: FakeNode) -> None:
    node.on("POST", "/v1/projects/demo/pause", {"paused": 3, "warnings": ["run r1 is with node n1 and may start"]})
    ended = igor("pause", "--project", "demo", "-m", "moving", "-y")
    assert ended.code == 0 and "3 jobs paused" in ended.err and "run r1 is with node n1" in ended.err
    assert node.asked[-1].body == {"reason": "moving"}
    node.on("POST", "/v1/resume", {"resumed": 3})
    assert "3 jobs resumed" in igor("resume", "--all").err
    assert igor("pause").code == 2 and igor("resume", "--all", "--project", "demo").code == 2


def test_a_node_is_shown_drained_until_it_is_empty_and_used_again(igor: Igor, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "IDLE_LOOK_S", 0)
    n1 = {**CLUSTER["nodes"][0], "id": "i1", "reason": "new disks", "slots_used": 1}
    looks = iter([1, 1, 1, 0, 0])
    node.on("GET", "/v1/cluster", lambda asked: Reply({**CLUSTER, "nodes": [{**n1, "running": next(looks)}]}))
    node.on("POST", "/v1/nodes/i1/drain", {"id": "i1", "running": 1}).on("POST", "/v1/nodes/i1/undrain", {"id": "i1", "state": "up"})
    shown = igor("node", "show", "n1").out
    assert "state:   up: new disks" in shown and "labels:  zone=eu" in shown and "1, on 1 of 4 slots" in shown
    drained = igor("node", "drain", "n1", "-m", "new disks", "--until-empty")
    assert drained.code == 0 and drained.err.count("waiting for 1 attempts") == 1 and "0 attempts run there" in drained.err
    assert next(asked for asked in node.asked if asked.path == "/v1/nodes/i1/drain").body == {"reason": "new disks"}
    node.on("GET", "/v1/cluster", {**CLUSTER, "nodes": [n1]})
    assert "node n1 is up" in igor("node", "undrain", "i1").err
    assert igor("node", "show", "n9").code == 4


def test_a_table_in_a_pipe_is_plain_columns(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/cluster", CLUSTER)
    lines = igor("nodes").out.splitlines()
    assert lines[0].split("  ")[0] == "NODE" and lines[1].split()[:4] == ["n1", "voter", "up", "-"] and "*" in lines[2] and len(lines) == 4
    assert len({line.index(text) for line, text in zip(lines[1:], ("voter", "voter", "voter"), strict=True)}) == 1
    assert igor("nodes", "-o", "name").out == "n1\nn2\nn3\n"


def test_a_node_that_is_not_heard_is_shown_before_it_is_called_silent(igor: Igor, node: FakeNode) -> None:
    nodes = [{**one, "heard_s": 3.2 if one["name"] == "n1" else 0.4} for one in CLUSTER["nodes"]]
    node.on("GET", "/v1/cluster", {**CLUSTER, "nodes": nodes})
    assert "1 of 3 up; not up: n1 (up, last heard 3.2s ago), n3 (silent)" in igor("status").out
    assert "up, last heard 3.2s ago" in igor("nodes").out


def test_status_says_who_leads_and_who_is_away(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/cluster", CLUSTER)
    out = igor("status").out
    assert "leader    n2, term 14" in out and "2 of 3 up; not up: n3 (silent)" in out and "applied 88 of 90" in out
    assert "running   1 of 8 slots" in out  # those of n3 are no help now
    node.on("GET", "/v1/cluster", {**CLUSTER, "leader": None, "highly_available": False})
    out = igor("status").out
    assert "none: nothing can be written now" in out and "not highly available" in out
    assert json.loads(igor("status", "--json").out)["leader"] is None


# --- audit


def audited(**counts: int) -> dict[str, Any]:
    row = {"job": "demo/hello", "scheduled_time": "2026-11-24T02:00:00Z", "outcome": "ran", "run": "r1", "lateness_s": 0.01, "reason": ""}
    span = {
        "job": "demo/hello",
        "first": "2026-11-24T03:00:00Z",
        "last": "2026-11-24T05:00:00Z",
        "count": 3,
        "outcome": "missed",
        "reason": "no leader",
    }
    zero = dict.fromkeys(("due", "ran", "skipped", "missed", "pending", "doubled", "unaccounted"), 0)
    return {"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z", **zero, "due": 4, "ran": 1, "missed": 3, **counts, "rows": [row, span]}


@pytest.mark.parametrize("counts, code", [({}, 0), ({"doubled": 1}, 1), ({"unaccounted": 2}, 1)], ids=["fine", "doubled", "unaccounted"])
def test_audit_ends_with_1_when_the_promise_is_broken(igor: Igor, node: FakeNode, counts: dict[str, int], code: int) -> None:
    node.on("GET", "/v1/audit", audited(**counts))
    ended = igor("audit", "--from", "2026-11-24", "--to", "2026-11-25T00:00:00Z", "--job", "hello", "--json")
    assert ended.code == code and json.loads(ended.out) == audited(**counts) and "due 4, ran 1" in ended.err
    assert node.asked[0].query == {"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z", "job": "hello"}


def test_audit_shows_spans_as_one_row(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/audit", audited())
    assert igor("audit").out.splitlines()[2].split()[:5] == ["demo/hello", "2026-11-24", "03:00:00Z", "3", "missed"]


# --- the way in


def test_login_checks_the_token_and_keeps_all_nodes(igor: Igor, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that later calls go on when the node that was named is down."""
    node.on("GET", "/v1/whoami", {"token": "t", "role": "admin", "name": "founder"}).on("GET", "/v1/cluster", CLUSTER)
    node.on("GET", "/v1/jobs", {"items": [], "next": None})
    assert igor("login").code == 0
    kept = contexts.read(contexts.current() or "")
    assert kept.nodes == (node.address, *(member["address"] for member in CLUSTER["nodes"])) and kept.token == "igor1.none.t.secret"
    monkeypatch.delenv("IGOR_NODE")
    monkeypatch.delenv("IGOR_TOKEN")
    assert igor("jobs").code == 0 and node.asked[-1].headers["authorization"] == "Bearer igor1.none.t.secret"
    assert igor("logout").code == 0 and not contexts.names()


def test_a_token_that_is_refused_is_not_kept(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/whoami", problem("Unauthenticated", 401, "the token is not known"))
    assert igor("login").code == 6 and not contexts.names()


def test_token_create_prints_the_token_once_and_its_json_as_it_is(igor: Igor, node: FakeNode) -> None:
    made = {"id": "k3", "token": "igor1.none.k3.secret", "expires_at": "2026-11-24T03:00:00Z"}
    node.on("POST", "/v1/tokens", made)
    ended = igor("token", "create", "--role", "node", "--ttl", "1h", "--json")
    assert json.loads(ended.out) == made and node.asked[0].body == {"role": "node", "ttl_s": 3600}
    assert igor("token", "create", "--role", "viewer").out == "igor1.none.k3.secret\n"


def test_ui_opens_a_link_that_logs_in_once(igor: Igor, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the node that made it: only that one knows it."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda link: bool(opened.append(link)) or True)
    node.on("POST", "/v1/session", {"url": "/login/once"})
    assert igor("ui", "--print").out == f"{node.address}/login/once\n" and opened == []
    assert igor("ui").out == "" and opened == [f"{node.address}/login/once"]
    assert operate.page_link({"url": "http://127.0.0.1:5/login"}, "x") == "http://127.0.0.1:5/login"


# --- what is common to all


def test_a_dead_node_among_those_named_is_not_noticed_without_v(igor: Igor, node: FakeNode) -> None:
    node.on("GET", "/v1/cluster", CLUSTER)
    dead = dead_address()
    ended = igor("status", "--node", dead, "--node", node.address)
    assert ended.code == 0 and ended.err == ""
    assert dead in igor("status", "--node", dead, "--node", node.address, "-v").err


def test_the_next_command_sees_what_this_one_wrote(igor: Igor, node: FakeNode) -> None:
    """Its index goes along, to whatever node is asked next."""
    node.on("POST", "/v1/jobs/hello/pause", Reply({"id": "demo/hello"}, headers={"Igor-Index": "77"})).on("GET", "/v1/cluster", CLUSTER)
    igor("job", "pause", "hello")
    igor("status")
    assert node.asked[-1].headers["igor-index"] == "77" and "igor-index" not in node.asked[0].headers


def test_times_are_utc_unless_local_is_asked_for(igor: Igor, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    arguments = ("schedule", "0 2 * * *", "-n", "1", "--from", "2026-11-24T00:00:00Z")
    assert igor(*arguments).out == "2026-11-24 02:00:00Z\n"
    assert igor(*arguments, "--local").out == "2026-11-24 03:00:00+01:00\n"
    monkeypatch.undo()
    time.tzset()


def test_our_own_mistake_is_one_line_unless_v_asks_for_more(igor: Igor, node: FakeNode) -> None:
    """An answer that is not of this version, for one."""
    node.on("GET", "/v1/cluster", {"nodes": [{}]})
    ended = igor("nodes")
    assert ended.code == 1 and ended.err == "igor: this should not have happened: KeyError: 'name' (-v tells where)\n"
    assert "Traceback" in igor("nodes", "-v").err


@pytest.mark.parametrize(
    "arguments", [("jobs", "-x"), ("nothing",), ("runs", "--since", "yesterday"), ("run",), ("schedule",), ("runs", "--state", "sleeping")]
)
def test_wrong_usage_is_2_and_says_what_was_expected(igor: Igor, node: FakeNode, arguments: tuple[str, ...]) -> None:
    ended = igor(*arguments)
    assert ended.code == 2 and "Error: " in ended.err and node.asked == []


# --- schedules, here and without a node


def test_schedule_shows_what_will_happen(igor: Igor, tmp_path: Path) -> None:
    ended = igor("schedule", "0 2 * * *", "--tz", "Europe/Berlin", "--from", "2026-11-24T00:00:00Z", "-n", "2", "--json")
    assert json.loads(ended.out)["fires"] == ["2026-11-24T01:00:00Z", "2026-11-25T01:00:00Z"] and "02:00 every day" in ended.err
    assert igor("schedule", "90s", "--from", "2026-11-24T00:00:00Z", "-n", "1", "-o", "name").out == "2026-11-24T00:01:30Z\n"


@pytest.mark.parametrize("expression, zone", [("75 * * * *", "UTC"), ("* * *", "UTC"), ("@reboot", "UTC"), ("0 2 * * *", "Europe/Berln")])
def test_a_schedule_that_is_none_is_refused_with_2(igor: Igor, expression: str, zone: str) -> None:
    ended = igor("schedule", expression, "--tz", zone)
    assert ended.code == 2 and ended.out == "" and ended.err.startswith("igor: ")


def test_a_batch_answers_every_line_and_ends_with_0(igor: Igor, tmp_path: Path) -> None:
    """A fault in one line stops none of the others, and two readings of a file are the same."""
    lines = [
        {"id": "a", "expr": "*/5 * * * *", "tz": "UTC", "from": "2026-11-24T00:00:00Z", "n": 1},
        {"id": "b", "expr": "nonsense", "tz": "UTC", "from": "2026-11-24T00:00:00Z", "n": 1},
        {"id": "c", "expr": "H * * * *", "tz": "UTC", "from": "2026-11-24T00:00:00Z", "n": 1, "job": "demo/hello"},
    ]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\nnot json\n")
    ended = igor("schedule", "--batch", str(tmp_path / "cases.jsonl"), "--json")
    answers = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 0 and [answer["id"] for answer in answers] == ["a", "b", "c", None]
    assert answers[0]["fires"] == ["2026-11-24T00:05:00Z"] and "error" in answers[1] and len(answers[2]["fires"]) == 1 and "error" in answers[3]
    assert igor("schedule", "--batch", str(tmp_path / "cases.jsonl")).out == ended.out


def test_completion_prints_a_script(igor: Igor) -> None:
    assert "_IGOR_COMPLETE" in igor("completion", "bash").out


def test_an_error_of_ours_has_one_code_in_every_command(igor: Igor, node: FakeNode) -> None:
    """The table of errors in `words` decides, not the command."""
    for kind in words.ERRORS:
        if kind.status != 503 and kind.status != 429:
            node.on("GET", "/v1/cluster", problem(kind.__name__, kind.status, "what"))
            assert igor("status").code == kind.exit_code
