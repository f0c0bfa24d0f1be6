"""Logging in at a provider of identities that runs beside the nodes, and every way in which somebody may try to get in without it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from igor_node.http import oidc, sessions
from igor_node.http.api import oidc as routes
from igor_node.oidc_settings import Grant, OidcSettings
from igor_node.words import SECOND, Role
from tests.unit.http.provider import CLIENT, SECRET, IdentityProvider, elliptic, unsigned
from tests.unit.http.test_http_jobs import DEMAND
from tests.unit.http.world import KEY, Node, World

GRANTS = (
    Grant("admins", Role.ADMIN),
    Grant("shop", Role.DEPLOYER, ("shop",)),
    Grant("web", Role.DEPLOYER, ("web",)),
    Grant("operators", Role.OPERATOR),
)
STATE_COOKIE = sessions.cookie_name("test-cluster", tls=False).replace("igor_session", "igor_oidc")


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    async with IdentityProvider() as found:
        yield found


def settings(provider: IdentityProvider, **fields: Any) -> OidcSettings:
    return OidcSettings(**{"issuer": provider.issuer, "client_id": CLIENT, "client_secret": SECRET, "grants": GRANTS, **fields})


@pytest.fixture
async def world(tmp_path: Path, provider: IdentityProvider) -> AsyncIterator[World]:
    """A leader, a follower, and a node that holds no ledger."""
    async with World(tmp_path, "n1", "n2", "w", workers=["w"], oidc=settings(provider)) as nodes:
        yield nodes


class Browser:
    """Follows redirects as a browser does, with cookies by host; `visits` holds where it was."""

    def __init__(self) -> None:
        self.jar = aiohttp.CookieJar(unsafe=True)
        self.session = aiohttp.ClientSession(cookie_jar=self.jar)
        self.visits: list[str] = []

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.session.close()

    async def visit(self, url: str, until: str | None = None, **headers: str) -> tuple[int, Any, str]:
        """Status, headers and text of the end of the chain, or of the answer that leads to an address with `until` in it."""
        while True:
            self.visits.append(url)
            async with self.session.get(url, allow_redirects=False, headers=headers) as answer:
                location = answer.headers.get("Location", "")
                if not location or (until is not None and until in location):
                    return answer.status, answer.headers, await answer.text()
                url = location if "://" in location else str(answer.url.join(type(answer.url)(location)))

    async def log_in(self, node: Node, **query: str) -> tuple[int, Any, str]:
        self.visits.clear()
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return await self.visit(f"{node.url}/oidc/login" + (f"?{text}" if text else ""))

    async def me(self, node: Node) -> Any:
        async with self.session.get(f"{node.url}/v1/whoami") as answer:
            return await answer.json() if answer.status == 200 else answer.status

    def cookie(self, name: str) -> str:
        return next((cookie.value for cookie in self.jar if cookie.key == name), "")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as found:
        yield found


# --- as it should be


@pytest.mark.parametrize("name", ["n1", "n2"])
async def test_somebody_logs_in(world: World, provider: IdentityProvider, browser: Browser, name: str) -> None:
    """At the leader or a follower; the session is good on every node and ends by itself."""
    status, headers, text = await browser.log_in(world.nodes[name])
    assert status == 200 and 'http-equiv="refresh"' in text, text
    for node in world.nodes.values():
        me = await browser.me(node)
        assert (me["name"], me["role"], me["login"]) == ("ann@example.org", "operator", True)
    cookies = headers.getall("Set-Cookie")
    (session,) = [cookie for cookie in cookies if cookie.startswith(world.cookie)]
    assert "HttpOnly" in session and "SameSite=Strict" in session
    assert any(cookie.startswith(STATE_COOKIE) and "Max-Age=0" in cookie for cookie in cookies)
    world.clock.ahead_ns = settings(provider).session_ns
    assert await browser.me(world.leader) == 401


async def test_a_log_in_is_a_token_that_is_listed_bound_and_revoked(world: World, provider: IdentityProvider, browser: Browser) -> None:
    provider.person["groups"] = ["shop", "web"]
    await browser.log_in(world.leader)
    (row,) = [row for row in (await world.ask("GET", "/v1/tokens")).value["items"] if row["login"]]
    assert (row["role"], row["projects"], row["name"]) == ("deployer", ["shop", "web"], "ann@example.org") and "ann@example.org" in row["made_by"]
    await world.push("other", DEMAND)
    async with browser.session.get(f"{world.leader.url}/v1/jobs/other/{DEMAND['name']}") as answer:
        assert answer.status == 404
    await world.ask("DELETE", f"/v1/tokens/{row['id']}")
    for node in world.nodes.values():
        assert await browser.me(node) == 401


async def test_logging_out_ends_the_log_in_whole(world: World, browser: Browser) -> None:
    await browser.log_in(world.nodes["n2"])
    async with browser.session.delete(f"{world.nodes['n2'].url}/v1/session", headers={"Sec-Fetch-Site": "same-origin"}) as answer:
        assert answer.status == 200
    assert not [row for row in (await world.ask("GET", "/v1/tokens")).value["items"] if row["login"]]


async def test_groups_of_the_user_info_count_where_the_token_has_none(world: World, provider: IdentityProvider, browser: Browser) -> None:
    del provider.person["groups"]
    provider.in_user_info = {"sub": "ann-1", "groups": ["admins"]}
    await browser.log_in(world.leader)
    assert (await browser.me(world.leader))["role"] == "admin"


async def test_new_keys_of_the_provider_are_fetched(world: World, provider: IdentityProvider, browser: Browser) -> None:
    await browser.log_in(world.leader)
    provider.key, provider.algorithm = elliptic(), "ES256"
    world.clock.ahead_ns = 60 * SECOND
    status, _, text = await browser.log_in(world.leader)
    assert status == 200, text


async def test_a_person_who_lost_a_group_loses_what_it_gave(world: World, provider: IdentityProvider, browser: Browser) -> None:
    """At the next log-in, on whatever machine; with no group left nothing is left."""
    provider.person["groups"] = ["admins"]
    await browser.log_in(world.leader)
    async with Browser() as other:
        provider.person["groups"] = ["operators"]
        await other.log_in(world.nodes["n2"])
        assert await browser.me(world.leader) == 401 and (await other.me(world.leader))["role"] == "operator"
        provider.person["groups"] = ["strangers"]
        status, _, text = await browser.log_in(world.leader)
        assert status == 403 and "in no group" in text
        assert await browser.me(world.leader) == 401 and await other.me(world.leader) == 401


async def test_the_page_offers_it_and_a_node_without_it_does_not(world: World, tmp_path: Path) -> None:
    assert "/oidc/login" in (await world.ask("GET", "/", role=None)).value.decode()
    async with World(tmp_path / "other", "n1") as without:
        assert "/oidc/login" not in (await without.ask("GET", "/", role=None)).value.decode()
        for path in ("/oidc/login", "/oidc/callback?code=x&state=y"):
            assert (await without.ask("GET", path, role=None)).status == 401
            assert (await without.ask("GET", path)).status == 404


async def test_a_node_that_holds_no_ledger_sends_the_browser_to_one_that_does(world: World, browser: Browser) -> None:
    status, _, text = await browser.log_in(world.nodes["w"])
    assert status == 200, text
    assert any(visit.startswith((world.nodes["n1"].url, world.nodes["n2"].url)) for visit in browser.visits)
    assert (await browser.me(world.nodes["w"]))["role"] == "operator"


async def test_people_come_back_to_the_address_that_is_set(tmp_path: Path, provider: IdentityProvider, browser: Browser) -> None:
    """So the log-in begins there too: its cookie must be where the browser comes back to."""
    async with World(tmp_path, "n1", oidc=settings(provider, redirect="http://127.0.0.2:1")) as world:
        status, headers, _ = await browser.visit(f"{world.leader.url}/oidc/login", until="127.0.0.2")
        assert (status, headers["Location"]) == (303, "http://127.0.0.2:1/oidc/login")
        assert STATE_COOKIE not in headers.get("Set-Cookie", "")


# --- for a program


def challenge_of(verifier: str) -> str:
    return hashlib.sha256(verifier.encode()).hexdigest()


async def test_a_program_gets_a_token_by_a_code(world: World, browser: Browser) -> None:
    """Once, and only the one that keeps the verifier."""
    link = f"{world.leader.url}/oidc/login?challenge={challenge_of('mine')}&port=12345"
    _, headers, _ = await browser.visit(link, until="127.0.0.1:12345")
    code = parse_qs(urlsplit(headers["Location"]).query)["code"][0]
    made = await world.ask("POST", "/v1/session", {"code": code, "verifier": "mine"}, role=None)
    assert made.status == 201
    me = await world.ask("GET", "/v1/whoami", role=None, node=world.nodes["w"], Authorization=f"Bearer {made.value['token']}")
    assert (me.value["name"], me.value["login"]) == ("ann@example.org", True)
    assert (await world.ask("POST", "/v1/session", {"code": code, "verifier": "mine"}, role=None)).status == 401
    assert not browser.cookie(world.cookie)


@pytest.mark.parametrize("body", [{"verifier": "not-mine"}, {"verifier": ""}, {}])
async def test_a_code_that_was_seen_is_of_no_use(world: World, browser: Browser, body: dict[str, str]) -> None:
    _, _, text = await browser.visit(f"{world.leader.url}/oidc/login?challenge={challenge_of('mine')}")
    found = re.search(r"<p><code>([\w-]+)</code></p>", text)
    assert found is not None
    assert (await world.ask("POST", "/v1/session", {"code": found[1], **body}, role=None)).status == 401


async def test_another_page_cannot_begin_a_programs_log_in(world: World, browser: Browser) -> None:
    status, _, _ = await browser.visit(f"{world.leader.url}/oidc/login?challenge={challenge_of('x')}", **{"Sec-Fetch-Site": "cross-site"})
    assert status == 403


@pytest.mark.parametrize("query", ["challenge=x", "port=12345", "port=80&challenge=" + "0" * 64, "port=99999&challenge=" + "0" * 64])
async def test_a_program_asks_in_order(world: World, query: str, provider: IdentityProvider) -> None:
    answer = await world.ask("GET", f"/oidc/login?{query}", role=None)
    assert answer.status in (400, 401) and "/authorize" not in provider.asked


async def test_a_program_is_told_why_it_gets_nothing(world: World, provider: IdentityProvider, browser: Browser) -> None:
    provider.person["groups"] = []
    _, headers, _ = await browser.visit(f"{world.leader.url}/oidc/login?challenge={challenge_of('x')}&port=12345", until="127.0.0.1:12345")
    assert "in+no+group" in headers["Location"] and "code=" not in headers["Location"]


# --- attacks


async def nobody_is_in(world: World, browser: Browser) -> None:
    assert not browser.cookie(world.cookie) and await browser.me(world.leader) == 401
    assert not [row for row in (await world.ask("GET", "/v1/tokens")).value["items"] if row["login"]]


def other_key(claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, RSAKey.generate_key(2048, {"kid": "k1"}, private=True))


def shared_secret(claims: dict[str, Any]) -> str:
    """Signed with what the node shares with the provider, as if that were a key."""
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET + " " * 32), algorithms=["HS256"])


LIES = [
    pytest.param({"aud": "another"}, None, id="for another audience"),
    pytest.param({"aud": ["another", "third"]}, None, id="for other audiences"),
    pytest.param({"aud": [CLIENT, "another"]}, None, id="for several, and not authorized for this one"),
    pytest.param({"aud": [CLIENT, "another"], "azp": "another"}, None, id="authorized for another"),
    pytest.param({"aud": None}, None, id="for nobody"),
    pytest.param({"iss": "http://127.0.0.1:1"}, None, id="of another issuer"),
    pytest.param({"iss": None}, None, id="of no issuer"),
    pytest.param({"nonce": "another"}, None, id="for another log-in"),
    pytest.param({"nonce": None}, None, id="for no log-in"),
    pytest.param({"exp": 1_700_000_000}, None, id="expired"),
    pytest.param({"exp": None}, None, id="without an end"),
    pytest.param({"exp": "soon"}, None, id="with an end that is none"),
    pytest.param({"nbf": 4_000_000_000}, None, id="not good yet"),
    pytest.param({"iat": 4_000_000_000}, None, id="made in the future"),
    pytest.param({"iat": None}, None, id="made at no time"),
    pytest.param({"sub": None}, None, id="of nobody"),
    pytest.param({"sub": ""}, None, id="of an empty name"),
    pytest.param({"sub": 5}, None, id="of a number"),
    pytest.param({}, unsigned, id="not signed"),
    pytest.param({}, other_key, id="signed with another key"),
    pytest.param({}, shared_secret, id="signed with a shared secret"),
    pytest.param({}, lambda claims: "x.y.z", id="not a token"),
    pytest.param({}, lambda claims: "", id="nothing"),
    pytest.param({}, lambda claims: "a" * 100_000, id="too much of nothing"),
]


@pytest.mark.parametrize("claims, make", LIES)
async def test_an_id_token_that_is_not_for_this_log_in(
    world: World, provider: IdentityProvider, browser: Browser, claims: dict[str, Any], make: Callable[[dict[str, Any]], str] | None
) -> None:
    provider.claims, provider.make_token = claims, make
    status, _, text = await browser.log_in(world.leader)
    assert status == 401 and provider.redeemed == 1, text
    await nobody_is_in(world, browser)


async def test_a_key_set_with_shared_secrets_in_it_changes_nothing(world: World, provider: IdentityProvider, browser: Browser) -> None:
    shared = OctKey.import_key("k" * 32, {"kid": "k3"})
    provider.published = lambda: {"keys": [provider.key.as_dict(private=False), shared.as_dict(private=True)]}
    provider.make_token = lambda claims: jwt.encode({"alg": "HS256", "kid": "k3"}, claims, shared, algorithms=["HS256"])
    status, _, _ = await browser.log_in(world.leader)
    assert status == 401
    await nobody_is_in(world, browser)


async def back_from(world: World, browser: Browser) -> str:
    """The address at which the provider sends the browser back, not visited yet."""
    _, headers, _ = await browser.visit(f"{world.leader.url}/oidc/login", until="/oidc/callback")
    return str(headers["Location"])


async def test_a_wrong_state(world: World, browser: Browser, provider: IdentityProvider) -> None:
    back = await back_from(world, browser)
    state = parse_qs(urlsplit(back).query)["state"][0]
    for wrong in ("x" * 43, "", state[:-1]):
        status, _, _ = await browser.visit(back.replace(f"state={state}", f"state={wrong}"))
        assert status == 401 and provider.redeemed == 0
    await nobody_is_in(world, browser)


async def test_a_log_in_that_another_browser_began(world: World, browser: Browser, provider: IdentityProvider) -> None:
    """An attacker sends his own way back to a victim, who would work as the attacker; or takes the victim's."""
    back = await back_from(world, browser)
    async with Browser() as victim:
        status, _, _ = await victim.visit(back)
        assert status == 401
        await back_from(world, victim)  # has begun one of its own
        status, _, _ = await victim.visit(back)
        assert status == 401 and provider.redeemed == 0
        await nobody_is_in(world, victim)


