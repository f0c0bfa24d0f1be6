"""Events on their way: order, bounds, acknowledgement, and sending again."""

from __future__ import annotations

from igor_node.agent.reports import IN_FLIGHT_LIMIT, Reports
from igor_node.stream import EVENTS_PER_REPORT, AttemptEvent


def event(attempt: str, seq: int) -> AttemptEvent:
    return AttemptEvent(attempt=attempt, seq=seq, kind="held", at=seq)


def names(events) -> list[str]:
    return [f"{event.attempt}{event.seq}" for event in events]


def test_order_is_kept_and_acknowledged_ones_go() -> None:
    reports = Reports()
    reports.add([event("a", 1), event("b", 1), event("a", 2)])
    assert names(reports.take()) == ["a1", "b1", "a2"]
    reports.acknowledge({"a": 1})
    assert reports.unacknowledged == 2
    reports.send_again()
    assert sorted(names(reports.take())) == ["a2", "b1"]
    reports.acknowledge({"a": 2, "b": 1, "unknown": 9})
    reports.send_again()
    assert reports.take() == () and reports.unacknowledged == 0


def test_what_was_sent_goes_before_what_was_not() -> None:
    """Else the ledger would see a gap."""
    reports = Reports()
    reports.add([event("a", 1), event("a", 2)])
    reports.take()
    reports.add([event("a", 3)])
    reports.send_again()
    assert names(reports.take()) == ["a1", "a2", "a3"]


def test_an_acknowledgement_of_the_stream_before() -> None:
    """It came when everything was waiting again: what it names is not sent a second time."""
    reports = Reports()
    reports.add([event("a", 1), event("a", 2)])
    reports.take()
    reports.send_again()
    reports.acknowledge({"a": 1})
    assert names(reports.take()) == ["a2"]


def test_reports_and_what_is_in_flight_are_bounded() -> None:
    reports = Reports()
    reports.add(event("a", seq) for seq in range(1, IN_FLIGHT_LIMIT + 10))
    sizes = []
    while events := reports.take():
        sizes.append(len(events))
    assert sizes == [EVENTS_PER_REPORT] * (IN_FLIGHT_LIMIT // EVENTS_PER_REPORT)
    reports.acknowledge({"a": 5})
    assert names(reports.take()) == [f"a{IN_FLIGHT_LIMIT + n}" for n in range(1, 6)]
