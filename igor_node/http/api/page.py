"""The page: its shell at `/`, its files under a path that names their content, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from aiohttp import web

from igor_node.http.dispatch import Call
from igor_node.http.routes import Route, Where
from igor_node.ui.pages import shell_html, static_files
from igor_node.words import NotFound

POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
"""Scripts from this node alone. Inline styles are how bars and lanes get their widths; they cannot run anything."""
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


async def shell(call: Call) -> Any:
    base = f"/ui/{files()[0]}"
    return web.Response(body=shell_html(base), content_type="text/html", charset="utf-8", headers={**SECURITY, "Cache-Control": "no-cache"})


async def static(call: Call) -> Any:
    known, found = files()
    name = call.request.match_info["path"]
    if name not in found:
        raise NotFound(f"the page has no file {name[:100]}")
    body, content_type = found[name]
    kept = "public, max-age=31536000, immutable" if call.request.match_info["hash"] == known else "no-cache"
    return web.Response(body=body, headers={**SECURITY, "Cache-Control": kept, "Content-Type": content_type})


async def icon(call: Call) -> Any:
    return web.Response(status=302, headers={"Location": f"/ui/{files()[0]}/icon.svg"})


ROUTES = (
    Route(method="GET", path="/", handler=shell, summary="The page", role=None, where=Where.HERE, hidden=True),
    Route(
        method="GET", path="/ui/{hash:[0-9a-f]+}/{path:.+}", handler=static, summary="A file of the page", role=None, where=Where.HERE, hidden=True,
    ),
    Route(method="GET", path="/favicon.ico", handler=icon, summary="The page's icon", role=None, where=Where.HERE, hidden=True),
)  # fmt: skip
