"""Writes the table of permissions into docs/security.md, from the table of routes by the rule that the server itself asks (http/permissions.py).

    python -m tools.generate_permissions

The rest of the page is written by hand. `tests/unit/docs/test_docs.py` fails while the table there is not the one that is served.
"""

from __future__ import annotations

from pathlib import Path

from igor_node.http.api.table import ROUTES
from igor_node.http.permissions import PEOPLE, Outcome, Standing, outcome
from igor_node.http.routes import Route
from igor_node.words import Role
from tools.generate_api_docs import plain

PAGE = Path(__file__).resolve().parent.parent / "docs" / "security.md"
BEGIN, END = "<!-- made by python -m tools.generate_permissions; do not edit -->\n", "<!-- end of what is made -->\n"
HEAD = """
| route | viewer | operator | deployer | admin | node | with a token of some projects: own | others' |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def table() -> str:
    rows = [row(route) for route in ROUTES if route.role is not None]
    without = [f"| `{route.method} {plain(route.path)}` | {why_open(route)} |\n" for route in ROUTES if route.role is None]
    others = "\nWithout a token of the ledger:\n\n| route | asks for |\n| --- | --- |\n"
    return HEAD + "".join(rows) + others + "".join(without) + "\n"


def row(route: Route) -> str:
    roles = " | ".join(mark(outcome(route, role, Standing.WHOLE)) for role in (*PEOPLE, Role.NODE))
    reached = " | ".join(mark(outcome(route, Role.ADMIN, standing)) for standing in (Standing.OWN, Standing.FOREIGN))
    return f"| `{route.method} {plain(route.path)}` | {roles} | {reached} |\n"


def mark(found: Outcome) -> str:
    return "yes" if found is Outcome.YES else str(found)


def why_open(route: Route) -> str:
    if route.any_host:
        return "nothing: a probe"
    if route.path.startswith("/oidc/"):
        return "nothing, where `[oidc]` is set up; else 401"
    return "the attempt's own token" if route.own_token else "a code that is good once; else 401"


def page() -> str:
    """The whole page with a fresh table."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
