"""The journal: the log's entries, the term and the vote, on disk in one log with one fdatasync a tick.

The engine appends, truncates and votes in memory; `sync()` makes all of it durable with one write and one fdatasync, and only then may a
message that vouches for it leave the node. The tick thread alone calls it. It knows nothing of Raft but that entries are contiguous.

On disk: segments `0000000000000001.log`, …, of a fixed size, filled with zeros when they are made, so that a sync writes data and no metadata.
A segment is eight bytes of magic, then frames, then zeros. One `sync()` is one frame:

    length u32 | CRC-32 u32 | number u64 | payload: MessagePack list of records | zeros up to a multiple of 8

The checksum covers length, number, payload, and the segment and offset that the frame stands at, so that no copied bytes pass for a frame. The
first frame of a segment says what the log looked like when it was made (term, vote, last entry, frames of the segment before), so that older
segments can be removed whole.

**What is cut and what is refused.** A frame is written only after the one before it was synced. So if the last segment ends in bytes that are
no frame and no frame follows them, that was the write a crash tore: nobody vouched for it, it is cut. Everything else that does not fit (a good
frame behind a bad one, a bad frame in an older segment, a segment missing, entries that do not join) is `Damaged`, with file and offset, and
the node does not start. After a failed write or sync the journal refuses every later one: what the disk holds is not known then.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from raft.disk import Disk, File
from raft.interface import Entry, NodeId, Term

SEGMENT_BYTES = 8 * 1024 * 1024  # removed whole when all in it is cut; also what a start must read at least
BEGIN_BYTES = 4 * 1024  # room for magic and first frame (a node's id is far shorter)
ENTRY_COST_BYTES = 200  # what an entry holds in memory beside its data
MAGIC = b"IGORJNL1"

_FRAME = struct.Struct("<IIQ")
_PLACE = struct.Struct("<IQQQ")  # length, number, segment, offset: what the checksum covers beside the payload
_ALIGN = 8


class Damaged(Exception):
    """The journal cannot be trusted: `file` at `offset`. Nothing was changed; the node must not start on it."""

    def __init__(self, file: str, offset: int, what: str) -> None:
        super().__init__(
            f"{file}: damaged at byte {offset}: {what}; this node must not start on it: "
            "restore its disk, or empty its data directory and let it join again"
        )
        self.file = file
        self.offset = offset
        self.what = what


class JournalFailed(OSError):
    """A write or sync failed, now or earlier; nothing may be vouched for any more."""


class Base(msgspec.Struct, frozen=True):
    """The entry just before the first one that is kept; index 0 and term 0 at the very beginning."""

    index: int
    term: Term


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First record of a segment: the log as it was when the segment was made."""

    segment: int
    size: int
    previous_frames: int
    term: Term
    vote: NodeId | None
    last_index: int
    last_term: Term


class Append(msgspec.Struct, frozen=True, array_like=True, tag=1):
    entries: list[Entry]


class Truncate(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Entries from `index` on are gone. `previous_term` is the term before them: a base, should the segment with that entry be removed."""

    index: int
    previous_term: Term


class Vote(msgspec.Struct, frozen=True, array_like=True, tag=3):
    # Term and vote in one record of one frame: a vote that survives without its term can be cast twice (Raft §5.2).
    term: Term
    vote: NodeId | None


class Reset(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The log is empty and goes on after (index, term): a snapshot was installed."""

    index: int
    term: Term


Record = Begin | Append | Truncate | Vote | Reset
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Record])


@dataclass
class _Segment:
    sequence: int
    name: str
    file: File
    size: int
    end: int = 0  # where the next frame goes
    frames: int = 0
    highest: int = 0  # the highest live entry in it: it can be removed when that is cut


