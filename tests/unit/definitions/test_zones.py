"""Time zones: the tables of the pinned tzdata agree with `zoneinfo` on the same files, and names are exact."""

import random
from datetime import UTC, datetime
from importlib import resources
from zoneinfo import ZoneInfo

import pytest

from igor_node.definitions.zones import UnknownZone, zone, zone_names

FAR = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())


def pinned(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def test_every_zone_shows_what_zoneinfo_shows():
    """On both sides of each change up to 2200, and at random instants up to the year 2900."""
    chance = random.Random(7)
    for name in sorted(zone_names()):
        ours, theirs = zone(name), pinned(name)
        starts, _ = ours.table(FAR)
        assert list(starts) == sorted(set(starts))
        instants = [at + side for at in starts[1:] for side in (-1, 0)] + [chance.randrange(-4 * 10**9, 30 * 10**9) for _ in range(10)]
        for at in instants:
            assert ours.offset(at) == datetime.fromtimestamp(at, theirs).utcoffset().total_seconds(), (name, at)


@pytest.mark.parametrize(
    "name, hint",
    [
        ("Europe/Berln", 'did you mean "Europe/Berlin"'),
        ("europe/berlin", 'did you mean "Europe/Berlin"'),
        ("../../UTC", "expected an IANA name"),
        ("", "expected an IANA name"),
        ("zone.tab", "expected an IANA name"),
    ],
)
def test_names_are_exact(name, hint):
    """A name that tzdata does not list is refused with a hint, whatever files there are."""
    with pytest.raises(UnknownZone, match=hint):
        zone(name)


@pytest.mark.parametrize(
    "local, instant",
    [
        pytest.param("2026-03-29T02:30", "2026-03-29T01:00Z", id="a time in a gap: the first instant after it"),
        pytest.param("2026-10-25T02:30", "2026-10-25T00:30Z", id="a time that comes twice: the first"),
        pytest.param("2026-07-01T12:00", "2026-07-01T10:00Z", id="any other time"),
        pytest.param("2077-07-01T12:00", "2077-07-01T10:00Z", id="far beyond the file's table"),
    ],
)
def test_first_instant(local, instant):
    """What `at:` without an offset means."""
    seconds = int(datetime.fromisoformat(local + "+00:00").timestamp())
    assert zone("Europe/Berlin").first_instant(seconds) == int(datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp())
