"""`igor login --oidc` against real nodes and a provider: the browser brings a code, only the program that asked gets the token."""

from __future__ import annotations

import asyncio
import re
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import click
import pytest

from igor_node import words
from igor_node.cli import browser
from igor_node.oidc_settings import Grant, OidcSettings
from igor_node.words import Role
from tests.unit.http.provider import CLIENT, SECRET, IdentityProvider
from tests.unit.http.world import World


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    async with IdentityProvider() as found:
        yield found


@pytest.fixture
async def world(tmp_path: Path, provider: IdentityProvider) -> AsyncIterator[World]:
    settings = OidcSettings(issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET, grants=(Grant("operators", Role.OPERATOR),))
    async with World(tmp_path, "n1", oidc=settings) as nodes:
        yield nodes


class Opened:
    """A browser of its own, in a thread: visits the address and whatever it is sent to."""

    def __init__(self) -> None:
        self.text = ""
        self.links: list[str] = []

    def visit(self, link: str) -> str:
        jar = CookieJar(DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainLiberal))
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar)).open(link, timeout=10) as answer:
            self.text = answer.read().decode()
        return self.text

    def open(self, link: str) -> bool:
        self.links.append(link)
        threading.Thread(target=self.visit, args=(link,), daemon=True).start()
        return True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()
    monkeypatch.setattr("webbrowser.open", found.open)
    return found


async def log_in(world: World, said: list[str] | None = None, *, open_browser: bool = True) -> str:
    say = (said if said is not None else []).append
    return await asyncio.to_thread(browser.log_in, world.leader.url, None, open_browser=open_browser, say=say)


async def test_the_browser_logs_a_program_in(world: World, opened: Opened) -> None:
    token = await log_in(world)
    me = await world.ask("GET", "/v1/whoami", role=None, Authorization=f"Bearer {token}")
    assert (me.value["name"], me.value["role"], me.value["login"]) == ("ann@example.org", "operator", True)
    assert token not in opened.text and "verifier" not in opened.links[0]


async def test_a_refusal_is_told(world: World, provider: IdentityProvider, opened: Opened) -> None:
    provider.person["groups"] = []
    with pytest.raises(words.Denied, match="in no group"):
        await log_in(world)


async def test_the_code_may_be_carried_by_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is on another machine."""
    said: list[str] = []

    def copied(*arguments: object, **more: object) -> str:
        text = Opened().visit(said[0].splitlines()[-1])
        found = re.search(r"<p><code>([\w-]+)</code></p>", text)
        assert found is not None and more["hide_input"] is True
        return found[1]

    monkeypatch.setattr(click, "prompt", copied)
    token = await log_in(world, said, open_browser=False)
    assert token.startswith("igor1.none.") and token not in "".join(said)


async def test_a_code_that_is_none_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "prompt", lambda *arguments, **more: "made-up")
    with pytest.raises(words.Unauthenticated):
        await log_in(world, open_browser=False)


async def test_nobody_logs_in_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else reaches the port."""
    monkeypatch.setattr(browser, "WAIT_S", 0.3)

    def wrong(link: str) -> bool:
        port = re.search(r"port=(\d+)", link)
        assert port is not None
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/favicon.ico", timeout=5)
        return True

    monkeypatch.setattr("webbrowser.open", wrong)
    with pytest.raises(words.Unavailable, match="nobody logged in"):
        await log_in(world)
