"""One file of the journal: frames, the records in them, and how a torn end is told from damage. `journal.py` owns the files and calls this.

A segment is of a fixed size and filled with zeros when it is made, so that a sync writes data and no metadata: eight bytes of magic, frames, zeros.

    length u32 | CRC-32 u32 | number u24, mask u8 | CRC-32 of these twelve bytes u32 | payload: MessagePack list of records | 1 to 8 bytes of END

up to a multiple of 8, all little-endian. The first checksum covers payload, length, number, and the segment and offset that the frame stands at, so
that no copied bytes pass for a frame. The first frame of a segment says what the log looked like when it was made (term, vote, last entry, frames of
the segment before), so that older segments can be removed whole.

**What is cut and what is refused.** A frame is written only after the one before it was synced, over zeros. So the newest frame alone can be one that
a crash tore, and a torn write has a hole: what did not arrive is zero. Nobody vouched for such a frame: it is cut. Everything else that does not fit
(a good frame behind a bad one, a bad frame without a hole, a bad one in an older segment, a segment missing, entries that do not join) is `Damaged`,
with file and offset, and the node does not start. A payload with as many zeros in a row as make a hole is written with its mask XORed over each byte.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from raft.disk import File
from raft.interface import Entry, NodeId, Term

MAGIC = b"IGORJNL3"
UNFINISHED = ".new"  # ends the name of a segment that is not in place yet: a start removes it
HOLE_BYTES = 64  # disks write sectors of 512 bytes or more, so that a torn frame lacks a whole block of these, or its end

_HEAD = struct.Struct("<IIII")
_HEAD_BYTES = _HEAD.size - 4  # without their own checksum
_PLACE = struct.Struct("<IQQQ")  # length, number, segment, offset: what the checksum covers beside the payload
_NUMBER_BITS = 24
_ALIGN = 8
_END = b"\xa5" * _ALIGN  # at least one of them: a frame that was cut short does not end so


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
decode = msgspec.msgpack.Decoder(list[Record]).decode


@dataclass
class Segment:
    sequence: int
    name: str
    file: File
    size: int
    end: int = len(MAGIC)  # where the next frame goes
    frames: int = 0
    highest: int = 0  # the highest live entry in it: it can be removed when that is cut

    def count(self, frame_bytes: int) -> None:
        """A frame of that size stands at its end."""
        self.end += frame_bytes
        self.frames += 1


def name_of(sequence: int) -> str:
    return f"{sequence:016d}.log"


def sequence_of(path: str, name: str) -> int:
    digits = name.removesuffix(".log")
    if not digits.isdigit():
        raise Damaged(path, 0, "its name is not that of a segment")
    return int(digits)


# --- writing


def encode(records: Sequence[Record]) -> bytearray:
    """A frame with its payload and end; `seal` fills in the head, which depends on the place."""
    frame = bytearray(_HEAD.size)
    _ENCODER.encode_into(records, frame, _HEAD.size)
    length, mask = len(frame) - _HEAD.size, _mask_for(frame)
    if mask:
        frame[_HEAD.size :] = _masked(frame[_HEAD.size :], mask)
    _HEAD.pack_into(frame, 0, length, 0, mask << _NUMBER_BITS, 0)
    frame.extend(_END[: frame_bytes(length) - len(frame)])
    return frame


def _mask_for(frame: bytearray) -> int:
    """0 where there is no need, or (16 kB and more that somebody chose for it) no way."""
    return next((mask for mask in range(256) if bytes([mask]) * HOLE_BYTES not in frame), 0)


def _masked(payload: bytes | bytearray, mask: int) -> bytes | bytearray:
    return payload.translate(bytes(byte ^ mask for byte in range(256)))


def seal(frame: bytearray, segment: Segment) -> None:
    """For the next place in that segment."""
    length, _, masked, _ = _HEAD.unpack_from(frame)
    payload = memoryview(frame)[_HEAD.size : _HEAD.size + length]
    _HEAD.pack_into(frame, 0, length, _checksum(payload, segment, segment.end, segment.frames), masked | segment.frames, 0)
    _HEAD.pack_into(frame, 0, *_HEAD.unpack_from(frame)[:3], zlib.crc32(memoryview(frame)[:_HEAD_BYTES]))


def frame_bytes(payload_bytes: int) -> int:
    """Of a whole frame: the payload with its head, and END up to a multiple of 8."""
    size = _HEAD.size + payload_bytes + 1
    return size + -size % _ALIGN


def _checksum(payload: bytes | memoryview, segment: Segment, offset: int, number: int) -> int:
    return zlib.crc32(payload, zlib.crc32(_PLACE.pack(len(payload), number, segment.sequence, offset)))


# --- reading


def next_frame(data: bytes, segment: Segment) -> bytes | None:
    """The payload of the frame at the segment's end, if a whole one of the right number stands there."""
    return _frame_at(data, segment, segment.end, segment.frames)


