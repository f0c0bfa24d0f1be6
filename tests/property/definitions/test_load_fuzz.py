"""Whatever a client sends or a file holds, the answer is jobs or faults: never another error."""

import copy
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from igor_node.definitions.load import check_objects, load_folder
from igor_node.definitions.model import Job, Schedule, Stage
from igor_node.words import Instant, Invalid

NOW = Instant(1_790_000_000_000_000_000)
WHOLE = {
    "apiVersion": "igor/v1",
    "kind": "Job",
    "name": "a",
    "schedules": [{"cron": "H 2 * * *", "timezone": "Europe/Berlin", "catch_up": {"window": "6h", "policy": "all"}}, {"every": "5m", "jitter": "1m"}],
    "params": {"day": {"type": "date", "default": "${{ scheduled_date }}"}, "n": {"type": "integer", "min": 1, "default": 2, "choices": [1, 2]}},
    "env": {"A": "${{ params.day }}"},
    "retries": {"max": 3, "backoff": {"initial": "10s", "factor": 2}, "on": [1, "timeout"]},
    "stages": [
        {"name": "x", "command": "echo ${{ params.n }}", "timeout": "5m"},
        {"name": "y", "command": ["echo", "${{ run }}"], "needs": ["x"]},
    ],
    "source": {"file": "a.yaml", "line": 1, "lines": {"stages[0].command": 7}},
}
NAMES = sorted({*Job.model_fields, *Schedule.model_fields, *Stage.model_fields, "source", "x"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["5m", "${{ params.x }}", "a", "* * * * *", "'"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


PLACES = list(places(WHOLE))


def changed(path, value):
    whole = copy.deepcopy(WHOLE)
    if not path:
        return value
    parent = whole
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    return whole


def test_the_whole_job_is_valid():
    assert len(check_objects("p", [WHOLE], NOW).jobs) == 1


@settings(max_examples=600, deadline=None)
@given(first=st.tuples(st.sampled_from(PLACES), VALUES), extra=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2))
def test_objects_of_a_push(first, extra):
    """One part of a valid job replaced by anything, and other fields beside it."""
    value = changed(*first)
    if isinstance(value, dict):
        value = {**value, **extra}
    try:
        check_objects("p", [value, {"apiVersion": "igor/v1", "kind": "Project", "name": "p", "defaults": extra}], NOW)
    except Invalid as problem:
        assert problem.faults
        assert all(": " in fault for fault in problem.faults)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>'\"\n #?,%@`\t", max_size=60).map(str.encode))
def test_files(data):
    """Any bytes as a YAML file."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.yaml").write_bytes(data)
        try:
            load_folder(folder, NOW)
        except Invalid as problem:
            assert problem.faults
