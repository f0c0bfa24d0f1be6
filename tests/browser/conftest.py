"""A real Chromium against a real cluster. Without Debian's chromium (or another one on PATH) these tests are skipped, and say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.harness.cluster import Cluster

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

JOBS = [
    {"name": "greet", "description": "Says hello", "command": 'for i in 1 2 3; do echo "hello $IGOR_PARAM_WHO $i"; sleep 0.3; done',
     "params": {"who": {"type": "string", "default": "World", "description": "whom to greet"}, "loud": {"type": "boolean", "default": False},
                "tone": {"type": "string", "default": "kind", "choices": ["kind", "dry"]}}},
    {"name": "ticks", "schedule": {"every": "2s"}, "command": "echo tick", "owner": "ops", "tags": ["demo"]},
    {"name": "breaks", "command": "echo about to fail; exit 3"},
    {"name": "colours", "command": "printf '\\033[31mred\\033[0m <script>alert(1)</script>\\n'"},
    {"name": "endless", "command": "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done", "grace": "1s"},
]  # fmt: skip


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as started:
        started.push("page", *JOBS)
        yield started


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def page(cluster: Cluster, browser: Browser) -> Iterator[Page]:
    """Logged in by a link that works once; fails at the end if the console showed an error or the CSP refused something."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    link = json.loads(cluster.igor("ui", "--print", "--json").stdout)["url"]
    opened.goto(link)
    opened.wait_for_selector("igor-home")
    yield opened
    context.close()
    assert not faults, faults
