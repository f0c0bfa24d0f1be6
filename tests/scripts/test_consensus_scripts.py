"""Consensus told as scripts: each `consensus/*.txt` says what happens, and below each line what the nodes said and became.

A line that begins with `>` is a command (see `Script`), the indented lines after it are the trace. Empty heartbeats and their answers are left
out. The traces are compared to the letter; they are recorded anew, on purpose only, with `RECORD=1 pytest tests/scripts`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raft.engine import State
from raft.interface import Kind, Member, Members, NotLeader
from raft.messages import Append, AppendReply, TimeoutNow, VoteReply, VoteRequest
from tests.simulation.clients import Attempt, Reading
from tests.simulation.machine import Command, Verb
from tests.simulation.world import World

FOLDER = Path(__file__).parent / "consensus"
STEP_S = 0.01  # how finely changes of state are watched between events


class Script:
    """`cluster VOTERS [OTHERS]` · `wait SECONDS` · `propose NODE TEXT…` · `cut NODES` (from the others) · `heal` · `kill NODE` · `start NODE` ·
    `members NODE VOTERS [LEARNERS]` · `transfer NODE TO` · `read NODE` · `compact NODE` · `until NODE leads`"""

    def __init__(self) -> None:
        self.world = World(5)
        self.world.restarts = False
        self.world.kept_entries = None
        self.world.network.watch = self._watch
        self.trace: list[str] = []
        self.states: dict[str, str] = {}
        self.texts: dict[bytes, str] = {}  # what a proposal is called in the script

    def run(self, line: str) -> list[str]:
        self.trace = []
        name, *arguments = line.split()
        getattr(self, f"do_{name}")(*arguments)
        return self.trace

    # --- commands

    def do_cluster(self, voters: str, others: str = "0") -> None:
        self.world.cluster(int(voters), int(others))
        self._look()

    def do_wait(self, seconds: str) -> None:
        end = self.world.now + float(seconds)
        while self.world.now < end:
            self.world.run_until(min(end, self.world.now + STEP_S))
            self._look()

    def do_until(self, node: str, _leads: str) -> None:
        for _ in range(1000):
            self.do_wait(str(STEP_S))
            if self.world.nodes[node].engine.leads_since_applied:
                return
        raise AssertionError(f"{node} never led")

    def do_propose(self, node: str, *texts: str) -> None:
        for text in texts:
            self.world.operations += 1
            command = Command(self.world.operations, 1, Verb.FILL)
            self.texts[command.encode()] = text
            Attempt(self.world, command).ask(self.world.nodes[node])
        self.do_wait("0.05")

    def do_cut(self, names: str) -> None:
        self.world.separate(set(names))

    def do_heal(self) -> None:
        self.world.lose_held()
        self.world.heal()
        self.do_wait("0.15")

    def do_kill(self, node: str) -> None:
        self.world.nodes[node].die(power=False)
        self.states.pop(node, None)
        self.do_wait("0.05")

    def do_start(self, node: str) -> None:
        self.world.start(self.world.nodes[node])
        self.do_wait("0.2")

    def do_members(self, node: str, voters: str, learners: str = "") -> None:
        wanted = Members(tuple(Member(name, name) for name in voters), tuple(Member(name, name) for name in learners))
        try:
            self.world.nodes[node].engine.propose_members(wanted)
        except (ValueError, NotLeader) as refusal:
            self._say(f"refused: {refusal}")
        self.world.nodes[node].wake()
        self.do_wait("0.15")

    def do_transfer(self, node: str, to: str) -> None:
        self._say("begins" if self.world.nodes[node].engine.transfer(to) else "nobody can take it")
        self.world.nodes[node].wake()
        self.do_wait("0.1")

    def do_read(self, node: str) -> None:
        before = self.world.checks.reads
        Reading(self.world, 0).ask(self.world.nodes[node])
        self.do_wait("0.1")
        self._say("the read is confirmed" if self.world.checks.reads > before else "no answer")

    def do_compact(self, node: str) -> None:
        found = self.world.nodes[node]
        found.engine.compact(found.ledger.index)
        self._say(f"{node} keeps nothing up to {found.journal.base.index}")

    # --- the trace

    def _say(self, text: str) -> None:
        self.trace.append("    " + text)

    def _watch(self, source: str, target: str, message: Any) -> Any:
        text = describe(message, self.texts)
        if text is not None:
            lost = "   (cut)" if self.world.network.links[source, target].cut else ""
            self._say(f"{source} > {target}  {text}{lost}")
        return message

    def _look(self) -> None:
        for name, node in self.world.nodes.items():
            if node.up:
                engine = node.engine
                now = (
                    f"{engine.state} in term {engine.term}, commit {engine.commit_index} of {engine.last_index}, voters {ids(engine.members.voters)}"
                )
                if self.states.get(name) != now:
                    self.states[name] = now
                    self._say(f"{name}: {now}")


def ids(members: tuple[Member, ...]) -> str:
    return "".join(member.id for member in members) or "none"


def describe(message: Any, texts: dict[bytes, str]) -> str | None:
    match message:
        case Append(entries=entries) if entries:
            kinds = " ".join({Kind.NOOP: "(first)", Kind.MEMBERS: "(members)"}.get(Kind(entry.kind)) or texts[entry.data] for entry in entries)
            return f"append  after {message.prev_index} of term {message.prev_term}, commit {message.commit}: {kinds}"
        case Append(snapshot=True):
            return f"fetch a snapshot, at least {message.prev_index}"
        case AppendReply(reset=True):
            return f"go on from {message.next_index}"
        case AppendReply(success=False):
            return f"no: term {message.term}"
        case VoteRequest():
            kind = "would you vote" if message.pre else "vote, as the leader wishes," if message.transfer else "vote"
            return f"{kind} in term {message.term}? my log ends with {message.last_index} of term {message.last_term}"
        case VoteReply():
            return f"{'yes' if message.granted else 'no'}{', I would' if message.pre and message.granted else ''}, term {message.term}"
        case TimeoutNow():
            return f"take over after term {message.term}"
    return None


def replay(text: str) -> str:
    script = Script()
    lines = []
    for line in text.splitlines():
        if line.startswith(">"):
            lines += [line, *script.run(line[1:])]
        elif not line.startswith("    "):
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_a_script_runs_as_it_was_recorded(path: Path):
    told = path.read_text()
    found = replay(told)
    if os.environ.get("RECORD"):
        path.write_text(found)
    assert found == told


def test_states_are_named_as_the_engine_names_them():
    assert [str(state) for state in State] == ["follower", "candidate", "leader"]
