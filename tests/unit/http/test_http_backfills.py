"""Backfills through the API: for which times, what is left out, how far it is, its end; and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.ledger import commands
from igor_node.words import SECOND, Role, format_instant, wall_now
from tests.unit.http.world import World

HOUR = 3_600 * SECOND
HOURLY = {"name": "hourly", "schedule": {"cron": "0 * * * *"}, "command": "true"}


def past(hours: int) -> int:
    return wall_now() // HOUR * HOUR - hours * HOUR


async def ask(world: World, **body: Any) -> Any:
    asked = {"from": format_instant(past(10)), "to": format_instant(past(6)), **body}
    return await world.ask("POST", "/v1/jobs/hourly/backfill", asked, role=Role.OPERATOR)


def ran(world: World, backfill: str, run: str) -> None:
    world.cluster.do(commands.BackfillRuns(term=1, backfill=backfill, runs=(run,)))


async def test_a_dry_run_says_for_which_times_and_makes_nothing(world: World) -> None:
    await world.push("demo", HOURLY)
    answer = await ask(world, dry_run=True)
    times = [format_instant(past(hours)) for hours in (10, 9, 8, 7)]
    assert (answer.status, answer.value["times"], answer.value["total"], answer.value["id"]) == (200, times, 4, None)
    assert (await ask(world, dry_run=True, reverse=True)).value["times"] == times[::-1]
    assert (await world.ask("GET", "/v1/backfills")).value["items"] == []


async def test_a_backfill_is_made_shown_and_cancelled(world: World) -> None:
    await world.push("demo", HOURLY)
    made = await ask(world, parallel=2, reason="the warehouse was away")
    backfill = made.value["id"]
    assert made.status == 201 and made.headers["Location"] == f"/v1/backfills/{backfill}"
    ran(world, backfill, "r1")
    shown = (await world.ask("GET", f"/v1/backfills/{backfill}")).value
    assert (shown["state"], shown["made"], shown["total"], shown["runs"]) == ("running", 1, 4, {"queued": 1})
    assert (shown["from"], shown["to"], shown["reason"]) == (format_instant(past(10)), format_instant(past(7)), "the warehouse was away")
    assert (await world.ask("GET", "/v1/backfills")).value["items"] == [shown]
    run = (await world.ask("GET", "/v1/runs/r1")).value
    assert (run["trigger"], run["scheduled_time"]) == ("backfill", format_instant(past(10)))
    ended = await world.ask("POST", f"/v1/backfills/{backfill}/cancel", {"reason": "wrong week"}, role=Role.OPERATOR)
    assert (ended.value["state"], ended.value["runs"]) == ("cancelled", {"cancelled": 1})
    assert (await world.ask("POST", f"/v1/backfills/{backfill}/cancel", {})).status == 409


async def test_what_is_to_be_made_or_succeeded_is_left_out_unless_again(world: World) -> None:
    await world.push("demo", HOURLY)
    first = await ask(world, to=format_instant(past(9)))
    assert (first.status, first.value["total"]) == (201, 1)
    second = await ask(world, dry_run=True)
    assert (second.value["total"], second.value["left_out"]) == (3, 1)
    assert (await ask(world, dry_run=True, again=True)).value["total"] == 4
    nothing = await ask(world, to=format_instant(past(9)))
    assert (nothing.status, nothing.value["total"], nothing.value["left_out"]) == (200, 0, 1)


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 422, "from: it is not before to"),
        ({"to": "2199-01-01T00:00:00Z"}, 422, "to: 2199-01-01T00:00:00Z is to come"),
        ({"parallel": 0}, 422, "parallel: 0 is not possible"),
        ({"from": "yesterday"}, 400, "from"),
        ({"from": "1970-01-01T00:00:00Z"}, 413, "more than 10000 times"),
    ],
)
async def test_what_is_no_backfill(world: World, body: dict[str, Any], status: int, fault: str) -> None:
    await world.push("demo", HOURLY)
    answer = await ask(world, **body)
    assert answer.status == status and fault in str(answer.value), answer.value


async def test_a_job_on_demand_has_no_past_times(world: World) -> None:
    await world.push("demo", {"name": "hourly", "command": "true"})
    answer = await ask(world)
    assert answer.status == 422 and "it has no schedule" in str(answer.value)
