"""What is sent is decoded strictly: every fault names the parameter, header or field, and what was expected."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.http.api.logs import LogsQuery, read_position
from igor_node.http.routes import Struct, decode_body, decode_query, template
from igor_node.words import Instant, Malformed


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: int = 100
    name: str | None = None
    since: Instant | None = None
    follow: bool = False
    hours: float = 1.0


class Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    params: dict[str, Any] = {}
    count: int | None = None


@pytest.mark.parametrize(
    "pairs, expected",
    [
        pytest.param([], Query(), id="defaults"),
        pytest.param([("limit", "5"), ("name", "a b")], Query(limit=5, name="a b"), id="number and text"),
        pytest.param([("follow", "1")], Query(follow=True), id="1 is yes"),
        pytest.param([("follow", "false")], Query(follow=False), id="false is no"),
        pytest.param([("since", "1970-01-01T00:00:01Z")], Query(since=Instant(10**9)), id="an instant"),
        pytest.param([("since", "1970-01-01T01:00:01 01:00")], Query(since=Instant(10**9)), id="a plus that was not encoded"),
        pytest.param([("hours", "0.5")], Query(hours=0.5), id="a fraction"),
    ],
)
def test_queries(pairs: list[tuple[str, str]], expected: Query) -> None:
    assert decode_query(Query, pairs) == expected


@pytest.mark.parametrize(
    "pairs, words",
    [
        pytest.param([("limt", "5")], '"limt" is not known', id="misspelt"),
        pytest.param([("limit", "5"), ("limit", "6")], "given twice", id="repeated"),
        pytest.param([("limit", "five")], "not a whole number", id="not a number"),
        pytest.param([("limit", "5.0")], "not a whole number", id="a fraction"),
        pytest.param([("limit", "٣")], "not a whole number", id="digits of another script"),
        pytest.param([("limit", "9" * 30)], "not a whole number", id="huge"),
        pytest.param([("limit", "0")], '"limit" is 0', id="too small"),
        pytest.param([("limit", "1001")], '"limit" is 1001', id="too large"),
        pytest.param([("follow", "maybe")], "neither yes nor no", id="neither"),
        pytest.param([("since", "yesterday")], '"since"', id="no time"),
        pytest.param([("hours", "x")], '"hours"', id="no fraction"),
        pytest.param([("name", "a\0b")], "NUL", id="NUL"),
    ],
)
def test_faults_of_queries(pairs: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode_query(Query, pairs)
    assert words in str(caught.value)


def test_a_parameter_may_have_a_name_that_python_reserves() -> None:
    assert decode_query(LogsQuery, [("try", "2")]).try_n == 2


@pytest.mark.parametrize(
    "body, words",
    [
        pytest.param(b"{", "not JSON", id="cut off"),
        pytest.param(b"[]", "expected `object`", id="not an object"),
        pytest.param(b'{"nme": "x"}', "nme", id="misspelt"),
        pytest.param(b'{"name": 5}', "name: Expected `str`", id="wrong type"),
        pytest.param(b'{"params": []}', "params: Expected `object`", id="wrong type inside"),
        pytest.param(b'{"name": "\xff"}', "not JSON", id="not UTF-8"),
        pytest.param(b'{"params": {"a": NaN}}', "not JSON", id="NaN"),
        pytest.param(b'{"params": {"a": ' + b"[" * 150 + b"]" * 150 + b"}}", "nested deeper", id="deep"),
        pytest.param(b'{"params": {"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}", "nested deeper", id="very deep"),
    ],
)
def test_faults_of_bodies(body: bytes, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode_body(Body, body)
    assert words.lower() in str(caught.value).lower()


def test_an_empty_body_is_an_empty_object() -> None:
    assert decode_body(Body, b"") == Body()


def test_nesting_that_definitions_need_is_allowed() -> None:
    assert decode_body(Body, b'{"params": {"a": ' + b"[" * 60 + b"]" * 60 + b"}}").params["a"]


@pytest.mark.parametrize(
    "text, position",
    [
        pytest.param(None, (None, 0), id="none"),
        pytest.param("12", (None, 12), id="a number"),
        pytest.param("main.1.2:345", (("main", 1, 2), 345), id="a place in a try"),
        pytest.param("a.b.1.2:3", (("a.b", 1, 2), 3), id="a stage whose name has dots"),
    ],
)
def test_positions_in_logs(text: str | None, position: Any) -> None:
    assert tuple(read_position(text)) == position


def test_a_position_that_is_none() -> None:
    with pytest.raises(Malformed):
        read_position("main.1:x")


def test_templates_read_as_people_write_them() -> None:
    assert template("/v1/jobs/{job:[^/]+(?:/[^/]+)?}/runs") == "/v1/jobs/{job}/runs"
