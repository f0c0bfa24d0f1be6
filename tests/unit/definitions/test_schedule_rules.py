"""Schedules beyond cron fields: `every`, `at`, calendars, bounds, jitter, `H`, several schedules, and what is refused with which hint."""

import pytest

from igor_node.definitions.cron import BadExpression, parse
from igor_node.definitions.jobs import Job, Schedule, Stage
from igor_node.definitions.schedule import compile, due_time, fires, next_fire, shortest_interval_ns, zone_of_fire
from igor_node.words import SECOND, Instant, format_instant, parse_instant, parse_span

NOW = parse_instant("2026-11-24T10:00:30Z")


def after(schedule: Schedule, since: str = "2026-11-24T10:00:30Z", count: int = 3, job: str = "p/j") -> list[str]:
    found = compile(schedule, job).between(parse_instant(since), Instant(1 << 70), count)
    return [format_instant(at) for at in found]


def job(*schedules: Schedule) -> Job:
    return Job(project="p", name="j", schedules=schedules, stages=(Stage(name="main", command="true"),))


def test_every_is_aligned_to_the_epoch():
    """All nodes agree without asking each other."""
    assert after(Schedule(every_ns=parse_span("90s"))) == ["2026-11-24T10:01:30Z", "2026-11-24T10:03:00Z", "2026-11-24T10:04:30Z"]


def test_every_is_strictly_after():
    assert after(Schedule(every_ns=parse_span("30s")), count=1) == ["2026-11-24T10:01:00Z"]


def test_every_counts_elapsed_time_through_a_change_of_the_clock():
    schedule = Schedule(every_ns=parse_span("6h"), timezone="Europe/Berlin")
    assert after(schedule, "2026-10-24T20:00:00Z") == ["2026-10-25T00:00:00Z", "2026-10-25T06:00:00Z", "2026-10-25T12:00:00Z"]


def test_at_fires_once():
    schedule = Schedule(at=parse_instant("2027-01-01T00:00:00Z"))
    assert after(schedule) == ["2027-01-01T00:00:00Z"]
    assert after(schedule, "2027-01-01T00:00:00Z") == []


def test_a_calendar_excludes_dates_of_the_schedule_s_own_zone():
    """23:30 UTC on the 24th is the 25th in Berlin."""
    schedule = Schedule(cron="30 0 * * *", timezone="Europe/Berlin", exclude=("2026-12-25", "2026-12-26"))
    assert after(schedule, "2026-12-23T12:00:00Z") == ["2026-12-23T23:30:00Z", "2026-12-26T23:30:00Z", "2026-12-27T23:30:00Z"]


def test_a_calendar_includes_dates_and_ends_with_them():
    schedule = Schedule(cron="0 9 * * *", include=("2026-12-01", "2027-02-01"), exclude=("2027-02-01",))
    assert after(schedule) == ["2026-12-01T09:00:00Z"]


def test_every_skips_whole_days_of_its_calendar():
    schedule = Schedule(every_ns=SECOND, exclude=("2026-11-25", "2026-11-26"))
    assert after(schedule, "2026-11-24T23:59:58Z", 2) == ["2026-11-24T23:59:59Z", "2026-11-27T00:00:00Z"]
    assert after(Schedule(every_ns=parse_span("6h"), include=("2026-11-25",)), "2026-11-25T13:00:00Z") == ["2026-11-25T18:00:00Z"]


def test_at_on_an_excluded_day_never_fires():
    assert after(Schedule(at=parse_instant("2027-01-01T00:00:00Z"), exclude=("2027-01-01",))) == []


def test_starts_at_is_included_and_ends_at_is_not():
    schedule = Schedule(cron="0 * * * *", starts_at=parse_instant("2026-12-01T00:00:00Z"), ends_at=parse_instant("2026-12-01T02:00:00Z"))
    assert after(schedule) == ["2026-12-01T00:00:00Z", "2026-12-01T01:00:00Z"]


