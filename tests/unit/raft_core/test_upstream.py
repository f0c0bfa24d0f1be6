"""PySyncObj is the version that was read: every function relied on or replaced has the source that was recorded, and none of it unpickles."""

from __future__ import annotations

import inspect
import pickle
import random
import re
from pathlib import Path

import pysyncobj.pickle
import pytest
from pysyncobj import syncobj
from pysyncobj.version import VERSION

from raft import engine, upstream
from tests.simulation.history import History

ADVICE = "PySyncObj's source changed: read the difference against docs/consensus.md, then record the new hash in raft/upstream.py"


def test_the_version_is_the_one_that_was_read():
    assert VERSION == upstream.VERSION, ADVICE


@pytest.mark.parametrize("name", [*upstream.USED, *upstream.REPLACED])
def test_the_source_is_the_one_that_was_read(name: str):
    assert upstream.source_hash(name) == {**upstream.USED, **upstream.REPLACED}[name], f"{name}: {ADVICE}"


def test_a_change_of_one_line_is_noticed(monkeypatch: pytest.MonkeyPatch):
    changed = inspect.getsource(upstream.function("__setState")).replace("oldState != newState", "True")
    monkeypatch.setattr(inspect, "getsource", lambda _: changed)
    assert upstream.source_hash("__setState") != upstream.USED["__setState"]


def test_what_used_functions_call_is_used_or_replaced():
    """Nothing of PySyncObj runs that is not in one of the two lists."""
    known = {upstream.attribute(name) for name in (*upstream.USED, *upstream.REPLACED)}
    methods = {name for name, value in vars(syncobj.SyncObj).items() if inspect.isfunction(value)}
    only_from_the_outside = {"_getStatus", "_addNodeToCluster", "_removeNodeFromCluster", "_setCodeVersion", "_transferLeadership", "_autoTickThread"}
    for name in upstream.USED:
        called = set(upstream.function(name).__code__.co_names) & methods
        assert called - known - only_from_the_outside == {"_isLeader"} & called, name


def test_only_the_engine_names_private_attributes():
    for path in Path(engine.__file__).parent.glob("*.py"):
        code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
        if path.name not in ("engine.py", "upstream.py"):
            assert "_SyncObj__" not in code, path.name


def test_no_global_of_the_package_is_changed():
    before = dict(vars(syncobj))
    upstream.copies(lambda: 0.0, random.Random(), None)
    assert vars(syncobj) == before


def test_nothing_is_ever_unpickled(monkeypatch: pytest.MonkeyPatch):
    """A whole history (elections, snapshots, changes of members, restarts) with every way to unpickle shut; `test_raft_replicas.py` does
    the same to real processes."""

    def shut(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, shut)
    for name in ("load", "loads"):
        monkeypatch.setattr(pysyncobj.pickle, name, shut, raising=False)
    history = History(6)
    history.run()
    counts = history.world.counts
    assert len(history.world.checks.leaders) > 3 and history.wanted_voters >= 3
    assert min(counts[kind] for kind in ("snapshots installed", "lists proposed", "starts", "logs cut back")) >= 3, counts
