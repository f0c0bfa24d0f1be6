"""`wrapper/protocol.py`: what a reader makes of an event file in any state, and who holds a lock."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

import wrapper
from wrapper import protocol

EVENTS = [{"seq": 1, "kind": "held", "at": 5}, {"seq": 2, "kind": "ended", "at": 6, "state": "lost", "reason": "ärger\n"}]
DATA = b"".join(map(protocol.event_line, EVENTS))


def test_events_are_read_back() -> None:
    assert protocol.parse_events(DATA) == (EVENTS, len(DATA))


@pytest.mark.parametrize("cut", range(len(DATA)))
def test_a_file_torn_at_any_byte(cut: int) -> None:
    """Whole events before the tear, nothing of the torn one."""
    events, used = protocol.parse_events(DATA[:cut])
    first = len(protocol.event_line(EVENTS[0]))
    assert (events, used) == ((EVENTS[:1], first) if cut >= first else ([], 0))


@pytest.mark.parametrize("tail", [b"\0" * 30, b"\0\n", b"zzzzzzzz {}\n", b"00000000 {}\n", b"\n"])
def test_what_a_power_cut_leaves_is_no_event(tail: bytes) -> None:
    assert protocol.parse_events(DATA + tail) == (EVENTS, len(DATA))


def test_a_gap_is_damage() -> None:
    """No crash leaves one."""
    with pytest.raises(protocol.Damaged, match="expected event 2"):
        protocol.parse_events(protocol.event_line(EVENTS[0]) + protocol.event_line({**EVENTS[1], "seq": 3}))


def test_appending_after_a_torn_line(tmp_path: Path) -> None:
    """The torn line goes, numbers go on, a long reason is cut."""
    path = str(tmp_path / "events")
    Path(path).write_bytes(DATA[:-3])
    file = protocol.EventFile(path)
    file.append({"kind": "ended", "at": 7, "reason": "x" * 10_000}, sync=True)
    file.close()
    again = protocol.EventFile(path)
    assert [event["seq"] for event in again.events] == [1, 2]
    assert again.finished and len(again.events[-1]["reason"]) == protocol.REASON_LIMIT
    again.close()


def test_a_failed_append_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a line: the next append stands where this one would have."""
    file = protocol.EventFile(str(tmp_path / "events"))
    file.append({"kind": "held", "at": 1}, sync=False)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:9], offset))
    with pytest.raises(OSError):
        file.append({"kind": "try_started", "at": 2, "try_n": 1}, sync=True)
    monkeypatch.undo()
    file.append({"kind": "revoked", "at": 3}, sync=True)
    file.close()
    assert [event["kind"] for event in protocol.EventFile(str(tmp_path / "events")).events] == ["held", "revoked"]


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    """And asking does not take it."""
    path = str(tmp_path / "lock")
    assert protocol.lock_holder(path) == 0
    ready, told = os.pipe()
    done, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        fd = os.open(path, os.O_CREAT | os.O_RDWR)
        os.write(told, b"1" if protocol.take_lock(fd) else b"0")
        os.close(end)
        os.read(done, 1)
        os._exit(0)
    assert os.read(ready, 1) == b"1"
    assert protocol.lock_holder(path) == pid
    mine = os.open(path, os.O_RDWR)
    assert not protocol.take_lock(mine)
    os.close(end)
    os.waitpid(pid, 0)
    assert protocol.lock_holder(path) == 0 and protocol.take_lock(mine)
    for fd in (mine, ready, told, done):
        os.close(fd)


def test_wrapper_imports_the_standard_library_alone() -> None:
    """Nothing of igor_node or raft, nothing that is installed; and not `typing`, which every wrapper would carry."""
    for file in Path(wrapper.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            )
            for name in names:
                top = str(name).split(".")[0]
                assert top in sys.stdlib_module_names | {"wrapper"}, f"{file.name} imports {name}"


def test_the_preloaded_process_loads_little() -> None:
    """Each module here is in every wrapper's memory."""
    import subprocess

    program = "import sys; sys.path.insert(0, sys.argv[1]); import wrapper.zygote; print(*sys.modules)"
    call = [sys.executable, "-I", "-S", "-c", program, str(Path(wrapper.__file__).parent.parent)]
    loaded = set(subprocess.run(call, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"typing", "subprocess", "asyncio", "http.client", "ssl", "shutil", "socket", "dataclasses", "threading", "logging"}
