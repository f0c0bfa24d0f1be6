"""What a call of `igor` costs: which modules it imports, and how much processor time it takes over bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .answering import FakeNode

HEAVY = {
    "aiohttp",
    "pydantic",
    "structlog",
    "jinja2",
    "cryptography",
    "ruamel",
    "croniter",
    "rich",
    "msgspec",
    "asyncio",
    "sqlite3",
    "raft",
    "psutil",
}
SERVER_PARTS = {"igor_node.node", "igor_node.http", "igor_node.leader", "igor_node.agent", "igor_node.ledger", "igor_node.definitions"}
COST_LIMIT_S = 0.120
CALL = """
import sys
from igor_node.cli.{program} import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.fixture
def node() -> Iterator[FakeNode]:
    made = FakeNode().on("GET", "/v1/jobs", {"items": [{"id": "demo/hello", "schedule": ["every 1m"], "paused": False}], "next": None})
    yield made
    made.stop()


def imported(program: str, arguments: list[str]) -> set[str]:
    code = CALL.format(program=program, arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.split())


@pytest.mark.parametrize("program", ["igor", "node"])
def test_help_imports_nothing_heavy(program: str) -> None:
    modules = imported(program, ["--help"])
    assert not {name.partition(".")[0] for name in modules} & HEAVY
    assert not modules & SERVER_PARTS


def test_a_call_of_the_api_imports_nothing_heavy(node: FakeNode) -> None:
    """Into a pipe a table needs no `rich` either."""
    modules = imported("igor", ["jobs", "--node", node.address])
    assert not {name.partition(".")[0] for name in modules} & HEAVY
    assert not modules & SERVER_PARTS
    assert node.paths() == ["GET /v1/jobs"]


def cpu_s(arguments: list[str]) -> float:
    """The least of five: processor time, because the wall clock of a busy machine tells nothing."""
    found = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        found.append(used.ru_utime + used.ru_stime)
    return min(found)


def test_a_call_costs_at_most_120_ms_over_bare_python(node: FakeNode) -> None:
    bare = cpu_s(["-c", "pass"])
    assert cpu_s(["-m", "igor_node.cli.igor", "--help"]) - bare < COST_LIMIT_S
    assert cpu_s(["-m", "igor_node.cli.igor", "jobs", "--node", node.address]) - bare < COST_LIMIT_S
