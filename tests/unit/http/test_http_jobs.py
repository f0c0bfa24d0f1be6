"""Projects, jobs and runs through the API: the shapes and statuses of CONTRACT, on a real ledger."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.http.api import jobs
from igor_node.http.dispatch import part_id
from igor_node.ledger import commands
from igor_node.stream import AttemptEvent
from igor_node.words import SECOND, Role, format_instant, id_time, new_id, wall_now
from tests.unit.http.world import World

HOURLY = {"name": "hourly", "schedule": {"cron": "0 * * * *"}, "command": "true"}
DEMAND = {"name": "demand", "command": ["echo", "hello"], "description": "On demand"}


async def pushed(world: World, *jobs: dict[str, Any]) -> dict[str, Any]:
    answer = await world.push("demo", *(jobs or (HOURLY, DEMAND)))
    assert answer.status == 200, answer.value
    return dict(answer.value)


# --- push


async def test_a_push_tells_version_and_changes(world: World) -> None:
    answer = await world.push("demo", HOURLY, DEMAND)
    assert (answer.status, answer.headers["ETag"]) == (200, '"1"')
    assert (answer.value["version"], answer.value["created"]) == (1, ["demand", "hourly"])
    again = await world.push("demo", HOURLY, {**DEMAND, "command": ["echo", "bye"]}, If_Match='"1"')
    assert (again.value["version"], again.value["changed"], again.value["created"]) == (2, ["demand"], [])


async def test_a_push_has_its_pools_and_a_plan_says_what_changes(world: World) -> None:
    job = {**DEMAND, "pools": ["db"]}
    pool = {"apiVersion": "igor/v1", "kind": "Pool", "name": "db", "slots": 2}
    body = {"definitions": [{"apiVersion": "igor/v1", "kind": "Job", **job}, pool]}
    planned = await world.ask("POST", "/v1/projects/demo/plan", body)
    assert planned.value["pools"] == [{"pool": "demo/db", "before": None, "after": 2}]
    pushed = await world.ask("PUT", "/v1/projects/demo", body, If_None_Match="*")
    assert pushed.status == 200, pushed.value
    assert (await world.ask("GET", "/v1/pools")).value["items"] == [{"pool": "demo/db", "project": "demo", "slots": 2, "used": 0, "holders": []}]
    body["definitions"][1] = {**pool, "slots": 3}
    assert (await world.ask("POST", "/v1/projects/demo/plan", body)).value["pools"] == [{"pool": "demo/db", "before": 2, "after": 3}]
    assert (await world.ask("PUT", "/v1/projects/demo", body, If_Match='"1"')).value["version"] == 2
    assert (await world.ask("GET", "/v1/pools")).value["items"][0]["slots"] == 3


@pytest.mark.parametrize(
    "headers, status",
    [
        pytest.param({"If_Match": '"7"'}, 412, id="not the current version"),
        pytest.param({"If_None_Match": "*"}, 412, id="not new"),
        pytest.param({"If_Match": "seven"}, 400, id="no number"),
        pytest.param({"If_None_Match": '"1"'}, 400, id="no star"),
        pytest.param({"X": "y"}, 428, id="no condition"),
    ],
)
async def test_a_push_must_name_the_version_it_replaces(world: World, headers: dict[str, str], status: int) -> None:
    await pushed(world)
    answer = await world.push("demo", HOURLY, **headers)
    assert answer.status == status, answer.value
    assert (await world.ask("GET", "/v1/projects/demo")).value["version"] == 1


async def test_an_invalid_push_names_its_faults_and_changes_nothing(world: World) -> None:
    answer = await world.push("demo", HOURLY, {"command": "true"})
    assert answer.status == 422 and answer.value["faults"]
    assert (await world.ask("GET", "/v1/projects/demo")).status == 404


async def test_an_artifact_is_refused_as_not_supported_yet(world: World) -> None:
    body = {"definitions": [], "sources": {}, "artifact": "0" * 64}
    answer = await world.ask("PUT", "/v1/projects/demo", body, If_None_Match="*")
    assert answer.status == 422 and "artifact" in answer.value["faults"][0]


def large(*jobs: dict[str, Any]) -> dict[str, Any]:
    definitions = [{"apiVersion": "igor/v1", "kind": "Job", **job} for job in jobs]
    return {"definitions": definitions, "sources": {"big.yaml": "#" * (2 * 1024 * 1024)}}


async def test_a_push_larger_than_an_entry_goes_in_parts(world: World) -> None:
    """Nobody sees them: the answer is that of a push, and so is a refusal."""
    answer = await world.ask("PUT", "/v1/projects/demo", large(DEMAND), If_None_Match="*")
    assert (answer.status, answer.value["version"], answer.value["created"]) == (200, 1, ["demand"])
    shown = await world.ask("GET", "/v1/projects/demo")
    assert len(shown.value["sources"]["big.yaml"]) == 2 * 1024 * 1024
    stale = await world.ask("PUT", "/v1/projects/demo", large(HOURLY), If_Match='"7"')
    assert stale.status == 412
    assert await world.cluster.reads.query(lambda connection: connection.execute("SELECT count(*) FROM staged").fetchone()) == (0,)


async def test_the_parts_of_a_push_have_ids_of_their_own(world: World) -> None:
    """They follow from the request's, so that who got no answer sends all of it again; the last has the request's own."""
    command = new_id(wall_now())
    headers = {"Igor_Forwarded": "1", "Igor_Command": command}
    answers = [await world.ask("PUT", "/v1/projects/demo", large(DEMAND), If_None_Match="*", **headers) for _ in range(2)]
    assert [answer.value["version"] for answer in answers] == [1, 1]
    assert len({part_id(command, number) for number in range(70)} | {command}) == 71
    assert id_time(part_id(command, 3)) == id_time(command)


async def test_a_push_larger_than_the_ledger_takes_is_413(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how large it is, and nothing of it is staged."""
    monkeypatch.setattr("igor_node.http.api.projects.STAGED_LIMIT_BYTES", 1024 * 1024)
    answer = await world.ask("PUT", "/v1/projects/demo", large(DEMAND), If_None_Match="*")
    assert answer.status == 413 and "in the ledger, at most 1048576" in answer.value["detail"]
    assert await world.cluster.reads.query(lambda connection: connection.execute("SELECT count(*) FROM staged").fetchone()) == (0,)


