"""Queries: the API's shapes, pages, what a person may write for a run or a job, the audit's inputs, events."""

from __future__ import annotations

import pytest

from igor_node.definitions.jobs import Schedule
from igor_node.ledger import query_audit, query_events, query_jobs, query_live, query_prune, query_runs
from igor_node.ledger.commands import CancelRun, FireRuns, Stretch
from igor_node.words import SECOND, Conflict, Malformed, NotFound, RunState
from tests.unit.ledger.book import START, Book, job

MINUTE = 60 * SECOND
RUN_FIELDS = {
    "id", "job", "project", "version", "scheduled_time", "state", "reason", "created_at", "started_at", "ended_at", "lateness_s", "trigger",
    "params", "stages",
}  # fmt: skip
TRY_FIELDS = {"n", "state", "started_at", "ended_at", "exit_code", "signal", "max_rss_bytes", "cpu_s"}


def test_a_run_has_the_shape_of_the_api(book: Book) -> None:
    """CONTRACT, `GET /v1/runs`."""
    book.push(job())
    book.node()
    book.carry_out(run := book.fire())
    shown = book.run(run)
    assert shown.keys() >= RUN_FIELDS
    attempt = shown["stages"][0]["attempts"][0]
    assert attempt.keys() >= {"n", "node", "state", "fence", "tries"}
    assert attempt["tries"][0].keys() >= TRY_FIELDS


def several(book: Book) -> list[str]:
    """Six runs of two jobs in various states, oldest first."""
    book.node()
    book.push(job("a"), job("b"))
    made = [book.fire("shop/a") for _ in range(3)]
    book.carry_out(made[0])
    book.carry_out(made[1], "failed", exit_code=1)
    made.append(book.fire("shop/b", outcome="missed", reason="x"))
    made.append(book.fire("shop/b"))
    book.done(CancelRun(run=made[4]))
    made.append(book.fire("shop/b"))
    book.begin(book.placed(made[5]))
    return made


@pytest.mark.parametrize(
    "asked, expected",
    [
        pytest.param({}, [5, 4, 3, 2, 1, 0], id="all, newest first"),
        pytest.param({"job": "shop/a"}, [2, 1, 0], id="of one job"),
        pytest.param({"states": ["failed"]}, [1], id="one kind of trouble"),
        pytest.param({"states": ["failed", "missed", "cancelled"]}, [4, 3, 1], id="several kinds of trouble, merged"),
        pytest.param({"states": ["failed", "missed"], "job": "shop/b"}, [3], id="trouble of one job"),
        pytest.param({"states": ["live"]}, [5, 2], id="what has not ended"),
        pytest.param({"states": ["running"]}, [5], id="one live state"),
        pytest.param({"states": ["queued"], "job": "shop/a"}, [2], id="a live state of one job"),
        pytest.param({"states": ["succeeded", "running"]}, [5, 0], id="mixed"),
        pytest.param({"states": ["succeeded"], "job": "shop/b"}, [], id="none"),
    ],
)
def test_runs_are_filtered(book: Book, asked: dict[str, object], expected: list[int]) -> None:
    """Whichever index serves it, and on pages of any size."""
    made = several(book)
    page = book.read(lambda c: query_runs.runs(c, **asked))  # type: ignore[arg-type]
    assert [made.index(item["id"]) for item in page.items] == expected
    assert page.next is None
    paged, cursor = [], None
    while True:
        page = book.read(lambda c: query_runs.runs(c, **asked, limit=1, cursor=cursor))  # type: ignore[arg-type]
        paged += [made.index(item["id"]) for item in page.items]
        if (cursor := page.next) is None:
            break
    assert paged == expected


def test_since_is_the_time_of_creation(book: Book) -> None:
    """Inclusive."""
    book.push(job())
    book.fire()
    book.now += MINUTE
    later = book.fire(at=book.now)
    page = book.read(lambda c: query_runs.runs(c, since=book.now))
    assert [item["id"] for item in page.items] == [later]


def test_an_unknown_state_is_malformed(book: Book) -> None:
    """With the states that there are."""
    with pytest.raises(Malformed, match="succeeded"):
        book.read(lambda c: query_runs.runs(c, states=["done"]))


