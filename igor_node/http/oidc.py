"""The provider of identities as this node sees it: OpenID Connect, authorization code with PKCE.

    api/oidc.py sends a browser to `where_to_log_in` and, when it comes back with a code, calls `redeem`: code for tokens, id token checked, claims

A state ties the browser that comes back to the one that was sent: it stands, signed, in a cookie. PKCE's verifier and the nonce follow from the state
by the cluster's key, so nothing need be remembered but which states were used. Of the id token are checked: the signature by a key that the provider
publishes, with an algorithm of a short list (never `none`, never one with a shared secret), issuer, audience, times, and the nonce.

Whatever the provider does costs this node no more than `PROVIDER_S` of one of `AT_ONCE` log-ins: it is asked for nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from igor_node.edges import Clock
from igor_node.oidc_settings import OidcSettings
from igor_node.trust.keys import Keys
from igor_node.words import SECOND, Instant, TooMany, Unauthenticated, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""With keys that only the provider has. `none` and HS… are in no token that is believed here."""
PROVIDER_S = 5.0  # a whole question to it
AT_ONCE = 10  # questions to it; who comes past them tries again
ANSWER_LIMIT_BYTES = 256 * 1024  # keys of a large provider have 20 KiB
KEPT_NS = 3600 * SECOND  # its addresses and keys
ASK_KEYS_AGAIN_NS = 30 * SECOND  # for a key that is not known: it may have changed its keys
LEEWAY_S = 30  # by which clocks may differ
STATE_S = 600  # for a person who looks for a second factor
STATES_KEPT = 10_000  # that were used
STATE = re.compile(r"o1\.([0-9A-Za-z_-]{43})\.(\d{1,12})\.(\d{0,5})\.([0-9a-f]{0,64})\.([0-9a-f]{64})", re.ASCII)
NAME_CHARACTERS = 80
GROUPS_LIMIT = 10_000
AGAIN = "log in again"


class Refused(Unauthenticated):
    """The provider, or what it said, does not let this person in."""