class _Log:
    """The log in memory, as the records say; the same code replays a disk and follows the calls."""

    def __init__(self) -> None:
        self.base = Base(0, 0)
        self.entries: list[Entry] = []
        self.bytes = 0
        self.term: Term = 0
        self.vote: NodeId | None = None

    @property
    def last(self) -> Base:
        return Base(self.entries[-1].index, self.entries[-1].term) if self.entries else self.base

    def append(self, entries: Sequence[Entry]) -> None:
        index, term = self.last.index, self.last.term
        for entry in entries:
            index += 1
            if entry.index != index or entry.term < term:
                raise ValueError(f"entry {entry.index} of term {entry.term} cannot follow entry {index - 1} of term {term}")
            term = entry.term
        self.entries.extend(entries)
        self.bytes += _cost(entries)

    def truncate(self, index: int, previous_term: Term) -> None:
        if index <= self.base.index:  # only in a replay whose older segments are gone: all that is left lies at or above `index`
            self.clear(Base(index - 1, previous_term))
            return
        keep = index - self.base.index - 1
        self.bytes -= _cost(self.entries[keep:])
        del self.entries[keep:]

    def clear(self, base: Base) -> None:
        self.base = base
        self.entries = []
        self.bytes = 0

    def cut(self, base: Base) -> None:
        gone = base.index - self.base.index
        self.bytes -= _cost(self.entries[:gone])
        del self.entries[:gone]
        self.base = base


