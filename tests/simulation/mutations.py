"""Would the simulator notice? One-line faults, put one at a time into a copy of consensus in memory, and hunted for by histories and scenarios.

    python -m tests.simulation.mutations                          hunts for all of them, prints the table
    python -m tests.simulation.mutations --only lease_too_long    for some
    python -m tests.simulation.mutations --record                 and writes down what found each: mutations.json, and docs/consensus.md

The list is `faults.py`. No file is changed: the module with the fault is compiled from changed source, and everything that imports it is imported
anew, for the time of the hunt. A hunt lives through the seeds from 0 on, and then through the scenarios; what no seed and no scenario finds is a
promise that nobody keeps an eye on. The suite begins with what found the fault last.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import NamedTuple

from tests.simulation.faults import FAULTS, Fault

ROOT = Path(__file__).parent.parent.parent
RECORD = Path(__file__).with_name("mutations.json")
PAGE = ROOT / "docs" / "consensus.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- python -m tests.simulation.mutations --record -->\n", "<!-- end of the table -->\n"
SEEDS = 60
CPU_LIMIT_S = 30  # of one history: a fault may also make it turn in circles


class Outdated(Exception):
    """The line that a fault changes is no longer there, or is there twice."""


class Hangs(BaseException):
    """A history that does not end. Not an Exception: no code under test may catch it."""


class Found(NamedTuple):
    by: str  # "seed 17" or "scenario trim_appends"
    after: int  # histories and scenarios, this one included
    promise: str


def changed_source(fault: Fault) -> str:
    source = (ROOT / fault.file).read_text()
    count = source.count(fault.line)
    if count != 1:
        where = "is no longer there" if not count else f"is there {count} times"
        raise Outdated(f"fault {fault.name}: the line {fault.line!r} of {fault.file} {where}; put the fault where that decision is made now")
    return source.replace(fault.line, fault.instead)


class Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the one module with the fault."""

    def __init__(self, fault: Fault) -> None:
        self.name = fault.file.removesuffix(".py").replace("/", ".")
        self.path = str(ROOT / fault.file)
        self.code = compile(changed_source(fault), self.path, "exec")

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self, origin=self.path) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


@contextlib.contextmanager
def faulty(fault: Fault) -> Iterator[None]:
    """Within it `raft` and the simulator are other modules than without: import them there, by name."""
    loader = Loader(fault)
    import tests

    kept = _take_away()
    sys.meta_path.insert(0, loader)
    try:
        yield
    finally:
        sys.meta_path.remove(loader)
        _take_away()
        sys.modules.update(kept)
        tests.simulation = kept["tests.simulation"]  # type: ignore[attr-defined]


def _take_away() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "raft" or name.startswith(("raft.", "tests.simulation"))]
    return {name: sys.modules.pop(name) for name in names}


def run_one(by: str) -> str | None:
    """A history or scenario with the modules there are now: the promise that breaks."""
    kind, name = by.split()
    broken = importlib.import_module("tests.simulation.checks").Broken
    try:
        with _limited():
            if kind == "seed":
                importlib.import_module("tests.simulation.history").History(int(name)).run()
            else:
                importlib.import_module("tests.simulation.scenarios").run_scenario(name)
    except Hangs:
        return "it ends"
    except broken as problem:
        return None if problem.promise == "scenario" else str(problem.promise)  # that one: it did not come to what it is about
    except Exception as problem:
        return f"no error: {type(problem).__name__}"
    return None


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def hangs(_number: int, _frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def hunt(fault: Fault, tries: Sequence[str]) -> Found | None:
    with faulty(fault):
        for after, by in enumerate(tries, 1):
            promise = run_one(by)
            if promise is not None:
                return Found(by, after, promise)
    return None


def all_tries(seeds: int) -> list[str]:
    scenarios = importlib.import_module("tests.simulation.scenarios")
    return [f"seed {seed}" for seed in range(seeds)] + [f"scenario {name}" for name in scenarios.ALL]


def known() -> dict[str, Found]:
    return {name: Found(**found) for name, found in json.loads(RECORD.read_text()).items()}


def table(found: dict[str, Found]) -> str:
    rows = [f"| `{fault.name}` | {fault.what} | {_row(found[fault.name])} |" for fault in FAULTS if fault.name in found]
    return "\n".join(["| fault | what it does | found by | after | what breaks |", "| --- | --- | --- | --- | --- |", *rows, ""])


def _row(found: Found) -> str:
    return " | ".join((found.by, str(found.after), found.promise))


def record(found: dict[str, Found]) -> None:
    rows = {fault.name: found[fault.name]._asdict() for fault in FAULTS if fault.name in found}
    RECORD.write_text(json.dumps(rows, indent=1) + "\n")
    before, rest = PAGE.read_text().split(TABLE_BEGINS)
    PAGE.write_text(before + TABLE_BEGINS + table(found) + TABLE_ENDS + rest.split(TABLE_ENDS)[1])


def main() -> int:
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations")
    parser.add_argument("--only", nargs="+", help="names of faults")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    all_found = known() if arguments.only else {}
    missed = []
    for fault in FAULTS:
        if arguments.only and fault.name not in arguments.only:
            continue
        began = time.process_time()
        found = hunt(fault, all_tries(arguments.seeds))
        spent = f"{time.process_time() - began:.1f} s of CPU"
        if found is None:
            missed.append(fault.name)
            print(f"{fault.name}: NOT FOUND ({spent})", flush=True)
        else:
            all_found[fault.name] = found
            print(f"{fault.name}: {found.by}, after {found.after}: {found.promise} ({spent})", flush=True)
    if arguments.record:
        record(all_found)
    print(f"{len(all_found)} found, not found: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
