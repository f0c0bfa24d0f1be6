"""The harness's own disk: what was synced survives every cut, what was not is at the mercy of chance, and nothing comes out that nobody wrote."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.powerloss import Disk, Mode
from tests.harness.preload import built

HELPERS = """
import os, sys, subprocess, threading
def sync(path):
    fd = os.open(path, os.O_RDONLY); os.fsync(fd); os.close(fd)
def put(path, data):
    with open(path, "wb") as file: file.write(data)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    built("powerloss")
    disk = Disk(tmp_path / "root", tmp_path / "record")
    (disk.root / "old").write_bytes(b"x" * 10_000)
    (disk.root / "folder").mkdir()
    disk.arm()
    return disk


def run(disk: Disk, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELPERS + program], cwd=disk.root, env={**os.environ, **disk.environment()}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def names(disk: Disk) -> set[str]:
    return {str(path.relative_to(disk.root)) for path in disk.root.rglob("*")}


BASE = {"old", "folder"}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("seed", range(3))
def test_what_was_synced_with_its_name_is_always_there(disk: Disk, mode: Mode, seed: int) -> None:
    run(disk, "put('a', b'a' * 9000); sync('a'); sync('.'); put('b', b'b'); put('folder/c', b'c'); sync('folder/c'); sync('folder')")
    disk.cut(random.Random(seed), mode)
    assert (disk.root / "a").read_bytes() == b"a" * 9000
    assert (disk.root / "folder" / "c").read_bytes() == b"c"


@pytest.mark.parametrize(
    "program, left",
    [
        pytest.param("put('a', b'1')", BASE, id="a file that nobody synced"),
        pytest.param("put('a', b'1'); sync('a')", BASE, id="a file whose name was not synced"),
        pytest.param("put('a', b'1'); sync('.')", BASE | {"a"}, id="a name without its content"),
        pytest.param("os.unlink('old')", BASE, id="a removal"),
        pytest.param("os.unlink('old'); sync('.')", {"folder"}, id="a removal that was synced"),
        pytest.param("os.rename('old', 'new')", BASE, id="a rename"),
        pytest.param("os.rename('old', 'folder/old'); sync('folder')", {"folder", "folder/old"}, id="a rename that one folder's sync covers"),
        pytest.param("put('a', b'1'); sync('a'); os.rename('a', 'old')", BASE, id="a replacement"),
        pytest.param("os.mkdir('m'); put('m/a', b'1'); sync('m/a'); sync('m')", BASE, id="a folder whose own name was not synced"),
        pytest.param("os.mkdir('m'); sync('.'); put('m/a', b'1'); sync('m/a'); sync('m')", BASE | {"m", "m/a"}, id="a folder that was"),
        pytest.param("os.mkdir('m'); sync('.'); os.rmdir('m')", BASE | {"m"}, id="a folder's removal"),
        pytest.param("os.link('old', 'other'); sync('.')", BASE | {"other"}, id="a link"),
        pytest.param("os.symlink('old', 'other')", BASE, id="a symbolic link"),
    ],
)
def test_the_worst_cut_leaves_what_was_synced_and_nothing_else(disk: Disk, program: str, left: set[str]) -> None:
    run(disk, program)
    disk.cut(random.Random(1), Mode.NOTHING)
    assert names(disk) == left
    assert not (disk.root / "old").exists() or (disk.root / "old").read_bytes() == b"x" * 10_000


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("os.pwrite(fd, b'y' * 5000, 2000)", id="pwrite"),
        pytest.param("os.lseek(fd, 2000, 0); os.write(fd, b'y' * 5000)", id="write"),
        pytest.param("os.lseek(fd, 2000, 0); os.writev(fd, [b'y' * 2500, b'y' * 2500])", id="writev"),
        pytest.param("os.pwritev(fd, [b'y' * 5000], 2000)", id="pwritev"),
        pytest.param("other = os.dup(fd); os.close(fd); os.pwrite(other, b'y' * 5000, 2000); fd = other", id="through a copied descriptor"),
        pytest.param("one = threading.Thread(target=os.pwrite, args=(fd, b'y' * 5000, 2000)); one.start(); one.join()", id="in a thread"),
        pytest.param("os.fork() or (os.pwrite(fd, b'y' * 5000, 2000), os._exit(0)); os.wait()", id="in a child"),
        pytest.param(
            "subprocess.run([sys.executable, '-c', 'import os; os.pwrite(os.open(\"old\", 1), b\"y\" * 5000, 2000)'], env={}, check=True)",
            id="in another Python with an environment of its own",
        ),
    ],
)
@pytest.mark.parametrize("synced", [False, True])
def test_every_way_to_write_is_seen(disk: Disk, way: str, synced: bool) -> None:
    run(disk, f"fd = os.open('old', os.O_RDWR)\n{way}\n" + ("os.fdatasync(fd)" if synced else ""))
    disk.cut(random.Random(1), Mode.NOTHING)
    assert ((disk.root / "old").read_bytes() == b"x" * 2000 + b"y" * 5000 + b"x" * 3000) == synced


