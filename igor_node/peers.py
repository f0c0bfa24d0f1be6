"""Other nodes as this one finds them when it starts, and for as long as it knows no leader: who is at an address, and where the others may be.

    ask_to_join     registers this node at the first peer that answers
    ask_around      asks addresses who is there; each answer also tells where that node reaches the others

So it is enough that a node knows one other of its cluster where that one is now, by `D/peers` or by `igor-node join PEER`: nodes that moved while
they could not hear of each other (all at once to new ports, say) hand each other on. An answer is a hint and no more; consensus lets whoever is
there prove who it is. Two answers are news to a start: a node of this very id (a copied data directory), and a higher epoch (a recovered cluster).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from igor_node.words import IgorError, NotFound, Unavailable

JOIN_TIMEOUT_S = 20.0  # a cluster in an election answers 503 for a moment
JOIN_PAUSE_S = 0.5
WHO_TIMEOUT_S = 1.0  # a machine that is gone says nothing at all; a start waits no longer for it
ASKED_AT_ONCE = 20
MOVED_LIMIT = 100  # addresses that are kept besides those of the ledger


Tls = ssl.SSLContext | bool  # True: whatever the URL says, which is a plain one


class RefusedByCluster(IgorError):
    exit_code, title = 4, "The cluster refused this node"


class Neighbour(msgspec.Struct, frozen=True):
    """What `GET /v1/node` says. `addresses`: HOST:PORT of each member as that node reaches it, itself included."""

    id: str
    name: str
    cluster: str
    epoch: int
    addresses: dict[str, str]


async def ask_around(urls: Iterable[str], token: str, tls: Tls = True) -> list[tuple[str, Neighbour]]:
    """Who is there, for each address that answers in time; all are asked at once."""
    timeout = aiohttp.ClientTimeout(total=WHO_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers={"Authorization": f"Bearer {token}"}) as session:
        asked = list(dict.fromkeys(urls))[:ASKED_AT_ONCE]
        answers = await asyncio.gather(*(_who(session, url, tls) for url in asked))
    return [(url, answer) for url, answer in zip(asked, answers, strict=True) if answer is not None]


def whereabouts(answers: Sequence[tuple[str, Neighbour]]) -> dict[str, str]:
    """node -> HOST:PORT. Where a node answered itself goes before what others say of it."""
    said = {node: address for _, found in answers for node, address in sorted(found.addresses.items())}
    return said | {found.id: url.partition("://")[2] for url, found in answers}


async def _who(session: aiohttp.ClientSession, url: str, tls: Tls) -> Neighbour | None:
    try:
        async with session.get(f"{url}/v1/node", ssl=tls) as answer:
            return msgspec.json.decode(await answer.read(), type=Neighbour) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None  # nobody, or something else


async def ask_to_join(peers: Sequence[str], token: str, body: dict[str, Any], *, within_s: float = JOIN_TIMEOUT_S, tls: Tls = True) -> dict[str, Any]:
    """The answer of the first peer that registers the node. Raises RefusedByCluster, or Unavailable that names every peer that did not answer."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), headers={"Authorization": f"Bearer {token}"}) as session:
        while True:
            silent: list[str] = []
            again = False
            for peer in peers:
                try:
                    async with session.post(f"{peer}/v1/nodes", json=body, ssl=tls) as answer:
                        told = await answer.json(content_type=None)
                        if answer.status in (200, 201):
                            return dict(told)
                        if answer.status not in (502, 503):
                            raise RefusedByCluster(f"{peer} refused: {told.get('detail') or answer.status}", hint=told.get("hint") or "")
                        silent.append(f"{peer} ({told.get('detail') or answer.status})")
                        again = True
                except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as problem:
                    silent.append(f"{peer} ({_brief(problem)})")
            if not again or loop.time() > until:
                raise Unavailable(f"no peer could be asked to join: {', '.join(silent)}", hint="is one of them running, and is the address right?")
            await asyncio.sleep(JOIN_PAUSE_S)


async def ask_node(method: str, url: str, token: str, body: Mapping[str, Any] | None, tls: Tls) -> dict[str, Any]:
    """One question of this node's own. Raises Unavailable, or NotFound."""
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers={"Authorization": f"Bearer {token}"}) as session,
            session.request(method, url, json=body, ssl=tls) as answer,
        ):
            told = await answer.json(content_type=None)
            if answer.status == 404:
                raise NotFound(f"{url}: {told.get('detail') or answer.status}")
            if answer.status not in (200, 201):
                raise Unavailable(f"{url}: {told.get('detail') or answer.status}")
            return dict(told)
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as problem:
        raise Unavailable(f"{url}: {_brief(problem)}") from None


def _brief(problem: BaseException) -> str:
    cause = getattr(problem, "os_error", None) or problem
    return str(getattr(cause, "strerror", None) or cause or type(problem).__name__).lower()
