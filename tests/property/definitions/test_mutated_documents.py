"""Files that were right and are changed at random: the answer is jobs or faults, and each fault names a file and a line that exist."""

import copy
import io
import re
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from igor_node.definitions.load import load_folder
from igor_node.words import Instant, Invalid

NOW = Instant(1_790_000_000_000_000_000)
FAULT = re.compile(r"(?s)(?P<file>[\w.]+):(?P<line>[0-9]+): (?P<path>.+?): (?P<what>.+)")
FILES = {
    "project.yaml": [
        {
            "apiVersion": "igor/v1",
            "kind": "Project",
            "name": "shop",
            "defaults": {
                "owner": "ops",
                "timeout": "5m",
                "env": {"A": "b"},
                "schedule": {"timezone": "Europe/Berlin", "catch_up": {"policy": "all"}},
            },
        }
    ],
    "jobs.yaml": [
        {
            "apiVersion": "igor/v1",
            "kind": "Job",
            "name": "one",
            "schedule": {"cron": "0 2 * * *", "calendar": {"exclude": ["xmas"]}, "jitter": "1m"},
            "command": "echo ${{ params.day }} ${{ run }}",
            "params": {
                "day": {"type": "date", "default": "${{ scheduled_date }}"},
                "n": {"type": "integer", "min": 1, "default": 2, "choices": [1, 2]},
            },
            "retries": {"max": 3, "backoff": {"initial": "10s", "factor": 2}, "on": [1, "timeout"]},
            "success_codes": [0, 3],
        },
        {
            "apiVersion": "igor/v1",
            "kind": "Job",
            "name": "two",
            "schedules": [{"every": "5m"}, {"at": "2030-01-01T00:00:00"}],
            "stages": [
                {"name": "get", "command": "get", "env": {"C": "d"}},
                {"name": "put", "command": ["put", "${{ job }}"], "needs": ["get"], "retries": {"max": 1}},
                {"name": "end", "command": "end", "needs": ["get", "put"], "always": True, "constraints": {"zone": "eu"}},
            ],
        },
        {"apiVersion": "igor/v1", "kind": "Calendar", "name": "xmas", "days": ["2026-12-25", "2026-12-26"]},
    ],
}
OTHERS = st.sampled_from(
    [None, True, 0, -1, 30, 1.5, "", "x", "one", "get", "30 minutes", "5m", "* * * * *", "${{ nope }}", "'", "a/b", [], ["x"], [1, [2]], {}, {"x": 1}]
)


def places(value, path=()):
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def misspelt(draw, key):
    at = draw(st.integers(0, max(0, len(key) - 2)))
    return draw(
        st.sampled_from([key[:at] + key[at + 1 : at + 2] + key[at : at + 1] + key[at + 2 :], key[:at] + key[at + 1 :], key + "s", key.upper(), "x"])
    )


@st.composite
def changed(draw):
    """One to five parts dropped, renamed or of another type."""
    files = copy.deepcopy(FILES)
    for _ in range(draw(st.integers(1, 5))):
        path = draw(st.sampled_from(list(places(files))))
        if len(path) < 3:
            continue
        *way, key = path
        parent = files
        for part in way:
            parent = parent[part]
        do = draw(st.sampled_from(["drop", "rename", "retype", "retype"]))
        if do == "drop":
            del parent[key]
        elif do == "rename" and isinstance(parent, dict):
            parent[misspelt(draw, key)] = parent.pop(key)
        else:
            parent[key] = copy.deepcopy(draw(OTHERS))
    return {name: written(documents) for name, documents in files.items()}


def written(documents):
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump_all(documents, text)
    return text.getvalue()


@st.composite
def damaged(draw):
    """Lines doubled, lost, or with other characters in them."""
    files = {name: written(documents) for name, documents in FILES.items()}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(files)))
        lines = files[name].splitlines(keepends=True)
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        do = draw(st.sampled_from(["double", "lose", "put in", "cut"]))
        if do == "double":
            lines[at : at + 1] *= 2
        elif do == "lose":
            del lines[at : at + 1]
        elif do == "cut":
            del lines[at:]
        elif lines:
            column = draw(st.integers(0, len(lines[at])))
            sign = draw(st.sampled_from([*" \t:-#[]{}&*!|>'\"%@`,?\\\n\r\0é", "\x07", "\x85", "\u2028", "\ufeff", "--- ", "!!x ", "<<: "]))
            lines[at] = lines[at][:column] + sign + lines[at][column:]
        files[name] = "".join(lines)
    return files


def check(files):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "shop")
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_bytes(text.encode())
        try:
            load_folder(folder, NOW)
        except Invalid as problem:
            assert problem.faults
            for fault in problem.faults:
                found = FAULT.fullmatch(fault)
                assert found, fault
                text = files[found["file"]]
                assert 1 <= int(found["line"]) <= max(1, len(re.split(r"\r\n|\n|\r", text))), fault
                assert "; " in found["what"] or found["what"].endswith("yet"), fault


def test_unchanged():
    check({name: written(documents) for name, documents in FILES.items()})


@settings(max_examples=500, deadline=None)
@given(changed())
def test_changed_fields(files):
    check(files)


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_damaged_texts(files):
    check(files)