async def test_a_removed_majority_needs_prune(world: World) -> None:
    await pushed(world)
    await world.push("demo", HOURLY, DEMAND, {**DEMAND, "name": "third"}, If_Match='"1"')
    refused = await world.push("demo", HOURLY, If_Match='"2"')
    assert refused.status == 409 and "prune" in refused.value["hint"]
    objects = [{"apiVersion": "igor/v1", "kind": "Job", **HOURLY}]
    done = await world.ask("PUT", "/v1/projects/demo", {"definitions": objects, "prune": True}, If_Match='"2"')
    assert (done.status, done.value["removed"]) == (200, ["demand", "third"])


@pytest.mark.parametrize("role, status", [(Role.VIEWER, 403), (Role.OPERATOR, 403), (Role.DEPLOYER, 200), (Role.ADMIN, 200)])
async def test_who_may_push(world: World, role: Role, status: int) -> None:
    assert (await world.push("demo", DEMAND, role=role)).status == status


async def test_a_token_of_one_project_pushes_that_one(world: World) -> None:
    token = (await world.ask("POST", "/v1/tokens", {"role": "deployer", "projects": ["demo"]})).value["token"]
    body = {"definitions": [{"apiVersion": "igor/v1", "kind": "Job", **DEMAND}]}
    headers = {"Authorization": f"Bearer {token}", "If_None_Match": "*"}
    assert (await world.ask("PUT", "/v1/projects/other", body, role=None, **headers)).status == 403
    assert (await world.ask("PUT", "/v1/projects/demo", body, role=None, **headers)).status == 200
    assert (await world.ask("POST", "/v1/jobs/demand/runs", {}, role=None, Authorization=f"Bearer {token}")).status == 201


async def test_a_project_can_be_read(world: World) -> None:
    await pushed(world)
    one = await world.ask("GET", "/v1/projects/demo", role=Role.VIEWER)
    assert (one.headers["ETag"], one.value["version"], one.value["jobs"]) == ('"1"', 1, ["demo/demand", "demo/hourly"])
    assert "deployer" in one.value["pushed_by"]
    assert [item["project"] for item in (await world.ask("GET", "/v1/projects")).value["items"]] == ["demo"]
    assert [item["version"] for item in (await world.ask("GET", "/v1/projects/demo/history")).value["items"]] == [1]


# --- plan


