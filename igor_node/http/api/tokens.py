"""Tokens, who one is, and the page's login: a link that works once, a cookie that ends by itself."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web

from igor_node.http import grants, origins, sessions
from igor_node.http.api.jobs import text
from igor_node.http.auth import compose_token, derive_secret, hash_secret
from igor_node.http.dispatch import Call
from igor_node.http.identity import USES_LIMIT, find_token
from igor_node.http.limits import LINK_S
from igor_node.http.permissions import Reach
from igor_node.http.routes import NoBody, Reply, Route, Struct, Where
from igor_node.ledger import commands, query_cluster
from igor_node.words import SECOND, Instant, Invalid, NotFound, Role, Unauthenticated

TTL_LIMIT_S = 10 * 366 * 24 * 3600
SESSION_BODY_LIMIT_BYTES = 4 * 1024  # of somebody unknown
ROLES = frozenset(role.value for role in Role)


class TokenBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`projects`: it is good for these alone; none: for all. Without `ttl_s` it is good until it is revoked, or its maker's end."""

    role: str
    name: str = ""
    projects: list[str] = []
    ttl_s: int | None = None


class SessionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`code` of a login link makes a session; without it, and with a token, a new link is made. With `verifier` the code is one that a log-in in the
    browser gave to a program, and the answer is its token."""

    code: str | None = None
    verifier: str = ""


async def who_am_i(call: Call) -> Any:
    return call.caller


async def create_token(call: Call) -> Any:
    body: TokenBody = call.body
    check_token(body)
    projects = grants.grant_projects(call.caller, Role(body.role), body.projects)
    asked = None if body.ttl_s is None else Instant(call.now() + body.ttl_s * SECOND)
    expires_at = grants.grant_end(call.caller, asked)
    # Identity and secret follow from the command's id, so that a request that is sent twice makes one token and tells it twice.
    identifier = new_token_id(call)
    secret = derive_secret(call.services.key, f"token {call.command_id}")
    await call.propose(
        commands.CreateToken(
            token=identifier, hash=hash_secret(secret), role=body.role, name=body.name, projects=projects, expires_at=expires_at,
            by=call.caller.token,
        )
    )  # fmt: skip
    made = {"id": identifier, "token": new_token(call, identifier, secret), "role": body.role, "name": body.name, "projects": projects}
    return Reply({**made, "expires_at": text(expires_at)}, status=201)


def new_token_id(call: Call) -> str:
    return call.command_id


def new_token(call: Call, identifier: str, secret: str) -> str:
    """The whole token, with the pin of the cluster's CA in it."""
    return compose_token(identifier, secret, call.services.fingerprint())


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
    return {"items": [token_json(row) for row in rows if row.good_at(now) and grants.manages(call.caller, row)], "next": None}


def token_json(row: query_cluster.TokenRow) -> dict[str, Any]:
    return {
        "id": row.token,
        "role": row.role,
        "name": row.name,
        "projects": row.projects,
        "node": row.node,
        "login": row.subject is not None,
        "made_by": row.made_by,
        "created_at": text(row.created_at),
        "expires_at": text(row.expires_at),
        "last_used_at": text(row.last_used_at),
    }


class UsesBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`uses`: token -> when, in nanoseconds since 1970."""

    uses: Annotated[dict[str, int], msgspec.Meta(max_length=USES_LIMIT)]


async def note_uses(call: Call) -> Any:
    """A node tells which tokens were used there."""
    return await call.propose(commands.NoteTokenUses(uses=call.body.uses))


async def revoke_token(call: Call) -> Any:
    token = call.part("token")
    row = next((row for row in await call.read(query_cluster.tokens) if row.token == token), None)
    if row is None or not grants.manages(call.caller, row):
        raise NotFound(f'no token has the id "{token}"', hint="igor token list shows them")
    await call.propose(commands.RevokeToken(token=token))
    return {"id": token, "revoked": True}


# --- the page's login


async def session(call: Call) -> Any:
    """With a code: a session. Without one, and with a token: a link that makes one."""
    if call.body.code is None:
        call.known = await call.front.identities.known(call.request)
        call.caller = call.known.caller
        return make_link(call)
    response = web.json_response({"logged_in": True}, status=201)
    try:
        if call.body.verifier:
            call.front.failures.check(call.address)
            return Reply({"token": call.front.links.use(call.body.code, call.now(), verifier=call.body.verifier)}, status=201)
        await set_session(call, response, call.body.code)
    except sessions.NotOurs as problem:
        raise call.front.identities.failed(call.request, problem) from None
    return response


async def session_link(call: Call) -> Any:
    return make_link(call)


def make_link(call: Call) -> Reply:
    """Good on this node, once, for five minutes, with what the caller's token may do."""
    if not call.services.auth:
        return Reply({"url": f"{call.services.me.address}/", "expires_at": None}, status=201)
    if call.caller.role is Role.NODE:
        raise Invalid("nodes have no page", faults=["role: a token of role node opens no page; expected a person's"])
    now = call.now()
    code = call.front.links.make(call.caller.token, now)
    return Reply({"url": f"{call.services.me.address}/login?code={code}", "expires_at": text(now + LINK_S * SECOND)}, status=201)


