"""SEMANTICS, "The wrapper", output: time stamps, stream names, any bytes, bounds; a full disk cuts the log, never the command."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.unit.wrapper.room import Room
from wrapper import protocol
from wrapper.output import Log

AT = 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    "data, lines",
    [
        pytest.param(b"a\nb\n", [(True, b"a"), (True, b"b")], id="lines"),
        pytest.param(b"a", [(False, b"a")], id="a line without its end"),
        pytest.param(b"a\nb", [(True, b"a"), (False, b"b")], id="a whole line and a begun one"),
        pytest.param(b"\n\n", [(True, b""), (True, b"")], id="empty lines"),
        pytest.param(b"50%\r60%\r", [(False, b"50%\r60%\r")], id="carriage returns stay"),
        pytest.param(bytes(range(256)), [(True, bytes(range(10))), (False, bytes(range(11, 256)))], id="every byte"),
        pytest.param(b"\x1b[31mred\x1b[0m\n", [(True, b"\x1b[31mred\x1b[0m")], id="colours"),
    ],
)
def test_records(data: bytes, lines: list[tuple[bool, bytes]]) -> None:
    """What is stored is what came."""
    stored = protocol.log_records(protocol.STDERR, AT, data)
    assert stored.endswith(b"\n")
    parsed = [protocol.parse_log_line(line) for line in stored[:-1].split(b"\n")]
    assert parsed == [(AT, "stderr", ended, text) for ended, text in lines]


@pytest.mark.parametrize("line", [b"", b"X1700000000000000000 x", b"O17000x0000000000000 x", b"O1700000000000000000"])
def test_a_damaged_line_is_none(line: bytes) -> None:
    assert protocol.parse_log_line(line) is None


def test_a_thousand_lines_in_order(room: Room) -> None:
    attempt = room.start("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")
    room.finish(attempt)
    assert room.output(attempt) == b"".join(b"line %d\n" % i for i in range(1000))
    times = [int(line[1:20]) for line in (room.folder(attempt) / "try-1.log").read_bytes().splitlines()]
    assert times == sorted(times) and abs(times[0] - time.time_ns()) < 30e9


def test_two_streams(room: Room) -> None:
    attempt = room.start("echo out; echo err >&2; printf 'no end'")
    room.finish(attempt)
    assert room.output(attempt) == b"out\nno end" and room.output(attempt, "stderr") == b"err\n"


def test_a_prompt_is_seen_before_its_line_ends(room: Room) -> None:
    attempt = room.start("printf 'sure? '; sleep 0.3; echo yes")
    room.finish(attempt)
    assert room.log(attempt) == [("stdout", False, b"sure? "), ("stdout", True, b"yes")]


def test_binary_output_is_whole(room: Room) -> None:
    attempt = room.start("head -c 3000000 /dev/urandom | tee ../copy")
    room.finish(attempt)
    assert room.output(attempt) == (room.folder(attempt) / "copy").read_bytes()


def test_a_command_that_closes_its_streams(room: Room) -> None:
    """It runs on; its exit code counts."""
    assert room.run("exec >&- 2>&-; sleep 0.3; exit 5")[-1]["exit_code"] == 5


def test_the_first_and_the_last_parts_stay(room: Room) -> None:
    """`log_limit` holds, and what was there last is there."""
    limit = 80_000
    attempt = room.start("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", log_limit_bytes=limit)
    assert room.finish(attempt)[-1]["state"] == "succeeded"
    parts = sorted(room.folder(attempt).glob("try-1.log*"))
    assert sum(part.stat().st_size for part in parts) < 1.8 * limit
    assert parts[0].read_bytes().splitlines()[0].endswith(b" line 0")
    starts = [int(part.name.rsplit(".", 1)[1]) for part in parts[1:]]
    end = b"".join(room.output(attempt, offset=start) for start in starts[-2:])  # a line may be stored in two pieces, even in two parts
    assert end.endswith(b"line 19999\n")
    assert starts[0] > parts[0].stat().st_size, "something was removed in between"
    sizes = [part.stat().st_size for part in parts[1:]]
    assert [start + size for start, size in zip(starts, sizes, strict=True)][:-1] == starts[1:], "names say where a part begins"


def test_a_full_disk_cuts_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is counted, and said as soon as there is room."""
    monkeypatch.chdir(tmp_path)
    full = False
    write = os.write

    def limited(fd: int, data: bytes) -> int:
        if full:
            write(fd, data[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", limited)
    log = Log(1, 100_000_000)
    log.write(protocol.STDOUT, b"before\n", AT)
    full = True
    log.write(protocol.STDOUT, b"lost 1\n", AT + 1)
    log.write(protocol.STDOUT, b"lost 2\n", AT + 2)
    full = False
    log.write(protocol.STDOUT, b"after\n", AT + 10**9)
    log.close(AT + 10**9)
    lines = [protocol.parse_log_line(line) for line in (tmp_path / "try-1.log").read_bytes().splitlines()]
    assert [(line[1], line[3]) for line in lines if line] == [
        ("stdout", b"before"),
        ("igor", b"14 bytes of output are missing here: No space left on device"),
        ("stdout", b"after"),
    ]


def test_a_loud_command(room: Room) -> None:
    """50 MB through a pipe: time-outs and the end still come; the log is bounded."""
    attempt = room.start("head -c 50000000 /dev/zero | tr '\\0' 'x' | fold -w 100", log_limit_bytes=1_000_000)
    began = time.monotonic()
    assert room.finish(attempt)[-1]["state"] == "succeeded"
    assert time.monotonic() - began < 15
    assert sum(part.stat().st_size for part in room.folder(attempt).glob("try-1.log*")) < 2_000_000
