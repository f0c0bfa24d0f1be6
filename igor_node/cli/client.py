"""The client of the API: standard library only, a list of nodes instead of one.

Every command of `igor` makes its calls through `Client`. It sends a request to the node that answered last and goes on to the next when one is
down or says 503. What may be sent again and what may not is decided here, in one place (`_may_repeat`):

* surely not done (no connection, or 503 "unavailable"): the next node gets it, whatever it is;
* perhaps done (the connection broke after sending, a time-out, 503 "outcome unknown"): the next node gets it only if it is a read or carries an
  Idempotency-Key, under which the cluster does a thing once; all others raise `OutcomeUnknown`.

A write's `Igor-Index` is sent with all later reads, so that no node shows the time before it. Answers in problem+json become the errors of
`words`. Times are seconds; nothing here prints.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from igor_node import words
from igor_node.trust.pins import NotThisCluster, asking_context, fetch_authority, fingerprint_in

CONNECT_TIMEOUT_S = 2.0  # a machine that is gone answers nothing at all: do not wait for it longer than for a failover
ANSWER_TIMEOUT_S = 15.0  # a node without a quorum answers 503 within 5 s; three times that is a hung node
STREAM_SILENCE_S = 40.0  # a quiet stream carries a sign of life every 15 s
PATIENCE_S = 6.0  # how long "no leader yet" is waited for: three failovers
UNREACHABLE_PATIENCE_S = 1.0  # all refuse the connection: a node that is just starting is given this long
PAUSE_S = 0.2  # between two rounds through the nodes
LONGEST_PAUSE_S = 0.5  # whatever Retry-After says: an election may be over sooner
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024  # an answer larger than this is not one of ours
LINE_LIMIT_BYTES = 4 * 1024 * 1024  # of a stream
SIGN_OF_LIFE = "beat"  # an event that says only that the stream is there
PAGE_ITEMS = 1_000  # the most one answer holds
REPEATABLE = frozenset({"GET", "HEAD"})
BROKEN = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Answer:
    """A success: its status, the decoded JSON (None where there is none), headers with lower-case names, and the node it came from."""

    status: int
    value: Any
    headers: Mapping[str, str]
    node: str


@dataclass(frozen=True)
class Event:
    """One event of an SSE stream."""

    id: str
    kind: str
    data: Any


@dataclass
class Client:
    """One cluster as a command sees it. `notice` gets words for people about nodes that were passed over, `on_write` the index of each write,
    `on_age` how old an answer is that a node without a quorum gave."""

    addresses: Sequence[str]
    token: str | None = None
    index: int | None = None
    notice: Callable[[str], None] = lambda text: None
    on_write: Callable[[int], None] = lambda index: None
    on_age: Callable[[float], None] = lambda age_s: None
    patience_s: float | None = None  # PATIENCE_S
    answer_timeout_s: float = ANSWER_TIMEOUT_S
    authorities: str = ""  # CAs to believe where the token names none, PEM; none: the system's
    certificate: tuple[str, str] | None = None  # files of a node's own, for its token counts on connections with it alone
    _connections: dict[str, http.client.HTTPConnection] = field(default_factory=dict)
    _context: ssl.SSLContext | None = None
    _first: int = 0

    def get(self, path: str, **query: Any) -> Any:
        return self.request("GET", with_query(path, query)).value

    def pages(self, path: str, limit: int | None, **query: Any) -> dict[str, Any]:
        """A list over as many answers as it takes: `items`, at most `limit` of them, and the cursor of what follows."""
        items: list[Any] = []
        cursor: Any = None
        while limit is None or len(items) < limit:
            wanted = PAGE_ITEMS if limit is None else min(PAGE_ITEMS, limit - len(items))
            page = self.get(path, **query, limit=wanted, cursor=cursor)
            items += page["items"]
            cursor = page.get("next")
            if not cursor:
                break
        return {"items": items, "next": cursor}

    def write(self, method: str, path: str, body: Any = None, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """A write that the cluster does once however often it is sent: it always carries an Idempotency-Key."""
        known = key or words.new_id(words.wall_now())
        answer = self.request(method, path, body, headers={**(headers or {}), "Idempotency-Key": known})
        index = answer.headers.get("igor-index", "")
        if index.isdigit():
            self.index = max(self.index or 0, int(index))
            self.on_write(self.index)
        return answer

    def request(self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer of the first node that has one. Raises the errors of `words`."""
        payload = None if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        sent = self._headers(headers, payload)
        return self._first_answer(method, sent, lambda address: self._exchange(address, method, path, payload, sent))

    def lines(
        self, path: str, query: dict[str, Any], position: Callable[[dict[str, Any]], dict[str, Any]], deadline: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """The objects of an NDJSON stream up to and with the one that says `complete`. A stream that ends before it is broken and goes on at
        the next node; `position` turns the last object into the query values from which to go on. Raises PastDeadline."""
        while True:
            try:
                for line in self._stream(with_query(path, query), {}, deadline):
                    if line:
                        item = json.loads(line)
                        query = {**query, **position(item)}
                        yield item
                        if item.get("complete"):
                            return
                raise http.client.IncompleteRead(b"")
            except BROKEN as problem:
                self._stream_broke(problem)

    def pieces(self, path: str, size: int) -> Iterator[bytes]:
        """A long answer as it comes, from the first node that has one. One that breaks off raises Unavailable: nothing of it can be used."""
        answer, response, connection = self._open(path, self._headers({"Accept": "*/*"}, None))
        try:
            while data := response.read(size):
                yield data
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
        except BROKEN as problem:
            raise words.Unavailable(f"{answer.node} broke off before the end ({_said(problem)})", hint="ask again") from None
        finally:
            response.close()
            connection.close()

    def events(self, path: str, last_id: str = "") -> Iterator[Event]:
        """The events of an SSE stream, without end; goes on after the last one at the next node when the connection breaks."""
        while True:
            try:
                for event in parse_events(self._stream(path, {"Last-Event-ID": last_id} if last_id else {})):
                    last_id = event.id or last_id
                    if event.kind != SIGN_OF_LIFE:
                        yield event
                raise http.client.IncompleteRead(b"")  # a node that stops ends the stream in order
            except BROKEN as problem:
                self._stream_broke(problem)

    def close(self) -> None:
        for address in list(self._connections):
            self._drop(address)

    # --- one request, several nodes

    def _first_answer(self, method: str, headers: Mapping[str, str], exchange: Callable[[str], Answer]) -> Answer:
        started = time.monotonic()
        repeatable = _may_repeat(method, headers)
        while True:
            problem, reached, wait_s = self._one_round(repeatable, exchange)
            if isinstance(problem, Answer):
                return problem
            patience_s = PATIENCE_S if self.patience_s is None else self.patience_s
            if time.monotonic() - started + wait_s >= (patience_s if reached else min(patience_s, UNREACHABLE_PATIENCE_S)):
                raise problem
            time.sleep(wait_s)

    def _one_round(self, repeatable: bool, exchange: Callable[[str], Answer]) -> tuple[Answer | words.Unavailable | words.TooMany, bool, float]:
        """Asks each node once. Gives an answer, or why there is none, whether any node spoke, and how long to wait before the next round."""
        failures: list[str] = []
        spoken: words.Unavailable | words.TooMany | None = None
        for step in range(len(self.addresses)):
            place = (self._first + step) % len(self.addresses)
            address = self.addresses[place]
            try:
                answer = exchange(address)
                self._first = place
                return answer, True, 0.0
            except (words.Unavailable, words.TooMany) as problem:
                if isinstance(problem, words.OutcomeUnknown) and not repeatable:
                    raise
                spoken = problem
                self.notice(f"{address}: {problem.message}")
            except NotSent as problem:
                failures.append(f"{address}: {problem}")
                self.notice(failures[-1])
            except BROKEN as problem:
                if not repeatable:
                    raise words.OutcomeUnknown(
                        f"{address} broke off after the request was sent ({_said(problem)})",
                        hint="it may have been done: look before you ask again",
                    ) from None
                failures.append(f"{address}: {_said(problem)}")
                self.notice(failures[-1])
        if spoken is not None:
            return spoken, True, max(PAUSE_S, min(LONGEST_PAUSE_S, spoken.retry_after_s))
        return _nobody(failures), False, PAUSE_S

    def _exchange(self, address: str, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]) -> Answer:
        response = self._ask(address, method, path, payload, headers)
        try:
            body = response.read(ANSWER_LIMIT_BYTES)
        except BROKEN:
            self._drop(address)
            raise
        if response.will_close:
            self._drop(address)
        received = {name.lower(): value for name, value in response.getheaders()}
        if response.status >= 400:
            raise error_of(response.status, body, received)
        if (age_s := _seconds(received.get("igor-age"))) > 0:
            self.on_age(age_s)
        return Answer(response.status, _decode(body, received), received, address)

    def _ask(self, address: str, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Sends and waits for the head of the answer. A connection kept from an earlier call may have been closed meanwhile: then once more."""
        fresh = address not in self._connections
        connection = self._connect(address)
        try:
            connection.request(method, path, payload, dict(headers))
            return connection.getresponse()
        except BROKEN as problem:
            self._drop(address)
            if fresh or isinstance(problem, TimeoutError) or not _may_repeat(method, headers):
                raise
            return self._ask(address, method, path, payload, headers)

    def _connect(self, address: str) -> http.client.HTTPConnection:
        if address not in self._connections:
            try:
                connection = self.new_connection(address)
                connection.connect()
            except OSError as problem:
                raise NotSent(_said(problem)) from None
            self._connections[address] = connection
        kept = self._connections[address]
        if kept.sock is not None:
            kept.sock.settimeout(self.answer_timeout_s)
        return kept

    def new_connection(self, address: str) -> http.client.HTTPConnection:
        """By HTTPS whoever answers is one of the cluster's nodes: the token names its CA. Without such a token it is what the system's CAs say, as
        for a proxy before the cluster. Raises OSError, or Unavailable where somebody else answers."""
        parts = urlsplit(address)
        host, port, fingerprint = parts.hostname or "", parts.port or 0, fingerprint_in(self.token)
        if parts.scheme != "https":
            if fingerprint is not None:
                raise words.Unavailable(f"{address}: the token is of a cluster with TLS, and is sent to nobody without", hint="use https://")
            return http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
        if self._context is None and fingerprint is not None:
            try:
                self._context = asking_context(fetch_authority(host, port, fingerprint, CONNECT_TIMEOUT_S))
                if self.certificate is not None:
                    self._context.load_cert_chain(*self.certificate)
            except NotThisCluster as problem:
                raise words.Unavailable(f"{address}: {problem}", hint="nothing was sent to it; is the token of this cluster?") from None
        if self._context is None:
            self._context = asking_context(self.authorities) if self.authorities else ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=self._context)

    def _drop(self, address: str) -> None:
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.close()

    def _headers(self, given: Mapping[str, str] | None, payload: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json", **(given or {})}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.index is not None:
            headers["Igor-Index"] = str(self.index)
        if payload is not None:
            headers["Content-Type"] = "application/json"
        return headers

    # --- streams

    def _stream(self, path: str, headers: Mapping[str, str], deadline: float | None = None) -> Iterator[str]:
        """The lines of a stream, from the first node that opens it. Breaks raise; an end in order returns. `deadline` is monotonic."""
        _, response, connection = self._open(path, self._headers({**headers, "Accept": "*/*"}, None))
        try:
            while (line := _line_of(response, connection, deadline)) is not None:
                yield line
        finally:
            response.close()
            connection.close()

    def _open(self, path: str, sent: Mapping[str, str]) -> tuple[Answer, http.client.HTTPResponse, http.client.HTTPConnection]:
        """An answer whose body is still to be read, on a connection that is the caller's alone."""
        opened: list[http.client.HTTPResponse] = []

        def open_at(address: str) -> Answer:
            self._drop(address)  # a stream has a connection of its own
            response = self._ask(address, "GET", path, None, sent)
            received = {name.lower(): value for name, value in response.getheaders()}
            if response.status >= 400:
                raise error_of(response.status, response.read(ANSWER_LIMIT_BYTES), received)
            opened.append(response)
            return Answer(response.status, None, received, address)

        answer = self._first_answer("GET", sent, open_at)
        return answer, opened[0], self._connections.pop(answer.node)

    def _stream_broke(self, problem: BaseException) -> None:
        self.notice(f"{self.addresses[self._first]}: {_said(problem)}; going on at the next node")
        self._first = (self._first + 1) % len(self.addresses)
        time.sleep(PAUSE_S)


class NotSent(Exception):
    """No connection: whatever was asked for has surely not been done."""


class PastDeadline(Exception):
    """A stream was followed for as long as the caller wanted to."""


def _may_repeat(method: str, headers: Mapping[str, str]) -> bool:
    return method in REPEATABLE or "Idempotency-Key" in headers


def _nobody(failures: Sequence[str]) -> words.Unavailable:
    return words.Unavailable(
        "no node could be reached (" + "; ".join(failures) + ")" if failures else "no node to ask is known",
        hint="is igor-node running? name one with --node URL or --data-dir D",
    )


def _said(problem: BaseException) -> str:
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return "the connection was closed" if isinstance(problem, http.client.HTTPException) else str(problem)


def _seconds(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _decode(body: bytes, headers: Mapping[str, str]) -> Any:
    if not body:
        return None
    if "json" not in headers.get("content-type", ""):
        return body.decode("utf-8", "replace")
    try:
        return json.loads(body)
    except ValueError as problem:
        raise words.Unavailable(f"the node's answer is not JSON ({problem})", hint="is this address an igor-node?") from None


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> words.IgorError:
    """A refusal as the error of `words` that the server raised: by the name in which its `type` ends, else by its status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    problem = problem if isinstance(problem, dict) else {}
    name = str(problem.get("type", "")).rpartition(":")[2]
    kind = words.ERROR_BY_NAME.get(name) or next((error for error in words.ERRORS if error.status == status), words.IgorError)
    message = str(problem.get("detail") or problem.get("title") or f"the node answered {status}")
    hint = str(problem.get("hint") or "")
    retry_after = headers.get("retry-after", "")
    retry_after_s = int(retry_after) if retry_after.isdigit() else 1
    if issubclass(kind, words.Invalid):
        return kind(message, hint=hint, faults=[str(fault) for fault in problem.get("faults") or ()])
    if issubclass(kind, words.TooMany | words.Unavailable):
        return kind(message, hint=hint, retry_after_s=retry_after_s)
    return kind(message, hint=hint)


def _line_of(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float | None) -> str | None:
    """The next line, None at the end in order. Raises PastDeadline, or what says that the stream broke."""
    patience_s = STREAM_SILENCE_S if deadline is None else min(STREAM_SILENCE_S, deadline - time.monotonic())
    if patience_s <= 0:
        raise PastDeadline
    if connection.sock is not None:
        connection.sock.settimeout(patience_s)
    try:
        line = response.readline(LINE_LIMIT_BYTES)
    except TimeoutError:
        if deadline is not None and time.monotonic() >= deadline:
            raise PastDeadline from None
        raise
    if line and not line.endswith(b"\n"):
        raise http.client.IncompleteRead(line)
    return line.decode("utf-8", "replace").rstrip("\r\n") if line else None


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events: fields line by line, an empty line ends one, a line that begins with a colon is a sign of life."""
    identifier, kind, data = "", "message", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(identifier, kind, _json_or_text("\n".join(data)))
            kind, data = "message", []
        elif name == "id":
            identifier = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def segment(text: str) -> str:
    """One path segment, whatever is in it: `demo/nightly@latest` becomes `demo%2Fnightly%40latest`."""
    return quote(text, safe="")


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """`None` and `False` are left out, `True` is 1."""
    given = {name.rstrip("_"): 1 if value is True else value for name, value in query.items() if value is not None and value is not False}
    return f"{path}?{urlencode(given)}" if given else path
