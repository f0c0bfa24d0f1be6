"""Reading output by offset: pages, tails, lines in parts, a log that was cut, following one that grows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from igor_node.agent.folders import Folders
from igor_node.agent.logs import Logs
from igor_node.words import NotFound, new_id, wall_now
from wrapper import protocol
from wrapper.output import Log

ATTEMPT = f"{new_id(wall_now())}.main.1"
AT = 1_700_000_000_000_000_000


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
    folders = Folders(tmp_path)
    folders.prepare()
    folders.path(ATTEMPT).mkdir()
    monkeypatch.chdir(folders.path(ATTEMPT))  # where a wrapper works
    return Logs(folders)


async def everything(logs: Logs, limit: int, offset: int = 0, try_n: int = 1):
    lines = []
    while (piece := await logs.read(ATTEMPT, try_n, offset, limit)).lines:
        assert len(piece.lines) <= max(limit, 2) and piece.next > offset
        lines += piece.lines
        offset = piece.next
    return lines


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
async def test_pages_of_any_size_make_the_whole(logs: Logs, limit: int) -> None:
    log = Log(1, 100_000_000)
    for n in range(20):
        log.write(protocol.STDERR if n % 3 else protocol.STDOUT, b"line %d\n" % n, AT + n)
    log.close(AT)
    lines = await everything(logs, limit)
    assert [line.text for line in lines] == [f"line {n}" for n in range(20)]
    assert [line.stream for line in lines[:3]] == ["stdout", "stderr", "stderr"]
    assert [line.at for line in lines] == [AT + n for n in range(20)]
    assert [(await logs.read(ATTEMPT, 1, line.offset, 1)).lines[0].text for line in lines] == [line.text for line in lines]


async def test_a_line_in_parts_is_one_line(logs: Logs) -> None:
    """Also where a character was cut in two. A line that has not ended (yet) is marked."""
    log = Log(1, 100_000_000)
    for part in (b"gr\xc3", b"\xbc\xc3\x9fe\nnext ", b"one"):
        log.write(protocol.STDOUT, part, AT)
    log.close(AT)
    lines = await everything(logs, 1000)
    assert [(line.text, line.partial) for line in lines] == [("grüße", False), ("next one", True)]


async def test_the_other_stream_comes_between(logs: Logs) -> None:
    log = Log(1, 100_000_000)
    log.write(protocol.STDOUT, b"working", AT)
    log.write(protocol.STDERR, b"warning\n", AT)
    log.write(protocol.STDOUT, b" done\n", AT)
    log.close(AT)
    assert [(line.text, line.partial) for line in await everything(logs, 1000)] == [("working", True), ("warning", False), (" done", False)]


@pytest.mark.parametrize("count, first", [(1, 4999), (10, 4990), (5000, 0), (9000, 0)])
async def test_tail(logs: Logs, count: int, first: int) -> None:
    log = Log(1, 100_000_000)
    log.write(protocol.STDOUT, b"".join(b"line %d\n" % n for n in range(5000)), AT)
    log.close(AT)
    lines = await everything(logs, 10_000, await logs.tail(ATTEMPT, 1, count))
    assert [line.text for line in lines] == [f"line {n}" for n in range(first, 5000)]


async def test_a_cut_log(logs: Logs) -> None:
    """First part, a line that says what is gone, last parts; offsets of removed places go on behind them; the tail is right."""
    log = Log(1, 64_000)
    for n in range(10_000):
        log.write(protocol.STDOUT, b"line %d\n" % n, AT + n)
    log.close(AT)
    lines = await everything(logs, 100)
    marks = [n for n, line in enumerate(lines) if line.stream == "igor"]
    assert len(marks) == 1 and "bytes of output were removed here" in lines[marks[0]].text
    before, after = lines[: marks[0]], lines[marks[0] + 1 :]
    assert [line.text for line in before] == [f"line {n}" for n in range(len(before))]
    assert [line.text for line in after] == [f"line {n}" for n in range(10_000 - len(after), 10_000)]
    assert lines[marks[0]].at == after[0].at
    tail = await everything(logs, 1000, await logs.tail(ATTEMPT, 1, 600))
    assert [line.text for line in tail] == [f"line {n}" for n in range(9_400, 10_000)]


async def test_tries_and_what_is_not_there(logs: Logs) -> None:
    for n in (2, 1):
        log = Log(n, 1000)
        log.write(protocol.STDOUT, b"x\n", AT)
        log.close(AT)
    assert await logs.tries(ATTEMPT) == [1, 2]
    assert (await logs.read(ATTEMPT, 3, 0, 10)).lines == ()
    with pytest.raises(NotFound):
        await logs.read(f"{new_id(wall_now())}.main.1", 1, 0, 10)
    with pytest.raises(NotFound):
        await logs.read("../../etc", 1, 0, 10)


async def test_follow(logs: Logs) -> None:
    """Lines come as they are written, from the beginning."""
    log = Log(1, 100_000_000)
    found: list[str] = []

    async def reader() -> None:
        async for piece in logs.follow(ATTEMPT, 1, 0, 100):
            found.extend(line.text for line in piece.lines)

    task = asyncio.create_task(reader())
    for n in range(5):
        log.write(protocol.STDOUT, b"line %d\n" % n, AT)
        async with asyncio.timeout(5):
            while len(found) <= n:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    task.cancel()
    log.close(AT)
    assert found == [f"line {n}" for n in range(5)]


async def test_a_damaged_line_is_skipped(logs: Logs) -> None:
    one, two = (protocol.log_records(protocol.STDOUT, AT, text) for text in (b"one\n", b"two\n"))
    Path("try-1.log").write_bytes(one + b"\0\0\0\n" + two)
    assert [line.text for line in await everything(logs, 10)] == ["one", "two"]


async def test_a_folder_that_moves_while_it_is_looked_at_is_found_again(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """From open/ to done/, between the finding of the folder and the look into it."""
    log = Log(1, 100_000_000)
    log.write(protocol.STDOUT, b"hello\n", AT)
    log.close(AT)
    folders = logs._folders

    def find(attempt: str) -> Path | None:
        """The first answer is true when it is given, and no more a moment later."""
        found = Folders.find(folders, attempt)
        if found == folders.path(attempt):
            folders.finish([attempt])
        return found

    for look in (lambda: logs.read(ATTEMPT, 1, 0, 10), lambda: logs.tail(ATTEMPT, 1, 1), lambda: logs.tries(ATTEMPT)):
        before = await look()
        with monkeypatch.context() as patched:
            patched.setattr(folders, "find", find)
            assert await look() == before
        assert not folders.path(ATTEMPT).exists()
        folders.reopen(ATTEMPT)


async def test_a_folder_that_goes_while_it_is_looked_at_is_not_found(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned at that moment: an answer, and no failure."""
    monkeypatch.setattr(logs._folders, "find", lambda attempt: Path("gone"))
    with pytest.raises(NotFound):
        await logs.tries(ATTEMPT)
