"""The wire: frames come out as they went in however the bytes are cut, limits hold, and the hello lets in who holds the key and nobody else."""

from __future__ import annotations

import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import wire
from raft.interface import Entry
from raft.messages import Append, AppendReply, Message, VoteRequest

KEY = b"k" * 32
A = wire.Credentials("cluster", "a", "127.0.0.1:1", KEY)
B = wire.Credentials("cluster", "b", "127.0.0.1:2", KEY)

messages = st.one_of(
    st.builds(AppendReply, st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**40), st.booleans(), st.booleans()),
    st.builds(VoteRequest, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans()),
    st.builds(
        Append,
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        st.lists(st.builds(Entry, st.integers(0, 2**40), st.integers(0, 9), st.integers(0, 2), st.binary(max_size=300)), max_size=5),
    ),
)


@given(sent=st.lists(messages, max_size=12), cuts=st.lists(st.integers(1, 90), min_size=1), one_by_one=st.booleans())
def test_frames_come_out_as_they_went_in(sent, cuts, one_by_one):
    """Whatever the pieces in which TCP delivers them."""
    stream = b"".join(wire.frame(message) for message in sent)
    frames = wire.Frames(wire.FRAME_LIMIT_BYTES)
    decoder = msgspec.msgpack.Decoder(Message)
    received, position, turn = [], 0, 0
    while position < len(stream):
        step = cuts[turn % len(cuts)]
        frames.feed(stream[position : position + step])
        position, turn = position + step, turn + 1
        if one_by_one:
            while (body := frames.next()) is not None:
                received.append(decoder.decode(body))
        else:
            received += [decoder.decode(body) for body in frames]
    assert received == sent
    assert len(frames) == 0


@given(st.binary(max_size=200))
def test_no_bytes_whatever_do_more_than_be_refused(data):
    """A stranger's bytes end in a WireError, or wait for more; nothing else happens."""
    answering = wire.Answering(B)
    frames = wire.Frames()
    frames.feed(data)
    try:
        for body in frames:
            answering.receive(body)
    except wire.WireError:
        pass
    assert not answering.done


@pytest.mark.parametrize("use", ["next", "iterate"])
def test_a_frame_above_the_limit_is_refused_before_its_bytes_come(use):
    """Its length alone is enough; nothing is gathered in memory first."""
    frames = wire.Frames(100)
    frames.feed(wire.frame(b"fits") + (101).to_bytes(4, "big") + bytes([wire.VERSION]))
    with pytest.raises(wire.WireError, match="a frame of 101 bytes; the limit is 100"):
        if use == "next":
            frames.next()
            frames.next()
        else:
            list(frames)


def test_another_version_is_refused_by_name():
    """The log says which version the other side speaks."""
    frames = wire.Frames()
    frames.feed((2).to_bytes(4, "big") + bytes([9]) + b"x")
    with pytest.raises(wire.Refusal, match="speaks version 9 of the wire, this node speaks 1"):
        frames.next()


def greet(dialling: wire.Dialling, answering: wire.Answering) -> None:
    """Both sides of a hello, by hand."""
    to_answerer, to_dialler = wire.Frames(), wire.Frames()
    assert dialling.opening.startswith(wire.MAGIC)
    to_answerer.feed(dialling.opening[len(wire.MAGIC) :])
    to_dialler.feed(answering.receive(to_answerer.next()))
    to_answerer.feed(dialling.receive(to_dialler.next()))
    answering.receive(to_answerer.next())


def test_two_that_hold_the_key_believe_each_other():
    """Afterwards the answerer knows who sends, from where and what for."""
    dialling, answering = wire.Dialling(A, "b", wire.Purpose.SNAPSHOT), wire.Answering(B)
    greet(dialling, answering)
    assert dialling.done and answering.done
    assert (answering.hello.sender, answering.hello.address, answering.hello.purpose) == ("a", "127.0.0.1:1", "snapshot")


