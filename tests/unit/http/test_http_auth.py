"""Tokens, sessions, login links, hosts and origins: who may come in, each as one rule."""

from __future__ import annotations

import pytest

from igor_node.http import auth, limits
from igor_node.words import SECOND, Denied, Role, TooMany, Unauthenticated, WrongHost

KEY = b"k" * 32
NOW = 1_700_000_000 * SECOND


def test_a_token_is_its_id_and_the_hash_of_its_secret() -> None:
    text = auth.compose_token("t1", "secret")
    given = auth.parse_token(text)
    assert (text, given.id, given.hash) == ("igor1.none.t1.secret", "t1", auth.hash_secret("secret"))


@pytest.mark.parametrize(
    "text", ["", "x", "igor1.none.t1", "igor2.none.t1.s", "igor1.none.t 1.s", "igor1.none..s", "igor1.none.t1.s\n", "igor1.none.t.s.u"]
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        auth.parse_token(text)


PEOPLE = [Role.VIEWER, Role.OPERATOR, Role.DEPLOYER, Role.ADMIN]


@pytest.mark.parametrize("held", PEOPLE)
@pytest.mark.parametrize("needed", PEOPLE)
def test_larger_roles_include_smaller_ones(held: Role, needed: Role) -> None:
    caller = auth.Caller(token="t", role=held)
    assert auth.may(caller, needed, nodes=False) == (PEOPLE.index(held) >= PEOPLE.index(needed))


@pytest.mark.parametrize(
    "held, needed, nodes, allowed",
    [
        pytest.param(Role.NODE, Role.VIEWER, False, False, id="a node is no viewer"),
        pytest.param(Role.NODE, Role.VIEWER, True, True, id="a node may where nodes may"),
        pytest.param(Role.NODE, Role.NODE, False, True, id="a node may what nodes do"),
        pytest.param(Role.DEPLOYER, Role.NODE, False, False, id="a deployer is no node"),
        pytest.param(Role.ADMIN, Role.NODE, False, True, id="an admin may all"),
    ],
)
def test_the_role_of_nodes_stands_beside(held: Role, needed: Role, nodes: bool, allowed: bool) -> None:
    assert auth.may(auth.Caller(token="t", role=held), needed, nodes=nodes) is allowed


def test_a_token_of_one_project_is_good_for_that_one() -> None:
    caller = auth.Caller(token="t", role=Role.DEPLOYER, project="demo")
    auth.check_project(caller, "demo")
    with pytest.raises(Denied, match="other"):
        auth.check_project(caller, "other")


def test_a_session_names_its_token_until_it_ends() -> None:
    cookie = auth.make_session(KEY, "t1", NOW)
    assert auth.read_session(KEY, cookie, NOW) == "t1"
    with pytest.raises(Unauthenticated, match="ended"):
        auth.read_session(KEY, cookie, NOW + limits.SESSION_S * SECOND)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda cookie: cookie.replace("t1", "t2"), id="another token"),
        pytest.param(lambda cookie: cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), id="another signature"),
        pytest.param(lambda cookie: cookie.replace(".17", ".27", 1), id="a later end"),
        pytest.param(lambda cookie: "", id="nothing"),
    ],
)
def test_a_session_cannot_be_made_up(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unauthenticated):
        auth.read_session(KEY, change(auth.make_session(KEY, "t1", NOW)), NOW)


def test_a_session_of_another_cluster_is_none() -> None:
    with pytest.raises(Unauthenticated):
        auth.read_session(b"other", auth.make_session(KEY, "t1", NOW), NOW)


def test_a_link_works_once() -> None:
    links = auth.Links()
    code = links.make("t1", NOW)
    assert links.use(code, NOW) == "t1"
    with pytest.raises(Unauthenticated):
        links.use(code, NOW)


def test_a_link_ends_after_five_minutes() -> None:
    links = auth.Links()
    code = links.make("t1", NOW)
    with pytest.raises(Unauthenticated):
        links.use(code, NOW + limits.LINK_S * SECOND)


def test_links_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones make room, new ones are refused."""
    monkeypatch.setattr(auth, "LINKS", 2)
    links = auth.Links()
    links.make("a", NOW)
    links.make("b", NOW)
    with pytest.raises(TooMany):
        links.make("c", NOW)
    assert links.make("c", NOW + limits.LINK_S * SECOND)


def test_a_derived_secret_is_the_same_for_the_same_purpose_alone() -> None:
    assert auth.derive_secret(KEY, "node a") == auth.derive_secret(KEY, "node a")
    assert len({auth.derive_secret(KEY, "node a"), auth.derive_secret(KEY, "node b"), auth.derive_secret(b"other", "node a")}) == 3


@pytest.mark.parametrize("host", ["127.0.0.1:7946", "localhost", "LOCALHOST:80", "[::1]:7946", "127.8.8.8", "igor.example:1"])
def test_hosts_that_are_ours(host: str) -> None:
    auth.check_host(host, frozenset({"igor.example"}))


@pytest.mark.parametrize("host", [None, "", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil:80", "[bad"])
def test_hosts_that_are_not(host: str | None) -> None:
    """A page whose name was bound anew to 127.0.0.1 still sends its own name."""
    with pytest.raises(WrongHost):
        auth.check_host(host, frozenset({"igor.example"}))


def test_origins() -> None:
    """Our own page, another node's page, and a stranger's."""
    known = {"http://127.0.0.1:2"}
    assert auth.check_origin(None, "127.0.0.1:1", known) is False
    assert auth.check_origin("http://127.0.0.1:1", "127.0.0.1:1", known) is False
    assert auth.check_origin("http://127.0.0.1:2", "127.0.0.1:1", known) is True
    for stranger in ("http://evil.example", "null", "http://127.0.0.1:3", "https://127.0.0.1:1"):
        with pytest.raises(Denied):
            auth.check_origin(stranger, "127.0.0.1:1", known)
