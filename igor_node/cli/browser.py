"""A log-in with the browser: the node sends it to the provider of identities, and back here with a code that is good once.

The code reaches a port of this machine's loopback, or a person copies it from the page. Whoever else may see it cannot use it: only the program that
keeps what the code was asked with (`verifier`) gets the token for it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import click

from igor_node import words
from igor_node.cli.client import error_of

WAIT_S = 300.0  # for a person who looks for a second factor; the node's code is good as long
ANSWER_S = 15.0
ANSWER_LIMIT_BYTES = 64 * 1024
PAGE = b"<!doctype html><meta charset=utf-8><title>Igor</title><p>%b You can close this window."


def log_in(address: str, fingerprint: str | None, *, open_browser: bool, say: Callable[[str], None]) -> str:
    """The token that the node gives. Raises Denied where the provider or the node says no."""
    verifier = secrets.token_urlsafe(32)
    challenge = hashlib.sha256(verifier.encode()).hexdigest()
    code = _code_by_port(address, challenge, say) if open_browser else _code_by_hand(address, challenge, say)
    return _token_for(address, fingerprint, code, verifier)


def _link(address: str, **query: Any) -> str:
    return f"{address}/oidc/login?{urlencode(query)}"


def _code_by_hand(address: str, challenge: str, say: Callable[[str], None]) -> str:
    say(f"open this in a browser, log in, and copy the code that it shows:\n{_link(address, challenge=challenge)}")
    return str(click.prompt("Code", hide_input=True, err=True)).strip()


def _code_by_port(address: str, challenge: str, say: Callable[[str], None]) -> str:
    import webbrowser

    heard = _Heard()
    with HTTPServer(("127.0.0.1", 0), _handler_of(heard)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        link = _link(address, challenge=challenge, port=server.server_port)
        if not webbrowser.open(link):
            say(f"open this in a browser of this machine:\n{link}")
        heard.there.wait(WAIT_S)
        server.shutdown()
        thread.join()
    if heard.refusal:
        raise words.Denied(heard.refusal)
    if not heard.code:
        raise words.Unavailable(f"nobody logged in within {WAIT_S:.0f} s", hint="on a machine without a browser: igor login --oidc --no-browser")
    return heard.code


class _Heard:
    def __init__(self) -> None:
        self.code = self.refusal = ""
        self.there = threading.Event()


def _handler_of(heard: _Heard) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
            heard.code, heard.refusal = query.get("code", "")[:200], query.get("refused", "")[:500]
            known = bool(heard.code or heard.refusal)
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(PAGE % (b"You are logged in." if heard.code else b"Nobody is logged in."))
            if known:
                heard.there.set()

        def log_message(self, *arguments: Any) -> None:
            """The code must not stand in the terminal."""

    return Handler


def _token_for(address: str, fingerprint: str | None, code: str, verifier: str) -> str:
    parts = urlsplit(address)
    body = json.dumps({"code": code, "verifier": verifier}).encode()
    connection = _connect(parts.scheme, parts.hostname or "", parts.port or 0, fingerprint)
    try:
        connection.request("POST", "/v1/session", body, {"Content-Type": "application/json", "Accept": "application/json"})
        answer = connection.getresponse()
        data = answer.read(ANSWER_LIMIT_BYTES)
    except (OSError, http.client.HTTPException) as problem:
        raise words.Unavailable(f"{address} did not answer ({problem})", hint="log in again") from None
    finally:
        connection.close()
    if answer.status != 201:
        raise error_of(answer.status, data, {name.lower(): value for name, value in answer.getheaders()})
    token = json.loads(data).get("token")
    if not isinstance(token, str):
        raise words.Unavailable(f"{address} gave no token", hint="is it an igor-node of the same version?")
    return token


def _connect(scheme: str, host: str, port: int, fingerprint: str | None) -> http.client.HTTPConnection:
    """With TLS the CA is the one of that fingerprint, else one that this machine trusts."""
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    if fingerprint is None:
        return http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=ssl.create_default_context())
    from igor_node.trust.pins import NotThisCluster, fetch_authority

    try:
        authority = fetch_authority(host, port, fingerprint, ANSWER_S)
    except NotThisCluster as problem:
        raise words.Denied(str(problem)) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # any node of that cluster is as good as another; its CA certifies nobody else
    context.load_verify_locations(cadata=authority)
    return http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=context)
