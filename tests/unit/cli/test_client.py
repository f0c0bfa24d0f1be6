"""The client: which node it asks, what it sends again and what not, how refusals and broken streams look to a command."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from igor_node import words
from igor_node.cli import client as client_module
from igor_node.cli.client import Client, Event, PastDeadline, error_of, parse_events, segment, with_query

from .answering import Asked, FakeNode, Reply, dead_address, problem


@pytest.fixture
def nodes() -> Iterator[list[FakeNode]]:
    made = [FakeNode(), FakeNode()]
    yield made
    for node in made:
        node.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses: what is tested is the order of things, not their length."""
    monkeypatch.setattr(client_module, "PAUSE_S", 0.01)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(client_module, "UNREACHABLE_PATIENCE_S", 0.1)


def addresses(nodes: list[FakeNode]) -> list[str]:
    return [node.address for node in nodes]


def test_a_dead_node_is_passed_over(nodes: list[FakeNode]) -> None:
    """The next node answers, and the next request goes to it at once."""
    nodes[0].on("GET", "/v1/jobs", {"items": []})
    notices: list[str] = []
    client = Client([dead_address(), nodes[0].address], notice=notices.append)
    assert client.get("/v1/jobs") == {"items": []}
    assert client.get("/v1/jobs") == {"items": []}
    assert len(notices) == 1 and "refused" in notices[0]


def test_nobody_to_ask_is_unavailable_and_names_them() -> None:
    """Exit code 7, soon, with each address and its reason."""
    first, second = dead_address(), dead_address()
    with pytest.raises(words.Unavailable) as raised:
        Client([first, second]).get("/v1/jobs")
    assert first in str(raised.value) and second in str(raised.value) and "igor-node" in str(raised.value)
    assert raised.value.exit_code == 7


def test_a_503_that_was_not_done_goes_to_the_next_node(nodes: list[FakeNode]) -> None:
    """Also a write without a key: it was surely not done."""
    nodes[0].on("POST", "/x", problem("Unavailable", 503, "no leader"))
    nodes[1].on("POST", "/x", {"done": 1})
    assert Client(addresses(nodes)).request("POST", "/x", {}).value == {"done": 1}


def test_no_quorum_anywhere_tells_the_reason(nodes: list[FakeNode]) -> None:
    """After the patience for an election has run out, the server's own words."""
    for node in nodes:
        node.on("POST", "/x", problem("Unavailable", 503, "no quorum: 1 of 3 voters", hint="ask later"))
    with pytest.raises(words.Unavailable, match="no quorum: 1 of 3 voters; ask later"):
        Client(addresses(nodes), patience_s=0.05).write("POST", "/x", {})


def test_an_election_is_waited_for(nodes: list[FakeNode]) -> None:
    """503 now and a leader a moment later is a success."""
    answers = itertools.chain(
        [
            problem(
                "Unavailable",
                503,
                "electing",
            ),
            problem("Unavailable", 503, "electing"),
        ],
        itertools.repeat(Reply({"done": 1})),
    )
    nodes[0].on("POST", "/x", lambda asked: next(answers))
    client = Client([nodes[0].address])
    assert client.write("POST", "/x", {}).value == {"done": 1}
    assert len(nodes[0].asked) == 3


def test_a_broken_write_without_a_key_is_not_sent_again(nodes: list[FakeNode]) -> None:
    """It may have been done: the caller has to look."""
    nodes[0].on("POST", "/x", Reply(drop=True))
    nodes[1].on("POST", "/x", {"done": 1})
    with pytest.raises(words.OutcomeUnknown):
        Client(addresses(nodes)).request("POST", "/x", {})
    assert nodes[1].asked == []


@pytest.mark.parametrize("first", [Reply(drop=True), problem("OutcomeUnknown", 503, "timed out")], ids=["broken off", "said unknown"])
def test_a_write_with_a_key_is_sent_again_with_the_same_key(nodes: list[FakeNode], first: Reply) -> None:
    nodes[0].on("POST", "/x", first)
    nodes[1].on("POST", "/x", {"done": 1})
    assert Client(addresses(nodes)).write("POST", "/x", {}).value == {"done": 1}
    keys = {asked.headers["idempotency-key"] for node in nodes for asked in node.asked}
    assert len(keys) == 1 and len(nodes[0].asked) == len(nodes[1].asked) == 1


def test_a_broken_read_is_sent_again(nodes: list[FakeNode]) -> None:
    nodes[0].on("GET", "/x", Reply(drop=True))
    nodes[1].on("GET", "/x", {"read": 1})
    assert Client(addresses(nodes)).get("/x") == {"read": 1}


def test_a_hung_node_is_left_after_the_time_out(nodes: list[FakeNode]) -> None:
    release = threading.Event()
    nodes[0].on("GET", "/x", lambda asked: (release.wait(20), Reply({}))[1])
    nodes[1].on("GET", "/x", {"read": 1})
    assert Client(addresses(nodes), answer_timeout_s=0.1).get("/x") == {"read": 1}
    release.set()


def test_a_kept_connection_that_was_closed_is_opened_anew(nodes: list[FakeNode]) -> None:
    """The server closed it while nothing was asked: nobody need hear of that."""
    nodes[0].on("GET", "/x", {"read": 1})
    notices: list[str] = []
    client = Client([nodes[0].address], notice=notices.append)
    client.get("/x")
    client._connections[nodes[0].address].sock.shutdown(2)
    assert client.get("/x") == {"read": 1} and notices == []


def test_refusals_do_not_go_to_the_next_node(nodes: list[FakeNode]) -> None:
    nodes[0].on("GET", "/x", problem("NotFound", 404, 'there is no job "x"'))
    nodes[1].on("GET", "/x", {"read": 1})
    with pytest.raises(words.NotFound, match='there is no job "x"'):
        Client(addresses(nodes)).get("/x")