def test_jitter_is_the_same_every_time_and_less_than_asked():
    """Spread by job and fire; the scheduled time stays as it is."""
    schedule = Schedule(cron="0 * * * *", jitter_ns=parse_span("10m"))
    due = [due_time(schedule, name, NOW) - NOW for name in ("p/a", "p/b", "p/c")]
    assert due == [due_time(schedule, name, NOW) - NOW for name in ("p/a", "p/b", "p/c")]
    assert len(set(due)) == 3
    assert all(0 <= late < parse_span("10m") for late in due)
    assert due_time(Schedule(cron="0 * * * *"), "p/a", NOW) == NOW


def test_two_schedules_that_name_one_instant_make_one_fire():
    both = job(
        Schedule(cron="*/30 * * * *"), Schedule(cron="0 * * * *", timezone="Europe/Berlin"), Schedule(at=parse_instant("2026-11-24T10:40:00Z"))
    )
    found = fires(both, NOW, parse_instant("2026-11-24T11:30:00Z"), 10)
    assert [(format_instant(each.scheduled_at), each.schedule_index) for each in found] == [
        ("2026-11-24T10:30:00Z", 0),
        ("2026-11-24T10:40:00Z", 2),
        ("2026-11-24T11:00:00Z", 0),
        ("2026-11-24T11:30:00Z", 0),
    ]
    assert fires(both, NOW, parse_instant("2026-11-24T11:30:00Z"), 2) == found[:2]
    assert next_fire(both, NOW) == found[0]


def test_a_job_on_demand_has_no_fires():
    assert fires(job(), NOW, Instant(1 << 70), 5) == []
    assert next_fire(job(), NOW) is None


def test_the_date_of_a_run_is_that_of_the_schedule_that_named_it():
    both = job(Schedule(cron="0 9 * * *"), Schedule(cron="0 9 * * *", timezone="Asia/Tokyo"))
    assert zone_of_fire(both, parse_instant("2026-11-24T00:00:00Z")) == "Asia/Tokyo"
    assert zone_of_fire(both, parse_instant("2026-11-24T09:00:00Z")) == "UTC"
    assert zone_of_fire(both, None) == "UTC"


# --- H


def test_h_spreads_jobs_and_stays():
    """Each job has one minute of its own; 200 jobs do not pile up on a few."""
    minutes = {name: after(Schedule(cron="H * * * *"), count=1, job=name) for name in (f"p/{n}" for n in range(200))}
    assert len({tuple(each) for each in minutes.values()}) > 45
    assert minutes == {name: after(Schedule(cron="H * * * *"), count=1, job=name) for name in minutes}


@pytest.mark.parametrize(
    "text, allowed",
    [
        ("H/15 * * * *", [list(range(n, 60, 15)) for n in range(15)]),
        ("H(0-29) * * * *", [[n] for n in range(30)]),
        ("H(10-29)/10 * * * *", [[n, n + 10] for n in range(10, 20)]),
    ],
)
def test_h_forms(text, allowed):
    """A step begins within itself, a range bounds it."""
    for n in range(50):
        mask = parse(text, f"p/{n}").minutes
        assert [m for m in range(60) if mask >> m & 1] in allowed


def test_h_as_a_day_of_month_is_one_that_every_month_has():
    days = {parse("0 0 H * *", f"p/{n}").days.numbers.bit_length() - 1 for n in range(500)}
    assert days == set(range(1, 29))


def test_h_draws_each_field_anew():
    """Else all jobs of minute 7 would be jobs of hour 7."""
    pairs = {(parse("H H * * *", f"p/{n}").minutes, parse("H H * * *", f"p/{n}").hours) for n in range(200)}
    assert len(pairs) > 150


def test_a_name_with_an_h_is_no_h():
    assert parse("0 0 * MAR THU").days.weekdays == 1 << 4


# --- what is refused, and with which hint