@pytest.mark.parametrize(
    "change, size", [("os.ftruncate(fd, 100)", 100), ("os.posix_fallocate(fd, 0, 20_000)", 20_000), ("os.truncate('old', 7)", 7)]
)
@pytest.mark.parametrize("synced", [False, True])
def test_sizes_too(disk: Disk, change: str, size: int, synced: bool) -> None:
    run(disk, f"fd = os.open('old', os.O_RDWR); {change}; " + ("os.fsync(fd)" if synced else ""))
    disk.cut(random.Random(1), Mode.NOTHING)
    assert (disk.root / "old").stat().st_size == (size if synced else 10_000)


def test_a_sync_covers_only_what_was_written_before_it(disk: Disk) -> None:
    run(disk, "fd = os.open('old', os.O_RDWR); os.pwrite(fd, b'1', 0); os.fsync(fd); os.pwrite(fd, b'2', 0)")
    disk.cut(random.Random(1), Mode.NOTHING)
    assert (disk.root / "old").read_bytes()[:1] == b"1"


def test_nothing_is_lost_where_all_of_it_reached_the_disk(disk: Disk) -> None:
    run(
        disk,
        "put('a', b'1' * 5000); os.rename('a', 'b'); os.unlink('old'); os.mkdir('m'); put('m/z', bytes(100_000)); open('m/z', 'ab').write(b'end')",
    )
    loss = disk.cut(random.Random(1), Mode.EVERYTHING)
    assert names(disk) == {"b", "folder", "m", "m/z"}
    assert (disk.root / "m" / "z").read_bytes() == bytes(100_000) + b"end"
    assert (loss.writes_lost, loss.names_lost) == (0, 0) and loss.writes and loss.names


def test_a_torn_write_leaves_old_and_new_sectors(disk: Disk) -> None:
    run(disk, "fd = os.open('old', os.O_RDWR); os.pwrite(fd, b'y' * 10_000, 0)")
    loss = disk.cut(random.Random(5), Mode.TORN)
    content = (disk.root / "old").read_bytes()
    assert set(content) == set(b"xy") and loss.writes_lost == 1
    assert all(content[at : at + 512] in (b"x" * len(content[at : at + 512]), b"y" * len(content[at : at + 512])) for at in range(0, 10_000, 512))


def test_a_machine_comes_back_with_another_boot_id_and_goes_on(disk: Disk) -> None:
    run(disk, "put('first', open('/proc/sys/kernel/random/boot_id', 'rb').read()); sync('first'); sync('.')")
    disk.cut(random.Random(1), Mode.NOTHING)
    run(disk, "put('second', open('/proc/sys/kernel/random/boot_id', 'rb').read()); sync('second'); sync('.')")
    disk.cut(random.Random(1), Mode.NOTHING)
    assert names(disk) == BASE | {"first", "second"}
    assert (disk.root / "first").read_text() != (disk.root / "second").read_text()
