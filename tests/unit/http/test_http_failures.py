"""Failed log-ins: bounded per address and for the node, in memory too, and nobody else is kept out by them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from igor_node.http import auth, failures, identity
from igor_node.http.failures import BURST, REFILL_S, Failures, host_part
from igor_node.http.identity import CLIENT
from igor_node.ledger import commands
from igor_node.words import SECOND, Role, TooMany
from tests.unit.http.world import TOKENS, World, node_token


class Watch:
    def __init__(self) -> None:
        self.now = 10**18

    def __call__(self) -> int:
        return self.now


def fail(found: Failures, address: str, times: int) -> None:
    for _ in range(times):
        found.check(address)
        found.count(address)


def test_an_address_may_fail_so_often_and_then_now_and_then() -> None:
    watch = Watch()
    found = Failures(watch)
    fail(found, "10.0.0.1", BURST)
    with pytest.raises(TooMany) as caught:
        found.check("10.0.0.1")
    assert 1 <= caught.value.retry_after_s <= REFILL_S + 1
    found.check("10.0.0.2")
    watch.now += int(REFILL_S * SECOND)
    fail(found, "10.0.0.1", 1)
    with pytest.raises(TooMany):
        found.check("10.0.0.1")
    watch.now += int(10 * BURST * REFILL_S * SECOND)
    fail(found, "10.0.0.1", BURST)
    with pytest.raises(TooMany):
        found.check("10.0.0.1")


def test_addresses_are_forgotten_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "ADDRESSES", 3)
    found = Failures(Watch())
    fail(found, "10.0.0.1", BURST)
    for n in range(2, 5):
        found.count(f"10.0.0.{n}")
    assert len(found._addresses) == 3
    found.check("10.0.0.1")


def test_the_node_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "NODE_BURST", 5)
    watch = Watch()
    found = Failures(watch)
    for n in range(5):
        found.check_node()
        found.count(f"10.0.0.{n}")
    with pytest.raises(TooMany):
        found.check_node()
    watch.now += SECOND
    found.check_node()


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "::2", False),
        ("", "x", False),
    ],
)
def test_what_counts_as_one_host(one: str, other: str, same: bool) -> None:
    assert (host_part(one) == host_part(other)) is same


# --- at a node


def from_address(address: str, token: str) -> dict[str, str]:
    """As a node forwards it: without TLS believed from this machine."""
    return {"Authorization": f"Bearer {token}", CLIENT: address, "Igor-Forwarded": "1"}


WRONG = "igor1.none.t-admin.wrong"


async def test_an_address_that_fails_too_often_is_429(world: World) -> None:
    """A good token still works from another address, and from this one where the node has seen it before."""
    bad = from_address("10.0.0.1", WRONG)
    seen, unseen = TOKENS[Role.VIEWER], TOKENS[Role.OPERATOR]
    assert (await world.ask("GET", "/v1/jobs", role=None, **from_address("10.0.0.1", seen))).status == 200
    statuses = Counter([(await world.ask("GET", "/v1/jobs", role=None, **bad)).status for _ in range(BURST + 5)])
    assert statuses == {401: BURST, 429: 5}
    refused = await world.ask("GET", "/v1/jobs", role=None, **from_address("10.0.0.1", unseen))
    assert refused.status == 429 and int(refused.headers["Retry-After"]) >= 1
    assert (await world.ask("GET", "/v1/jobs", role=None, **from_address("10.0.0.2", unseen))).status == 200
    world.cluster.do(identity_changes())
    assert (await world.ask("GET", "/v1/jobs", role=None, **from_address("10.0.0.1", seen))).status == 200
    world.clock.ahead_ns += int(REFILL_S * SECOND)
    assert (await world.ask("GET", "/v1/jobs", role=None, **from_address("10.0.0.1", unseen))).status == 200


def identity_changes() -> Any:
    """Some token is made: what a node remembers of tokens is forgotten."""
    from igor_node.ledger.commands import CreateToken

    return CreateToken(token="other", hash="other", role="viewer")


async def test_codes_and_cookies_count_too(world: World) -> None:
    headers = {CLIENT: "10.0.0.1", "Igor-Forwarded": "1"}
    name = world.cookie
    tries = [("POST", "/v1/session", {"code": "x"}, {}), ("GET", "/login?code=x", None, {}), ("GET", "/v1/jobs", None, {"Cookie": f"{name}=made-up"})]
    for n in range(BURST):
        method, path, body, more = tries[n % 3]
        assert (await world.ask(method, path, body, role=None, **headers, **more)).status == 401
    for method, path, body, more in tries:
        assert (await world.ask(method, path, body, role=None, **headers, **more)).status == 429


async def test_what_is_no_failure_is_not_counted(world: World) -> None:
    """A page whose session is over goes on asking, and so does a probe without a token."""
    made = (await world.ask("POST", "/v1/tokens", {"role": "viewer"})).value
    await world.ask("DELETE", f"/v1/tokens/{made['id']}")
    for _ in range(BURST + 5):
        for headers in ({"Authorization": f"Bearer {made['token']}"}, {}):
            answer = await world.ask("GET", "/v1/jobs", role=None, **headers)
            assert answer.status == 401
    assert (await world.ask("GET", "/v1/jobs", role=Role.OPERATOR)).status == 200


async def test_a_clients_word_for_its_address_is_not_believed(world: World) -> None:
    for n in range(BURST):
        await world.ask("GET", "/v1/jobs", role=None, Authorization=f"Bearer {WRONG}", **{CLIENT: f"10.0.0.{n}"})
    assert (await world.ask("GET", "/v1/jobs", role=None, Authorization=f"Bearer {WRONG}", **{CLIENT: "10.0.0.99"})).status == 429


async def test_failures_at_a_follower_count_at_the_leader_for_the_client(three: World) -> None:
    """And never for the node that asked on its behalf."""
    for _ in range(BURST):
        assert (await three.ask("GET", "/v1/jobs", node=three.follower, role=None, Authorization=f"Bearer {WRONG}")).status == 401
    at_leader = await three.ask("GET", "/v1/jobs", role=None, **from_address("127.0.0.1", WRONG))
    assert at_leader.status == 429


# --- an unknown id is as much work as a wrong secret


async def test_an_unknown_id_costs_what_a_wrong_secret_costs(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many looks into the ledger, comparisons and questions to the leader, whether the id was ever seen here or not."""
    work: Counter[str] = Counter()

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            work[name] += 1
            return function(*arguments, **more)

        return call

    monkeypatch.setattr(identity, "find_token", counted("query", identity.find_token))
    monkeypatch.setattr(auth, "same", counted("comparison", auth.same))
    asked = []
    await three.ask("GET", "/v1/jobs", node=three.follower, role=Role.ADMIN)  # its id is at hand now
    for token in (WRONG, "igor1.none.nobody.wrong", "igor1.none.t-deployer.wrong"):
        work.clear()
        assert (await three.ask("GET", "/v1/jobs", node=three.follower, role=None, Authorization=f"Bearer {token}")).status == 401
        asked.append(dict(work))
    assert asked[0] == asked[1] == asked[2] and asked[0]["query"] == 2, asked


