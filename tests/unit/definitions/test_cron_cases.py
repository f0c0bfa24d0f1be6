"""The cases of `cases/cron.jsonl`: facts of other schedulers' test suites, translated to Igor's rules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from igor_node.definitions.jobs import Schedule
from igor_node.definitions.preview import answer_batch, next_fires
from igor_node.words import Instant, format_instant, parse_instant

FILE = Path(__file__).parent / "cases" / "cron.jsonl"
CASES = [json.loads(line) for line in FILE.read_text().splitlines()]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case['id']}: {case['why']}") for case in CASES])
def test_case(case):
    """The fires are those of the case, or the expression is refused."""
    schedule = Schedule(cron=case["expr"], timezone=case["tz"])
    if case.get("error"):
        with pytest.raises(ValueError, match=r"expected|did you mean|matches no date"):
            next_fires(schedule, "", parse_instant(case["from"]), 1)
    else:
        fires = next_fires(schedule, "", parse_instant(case["from"]), len(case["expect"]))
        assert [format_instant(fire) for fire in fires] == case["expect"]


def test_the_file_itself_is_a_batch(tmp_path):
    """Its lines say more than is asked, and no `n`: ten fires each, of which the first are those of the case."""
    command = [sys.executable, "-m", "igor_node.cli.igor", "schedule", "--batch", str(FILE), "--json"]
    done, again = (subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60) for _ in range(2))
    assert (done.returncode, done.stdout) == (0, again.stdout), done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [case["id"] for case in CASES]
    for case, answer in zip(CASES, answers, strict=True):
        assert ("error" in answer) == bool(case.get("error"))
        if "fires" in answer:
            assert answer["fires"][: len(case["expect"])] == case["expect"]
            assert len(answer["fires"]) == 10


def test_a_batch_answers_every_line_and_twice_the_same():
    """A fault in one line does not stop the others."""
    lines = [json.dumps({key: case[key] for key in ("id", "expr", "tz", "from")} | {"n": len(case.get("expect", "1"))}) for case in CASES]
    lines.insert(3, "{broken")
    lines.insert(5, '"text"')
    answers = list(answer_batch(lines, Instant(0)))
    assert answers == list(answer_batch(lines, Instant(0)))
    decoded = [json.loads(answer) for answer in answers]
    assert [each for each in decoded if each["id"] is None and "error" in each] == [decoded[3], decoded[5]]
    by_id = {each["id"]: each for each in decoded}
    for case in CASES:
        assert ("error" in by_id[case["id"]]) == bool(case.get("error"))
        assert by_id[case["id"]].get("fires") == case.get("expect")
