"""Commands that make something happen to runs: `run`, `cancel`, `lost`, `backfill`."""

from __future__ import annotations

from typing import Any

import click

from igor_node import words
from igor_node.cli import follow, output
from igor_node.cli.client import segment
from igor_node.cli.command import Command
from igor_node.cli.output import Column
from igor_node.cli.session import Session
from igor_node.cli.times import Moment, SpanSeconds

WAIT_EXITS = "0 succeeded, 10 failed, 11 timed out, 12 cancelled, 13 lost, 14 skipped or missed; 8 if --timeout ran out first"


@click.command(
    "run",
    cls=Command,
    examples=["igor run nightly-report", "igor run nightly-report -p day=2026-11-24 --wait", "igor run nightly-report --follow --timeout 10m"],
)
@click.argument("name", metavar="JOB")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="A value for a param of the job; may be given several times.")
@click.option("--now", is_flag=True, help="Start beside an earlier run that has not ended, whatever the job's overlap policy.")
@click.option("--wait", is_flag=True, help=f"Wait for the end; exit code {WAIT_EXITS}.")
@click.option("--follow", "following", is_flag=True, help="Print the output as it comes, then as --wait.")
@click.option("--timeout", "timeout_s", type=SpanSeconds(), metavar="SPAN", help="With --wait or --follow: stop waiting after SPAN. The run goes on.")
@click.option("--key", metavar="IDEMPOTENCY", help="The same key within 24 h gives the same run, never a second one.")
@click.pass_obj
def run(
    session: Session, name: str, params: tuple[str, ...], now: bool, wait: bool, following: bool, timeout_s: float | None, key: str | None
) -> int:
    """Run a job on demand and print the run's id."""
    body: dict[str, Any] = {"params": dict(_param(text) for text in params)}
    if now:
        body["now"] = True
    deadline = follow.deadline_in(timeout_s)
    answer = session.client.write("POST", f"/v1/jobs/{segment(name)}/runs", body, key=key or words.new_id(words.wall_now()))
    made = answer.value
    session.say(f"run {made['id']} of {made['job']} is {made['state']}" + (" (made earlier with this key)" if answer.status == 200 else ""))
    if not wait and not following:
        _print_made(session, made)
        return 0
    try:
        ended = _follow(session, made, deadline) if following else _wait(session, made, deadline)
    except KeyboardInterrupt:
        session.say(f"run {made['id']} goes on; igor watch {made['id']} waits further, igor cancel {made['id']} ends it")
        raise
    follow.tell_end(session, ended)
    return follow.exit_code_of(ended)


def _wait(session: Session, made: dict[str, Any], deadline: float | None) -> dict[str, Any]:
    """The id at once, so that a script has it whatever happens; in JSON only the run as it ended."""
    if not session.structured:
        _print_made(session, made)
    ended = follow.wait_for_end(session.client, made, deadline, lambda newer: None)
    if session.structured:
        _print_made(session, ended)
    return ended


def _follow(session: Session, made: dict[str, Any], deadline: float | None) -> dict[str, Any]:
    follow.print_log(session, follow.log_stream(session.client, made["id"], {}, deadline))
    ended = follow.wait_for_end(session.client, made, deadline, lambda newer: None)
    if session.structured:
        click.echo(output.compact(ended))
    return ended


def _print_made(session: Session, made: dict[str, Any]) -> None:
    session.thing(made, [made["id"]], name="id")


def _param(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f'-p "{text}": expected NAME=VALUE')
    return name, value


@click.command(
    "backfill",
    cls=Command,
    examples=[
        "igor backfill nightly-report --from 2026-11-01 --to 2026-11-08 --dry-run",
        "igor backfill nightly-report --from 7d --to 1d --parallel 3",
    ],
)
@click.argument("name", metavar="JOB")
@click.option("--from", "start", type=Moment(), required=True, metavar="T", help="The first time, itself included.")
@click.option("--to", "end", type=Moment(), required=True, metavar="T", help="Up to this time, itself not included.")
@click.option("--dry-run", is_flag=True, help="Only say for which times.")
@click.option("--again", is_flag=True, help="Also for times whose run succeeded.")
@click.option("--parallel", type=click.IntRange(1, 1000), default=1, metavar="N", help="So many at once, 1 without it.")
@click.option("--reverse", is_flag=True, help="The latest time first.")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why, kept with it.")
@click.pass_obj
def backfill(session: Session, /, name: str, start: str, end: str, reason: str, **flags: Any) -> None:
    """Make runs for past times of a job's schedule, as it is defined now, one after the other.

    What the ledger holds of those times stays as it is. Other runs of the job go by its overlap policy; the backfill waits for them.
    """
    body = {"from": start, "to": end, "reason": reason, **flags}
    answer = session.client.write("POST", f"/v1/jobs/{segment(name)}/backfill", body).value
    lines = [session.time(at) for at in answer["times"]] if answer["id"] is None else [answer["id"]]
    session.thing(answer, lines, name="id")
    left_out = f"; {answer['left_out']} left out, which succeeded or go on" if answer.get("left_out") else ""
    what = (
        "would be made"
        if flags["dry_run"]
        else "are made one after the other; igor backfills shows how far it is"
        if answer["id"]
        else "are to be made"
    )
    session.say(f"{answer['total']} runs of {answer['job']} {what}{left_out}")


