"""Logging in at a provider of identities: the two addresses that a browser visits, and how the leader learns of it.

`/oidc/login` sends the browser to the provider, `/oidc/callback` is where it comes back. What it brings is checked here (oidc.py), its groups become
a role and projects by this node's settings, and the ledger keeps the log-in as a token that ends by itself: listed, revoked and bound like any other.
A follower hands it to the leader with a seal that only holders of the cluster's key can make; a worker, or whoever stole its token, makes no log-ins.
For a program (`igor login --oidc`) the browser takes a code to it instead of getting a session.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import secrets
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from igor_node.http import forward, origins, sessions
from igor_node.http.api.page import SECURITY, UNKEPT
from igor_node.http.api.tokens import cookie_name, new_token
from igor_node.http.auth import Caller, hash_secret
from igor_node.http.dispatch import RETRY_S, Call
from igor_node.http.identity import asked_host
from igor_node.http.limits import INDEX_WITHIN_S, WRITE_WITHIN_S
from igor_node.http.oidc import STATE_S, Provider, Refused, State
from igor_node.http.routes import AnyQuery, Reply, Route, Struct, Where
from igor_node.ledger import commands
from igor_node.words import Denied, IgorError, Malformed, NotFound, Role, Unavailable, new_id
from raft.interface import NotLeader, Unknown

CALLBACK = "/oidc/callback"
SEAL = "Igor-Seal"
PORTS = range(1_024, 65_536)  # of a program on the browser's machine
CODE_CHARACTERS = 4_096
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Igor</title>{head}
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color-scheme: light dark }}</style></head>
<body><h1>Igor</h1>{body}</body></html>
"""


class LoginQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a program: `challenge` SHA-256 of what it keeps to itself, `port` where it listens; without a port the page shows the code."""

    challenge: str = ""
    port: int | None = None


class LoginBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token: str
    hash: str
    subject: str
    name: str
    role: str
    projects: list[str]
    expires_at: int


# --- for the browser


async def log_in(call: Call) -> Any:
    provider = await provider_of(call)
    query: LoginQuery = call.query
    if query.challenge or query.port is not None:
        origins.check_visit(call.request.headers)
        check_program(query)
    base = redirect_base(call, provider)
    if base.partition("://")[2] != asked_host(call.request):  # the cookie must be where the browser comes back to
        given = {name: value for name, value in (("challenge", query.challenge), ("port", query.port)) if value}
        return seen_elsewhere(f"{base}/oidc/login" + (f"?{urlencode(given)}" if given else ""))
    state = provider.new_state(query.port, query.challenge)
    response = seen_elsewhere(await provider.where_to_log_in(state, base + CALLBACK))
    # Lax: the browser comes back from another site.
    response.set_cookie(state_cookie(call), provider.sign(state), max_age=STATE_S, httponly=True, samesite="Lax", secure=call.services.tls, path="/")
    return response


async def provider_of(call: Call) -> Provider:
    """Where none is set up these addresses are as any that does not exist."""
    if call.front.provider is None:
        await call.front.identities.known(call.request)
        raise NotFound("log-in by a provider of identities is not set up at this node", hint="the table [oidc] in node.toml does")
    return call.front.provider


def check_program(query: LoginQuery) -> None:
    if len(query.challenge) != 64 or set(query.challenge) - set("0123456789abcdef"):
        raise Malformed('query parameter "challenge" is not a SHA-256', hint="expected 64 hex digits")
    if query.port is not None and query.port not in PORTS:
        raise Malformed(f'query parameter "port" is {query.port}', hint="expected 1024 to 65535")


def redirect_base(call: Call, provider: Provider) -> str:
    return provider.settings.redirect or call.services.me.address


def state_cookie(call: Call) -> str:
    return cookie_name(call).replace("igor_session", "igor_oidc")


def seen_elsewhere(address: str) -> web.Response:
    return web.Response(status=303, headers={"Location": address, "Referrer-Policy": "no-referrer", **UNKEPT})


async def come_back(call: Call) -> Any:
    provider = await provider_of(call)
    state: State | None = None
    try:
        call.front.failures.check(call.address)
        given = call.request.query
        state = provider.read_state(call.request.cookies.get(state_cookie(call), ""), given.get("state", "")[:CODE_CHARACTERS])
        response = await finish(call, provider, state)
    except Refused as problem:
        refusal: IgorError = problem
        try:
            call.front.identities.failed(call.request, problem)
        except IgorError as too_many:
            refusal = too_many
        response = refused(state, refusal)
    except (Denied, Unavailable) as problem:
        response = refused(state, problem)
    sessions.clear_cookie(response, state_cookie(call), tls=call.services.tls)
    return response


async def finish(call: Call, provider: Provider, state: State) -> web.Response:
    """Raises Refused, Denied or Unavailable."""
    given = call.request.query
    if given.get("iss", provider.settings.issuer) != provider.settings.issuer:
        raise Refused("another provider sent this browser back")
    if "error" in given:
        raise Denied(f"the provider did not log you in: {(given.get('error_description') or given['error'])[:200]}")
    code = given.get("code", "")
    if not 0 < len(code) <= CODE_CHARACTERS:
        raise Refused("the provider sent no code")
    person = await provider.redeem(code, state, redirect_base(call, provider) + CALLBACK)
    granted = provider.settings.grant(person.groups)
    token, secret = new_id(call.now()), secrets.token_hex(32)
    expires_at = call.now() + provider.settings.session_ns
    role, projects = granted if granted is not None else ("", ())
    body = LoginBody(
        token=token, hash=hash_secret(secret), subject=person.subject, name=person.name, role=str(role), projects=list(projects),
        expires_at=expires_at,
    )  # fmt: skip
    await keep(call, body)
    if granted is None:
        raise Denied(f"{person.name} is in no group that may use this cluster", hint="ask whoever runs it: [oidc] in node.toml says which groups may")
    if state.challenge:
        return for_a_program(call, state, new_token(call, token, secret))
    # Not a redirect: the session's cookie is SameSite=Strict, and a browser that comes from another site would not send it with one.
    response = page('<p>You are logged in. <a href="/">Go on</a></p>', head='<meta http-equiv="refresh" content="0; url=/">')
    value = sessions.make_session(call.services.key, token, call.now(), until=expires_at)
    sessions.set_cookie(response, cookie_name(call), value, tls=call.services.tls)
    return response


def for_a_program(call: Call, state: State, token: str) -> web.Response:
    code = call.front.links.make(token, call.now(), challenge=state.challenge)
    if state.port is not None:
        return seen_elsewhere(f"http://127.0.0.1:{state.port}/?{urlencode({'code': code})}")
    return page(
        f"<p>Copy this code into the <code>igor login</code> that you started yourself:</p><p><code>{code}</code></p>"
        "<p>Give it to nobody: if somebody else asked you to open this page, close it.</p>"
    )


def refused(state: State | None, problem: IgorError) -> web.Response:
    if state is not None and state.port is not None:
        return seen_elsewhere(f"http://127.0.0.1:{state.port}/?{urlencode({'refused': problem.message[:400]})}")
    hint = f" ({html.escape(problem.hint)})" if problem.hint else ""
    response = page(f'<p>{html.escape(problem.message)}{hint}.</p><p><a href="/oidc/login">Log in again</a></p>', status=problem.status)
    if retry_after_s := getattr(problem, "retry_after_s", None):
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def page(body: str, *, head: str = "", status: int = 200) -> web.Response:
    return web.Response(text=PAGE.format(head=head, body=body), status=status, content_type="text/html", headers={**SECURITY, **UNKEPT})


# --- into the ledger


async def keep(call: Call, body: LoginBody) -> None:
    """At the leader, wherever it is; this node then knows it too. Raises Unavailable."""
    call.command_id = new_id(call.now())
    loop = asyncio.get_running_loop()
    call.deadline = loop.time() + WRITE_WITHIN_S
    while loop.time() < call.deadline:
        try:
            if call.services.replica.is_leader():
                await propose(call, body)
                return
            if await hand_over(call, body):
                return
        except (NotLeader, Unknown):
            pass  # asked again under the same id, which does it once
        await asyncio.sleep(RETRY_S)
    raise Unavailable("no leader could write down that you logged in", hint="try again in a moment; tokens still work for reading")


async def propose(call: Call, body: LoginBody) -> Any:
    call.caller = Caller(token=body.token, role=Role.VIEWER, name=body.name)  # whom the ledger names as the one who did this
    command = commands.LogIn(
        token=body.token, hash=body.hash, subject=body.subject, name=body.name, role=body.role, projects=tuple(body.projects),
        expires_at=body.expires_at,
    )  # fmt: skip
    return await call.propose(command)


async def hand_over(call: Call, body: LoginBody) -> bool:
    """Whether the leader has it. Raises what the leader refused with."""
    leader = call.services.leader_address()
    if leader is None or leader == call.services.me.address:
        return False
    data = msgspec.json.encode(body)
    headers = {**call.front.own_token(), forward.COMMAND: call.command_id, SEAL: seal(call.services.key, data)}
    try:
        status, _, index = await call.front.forwarder.post_json(leader, "/v1/logins", data, headers, WRITE_WITHIN_S)
    except (forward.NotReached, forward.BrokenOff):
        return False
    if status in (401, 403, 422):
        raise Unavailable(f"the leader did not take the log-in (status {status})", hint="is its clock, or its version, another?")
    if status != 201:
        return False
    await call.services.changes.reached(index, INDEX_WITHIN_S)
    return True


def seal(key: bytes, data: bytes) -> str:
    return hmac.new(key, b"igor log-in\0" + data, hashlib.sha256).hexdigest()


async def take_over(call: Call) -> Any:
    """From a node that checked it. The seal says that the node holds the cluster's key, which makes sessions too."""
    data = msgspec.json.encode(call.body)
    if not hmac.compare_digest(seal(call.services.key, data), call.request.headers.get(SEAL, "")):
        raise Denied("the seal of this log-in is not good", hint="only nodes that hold the cluster's key tell of log-ins")
    return Reply(await propose(call, call.body), status=201)


ROUTES = (
    Route(method="GET", path="/oidc/login", handler=log_in, summary="To the provider of identities", role=None, where=Where.KEYED,
          query=LoginQuery, hidden=True),
    Route(method="GET", path=CALLBACK, handler=come_back, summary="And back from it", role=None, where=Where.KEYED, query=AnyQuery, hidden=True),
    Route(
        method="POST", path="/v1/logins", handler=take_over, summary="Between nodes that hold the cluster's key: a person has logged in",
        role=Role.NODE, where=Where.WRITE, body=LoginBody, statuses=(201,), keyed=False,
    ),
)  # fmt: skip
