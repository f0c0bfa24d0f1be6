"""A schedule in words, and the answers of `igor schedule --batch`."""

import hashlib
import json

import pytest

from igor_node.definitions.jobs import Schedule
from igor_node.definitions.preview import answer_batch, describe, next_fires
from igor_node.words import format_instant, parse_instant, parse_span

NOW = parse_instant("2026-11-24T10:00:00Z")


@pytest.mark.parametrize(
    "cron, words",
    [
        ("0 2 * * *", "at 02:00 every day, Europe/Berlin time"),
        ("*/15 * * * *", "every 15 minutes, Europe/Berlin time"),
        ("* * * * * *", "every second, Europe/Berlin time"),
        ("5 * * * *", "minute 5 of every hour, Europe/Berlin time"),
        ("7-12 * * * *", "minutes 7 to 12 of every hour, Europe/Berlin time"),
        ("*/5 9-17 * * MON-FRI", "every 5 minutes of hours 9 to 17 on Monday to Friday, Europe/Berlin time"),
        ("0 0 1,15,L * *", "at 00:00 on day 1 and 15 of the month and the last day of the month, Europe/Berlin time"),
        ("0 0 13 * 5", "at 00:00 on day 13 of the month and on Friday, Europe/Berlin time"),
        (
            "30 6 LW,15W 6 *",
            "at 06:30 on day 15 of the month or the working day nearest to it and the last working day of the month in June, Europe/Berlin time",
        ),
        (
            "0 22 * JAN-MAR 2L,3#1",
            "at 22:00 on the first Wednesday of the month and the last Tuesday of the month in January to March, Europe/Berlin time",
        ),
        ("0 0 */2 * MON", "if it is Monday"),
        ("10 30 2 * * *", "at 02:30:10 every day, Europe/Berlin time"),
    ],
)
def test_cron_in_words(cron, words):
    """What a person would say."""
    assert words in describe(Schedule(cron=cron, timezone="Europe/Berlin"))


def test_other_schedules_in_words():
    assert describe(Schedule()) == "on demand only"
    assert describe(Schedule(every_ns=parse_span("90s"), jitter_ns=parse_span("5s"))) == "every 1m30s, up to 5s later"
    assert describe(Schedule(at=NOW)) == "once, at 2026-11-24T10:00:00Z"
    assert describe(Schedule(cron="H * * * *")) == "at times spread by the job's name (H * * * *), UTC"
    assert describe(Schedule(cron="H * * * *"), "p/j").startswith("minute ")
    bounded = Schedule(cron="0 2 * * *", exclude=("2026-12-25",), starts_at=NOW, ends_at=NOW + 1)
    assert describe(bounded).startswith("at 02:00 every day, UTC, but not on the days of its calendar, from 2026-11-24T10:00:00Z, before ")


def test_next_fires():
    assert [format_instant(at) for at in next_fires(Schedule(every_ns=parse_span("1h")), "", NOW, 2)] == [
        "2026-11-24T11:00:00Z",
        "2026-11-24T12:00:00Z",
    ]


@pytest.mark.parametrize(
    "question, answer",
    [
        ({"id": 1, "expr": "@daily", "n": 1}, {"id": 1, "fires": ["2026-11-25T00:00:00Z"]}),
        ({"id": 1, "expr": "@daily", "n": 0}, {"id": 1, "fires": []}),
        ({"id": 1, "expr": "@daily", "n": -1}, "n: -1 is not allowed"),
        ({"id": 1, "expr": "@daily", "n": True}, "n: true is not allowed"),
        ({"id": 1}, "expr: null is not allowed"),
        ({"id": 1, "expr": "@daily", "from": "yesterday"}, "is not a time"),
        ({"id": 1, "expr": "@daily", "n": 1, "why": "UTC", "expect": []}, {"id": 1, "fires": ["2026-11-25T00:00:00Z"]}),
        ({"id": 1, "expr": "@daily", "n": "1"}, 'n: "1" is not allowed'),
        ({"id": 1, "expr": "@daily", "tz": "Mars/Base"}, "is not a time zone"),
        ({"id": "\ud800", "expr": "@hourly", "n": None, "tz": "Mars/Base"}, "is not a time zone"),
        ({"id": 1, "expr": "H * * * *"}, "expected the name of a job"),
        ({"id": 1, "expr": "@daily", "from": None, "tz": None, "n": 1}, {"id": 1, "fires": ["2026-11-25T00:00:00Z"]}),
    ],
)
def test_batch(question, answer):
    """A line each; what is missing has a default, what is wrong an error."""
    (given,) = [json.loads(line) for line in answer_batch([json.dumps(question), "", "\n"], NOW)]
    if isinstance(answer, str):
        assert answer in given["error"]
    else:
        assert given == answer


def test_h_is_four_bytes_of_the_digest_of_the_job_for_each_field():
    """Written down because it may never change: jobs would move. The minute is the second field of six."""
    minute = int.from_bytes(hashlib.sha256(b"shop/report").digest()[4:8], "big") % 60
    (line,) = answer_batch([json.dumps({"id": 1, "expr": "H * * * *", "job": "shop/report", "n": 1})], NOW)
    assert json.loads(line)["fires"] == [f"2026-11-24T10:{minute:02}:00Z"]
