"""Disks in memory for the journal: they lose or tear what was not synced, and cut the power between any two calls."""

from __future__ import annotations

import random

SECTOR = 512


class PowerCut(BaseException):
    """The node stops here; nothing after it runs. Not an Exception: no code under test may catch it."""


def put(target: bytearray, offset: int, data: bytes) -> None:
    if offset > len(target):
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


class SimFile:
    def __init__(self, disk: SimDisk, size: int) -> None:
        self.disk = disk
        self.now = bytearray(size)
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = [(0, bytes(size))]

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.now[offset : offset + size])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        written = bytes(data)
        if self.disk.steps_left is not None:
            self.disk.step()
        self.now[offset : offset + len(written)] = written
        self.unsynced.append((offset, written))

    def size(self) -> int:
        return len(self.now)

    def sync(self) -> None:
        if self.disk.steps_left is not None:
            self.disk.step()
        for offset, data in self.unsynced:
            put(self.durable, offset, data)
        self.unsynced.clear()

    def close(self) -> None:
        pass

    def lose(self, chance: random.Random) -> None:
        """Of what was not synced any subset of sectors survives a power cut."""
        for offset, data in self.unsynced:
            for start in range(0, len(data), SECTOR):
                if chance.random() < 0.5:
                    put(self.durable, offset + start, data[start : start + SECTOR])
        self.unsynced.clear()
        self.now = bytearray(self.durable)


class SimDisk:
    """One folder is enough. `steps_left`: at that many calls from now on the power is cut."""

    def __init__(self) -> None:
        self.files: dict[str, SimFile] = {}
        self.durable_files: dict[str, SimFile] = {}
        self.steps_left: int | None = None

    def step(self) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.steps_left = None
                raise PowerCut

    def make_folder(self, folder: str) -> None:
        self.step()

    def list(self, folder: str) -> list[str]:
        return sorted(path.removeprefix(folder + "/") for path in self.files)

    def open(self, path: str) -> SimFile:
        return self.files[path]

    def create(self, path: str, size: int) -> SimFile:
        self.step()
        assert path not in self.files
        file = self.files[path] = SimFile(self, size)
        return file

    def rename(self, old: str, new: str) -> None:
        self.step()
        self.files[new] = self.files.pop(old)

    def remove(self, path: str) -> None:
        self.step()
        del self.files[path]

    def sync_folder(self, folder: str) -> None:
        self.step()
        self.durable_files = dict(self.files)

    def cut_power(self, chance: random.Random) -> None:
        """What a restart finds: of changes to the folder since its last sync each one happened or not, of files what `lose` leaves."""
        found: dict[str, SimFile] = {}
        for path in sorted(self.files.keys() | self.durable_files.keys()):
            old, new = self.durable_files.get(path), self.files.get(path)
            kept = new if old is new or chance.random() < 0.5 else old
            if kept is not None and kept not in found.values():
                found[path] = kept
        for _, file in sorted(self.files.items()):
            if file not in found.values() and file in self.durable_files.values():  # a rename that is not durable leaves the old name
                found[next(name for name, held in self.durable_files.items() if held is file)] = file
        for file in found.values():
            file.lose(chance)
        self.files = found
        self.durable_files = dict(found)
        self.steps_left = None
