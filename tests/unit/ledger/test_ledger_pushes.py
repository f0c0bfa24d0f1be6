"""Push, pause and resume: all or nothing, versions, and what becomes of runs that have not started (SEMANTICS, "Push", "Pause, push and cancel")."""

from __future__ import annotations

import pytest

from igor_node.definitions.jobs import Schedule, Stage, encode_job
from igor_node.ledger import query_attempts, query_audit, query_jobs
from igor_node.ledger.commands import Fire, FireRuns, PauseJobs, PushProject, ResumeJobs
from igor_node.ledger.waiting import waiting_stages
from igor_node.words import SECOND
from tests.unit.ledger.book import START, Book, job

MINUTE = 60 * SECOND


def names(*given: str) -> PushProject:
    return PushProject(project="shop", jobs=tuple(encode_job(job(name)) for name in given))


def test_a_push_creates_its_jobs_with_version_1(book: Book) -> None:
    """The answer names them, and a new job's schedule begins at its push."""
    assert book.push(job("a"), job("b"))["created"] == ["a", "b"]
    found = book.read(query_jobs.jobs)
    assert [(row.job, row.version, row.decided_until) for row in found] == [("shop/a", 1, START), ("shop/b", 1, START)]


def test_the_same_push_again_changes_nothing(book: Book) -> None:
    """`unchanged`, and the version stays."""
    book.push(job(), sources={"report.yaml": "kind: Job"})
    again = book.push(job(), sources={"report.yaml": "kind: Job"})
    assert (again["unchanged"], again["version"]) == (True, 1)
    assert book.push(job(), sources={"report.yaml": "kind: Job # moved"})["version"] == 2


def test_a_push_names_what_it_changed_and_only_that(book: Book) -> None:
    """A definition that only moved inside its file is kept anew and not called changed."""
    book.push(job("a"), job("b"), job("c"))
    answer = book.push(job("a", description="new"), job("b", source_line=9), job("c"))
    assert (answer["created"], answer["changed"], answer["removed"]) == ([], ["a"], [])
    assert {row.job: (row.version, row.spec_version) for row in book.read(query_jobs.jobs)} == {
        "shop/a": (2, 2),
        "shop/b": (2, 2),
        "shop/c": (2, 1),
    }


@pytest.mark.parametrize(
    "if_version, error",
    [
        pytest.param(0, "StaleVersion", id="must be new, is there"),
        pytest.param(2, "StaleVersion", id="another version"),
        pytest.param(1, None, id="the version it has"),
        pytest.param(None, None, id="whatever is there"),
    ],
)
def test_if_version(book: Book, if_version: int | None, error: str | None) -> None:
    """A push that expects another version is refused and changes nothing."""
    book.push(job())
    result = book.apply(PushProject(project="shop", jobs=(encode_job(job(description="x")),), if_version=if_version))
    assert getattr(result, "error", None) == error
    assert book.sql("SELECT version FROM projects") == [(1 if error else 2,)]


@pytest.mark.parametrize(
    "kept, refused",
    [
        pytest.param(("a", "b"), False, id="half may go"),
        pytest.param(("a",), True, id="more than half may not"),
        pytest.param((), True, id="all may not"),
    ],
)
def test_removing_more_than_half_needs_prune(book: Book, kept: tuple[str, ...], refused: bool) -> None:
    """Jobs that are not pushed any more are removed; past half of them only with `prune`."""
    book.done(names("a", "b", "c", "d"))
    result = book.apply(names(*kept))
    assert getattr(result, "error", None) == ("Conflict" if refused else None)
    if refused:
        assert "--prune" in result.hint
        book.done(PushProject(project="shop", jobs=names(*kept).jobs, prune=True))
    assert [row.name for row in book.read(query_jobs.jobs)] == list(kept)


@pytest.mark.parametrize(
    "text, error",
    [
        pytest.param(b"{", "Malformed", id="no JSON"),
        pytest.param(b'{"project":"shop","name":"x"}', "Malformed", id="no stages"),
        pytest.param(encode_job(job(project="other")), "Invalid", id="of another project"),
        pytest.param(encode_job(job("a/b")), "Invalid", id="no name"),
        pytest.param(encode_job(job(stages=[])), "Invalid", id="an empty list of stages"),
        pytest.param(encode_job(job(stages=[Stage(name="x", command="a"), Stage(name="x", command="b")])), "Invalid", id="one stage twice"),
    ],
)
def test_one_bad_job_refuses_the_whole_push(book: Book, text: bytes, error: str) -> None:
    """All or nothing."""
    assert book.refused(PushProject(project="shop", jobs=(encode_job(job("good")), text))).error == error
    assert book.read(query_jobs.jobs) == []


def test_the_same_name_twice_is_refused(book: Book) -> None:
    """Two jobs of one name in one push are a mistake, not a choice."""
    assert book.refused(names("a", "a")).error == "Invalid"