async def test_a_code_that_is_replayed(world: World, browser: Browser, provider: IdentityProvider) -> None:
    """The way back is good once, also for who kept the cookie; at another node the provider knows that its code was used."""
    back = await back_from(world, browser)
    cookie = browser.cookie(STATE_COOKIE)
    assert (await browser.visit(back))[0] == 200
    async with Browser() as thief:
        for node in (world.nodes["n1"], world.nodes["n2"]):
            status, _, _ = await thief.visit(back.replace(world.leader.url, node.url), Cookie=f"{STATE_COOKIE}={cookie}")
            assert status == 401
        assert not thief.cookie(world.cookie) and provider.redeemed == 1


async def test_a_code_of_another_log_in(world: World, browser: Browser, provider: IdentityProvider) -> None:
    """PKCE: a code that was stolen is of no use with another state."""
    async with Browser() as victim:
        stolen = parse_qs(urlsplit(await back_from(world, victim)).query)["code"][0]
    mine = await back_from(world, browser)
    code = parse_qs(urlsplit(mine).query)["code"][0]
    status, _, _ = await browser.visit(mine.replace(code, stolen))
    assert status == 401 and provider.redeemed == 0
    await nobody_is_in(world, browser)


async def test_a_way_back_that_comes_too_late(world: World, browser: Browser) -> None:
    back = await back_from(world, browser)
    world.clock.ahead_ns = (oidc.STATE_S + 1) * SECOND
    assert (await browser.visit(back))[0] == 401
    await nobody_is_in(world, browser)