def torn_bytes(path: str, data: bytes, segment: Segment, *, newest: bool) -> int:
    """How many bytes behind the last whole frame are of a torn one, to be cleared. Raises Damaged where they are anything else."""
    rest = len(data[segment.end :].rstrip(b"\0"))
    if not rest:
        return 0
    if not newest:
        raise Damaged(path, segment.end, "no valid record, in a segment that is not the newest")
    later = _find_frame(data, segment, segment.end + _ALIGN, segment.end + rest)
    if later is not None:
        raise Damaged(path, segment.end, f"no valid record, but a later one at byte {later} is whole")
    if not _has_hole(data, segment.end, segment.end + rest):
        raise Damaged(path, segment.end, "the newest record is not valid, and not one that a crash has torn: nothing of it is missing")
    return rest


def _has_hole(data: bytes, start: int, stop: int) -> bool:
    """Whether part of the frame at `start` never arrived; `stop` is behind the last byte that is not zero."""
    length = _length_at(data, start)
    stop = max(stop, start + (_HEAD.size if length is None else frame_bytes(length)))
    if not data[stop - 1]:  # its end
        return True
    edges = [start, *range(start + HOLE_BYTES - start % HOLE_BYTES, stop, HOLE_BYTES), stop]
    return any(not data[begin:end].strip(b"\0") for begin, end in pairwise(edges))


def _length_at(data: bytes, offset: int) -> int | None:
    """Of the payload, where a valid head stands whose frame fits into the segment."""
    if offset + _HEAD.size > len(data):
        return None
    length, _, _, checksum = _HEAD.unpack_from(data, offset)
    if zlib.crc32(data[offset : offset + _HEAD_BYTES]) != checksum or offset + frame_bytes(length) > len(data):
        return None
    return int(length)


def _frame_at(data: bytes, segment: Segment, offset: int, number: int) -> bytes | None:
    length = _length_at(data, offset)
    if not length:
        return None
    _, checksum, masked, _ = _HEAD.unpack_from(data, offset)
    mask, found = masked >> _NUMBER_BITS, _number_in(masked)
    start, stop = offset + _HEAD.size, offset + frame_bytes(length)
    payload, end = data[start : start + length], data[start + length : stop]
    whole = found == number and end == _END[: len(end)] and _checksum(payload, segment, offset, number) == checksum
    if not whole:
        return None
    return bytes(_masked(payload, mask)) if mask else payload


def _number_in(masked: int) -> int:
    return masked & (1 << _NUMBER_BITS) - 1


def _find_frame(data: bytes, segment: Segment, start: int, stop: int) -> int | None:
    """The first place from `start` on with a whole frame of a number higher than the one that is missing."""
    for offset in range(start, stop, _ALIGN):
        if _length_at(data, offset):
            number = _number_in(_HEAD.unpack_from(data, offset)[2])
            if number > segment.frames and _frame_at(data, segment, offset, number) is not None:
                return offset
    return None
