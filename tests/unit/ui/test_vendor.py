"""What is vendored is what VENDOR.toml says, and the page stays small."""

from __future__ import annotations

import gzip
import hashlib
import re
import tomllib
from pathlib import Path

import igor_node.ui

STATIC = Path(igor_node.ui.__file__).parent / "static"
BUDGET_BYTES = 150 * 1024  # gzipped, all that a first visit loads


def test_vendored_files_have_their_hashes() -> None:
    listed = tomllib.loads((STATIC / "vendor" / "VENDOR.toml").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir() if path.name != "VENDOR.toml"}
    assert found == {name: row["sha256"] for name, row in listed.items()}


def test_the_page_keeps_its_budget() -> None:
    total = sum(len(gzip.compress(path.read_bytes())) for path in STATIC.rglob("*") if path.is_file())
    assert total < BUDGET_BYTES


def test_every_icon_that_is_used_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="([a-z-]+)"', (STATIC / "vendor" / "icons.svg").read_text()))
    sources = [path.read_text() for folder in ("app", "elements") for path in (STATIC / folder).glob("*.js")]
    used = {name for text in sources for name in re.findall(r"icon\('([a-z-]+)'", text)}
    states = {icon for text in sources for icon in re.findall(r"^  \w+: \['\w+', '([a-z-]+)', '", text, re.M)}
    assert used | states and (used | states) <= sprite


def test_imports_stay_inside() -> None:
    """Relative imports of files that are there: no CDN, no bare name that a browser could not resolve."""
    for path in [*STATIC.glob("app/*.js"), *STATIC.glob("elements/*.js")]:
        for name in re.findall(r"""(?:from|import)\s+['"]([^'"]+)['"]""", path.read_text()):
            assert name.startswith("."), (path.name, name)
            assert (path.parent / name).resolve().is_file(), (path.name, name)
