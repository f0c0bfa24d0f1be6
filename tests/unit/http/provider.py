"""A small provider of identities on a port of its own: OpenID Connect's authorization code with PKCE, and every way in which one can be wrong.

`async with IdentityProvider() as provider:` serves. `person` logs in at once, as with a single sign-on. The knobs below make it lie.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT = "igor"
SECRET = "the client's secret"


class IdentityProvider:
    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "ann-1", "email": "ann@example.org", "groups": ["operators"]}
        self.key: Any = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"}, private=True)
        self.algorithm = "RS256"
        self.published: Callable[[], dict[str, Any]] = lambda: {"keys": [self.key.as_dict(private=False)]}
        self.claims: dict[str, Any] = {}  # instead of the right ones; None leaves one out
        self.make_token: Callable[[dict[str, Any]], str] | None = None  # instead of one that is signed
        self.in_user_info: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.silent: set[str] = set()  # paths at which nothing is ever answered
        self.broken: dict[str, web.Response] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.redeemed = 0
        self._came = asyncio.Event()

    async def __aenter__(self) -> IdentityProvider:
        app = web.Application(middlewares=[self._watch])
        app.router.add_get("/.well-known/openid-configuration", self._describe)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/userinfo", self._user_info)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.issuer = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    async def crowded(self, count: int) -> None:
        """Until so many questions have come."""
        while len(self.asked) < count:
            self._came.clear()
            await self._came.wait()

    @web.middleware
    async def _watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        self._came.set()
        if request.path in self.silent:
            await asyncio.Event().wait()
        if request.path in self.broken:
            return self.broken[request.path]
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _describe(self, request: web.Request) -> web.Response:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "more": ["than", "is needed"],
        }
        return web.json_response({**found, **self.metadata})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT and asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = f"{asked['redirect_uri']}?code={code}&state={asked['state']}&session_state=what-others-need&iss={self.issuer}"
        return web.Response(status=302, headers={"Location": back})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form["code"]), None)  # good once
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest()).decode().rstrip("=")
        right = asked is not None and asked["code_challenge"] == challenge and asked["redirect_uri"] == form["redirect_uri"]
        if not right or form["client_secret"] != SECRET or form["client_id"] != CLIENT:
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert asked is not None
        self.redeemed += 1
        return web.json_response({"id_token": self._signed(asked), "access_token": "for-user-info", "token_type": "Bearer"})

    def _signed(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        right = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"], **self.person}
        claims = {name: value for name, value in {**right, **self.claims}.items() if value is not None}
        if self.make_token is not None:
            return self.make_token(claims)
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key, algorithms=[self.algorithm])

    async def _keys(self, request: web.Request) -> web.Response:
        return web.json_response(self.published())

    async def _user_info(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer for-user-info" or self.in_user_info is None:
            return web.Response(status=401)
        return web.json_response(self.in_user_info)


def unsigned(claims: dict[str, Any]) -> str:
    """`alg: none`, which says that nobody need have made it."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}."


def elliptic() -> Any:
    return ECKey.generate_key("P-256", {"kid": "k2"}, private=True)