class Journal:
    """See the module's story. Made by `open`; entries are kept in memory until `cut_to`."""

    def __init__(self, disk: Disk, folder: str, segment_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._log = _Log()
        self._pending: list[Record] = []
        self._synced = _stand(self._log)  # the log as the disk has it
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

    def close(self) -> None:
        """Closes the files without a sync: what was not synced was not vouched for."""
        for segment in self._segments:
            segment.file.close()
        self._segments = []
        self._failure = self._failure or "the journal is closed"

    def _write_pending(self) -> bool:
        if not self._pending:
            return False
        payload = _encode(self._pending)
        segment = self._segments[-1]
        if segment.end + len(payload) > segment.size:
            segment = self._make_segment(len(payload))
        _seal(payload, segment)
        segment.file.write(segment.end, payload)
        segment.file.sync()
        self._count_frame(segment, len(payload), self._pending)
        self._pending = []
        self._synced = _stand(self._log)
        return True

    def _count_frame(self, segment: _Segment, size: int, records: Sequence[Record]) -> None:
        segment.end += size
        segment.frames += 1
        for record in records:
            if isinstance(record, Append) and record.entries:
                segment.highest = max(segment.highest, record.entries[-1].index)
            elif isinstance(record, Truncate):
                for other in self._segments:
                    other.highest = min(other.highest, record.index - 1)
            elif isinstance(record, Reset):
                for other in self._segments:
                    other.highest = 0

    def _make_segment(self, room: int) -> _Segment:
        """A new newest segment with room for a frame of that size. In place only when it is whole: written, synced, renamed, folder synced."""
        previous = self._segments[-1] if self._segments else None
        sequence = previous.sequence + 1 if previous else 1
        size = max(self._segment_bytes, BEGIN_BYTES + room)
        frames = previous.frames if previous else 0
        head = _encode([msgspec.structs.replace(self._synced, segment=sequence, size=size, previous_frames=frames)])
        name = f"{sequence:016d}.log"
        path = f"{self._folder}/{name}"
        file = self._disk.create(path + ".new", size)
        segment = _Segment(sequence, name, file, size, end=len(MAGIC))
        _seal(head, segment)
        file.write(0, MAGIC + head)
        file.sync()
        self._disk.rename(path + ".new", path)
        self._disk.sync_folder(self._folder)
        segment.end += len(head)
        segment.frames = 1
        self._segments.append(segment)
        return segment

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
            if name.endswith(".new"):  # a segment that was never put in place
                self._disk.remove(f"{self._folder}/{name}")
        segments = [name for name in names if name.endswith(".log")]
        for position, name in enumerate(segments):
            self._replay(name, newest=position == len(segments) - 1)
        self._synced = _stand(self._log)
        if not segments:
            self._make_segment(0)
            return
        # A process that was killed between a write and its sync left both to the kernel: whole to us, and lost in the next power cut. The node
        # vouches for all it reads here, so it must be durable first.
        self._segments[-1].file.sync()
        self._disk.sync_folder(self._folder)

    def _replay(self, name: str, *, newest: bool) -> None:
        path = f"{self._folder}/{name}"
        file = self._disk.open(path)
        size = file.size()
        data = file.read(0, size)
        segment = _Segment(_sequence(path, name), name, file, size, end=len(MAGIC))
        if data[: len(MAGIC)] != MAGIC:
            raise Damaged(path, 0, "it does not begin as a journal segment of this version")
        previous = self._segments[-1] if self._segments else None
        self._segments.append(segment)
        while (payload := _frame_at(data, segment, segment.end, segment.frames)) is not None:
            records = self._apply_frame(path, segment, payload, previous)
            self._count_frame(segment, _padded(_FRAME.size + len(payload)), records)
        if segment.frames == 0:
            raise Damaged(path, len(MAGIC), "its first record is not readable")
        self._check_tail(path, data, segment, newest=newest)

    def _apply_frame(self, path: str, segment: _Segment, payload: bytes, previous: _Segment | None) -> list[Record]:
        try:
            records = _DECODER.decode(payload)
            if (segment.frames == 0) != (len(records) == 1 and isinstance(records[0], Begin)):
                raise ValueError("a segment begins with its own first record, and only there")
            for record in records:
                self._apply_record(record, segment, previous)
        except (msgspec.DecodeError, ValueError) as problem:
            raise Damaged(path, segment.end, f"the records do not join: {problem}") from problem
        return records

    def _apply_record(self, record: Record, segment: _Segment, previous: _Segment | None) -> None:
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

    def _begin(self, record: Begin, segment: _Segment, previous: _Segment | None) -> None:
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

    def _check_tail(self, path: str, data: bytes, segment: _Segment, *, newest: bool) -> None:
        rest = data[segment.end :].rstrip(b"\0")
        if not rest:
            return
        if not newest:
            raise Damaged(path, segment.end, "no valid record, in a segment that is not the newest")
        later = _find_frame(data, segment, segment.end + _ALIGN, segment.end + len(rest))
        if later is not None:
            raise Damaged(path, segment.end, f"no valid record, but a later one at byte {later} is whole")
        segment.file.write(segment.end, bytes(len(rest)))  # torn: cleared, so that no rest of it is ever met again
        segment.file.sync()


def _cost(entries: Sequence[Entry]) -> int:
    return sum(len(entry.data) for entry in entries) + ENTRY_COST_BYTES * len(entries)


def _stand(log: _Log) -> Begin:
    """What a segment made now would say of the log; its own numbers are filled in when it is made."""
    return Begin(0, 0, 0, log.term, log.vote, log.last.index, log.last.term)


def _padded(size: int) -> int:
    return size + -size % _ALIGN


def _sequence(path: str, name: str) -> int:
    digits = name.removesuffix(".log")
    if not digits.isdigit():
        raise Damaged(path, 0, "its name is not that of a segment")
    return int(digits)


def _encode(records: Sequence[Record]) -> bytearray:
    """A frame with its payload and padding; `_seal` fills in the head, which depends on the place."""
    frame = bytearray(_FRAME.size)
    _ENCODER.encode_into(records, frame, _FRAME.size)
    _FRAME.pack_into(frame, 0, len(frame) - _FRAME.size, 0, 0)
    frame.extend(bytes(_padded(len(frame)) - len(frame)))
    return frame


def _seal(frame: bytearray, segment: _Segment) -> None:
    length, _, _ = _FRAME.unpack_from(frame)
    payload = memoryview(frame)[_FRAME.size : _FRAME.size + length]
    _FRAME.pack_into(frame, 0, length, _checksum(payload, segment.frames, segment.sequence, segment.end), segment.frames)


def _checksum(payload: bytes | memoryview, number: int, sequence: int, offset: int) -> int:
    return zlib.crc32(payload, zlib.crc32(_PLACE.pack(len(payload), number, sequence, offset)))


def _frame_at(data: bytes, segment: _Segment, offset: int, number: int) -> bytes | None:
    """The payload of frame `number`, if it stands whole at that offset."""
    if offset + _FRAME.size > len(data):
        return None
    length, checksum, found = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if length == 0 or found != number or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if _checksum(payload, number, segment.sequence, offset) == checksum else None


def _find_frame(data: bytes, segment: _Segment, start: int, stop: int) -> int | None:
    """The first place from `start` on with a whole frame of a number higher than the one that is missing."""
    for offset in range(start, stop, _ALIGN):
        if data[offset : offset + 4] != b"\0\0\0\0" and offset + _FRAME.size <= len(data):
            number = _FRAME.unpack_from(data, offset)[2]
            if segment.frames < number <= len(data) and _frame_at(data, segment, offset, number) is not None:
                return offset
    return None
