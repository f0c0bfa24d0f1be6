"""The page's login: a link works once, its cookie is good on every node, ends with its token, and no strange page can use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from igor_node.http import sessions
from igor_node.words import Role
from tests.unit.http.world import KEY, World

NAME = sessions.cookie_name("test-cluster", tls=False)


async def log_in(world: World, role: Role = Role.OPERATOR) -> str:
    """The cookie's value."""
    link = (await world.ask("POST", "/v1/session/links", role=role)).value["url"]
    path = link.removeprefix(world.leader.url)
    opened = await world.ask("GET", path, role=None)
    assert (opened.status, opened.headers["Location"]) == (303, "/")
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    world.session.cookie_jar.clear()
    return cookie.split(";")[0].split("=", 1)[1]


async def test_a_link_logs_in_once(world: World) -> None:
    link = (await world.ask("POST", "/v1/session/links", role=Role.VIEWER)).value["url"]
    path = link.removeprefix(world.leader.url)
    assert (await world.ask("GET", path, role=None)).status == 303
    world.session.cookie_jar.clear()
    assert (await world.ask("GET", path, role=None)).status == 401


async def test_the_browser_that_used_a_link_may_open_it_again(world: World) -> None:
    link = (await world.ask("POST", "/v1/session/links")).value["url"]
    path = link.removeprefix(world.leader.url)
    for _ in range(2):
        assert (await world.ask("GET", path, role=None)).status == 303


async def test_the_same_by_post(world: World) -> None:
    """`POST /v1/session` with a token makes a link, with the link's code a session."""
    link = (await world.ask("POST", "/v1/session", {})).value["url"]
    made = await world.ask("POST", "/v1/session", {"code": link.partition("code=")[2]}, role=None)
    assert made.status == 201 and made.headers["Set-Cookie"].startswith(f"{NAME}=")
    assert (await world.ask("GET", "/v1/whoami", role=None)).status == 200
    assert (await world.ask("DELETE", "/v1/session", role=None, Sec_Fetch_Site="same-origin")).status == 200
    assert (await world.ask("GET", "/v1/whoami", role=None)).status == 401


@pytest.mark.parametrize("body", [{"code": "made-up"}, {}])
async def test_no_code_and_no_token_is_401(world: World, body: dict[str, str]) -> None:
    assert (await world.ask("POST", "/v1/session", body, role=None)).status == 401


async def test_a_session_has_the_role_of_its_token(world: World) -> None:
    cookie = await log_in(world, Role.OPERATOR)
    me = await world.ask("GET", "/v1/whoami", role=None, Cookie=f"{NAME}={cookie}")
    assert (me.value["role"], me.value["token"]) == ("operator", "t-operator")
    assert (await world.ask("GET", "/v1/tokens", role=None, Cookie=f"{NAME}={cookie}")).status == 403


async def test_a_session_is_good_on_every_node_and_for_writes(three: World) -> None:
    """A page that lost its node goes on at the next one; a write through a follower keeps its caller."""
    cookie = await log_in(three, Role.ADMIN)
    for node in three.nodes.values():
        headers = {"Cookie": f"{NAME}={cookie}", "Origin": node.url}
        assert (await three.ask("GET", "/v1/jobs", node=node, role=None, **headers)).status == 200
        assert (await three.ask("POST", "/v1/tokens", {"role": "viewer"}, node=node, role=None, **headers)).status == 201


async def test_a_session_ends_with_its_token(world: World) -> None:
    cookie = await log_in(world, Role.OPERATOR)
    await world.ask("DELETE", "/v1/tokens/t-operator")
    assert (await world.ask("GET", "/v1/jobs", role=None, Cookie=f"{NAME}={cookie}")).status == 401


async def test_a_session_of_a_token_that_is_not_there_is_none(world: World) -> None:
    cookie = sessions.make_session(KEY, "nobody", 10**18 * 3)
    assert (await world.ask("GET", "/v1/jobs", role=None, Cookie=f"{NAME}={cookie}")).status == 401


async def test_a_strange_page_cannot_use_a_session(world: World) -> None:
    cookie = await log_in(world)
    answer = await world.ask("POST", "/v1/schedule", {"every": "1m"}, role=None, Cookie=f"{NAME}={cookie}", Origin="http://127.0.0.1:9")
    assert answer.status == 403