async def set_session(call: Call, response: web.StreamResponse, code: str) -> None:
    """Uses the code up. The session ends with its token, at the latest. Raises NotOurs."""
    now = call.now()
    call.front.failures.check(call.address)
    token = call.front.links.use(code, now)
    kept = await call.read(lambda connection: find_token(connection, token))
    if kept is not None and kept.revoked:
        raise Unauthenticated("the token that made this link was revoked")
    value = sessions.make_session(call.services.key, token, now, until=None if kept is None else kept.expires_at)
    sessions.set_cookie(response, cookie_name(call), value, tls=call.services.tls)


def cookie_name(call: Call) -> str:
    return sessions.cookie_name(call.services.me.cluster, tls=call.services.tls)


async def log_out(call: Call) -> Any:
    """The session is over on every node, wherever its cookie may have been copied to; what was made by a log-in of a person ends whole."""
    if call.caller.login:
        await call.propose(commands.RevokeToken(token=call.caller.token))
    elif call.known is not None and call.known.session is not None:
        await call.propose(commands.EndSession(session=call.known.session.id, until=call.known.session.expires_at))
    response = web.json_response({"logged_in": False})
    sessions.clear_cookie(response, cookie_name(call), tls=call.services.tls)
    return response


async def login_page(call: Call) -> Any:
    """Where a login link leads. The code ends with its first use; the page is then opened without it in the address."""
    origins.check_visit(call.request.headers)
    code = call.query.code
    response = web.Response(status=303, headers={"Location": "/", "Referrer-Policy": "no-referrer"})
    try:
        await set_session(call, response, code)
    except sessions.NotOurs as problem:
        if not await already_in(call):  # the browser that used it may open it again
            raise call.front.identities.failed(call.request, problem) from None
    return response


async def already_in(call: Call) -> bool:
    try:
        await call.front.identities.known(call.request)
        return True
    except Unauthenticated:
        return False


class LoginQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: str = ""


ROUTES = (
    Route(
        method="POST", path="/v1/tokens/uses", handler=note_uses, summary="Between nodes: when tokens were last used", role=Role.NODE,
        where=Where.WRITE, body=UsesBody, keyed=False,
    ),
    Route(method="GET", path="/v1/whoami", handler=who_am_i, summary="Whose token this is", nodes=True, join=True, reach=Reach.OPEN,
          where=Where.HERE),
    Route(method="GET", path="/v1/tokens", handler=list_tokens, summary="Tokens that are good, without their secrets", role=Role.ADMIN,
          reach=Reach.LIST),
    Route(
        method="POST", path="/v1/tokens", handler=create_token, summary="Make a token; its secret is told this once", role=Role.ADMIN,
        reach=Reach.PROJECT, where=Where.WRITE, body=TokenBody, statuses=(201,),
    ),
    Route(
        method="DELETE", path="/v1/tokens/{token}", handler=revoke_token, summary="End a token at once", role=Role.ADMIN, reach=Reach.THING,
        where=Where.WRITE,
    ),
    Route(
        method="POST", path="/v1/session", handler=session, summary="Log the page in with a link's code; or, with a token, make such a link",
        role=None, where=Where.KEYED, body=SessionBody, body_limit=SESSION_BODY_LIMIT_BYTES, statuses=(201,),
    ),
    Route(
        method="POST", path="/v1/session/links", handler=session_link, summary="Make a link that logs in once", reach=Reach.OPEN,
        where=Where.KEYED, body=NoBody, statuses=(201,),
    ),
    Route(method="DELETE", path="/v1/session", handler=log_out, summary="Log out: the session ends everywhere", reach=Reach.OPEN,
          where=Where.WRITE),
    Route(method="GET", path="/login", handler=login_page, summary="Where a login link leads", role=None, where=Where.KEYED, query=LoginQuery,
          hidden=True),
)  # fmt: skip
