"""Whatever reads bytes of somebody else, as functions that a fuzzer calls: each returns, or raises what it says it raises; anything else is a fault.

`python -m tests.harness.decoders NAME SECONDS FOLDER` fuzzes one with atheris, which follows the branches that an input takes, for so long; it
keeps what it finds in the folder and ends with 0, or with the traceback and 77.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from igor_node import stream
from igor_node.definitions import cron, documents
from igor_node.definitions.faults import Faults
from igor_node.definitions.load import check_objects
from igor_node.http import auth, sessions
from igor_node.ledger.apply import KNOWN
from igor_node.ledger.commands import CreateToken, Envelope, KeyMade, encode_envelope
from igor_node.trust import certificates
from igor_node.trust.keys import parse_ring
from igor_node.words import Instant, Invalid, Unauthenticated
from raft import wire
from raft.connections import _MESSAGES
from raft.disk import RealDisk
from raft.interface import Entry, Halted
from raft.journal import Journal
from raft.segment import Damaged


@dataclass(frozen=True)
class Decoder:
    call: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    seeds: Sequence[bytes]  # good inputs, from which bad ones are made


def frames(data: bytes) -> None:
    """Cut into pieces as a network may."""
    read = wire.Frames(wire.FRAME_LIMIT_BYTES)
    for start in range(0, len(data), 7):
        read.feed(data[start : start + 7])
        for body in read:
            _MESSAGES.decode(body)


def hello(data: bytes) -> None:
    own = wire.Credentials("c", "a", "127.0.0.1:1", b"k" * 32)
    read = wire.Frames()
    read.feed(data)
    answering, dialling = wire.Answering(own), wire.Dialling(own, "b", wire.Purpose.MESSAGES)
    for body in read:
        for side in (answering, dialling):
            try:
                side.receive(body)
            except wire.WireError:
                continue


def journal(data: bytes) -> None:
    """As the newest file of a data directory."""
    folder = tempfile.mkdtemp(prefix="igor-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    try:
        Path(folder, JOURNAL_FILE).write_bytes(data)
        opened = Journal.open(RealDisk(), folder)
        try:
            opened.entries(opened.first_index, opened.last_index + 1)
        finally:
            opened.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def definitions(data: bytes) -> None:
    faults = Faults()
    found = documents.read_file("jobs.yaml", data, faults)
    if not len(faults):
        check_objects("demo", [one.value for one in found], Instant(0))


def expression(data: bytes) -> None:
    cron.parse(data.decode("utf-8", "replace"), "demo/job")


def token(data: bytes) -> None:
    text = data.decode("latin-1")
    auth.parse_token(text)


def session(data: bytes) -> None:
    sessions.read_session(b"k" * 32, data.decode("latin-1"), 0)


def ring(data: bytes) -> None:
    parse_ring(data.decode("latin-1"))


def certificate(data: bytes) -> None:
    certificates.facts(data.decode("latin-1"))


def _journal_seed() -> tuple[str, bytes]:
    folder = tempfile.mkdtemp(prefix="igor-fuzz-")
    try:
        made = Journal.open(RealDisk(), folder, segment_bytes=4096)
        made.set_vote(3, "a")
        made.append([Entry(1, 3, 0, b"one"), Entry(2, 3, 0, b"two" * 20)])
        made.sync()
        made.truncate_from(2)
        made.sync()
        made.close()
        newest = max(Path(folder).glob("*.log"))
        return newest.name, newest.read_bytes()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


JOURNAL_FILE, JOURNAL_SEED = _journal_seed()
JOB = b"apiVersion: igor/v1\nkind: Job\nname: a\ncommand: 'true'\nschedule: {cron: '*/5 * * * *', zone: Europe/Berlin}\nretries: {max: 3}\n"


def _envelopes() -> list[bytes]:
    made = [KeyMade(generation=1, mark=b"12345678"), CreateToken(token="t", hash="h", role="viewer", projects=("a",))]
    return [encode_envelope(Envelope(id="x", at=1, actor="a", command=command)) for command in made]


CREDENTIALS = wire.Credentials("c", "b", "127.0.0.1:2", b"k" * 32)
DECODERS = {
    "frames": Decoder(frames, (wire.WireError, *wire.UNREADABLE), [wire.frame(["timeout_now", 3, 1]), wire.frame([1, 2, 3])]),
    "hello": Decoder(hello, (wire.WireError,), [wire.Dialling(CREDENTIALS, "a", wire.Purpose.MESSAGES).hello, wire.frame(wire.Refused("no"))]),
    "stream": Decoder(stream.decode_to_leader, (msgspec.DecodeError,), [stream.encode(stream.Heartbeat(1, ("a",))), stream.encode(stream.Goodbye())]),
    "orders": Decoder(stream.decode_to_node, (msgspec.DecodeError,), [stream.encode(stream.Renew(1)), stream.encode(stream.Revoke(1, ("a",), "x"))]),
    "journal": Decoder(journal, (Damaged, Halted), [JOURNAL_SEED]),
    "commands": Decoder(KNOWN.decode, wire.UNREADABLE, _envelopes()),
    "definitions": Decoder(definitions, (Invalid,), [JOB, JOB + b"---\n" + JOB.replace(b"a\n", b"b\n", 1), b"a: &x [*x]\n"]),
    "cron": Decoder(expression, (cron.BadExpression,), [b"*/5 9-17 * * MON#2", b"H H(0-5) L * ?", b"@daily", b"0 0 12 1W JAN,DEC *"]),
    "token": Decoder(token, (Unauthenticated,), [b"igor1.none.t-admin.secret"]),
    "session": Decoder(session, (sessions.NotOurs, Unauthenticated), [sessions.make_session(b"k" * 32, "t", 0).encode()]),
    "ring": Decoder(ring, (ValueError,), [b"1 " + b"ab" * 32 + b"\n"]),
    "certificate": Decoder(certificate, (certificates.BadRequest,), [certificates.found_authority("c", 0).certificates.encode()]),
}


def check(name: str, data: bytes) -> None:
    """Raises what the decoder must not."""
    decoder = DECODERS[name]
    try:
        decoder.call(data)
    except decoder.raises:
        pass


def main(name: str, seconds: str, folder: str) -> None:
    import atheris

    atheris.instrument_all()
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(DECODERS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=1024", f"-artifact_prefix={folder}/crash-", folder]
    atheris.Setup([name, *options], lambda data: check(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
