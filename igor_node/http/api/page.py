"""The page: its shell at `/`, its files under a path that names their content, so that a browser may keep them for ever.

Nothing of it is served to somebody unknown: the files would tell which version of Igor runs here. The shell says so in a small page of its own."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from aiohttp import web

from igor_node.http.dispatch import Call
from igor_node.http.permissions import Reach
from igor_node.http.routes import Route, Where
from igor_node.ui.pages import shell_html, static_files
from igor_node.words import NotFound, Unauthenticated

POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
"""Scripts from this node alone. Inline styles are how bars and lanes get their widths; they cannot run anything."""
UNKEPT = {"Cache-Control": "no-store"}
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@lru_cache(maxsize=1)
def files() -> tuple[str, dict[str, tuple[bytes, str]]]:
    """The hash over all files, and the files."""
    found = static_files()
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(name.encode() + b"\0" + found[name][0])
    return digest.hexdigest()[:16], found


CLOSED = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Igor</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color-scheme: light dark }}</style></head>
<body><h1>Igor</h1><p>This page is closed to whoever has not logged in. To open it, type <code>igor ui</code>: it opens a link that logs in once.</p>
{}</body></html>
"""


def closed(call: Call, problem: Unauthenticated) -> web.Response:
    """What a browser is shown that is not logged in. It tells nothing of the cluster."""
    also = "" if call.front.provider is None else '<p>Or <a href="/oidc/login">log in here</a>.</p>'
    return web.Response(text=CLOSED.format(also), status=401, content_type="text/html", headers={**SECURITY, **UNKEPT, "WWW-Authenticate": "Bearer"})


async def shell(call: Call) -> Any:
    base = f"/ui/{files()[0]}"
    return web.Response(body=shell_html(base), content_type="text/html", charset="utf-8", headers={**SECURITY, **UNKEPT})


async def static(call: Call) -> Any:
    known, found = files()
    name = call.request.match_info["path"]
    if name not in found:
        raise NotFound(f"the page has no file {name[:100]}")
    body, content_type = found[name]
    kept = "private, max-age=31536000, immutable" if call.request.match_info["hash"] == known else "no-cache"
    return web.Response(body=body, headers={**SECURITY, "Cache-Control": kept, "Content-Type": content_type})


async def icon(call: Call) -> Any:
    return web.Response(status=302, headers={"Location": f"/ui/{files()[0]}/icon.svg"})


ROUTES = (
    Route(method="GET", path="/", handler=shell, summary="The page", reach=Reach.OPEN, where=Where.HERE, hidden=True, closed=closed),
    Route(
        method="GET", path="/ui/{hash:[0-9a-f]+}/{path:.+}", handler=static, summary="A file of the page", reach=Reach.OPEN, where=Where.HERE,
        hidden=True,
    ),
    Route(method="GET", path="/favicon.ico", handler=icon, summary="The page's icon", reach=Reach.OPEN, where=Where.HERE, hidden=True),
)  # fmt: skip
