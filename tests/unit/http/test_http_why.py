"""`igor why JOB@TIME` and `igor dst`: for times past and to come, the cause by its name."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.words import SECOND, Role, format_instant, parse_instant, wall_now
from tests.unit.http.world import World

HOUR, DAY = 3_600 * SECOND, 86_400 * SECOND


async def pushed(world: World, schedule: dict[str, Any] | None, *more: dict[str, Any], **fields: Any) -> None:
    job = {"apiVersion": "igor/v1", "kind": "Job", "name": "nightly", "command": ["true"], **fields}
    if schedule is not None:
        job["schedule"] = schedule
    answer = await world.ask("PUT", "/v1/projects/demo", {"definitions": [job, *more]}, If_None_Match="*")
    assert answer.status == 200, answer.value


async def why(world: World, at: int, job: str = "nightly") -> dict[str, Any]:
    answer = await world.ask("GET", f"/v1/runs/{job}@{format_instant(at)}/why")
    assert answer.status == 200, answer.value
    return answer.value


def coming(hours: int = 48) -> int:
    """A full hour, so far ahead that no clock of a test reaches it."""
    return wall_now() // HOUR * HOUR + hours * HOUR


async def reasons(world: World, at: int) -> str:
    found = await why(world, at)
    assert found["run"] is None and found["reasons"]
    return f"{found['state']}: " + " | ".join(found["reasons"])


async def test_a_time_to_come(world: World) -> None:
    await pushed(world, {"cron": "0 * * * *"})
    assert await reasons(world, coming()) == "pending: pending: not due yet"


async def test_the_jitter_of_a_time_to_come(world: World) -> None:
    await pushed(world, {"cron": "0 * * * *", "jitter": "30m"})
    assert "with its jitter it is due at" in await reasons(world, coming())


async def test_a_time_in_a_pause_that_goes_on(world: World) -> None:
    await pushed(world, {"cron": "0 * * * *"})
    until = format_instant(coming(72))
    assert (await world.ask("POST", "/v1/jobs/nightly/pause", {"reason": "moving house", "until": until}, role=Role.OPERATOR)).status == 200
    found = await reasons(world, coming())
    assert "the job was paused by" in found and f"until {until}" in found and "moving house" in found
    assert found.startswith("pending: pending: the job was paused")
    later = await reasons(world, coming(72))
    assert f"ends {until}, before this time" in later and later.startswith("pending: pending: not due yet")


async def test_a_time_before_the_push(world: World) -> None:
    await pushed(world, {"cron": "0 * * * *"})
    found = await reasons(world, coming(-48))
    assert found.startswith("not_scheduled") and "a schedule speaks only for times after its push" in found


async def test_a_job_that_was_removed(world: World) -> None:
    await pushed(world, {"cron": "0 * * * *"})
    other = {"apiVersion": "igor/v1", "kind": "Job", "name": "other", "command": ["true"]}
    removed = await world.ask("PUT", "/v1/projects/demo", {"definitions": [other], "prune": True}, If_Match='"1"')
    assert removed.status == 200, removed.value
    assert "the job was removed at" in await reasons(world, coming())


async def test_a_job_on_demand(world: World) -> None:
    await pushed(world, None)
    assert "it runs on demand" in await reasons(world, coming())


@pytest.mark.parametrize(
    ("calendar", "said"), [({"exclude": ["off"]}, "its calendar excludes"), ({"include": ["off"]}, "its calendar does not include")]
)
async def test_a_day_of_the_calendar(world: World, calendar: dict[str, Any], said: str) -> None:
    at = coming()
    day = format_instant(at if "exclude" in calendar else at + DAY)[:10]
    off = {"apiVersion": "igor/v1", "kind": "Calendar", "name": "off", "days": [day]}
    await pushed(world, {"cron": "0 * * * *", "calendar": calendar}, off)
    assert f"{said} {format_instant(at)[:10]}" in await reasons(world, at)


async def test_an_expression_that_does_not_match(world: World) -> None:
    await pushed(world, {"cron": "0 * * * *", "timezone": "Europe/Berlin"})
    assert '"0 * * * *" does not match' in await reasons(world, coming() + 60 * SECOND)


async def test_bounds_of_the_schedule(world: World) -> None:
    at = coming()
    await pushed(world, {"cron": "0 * * * *", "starts_at": format_instant(at + HOUR), "ends_at": format_instant(at + 3 * HOUR)})
    assert "it is before the schedule's starts_at" in await reasons(world, at)
    assert "it is not before the schedule's ends_at" in await reasons(world, at + 3 * HOUR)


async def test_each_of_several_schedules_is_named(world: World) -> None:
    await pushed(world, None, schedules=[{"cron": "0 * * * *"}, {"every": "7h"}])
    found = await reasons(world, coming() + SECOND)
    assert 'schedule 1: "0 * * * *" does not match' in found and "schedule 2: it is no multiple of 7h since 1970" in found


def year_to_come() -> int:
    return int(format_instant(wall_now())[:4]) + 1


def last_sunday(year: int, month: int) -> str:
    import calendar

    day = max(week[calendar.SUNDAY] for week in calendar.monthcalendar(year, month))
    return f"{year}-{month:02}-{day:02}"


async def test_changes_of_the_clock(world: World) -> None:
    year = year_to_come()
    spring, autumn = last_sunday(year, 3), last_sunday(year, 10)
    await pushed(world, {"cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    assert "02:30 does not exist on that day" in await reasons(world, parse_instant(f"{spring}T01:00:00Z"))
    assert "it fires at the first time, and not at the second" in await reasons(world, parse_instant(f"{autumn}T00:30:00Z"))
    assert f"it fires at the first time, {autumn}T00:30:00Z" in await reasons(world, parse_instant(f"{autumn}T01:30:00Z"))
    listed = (await world.ask("GET", f"/v1/dst?year={year}")).value
    assert [(item["scheduled_time"], item["kind"]) for item in listed["items"]] == [
        (f"{spring}T01:00:00Z", "gap"),
        (f"{autumn}T00:30:00Z", "fold"),
    ]
    assert (await world.ask("GET", f"/v1/dst?year={year}&job=nightly")).value == listed
    assert (await world.ask("GET", "/v1/dst?year=99")).status == 400
