"""Writes docs/api.md from the route table and the tree of errors.

    python -m tools.generate_api_docs

`tests/unit/docs/test_docs.py` fails while a route or an error does not stand there.
"""

from __future__ import annotations

import re
from pathlib import Path

from igor_node import words
from igor_node.http.api.table import ROUTES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
HEAD = """# The HTTP API

This page is made by `python -m tools.generate_api_docs` from the table of routes; do not edit it. `GET /v1/openapi.json` of any node
describes the same in OpenAPI 3.1, with parameters and bodies.

Any node answers every request; a write is forwarded to the leader. `Authorization: Bearer TOKEN` on each request but those that say so.
Times are RFC 3339 in UTC. Reads carry `Igor-Index`; a request with `Igor-Index: N` gets an answer at least that new. While a node hears no
leader its reads carry `Igor-Age`, in seconds, and writes give 503 with `Retry-After`. `?consistent=1` reads as of now. A write with an
`Idempotency-Key` can be sent again for 24 h without being done twice.

## Routes

`role` is the smallest role that may use a route; `none` asks for no token of the ledger. What a token that is bound to projects may reach is in
[security.md](security.md#who-may-do-what).

| route | role | what it does |
| --- | --- | --- |
"""


ERRORS = """
## Errors

A refusal is `application/problem+json` with `type`, `title`, `status`, `detail`, and `hint` and `faults` where there are any; `error` is the
name below.

| error | HTTP status | exit code of `igor` | meaning |
| --- | --- | --- | --- |
"""


def plain(path: str) -> str:
    """`{job:…}` is `{job}` for people."""
    return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path)


def page() -> str:
    rows = [f"| `{route.method} {plain(route.path)}` | {route.role.value if route.role else 'none'} | {route.summary} |\n" for route in ROUTES]
    errors = [f"| `{error.__name__}` | {error.status} | {error.exit_code} | {error.title} |\n" for error in words.ERRORS]
    return HEAD + "".join(rows) + ERRORS + "".join(errors)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