BACKFILL_COLUMNS = (
    Column("ID", "id", "id"),
    Column("JOB", "job"),
    Column("STATE", "state", "state"),
    Column("MADE", lambda one: f"{one['made']} of {one['total']}"),
    Column("FROM", "from", "time"),
    Column("TO", "to", "time"),
    Column("RUNS", lambda one: ", ".join(f"{count} {state}" for state, count in sorted(one["runs"].items()))),
    Column("BY", "created_by", wide=True),
)


@click.command("backfills", cls=Command, examples=["igor backfills", "igor backfills --cancel 06qk3v0000000000000a"])
@click.option("--cancel", "cancelled", metavar="ID", help="Make no more runs of this one, and end those that go on.")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why it is cancelled.")
@click.pass_obj
def backfills(session: Session, cancelled: str | None, reason: str) -> None:
    """List backfills, the latest first; or cancel one."""
    if cancelled is not None:
        session.confirm(f"cancel backfill {cancelled}?")
        answer = session.client.write("POST", f"/v1/backfills/{segment(cancelled)}/cancel", {"reason": reason}).value
        session.thing(answer, [answer["id"]], name="id")
        session.say(f"backfill {answer['id']} of {answer['job']} is cancelled after {answer['made']} of {answer['total']}")
        return
    found = session.client.get("/v1/backfills")
    session.items(found["items"], BACKFILL_COLUMNS, whole=found, name="id", empty="there are no backfills")


@click.command("lost", cls=Command, examples=["igor lost nightly-report@latest --rerun", "igor lost 0k3v --fail -m 'the machine burnt'"])
@click.argument("reference", metavar="RUN")
@click.option("--rerun", "decision", flag_value="rerun", help="Make it again on another node, though the old command may still run.")
@click.option("--fail", "decision", flag_value="fail", help="Let the run fail.")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why, kept with the run.")
@click.pass_obj
def lost(session: Session, reference: str, decision: str | None, reason: str) -> None:
    """Decide about a run that waits for a node which is not heard (on_node_loss: wait). What comes of its command later is kept as a late result."""
    if decision is None:
        raise click.UsageError("expected --rerun or --fail")
    client = session.client
    found = client.get(follow.run_path(reference))
    session.confirm(f"give up what run {found['id']} of {found['job']} has on the lost node, and {decision}?")
    answer = client.write("POST", f"{follow.run_path(found['id'])}/lost", {"decision": decision, "reason": reason}).value or found
    _print_made(session, answer)
    session.say(f"run {found['id']} of {found['job']} is {answer['state']}: {answer.get('reason') or 'it is made again'}")


@click.command("cancel", cls=Command, examples=["igor cancel nightly-report@latest -m 'wrong day'"])
@click.argument("reference", metavar="RUN")
@click.option("-m", "--message", "reason", default="", metavar="WHY", help="Why, kept with the run.")
@click.pass_obj
def cancel(session: Session, reference: str, reason: str) -> None:
    """End a run: TERM, and after the job's grace KILL, for all it started. The run is cancelled once its command has ended."""
    client = session.client
    found = client.get(follow.run_path(reference))  # so that the question, and a retry, mean this very run
    session.confirm(f"cancel run {found['id']} of {found['job']}, now {found['state']}?")
    answer = client.write("POST", f"{follow.run_path(found['id'])}/cancel", {"reason": reason}).value or found
    _print_made(session, answer)
    session.say(f"run {found['id']} of {found['job']} is being cancelled" if answer["state"] not in words.RUN_ENDS else follow.end_text(answer))
