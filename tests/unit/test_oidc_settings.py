"""The table [oidc] of node.toml: what is allowed, and what groups give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from igor_node.oidc_settings import Grant, OidcSettings, read_oidc
from igor_node.settings import read_settings
from igor_node.words import SECOND, Invalid, Role

GOOD = {"issuer": "https://login.example.com", "client_id": "igor", "grants": [{"group": "ops", "role": "operator"}]}


def test_the_least_that_is_needed() -> None:
    found = read_oidc(GOOD)
    assert found.grants == (Grant("ops", Role.OPERATOR),) and found.session_ns == 8 * 3600 * SECOND and found.client_secret == ""


def test_all_of_it(tmp_path: Path) -> None:
    """From the file itself, with the client's secret in another one."""
    (tmp_path / "secret").write_text("of the client\n")
    (tmp_path / "ca.pem").write_text("x")
    (tmp_path / "node.toml").write_text(f"""
[oidc]
issuer = "https://login.example.com/realm"
client_id = "igor"
client_secret_file = "{tmp_path}/secret"
redirect = "https://igor.example.com:7946/"
groups_claim = "roles"
scopes = ["groups"]
session = "1h30m"
ca_file = "{tmp_path}/ca.pem"
[[oidc.grants]]
group = "shop"
role = "deployer"
projects = ["shop"]
""")
    found = read_settings(tmp_path, {}, {}).oidc
    assert found == OidcSettings(
        issuer="https://login.example.com/realm", client_id="igor", client_secret="of the client", redirect="https://igor.example.com:7946",
        groups_claim="roles", scopes=("groups",), session_ns=5400 * SECOND, ca_file=f"{tmp_path}/ca.pem",
        grants=(Grant("shop", Role.DEPLOYER, ("shop",)),),
    )  # fmt: skip


WRONG: list[tuple[Any, str]] = [
    ("x", "not a table"),
    ({}, "issuer is missing"),
    ({**GOOD, "isuer": "x"}, "isuer"),
    ({**GOOD, "issuer": "http://login.example.com"}, "https://"),
    ({**GOOD, "issuer": "login.example.com"}, "https://"),
    ({**GOOD, "issuer": "https://login.example.com?x=1"}, "https://"),
    ({**GOOD, "client_id": 5}, "not a text"),
    ({**GOOD, "client_secret_file": "/nowhere/at/all"}, "cannot be read"),
    ({**GOOD, "redirect": "https://igor.example.com/path"}, "has a path"),
    ({**GOOD, "scopes": "groups"}, "list of texts"),
    ({**GOOD, "session": "30d"}, "at most 7d"),
    ({**GOOD, "session": 8}, "at most 7d"),
    ({**GOOD, "ca_file": "/nowhere/at/all"}, "not there"),
    ({**GOOD, "grants": []}, "nobody could log in"),
    ({**GOOD, "grants": [{"group": "x"}]}, "role is missing"),
    ({**GOOD, "grants": [{"group": "x", "role": "node"}]}, "role of people"),
    ({**GOOD, "grants": [{"group": "x", "role": "viewer", "projects": []}]}, "leave it out"),
    ({**GOOD, "grants": [{"group": "x", "role": "viewer", "projects": ["a/b"]}]}, "not a name"),
    ({**GOOD, "grants": [{"group": "x", "role": "viewer", "project": "a"}]}, "expected group, role"),
]


@pytest.mark.parametrize("value, words", WRONG)
def test_what_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_oidc(value)


def test_a_fault_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[oidc]\nissuer = "http://x.example"\nclient_id = "i"\n')
    with pytest.raises(Invalid) as caught:
        read_settings(tmp_path, {}, {})
    assert caught.value.faults[0].startswith(f"{tmp_path / 'node.toml'}: oidc: issuer")


GRANTS = (
    Grant("admins", Role.ADMIN),
    Grant("shop", Role.DEPLOYER, ("shop",)),
    Grant("web", Role.DEPLOYER, ("web", "shop")),
    Grant("deployers", Role.DEPLOYER),
    Grant("all", Role.VIEWER),
)


@pytest.mark.parametrize(
    "groups, granted",
    [
        (["shop"], (Role.DEPLOYER, ("shop",))),
        (["web", "shop"], (Role.DEPLOYER, ("shop", "web"))),
        (["all", "shop"], (Role.DEPLOYER, ("shop",))),
        (["shop", "deployers"], (Role.DEPLOYER, ())),
        (["all", "admins"], (Role.ADMIN, ())),
        (["nobody"], None),
        ([], None),
    ],
)
def test_what_groups_give(groups: list[str], granted: Any) -> None:
    """The first that fits gives the role; others of that role add their projects."""
    assert OidcSettings(issuer="", client_id="", grants=GRANTS).grant(groups) == granted