class Metadata(msgspec.Struct, frozen=True):
    """Of /.well-known/openid-configuration what is needed."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""


class Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str = ""


@dataclass(frozen=True)
class State:
    """A browser that is away to log in. `port`, `challenge`: of the program that asked; without one it is for the page."""

    value: str
    expires_at: Instant
    port: int | None
    challenge: str


@dataclass(frozen=True)
class Person:
    subject: str  # with the issuer: never another person's
    name: str
    groups: tuple[str, ...]


class Provider:
    def __init__(self, settings: OidcSettings, keys: Keys, clock: Clock) -> None:
        self.settings = settings
        self._of_cluster = keys
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._metadata: tuple[int, Metadata] | None = None
        self._keys: tuple[int, Any] | None = None
        self._asking = 0
        self._used: OrderedDict[str, Instant] = OrderedDict()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # --- there

    def new_state(self, port: int | None, challenge: str) -> State:
        return State(secrets.token_urlsafe(32), Instant(self._clock.now() + STATE_S * SECOND), port, challenge)

    def sign(self, state: State) -> str:
        """The cookie."""
        text = f"o1.{state.value}.{state.expires_at // SECOND}.{'' if state.port is None else state.port}.{state.challenge}"
        return f"{text}.{self._derive('state', text)}"

    async def where_to_log_in(self, state: State, redirect: str) -> str:
        """The provider's address for this browser. Raises Unavailable or TooMany."""
        metadata = await self.metadata()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self._verifier(state.value).encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(dict.fromkeys(["openid", "profile", "email", *self.settings.scopes])),
            "state": state.value,
            "nonce": self._derive("nonce", state.value),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        separator = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return f"{metadata.authorization_endpoint}{separator}{urlencode(asked)}"

    # --- and back

    def read_state(self, cookie: str, given: str) -> State:
        """The state that this browser was sent away with, once. Raises Refused."""
        match = STATE.fullmatch(cookie)
        if match is None or not _same(match[5], self._derive("state", cookie.rpartition(".")[0])) or not _same(match[1], given):
            raise Refused("this is not the log-in that this browser began", hint=AGAIN)
        state = State(match[1], Instant(int(match[2]) * SECOND), int(match[3]) if match[3] else None, match[4])
        if state.expires_at <= self._clock.now():
            raise Refused("this log-in took too long", hint=AGAIN)
        if state.value in self._used:
            raise Refused("this log-in was used before", hint=AGAIN)
        self._used[state.value] = state.expires_at
        if len(self._used) > STATES_KEPT:
            self._used.popitem(last=False)
        return state

    async def redeem(self, code: str, state: State, redirect: str) -> Person:
        """Who logged in. Raises Refused, Unavailable or TooMany."""
        metadata = await self.metadata()
        tokens = await self._exchange(metadata, code, state, redirect)
        claims = await self._checked(metadata, tokens.id_token, state)
        groups = claims.get(self.settings.groups_claim)
        if groups is None and tokens.access_token and metadata.userinfo_endpoint:
            groups = await self._groups_elsewhere(metadata, tokens.access_token, claims["sub"])
        return Person(f"{metadata.issuer} {claims['sub']}", name_in(claims), texts(groups))

    async def _exchange(self, metadata: Metadata, code: str, state: State, redirect: str) -> Tokens:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": self.settings.client_id,
            "code_verifier": self._verifier(state.value),
        }
        if self.settings.client_secret:
            form["client_secret"] = self.settings.client_secret
        status, body = await self._ask("POST", metadata.token_endpoint, form=form)
        if status != 200:
            raise Refused(f"the provider takes this code not (any more): {_error_in(body) or status}", hint=AGAIN)
        tokens: Tokens = _decoded(body, Tokens)
        return tokens

    async def _checked(self, metadata: Metadata, id_token: str, state: State) -> dict[str, Any]:
        """The claims of an id token that the provider made for this log-in. Raises Refused."""
        registry = jwt.JWTClaimsRegistry(
            now=self._clock.now() // SECOND,
            leeway=LEEWAY_S,
            iss={"essential": True, "value": metadata.issuer},
            aud={"essential": True, "value": self.settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True},
        )
        try:
            claims = (await self._decoded_token(metadata, id_token)).claims
            registry.validate(claims)
        except JoseError as problem:
            raise Refused(f"what the provider said of this person is not good: {problem}", hint=AGAIN) from None
        except (ValueError, TypeError, KeyError):
            raise Refused("what the provider said of this person cannot be read", hint=AGAIN) from None
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self.settings.client_id:
            raise Refused("what the provider said of this person is for another program", hint=AGAIN)
        if not _same(str(claims["nonce"]), self._derive("nonce", state.value)):
            raise Refused("what the provider said belongs to another log-in", hint=AGAIN)
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise Refused("the provider did not say who this is", hint=AGAIN)
        return claims

    async def _decoded_token(self, metadata: Metadata, id_token: str) -> jwt.Token:
        keys = await self._published(metadata, within_ns=KEPT_NS)
        try:
            return jwt.decode(id_token, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            again = await self._published(metadata, within_ns=ASK_KEYS_AGAIN_NS)
            if again is keys:
                raise
            return jwt.decode(id_token, again, algorithms=ALGORITHMS)

    async def _groups_elsewhere(self, metadata: Metadata, access_token: str, subject: str) -> Any:
        status, body = await self._ask("GET", metadata.userinfo_endpoint, headers={"Authorization": f"Bearer {access_token}"})
        said = _decoded(body, dict[str, Any]) if status == 200 else {}
        if status == 200 and said.get("sub") != subject:
            raise Refused("the provider spoke of another person", hint=AGAIN)
        return said.get(self.settings.groups_claim)

    # --- what the provider publishes

    async def metadata(self) -> Metadata:
        now = self._clock.monotonic_ns()
        if self._metadata is not None and now - self._metadata[0] < KEPT_NS:
            return self._metadata[1]
        status, body = await self._ask("GET", self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if status != 200:
            raise Unavailable(f"the provider of identities does not describe itself (status {status})", hint="is issuer in [oidc] right?")
        found: Metadata = _decoded(body, Metadata)
        if found.issuer != self.settings.issuer:
            raise Unavailable(f"the provider calls itself {found.issuer[:200]}, not {self.settings.issuer}", hint="is issuer in [oidc] right?")
        scheme = urlsplit(self.settings.issuer).scheme
        named = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint or found.token_endpoint)
        if any(urlsplit(address).scheme != scheme or not urlsplit(address).hostname for address in named):
            raise Unavailable("the provider names addresses that are not safe", hint=f"expected all to begin with {scheme}://")
        self._metadata = (now, found)
        return found

    async def _published(self, metadata: Metadata, *, within_ns: int) -> Any:
        """Its keys, not older than that."""
        now = self._clock.monotonic_ns()
        if self._keys is not None and now - self._keys[0] < within_ns:
            return self._keys[1]
        status, body = await self._ask("GET", metadata.jwks_uri)
        if status != 200:
            raise Unavailable(f"the provider does not publish its keys (status {status})", hint=AGAIN)
        found = _decoded(body, dict[str, Any])
        try:
            keys = jwk.KeySet.import_key_set({"keys": [key for key in found["keys"] if key.get("kty") in ("RSA", "EC")]})
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            raise Unavailable("the provider's keys cannot be read", hint=AGAIN) from None
        self._keys = (now, keys)
        return keys

    async def _ask(self, method: str, url: str, *, form: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """One bounded question. Raises Unavailable or TooMany."""
        if self._asking >= AT_ONCE:
            raise TooMany("many people are logging in", hint=AGAIN, retry_after_s=2)
        self._asking += 1
        try:
            async with (
                asyncio.timeout(PROVIDER_S),
                self._connections().request(method, url, data=form, headers={"Accept": "application/json", **(headers or {})},
                                            allow_redirects=False) as answer,
            ):  # fmt: skip
                body = await answer.content.read(ANSWER_LIMIT_BYTES + 1)
                while len(body) <= ANSWER_LIMIT_BYTES and (more := await answer.content.read(ANSWER_LIMIT_BYTES + 1 - len(body))):
                    body += more
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise Unavailable("the provider's answer is too long", hint=AGAIN)
                return answer.status, body
        except TimeoutError:
            raise Unavailable(f"the provider of identities did not answer within {PROVIDER_S:.0f} s", hint="tokens still work") from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise Unavailable(f"the provider of identities cannot be reached: {problem}", hint="tokens still work") from None
        finally:
            self._asking -= 1

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self.settings.ca_file or None)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=AT_ONCE), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )  # fmt: skip
        return self._session

    # --- secrets that follow from the cluster's key

    def _verifier(self, state: str) -> str:
        return self._derive("verifier", state)

    def _derive(self, purpose: str, text: str) -> str:
        return hmac.new(self._of_cluster.key, f"igor oidc {purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("the provider's answer is not what OpenID Connect expects", hint=AGAIN) from None


def _error_in(body: bytes) -> str:
    try:
        said = msgspec.json.decode(body)
        return str(said.get("error_description") or said.get("error") or "")[:200]
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
        return ""


def name_in(claims: dict[str, Any]) -> str:
    """How the person is called in the ledger: nothing is decided by it."""
    verified = ("email",) if claims.get("email_verified") is not False else ()
    found = next((claims[claim] for claim in (*verified, "preferred_username", "name", "sub") if isinstance(claims.get(claim), str)), "")
    return "".join(character for character in found if character.isprintable())[:NAME_CHARACTERS] or "somebody"


def texts(groups: Any) -> tuple[str, ...]:
    """A list of names, or one name; whatever else a provider says gives nothing."""
    if isinstance(groups, str):
        return (groups,)
    return tuple(group for group in groups[:GROUPS_LIMIT] if isinstance(group, str)) if isinstance(groups, list) else ()
