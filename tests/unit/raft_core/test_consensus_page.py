"""docs/consensus.md has one line for each mend, and its figures are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from raft import upstream
from raft.settings import Mends, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "consensus.md").read_text()


def test_each_mend_has_its_line():
    mends = PAGE.split("\n## The mends\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", mends, flags=re.MULTILINE)
    assert rows == list(Mends.__struct_fields__)


def test_its_counts_are_those_of_the_code():
    used, replaced = (sum(map(upstream.source_lines, names)) for names in (upstream.USED, upstream.REPLACED))
    assert f"{used} in functions that run as they are" in PAGE
    assert f"{replaced} in functions that are replaced" in PAGE


def test_its_times_are_the_defaults():
    settings = Settings()
    assert f"Heartbeat {settings.heartbeat_s * 1000:.0f} ms; elections {settings.election_min_s} to {settings.election_max_s} s" in PAGE
    assert f"repeated after {settings.retry_min_s} to {settings.retry_max_s} s" in PAGE