@pytest.mark.parametrize("cookie", ["", "x", "o1." + "a" * 43 + ".9999999999...." + "0" * 64, "o1." + "a" * 43 + ".9999999999..." + "0" * 64])
async def test_a_state_that_was_made_up(world: World, browser: Browser, cookie: str) -> None:
    status, _, _ = await browser.visit(f"{world.leader.url}/oidc/callback?code=x&state={'a' * 43}", Cookie=f"{STATE_COOKIE}={cookie}")
    assert status == 401


async def test_another_provider_sends_the_browser_back(world: World, browser: Browser, provider: IdentityProvider) -> None:
    back = await back_from(world, browser)
    assert (await browser.visit(back.replace(f"iss={provider.issuer}", "iss=http://127.0.0.1:1")))[0] == 401 and provider.redeemed == 0


async def test_what_the_provider_says_is_text(world: World, browser: Browser) -> None:
    """Also where it is a script."""
    back = (await back_from(world, browser)).replace("code=", "error=denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E&x=")
    status, headers, text = await browser.visit(back)
    assert status == 403 and "<script>" not in text and "&lt;script&gt;" in text and "default-src 'self'" in headers["Content-Security-Policy"]


async def test_user_info_of_another_person(world: World, provider: IdentityProvider, browser: Browser) -> None:
    del provider.person["groups"]
    provider.in_user_info = {"sub": "somebody-else", "groups": ["admins"]}
    assert (await browser.log_in(world.leader))[0] == 401
    await nobody_is_in(world, browser)


