"""The journal: the log's entries, the term and the vote, on disk in one log with one fdatasync a tick.

The engine appends, truncates and votes in memory; `sync()` makes all of it durable with one write and one fdatasync, and only then may a
message that vouches for it leave the node. The tick thread alone calls it. It knows nothing of Raft but that entries are contiguous.

On disk: segments `0000000000000001.log`, …, in the format of `segment.py`; one `sync()` is one frame. A segment is in place only when it is whole:
filled with zeros, its first frames written, synced, then renamed. The next one is made ahead of need (`make_spare`, in a thread of the driver), so
that filling it stops no tick; where it is missing or does not fit the tick makes one itself.

A start reads all segments, cuts a torn end, and refuses everything else that does not fit (`Damaged`, with file and offset). After a failed write or
sync the journal refuses every later one: what the disk holds is not known then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import msgspec

from raft import segment as frames
from raft.disk import Disk, File
from raft.interface import Entry, NodeId, Term
from raft.log import Base, Log
from raft.segment import UNFINISHED, Append, Begin, Damaged, Record, Reset, Segment, Truncate, Vote
from raft.spare import Spare

SEGMENT_BYTES = 8 * 1024 * 1024  # removed whole when all in it is cut; also what a start must read at least
BEGIN_BYTES = 4 * 1024  # room for magic and first frame (a node's id is far shorter)
SPARE_AT = 0.25  # of the newest segment: when it is so full the next one is made


class JournalFailed(OSError):
    """A write or sync failed, now or earlier; nothing may be vouched for any more."""


class Journal:
    """See the module's story. Made by `open`; entries are kept in memory until `cut_to`."""

    def __init__(self, disk: Disk, folder: str, segment_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._log = Log()
        self._pending: list[Record] = []
        self._synced = _stand(self._log)  # the log as the disk has it
        self._spare = Spare(disk, folder, segment_bytes)
        self._failure: str | None = None

    @classmethod
    def open(cls, disk: Disk, folder: str, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Replays the folder, which is made if it is missing. Cuts a torn tail; raises Damaged, or OSError where the disk says no."""
        disk.make_folder(folder)
        journal = cls(disk, folder, segment_bytes)
        try:
            journal._load()
        except BaseException:
            journal.close()
            raise
        return journal

    # --- what it holds

    @property
    def base(self) -> Base:
        return self._log.base

    @property
    def first_index(self) -> int:
        return self._log.base.index + 1

    @property
    def last_index(self) -> int:
        return self._log.base.index + len(self._log.entries)

    @property
    def last_term(self) -> Term:
        return self._log.last.term

    @property
    def term(self) -> Term:
        return self._log.term

    @property
    def vote(self) -> NodeId | None:
        return self._log.vote

    @property
    def uncut_bytes(self) -> int:
        """What the kept entries hold in memory, about; whoever cuts keeps this bounded."""
        return self._log.bytes

    @property
    def dirty(self) -> bool:
        return bool(self._pending)

    @property
    def failure(self) -> str | None:
        return self._failure

    def term_at(self, index: int) -> Term | None:
        """None where the journal does not hold it: cut, or not there yet."""
        position = index - self._log.base.index - 1
        if position == -1:
            return self._log.base.term
        return self._log.entries[position].term if 0 <= position < len(self._log.entries) else None

    def entry(self, index: int) -> Entry:
        position = index - self._log.base.index - 1
        if not 0 <= position < len(self._log.entries):
            raise IndexError(f"entry {index} is not in the journal, which holds {self.first_index} to {self.last_index}")
        return self._log.entries[position]

    def entries(self, start: int, stop: int, limit_bytes: int | None = None) -> list[Entry]:
        """Entries from `start` up to but not including `stop`; with a limit, the first of them and as many more as fit."""
        first = start - self._log.base.index - 1
        if first < 0:
            raise IndexError(f"entry {start} is cut; the journal begins with {self.first_index}")
        found = self._log.entries[first : max(first, stop - self._log.base.index - 1)]
        if limit_bytes is None:
            return found
        for position, entry in enumerate(found):
            limit_bytes -= len(entry.data)
            if limit_bytes < 0 and position:
                return found[:position]
        return found

    # --- changes, in memory until `sync`

    def append(self, entries: Sequence[Entry]) -> None:
        """They must follow the last entry without a gap."""
        if entries:
            self._log.append(entries)
            self._pending.append(Append(list(entries)))

    def truncate_from(self, index: int) -> None:
        """Entries from `index` on are gone. Nothing at or below the base can go."""
        previous_term = self.term_at(index - 1)
        if previous_term is None:
            raise IndexError(f"cannot truncate from {index}: the journal holds {self.first_index} to {self.last_index}")
        if index <= self.last_index:
            self._log.truncate(index, previous_term)
            self._pending.append(Truncate(index, previous_term))

    def set_vote(self, term: Term, vote: NodeId | None) -> None:
        if term < self._log.term:
            raise ValueError(f"term {term} is older than term {self._log.term}")
        if (term, vote) != (self._log.term, self._log.vote):
            self._log.term, self._log.vote = term, vote
            self._pending.append(Vote(term, vote))

    def reset(self, index: int, term: Term) -> None:
        """Empty, to go on after (index, term): a snapshot stands there. Term and vote stay."""
        self._log.clear(Base(index, term))
        self._pending.append(Reset(index, term))

    def cut_to(self, index: int) -> None:
        """Entries up to `index` are no longer needed; segments that hold nothing else go with the next sync.

        On disk a cut is only the removal of whole segments, so a reopened journal may begin earlier than this one.
        """
        term = self.term_at(index)
        if term is None:
            raise IndexError(f"cannot cut to {index}: the journal holds {self.first_index} to {self.last_index}")
        self._log.cut(Base(index, term))

    # --- to disk

    def sync(self) -> bool:
        """Makes every change durable: one write, one fdatasync. False if there was nothing to write.

        Raises JournalFailed at the first error and at every call after it: a disk that failed a sync has forgotten what it lost.
        """
        if self._failure is not None:
            raise JournalFailed(self._failure)
        try:
            wrote = self._write_pending()
            self._remove_segments()
        except OSError as problem:
            self._failure = f"the journal in {self._folder} could not be written: {problem.strerror or problem}"
            raise JournalFailed(self._failure) from problem
        return wrote

    @property
    def wants_spare(self) -> bool:
        """The next segment should be made now: have `make_spare` called, in whatever thread."""
        newest = self._segments[-1] if self._segments else None
        return newest is not None and newest.end > newest.size * SPARE_AT and self._spare.is_wanted

    def make_spare(self) -> None:
        """Makes the file of the next segment, synced, under a name that no start takes for a segment. Never raises: the tick can do without."""
        self._spare.make()

    def close(self) -> None:
        """Closes the files without a sync: what was not synced was not vouched for."""
        for segment in self._segments:
            segment.file.close()
        self._segments = []
        self._spare.close()
        self._failure = self._failure or "the journal is closed"

    def _write_pending(self) -> bool:
        if not self._pending:
            return False
        frame = frames.encode(self._pending)
        segment = self._segments[-1]
        if segment.end + len(frame) <= segment.size:
            frames.seal(frame, segment)
            segment.file.write(segment.end, frame)
            segment.file.sync()
        else:
            segment = self._make_segment(frame)
        segment.count(len(frame))
        self._note_highest(segment, self._pending)
        self._pending = []
        self._synced = _stand(self._log)
        return True

    def _note_highest(self, segment: Segment, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, Append) and record.entries:
                segment.highest = max(segment.highest, record.entries[-1].index)
            elif isinstance(record, Truncate):
                for other in self._segments:
                    other.highest = min(other.highest, record.index - 1)
            elif isinstance(record, Reset):
                for other in self._segments:
                    other.highest = 0

    def _make_segment(self, frame: bytearray) -> Segment:
        """A new newest segment, with that frame, if any, behind its own first one. In place only when it is whole: synced, renamed, folder synced."""
        previous = self._segments[-1] if self._segments else None
        sequence = previous.sequence + 1 if previous else 1
        size = max(self._segment_bytes, BEGIN_BYTES + len(frame))
        path, file = self._new_file(sequence, size)
        segment = Segment(sequence, frames.name_of(sequence), file, size)
        begin = msgspec.structs.replace(self._synced, segment=sequence, size=size, previous_frames=previous.frames if previous else 0)
        head = frames.encode([begin])
        frames.seal(head, segment)
        segment.count(len(head))
        if frame:
            frames.seal(frame, segment)
        file.write(0, frames.MAGIC + head + frame)
        file.sync()
        self._disk.rename(path, f"{self._folder}/{segment.name}")
        self._disk.sync_folder(self._folder)
        self._segments.append(segment)
        return segment

    def _new_file(self, sequence: int, size: int) -> tuple[str, File]:
        """The spare if there is one of that size, else a file made here and now."""
        spare = self._spare.take() if size == self._segment_bytes else None
        if spare is not None:
            return self._spare.path, spare
        path = f"{self._folder}/{frames.name_of(sequence)}{UNFINISHED}"
        return path, self._disk.create(path, size)

    def _remove_segments(self) -> None:
        """Oldest first, never the newest. Term and vote are never lost with them: each segment begins with both."""
        while len(self._segments) > 1 and self._segments[0].highest <= self._log.base.index:
            segment = self._segments.pop(0)
            segment.file.close()
            self._disk.remove(f"{self._folder}/{segment.name}")
            self._disk.sync_folder(self._folder)  # each before the next: after a crash there must be no gap

    # --- from disk

    def _load(self) -> None:
        names = self._disk.list(self._folder)
        for name in names:
            if name.endswith(UNFINISHED):  # a segment that was never put in place
                self._disk.remove(f"{self._folder}/{name}")
        segments = [name for name in names if name.endswith(".log")]
        for position, name in enumerate(segments):
            self._replay(name, newest=position == len(segments) - 1)
        self._synced = _stand(self._log)
        if not segments:
            self._make_segment(bytearray())
            return
        # A process that was killed between a write and its sync left both to the kernel: whole to us, and lost in the next power cut. The node
        # vouches for all it reads here, so it must be durable first.
        self._segments[-1].file.sync()
        self._disk.sync_folder(self._folder)

    def _replay(self, name: str, *, newest: bool) -> None:
        path = f"{self._folder}/{name}"
        sequence = frames.sequence_of(path, name)
        file = self._disk.open(path)
        size = file.size()
        segment = Segment(sequence, name, file, size)
        previous = self._segments[-1] if self._segments else None
        self._segments.append(segment)  # so that it is closed, whatever is found in it
        data = file.read(0, size)
        if not data.startswith(frames.MAGIC):
            raise Damaged(path, 0, "it does not begin as a journal segment of this version")
        while (payload := frames.next_frame(data, segment)) is not None:
            records = self._apply_frame(path, segment, payload, previous)
            segment.count(frames.frame_bytes(len(payload)))
            self._note_highest(segment, records)
        if segment.frames == 0:
            raise Damaged(path, segment.end, "its first record is not readable")
        torn = frames.torn_bytes(path, data, segment, newest=newest)
        if torn:
            file.write(segment.end, bytes(torn))  # cleared, so that no rest of it is ever met again
            file.sync()

    def _apply_frame(self, path: str, segment: Segment, payload: bytes, previous: Segment | None) -> list[Record]:
        try:
            records = frames.decode(payload)
            if (segment.frames == 0) != (len(records) == 1 and isinstance(records[0], Begin)):
                raise ValueError("a segment begins with its own first record, and only there")
            for record in records:
                self._apply_record(record, segment, previous)
        except (msgspec.DecodeError, ValueError) as problem:
            raise Damaged(path, segment.end, f"the records do not join: {problem}") from problem
        return records

    def _apply_record(self, record: Record, segment: Segment, previous: Segment | None) -> None:
        log = self._log
        match record:
            case Append(entries):
                log.append(entries)
            case Vote(term, vote):
                log.term, log.vote = term, vote
            case Truncate(index, previous_term):
                log.truncate(index, previous_term)
            case Reset(index, term):
                log.clear(Base(index, term))
            case Begin():
                self._begin(record, segment, previous)

    def _begin(self, record: Begin, segment: Segment, previous: Segment | None) -> None:
        if (record.segment, record.size) != (segment.sequence, segment.size):
            raise ValueError(f"it says that it is segment {record.segment} of {record.size} bytes, and the file has {segment.size}")
        log = self._log
        if previous is None:
            log.clear(Base(record.last_index, record.last_term))
            log.term, log.vote = record.term, record.vote
            return
        if previous.sequence != segment.sequence - 1:
            raise ValueError(f"segment {segment.sequence - 1} is missing")
        if previous.frames != record.previous_frames or _stand(log) != msgspec.structs.replace(record, segment=0, size=0, previous_frames=0):
            raise ValueError(f"segment {previous.sequence} has lost its end")


def _stand(log: Log) -> Begin:
    """What a segment made now would say of the log; its own numbers are filled in when it is made."""
    return Begin(0, 0, 0, log.term, log.vote, log.last.index, log.last.term)
