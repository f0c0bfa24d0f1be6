"""Where the dialects agree, Igor fires when cronsim and croniter fire: plain fields in UTC."""

from datetime import UTC, datetime

from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from igor_node.definitions.jobs import Schedule
from igor_node.definitions.schedule import compile
from igor_node.words import SECOND, Instant


@st.composite
def plain(draw, low, high):
    a, b = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    step = draw(st.integers(1, min(12, high - low)))
    return draw(st.sampled_from(["*", f"{a}", f"{a}-{b}" if a < b else f"{a}", f"{a}-{b}/{step}" if a < b else f"{a}", f"*/{step}", f"{a},{b}"]))


@settings(max_examples=150, deadline=None)
@given(
    fields=st.tuples(plain(0, 59), plain(0, 23), plain(1, 28), plain(1, 12), plain(0, 6)),
    begin=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001
)
def test_plain_fields_agree(fields, begin):
    """The next five fires of all three."""
    text = " ".join(fields)
    begin = begin.replace(microsecond=0, tzinfo=UTC)
    ours = compile(Schedule(cron=text), "").between(Instant(int(begin.timestamp()) * SECOND), Instant(1 << 70), 5)
    sim, old = CronSim(text, begin), croniter(text, begin, implement_cron_bug=True)
    assert [at // SECOND for at in ours] == [int(next(sim).timestamp()) for _ in ours], text
    assert [at // SECOND for at in ours] == [int(old.get_next(float)) for _ in ours], text