@pytest.mark.parametrize("groups", [None, 5, {"admins": True}, [["admins"]], [None], "", "Admins", ["admins "]])
async def test_groups_that_give_nothing(world: World, provider: IdentityProvider, browser: Browser, groups: Any) -> None:
    provider.person["groups"] = groups
    assert (await browser.log_in(world.leader))[0] == 403
    await nobody_is_in(world, browser)


async def test_only_holders_of_the_key_tell_of_log_ins(world: World) -> None:
    """The token of a node, stolen from a worker, makes nobody an admin."""
    body = {"token": "evil", "hash": "h", "subject": "s", "name": "n", "role": "admin", "projects": [], "expires_at": 2 * 10**18}
    for seal in ("", "0" * 64):
        answer = await world.ask("POST", "/v1/logins", body, role=Role.NODE, Igor_Seal=seal)
        assert answer.status == 403
    assert (await world.ask("POST", "/v1/logins", body, Igor_Seal="0" * 64)).status == 403
    assert routes.seal(KEY, b"x") != routes.seal(b"another key", b"x")


async def test_failed_ways_back_are_bounded(world: World, browser: Browser) -> None:
    headers = {"Igor-Client": "10.0.0.1", "Igor-Forwarded": "1"}
    statuses = [(await world.ask("GET", "/oidc/callback?code=x&state=y", role=None, **headers)).status for _ in range(22)]
    assert statuses[0] == 401 and statuses[-1] == 429