def test_a_job_that_comes_back_never_fires_a_past_time_again(book: Book) -> None:
    """`decided_until` outlives the job's removal."""
    book.push(job("a"), job("b"))
    book.now += MINUTE
    book.fire("shop/a", decided_far := book.now + 10 * MINUTE)
    book.now += MINUTE
    book.push(job("b"))
    assert book.fires(Fire(job="shop/a", run=book.new_id(), scheduled_at=book.now + 30 * MINUTE, due_at=0))[0][2] == "the job was removed"
    book.now += MINUTE
    assert book.push(job("a"), job("b"))["created"] == ["a"]
    assert book.read(lambda c: query_jobs.job(c, "a")).decided_until == decided_far
    assert "decided already" in book.fires(Fire(job="shop/a", run=book.new_id(), scheduled_at=decided_far, due_at=0))[0][2]


def test_runs_that_wait_are_skipped_when_their_job_is_removed(book: Book) -> None:
    """`skipped: job removed`; a run that goes on does so."""
    book.node()
    book.push(job("a"), job("b"))
    book.now += 2 * MINUTE
    going_on, waiting, demanded = book.fire("shop/a", START + MINUTE), book.fire("shop/a", START + 2 * MINUTE), book.create("shop/a")
    book.begin(book.placed(going_on))
    book.push(job("b"))
    assert [book.run(run)["state"] for run in (going_on, waiting, demanded)] == ["running", "skipped", "skipped"]
    assert book.run(waiting)["reason"] == "job removed"
    book.end(f"{going_on}.main.1")
    assert book.run(going_on)["state"] == "succeeded"


def test_a_removed_jobs_fire_that_is_with_a_node_is_the_nodes_to_decide(book: Book) -> None:
    """It is named in the answer and revoked; if the node confirms that it did not start, it is skipped."""
    book.node()
    book.push(job("a"), job("b"))
    run = book.fire("shop/a", START + 5 * SECOND)
    attempt = book.placed(run)
    assert [held["run"] for held in book.push(job("b"))["handed_out"]] == [run]
    assert book.read(query_attempts.open_attempts)[0].revoke == "job removed"
    book.report(book.event(attempt, "revoked"))
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("skipped", "job removed")


def test_a_node_that_started_it_before_the_revoke_arrived_runs_it(book: Book) -> None:
    """Started or revoked, never both."""
    book.node()
    book.push(job("a"), job("b"))
    run = book.fire("shop/a", START + 5 * SECOND)
    attempt = book.placed(run)
    book.push(job("b"))
    book.now += 5 * SECOND
    book.begin(attempt)
    book.end(attempt)
    assert book.run(run)["state"] == "succeeded"


def test_waiting_runs_take_the_new_version(book: Book) -> None:
    """Also its stages; a run says which version it is of."""
    book.push(job())
    run = book.fire()
    book.push(job(stages=[Stage(name="fetch", command="a"), Stage(name="sum", command="b", needs=("fetch",))]))
    shown = book.run(run)
    assert (shown["version"], [(stage["name"], stage["state"]) for stage in shown["stages"]]) == (2, [("fetch", "queued"), ("sum", "waiting")])


def test_on_push_keep_pins_the_version(book: Book) -> None:
    """A run made under `on_push: keep` stays what it was."""
    book.push(job(on_push="keep"))
    run = book.fire()
    book.push(job(on_push="keep", stages=[Stage(name="other", command="a")]))
    assert (book.run(run)["version"], book.run(run)["stages"][0]["name"]) == (1, "main")


def test_a_fire_that_could_be_revoked_runs_with_the_new_version(book: Book) -> None:
    """It goes back into the queue with the new definition, and its next attempt has the next number."""
    book.node()
    book.push(job())
    run = book.fire(at=START + 5 * SECOND)
    attempt = book.placed(run)
    changed = job(stages=[Stage(name="main", command="other")])
    assert [one["attempt"] for one in book.push(changed)["handed_out"]] == [attempt]
    book.report(book.event(attempt, "held"), book.event(attempt, "revoked"))
    assert (book.run(run)["version"], book.run(run)["state"]) == (2, "scheduled")
    assert book.read(lambda c: waiting_stages(c, book.now + MINUTE))[0].stage_spec.command == "other"
    assert book.place(run, n=1) == "its next attempt is number 2"
    book.carry_out(run, n=2)
    assert book.run(run)["state"] == "succeeded"


def test_a_change_that_alters_nothing_about_the_run_revokes_nothing(book: Book) -> None:
    """A new description or schedule leaves what is with a node where it is."""
    book.node()
    book.push(job())
    book.placed(book.fire(at=START + 5 * SECOND))
    assert book.push(job(description="better words", schedule=Schedule(every_ns=MINUTE * 2)))["handed_out"] == []


# --- pause