@pytest.mark.parametrize(
    "text, hint",
    [
        ("H * * * *", "expected the name of a job"),
        ("H(30-10) * * * *", "runs backwards"),
        ("H(0-9)/20 * * * *", "longer than its range of 10"),
        ("*/90 * * * *", "every: for a longer interval"),
        ("0 */25 * * *", "every: for a longer interval"),
        ("@reboot", "on demand"),
        ("@every 5m", "every: 5m"),
        ("@dialy", 'did you mean "@daily"'),
        ("TZ=Europe/Berlin 0 2 * * *", "timezone:"),
        ("CRON_TZ=UTC 0 2 * * *", "timezone:"),
        ("0 2 * * * Europe/Berlin", "timezone:"),
        ("", "no field"),
        ("0 2 * * MONDAY", 'did you mean "MON"'),
        ("0 2 * JNU *", 'did you mean "JUN"'),
        ("0 2 L-31 * *", "L-0 to L-30"),
        ("0 2 ?/2 * *", "\\? alone"),
        ("? 2 * * *", "cannot read|\\? alone"),
        ("0 2 * * L", "not known"),
        ("0 2 * * MON#0", "#1 to #5"),
        ("0 2 32W * *", "1 to 31"),
        ("0 2 1-L * *", "not a number"),
        ("+5 * * * *", "cannot read"),
        ("-5 * * * *", "cannot read"),
        ("*-5 * * * *", "cannot read"),
        ("1-5-7 * * * *", "cannot read"),
        ("1/2/3 * * * *", "cannot read"),
        ("٣ * * * *", "cannot read"),
        ("0 0 31 4,6,9,11 *", "no date in 400 years"),
        ("0 0 L-30 2,4 *", "no date in 400 years"),
        ("1," * 600 + "1 * * * *", "at most 1000"),
    ],
)
def test_refused(text, hint):
    """Each refusal says what was expected."""
    with pytest.raises(BadExpression, match=hint):
        parse(text, None if "name of a job" in hint else "p/j")


@pytest.mark.parametrize(
    "text, same",
    [
        ("@DAILY", "0 0 * * *"),
        ("\t0  0\t* * * ", "0 0 * * *"),
        ("0 0 * * SUN", "0 0 * * 7"),
        ("0 0 * * 5-7", "0 0 * * FRI-SUN"),
        ("0 0 * * 7-2", "0 0 * * 0-2"),
        ("0 0 * * 7/2", "0 0 * * 0/2"),
        ("0 0 * * SAT-TUE/2", "0 0 * * 6,1"),
        ("0 0 28-3/2 * *", "0 0 28,30,1,3 * *"),
        ("0 0 1 10-3/2 *", "0 0 1 10,12,2 *"),
        ("22-22 0 * * *", "22 0 * * *"),
        ("0 0 L-0 * *", "0 0 L * *"),
        ("0 0 ? * ?", "0 0 * * *"),
        ("*/60 * * * *", "0 * * * *"),
    ],
)
def test_two_ways_to_write_one_thing(text, same):
    """Both match the same days and times."""
    one, other = parse(text), parse(same)
    assert (one.seconds, one.minutes, one.hours, one.months, one.day_masks) == (
        other.seconds,
        other.minutes,
        other.hours,
        other.months,
        other.day_masks,
    )


@pytest.mark.parametrize(
    "schedule, interval",
    [
        (Schedule(every_ns=parse_span("90s")), "90s"),
        (Schedule(cron="*/15 * * * *"), "15m"),
        (Schedule(cron="*/25 * * * *"), "10m"),
        (Schedule(cron="0 23,1 * * *"), "2h"),
        (Schedule(cron="0 2 * * *"), "1d"),
    ],
)
def test_shortest_interval(schedule, interval):
    """What jitter must be less than."""
    assert shortest_interval_ns(schedule, "p/j") == parse_span(interval)


def test_schedules_end_with_the_calendar():
    """No fire is later than a date can hold, and asking there is an answer, not an error."""
    assert after(Schedule(cron="0 0 * * *"), "9999-12-30T12:00:00Z") == []
    assert after(Schedule(cron="30 6 29 2 ?"), "2095-01-01T00:00:00Z", 2) == ["2096-02-29T06:30:00Z", "2104-02-29T06:30:00Z"]