def test_a_run_is_found_by_what_a_person_writes(book: Book) -> None:
    """An id, a prefix, JOB@latest, JOB@failed, JOB@TIME."""
    made = several(book)
    at = book.run(made[1])["scheduled_time"]
    found = {words: book.read(lambda c, words=words: query_runs.find_run(c, words)) for words in (made[2], "b@latest", "shop/a@failed", f"a@{at}")}
    assert found == {made[2]: made[2], "b@latest": made[5], "shop/a@failed": made[1], f"a@{at}": made[1]}
    assert book.read(lambda c: query_runs.find_run(c, made[0][:-1] + made[0][-1])) == made[0]


@pytest.mark.parametrize(
    "words, error",
    [
        pytest.param("zzz", NotFound, id="no such id"),
        pytest.param("", Malformed, id="nothing"),
        pytest.param("0", Conflict, id="a prefix of several"),
        pytest.param("none@latest", NotFound, id="no such job"),
        pytest.param("b@failed", NotFound, id="never failed"),
        pytest.param("b@soon", Malformed, id="no time"),
        pytest.param("b@2020-01-01T00:00:00Z", NotFound, id="no fire then"),
    ],
)
def test_what_is_not_found(book: Book, words: str, error: type[Exception]) -> None:
    """Each with its own error."""
    several(book)
    with pytest.raises(error):
        book.read(lambda c: query_runs.find_run(c, words))


def test_a_job_is_named_alone_where_that_is_clear(book: Book) -> None:
    """Else with its project; a removed one only for its history."""
    book.push(job("a"), job("b"))
    book.push(job("a", project="mill"), project="mill")
    assert book.read(lambda c: query_jobs.resolve_job(c, "b")) == "shop/b"
    with pytest.raises(Conflict, match="mill/a, shop/a"):
        book.read(lambda c: query_jobs.resolve_job(c, "a"))
    book.push(job("a"))
    with pytest.raises(NotFound):
        book.read(lambda c: query_jobs.job(c, "shop/b"))
    assert book.read(lambda c: query_jobs.resolve_job(c, "b", removed=True)) == "shop/b"


def test_jobs_come_in_pages(book: Book) -> None:
    """By id; of one project or all."""
    book.push(*(job(f"j{number}") for number in range(5)))
    book.push(job("x", project="mill"), project="mill")
    first = book.read(lambda c: query_jobs.jobs(c, project="shop", limit=3))
    rest = book.read(lambda c: query_jobs.jobs(c, project="shop", after=first[-1].job))
    assert [row.name for row in (*first, *rest)] == ["j0", "j1", "j2", "j3", "j4"]
    assert len(book.read(query_jobs.jobs)) == 6


def test_only_jobs_with_a_schedule_are_for_the_fires_loop(book: Book) -> None:
    """A paused one is among them."""
    demanded = job("d").__class__(project="shop", name="d", stages=job().stages)
    book.push(job("a"), demanded, job("p", paused=True))
    assert [(row.name, row.paused) for row in book.read(query_jobs.schedulable)] == [("a", False), ("p", True)]


def test_projects_with_versions_and_sources(book: Book) -> None:
    """What a plan compares with, and the history."""
    assert book.read(lambda c: query_jobs.project(c, "shop")) is None
    book.push(job("a"), sources={"a.yaml": "1"}, source="git:1")
    book.push(job("a"), job("b"), sources={"a.yaml": "2"}, source="git:2")
    found = book.read(lambda c: query_jobs.project(c, "shop"))
    assert found is not None
    assert (found.version, found.sources, [one.name for one in found.jobs], found.last.created) == (2, {"a.yaml": "2"}, ["a", "b"], ["b"])
    assert [(row.version, row.source, row.actor) for row in book.read(lambda c: query_jobs.project_history(c, "shop"))] == [
        (2, "git:2", "ann"),
        (1, "git:1", "ann"),
    ]
    assert [row.project for row in book.read(query_jobs.projects)] == ["shop"]


def test_the_audits_inputs(book: Book) -> None:
    """Records in [from, to), stretches that touch it, segments with the definitions of their time."""
    hourly = Schedule(every_ns=3600 * SECOND)
    book.push(job())
    book.now += 10 * MINUTE
    stretch = Stretch(job="shop/report", first=START + MINUTE, last=START + 3 * MINUTE, count=3, outcome="missed", reason="no leader")
    book.done(FireRuns(term=1, stretches=(stretch,)))
    run = book.fire(at=START + 4 * MINUTE)
    book.fire(at=START + 5 * MINUTE)
    book.push(job(schedule=hourly))
    found = book.read(lambda c: query_audit.audit_job(c, "shop/report", START + 2 * MINUTE, START + 5 * MINUTE))
    assert [record.run for record in found.records] == [run]
    assert [(one.first, one.count) for one in found.stretches] == [(START + MINUTE, 3)]
    assert found.decided_until == START + 5 * MINUTE
    whole = book.read(lambda c: query_audit.audit_job(c, "shop/report", 0, 2**62))
    assert [(one.after, one.until) for one in whole.segments] == [(START, START + 10 * MINUTE), (START + 10 * MINUTE, None)]  # the push
    assert whole.segments[1].spec is not None and whole.segments[1].spec.schedules == (hourly,)
    assert book.read(query_audit.audit_jobs) == ["shop/report"]


