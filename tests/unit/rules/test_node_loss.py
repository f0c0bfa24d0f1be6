"""Node loss: silent after five seconds, lost after lease and margin, and what follows by `on_node_loss`."""

from __future__ import annotations

import pytest

from igor_node.rules.node_loss import Fail, Keep, Rerun, after_loss, fallen_silent, is_lost, lost_at, margin, unheard_in_words
from igor_node.words import SECOND


def test_silent_after_five_seconds():
    assert not fallen_silent(0, 5 * SECOND - 1)
    assert fallen_silent(0, 5 * SECOND)


def test_the_margin_pays_for_twice_the_drift_and_for_ending_the_process():
    lease = 180 * SECOND
    assert margin(lease) >= 2 * lease // 1_000 + SECOND


@pytest.mark.parametrize(
    ("renewed_s", "term_s", "from_s"),
    [pytest.param(100, 50, 100, id="from the last renewal"), pytest.param(100, 130, 130, id="or from the start of this leader's term")],
)
def test_a_lease_counts_from_the_later_of_renewal_and_term(renewed_s, term_s, from_s):
    lease = 10 * SECOND
    assert lost_at(lease, renewed_s * SECOND, term_s * SECOND) == from_s * SECOND + lease + margin(lease)


@pytest.mark.parametrize(("rule", "lost"), [("rerun", True), ("fail", True), ("wait", False)])
def test_wait_is_never_lost_by_itself(rule, lost):
    assert is_lost(rule, SECOND, 0, 0, 3_600 * SECOND) is lost


@pytest.mark.parametrize(
    ("rule", "made", "most", "answer"),
    [
        pytest.param("rerun", 1, 3, Rerun(), id="another attempt"),
        pytest.param("rerun", 3, 3, Fail("lost 3 times"), id="until max_attempts"),
        pytest.param("rerun", 1, 1, Fail("lost with its node"), id="only one attempt allowed"),
        pytest.param("fail", 1, 3, Fail("lost with its node (on_node_loss: fail)"), id="fail"),
        pytest.param("wait", 1, 3, Keep(), id="wait"),
    ],
)
def test_what_follows_a_loss(rule, made, most, answer):
    assert after_loss(rule, attempts_made=made, max_attempts=most) == answer


@pytest.mark.parametrize(
    ("unheard", "then", "words"),
    [
        (
            2 * SECOND + 1,
            Rerun(),
            "node n has not been heard from for 2s (since 2027-01-15T07:59:57Z); what runs there goes on without it and renews its lease by itself; "
            "if it does not, it is lost at 2027-01-15T08:00:10Z at the earliest, and the stage is made again on another node",
        ),
        (
            None,
            Fail("lost 3 times"),
            "node n has not been heard from since the leader changed; what runs there goes on without it and renews its lease by itself; "
            "if it does not, it is lost when its lease of 10s is out, and the stage fails: lost 3 times",
        ),
        (
            7 * SECOND,
            Keep(),
            "node n has not been heard from for 7s (since 2027-01-15T07:59:53Z); what runs there goes on without it and is waited for "
            "(on_node_loss: wait)",
        ),
    ],
)
def test_what_a_silent_node_means_in_words(unheard, then, words):
    assert unheard_in_words("n", unheard, 1_800_000_000 * SECOND, 10 * SECOND, then) == words