# --- a provider that is ill


async def test_a_provider_that_is_silent_holds_nobody_up(world: World, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node answers all others meanwhile, few wait for the provider, and each is told in time."""
    monkeypatch.setattr(oidc, "PROVIDER_S", 1.5)
    provider.silent = {"/.well-known/openid-configuration"}
    waiting = [asyncio.ensure_future(world.ask("GET", "/oidc/login", role=None)) for _ in range(oidc.AT_ONCE)]
    await provider.crowded(oidc.AT_ONCE)
    assert (await world.ask("GET", "/oidc/login", role=None)).status == 429
    assert (await world.ask("GET", "/v1/jobs")).status == 200 and (await world.ask("POST", "/v1/tokens", {"role": "viewer"})).status == 201
    assert not any(one.done() for one in waiting)
    assert [(await one).status for one in waiting] == [503] * oidc.AT_ONCE


ILLNESSES = [
    pytest.param("/.well-known/openid-configuration", web.Response(status=500), id="description: an error"),
    pytest.param("/.well-known/openid-configuration", web.Response(text="{"), id="description: no JSON"),
    pytest.param("/.well-known/openid-configuration", web.Response(text="[" * 100_000), id="description: a deep one"),
    pytest.param("/.well-known/openid-configuration", web.Response(text=" " * 300_000), id="description: a long one"),
    pytest.param("/.well-known/openid-configuration", web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), id="a redirect"),
    pytest.param("/keys", web.Response(status=500), id="keys: an error"),
    pytest.param("/keys", web.Response(text='{"keys": [5]}'), id="keys: none"),
    pytest.param("/keys", web.Response(text='{"keys": [{"kty": "RSA", "n": "!"}]}'), id="keys: a broken one"),
    pytest.param("/token", web.Response(text="{}"), id="tokens: none"),
    pytest.param("/token", web.Response(text='{"id_token": 5}'), id="tokens: no text"),
]


@pytest.mark.parametrize("path, answer", ILLNESSES)
async def test_a_provider_that_answers_nonsense(world: World, provider: IdentityProvider, browser: Browser, path: str, answer: web.Response) -> None:
    provider.broken[path] = answer
    status, _, _ = await browser.log_in(world.leader)
    assert status == 503
    await nobody_is_in(world, browser)


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "http://127.0.0.1:1"}, {"token_endpoint": "file:///etc/passwd"}, {"jwks_uri": "ftp://x/"}, {"token_endpoint": "http:///x"}],
)
async def test_a_provider_that_describes_another(world: World, provider: IdentityProvider, browser: Browser, metadata: dict[str, str]) -> None:
    provider.metadata = metadata
    assert (await browser.log_in(world.leader))[0] == 503


async def test_a_provider_that_is_down(world: World, browser: Browser) -> None:
    front_settings = world.leader.services.oidc
    assert front_settings is not None
    async with World(world.folder / "alone", "n1", oidc=OidcSettings(issuer="http://127.0.0.1:1", client_id="x", grants=GRANTS)) as alone:
        assert (await browser.log_in(alone.leader))[0] == 503
        assert (await alone.ask("GET", "/v1/jobs")).status == 200


async def test_without_a_leader_nobody_logs_in_and_is_told_so(world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "WRITE_WITHIN_S", 0.3)
    back = await back_from(world, browser)
    world.cluster.lead(None)
    status, headers, _ = await browser.visit(back)
    assert status == 503 and headers["Retry-After"]


async def test_a_log_in_that_the_leader_did_unheard_is_one(world: World, browser: Browser) -> None:
    world.leader.replica.hide_next = True
    assert (await browser.log_in(world.nodes["n2"]))[0] == 200
    assert len([row for row in (await world.ask("GET", "/v1/tokens")).value["items"] if row["login"]]) == 1