def test_events_are_numbered_and_resumable(book: Book) -> None:
    """In order, without a gap, with what changed."""
    several(book)
    first, last = book.read(query_events.event_bounds)
    events = book.read(lambda c: query_events.events_since(c, 0))
    assert [event.number for event in events] == list(range(first, last + 1))
    assert book.read(lambda c: query_events.events_since(c, last - 1))[0].number == last
    kinds = {event.kind for event in events}
    assert {"project", "job", "node", "run", "stage"} <= kinds
    ended = [event.data["state"] for event in events if event.kind == "run" and event.data.get("state") in ("succeeded", "failed")]
    assert ended == ["succeeded", "failed"]


def test_the_text_of_one_source(book: Book) -> None:
    """Of the version in force; a file or a project that is not there has none."""
    book.push(job(), sources={"a.yaml": "first"})
    book.push(job(), sources={"a.yaml": "second: é", "b/c.yaml": "other"})
    assert book.read(lambda c: query_jobs.source_text(c, "shop", "a.yaml")) == "second: é"
    assert book.read(lambda c: query_jobs.source_text(c, "shop", "none.yaml")) is None
    assert book.read(lambda c: query_jobs.source_text(c, "none", "a.yaml")) is None


def test_counts_and_ages(book: Book) -> None:
    """The gauges, and what retention asks."""
    several(book)
    assert book.read(query_live.run_counts) == {"scheduled": 0, "queued": 1, "running": 1, "waiting": 0, "stages_queued": 1}
    ages = book.read(query_prune.ages)
    assert ages.oldest_run_created_at is not None and ages.oldest_event_at == START
    assert book.read(lambda c: query_prune.created_before(c, 5)) is not None
    assert book.read(lambda c: query_prune.created_before(c, 6)) is None


def test_lists_are_served_by_indices(book: Book) -> None:
    """With millions of runs a list must not read them all, nor sort them."""
    plans = {
        "all": ("SELECT id FROM runs WHERE id >= ? AND id < ? AND created_at >= ? ORDER BY id DESC LIMIT ?", 4),
        "job": ("SELECT id FROM runs WHERE job = ? AND id >= ? AND id < ? AND created_at >= ? ORDER BY id DESC LIMIT ?", 5),
        "trouble": ("SELECT id FROM runs WHERE trouble = ? AND id >= ? AND id < ? AND created_at >= ? ORDER BY id DESC LIMIT ?", 5),
        "job's trouble": ("SELECT id FROM runs WHERE job = ? AND trouble = ? AND id >= ? AND id < ? AND created_at >= ? ORDER BY id DESC LIMIT ?", 6),
        "fires": ("SELECT scheduled_at FROM runs WHERE job = ? AND scheduled_at >= ? AND trigger = 'schedule' ORDER BY scheduled_at LIMIT ?", 3),
        "recent": ("SELECT id FROM runs WHERE job = ? ORDER BY id DESC LIMIT ?", 2),
    }
    for name, (statement, values) in plans.items():
        plan = " ".join(str(row[3]) for row in book.sql(f"EXPLAIN QUERY PLAN {statement}", *["x"] * values))
        assert "SEARCH" in plan and "TEMP B-TREE" not in plan and "SCAN" not in plan, (name, plan)


def test_every_state_of_a_run_can_be_asked_for(book: Book) -> None:
    """None is forgotten by the choice of an index."""
    several(book)
    for state in RunState:
        page = book.read(lambda c, state=state: query_runs.runs(c, states=[state]))
        assert all(item["state"] == state for item in page.items)


def test_who_only_acts_on_a_job_has_its_live_runs_not_counted(book: Book) -> None:
    """There may be thousands, and each run on demand looks its job up."""
    book.push(job())
    book.create()
    assert book.read(lambda c: query_jobs.job(c, "report")).live == 1
    assert book.read(lambda c: query_jobs.job(c, "report", count_live=False)).live is None
