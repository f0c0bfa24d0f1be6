"""Commands that show what happened and why: `runs`, `show`, `watch`, `logs`, `why`, `audit`, `events`."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

import click

from igor_node import words
from igor_node.cli import follow, output
from igor_node.cli.command import Command
from igor_node.cli.output import Column
from igor_node.cli.session import Session
from igor_node.cli.times import Moment, SpanSeconds

AUDIT_FAILED = 1
STATES = (*(state.value for state in words.RunState), "live")  # live: all that have not ended

RUN_COLUMNS = (
    Column("RUN", "id", "id"),
    Column("JOB", "job"),
    Column("SCHEDULED", lambda run: run.get("scheduled_time") or run.get("created_at"), "time"),
    Column("STATE", "state", "state"),
    Column("TOOK", lambda run: follow.took_s(run), "span_s"),
    Column("LATE", "lateness_s", "span_s"),
    Column("NODE", lambda run: nodes_text(run)),
    Column("TRIGGER", "trigger", wide=True),
    Column("VERSION", "version", "number", wide=True),
    Column("PARAMS", "params", wide=True),
    Column("REASON", "reason"),
)


def nodes_text(run: dict[str, Any]) -> str:
    """The nodes of the last attempts, each once, in the order of the stages."""
    names = [stage["attempts"][-1].get("node") for stage in run.get("stages") or [] if stage.get("attempts")]
    return ",".join(dict.fromkeys(name for name in names if name))


@click.command("runs", cls=Command, examples=["igor runs --job nightly-report --since 2d", "igor runs --state failed --limit 5 --json"])
@click.option("--job", "job_name", metavar="JOB", help="Only runs of this job.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only runs in this state; may be given several times.",
)
@click.option("--since", type=Moment(), metavar="T", help="Only runs since T: a time, a date, or a span back like 2h.")
@click.option("--limit", type=click.IntRange(min=1), default=50, metavar="N", help="The latest N, 50 without it.")
@click.pass_obj
def runs(session: Session, job_name: str | None, states: tuple[str, ...], since: str | None, limit: int) -> None:
    """List runs, the latest first."""
    found = session.client.pages("/v1/runs", limit, job=job_name, state=",".join(states) or None, since=since)
    session.items(found["items"], RUN_COLUMNS, whole=found, name="id", empty="there are no such runs")


@click.command("show", cls=Command, examples=["igor show nightly-report@latest", "igor show 0k3v --json"])
@click.argument("reference", metavar="RUN")
@click.pass_obj
def show(session: Session, reference: str) -> None:
    """Show a run: its stages, attempts and tries.

    RUN is an id, the beginning of one, JOB@latest, JOB@failed or JOB@TIME.
    """
    found = session.client.get(follow.run_path(reference))
    session.thing(found, run_lines(session, found), name="id")


def run_lines(session: Session, run: dict[str, Any]) -> list[str]:
    late = run.get("lateness_s")
    pairs = [
        ("run", run["id"]),
        ("job", f"{run['job']} (version {run.get('version')})"),
        ("state", run["state"] + (f": {run['reason']}" if run.get("reason") else "")),
        ("trigger", run.get("trigger")),
        ("scheduled", run.get("scheduled_time") and session.time(run["scheduled_time"])),
        ("created", session.time(run.get("created_at"))),
        ("started", run.get("started_at") and session.time(run["started_at"]) + (f", {output.span_text(late)} late" if late is not None else "")),
        ("ended", run.get("ended_at") and session.time(run["ended_at"])),
        ("params", run.get("params") and output.compact(run["params"])),
    ]
    lines = [f"{title + ':':<11}{output.printable(str(value))}" for title, value in pairs if value]
    return lines + [line for stage in run.get("stages") or [] for line in _stage_lines(session, stage)]


def _stage_lines(session: Session, stage: dict[str, Any]) -> list[str]:
    reason = f": {stage['reason']}" if stage.get("reason") else ""
    lines = [output.printable(f"stage {stage['name']}: {stage['state']}{reason}")]
    for attempt in stage.get("attempts") or []:
        reason = f": {attempt['reason']}" if attempt.get("reason") else ""
        lines.append(output.printable(f"  attempt {attempt['n']} on {attempt.get('node')}: {attempt['state']}{reason}"))
        lines += ["    " + output.printable(_try_text(session, one)) for one in attempt.get("tries") or []]
    return lines


def _try_text(session: Session, one: dict[str, Any]) -> str:
    parts = [f"try {one['n']}: {one['state']}"]
    if one.get("exit_code") is not None:
        parts.append(f"exit code {one['exit_code']}")
    if one.get("signal") is not None:
        parts.append(f"signal {one['signal']}")
    if one.get("started_at"):
        parts.append(f"from {session.time(one['started_at'])}")
    took = follow.took_s(one)
    if took is not None:
        parts.append(f"took {output.span_text(took)}")
    if one.get("max_rss_bytes"):
        parts.append(f"{one['max_rss_bytes'] / 2**20:.1f} MiB")
    if one.get("cpu_s") is not None:
        parts.append(f"cpu {output.span_text(one['cpu_s'])}")
    return ", ".join(parts)


@click.command("watch", cls=Command, examples=["igor watch nightly-report@latest", "igor watch 0k3v --timeout 5m"])
@click.argument("reference", metavar="RUN")
@click.option("--timeout", "timeout_s", type=SpanSeconds(), metavar="SPAN", help="Stop waiting after SPAN, with exit code 8.")
@click.pass_obj
def watch(session: Session, reference: str, timeout_s: float | None) -> int:
    """Wait for the end of a run and say each change of state; exit codes as of `igor run --wait`."""
    run = session.client.get(follow.run_path(reference))
    told: set[str] = set()

    def tell(newer: dict[str, Any]) -> None:
        for text in state_texts(newer):
            if text not in told:
                told.add(text)
                session.say(text)

    tell(run)
    ended = follow.wait_for_end(session.client, run, follow.deadline_in(timeout_s), tell)
    session.thing(ended, [follow.end_text(ended)], name="id")
    return follow.exit_code_of(ended)


def state_texts(run: dict[str, Any]) -> list[str]:
    """What can be said of a run now, a line each; lines that were said already are not said again."""
    lines = [f"run {run['id']}: {run['state']}"] if run["state"] not in words.RUN_ENDS else []
    for stage in run.get("stages") or []:
        where = stage["attempts"][-1].get("node") if stage.get("attempts") else None
        reason = f": {stage['reason']}" if stage.get("reason") else ""
        lines.append(f"stage {stage['name']}: {stage['state']}" + (f" on {where}" if where else "") + reason)
    return lines


@click.command("logs", cls=Command, examples=["igor logs nightly-report@latest -f", "igor logs 0k3v --failed --tail 50", "igor logs 0k3v -o wide"])
@click.argument("reference", metavar="RUN")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as lines come, until the run ends.")
@click.option("--stage", metavar="STAGE", help="Only this stage.")
@click.option("--try", "try_n", type=click.IntRange(min=1), metavar="N", help="Only the N-th try of each attempt.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of what is there.")
@click.option("--failed", is_flag=True, help="Only tries that did not succeed.")
@click.pass_obj
def logs(session: Session, reference: str, following: bool, stage: str | None, try_n: int | None, tail: int | None, failed: bool) -> None:
    """Print what a run wrote, all its tries in order. `-o wide` adds time, stage.attempt.try and stream.

    RUN is an id, the beginning of one, JOB@latest, JOB@failed or JOB@TIME.
    """
    if following and failed:
        raise click.UsageError("--failed looks at tries that have ended, --follow at those to come: choose one")
    client = session.client
    run = client.get(follow.run_path(reference))
    chosen = {"stage": stage, "try": try_n}
    if following:
        kept, offset = follow.log_tail(client, run["id"], chosen, tail) if tail is not None else ((), None)
        follow.print_log(session, itertools.chain(kept, follow.log_stream(client, run["id"], {**chosen, "offset": offset})))
        return
    lines = follow.log_now(client, run["id"], chosen)
    if failed:
        bad = failed_tries(run)
        lines = (line for line in lines if source_of(line) in bad)
    if not follow.print_log(session, lines if tail is None else deque(lines, maxlen=tail)):
        session.say(f"run {run['id']} of {run['job']} is {run['state']}; no output" + (f": {run['reason']}" if run.get("reason") else ""))


def failed_tries(run: dict[str, Any]) -> set[tuple[str, int, int]]:
    return {
        (stage["name"], attempt["n"], one["n"])
        for stage in run.get("stages") or []
        for attempt in stage.get("attempts") or []
        for one in attempt.get("tries") or []
        if one["state"] not in (words.TryState.SUCCEEDED, words.TryState.RUNNING)
    }


def source_of(line: dict[str, Any]) -> tuple[Any, Any, Any]:
    return line.get("stage"), line.get("attempt"), line.get("try")


@click.command("why", cls=Command, examples=["igor why nightly-report@latest", "igor why nightly-report@2026-11-24T02:00:00Z"])
@click.argument("reference", metavar="RUN|JOB@TIME")
@click.pass_obj
def why(session: Session, reference: str) -> None:
    """Say why a run waits, or what became of it; or what became of a scheduled time."""
    found = session.client.get(f"{follow.run_path(reference)}/why")
    session.thing(found, why_lines(session, found), name="run")


def why_lines(session: Session, found: dict[str, Any]) -> list[str]:
    lines = [str(text) for text in found.get("reasons") or [] if text] or [str(found.get("reason") or found.get("state") or "nothing is known")]
    return [output.printable(line) for line in lines]


AUDIT_COLUMNS = (
    Column("JOB", "job"),
    Column("SCHEDULED", lambda row: row.get("scheduled_time") or row.get("first"), "time"),
    Column("TO", "last", "time", wide=True),
    Column("FIRES", lambda row: row.get("count", 1), "number"),
    Column("OUTCOME", "outcome", "state"),
    Column("RUN", "run", "id"),
    Column("LATE", "lateness_s", "span_s"),
    Column("REASON", "reason"),
)


@click.command("audit", cls=Command, examples=["igor audit --from 1d", "igor audit --job nightly-report --from 2026-11-01 --to 2026-11-24 --json"])
@click.option("--job", "job_name", metavar="JOB", help="Only this job.")
@click.option("--from", "start", type=Moment(), metavar="T", help="From T, inclusive: a time, a date, or a span back like 2h.")
@click.option("--to", "end", type=Moment(), metavar="T", help="To T, exclusive; now without it.")
@click.pass_obj
def audit(session: Session, job_name: str | None, start: str | None, end: str | None) -> int:
    """Compare what the schedules demanded with what the ledger holds.

    Exit code 1 if any fire was made twice or is unaccounted for.
    """
    query = {"job": job_name, "from_": start, "to": end}
    found = session.client.get("/v1/audit", **query)
    session.items(found["rows"], AUDIT_COLUMNS, whole=found, name="scheduled_time", empty="no fire was due in that time")
    counts = ", ".join(f"{key} {found[key]}" for key in ("due", "ran", "skipped", "missed", "pending", "doubled", "unaccounted"))
    session.say(f"{session.time(found['from'])} to {session.time(found['to'])}: {counts}")
    return AUDIT_FAILED if found["doubled"] or found["unaccounted"] else 0


@click.command("events", cls=Command, examples=["igor events", "igor events -f --json"])
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as events come, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, metavar="N", help="The latest N, 50 without it.")
@click.pass_obj
def events(session: Session, following: bool, limit: int) -> None:
    """Print what happens in the cluster, a line an event."""
    names = {} if session.structured else {node["id"]: node["name"] for node in session.client.get("/v1/cluster")["nodes"]}
    found = session.client.get("/v1/events", last=limit)
    for event in found["items"]:
        print_event(session, event, names)
    if following:
        for event in session.client.events("/v1/events", str(found["last"])):
            print_event(session, event.data, names)


def print_event(session: Session, event: dict[str, Any], names: dict[str, str]) -> None:
    match session.form:
        case "json" | "jsonl":
            click.echo(output.compact(event))
        case "name":
            click.echo(event["number"])
        case _:
            click.echo(output.printable(event_text(session, event, names)))


def event_text(session: Session, event: dict[str, Any], names: dict[str, str]) -> str:
    """`2026-11-24 02:00:00Z  run  demo/hello 0k3v…  state=running`: when, of what kind, about what, what changed."""
    about = [names.get(event[key], str(event[key])) for key in ("node", "job", "run", "stage") if event.get(key)] or [str(event.get("project") or "")]
    told = {key: value for key, value in (event.get("data") or {}).items() if value not in (None, "", [], {})}
    changes = [f"{key}={value if isinstance(value, str) else output.compact(value)}" for key, value in told.items()]
    by = [f"by {event['actor']}"] if event.get("actor") else []
    return "  ".join([session.time(event.get("at")), event["kind"], " ".join(about), *[" ".join([*changes, *by])]]).rstrip()


ACTIVITY_COLUMNS = (
    Column("TIME", "at", "time"),
    Column("ACTOR", "actor"),
    Column("ACTION", "action"),
    Column("OBJECT", "object"),
    Column("PROJECT", lambda deed: deed.get("project") or "-"),
    Column("FROM", "address"),
    Column("BEFORE", lambda deed: _values(deed.get("before")), wide=True),
    Column("AFTER", lambda deed: _values(deed.get("after")), wide=True),
)


def _values(found: dict[str, Any] | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in (found or {}).items())


@click.command("activity", cls=Command, examples=["igor activity", "igor activity --actor ann --from 1d", "igor activity --action token --json"])
@click.option("--actor", metavar="A", help="Only theirs: a part of the name, or the id of a token.")
@click.option("--action", metavar="A", help="Only this action, like job.pause, or all that begin with it, like job.")
@click.option("--object", "thing", metavar="O", help="Only what was done to it: a part of its name or id.")
@click.option("--project", metavar="P", help="Only in this project.")
@click.option("--from", "start", type=Moment(), metavar="T", help="From T, inclusive: a time, a date, or a span back like 2h.")
@click.option("--to", "end", type=Moment(), metavar="T", help="To T, exclusive; now without it.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, metavar="N", help="The latest N, 50 without it.")
@click.pass_obj
def activity(
    session: Session, actor: str | None, action: str | None, thing: str | None, project: str | None, start: str | None, end: str | None, limit: int
) -> None:
    """Say who did what: every change that a person or a token made, the latest first."""
    sought = {"actor": actor, "action": action, "object": thing, "project": project, "since": start, "until": end}
    found = session.client.pages("/v1/activity", limit, **sought)
    session.items(found["items"], ACTIVITY_COLUMNS, whole=found, name="id", empty="nobody did anything of that kind")