@pytest.mark.parametrize(
    "dialler, wanted, reason",
    [
        pytest.param(wire.Credentials("other", "a", "", KEY), "b", "belongs to cluster cluster, not to other", id="another cluster"),
        pytest.param(A, "c", "this is node b, not c", id="another node listens there now"),
        pytest.param(wire.Credentials("cluster", "b", "", KEY), "b", "a data directory was copied", id="a copied identity"),
    ],
)
def test_who_does_not_belong_here_is_told_why(dialler, wanted, reason):
    """Before any proof: nothing of it is secret."""
    answering = wire.Answering(B)
    dialling = wire.Dialling(dialler, wanted, wire.Purpose.MESSAGES)
    hello = wire.Frames()
    hello.feed(dialling.opening[len(wire.MAGIC) :])
    with pytest.raises(wire.Refusal, match=reason):
        answering.receive(hello.next())
    back = wire.Frames()
    back.feed(answering.answer)
    with pytest.raises(wire.Refusal, match=reason):
        dialling.receive(back.next())


def test_the_dialler_notices_a_false_answerer():
    """It sends no proof to who holds another key."""
    false = wire.Credentials("cluster", "b", "", b"x" * 32)
    dialling = wire.Dialling(A, "b", wire.Purpose.MESSAGES)
    with pytest.raises(wire.Refusal, match="does not hold this cluster's key"):
        greet(dialling, wire.Answering(false))
    assert not dialling.done


def test_the_answerer_notices_a_false_proof():
    """Neither another key nor the answerer's own proof, sent back, nor one of an earlier hello opens the connection."""
    dialling, answering = wire.Dialling(A, "b", wire.Purpose.MESSAGES), wire.Answering(B)
    frames = wire.Frames()
    frames.feed(dialling.opening[len(wire.MAGIC) :])
    challenge = msgspec.msgpack.decode(wire_body(answering.receive(frames.next())), type=wire.Challenge)
    with pytest.raises(wire.Refusal, match="does not hold this cluster's key"):
        answering.receive(wire_body(wire.frame(wire.Proof(challenge.proof))))
    earlier = wire.Answering(B)
    greet(wire.Dialling(A, "b", wire.Purpose.MESSAGES, lambda size: b"n" * size), earlier)
    again = wire.Dialling(A, "b", wire.Purpose.MESSAGES, lambda size: b"n" * size)
    first_proof = again.receive(wire_body(wire.Answering(B, lambda size: b"1" * size)._challenge(again._hello)))
    later = wire.Answering(B, lambda size: b"2" * size)
    later._challenge(again._hello)
    with pytest.raises(wire.Refusal):
        later.receive(wire_body(first_proof))


def wire_body(frame: bytes) -> bytes:
    frames = wire.Frames()
    frames.feed(frame)
    return frames.next()


@pytest.mark.parametrize("field", ["sender", "address", "purpose", "nonce"])
def test_every_field_of_the_hello_is_proved(field):
    """A hello changed on its way is found out."""
    dialling, answering = wire.Dialling(A, "b", wire.Purpose.MESSAGES), wire.Answering(B)
    changed = {"sender": "c", "address": "127.0.0.1:666", "purpose": "snapshot", "nonce": b"x" * 32}[field]
    forged = msgspec.structs.replace(dialling._hello, **{field: changed})
    with pytest.raises(wire.Refusal):
        dialling.receive(wire_body(answering.receive(msgspec.msgpack.encode(forged))))


def test_messages_before_the_proof_are_refused():
    """Nothing but a hello is understood from a stranger."""
    answering = wire.Answering(B)
    with pytest.raises(wire.WireError):
        answering.receive(msgspec.msgpack.encode(VoteRequest(1, 2, 3)))
    with pytest.raises(wire.WireError, match="Proof out of turn"):
        answering.receive(wire_body(wire.frame(wire.Proof(b"x"))))


def test_a_queue_sends_what_the_socket_takes_and_refuses_past_its_limit():
    """Nothing is lost or doubled at the edges of what a full socket took."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        queue = wire.SendQueue(limit=4 * 1024 * 1024)
        sent = []
        while queue.push(data := bytes([len(sent) % 251]) * 70_000):
            sent.append(data)
        assert 4 * 1024 * 1024 - 70_000 < queue.bytes <= 4 * 1024 * 1024
        received = bytearray()
        while not queue.flush(near):
            received += far.recv(1 << 20)
        assert queue.bytes == 0
        while len(received) < sum(map(len, sent)):
            received += far.recv(1 << 20)
        assert bytes(received) == b"".join(sent)
