"""Sessions and login links as rules; hosts, origins and pages: from where a request may come."""

from __future__ import annotations

import pytest

from igor_node.http import limits, origins, sessions
from igor_node.words import SECOND, Denied, TooMany, Unauthenticated, WrongHost

KEY = b"k" * 32
NOW = 1_700_000_000 * SECOND


def test_a_session_names_its_token_until_it_ends() -> None:
    cookie = sessions.make_session(KEY, "t1", NOW)
    assert sessions.read_session(KEY, cookie, NOW).token == "t1"
    with pytest.raises(Unauthenticated, match="ended"):
        sessions.read_session(KEY, cookie, NOW + limits.SESSION_S * SECOND)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda cookie: cookie.replace("t1", "t2"), id="another token"),
        pytest.param(lambda cookie: cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), id="another signature"),
        pytest.param(lambda cookie: cookie.replace(".17", ".27", 1), id="a later end"),
        pytest.param(lambda cookie: "", id="nothing"),
        pytest.param(lambda cookie: ".".join([*cookie.split(".")[:2], "0" * 16, *cookie.split(".")[3:]]), id="another session"),
    ],
)
def test_a_session_cannot_be_made_up(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unauthenticated):
        sessions.read_session(KEY, change(sessions.make_session(KEY, "t1", NOW)), NOW)


def test_a_session_of_another_cluster_is_none() -> None:
    with pytest.raises(Unauthenticated):
        sessions.read_session(b"other", sessions.make_session(KEY, "t1", NOW), NOW)


def test_a_link_works_once() -> None:
    links = sessions.Links()
    code = links.make("t1", NOW)
    assert links.use(code, NOW) == "t1"
    with pytest.raises(Unauthenticated):
        links.use(code, NOW)


def test_a_link_ends_after_five_minutes() -> None:
    links = sessions.Links()
    code = links.make("t1", NOW)
    with pytest.raises(Unauthenticated):
        links.use(code, NOW + limits.LINK_S * SECOND)


def test_links_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones make room, new ones are refused."""
    monkeypatch.setattr(sessions, "LINKS", 2)
    links = sessions.Links()
    links.make("a", NOW)
    links.make("b", NOW)
    with pytest.raises(TooMany):
        links.make("c", NOW)
    assert links.make("c", NOW + limits.LINK_S * SECOND)


def test_a_session_ends_with_its_token_at_the_latest() -> None:
    cookie = sessions.make_session(KEY, "t1", NOW, until=NOW + 60 * SECOND)
    assert sessions.read_session(KEY, cookie, NOW).expires_at == NOW + 60 * SECOND


def test_without_a_key_nothing_is_signed_and_nothing_is_believed() -> None:
    with pytest.raises(ValueError):
        sessions.make_session(b"", "t1", NOW)
    with pytest.raises(Unauthenticated):
        sessions.read_session(b"", sessions.make_session(KEY, "t1", NOW), NOW)


def test_a_code_for_a_program_is_good_with_what_it_kept_to_itself() -> None:
    """And a code for the page is none for a program."""
    links = sessions.Links()
    challenge = sessions._hash("verifier")
    for verifier in ("", "another"):
        with pytest.raises(Unauthenticated):
            links.use(links.make("t1", NOW, challenge=challenge), NOW, verifier=verifier)
    assert links.use(links.make("t1", NOW, challenge=challenge), NOW, verifier="verifier") == "t1"
    with pytest.raises(Unauthenticated):
        links.use(links.make("t1", NOW), NOW, verifier="verifier")


def test_cookies_of_two_clusters_have_two_names() -> None:
    """Cookies know no port."""
    assert sessions.cookie_name("a", tls=False) != sessions.cookie_name("b", tls=False)
    assert sessions.cookie_name("a", tls=True) == "__Host-" + sessions.cookie_name("a", tls=False)


@pytest.mark.parametrize("host", ["127.0.0.1:7946", "localhost", "LOCALHOST:80", "[::1]:7946", "127.8.8.8", "igor.example:1"])
def test_hosts_that_are_ours(host: str) -> None:
    origins.check_host(host, frozenset({"igor.example"}))


@pytest.mark.parametrize("host", [None, "", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil:80", "[bad"])
def test_hosts_that_are_not(host: str | None) -> None:
    """A page whose name was bound anew to 127.0.0.1 still sends its own name."""
    with pytest.raises(WrongHost):
        origins.check_host(host, frozenset({"igor.example"}))


def test_origins() -> None:
    """Our own page, another node's page, and a stranger's."""
    known = {"http://127.0.0.1:2"}
    assert origins.check_origin(None, "http://127.0.0.1:1", known) is False
    assert origins.check_origin("http://127.0.0.1:1", "http://127.0.0.1:1", known) is False
    assert origins.check_origin("http://127.0.0.1:2", "http://127.0.0.1:1", known) is True
    for stranger in ("http://evil.example", "null", "http://127.0.0.1:3", "https://127.0.0.1:1"):
        with pytest.raises(Denied):
            origins.check_origin(stranger, "http://127.0.0.1:1", known)


PAGES = [
    pytest.param("POST", {"Sec-Fetch-Site": "same-origin"}, True, id="our page"),
    pytest.param("POST", {"Sec-Fetch-Site": "cross-site"}, False, id="a strange page"),
    pytest.param("POST", {"Sec-Fetch-Site": "same-site"}, False, id="another port of this host"),
    pytest.param("GET", {"Sec-Fetch-Site": "same-site"}, False, id="reading from another port"),
    pytest.param("GET", {"Sec-Fetch-Site": "none"}, True, id="typed"),
    pytest.param("GET", {}, True, id="an old browser reads"),
    pytest.param("POST", {}, False, id="a change that does not say from where"),
    pytest.param("POST", {"Origin": "http://127.0.0.1:1"}, True, id="an old browser, its Origin was checked"),
]


@pytest.mark.parametrize("method, headers, allowed", PAGES)
def test_which_page_may_use_a_session(method: str, headers: dict[str, str], allowed: bool) -> None:
    if allowed:
        origins.check_page(method, headers, known_origin=False)
    else:
        with pytest.raises(Denied):
            origins.check_page(method, headers, known_origin=False)


def test_the_page_of_another_node_may() -> None:
    origins.check_page("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:2"}, known_origin=True)


def test_a_link_is_opened_by_nobody_elses_page() -> None:
    """Or somebody would unknowingly work as somebody else."""
    origins.check_visit({})
    origins.check_visit({"Sec-Fetch-Site": "none"})
    for site in ("cross-site", "same-site"):
        with pytest.raises(Denied):
            origins.check_visit({"Sec-Fetch-Site": site})
