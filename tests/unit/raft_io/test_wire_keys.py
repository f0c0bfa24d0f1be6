"""While the cluster's key is replaced: two nodes prove themselves by the newest key that both hold."""

from __future__ import annotations

import pytest

from raft import wire

OLD, NEW, NEWER = b"o" * 32, b"n" * 32, b"w" * 32


def holding(node: str, *keys: bytes, missed: list[str] | None = None) -> wire.Credentials:
    told = [] if missed is None else missed
    return wire.Credentials("cluster", node, "127.0.0.1:1", lambda: keys, on_missing=lambda: told.append(node))


def bodies(data: bytes) -> list[bytes]:
    frames = wire.Frames()
    frames.feed(data)
    return list(frames)


def met(dialler: wire.Credentials, answerer: wire.Credentials) -> wire.Challenge:
    """The whole hello; what the answerer said."""
    dialling, answering = wire.Dialling(dialler, "b", wire.Purpose.MESSAGES), wire.Answering(answerer)
    said = answering.receive(bodies(dialling.hello)[0])
    proof = dialling.receive(bodies(said)[0])
    answering.receive(bodies(proof)[0])
    assert dialling.done and answering.done
    challenge = wire._decode_hello(bodies(said)[0])
    assert isinstance(challenge, wire.Challenge)
    return challenge


@pytest.mark.parametrize(
    ("dialler", "answerer", "counts"),
    [
        ((OLD,), (OLD,), OLD),
        ((NEW, OLD), (OLD,), OLD),
        ((OLD,), (NEW, OLD), OLD),
        ((NEW, OLD), (NEW, OLD), NEW),
        ((NEW, OLD), (NEWER, NEW), NEW),
    ],
)
def test_the_newest_that_both_hold_counts(dialler: tuple[bytes, ...], answerer: tuple[bytes, ...], counts: bytes) -> None:
    assert met(holding("a", *dialler), holding("b", *answerer)).key == wire.mark_of(counts)


@pytest.mark.parametrize(("dialler", "answerer"), [((OLD,), (NEW,)), ((), (NEW,)), ((OLD,), ())])
def test_without_a_key_in_common_nobody_is_believed(dialler: tuple[bytes, ...], answerer: tuple[bytes, ...]) -> None:
    """And the answerer hears that a node may belong here whose key it does not hold."""
    missed: list[str] = []
    answering = wire.Answering(holding("b", *answerer, missed=missed))
    with pytest.raises(wire.Refusal, match="does not hold this cluster's key"):
        answering.receive(bodies(wire.Dialling(holding("a", *dialler), "b", wire.Purpose.MESSAGES).hello)[0])
    assert missed == ["b"]


def test_an_answerer_cannot_make_a_key_count_that_the_dialler_does_not_hold() -> None:
    dialling = wire.Dialling(holding("a", NEW), "b", wire.Purpose.MESSAGES)
    hello = wire._decode_hello(bodies(dialling.hello)[0])
    assert isinstance(hello, wire.Hello)
    for mark in (wire.mark_of(OLD), wire.mark_of(NEW), b""):
        forged = wire.frame(wire.Challenge(b"1" * 32, wire.prove(OLD, "answerer", hello, b"1" * 32), mark))
        with pytest.raises(wire.Refusal, match="does not hold this cluster's key"):
            dialling.receive(bodies(forged)[0])
    assert not dialling.done


def test_the_list_of_keys_cannot_be_changed_on_the_way() -> None:
    """Whoever takes the newest key from the list, so that an older one counts, makes every proof wrong."""
    old_thief = holding("b", NEW, OLD)
    dialling = wire.Dialling(holding("a", NEW, OLD), "b", wire.Purpose.MESSAGES)
    hello = wire._decode_hello(bodies(dialling.hello)[0])
    assert isinstance(hello, wire.Hello)
    shortened = wire.frame(wire.Hello(*[getattr(hello, name) for name in hello.__struct_fields__[:-1]], (wire.mark_of(OLD),)))
    said = wire.Answering(old_thief).receive(bodies(shortened)[0])
    with pytest.raises(wire.Refusal, match="does not hold this cluster's key"):
        dialling.receive(bodies(said)[0])
