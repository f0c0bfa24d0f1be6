"""Logging in and out, and contexts: a token comes from nowhere that others can read, and goes nowhere that they can."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from igor_node.cli import contexts
from igor_node.cli.contexts import Context
from igor_node.cli.igor import igor as program

from .answering import FakeNode, problem
from .conftest import Igor

SECRET = "igor1.none.k3.very-secret"
ME = {"token": "k3", "role": "operator", "name": "ann"}


@pytest.fixture
def cluster(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    """A node that nothing in the environment names."""
    monkeypatch.delenv("IGOR_NODE")
    monkeypatch.delenv("IGOR_TOKEN")
    answer = {"id": "c0ffee", "nodes": [{"name": "n1", "address": node.address}, {"name": "n2", "address": "http://10.0.0.2:7946"}]}
    return node.on("GET", "/v1/whoami", ME).on("GET", "/v1/cluster", answer).on("GET", "/v1/jobs", {"items": [], "next": None})


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    return str(path)


def test_login_by_address_and_file(igor: Igor, cluster: FakeNode, token_file: str) -> None:
    ended = igor("login", cluster.address, "--token-file", token_file)
    assert ended.code == 0 and "ann" in ended.err and SECRET not in ended.out + ended.err
    assert contexts.current() == "c0ffee"
    kept = contexts.read("c0ffee")
    assert kept == Context("c0ffee", "c0ffee", (cluster.address, "http://10.0.0.2:7946"), SECRET)
    for path in contexts.folder().rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert igor("jobs").code == 0 and cluster.asked[-1].headers["authorization"] == f"Bearer {SECRET}"


def test_a_second_login_goes_into_the_context_of_its_cluster(igor: Igor, cluster: FakeNode, token_file: str) -> None:
    igor("login", cluster.address, "--token-file", token_file, "--context", "prod")
    igor("login", cluster.address, "--token-file", token_file)
    assert contexts.names() == ["prod"]


def test_contexts_are_listed_shown_and_chosen(igor: Igor, cluster: FakeNode, token_file: str) -> None:
    """Without the token's secret, in whatever form."""
    for name in ("prod", "test"):
        igor("login", cluster.address, "--token-file", token_file, "--context", name)
    assert [row["current"] for row in json.loads(igor("context", "list", "--json").out)] == [False, True]
    assert igor("context", "use", "prod").code == 0 and json.loads(igor("context", "show", "--json").out)["name"] == "prod"
    for form in ("table", "wide", "json", "jsonl", "name"):
        for arguments in (("context", "list"), ("context", "show", "test"), ("whoami",)):
            ended = igor(*arguments, "-o", form)
            assert ended.code == 0 and "very-secret" not in ended.out + ended.err
    assert "k3" in igor("context", "list").out
    assert igor("context", "use", "none").code == 4 and igor("context", "show", "none").code == 4


def test_one_command_may_use_another_context(igor: Igor, cluster: FakeNode, token_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    igor("login", cluster.address, "--token-file", token_file, "--context", "prod")
    contexts.write(Context("test", "x", (cluster.address,), "igor1.none.t.other"))
    igor("jobs", "--context", "test")
    assert cluster.asked[-1].headers["authorization"] == "Bearer igor1.none.t.other"
    monkeypatch.setenv("IGOR_CONTEXT", "test")
    igor("jobs")
    assert cluster.asked[-1].headers["authorization"] == "Bearer igor1.none.t.other"


def test_logout_forgets_the_context_and_leaves_the_token(igor: Igor, cluster: FakeNode, token_file: str) -> None:
    igor("login", cluster.address, "--token-file", token_file)
    assert igor("logout").code == 0 and contexts.names() == [] and contexts.current() is None
    assert "DELETE /v1/session" not in cluster.paths()
    assert "no login" in igor("logout").err


def test_logout_ends_what_the_browser_gave(igor: Igor, cluster: FakeNode, token_file: str) -> None:
    igor("login", cluster.address, "--token-file", token_file)
    cluster.on("GET", "/v1/whoami", {**ME, "login": True}).on("DELETE", "/v1/session", {"logged_in": False})
    assert igor("logout").code == 0 and cluster.paths()[-1] == "DELETE /v1/session" and contexts.names() == []


def test_logout_works_where_the_token_or_the_node_is_gone(igor: Igor, cluster: FakeNode, token_file: str) -> None:
    igor("login", cluster.address, "--token-file", token_file)
    cluster.on("GET", "/v1/whoami", problem("Unauthenticated", 401, "the token was revoked"))
    assert igor("logout").code == 0 and contexts.names() == []
    contexts.write(Context("gone", "x", ("http://127.0.0.1:1",), SECRET))
    assert igor("logout", "gone").code == 0 and contexts.names() == []


def test_a_context_that_is_broken_is_named_and_can_be_removed(igor: Igor, cluster: FakeNode) -> None:
    path = contexts.write(Context("bad", "x", (cluster.address,), SECRET))
    path.write_text("{")
    assert "bad.json" in igor("context", "list").err
    assert igor("logout", "bad").code == 0 and not path.exists()


def test_no_option_takes_a_token(igor: Igor) -> None:
    """Arguments stand in the list of processes."""

    def options(command: object) -> list[str]:
        own = [name for param in getattr(command, "params", ()) for name in param.opts]
        return own + [name for inner in getattr(command, "commands", {}).values() for name in options(inner)]

    assert "--token-file" in options(program) and "--token" not in options(program)
