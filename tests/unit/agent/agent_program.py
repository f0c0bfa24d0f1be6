"""An agent in a process of its own, so that a test can kill it: `python agent_program.py FOLDER ADDRESS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from igor_node.agent.agent import Agent, AgentSettings


def settings(folder: Path, *addresses: str, **changes) -> AgentSettings:
    values = {
        "node": "node-id-1", "name": "node-1", "address": "http://127.0.0.1:1", "cluster": "cluster-1", "folder": folder / "attempts",
        "term_file": folder / "term.json", "token": lambda: "node-token", "addresses": lambda: addresses, "environment": {"SITE": "berlin"},
    }  # fmt: skip
    return AgentSettings(**(values | changes))


if __name__ == "__main__":
    asyncio.run(Agent(settings(Path(sys.argv[1]), *sys.argv[2:])).serve())