def test_a_pause_skips_what_is_to_come_and_not_what_is_due(book: Book) -> None:
    """A fire that is scheduled and not with a node is skipped at once; a run on demand goes on waiting."""
    book.push(job())
    coming, demanded = book.fire(at=START + 5 * SECOND), book.create()
    answer = book.done(PauseJobs(jobs=("shop/report",), reason="stocktaking"))
    assert answer == {"paused": ["shop/report"], "handed_out": []}
    assert (book.run(coming)["state"], book.run(coming)["reason"]) == ("skipped", "paused: stocktaking")
    assert book.run(demanded)["state"] == "queued"


def test_a_fire_with_a_node_is_revoked_by_a_pause(book: Book) -> None:
    """The answer names it; the node's confirmation makes it `skipped: paused`, also after the resume."""
    book.node()
    book.push(job())
    attempt = book.placed(run := book.fire(at=START + 5 * SECOND))
    assert book.done(PauseJobs(jobs=("shop/report",)))["handed_out"][0]["node"] == "a"
    book.done(ResumeJobs(jobs=("shop/report",)))
    book.report(book.event(attempt, "revoked"))
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("skipped", "paused")


def test_fires_of_a_pause_are_refused_during_and_after_it(book: Book) -> None:
    """`resume` never runs them."""
    book.push(job())
    book.done(PauseJobs(jobs=("shop/report",)))
    fire = Fire(job="shop/report", run=book.new_id(), scheduled_at=START + MINUTE, due_at=START + MINUTE)
    assert book.fires(fire)[0][2] == "paused"
    book.now += 2 * MINUTE
    book.done(ResumeJobs(jobs=("shop/report",)))
    assert book.fires(fire)[0][2] == "the job was paused then"
    book.now += MINUTE
    book.fire()


def test_a_pause_with_an_end_covers_only_what_is_before_it(book: Book) -> None:
    """Fires from `until` on are made, also when the resume itself comes late."""
    book.push(job())
    book.done(PauseJobs(jobs=("shop/report",), until=START + 2 * MINUTE))
    book.now += 3 * MINUTE
    assert book.fires(Fire(job="shop/report", run=book.new_id(), scheduled_at=START + MINUTE, due_at=0))[0][2].startswith("paused")
    book.done(ResumeJobs(jobs=("shop/report",)))
    assert book.fires(Fire(job="shop/report", run=book.new_id(), scheduled_at=START + MINUTE, due_at=0)) != []
    book.fire(at=START + 2 * MINUTE)


@pytest.mark.parametrize(
    "command", [PauseJobs(jobs=("shop/report", "shop/none")), ResumeJobs(jobs=("shop/report", "shop/none"))], ids=["pause", "resume"]
)
def test_one_unknown_job_refuses_the_whole_command(book: Book, command: PauseJobs | ResumeJobs) -> None:
    """Nothing is paused by halves."""
    book.push(job())
    assert book.refused(command).error == "NotFound"
    assert not book.read(lambda c: query_jobs.job(c, "report")).paused


def test_a_pause_that_is_over_already_is_refused(book: Book) -> None:
    """Its end must be later than now."""
    book.push(job())
    assert book.refused(PauseJobs(jobs=("shop/report",), until=book.now)).error == "Invalid"


def test_a_definition_may_be_paused_and_a_push_resumes_it(book: Book) -> None:
    """`paused: true` counts where it changes; what a person paused stays paused through pushes."""
    book.push(job(paused=True))
    assert book.read(lambda c: query_jobs.job(c, "report")).paused
    book.push(job(paused=False))
    assert not book.read(lambda c: query_jobs.job(c, "report")).paused
    book.done(PauseJobs(jobs=("shop/report",), reason="by hand"))
    book.push(job(description="x"))
    assert book.read(lambda c: query_jobs.job(c, "report")).pause_reason == "by hand"


def test_the_history_of_schedules_is_kept_for_the_audit(book: Book) -> None:
    """Segments from the first push on: active, paused, active, another schedule, removed, active; `after` never goes back."""
    hourly = Schedule(every_ns=3600 * SECOND)
    steps = [
        lambda: book.push(job(), job("other")),
        lambda: book.done(PauseJobs(jobs=("shop/report",))),
        lambda: book.done(ResumeJobs(jobs=("shop/report",))),
        lambda: book.push(job(schedule=hourly), job("other")),
        lambda: book.push(job("other")),
        lambda: book.push(job(schedule=hourly), job("other")),
    ]
    for step in steps:
        step()
        book.now += MINUTE
        book.done(FireRuns(term=1, decided={"shop/report": book.now}))  # refused while it is removed
    found = book.read(lambda c: query_audit.audit_job(c, "shop/report", 0, 2**62))
    assert [segment.state for segment in found.segments] == ["active", "paused", "active", "active", "removed", "active"]
    afters = [after for (after,) in book.sql("SELECT after FROM history WHERE job = 'shop/report' ORDER BY number")]
    assert afters == sorted(afters) and len(afters) == 6
    assert found.segments[-1].spec is not None and found.segments[-1].spec.schedules == (hourly,)
