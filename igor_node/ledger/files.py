"""The file that holds the ledger: which one it is, and how another takes its place without a moment in which a crash could mix the two.

SQLite keeps a write-ahead log beside its file, under the file's name. Were a restored ledger renamed over the old file, a crash could leave it
beside the old log, and SQLite would play that into it. So a restored ledger gets a name of its own: `ledger.sqlite` is the first generation,
`ledger.sqlite.1` the next, and the highest one counts. The rename to that name is the one step that decides; older files go afterwards.

A ledger in use is touched by SQLite alone: whoever opens and closes its file by other means in the same process drops SQLite's locks (POSIX gives
them up with the first descriptor that is closed). `sync_file` is for copies that nobody has open.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

Identity = tuple[int, int]  # device and number
SUMS = "-sums"  # of its pages (pages.py)
_BESIDE = ("", "-wal", "-shm", "-journal", SUMS)  # what SQLite keeps under a file's name, and what we do
ASIDE = ".old"
PART = ".part"  # a copy that is not complete; never taken for a ledger


def generation_of(path: Path, name: str) -> int | None:
    """Which generation of the ledger `path` a file of this name is."""
    if name == path.name:
        return 0
    match = re.fullmatch(re.escape(path.name) + r"\.([1-9]\d{0,8})", name)
    return int(match[1]) if match else None


def generations(path: Path) -> list[int]:
    """Those that there are, oldest first."""
    found = (generation_of(path, entry.name) for entry in os.scandir(path.parent))
    return sorted(number for number in found if number is not None)


def named(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation}") if generation else path


def current_file(path: Path) -> Path:
    """The file that counts; `path` itself where there is none yet."""
    return named(path, max(generations(path), default=0))


def identity_of(file: Path) -> Identity | None:
    """Tells a file from another one that bears its name later; None where there is none. A look at the name alone: nothing is opened."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def take_place(path: Path, fresh: Path) -> Path:
    """Makes the synced file `fresh` (in the same folder) the next generation. A crash leaves the old or the new one, whole."""
    target = named(path, max(generations(path), default=-1) + 1)
    for suffix in _BESIDE[1:]:
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    os.rename(fresh, target)
    sync_folder(path.parent)
    return target


def set_old_aside(path: Path) -> None:
    """All generations but the current one lose their names, with what SQLite kept beside them. Readers that still hold them are not disturbed, and
    see by the name that another counts now."""
    for generation in generations(path)[:-1]:
        old = named(path, generation)
        os.rename(old, old.with_name(old.name + ASIDE))
        clear(old)


def remove_old(path: Path) -> None:
    """What lost its name. Takes a file system a third of a second a gigabyte."""
    set_old_aside(path)
    for old in path.parent.glob(f"{path.name}*{ASIDE}"):
        old.unlink()


def clear(path: Path) -> None:
    """Removes a file with all that SQLite may have left beside it."""
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def forget_sums(path: Path) -> None:
    """For whoever changed the file itself, beside the ledger: the pages' sums are those of what stood there before, and are made anew."""
    path.with_name(path.name + SUMS).unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_folder = sync_file  # a folder's entries are synced like a file's content