FORGED = [
    pytest.param("POST", {"Sec-Fetch-Site": "cross-site"}, 403, id="a strange page"),
    pytest.param("POST", {"Sec-Fetch-Site": "same-site"}, 403, id="a page of another port of this host"),
    pytest.param("GET", {"Sec-Fetch-Site": "same-site"}, 403, id="which may not read either"),
    pytest.param("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, 403, id="with its origin"),
    pytest.param("POST", {"Origin": "null"}, 403, id="a page in a sandbox"),
    pytest.param("POST", {}, 403, id="who does not say from where"),
    pytest.param("POST", {"Sec-Fetch-Site": "same-origin"}, 201, id="our page"),
    pytest.param("GET", {"Sec-Fetch-Site": "none"}, 200, id="typed into the address bar"),
    pytest.param("POST", {"Host": "rebound.example", "Sec-Fetch-Site": "same-origin"}, 421, id="a name that was bound anew"),
    pytest.param("POST", {"Host": "rebound.example", "Origin": "http://rebound.example", "Sec-Fetch-Site": "same-origin"}, 421, id="with its origin"),
]


@pytest.mark.parametrize("method, headers, status", FORGED)
@pytest.mark.parametrize("name", ["n1", "w"])
async def test_which_requests_a_session_is_good_for(tmp_path: Path, method: str, headers: dict[str, str], status: int, name: str) -> None:
    """Also where a node that holds no ledger sends it on."""
    async with World(tmp_path, "n1", "w", workers=["w"]) as world:
        cookie = await log_in(world, Role.ADMIN)
        path, body = ("/v1/tokens", {"role": "viewer"}) if method == "POST" else ("/v1/tokens", None)
        before = world.cluster.index
        answer = await world.ask(method, path, body, node=world.nodes[name], role=None, **{"Cookie": f"{NAME}={cookie}", **headers})
        assert answer.status == status and (world.cluster.index == before) is (status != 201)


async def test_a_token_needs_no_proof_of_its_page(world: World) -> None:
    """Browsers never send it by themselves."""
    assert (await world.ask("POST", "/v1/tokens", {"role": "viewer"}, Sec_Fetch_Site="cross-site")).status == 201


async def test_another_page_cannot_log_somebody_in(world: World) -> None:
    """The code is not used up by the try."""
    path = (await world.ask("POST", "/v1/session/links")).value["url"].removeprefix(world.leader.url)
    assert (await world.ask("GET", path, role=None, Sec_Fetch_Site="cross-site")).status == 403
    assert (await world.ask("GET", path, role=None, Sec_Fetch_Site="none")).status == 303


async def test_two_clusters_on_one_host_keep_their_sessions(tmp_path: Path) -> None:
    """One browser, which sends both cookies to both."""
    async with World(tmp_path / "a", "n1", cluster="first") as one, World(tmp_path / "b", "n1", cluster="second") as other:
        for world in (one, other):
            link = (await world.ask("POST", "/v1/session/links")).value["url"]
            async with one.session.get(link, allow_redirects=False) as answer:
                assert answer.status == 303
        for world in (one, other):
            async with one.session.get(f"{world.leader.url}/v1/whoami") as answer:
                assert answer.status == 200
        async with one.session.delete(f"{one.leader.url}/v1/session", headers={"Sec-Fetch-Site": "same-origin"}) as answer:
            assert answer.status == 200
        for world, status in ((one, 401), (other, 200)):
            async with one.session.get(f"{world.leader.url}/v1/whoami") as answer:
                assert answer.status == status


async def test_without_auth_everybody_is_admin(tmp_path: Path) -> None:
    """`--auth off`, on loopback alone; strange pages and hosts are refused all the same."""
    async with World(tmp_path, "n1", "n2", auth=False) as world:
        assert (await world.ask("POST", "/v1/tokens", {"role": "viewer"}, node=world.follower, role=None)).status == 201
        assert (await world.ask("GET", "/v1/jobs", role=None, Origin="http://evil.example")).status == 403
        assert (await world.ask("GET", "/v1/jobs", role=None, Host="evil.example")).status == 421
        assert (await world.ask("POST", "/v1/session/links", role=None)).value["url"].endswith("/")
