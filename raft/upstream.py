"""Which functions of PySyncObj 0.3.17 the engine runs as they are, which it puts its own in place of, and the hash of each one's source.

`engine.py` runs copies of the functions in `USED`: the same code over a namespace of our own, in which the clock, chance and the log are the
engine's, and `pickle` raises. So nothing of PySyncObj reads a clock, opens a file or unpickles, and no global of the package is changed.
`REPLACED` are the functions that `engine.py` overrides; their hashes are kept too, because a change there may be a fault mended, or a new one
to mend. `tests/unit/raft_core/test_upstream.py` fails when a source differs: read the difference, then `docs/consensus.md`, then record it.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from pysyncobj import syncobj

VERSION = "0.3.17"

# Source hashes: the first 16 hex digits of SHA-256 of `inspect.getsource`. `__name` stands for the mangled `_SyncObj__name`.
USED: dict[str, str] = {
    "__init__": "09df12cd7fd7d727",
    "_onTick": "cc9eb08232d005ba",
    "transferLeadership": "c3ac67963962d9aa",
    "__onMessageReceived": "ddfe34b6c0282179",
    "__onBecomeLeader": "5a3fd97bc17dc1cf",
    "__setState": "2c1f239f7bd79b39",
    "__setCurrentTerm": "0ad5bf456ac06bd3",
    "__generateRaftTimeout": "92ed37d3620e781a",
    "__getCurrentLogIndex": "e5af22ca246686bd",
    "__getCurrentLogTerm": "1cb8867e6a13d397",
    "__getPrevLogIndexTerm": "6766914806ae2311",
    "__deleteEntriesFrom": "3b23c411bb903d36",
    "__connectedToAnyone": "acd40e9e3ac6c4cc",
    "__onNodeConnected": "2655afb481b4c69b",
    "__onNodeDisconnected": "a81c0475ba2218cc",
    "__onLeaderChanged": "53b7685e1d897887",
    "__callErrCallback": "6037c14ef64c2763",
    "__onSetCodeVersion": "17b050edb193c853",
}
REPLACED: dict[str, str] = {
    "__applyLogEntries": "073db677773b5a2d",
    "__doApplyCommand": "1ea7aa506e950d0a",
    "_checkCommandsToApply": "a386a8079361d204",
    "_applyCommand": "827f207d515b2d64",
    "__sendAppendEntries": "9cb9073128c392fa",
    "__sendNextNodeIdx": "68aaeefc267b8896",
    "__getEntries": "e29c4b33293b2101",
    "__changeCluster": "66b42884f9d2dbd1",
    "__doChangeCluster": "247d4d4101b8cd3c",
    "__parseChangeClusterRequest": "b2d5d695b12e592f",
    "__updateClusterConfiguration": "e2de42f3d1a46c96",
    "__tryLogCompaction": "c2f8a0ec14cc7312",
    "__loadDumpFile": "ec66e83905de703b",
    "__deleteEntriesTo": "b7b29988856a66b3",
    "__onReadonlyNodeConnected": "88ae4a6d87507838",
    "__onReadonlyNodeDisconnected": "9dc1fe5296c63ca7",
}


def attribute(name: str) -> str:
    """The name under which Python keeps it in the class."""
    return f"_SyncObj{name}" if name.startswith("__") and not name.endswith("__") else name


def function(name: str) -> FunctionType:
    found = vars(syncobj.SyncObj)[attribute(name)]
    assert isinstance(found, FunctionType)
    return found


def source_hash(name: str) -> str:
    return hashlib.sha256(inspect.getsource(function(name)).encode()).hexdigest()[:16]


def source_lines(name: str) -> int:
    """Lines of code, without blank lines, comments and the docstring's own."""
    lines = [line.strip() for line in inspect.getsource(function(name)).splitlines()]
    documentation = function(name).__doc__  # of which Python 3.13 leaves out the indentation, also that of its last line
    return sum(1 for line in lines if line and not line.startswith("#")) - (documentation.count("\n") + 1 if documentation else 0)


def copies(monotonic: Callable[[], float], chance: random.Random, log: Any) -> dict[str, FunctionType]:
    """The functions of `USED` over a namespace of the caller's own, by their name in the class."""
    namespace = dict(vars(syncobj))
    namespace.update(
        monotonicTime=monotonic,
        random=chance,
        createJournal=lambda _file: log,
        createPoller=lambda _type: SimpleNamespace(poll=_nothing),
        globalDnsResolver=lambda: SimpleNamespace(setTimeouts=_nothing, setPreferredAddrFamily=_nothing),
        pickle=_NoPickle(),
    )
    found = {}
    for name in (*USED, "__sendAppendEntries"):
        original = function(name)
        copy = FunctionType(original.__code__, namespace, original.__name__, original.__defaults__, original.__closure__)
        copy.__kwdefaults__ = original.__kwdefaults__
        found[attribute(name)] = copy
    return found


def _nothing(*_: object) -> None:
    return None


class _NoPickle:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"PySyncObj wanted pickle.{name}: it must never run here")
