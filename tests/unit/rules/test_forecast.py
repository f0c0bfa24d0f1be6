"""What will probably become of coming fires: each policy, pools, several at once; and nothing where nothing is known."""

from __future__ import annotations

import pytest

from igor_node.rules.forecast import Expected, forecast
from igor_node.rules.upcoming import Upcoming
from igor_node.words import SECOND

NOW = 1_800_000_000 * SECOND
MINUTE = 60 * SECOND


def fires(*minutes: float, job: str = "p/j", paused: bool = False) -> list[Upcoming]:
    return [Upcoming(job, NOW + int(each * MINUTE), NOW + int(each * MINUTE), paused) for each in minutes]


def said(job: Expected, *minutes: float) -> list[str]:
    return forecast(fires(*minutes), {"p/j": job}, {}, NOW)


def test_nothing_is_said_where_nothing_is_in_the_way_or_nothing_is_known():
    assert said(Expected("queue", lasts=MINUTE), 1, 2, 3) == ["", "", ""]
    assert said(Expected("queue", lasts=None, going=(NOW,)), 1) == [""]
    assert forecast(fires(1, paused=True), {"p/j": Expected("skip", lasts=9 * MINUTE, going=(NOW,))}, {}, NOW) == [""]
    assert forecast(fires(1), {}, {}, NOW) == [""]


def test_queued_ones_wait_longer_and_longer():
    assert said(Expected("queue", lasts=3 * MINUTE), 0, 2, 4) == [
        "",
        "will probably wait 1m for the run of 2027-01-15T08:00:00Z, which takes about 3m",
        "will probably wait 2m for the run of 2027-01-15T08:02:00Z, which takes about 3m",
    ]


@pytest.mark.parametrize(
    ("overlap", "second", "third"),
    [
        ("skip", "will probably be skipped: the run of 2027-01-15T08:00:00Z", "will probably be skipped: the run of 2027-01-15T08:00:00Z"),
        ("queue_one", "will probably wait 4m", "will probably be skipped: a run waits already"),
        ("cancel", "will probably end the run of 2027-01-15T08:00:00Z", "will probably end the run of 2027-01-15T08:01:00Z"),
    ],
)
def test_each_policy_in_its_words(overlap, second, third):
    first, *others = said(Expected(overlap, lasts=5 * MINUTE), 0, 1, 2)
    assert first == "" and others[0].startswith(second) and others[1].startswith(third)


def test_allow_waits_for_the_first_of_as_many_as_may_go_on():
    found = said(Expected("allow", max_parallel=2, lasts=5 * MINUTE), 0, 1, 2, 9)
    assert found[:2] == ["", ""] and found[2].startswith("will probably wait 3m for the run of 2027-01-15T08:00:00Z") and found[3] == ""


def test_what_goes_on_now_counts_and_one_that_takes_longer_than_usual_ends_any_moment():
    assert said(Expected("queue", lasts=5 * MINUTE, going=(NOW - 3 * MINUTE,)), 1)[0].startswith("will probably wait 1m")
    assert said(Expected("queue", lasts=5 * MINUTE, going=(NOW - 30 * MINUTE,)), 1) == [""]


def test_a_pool_is_shared_by_all_its_jobs():
    job = Expected("queue", pools=("p/db",), lasts=10 * MINUTE)
    mixed = sorted([*fires(1, job="p/a"), *fires(2, job="p/b"), *fires(3, job="p/c")], key=lambda fire: fire.scheduled_at)
    jobs = dict.fromkeys(("p/a", "p/b", "p/c"), job)
    assert forecast(mixed, jobs, {"p/db": 2}, NOW) == ["", "", "will probably wait 8m for pool p/db"]
    assert forecast(mixed, jobs, {"p/db": 1}, NOW)[2] == "will probably wait 18m for pool p/db"
    assert forecast(mixed, jobs, {}, NOW) == ["", "", ""]
