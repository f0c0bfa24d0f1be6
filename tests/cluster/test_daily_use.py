"""What a person does on a healthy cluster of three: push, run, look, pause, cancel; by the command line and by the API of any node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster

JOB = """apiVersion: igor/v1
kind: Job
name: {name}
command: {command}
"""


def write(folder: Path, name: str, command: str, extra: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(JOB.format(name=name, command=json.dumps(command)) + extra)
    return folder


def test_push_then_run_and_wait(three: Cluster, tmp_path: Path) -> None:
    """`igor run JOB --wait` ends with 0 when the run succeeded, and `igor logs` prints what it wrote."""
    folder = write(tmp_path / "daily", "hello", "echo one; echo two >&2; echo three")
    assert three.igor("push", str(folder)).returncode == 0
    ran = three.igor("run", "hello", "--wait", "--json")
    assert ran.returncode == 0, ran.stderr
    run = json.loads(ran.stdout)
    assert run["state"] == "succeeded"
    logs = three.igor("logs", run["id"])
    assert sorted(line.split()[-1] for line in logs.stdout.splitlines()) == ["one", "three", "two"]


@pytest.mark.parametrize(
    "command, code, state",
    [
        pytest.param("exit 3", 10, "failed", id="a failed run gives 10"),
        pytest.param("exec sleep 60", 11, "timed_out", id="a run that timed out gives 11"),
    ],
)
def test_wait_tells_how_it_ended(three: Cluster, command: str, code: int, state: str) -> None:
    """The exit code of `igor run --wait` says how the run ended."""
    three.push("codes", {"name": f"ends-{state.replace('_', '-')}", "command": command, "timeout": "1s", "grace": "1s"})
    ran = three.igor("run", f"ends-{state.replace('_', '-')}", "--wait", "--json")
    assert (ran.returncode, json.loads(ran.stdout)["state"]) == (code, state)


def test_follow_prints_lines_as_they_come(three: Cluster) -> None:
    """`igor logs -f` ends by itself when the run ends, with every line."""
    three.push("follow", {"name": "counts", "command": "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"})
    run = json.loads(three.igor("run", "counts", "--json").stdout)
    followed = three.igor("logs", run["id"], "-f")
    assert followed.returncode == 0
    assert [line.split()[-1] for line in followed.stdout.splitlines()] == ["1", "2", "3", "4", "5"]


def test_cancel(three: Cluster) -> None:
    """`cancel` ends the command with TERM, and the run is recorded as cancelled."""
    three.push("stopme", {"name": "sleeper", "command": "exec sleep 300", "grace": "2s"})
    run = json.loads(three.igor("run", "sleeper", "--json").stdout)["id"]
    three.wait_run(run, "running")
    assert three.igor("cancel", run).returncode == 0
    assert three.wait_run(run)["state"] == "cancelled"


def test_retries_are_tries_of_one_attempt(three: Cluster) -> None:
    """A command that fails is started again by its wrapper: tries 1 to 3 of attempt 1, and the last exit code counts."""
    three.push(
        "again",
        {"name": "third-time", "command": '[ "$IGOR_TRY" = 3 ]', "retries": {"max": 4, "backoff": {"initial": "100ms", "factor": 1, "max": "1s"}}},
    )
    run = json.loads(three.igor("run", "third-time", "--wait", "--json").stdout)
    (attempt,) = run["stages"][0]["attempts"]
    assert run["state"] == "succeeded"
    assert [(t["n"], t["exit_code"]) for t in attempt["tries"]] == [(1, 1), (2, 1), (3, 0)]


def test_any_node_answers_everything(three: Cluster) -> None:
    """A write sent to a follower is done, and is to be read on every node at the index of its answer."""
    three.push("anywhere", {"name": "any", "command": "true"})
    for node in three.nodes:
        status, headers, run = node.request("POST", "/v1/jobs/any/runs", {"params": {}})
        assert status == 201, run
        for reader in three.nodes:
            status, _, seen = reader.request("GET", f"/v1/runs/{run['id']}", headers={"Igor-Index": headers["igor-index"]})
            assert (status, seen["id"]) == (200, run["id"])


def test_the_same_key_gives_the_same_run(three: Cluster) -> None:
    """An Idempotency-Key that was used answers with the first run and 200."""
    three.push("keys", {"name": "once", "command": "true"})
    first = three.nodes[0].request("POST", "/v1/jobs/once/runs", {"params": {}}, headers={"Idempotency-Key": "k-1"})
    again = three.nodes[1].request("POST", "/v1/jobs/once/runs", {"params": {}}, headers={"Idempotency-Key": "k-1"})
    assert (first[0], again[0]) == (201, 200)
    assert first[2]["id"] == again[2]["id"]


def test_overlap_skip_and_queue(three: Cluster) -> None:
    """With `skip` a fire during an earlier run is recorded as skipped and says which run; with `queue` it waits and then runs."""
    three.push(
        "overlap",
        {"name": "skips", "schedule": {"every": "2s"}, "command": "sleep 5", "overlap": "skip"},
        {"name": "queues", "schedule": {"every": "2s"}, "command": "sleep 3", "overlap": "queue"},
    )
    skipped = wait_for(lambda: three.api("GET", "/v1/runs?job=skips&state=skipped")["items"], 30, "a skipped fire")
    assert "run" in skipped[0]["reason"]
    queued = wait_for(lambda: three.api("GET", "/v1/runs?job=queues&state=queued")["items"], 30, "a queued fire")
    why = three.igor("why", queued[-1]["id"])
    assert why.returncode == 0 and why.stdout.strip()
    for job in ("skips", "queues"):
        assert three.igor("job", "pause", job).returncode == 0


def test_pause_and_resume(three: Cluster) -> None:
    """While paused nothing starts and audit counts the fires as skipped: paused; after resume it goes on, without the past."""
    three.push("pausing", {"name": "ticks", "schedule": {"every": "1s"}, "command": "true"})
    wait_for(lambda: three.api("GET", "/v1/runs?job=ticks&state=succeeded")["items"], 30, "a first run")
    assert three.igor("job", "pause", "ticks", "-m", "maintenance").returncode == 0

    def paused_fires() -> int:
        audit = json.loads(three.igor("audit", "--job", "ticks", "--json").stdout)
        return sum(row.get("count", 1) for row in audit["rows"] if row["outcome"] == "skipped" and "paused" in row["reason"])

    wait_for(lambda: paused_fires() >= 3, 40, "three fires skipped while paused")
    assert three.igor("job", "resume", "ticks").returncode == 0
    before = len(three.api("GET", "/v1/runs?job=ticks&state=succeeded&limit=1000")["items"])
    wait_for(lambda: len(three.api("GET", "/v1/runs?job=ticks&state=succeeded&limit=1000")["items"]) > before, 30, "a run after resume")
    assert three.igor("audit", "--job", "ticks").returncode == 0
    three.igor("job", "pause", "ticks")


def test_constraints_choose_the_node_and_why_names_the_lack(three: Cluster) -> None:
    """A stage whose label no node has waits, and `why` names the label."""
    three.push("labels", {"name": "needs-gpu", "command": "true", "constraints": {"gpu": "true"}})
    run = json.loads(three.igor("run", "needs-gpu", "--json").stdout)["id"]
    wait_for(lambda: "gpu" in three.igor("why", run).stdout, 20, "a reason that names the label")
    assert three.igor("cancel", run).returncode == 0


def test_plan_says_what_a_push_would_change(three: Cluster, tmp_path: Path) -> None:
    """`plan` exits with 3 and names the job while there are changes, with 0 when there are none."""
    folder = write(tmp_path / "planned", "first", "true")
    assert three.igor("plan", str(folder)).returncode == 3
    assert three.igor("push", str(folder)).returncode == 0
    assert three.igor("plan", str(folder)).returncode == 0
    write(folder, "first", "false")
    changed = three.igor("plan", str(folder))
    assert changed.returncode == 3 and "first" in changed.stdout and "command" in changed.stdout


def test_a_token_is_asked_for_everywhere(three: Cluster) -> None:
    """Without a token, or with a wrong one, every route but health says 401."""
    node = three.nodes[1]
    assert node.request("GET", "/v1/jobs", token=None)[0] == 401
    assert node.request("GET", "/v1/jobs", token="igor1.none.x.y")[0] == 401
    assert node.request("GET", "/healthz", token=None)[0] == 200


def test_pools_bound_what_runs_at_once_across_jobs(three: Cluster) -> None:
    pool = {"apiVersion": "igor/v1", "kind": "Pool", "name": "press", "slots": 2}
    names = [f"print-{number}" for number in range(5)]
    jobs = [{"apiVersion": "igor/v1", "kind": "Job", "name": name, "command": "sleep 0.5", "pools": ["press"]} for name in names]
    three.api("PUT", "/v1/projects/pooled", {"definitions": [pool, *jobs]}, headers={"If-None-Match": "*"})
    runs = [three.api("POST", f"/v1/jobs/{name}/runs", {})["id"] for name in names]
    waiting = wait_for(
        lambda: next((run for run in runs if "pool pooled/press is full: 2 of 2" in str(three.api("GET", f"/v1/runs/{run}/why")["reasons"])), None),
        10,
        "a run that waits for the pool",
    )
    tries = [three.wait_run(run)["stages"][0]["attempts"][0]["tries"][0] for run in runs]
    assert three.run(waiting)["state"] == "succeeded"
    instants = sorted([(one["started_at"], 1) for one in tries] + [(one["ended_at"], -1) for one in tries])
    going = [sum(step for _, step in instants[: number + 1]) for number in range(len(instants))]
    assert max(going) == 2 and three.api("GET", "/v1/pools")["items"][0]["used"] == 0


def test_a_backfill_makes_each_past_time_once_though_the_leader_is_killed(tmp_path: Path) -> None:
    witness = tmp_path / "times"
    with Cluster(3) as cluster:
        command = f'echo "$IGOR_SCHEDULED_TIME" >> {witness}; sleep 0.2'
        cluster.push("shop", {"name": "sums", "command": command, "schedule": {"cron": "0 * * * *"}})
        span = ("--from", "2026-11-01T00:00:00Z", "--to", "2026-11-01T12:00:00Z")
        times = cluster.igor("backfill", "sums", *span, "--dry-run", "--json")
        assert json.loads(times.stdout)["total"] == 12
        backfill = cluster.igor("backfill", "sums", *span, "--reverse").stdout.strip()
        wait_for(lambda: witness.exists() and len(witness.read_text().split()) >= 3, 20, "three runs")
        killed = cluster.leader()
        killed.kill()
        wait_for(lambda: cluster.api("GET", f"/v1/backfills/{backfill}")["runs"] == {"succeeded": 12}, 60, "all runs")
        killed.start()
        assert witness.read_text().split() == [f"2026-11-01T{hour:02}:00:00Z" for hour in reversed(range(12))]
        again = json.loads(cluster.igor("backfill", "sums", *span, "--json").stdout)
        assert (again["total"], again["left_out"]) == (0, 12)
        audit = cluster.api("GET", "/v1/audit?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z")
        assert (audit["due"], audit["rows"]) == (0, [])
