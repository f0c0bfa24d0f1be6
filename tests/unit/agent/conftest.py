"""A small leader, and agents that talk to it; what they start is ended with the test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from igor_node.agent.agent import Agent
from tests.unit.agent.agent_program import settings
from tests.unit.agent.small_leader import SmallLeader, until
from tests.unit.wrapper.room import alive
from wrapper import linux

PROJECT = Path(__file__).parents[3]


class Nest:
    """One node's folder and its agents, one after the other: in this process (`start`) or in their own (`start_process`)."""

    def __init__(self, folder: Path, leader: SmallLeader) -> None:
        self.folder, self.leader = folder, leader
        self.agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, *addresses: str, **changes: Any) -> Agent:
        before = len(self.leader.hellos)
        self.agent = Agent(settings(self.folder, *(addresses or (self.leader.address,)), **changes))
        self._task = asyncio.create_task(self.agent.serve())
        await until(lambda: len(self.leader.hellos) > before or self._task.done(), "a Hello")
        return self.agent

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def start_process(self) -> None:
        before = len(self.leader.hellos)
        program = Path(__file__).with_name("agent_program.py")
        call = [sys.executable, program, self.folder, self.leader.address]
        self.process = subprocess.Popen(call, env={**os.environ, "PYTHONPATH": str(PROJECT)})  # noqa: ASYNC220
        await until(lambda: len(self.leader.hellos) > before, "a Hello")

    def kill_process(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def path(self, attempt: str) -> Path:
        return self.folder / "attempts" / "open" / attempt

    def done(self, attempt: str) -> list[Path]:
        return list((self.folder / "attempts" / "done").glob(f"*/{attempt}"))

    def inside(self) -> list[int]:
        """Every process that works in this folder, or was started by an attempt of it."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    if os.readlink(f"/proc/{name}/cwd").startswith(str(self.folder)):
                        found.append(int(name))
                except OSError:
                    continue
        for attempt in self.leader.events:
            found += linux.processes_with(f"IGOR_ATTEMPT_ID={attempt}".encode())
        return [pid for pid in found if alive(pid)]

    async def clear(self) -> None:
        for _ in range(500):
            if not (left := self.inside()):
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            await asyncio.sleep(0.01)


@pytest.fixture
async def leader() -> AsyncIterator[SmallLeader]:
    leader = SmallLeader()
    await leader.start()
    yield leader
    await leader.stop()
    assert not leader.wrong


@pytest.fixture
async def nest(tmp_path: Path, leader: SmallLeader) -> AsyncIterator[Nest]:
    nest = Nest(tmp_path, leader)
    yield nest
    await nest.stop()
    nest.kill_process()
    await nest.clear()