async def plan(world: World, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
    objects = [{"apiVersion": "igor/v1", "kind": "Job", **job} for job in jobs]
    answer = await world.ask("POST", "/v1/projects/demo/plan", {"definitions": objects}, role=Role.VIEWER)
    assert answer.status == 200, answer.value
    return list(answer.value["changes"])


async def test_a_plan_of_the_same_is_empty(world: World) -> None:
    await pushed(world)
    assert await plan(world, HOURLY, DEMAND) == []


async def test_a_plan_names_each_change(world: World) -> None:
    """Created, removed, and changed field by field, with the fires before and after."""
    await pushed(world)
    changes = await plan(world, {**HOURLY, "schedule": {"cron": "30 * * * *"}}, {**DEMAND, "name": "new"})
    assert [(change["change"], change["job"]) for change in changes] == [("remove", "demo/demand"), ("change", "demo/hourly"), ("create", "demo/new")]
    hourly = changes[1]
    assert hourly["fields"] == [{"field": "schedule.cron", "before": "0 * * * *", "after": "30 * * * *"}]
    assert hourly["next_before"][0].endswith(":00:00Z") and hourly["next"][0].endswith(":30:00Z")


async def test_a_plan_of_something_new_changes_nothing(world: World) -> None:
    assert [change["change"] for change in await plan(world, DEMAND)] == ["create"]
    assert (await world.ask("GET", "/v1/projects/demo")).status == 404


# --- jobs


async def test_a_list_of_jobs_goes_by_pages(world: World) -> None:
    await pushed(world)
    first = (await world.ask("GET", "/v1/jobs?limit=1")).value
    second = (await world.ask("GET", f"/v1/jobs?limit=1&cursor={first['next']}")).value
    assert [item["id"] for item in first["items"] + second["items"]] == ["demo/demand", "demo/hourly"] and second["next"] is None
    assert (await world.ask("GET", "/v1/jobs?project=other")).value["items"] == []


@pytest.mark.parametrize("path", ["hourly", "demo/hourly", "demo%2Fhourly", "demo%2fhourly"])
async def test_a_job_has_three_ways_to_be_named(world: World, path: str) -> None:
    await pushed(world)
    job = (await world.ask("GET", f"/v1/jobs/{path}")).value
    assert (job["id"], job["version"], len(job["next_fires"])) == ("demo/hourly", 1, 10)
    assert job["next_fire"] == job["next_fires"][0] > format_instant(wall_now())
    assert job["schedule"] and job["definition"]["stages"][0]["command"] == "true"


async def test_a_name_that_two_projects_have_is_a_conflict(world: World) -> None:
    await pushed(world)
    await world.push("other", DEMAND)
    answer = await world.ask("GET", "/v1/jobs/demand")
    assert answer.status == 409 and "other/demand" in answer.value["detail"]
    assert (await world.ask("GET", "/v1/jobs/other/demand")).status == 200


async def test_pause_and_resume(world: World) -> None:
    await pushed(world)
    paused = await world.ask("POST", "/v1/jobs/demo/hourly/pause", {"reason": "moving house"}, role=Role.OPERATOR)
    assert (paused.status, paused.value["paused"], paused.value["pause_reason"], paused.value["next_fire"]) == (200, True, "moving house", None)
    assert (paused.value["handed_out"], paused.value["warnings"]) == ([], [])
    resumed = await world.ask("POST", "/v1/jobs/hourly/resume", {})
    assert (resumed.value["paused"], bool(resumed.value["next_fire"])) == (False, True)


async def test_many_are_paused_and_resumed_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several entries where they are many. `paused` counts those of the scope, `resumed` those that were paused."""
    monkeypatch.setattr(jobs, "JOBS_A_COMMAND", 2)
    await pushed(world, *({**HOURLY, "name": f"job-{number}"} for number in range(5)))
    paused = await world.ask("POST", "/v1/projects/demo/pause", {"reason": "moving house"}, role=Role.OPERATOR)
    assert (paused.status, paused.value) == (200, {"paused": 5, "handed_out": [], "warnings": []})
    shown = (await world.ask("GET", "/v1/jobs")).value["items"]
    assert [(job["paused"], job["pause_reason"]) for job in shown] == [(True, "moving house")] * 5
    assert (await world.ask("POST", "/v1/jobs/job-1/resume", {})).status == 200
    assert (await world.ask("POST", "/v1/resume", {"scope": "all"})).value == {"resumed": 4}
    assert (await world.ask("POST", "/v1/pause", {"scope": "all"})).value["paused"] == 5
    assert [(await world.ask("POST", f"/v1/{verb}", {})).status for verb in ("pause", "resume")] == [400, 400]  # by no mistake
    assert (await world.ask("POST", "/v1/projects/nowhere/pause", {})).status == 404
    assert (await world.ask("POST", "/v1/pause", {"until": "2020-01-01T00:00:00Z", "scope": "all"})).status == 422


async def test_a_pause_with_an_end_shows_the_fires_behind_it(world: World) -> None:
    await pushed(world)
    until = format_instant(wall_now() + 7200 * SECOND)
    paused = await world.ask("POST", "/v1/jobs/hourly/pause", {"until": until})
    assert paused.value["paused_until"] == until and paused.value["next_fire"] > until


@pytest.mark.parametrize("until, status", [("2020-01-01T00:00:00Z", 422), ("tomorrow", 400)])
async def test_a_pause_that_cannot_be(world: World, until: str, status: int) -> None:
    await pushed(world)
    assert (await world.ask("POST", "/v1/jobs/hourly/pause", {"until": until})).status == status


async def test_upcoming_is_in_order(world: World) -> None:
    await pushed(world, HOURLY, {**HOURLY, "name": "often", "schedule": {"cron": "*/30 * * * *"}})
    items = (await world.ask("GET", "/v1/upcoming?hours=2")).value["items"]
    times = [item["scheduled_time"] for item in items]
    assert times == sorted(times) and len(items) in (5, 6, 7)
    one = (await world.ask("GET", "/v1/upcoming?hours=2&job=demo/hourly&limit=1")).value["items"]
    assert [item["job"] for item in one] == ["demo/hourly"]


async def test_upcoming_says_what_will_probably_be_in_the_way(world: World) -> None:
    """By the runs of late: one that took two hours is in the way of the next hour's."""
    await pushed(world, HOURLY)
    items = (await world.ask("GET", "/v1/upcoming?hours=2")).value["items"]
    assert {(item["expected_s"], item["note"]) for item in items} == {(None, "")}
    run = (await world.ask("POST", "/v1/jobs/hourly/runs", {})).value["id"]
    place_and_end(world, run, lasts_s=7_200)
    first, second = (await world.ask("GET", "/v1/upcoming?hours=2")).value["items"][:2]
    assert (first["expected_s"], first["note"]) == (7_200, "")
    assert second["note"] == f"will probably wait 1h for the run of {first['scheduled_time']}, which takes about 2h"


async def test_a_schedule_is_explained(world: World) -> None:
    body = {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "n": 2, "from": "2026-11-24T00:00:00Z"}
    answer = (await world.ask("POST", "/v1/schedule", body)).value
    assert answer["fires"] == ["2026-11-24T01:00:00Z", "2026-11-25T01:00:00Z"] and "02:00" in answer["words"]


@pytest.mark.parametrize(
    "body, status, words",
    [
        pytest.param({"cron": "x"}, 422, "schedule", id="no expression"),
        pytest.param({"cron": "0 0 * * *", "timezone": "Europe/Berln"}, 422, "Berln", id="no zone"),
        pytest.param({}, 422, "exactly one", id="nothing"),
        pytest.param({"cron": "0 0 * * *", "every": "5m"}, 422, "exactly one", id="both"),
        pytest.param({"every": "5"}, 422, "duration", id="no unit"),
        pytest.param({"every": "5m", "n": 0}, 400, "n is 0", id="none"),
        pytest.param({"every": "5m", "from": "x"}, 400, "from", id="no time"),
    ],
)
async def test_what_is_no_schedule(world: World, body: dict[str, Any], status: int, words: str) -> None:
    answer = await world.ask("POST", "/v1/schedule", body)
    assert answer.status == status and words in str(answer.value), answer.value


# --- runs


async def test_a_run_on_demand(world: World) -> None:
    await pushed(world)
    made = await world.ask("POST", "/v1/jobs/demand/runs", {"params": {}}, role=Role.OPERATOR)
    run = made.value
    assert (made.status, run["job"], run["trigger"], run["scheduled_time"]) == (201, "demo/demand", "manual", None)
    assert {"id", "project", "version", "state", "reason", "created_at", "started_at", "ended_at", "lateness_s", "params", "stages"} <= run.keys()
    assert made.headers["Location"] == f"/v1/runs/{run['id']}"
    seen = await world.ask("GET", f"/v1/runs/{run['id']}", Igor_Index=made.headers["Igor-Index"])
    assert seen.value["id"] == run["id"]


async def test_the_same_key_gives_the_same_run_and_200(three: World) -> None:
    await pushed(three)
    first = await three.ask("POST", "/v1/jobs/demand/runs", {}, node=three.nodes["n2"], Idempotency_Key="k-1")
    again = await three.ask("POST", "/v1/jobs/demo/demand/runs", {}, node=three.nodes["n3"], Idempotency_Key="k-1")
    assert (first.status, again.status, first.value["id"]) == (201, 200, again.value["id"])


async def test_a_run_made_unheard_is_made_once(three: World) -> None:
    """The leader's answer was lost; the node that was asked asks again by the command's id."""
    await pushed(three)
    three.leader.replica.hide_next = True
    made = await three.ask("POST", "/v1/jobs/demand/runs", {}, node=three.follower)
    assert made.status == 201
    assert [run["id"] for run in (await three.ask("GET", "/v1/runs")).value["items"]] == [made.value["id"]]


async def test_params_are_checked(world: World) -> None:
    await pushed(world)
    answer = await world.ask("POST", "/v1/jobs/demand/runs", {"params": {"day": "x"}})
    assert answer.status == 422 and "params.day" in answer.value["faults"][0]


async def test_runs_are_found_by_job_state_and_time(world: World) -> None:
    await pushed(world)
    ids = [(await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"] for _ in range(3)]

    async def found(query: str) -> list[str]:
        return [run["id"] for run in (await world.ask("GET", f"/v1/runs?{query}")).value["items"]]

    assert await found("job=demand") == await found("job=demo/demand&state=live") == await found("state=queued,running") == ids[::-1]
    assert await found("state=failed") == await found("job=hourly") == await found("since=2199-01-01T00:00:00Z") == []
    page = (await world.ask("GET", "/v1/runs?limit=2")).value
    assert [run["id"] for run in page["items"]] == ids[:0:-1]
    assert await found(f"limit=2&cursor={page['next']}") == ids[:1]


async def test_a_run_is_named_by_a_prefix_and_by_its_job(world: World) -> None:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    for words in (run[:15], "demand@latest", "demo/demand@latest", "demo%2Fdemand%40latest"):
        assert (await world.ask("GET", f"/v1/runs/{words}")).value["id"] == run


async def test_why_a_run_waits(world: World) -> None:
    """The reason the leader wrote, or who is before it."""
    await pushed(world)
    first = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    second = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    world.cluster.do(commands.ExplainWaits(waits=(commands.WaitReason(run=first, stage="main", reason="no node has label gpu=true"),)))
    why = (await world.ask("GET", f"/v1/runs/{first}/why")).value
    assert "gpu=true" in " ".join(why["reasons"])
    behind = (await world.ask("GET", f"/v1/runs/{second}/why")).value
    assert first in behind["waits_for"] and first in " ".join(behind["reasons"])


async def test_why_a_run_says_nothing_when_its_node_does_not(world: World) -> None:
    """Two seconds after it was killed: since when, and what happens next."""
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    world.cluster.do(commands.RegisterNode(node="n1", name="athens", address="http://h:1", slots=4))
    placement = commands.Placement(run=run, stage="main", node="n1", attempt=f"{run}.main.1", renew_hash="")
    world.cluster.do(commands.AssignStages(term=1, placements=(placement,)))
    events = (AttemptEvent(attempt=f"{run}.main.1", seq=1, kind="try_started", at=wall_now(), try_n=1),)
    world.cluster.do(commands.ReportEvents(node="n1", events=events))

    async def reasons() -> list[str]:
        return list((await world.ask("GET", f"/v1/runs/{run}/why")).value["reasons"])

    assert await reasons() == ["the run is running"]
    world.heard_s["n1"] = 2.7
    (reason,) = await reasons()
    assert reason.startswith("node athens has not been heard from for 2s (since 20")
    assert "goes on without it and renews its lease by itself; if it does not, it is lost at 20" in reason
    assert reason.endswith("at the earliest, and the stage is made again on another node")


async def test_cancel_ends_a_run_that_waits(world: World) -> None:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    cancelled = await world.ask("POST", f"/v1/runs/{run}/cancel", {"reason": "wrong day"}, role=Role.OPERATOR)
    assert (cancelled.status, cancelled.value["state"], cancelled.value["reason"]) == (200, "cancelled", "wrong day")
    assert (await world.ask("POST", f"/v1/runs/{run}/cancel", {})).status == 409


async def test_a_run_of_another_project_cannot_be_cancelled(world: World) -> None:
    await pushed(world)
    token = (await world.ask("POST", "/v1/tokens", {"role": "operator", "projects": ["other"]})).value["token"]
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    answer = await world.ask("POST", f"/v1/runs/{run}/cancel", {}, role=None, Authorization=f"Bearer {token}")
    assert answer.status == 404


# --- audit


def fire(world: World, job: str, *times: int, outcome: str = "", reason: str = "") -> list[str]:
    runs = [f"r{time // SECOND:019d}" for time in times]
    fires = tuple(
        commands.Fire(job=job, run=run, scheduled_at=time, due_at=time, outcome=outcome, reason=reason) for run, time in zip(runs, times, strict=True)
    )
    world.cluster.do(commands.FireRuns(term=1, fires=fires, decided={job: max(times)}), at=max(times))
    return runs


async def test_audit_compares_demand_with_the_ledger(world: World) -> None:
    """A run that ran, one skipped, and what is to come; due = ran + skipped + missed + pending."""
    await pushed(world, HOURLY)
    hour = 3600 * SECOND
    start = (wall_now() // hour + 1) * hour
    fire(world, "demo/hourly", start)
    fire(world, "demo/hourly", start + hour, outcome="skipped", reason="queue full")
    query = f"job=hourly&from={format_instant(start)}&to={format_instant(start + 4 * hour)}"
    audit = (await world.ask("GET", f"/v1/audit?{query}")).value
    assert (audit["due"], audit["skipped"], audit["pending"], audit["doubled"], audit["unaccounted"]) == (4, 1, 3, 0, 0)
    assert [row["outcome"] for row in audit["rows"]] == ["pending", "skipped", "pending"]
    why = (await world.ask("GET", f"/v1/runs/hourly@{format_instant(start + 2 * hour)}/why")).value
    assert (why["state"], why["run"]) == ("pending", None)
    why = (await world.ask("GET", f"/v1/runs/hourly@{format_instant(start + 1)}/why")).value
    assert (why["state"], why["run"]) == ("not_scheduled", None)


async def test_audit_without_a_range_is_the_last_day(world: World) -> None:
    await pushed(world)
    audit = (await world.ask("GET", "/v1/audit")).value
    assert (audit["due"], audit["rows"]) == (0, [])


# --- what a node reports is what the API shows


def place_and_end(world: World, run: str, *, exit_code: int = 0, lasts_s: int = 1) -> str:
    attempt = f"{run}.main.1"
    placement = commands.Placement(run=run, stage="main", node="n1", attempt=attempt, renew_hash="0" * 64)
    world.cluster.do(commands.AssignStages(term=1, placements=(placement,)))
    now = wall_now()
    ended_at = now + lasts_s * SECOND
    state = "succeeded" if exit_code == 0 else "failed"
    events = (
        AttemptEvent(attempt=attempt, seq=1, kind="held", at=now),
        AttemptEvent(attempt=attempt, seq=2, kind="try_started", at=now, try_n=1),
        AttemptEvent(
            attempt=attempt, seq=3, kind="try_ended", at=ended_at, try_n=1, state=state, exit_code=exit_code, max_rss_bytes=4096, cpu_ns=5_000_000
        ),
        AttemptEvent(attempt=attempt, seq=4, kind="ended", at=ended_at, state=state, exit_code=exit_code),
    )
    world.cluster.do(commands.ReportEvents(node="n1", events=events), at=ended_at)
    return attempt


async def test_a_run_that_ended(world: World) -> None:
    await pushed(world)
    run = (await world.ask("POST", "/v1/jobs/demand/runs", {})).value["id"]
    place_and_end(world, run)
    seen = (await world.ask("GET", f"/v1/runs/{run}")).value
    (attempt,) = seen["stages"][0]["attempts"]
    (one,) = attempt["tries"]
    assert (seen["state"], attempt["node"], attempt["state"]) == ("succeeded", "n1", "succeeded")
    assert (one["n"], one["exit_code"], one["max_rss_bytes"], one["cpu_s"]) == (1, 0, 4096, 0.005)
    job = (await world.ask("GET", "/v1/jobs/demand")).value
    assert (job["last_run"]["id"], job["last_run"]["state"]) == (run, "succeeded")
