"""What jobs themselves say about their starts, and how it is held against the ledger.

A witnessed command appends one line at each start and each end to a file that Igor knows nothing of, and holds kernel locks (flock) while it runs:
one for its stage, and for jobs whose runs must not overlap one for the job. A lock that is taken means that two ran at once, whatever any clock
says; the kernel gives it back when the process dies, however it dies. `Witness.faults` compares lines and ledger both ways and returns what is
wrong in words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igor_node.words import parse_instant
from tests.harness.cluster import Cluster

CLOCKS_S = 0.05  # how much earlier than due a start may seem: the node's measured error and the resolution of `date`
PAGE = 1_000


@dataclass(frozen=True)
class Line:
    """One thing a command said: `start`, `end`, or `overlap job|stage` where it found a lock taken."""

    job: str
    run: str
    scheduled: str
    attempt: int
    try_n: int
    pid: int
    what: str
    at: float

    @property
    def key(self) -> tuple[str, int, int]:
        return self.run, self.attempt, self.try_n


def command(file: Path, body: str, *, alone: bool = True, exit_code: str = "0") -> str:
    """A shell command that witnesses `body`. `alone`: no other run of its job may be going. `exit_code` may be an arithmetic expression."""
    locks = file.parent / "locks"
    say = f"say() {{ echo \"$IGOR_JOB $IGOR_RUN ${{IGOR_SCHEDULED_TIME:--}} $IGOR_ATTEMPT $IGOR_TRY $$ $1 $(date +%s%N)\" >> '{file}' 9>&- 8>&-; }}"
    take_job = f"exec 8>>'{locks}/job-{file.name}'; flock -n 8 || say overlap-job\n" if alone else "exec 8>/dev/null\n"
    return (
        f"{say}\nexec 9>>'{locks}'/stage-$IGOR_RUN-$IGOR_STAGE; flock -n 9 || say overlap-stage\n{take_job}"
        f"say start\n{body}\nsay end\nexit $(({exit_code}))"
    )


class Witness:
    """The files of one battery: `job` makes a definition whose command witnesses itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "locks").mkdir(parents=True)

    def job(self, name: str, body: str, *, exit_code: str = "0", **fields: Any) -> dict[str, Any]:
        alone = fields.get("overlap", "queue") != "allow"
        return {"name": name, "command": command(self.folder / name, body, alone=alone, exit_code=exit_code), **fields}

    def lines(self) -> list[Line]:
        found = []
        for path in sorted(self.folder.iterdir()):
            if path.is_file():
                found += [_parse(path.name, line) for line in path.read_text().splitlines()]
        return found

    def faults(self, runs: Iterable[dict[str, Any]], *, killed_wrappers: bool = False) -> list[str]:
        """What lines and ledger disagree about, and what must never be. `runs` are all runs of these jobs, ended."""
        wrong = []
        spoken: dict[tuple[str, int, int], list[Line]] = defaultdict(list)
        for line in self.lines():
            spoken[line.key].append(line)
            if line.what.startswith("overlap"):
                wrong.append(f"two at once ({line.what}): {line}")
        recorded = {}
        fires: dict[tuple[str, str], str] = {}
        for run in runs:
            if run["trigger"] == "schedule" and fires.setdefault((run["job"], run["scheduled_time"]), run["id"]) != run["id"]:
                wrong.append(f"two runs of one fire: {run['job']} {run['scheduled_time']}")
            for attempt, one in _tries(run):
                recorded[run["id"], attempt["n"], one["n"]] = (run, attempt, one)
        for key, lines in spoken.items():
            starts = [line for line in lines if line.what == "start"]
            if len(starts) != 1:
                wrong.append(f"started {len(starts)} times: {key}")
            if key not in recorded:
                wrong.append(f"ran, but the ledger knows no such try: {key} {lines[0].job} {lines[0].scheduled}")
            elif starts and starts[0].scheduled != "-" and starts[0].at < parse_instant(starts[0].scheduled) / 1e9 - CLOCKS_S:
                wrong.append(f"started {parse_instant(starts[0].scheduled) / 1e9 - starts[0].at:.3f} s too early: {starts[0]}")
        for key, (run, _, one) in recorded.items():
            wrong += _try_faults(key, run, one, {line.what for line in spoken.get(key, [])})
        return wrong


def _parse(job: str, text: str) -> Line:
    _, run, scheduled, attempt, try_n, pid, what, at = text.split()
    return Line(job, run, scheduled, int(attempt), int(try_n), int(pid), what, int(at) / 1e9)


def _tries(run: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for stage in run["stages"]:
        for attempt in stage["attempts"]:
            for one in attempt["tries"]:
                yield attempt, one


def _try_faults(key: tuple[str, int, int], run: dict[str, Any], one: dict[str, Any], said: set[str]) -> list[str]:
    """A try that ended by itself was witnessed from start to end; one that was lost or stopped may have said less, never more."""
    if one["exit_code"] is not None and not {"start", "end"} <= said:
        return [f"the ledger has exit code {one['exit_code']} of a try that said {sorted(said)}: {key} {run['job']} {run['scheduled_time']}"]
    if "end" in said and one["exit_code"] is None and one["state"] not in ("lost", "cancelled", "timed_out"):
        return [f"a try that ended by itself has no exit code: {key} {one}"]
    return []


def all_runs(cluster: Cluster, job: str | None = None) -> list[dict[str, Any]]:
    """Every run the ledger holds, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = cluster.api("GET", f"/v1/runs?limit={PAGE}" + (f"&job={job}" if job else "") + (f"&cursor={cursor}" if cursor else ""))
        found += page["items"]
        if not page["next"]:
            return found
        cursor = page["next"]
