"""Commands that look at definitions in force: `jobs`, `job show|pause|resume`, `schedule`, `upcoming`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igor_node import words
from igor_node.cli import output
from igor_node.cli.client import segment
from igor_node.cli.command import Command, Group
from igor_node.cli.output import Column
from igor_node.cli.session import Session
from igor_node.cli.times import Moment

if TYPE_CHECKING:
    from igor_node.definitions.jobs import Schedule

JOB_COLUMNS = (
    Column("JOB", "id"),
    Column("SCHEDULE", lambda job: schedules_text(job)),
    Column("NEXT", "next_fire", "time"),
    Column("LAST", lambda job: (job.get("last_run") or {}).get("state"), "state"),
    Column("STATE", lambda job: "paused" if job.get("paused") else "active", "state"),
    Column("OWNER", "owner", wide=True),
    Column("TAGS", "tags", wide=True),
    Column("VERSION", "version", "number", wide=True),
    Column("DESCRIPTION", "description", wide=True),
)


def schedules_text(job: dict[str, Any]) -> str:
    return "; ".join(job.get("schedule") or []) or "on demand"


@click.command("jobs", cls=Command, examples=["igor jobs", "igor jobs --project demo -o wide"])
@click.option("--project", metavar="P", help="Only the jobs of this project.")
@click.pass_obj
def jobs(session: Session, project: str | None) -> None:
    """List the jobs of the cluster, with what they did last and when they fire next."""
    found = session.client.pages("/v1/jobs", None, project=project)
    session.items(found["items"], JOB_COLUMNS, whole=found, name="id", empty="there are no jobs; igor push DIR sends some")


@click.group("job", cls=Group, examples=["igor job show nightly-report"])
def job() -> None:
    """Show one job, pause it, resume it."""


@job.command("show", examples=["igor job show nightly-report", "igor job show demo/nightly-report --json"])
@click.argument("name", metavar="JOB")
@click.pass_obj
def show(session: Session, name: str) -> None:
    """Show a job: what it runs, when, and by which rules."""
    found = session.client.get(f"/v1/jobs/{segment(name)}")
    session.thing(found, job_lines(session, found), name="id")


def job_lines(session: Session, found: dict[str, Any]) -> list[str]:
    until = f", until {session.time(found['paused_until'])}" if found.get("paused_until") else ""
    paused = f"paused: {found.get('pause_reason') or 'no reason given'}{until}" if found.get("paused") else "active"
    pairs = [
        ("job", found.get("id")),
        ("description", found.get("description")),
        ("owner", found.get("owner")),
        ("state", paused),
        ("schedule", schedules_text(found)),
        ("next fires", ", ".join(session.time(fire) for fire in (found.get("next_fires") or [])[:3])),
        ("version", found.get("version")),
        ("source", found.get("source")),
    ]
    lines = [f"{title + ':':<13}{output.printable(str(value))}" for title, value in pairs if value not in (None, "")]
    for stage in (found.get("definition") or {}).get("stages") or []:
        lines.append(f"stage {stage['name']}: {output.printable(output.compact(stage.get('command')))}")
    return lines


@job.command("pause", examples=["igor job pause nightly-report -m 'warehouse is being moved' --until 2h"])
@click.argument("name", metavar="JOB")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why, for whoever wonders.")
@click.option("--until", type=Moment(ahead=True), metavar="T", help="Resume by itself then: a time, or a span like 2h.")
@click.pass_obj
def pause(session: Session, name: str, reason: str, until: str | None) -> None:
    """Let the schedule of a job make no more runs.

    Fires that were handed out already (at most 5 s ahead) are taken back where their node still can.
    """
    _change(session, name, "pause", {"reason": reason, "until": until})


@job.command("resume", examples=["igor job resume nightly-report"])
@click.argument("name", metavar="JOB")
@click.pass_obj
def resume(session: Session, name: str) -> None:
    """Let the schedule of a paused job go on. What it missed meanwhile stays skipped."""
    _change(session, name, "resume", {})


def _change(session: Session, name: str, verb: str, body: dict[str, Any]) -> None:
    given = {key: value for key, value in body.items() if value}
    answer = session.client.write("POST", f"/v1/jobs/{segment(name)}/{verb}", given).value or {}
    if session.structured:
        session.thing(answer, [])
    for warning in answer.get("warnings") or []:
        session.warn(str(warning))
    session.say(f"{answer.get('id') or name}: {verb}d")


@click.command("pause", cls=Command, examples=["igor pause --project shop -m 'the warehouse is being moved' --until 2h", "igor pause --all"])
@click.option("--all", "everything", is_flag=True, help="All jobs of all projects.")
@click.option("--project", metavar="P", help="All jobs of this project.")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why, for whoever wonders.")
@click.option("--until", type=Moment(ahead=True), metavar="T", help="Resume by themselves then: a time, or a span like 2h.")
@click.pass_obj
def pause_many(session: Session, everything: bool, project: str | None, reason: str, until: str | None) -> None:
    """Let the schedules of many jobs make no more runs. Jobs that are pushed later are not paused; one job: igor job pause."""
    _change_many(session, everything, project, "pause", {"reason": reason, "until": until})


@click.command("resume", cls=Command, examples=["igor resume --project shop", "igor resume --all"])
@click.option("--all", "everything", is_flag=True, help="All jobs of all projects.")
@click.option("--project", metavar="P", help="All jobs of this project.")
@click.pass_obj
def resume_many(session: Session, everything: bool, project: str | None) -> None:
    """Let the schedules of many paused jobs go on. What they missed meanwhile stays skipped."""
    _change_many(session, everything, project, "resume", {})


def _change_many(session: Session, everything: bool, project: str | None, verb: str, body: dict[str, Any]) -> None:
    if everything == (project is not None):
        raise click.UsageError("expected --all or --project P")
    path = f"/v1/{verb}" if project is None else f"/v1/projects/{segment(project)}/{verb}"
    session.confirm(f"{verb} all jobs of {project or 'all projects'}?")
    given = {key: value for key, value in body.items() if value} | ({"scope": "all"} if project is None else {})
    answer = session.client.write("POST", path, given).value or {}
    if session.structured:
        session.thing(answer, [])
    for warning in answer.get("warnings") or []:
        session.warn(str(warning))
    session.say(f"{answer.get(verb + 'd', 0)} jobs {verb}d")


@click.command(
    "schedule",
    cls=Command,
    remote=False,
    examples=[
        "igor schedule '0 2 * * *' --tz Europe/Berlin",
        "igor schedule 'H/15 * * * *' --job demo/hello -n 3",
        "igor schedule --batch cases.jsonl",
    ],
)
@click.argument("expression", required=False, metavar="[EXPR]")
@click.option("--tz", "zone", default="UTC", metavar="ZONE", help="Time zone of the expression, UTC without it.")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, metavar="N", help="How many fires, 10 without it.")
@click.option("--from", "after", type=Moment(), metavar="T", help="Fires strictly after T, now without it.")
@click.option("--job", "job_name", default=None, metavar="JOB", help="The job (project/name) whose name H is hashed with.")
@click.option(
    "--batch", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path), metavar="FILE", help="A question a line, as JSON."
)
@click.pass_obj
def schedule(session: Session, expression: str | None, zone: str, count: int, after: str | None, job_name: str | None, batch: Path | None) -> None:
    """Show the next fires of a cron expression (or a span like 90s), by the rules that the cluster uses.

    --batch reads lines {"id","expr","tz","from","n","job"?} and prints for each {"id","fires"} or {"id","error"}.
    """
    from igor_node.definitions import clock_changes, preview

    if (expression is None) == (batch is None):
        raise click.UsageError("expected either an expression or --batch FILE")
    start = words.parse_instant(after) if after else words.wall_now()
    if batch is not None:
        with click.open_file(str(batch), encoding="utf-8", errors="replace") as lines:
            output.write_lines(preview.answer_batch(lines, start))
        return
    asked = schedule_of(expression or "", zone)
    try:
        fires = preview.next_fires(asked, job_name or "", start, count)
    except ValueError as problem:
        raise words.Invalid(str(problem)) from None
    texts = [words.format_instant(fire) for fire in fires]
    notes = {text: note for text, fire in zip(texts, fires, strict=True) if (note := clock_changes.note(asked, job_name or "", fire))}
    meaning = preview.describe(asked, job_name or "")
    if session.form == "name":
        output.write_lines(texts)
    elif session.form == "jsonl":
        output.write_lines(output.compact(text) for text in texts)
    else:
        answer = {"expr": expression, "tz": zone, "from": words.format_instant(start), "meaning": meaning, "fires": texts, "notes": notes}
        session.thing(answer, [f"{session.time(text)}  {notes.get(text, '')}".rstrip() for text in texts])
    session.say(meaning)


def schedule_of(expression: str, zone: str) -> Schedule:
    """A span is `every`, a time is `at`, anything else cron."""
    from igor_node.definitions.jobs import Schedule

    try:
        return Schedule(every_ns=words.parse_span(expression), timezone=zone)
    except ValueError:
        pass
    try:
        return Schedule(at=words.parse_instant(expression), timezone=zone)
    except ValueError:
        return Schedule(cron=expression, timezone=zone)


CLOCK_COLUMNS = (
    Column("JOB", "job"),
    Column("SCHEDULED", "scheduled_time", "time"),
    Column("ZONE", "timezone"),
    Column("WHAT", "note"),
)


@click.command("dst", cls=Command, examples=["igor dst --year 2027", "igor dst --job nightly-report --json"])
@click.option("--year", type=click.IntRange(1970, 2200), metavar="Y", help="Of which year, this one without it.")
@click.option("--job", "job_name", metavar="JOB", help="Only this job.")
@click.pass_obj
def dst(session: Session, year: int | None, job_name: str | None) -> None:
    """List the fires of a year whose local time does not exist, or comes twice, because the clocks change."""
    found = session.client.get("/v1/dst", year=year, job=job_name)
    session.items(found["items"], CLOCK_COLUMNS, whole=found, name="job", empty="no change of the clock meets a schedule in that year")


UPCOMING_COLUMNS = (
    Column("SCHEDULED", "scheduled_time", "time"),
    Column("JOB", "job"),
    Column("TAKES", "expected_s", "span_s"),
    Column("NOTE", lambda fire: "paused: will be skipped" if fire.get("paused") else fire.get("note") or ""),
    Column("DUE", "due_time", "time", wide=True),
)


@click.command("upcoming", cls=Command, examples=["igor upcoming", "igor upcoming --hours 1 --json"])
@click.option("--hours", type=click.FloatRange(0, 24 * 366, min_open=True), default=24.0, metavar="N", help="How far ahead, 24 without it.")
@click.option("--job", "job_name", metavar="JOB", help="Only this job.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, metavar="N", help="At most so many, 100 without it.")
@click.pass_obj
def upcoming(session: Session, hours: float, job_name: str | None, limit: int) -> None:
    """List the fires that are to come, how long they will probably take, and what will probably be in their way."""
    found = session.client.get("/v1/upcoming", hours=f"{hours:g}", job=job_name, limit=limit)
    session.items(found["items"], UPCOMING_COLUMNS, whole=found, name="job", empty="nothing is to come in that time")
