"""`igor verify`'s comparison: at which entry, and who is wrong there."""

from __future__ import annotations

import pytest

from igor_node.rules.agreement import DIFFERS, SAME, UNDECIDED, Told, common_entry, judge

VOTERS = frozenset("abc")


def told(**digests: dict[int, str]) -> list[Told]:
    return [Told(node, found) for node, found in digests.items()]


@pytest.mark.parametrize(
    "digests, entry",
    [
        pytest.param(told(a={1000: "x", 1050: "y"}, b={1000: "x", 1050: "y"}), 1050, id="both stand at the same entry"),
        pytest.param(told(a={1000: "x", 1050: "y"}, b={1000: "x", 1040: "z"}), 1000, id="at the last mark that all keep"),
        pytest.param(told(a={1050: "y"}, b={1040: "z"}), None, id="young and busy"),
        pytest.param([], None, id="nobody answered"),
    ],
)
def test_where_to_compare(digests, entry):
    assert common_entry(digests) == entry


@pytest.mark.parametrize(
    "digests, verdicts",
    [
        pytest.param("xxx", (SAME, SAME, SAME), id="all the same"),
        pytest.param("xyx", (SAME, DIFFERS, SAME), id="the majority is right"),
        pytest.param("xyz", (UNDECIDED, UNDECIDED, UNDECIDED), id="no majority: nobody is accused"),
        pytest.param("xy", (UNDECIDED, UNDECIDED), id="two of three, which differ"),
    ],
)
def test_who_is_wrong(digests, verdicts):
    answers = [Told(node, {7: digest}) for node, digest in zip("abc", digests, strict=False)]
    assert tuple(judge(answers, VOTERS, 7).values()) == verdicts