def test_reads_carry_the_index_of_the_last_write(nodes: list[FakeNode]) -> None:
    """So that no node shows the time before it; and the index is handed on to be remembered."""
    nodes[0].on("POST", "/x", Reply({}, headers={"Igor-Index": "41"})).on("GET", "/x", {})
    kept: list[int] = []
    client = Client([nodes[0].address], token="igor1.none.a.b", on_write=kept.append)
    client.write("POST", "/x", {})
    client.get("/x")
    assert nodes[0].asked[1].headers["igor-index"] == "41" and kept == [41]
    assert nodes[0].asked[1].headers["authorization"] == "Bearer igor1.none.a.b"


def test_an_answer_without_a_quorum_tells_its_age(nodes: list[FakeNode]) -> None:
    nodes[0].on("GET", "/x", Reply({}, headers={"Igor-Age": "12.5"}))
    ages: list[float] = []
    Client([nodes[0].address], on_age=ages.append).get("/x")
    assert ages == [12.5]


@pytest.mark.parametrize("kind", words.ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_words_comes_back_as_itself(kind: type[words.IgorError]) -> None:
    body = b'{"type":"urn:igor:%s","detail":"what","hint":"do","faults":["a:1: b: c"]}' % kind.__name__.encode()
    error = error_of(kind.status, body, {"retry-after": "3"})
    assert type(error) is kind and error.message == "what" and error.hint == "do"
    assert getattr(error, "faults", ("a:1: b: c",)) == ("a:1: b: c",)
    assert getattr(error, "retry_after_s", 3) == 3


@pytest.mark.parametrize(
    "status, kind", [(404, words.NotFound), (412, words.StaleVersion), (503, words.Unavailable), (500, words.IgorError), (418, words.IgorError)]
)
def test_a_refusal_without_a_problem_goes_by_its_status(status: int, kind: type[words.IgorError]) -> None:
    """A proxy in front of a node speaks HTML."""
    assert type(error_of(status, b"<html>no</html>", {})) is kind
    assert type(error_of(status, b'["list"]', {})) is kind


# --- streams


def lines_from(node: FakeNode, count: int, *, cut: bool) -> None:
    """A log of ten lines; this node sends `count` of those asked for, then breaks or completes."""

    def lines(asked: Asked) -> Iterator[str]:
        start = int(asked.query.get("offset", 0))
        for offset in range(start, min(10, start + count)):
            yield f'{{"offset":{offset},"text":"line {offset}"}}'
        yield ""
        if not cut:
            yield '{"complete":true}'

    node.on("GET", "/log", Reply(lines=lines, cut=cut))


@pytest.mark.parametrize("cut", [True, False], ids=["broken", "ended without being complete"])
def test_a_stream_goes_on_at_the_next_node_without_gap_or_repetition(nodes: list[FakeNode], cut: bool) -> None:
    lines_from(nodes[0], 4, cut=True)
    nodes[0].table[("GET", "/log")].cut = cut  # type: ignore[union-attr]
    lines_from(nodes[1], 10, cut=False)
    client = Client(addresses(nodes))
    items = list(client.lines("/log", {}, lambda item: {"offset": item["offset"] + 1} if "offset" in item else {}))
    assert [item["text"] for item in items[:-1]] == [f"line {n}" for n in range(10)]
    assert nodes[1].asked[0].query == {"offset": "4"}


def test_a_stream_ends_at_its_deadline(nodes: list[FakeNode]) -> None:
    """Also when nothing comes."""
    release = threading.Event()

    def lines(asked: Asked) -> Iterator[str]:
        yield '{"offset":0,"text":"one"}'
        release.wait(20)

    nodes[0].on("GET", "/log", Reply(lines=lines))
    stream = Client([nodes[0].address]).lines("/log", {}, lambda item: {}, time.monotonic() + 0.2)
    assert next(stream)["text"] == "one"
    with pytest.raises(PastDeadline):
        next(stream)
    release.set()


def test_a_refused_stream_is_the_refusal(nodes: list[FakeNode]) -> None:
    nodes[0].on("GET", "/log", problem("NotFound", 404, "no such run"))
    with pytest.raises(words.NotFound):
        list(Client([nodes[0].address]).lines("/log", {}, lambda item: {}))


def test_events_resume_after_the_last_one(nodes: list[FakeNode]) -> None:
    nodes[0].on("GET", "/events", Reply(lines=lambda asked: iter(["id: 7", "event: run", 'data: {"a":1}', ""]), cut=True))
    nodes[1].on("GET", "/events", Reply(lines=lambda asked: iter([": ping", "", "id: 8", "data: x", ""])))
    stream = Client(addresses(nodes)).events("/events")
    assert [next(stream), next(stream)] == [Event("7", "run", {"a": 1}), Event("8", "message", "x")]
    assert nodes[1].asked[0].headers["last-event-id"] == "7"


def test_events_are_parsed_as_the_standard_says() -> None:
    """Several data lines are one text; a colon begins a comment; an event without data is none; the id stays."""
    lines = iter(["id: 1", "data: a", "data: b", "", ": sign of life", "", "event: x", "", "data:c", ""])
    assert list(parse_events(lines)) == [Event("1", "message", "a\nb"), Event("1", "message", "c")]


def test_paths_and_queries_are_encoded() -> None:
    assert segment("demo/nightly@latest") == "demo%2Fnightly%40latest"
    assert with_query("/x", {"job": "a b", "from_": None, "follow": True, "prune": False, "n": 0}) == "/x?job=a+b&follow=1&n=0"
