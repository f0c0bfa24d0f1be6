"""What clients were promised, under load: pushes, runs on demand, pauses, reads and who leads, from threads that note what was answered and when.

    with Promises(cluster, chance) as promises:      # the threads work until the block ends
        …                                            # whatever may happen to nodes and network
    assert not promises.faults()                     # once the cluster is whole again

A push names the version that it replaces, so a project is a register with compare-and-swap whose value counts up: each version is made by one push.
What was acknowledged must be there, what was read must lie between what was surely there before and what could have been there, and what was
answered nothing or 5xx may be there or not. Idempotency keys must give the run that they first gave. Two nodes never lead one term, and a node that
leads an older term never has a lease again once another was seen to have one.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.harness.cluster import Cluster, Node

PAUSE_S = 0.05  # between two requests of a thread
TIMEOUT_S = 1.5  # of a request: what a node that is cut off would say later is not waited for
PROJECT = "promised"
RUNS, PAUSED = "on-demand", "paused-or-not"


@dataclass
class Seen:
    """A version of the project that an answer told, and the span of the request."""

    version: int
    began: float
    ended: float
    node: str


@dataclass(frozen=True)
class Led:
    """A node said that it leads a term, with a lease, at some moment of that span."""

    node: str
    term: int
    began: float
    ended: float


@dataclass
class Promises:
    cluster: Cluster
    chance: random.Random
    run_pause_s: float = PAUSE_S
    runs: dict[str, str] = field(default_factory=dict)  # key -> run
    pushed: dict[int, str] = field(default_factory=dict)  # version -> what it said
    tried: dict[str, float] = field(default_factory=dict)  # what a push said -> when it was sent
    seen: list[Seen] = field(default_factory=list)
    led: list[Led] = field(default_factory=list)
    acknowledged: int = 0
    refused: int = 0
    _made_at: dict[int, float] = field(default_factory=dict)  # version -> when its push was answered
    _pauses: list[tuple[bool, bool]] = field(default_factory=list)  # (wanted, acknowledged), in order
    _wrong: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def prepare(self) -> None:
        """The project as it is before anything happens."""
        self.cluster.api("PUT", f"/v1/projects/{PROJECT}", _body("first"), headers={"If-None-Match": "*"})
        self.pushed[1] = "first"

    def __enter__(self) -> Promises:
        self._stop.clear()
        work = (self._push, self._push, self._run, self._pause, self._read, self._watch)
        self._threads = [threading.Thread(target=self._keep_on, args=(one,), daemon=True) for one in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10 * TIMEOUT_S)
        self._wrong += [f"{thread.name} still waits for an answer" for thread in self._threads if thread.is_alive()]

    # --- the load

    def _keep_on(self, work: Any) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                work(f"{work.__name__}-{number}-{self.chance.random()}")
            except Exception as problem:
                self._wrong.append(f"{work.__name__}: {type(problem).__name__}: {problem}")
                return
            self._stop.wait(self.run_pause_s if work == self._run else PAUSE_S)

    def _ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, Node]:
        """Status 0: nothing was answered."""
        node = self.chance.choice(self.cluster.nodes)
        try:
            status, _, answer = node.request(method, path, body, headers=headers, timeout_s=TIMEOUT_S)
        except OSError:
            return 0, None, node
        self.acknowledged += 200 <= status < 300
        self.refused += status >= 500
        return status, answer, node

    def _push(self, word: str) -> None:
        began = time.monotonic()
        status, answer, node = self._ask("GET", f"/v1/projects/{PROJECT}?consistent=1")
        if status != 200:
            return
        self._note(answer["version"], began, node)
        self.tried[word] = time.monotonic()
        status, answer, _ = self._ask("PUT", f"/v1/projects/{PROJECT}", _body(word), {"If-Match": f'"{answer["version"]}"'})
        if status == 200:
            if answer["version"] in self.pushed:
                self._wrong.append(f"version {answer['version']} was given to two pushes: {self.pushed[answer['version']]} and {word}")
            self.pushed[answer["version"]] = word
            self._made_at[answer["version"]] = time.monotonic()
        elif status not in (0, 412, 429, 503):
            self._wrong.append(f"a push was answered {status}: {answer}")

    def _read(self, _: str) -> None:
        began = time.monotonic()
        status, answer, node = self._ask("GET", f"/v1/projects/{PROJECT}?consistent=1")
        if status == 200:
            self._note(answer["version"], began, node)

    def _note(self, version: int, began: float, node: Node) -> None:
        self.seen.append(Seen(version, began, time.monotonic(), node.name))

    def _watch(self, _: str) -> None:
        for node in self.cluster.nodes:
            began = time.monotonic()
            try:
                status, _headers, answer = node.request("GET", "/v1/leader", timeout_s=TIMEOUT_S)
            except OSError:
                continue
            if status == 200 and answer["here"]:
                self.led.append(Led(node.name, answer["term"], began, time.monotonic()))

    def _run(self, key: str) -> None:
        status, answer, _ = self._ask("POST", f"/v1/jobs/{PROJECT}/{RUNS}/runs", {}, {"Idempotency-Key": key})
        if status in (200, 201):
            self.runs[key] = answer["id"]
        elif status not in (0, 429, 503):
            self._wrong.append(f"a run was answered {status}: {answer}")

    def _pause(self, _: str) -> None:
        wanted = not (self._pauses and self._pauses[-1][0])
        status, answer, _node = self._ask("POST", f"/v1/jobs/{PROJECT}/{PAUSED}/{'pause' if wanted else 'resume'}", {})
        self._pauses.append((wanted, status == 200))
        if status not in (0, 200, 429, 503):
            self._wrong.append(f"a pause was answered {status}: {answer}")

    # --- what must hold

    def faults(self) -> list[str]:
        """Asks the cluster, which must be whole. Between two loads or after the last."""
        idle = [] if self.runs and self._made_at and self.seen and self.led else ["no push, run, read or leader was ever seen: nothing was promised"]
        return [*idle, *self._wrong, *self._lost_pushes(), *self._lost_runs(), *self._lost_pause(), *self._reads_that_lie(), *self._two_leaders()]

    def _lost_pushes(self) -> list[str]:
        now = self.cluster.api("GET", f"/v1/projects/{PROJECT}?consistent=1")
        history = self.cluster.api("GET", f"/v1/projects/{PROJECT}/history")["items"]
        said = {row["version"]: row["source"] for row in history}
        oldest = min(said)  # older ones are not kept
        wrong = [
            f"push {word} was acknowledged as version {version}, which says {said.get(version)}"
            for version, word in self.pushed.items()
            if version >= oldest and said.get(version) != word
        ]
        if self.pushed and now["version"] < max(self.pushed):
            wrong.append(f"the project is at version {now['version']}; {max(self.pushed)} was acknowledged")
        words = list(said.values())
        return wrong + [f"{word} was pushed twice" for word in set(words) if words.count(word) > 1]

    def _lost_runs(self) -> list[str]:
        wrong = []
        for key, run in self.runs.items():
            again = self.cluster.api("POST", f"/v1/jobs/{PROJECT}/{RUNS}/runs", {}, headers={"Idempotency-Key": key})
            if again["id"] != run:
                wrong.append(f"run {run} was acknowledged; its key now gives {again['id']}")
        return wrong

    def _lost_pause(self) -> list[str]:
        """The last one that was acknowledged holds, or one that was sent after it."""
        last = max((position for position, (_, done) in enumerate(self._pauses) if done), default=None)
        if last is None:
            return []
        paused = bool(self.cluster.api("GET", f"/v1/jobs/{PROJECT}/{PAUSED}?consistent=1")["paused"])
        possible = {wanted for wanted, _ in self._pauses[last:]}
        return [] if paused in possible else [f"paused is {paused}; after the last acknowledged answer it could be {possible}"]

    def _reads_that_lie(self) -> list[str]:
        wrong = []
        surely = sorted([(at, version) for version, at in self._made_at.items()] + [(one.ended, one.version) for one in self.seen])
        at, least = 0, 1
        for one in sorted(self.seen, key=lambda seen: seen.began):
            while at < len(surely) and surely[at][0] < one.began:
                least = max(least, surely[at][1])
                at += 1
            if one.version < least:
                wrong.append(f"a read of {one.node} gave version {one.version}, though {least} was known {one.began:.3f} before it began")
            word = self.pushed.get(one.version)
            if word is not None and self.tried.get(word, 0.0) > one.ended:
                wrong.append(f"a read of {one.node} gave version {one.version} before its push was sent")
        return wrong

    def _two_leaders(self) -> list[str]:
        wrong = []
        leaders: dict[int, str] = {}
        newest: Led | None = None  # that was told before all that comes
        for one in sorted(self.led, key=lambda led: led.began):
            if leaders.setdefault(one.term, one.node) != one.node:
                wrong.append(f"{one.node} and {leaders[one.term]} both led term {one.term}")
            if newest is not None and one.term < newest.term and newest.ended < one.began:
                wrong.append(f"{one.node} had a lease for term {one.term} after {newest.node} had one for term {newest.term}")
            if newest is None or one.term > newest.term:
                newest = one
        return wrong


def _body(word: str) -> dict[str, Any]:
    """`word` stands in the history as the source of the push."""
    common = {"apiVersion": "igor/v1", "kind": "Job", "command": "true"}
    jobs = [{**common, "name": RUNS, "lease": "10s", "overlap": "allow", "description": word}, {**common, "name": PAUSED}]
    return {"definitions": jobs, "sources": {}, "artifact": None, "prune": True, "source": word}