async def test_a_ledger_that_is_behind_its_own_log_calls_no_token_wrong(world: World) -> None:
    """As after a power cut of all: good tokens are not known for a moment, and whoever came back with one at once was locked out for minutes."""
    world.leader.replica.behind = 1

    async def asked() -> int:
        return (await world.ask("GET", "/v1/jobs", role=None, Authorization=f"Bearer {WRONG}")).status

    assert {await asked() for _ in range(3 * BURST)} == {503}
    world.cluster.do(commands.CreateToken(token="t", hash="h", role="viewer"))
    assert await asked() == 401
    assert (await world.ask("GET", "/v1/jobs", role=Role.VIEWER)).status == 200


async def test_what_was_looked_up_too_early_is_no_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger catches up between the look and the verdict."""
    world.leader.replica.behind = 1
    look = identity.find_token

    def slow(connection: Any, token: str) -> Any:
        found = look(connection, token)
        world.cluster.index += world.leader.replica.behind
        world.leader.replica.behind = 0
        return found

    monkeypatch.setattr(identity, "find_token", slow)
    assert (await world.ask("GET", "/v1/jobs", role=None, Authorization=f"Bearer {WRONG}")).status == 503
    assert (await world.ask("GET", "/v1/jobs", role=None, Authorization=f"Bearer {WRONG}")).status == 401


async def test_a_node_without_a_ledger_calls_no_forwarded_token_wrong(three: World) -> None:
    """After a power cut the nodes ask each other for theirs: that is nobody's failure."""
    three.follower.holds_ledger = False
    for _ in range(BURST + 5):
        asked = await three.ask("GET", "/v1/whoami", node=three.follower, role=None, **from_address("10.0.0.1", WRONG))
        assert asked.status == 503


async def test_a_worker_gives_its_output_to_any_node(tmp_path: Path) -> None:
    """It knows no tokens itself, so it asks for that of the node which asks on a reader's behalf."""
    async with World(tmp_path, "n1", "n2", "w", workers=["w"]) as world:
        world.nodes["w"].output.lines["a", 1] = ["line"]
        headers = {"Authorization": f"Bearer {node_token('n2')}", "Igor-Forwarded": "1"}
        answer = await world.ask("GET", "/v1/nodes/logs?attempt=a&try=1", node=world.nodes["w"], role=None, **headers)
        assert answer.status == 200, answer
        assert [line["text"] for line in answer.value["lines"]] == ["line"]
