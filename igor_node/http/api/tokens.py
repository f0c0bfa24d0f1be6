"""Tokens, who one is, and the page's login: a link that works once, a cookie that ends by itself."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from igor_node.http import auth
from igor_node.http.api.jobs import text
from igor_node.http.auth import compose_token, derive_secret, hash_secret
from igor_node.http.dispatch import Call
from igor_node.http.limits import LINK_S, SESSION_S
from igor_node.http.routes import NoBody, Reply, Route, Struct, Where
from igor_node.ledger import commands, query_cluster
from igor_node.words import SECOND, Invalid, Malformed, NotFound, Role, Unauthenticated

TTL_LIMIT_S = 10 * 366 * 24 * 3600
ROLES = frozenset(role.value for role in Role)


class TokenBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `ttl_s` the token is good until it is revoked."""

    role: str
    name: str = ""
    project: str | None = None
    ttl_s: int | None = None


class SessionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`code` of a login link makes a session; without it, and with a token, a new link is made."""

    code: str | None = None


async def who_am_i(call: Call) -> Any:
    return call.caller


async def create_token(call: Call) -> Any:
    body: TokenBody = call.body
    check_token(body)
    # Identity and secret follow from the command's id, so that a request that is sent twice makes one token and tells it twice.
    identifier = new_token_id(call)
    secret = derive_secret(call.services.key, f"token {call.command_id}")
    expires_at = None if body.ttl_s is None else call.now() + body.ttl_s * SECOND
    await call.propose(
        commands.CreateToken(token=identifier, hash=hash_secret(secret), role=body.role, name=body.name, project=body.project, expires_at=expires_at)
    )
    made = {"id": identifier, "token": compose_token(identifier, secret), "role": body.role, "name": body.name, "project": body.project}
    return Reply({**made, "expires_at": text(expires_at)}, status=201)


def new_token_id(call: Call) -> str:
    return call.command_id


def check_token(body: TokenBody) -> None:
    faults = []
    if body.role not in ROLES:
        faults.append(f'role: "{body.role}" is not a role; expected one of {", ".join(sorted(ROLES))}')
    if body.ttl_s is not None and not 0 < body.ttl_s <= TTL_LIMIT_S:
        faults.append(f"ttl_s: {body.ttl_s} is not possible; expected 1 to {TTL_LIMIT_S} seconds")
    if len(body.name) > 100:
        faults.append("name: it is longer than 100 characters; expected a shorter one")
    if faults:
        raise Invalid("the token is not valid", faults=faults)


async def list_tokens(call: Call) -> Any:
    now = call.now()
    rows = await call.read(query_cluster.tokens)
    return {"items": [token_json(row) for row in rows if row.good_at(now)], "next": None}


def token_json(row: query_cluster.TokenRow) -> dict[str, Any]:
    return {
        "id": row.token,
        "role": row.role,
        "name": row.name,
        "project": row.project,
        "node": row.node,
        "created_at": text(row.created_at),
        "expires_at": text(row.expires_at),
    }


async def revoke_token(call: Call) -> Any:
    token = call.part("token")
    if token not in {row.token for row in await call.read(query_cluster.tokens)}:
        raise NotFound(f'no token has the id "{token}"', hint="igor token list shows them")
    await call.propose(commands.RevokeToken(token=token))
    return {"id": token, "revoked": True}


# --- the page's login


async def session(call: Call) -> Any:
    """With a code: a session. Without one, and with a token: a link that makes one."""
    if call.body.code is None:
        call.caller = await call.front.identities.caller(call.request)
        return make_link(call)
    return log_in(call, call.body.code)


async def session_link(call: Call) -> Any:
    return make_link(call)


def make_link(call: Call) -> Reply:
    """Good on this node, once, for five minutes, with what the caller's token may do."""
    if not call.services.auth:
        return Reply({"url": f"{call.services.me.address}/", "expires_at": None}, status=201)
    now = call.now()
    code = call.front.links.make(call.caller.token, now)
    return Reply({"url": f"{call.services.me.address}/login?code={code}", "expires_at": text(now + LINK_S * SECOND)}, status=201)


def log_in(call: Call, code: str) -> web.Response:
    response = web.json_response({"logged_in": True}, status=201)
    set_session(call, response, code)
    return response


def set_session(call: Call, response: web.StreamResponse, code: str) -> None:
    now = call.now()
    token = call.front.links.use(code, now)
    value = auth.make_session(call.services.key, token, now)
    response.set_cookie(auth.COOKIE, value, max_age=SESSION_S, httponly=True, samesite="Strict", path="/")


async def log_out(call: Call) -> Any:
    response = web.json_response({"logged_in": False})
    response.del_cookie(auth.COOKIE, httponly=True, samesite="Strict", path="/")
    return response


async def login_page(call: Call) -> Any:
    """Where a login link leads. The code ends with its first use; the page is then opened without it in the address."""
    code = call.request.query.get("code", "")
    if not code or len(code) > 100:
        raise Malformed("the link is not whole", hint="igor ui makes a new one")
    response = web.Response(status=303, headers={"Location": "/", "Referrer-Policy": "no-referrer"})
    try:
        set_session(call, response, code)
    except Unauthenticated:
        if not await already_in(call):
            raise
    return response


async def already_in(call: Call) -> bool:
    """A link that is opened a second time by the browser that used it just opens the page."""
    try:
        await call.front.identities.caller(call.request)
        return True
    except Unauthenticated:
        return False


class LoginQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: str = ""


ROUTES = (
    Route(method="GET", path="/v1/whoami", handler=who_am_i, summary="Whose token this is", nodes=True, where=Where.HERE),
    Route(method="GET", path="/v1/tokens", handler=list_tokens, summary="Tokens that are good, without their secrets", role=Role.ADMIN),
    Route(
        method="POST", path="/v1/tokens", handler=create_token, summary="Make a token; its secret is told this once", role=Role.ADMIN,
        where=Where.WRITE, body=TokenBody, statuses=(201,),
    ),
    Route(
        method="DELETE", path="/v1/tokens/{token}", handler=revoke_token, summary="End a token at once", role=Role.ADMIN, where=Where.WRITE,
    ),
    Route(
        method="POST", path="/v1/session", handler=session, summary="Log the page in with a link's code; or, with a token, make such a link",
        role=None, where=Where.HERE, body=SessionBody, statuses=(201,),
    ),
    Route(
        method="POST", path="/v1/session/links", handler=session_link, summary="Make a link that logs in once", where=Where.HERE, body=NoBody,
        statuses=(201,),
    ),
    Route(method="DELETE", path="/v1/session", handler=log_out, summary="Log the page out", role=None, where=Where.HERE),
    Route(method="GET", path="/login", handler=login_page, summary="Where a login link leads", role=None, where=Where.HERE, query=LoginQuery,
          hidden=True),
)  # fmt: skip
