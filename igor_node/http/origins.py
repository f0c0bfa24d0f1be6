"""Where a request may come from: by which name the node was asked (`Host`), and which page a browser sends it for (`Origin`, `Sec-Fetch-Site`).

`Host` must be a name of ours, so that no web page can reach a node by DNS rebinding. `Origin`, where a browser sends one, must be this node or
another of its cluster. A session of the page is sent along by the browser, whatever page asks; so a request that brings one must come from our own
page, and say so where it changes something. A token is never sent by a browser of its own accord: requests with one need no such proof.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from igor_node.words import Denied, WrongHost

SAFE = frozenset({"GET", "HEAD"})
OURS = frozenset({"same-origin", "none"})  # "none": typed, a bookmark, or a link of another program
OWN_PAGE = "open the page that the node serves itself: igor ui"


def check_host(host: str | None, ours: frozenset[str]) -> None:
    """`host` is the Host header. Its port may differ (a forwarded port); its name may not."""
    name = _host_name(host or "")
    if not name or not (name in ours or name == "localhost" or _is_loopback(name)):
        raise WrongHost(f'"{host or ""}" is not a name of this node', hint="ask it by its address")


def host_of(address: str) -> str:
    """The host name of a base URL or HOST:PORT."""
    return _host_name(address.partition("://")[2] or address)


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


@lru_cache(maxsize=1_000)
def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_origin(origin: str | None, here: str, known: Iterable[str]) -> bool:
    """Whether `origin` is another node of ours, whose page may read our answers. `here`: scheme and Host of the request. Raises Denied for a
    stranger's page."""
    if origin is None or origin == here:
        return False
    if origin in known:
        return True
    raise Denied(f"a page of {origin[:200]} may not use this node", hint=OWN_PAGE)


def check_page(method: str, headers: Mapping[str, str], *, known_origin: bool) -> None:
    """Of a request with a session: that our own page sent it. `known_origin`: its Origin is another node of this cluster. Raises Denied."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None and site not in OURS and not known_origin:
        raise Denied("another page may not use this session", hint=OWN_PAGE)
    if site is None and method not in SAFE and "Origin" not in headers:
        raise Denied("a session is for the page: this request does not say which page sends it", hint="programs use a token: igor token create")


def check_visit(headers: Mapping[str, str]) -> None:
    """Of a link that logs in: that nobody else's page opened it, or a person would unknowingly work as somebody else. Raises Denied."""
    if headers.get("Sec-Fetch-Site") not in (None, *OURS):
        raise Denied("another page opened this link", hint="copy it into the browser's address bar")
