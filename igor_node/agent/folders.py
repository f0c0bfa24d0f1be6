"""The folders of attempts on this machine, as the node uses them: make, find, mark, move, prune. Layout: `wrapper/protocol.py`.

Everything here blocks on the disk; `agent.py` calls it on one thread of its own. One thread matters: the lock of an attempt is a POSIX lock, which a
process loses when it closes *any* descriptor of that file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from igor_node.words import SECOND, Instant, Span, id_time
from wrapper import protocol

ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,250}")  # a path component, whatever a leader sends
PRUNE_AT_ONCE = 1_000  # folders; a later call goes on

encode_json = msgspec.json.encode


class Folders:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._open = root / protocol.OPEN
        self._done = root / protocol.DONE

    def prepare(self) -> None:
        for folder in (self.root, self._open, self._done):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        wake = self.root / protocol.WAKE
        if not wake.is_fifo():
            wake.unlink(missing_ok=True)
            os.mkfifo(wake, 0o600)

    # --- finding

    def open_attempts(self) -> list[str]:
        """Those that have not ended or not been acknowledged. A folder that a crash left without a spec before anything began is removed."""
        found = []
        for name in sorted(os.listdir(self._open)):
            folder = self._open / name
            if self._is_blank(folder):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found.append(name)
        return found

    def _is_blank(self, folder: Path) -> bool:
        events = folder / protocol.EVENTS
        return protocol.load_json(str(folder / protocol.SPEC)) is None and not (events.exists() and events.stat().st_size)

    def path(self, attempt: str) -> Path:
        """Where an open attempt is."""
        return self._open / attempt

    def find(self, attempt: str) -> Path | None:
        """Where an attempt is, open or done; None if not on this machine."""
        if not ATTEMPT.fullmatch(attempt):
            return None
        return next((path for path in (self._open / attempt, self._done_path(attempt)) if path.is_dir()), None)

    def _done_path(self, attempt: str) -> Path:
        return self._done / _day(attempt) / attempt

    # --- making

    def create(self, attempt: str, spec: dict[str, Any]) -> bool:
        """Whether this call made the folder: of two deliveries of one assignment only one does."""
        if not self._make(attempt):
            return False
        protocol.write_whole(str(self._open / attempt / protocol.SPEC), encode_json(spec))
        return True

    def create_ended(self, attempt: str, kind: str, reason: str, at: Instant) -> bool:
        """A folder of an attempt that never starts here (`revoked`, `refused`), so that an assignment that is still under way finds it taken."""
        if not self._make(attempt):
            return False
        events = protocol.EventFile(str(self._open / attempt / protocol.EVENTS))
        events.append({"kind": kind, "at": at, "reason": reason}, sync=True)
        events.close()
        return True

    def _make(self, attempt: str) -> bool:
        if self._done_path(attempt).is_dir():
            return False
        try:
            (self._open / attempt).mkdir(mode=0o700)
        except FileExistsError:
            return False
        return True

    def give_up(self, attempt: str, reason: str, at: Instant) -> None:
        """No wrapper could be had for it: end it in the wrapper's stead. Does nothing while one lives."""
        folder = self._open / attempt
        lock = os.open(folder / protocol.LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            if not protocol.take_lock(lock):
                return
            events = protocol.EventFile(str(folder / protocol.EVENTS))
            if not events.finished:
                begun = any(event["kind"] == "try_started" for event in events.events)
                end = {"kind": "ended", "state": "failed"} if begun else {"kind": "refused"}
                events.append({**end, "at": at, "reason": reason}, sync=True)
            events.close()
        finally:
            os.close(lock)

    def discard(self, attempt: str) -> None:
        """A folder that could not be filled: nothing has begun in it."""
        shutil.rmtree(self._open / attempt, ignore_errors=True)

    # --- what the node asks of a wrapper

    def ask(self, attempt: str, what: str, reason: str) -> None:
        """`what`: `revoke` or `cancel`. Written for a wrapper that starts later, and told to one that lives."""
        path = self._open / attempt / protocol.CONTROL
        control = protocol.load_json(str(path)) or {}
        protocol.write_whole(str(path), encode_json({**control, what: reason or what}))
        self._poke(attempt)

    def _poke(self, attempt: str) -> None:
        lock = str(self._open / attempt / protocol.LOCK)
        if not (pid := protocol.lock_holder(lock)):
            return
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if protocol.lock_holder(lock) == pid:  # so the descriptor is that of the wrapper, and no later process of the same number
                signal.pidfd_send_signal(process, signal.SIGUSR1)
        except ProcessLookupError:
            pass  # it has ended meanwhile, and so has the attempt, or the next wrapper reads the file
        finally:
            os.close(process)

    # --- the end

    def finish(self, attempts: Sequence[str]) -> None:
        """Ended and acknowledged: out of the way of the next start of this node."""
        for attempt in attempts:
            target = self._done_path(attempt)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                os.rename(self._open / attempt, target)
            except FileNotFoundError:
                pass  # removed by hand, or there never was one; there is nothing to keep

    def reopen(self, attempt: str) -> None:
        """The ledger asks again for what it once acknowledged: report it again."""
        os.rename(self._done_path(attempt), self._open / attempt)

    def prune(self, now: Instant, keep: Span) -> int:
        """Remove what has ended and whose run was made longer than `keep` ago. Returns how many folders went."""
        last = (datetime.fromtimestamp((now - keep) // SECOND, UTC) - timedelta(days=1)).strftime("%Y%m%d")
        removed = 0
        for day in sorted(os.listdir(self._done)):
            if day > last:
                break
            for folder in _some(self._done / day, PRUNE_AT_ONCE - removed):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
            if removed >= PRUNE_AT_ONCE:
                break
            shutil.rmtree(self._done / day, ignore_errors=True)
        return removed


def _some(folder: Path, limit: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for _, entry in zip(range(limit), entries, strict=False):
            yield Path(entry.path)


def _day(attempt: str) -> str:
    try:
        return datetime.fromtimestamp(id_time(attempt.split(".", 1)[0]) // SECOND, UTC).strftime("%Y%m%d")
    except (ValueError, OverflowError, OSError):
        return "00000000"
