"""The settings of a node: where it keeps its data, where it listens, what it is called, what it can do.

Three places, the later one wins: `D/node.toml`, the environment (`IGOR_LISTEN`, …), the options of `igor-node`. `read_settings` reads and
checks all of them before anything is started; every fault names its place and what was expected. `igor_node.cli.node` calls it, `igor_node.node`
gets the result.

    node.toml           environment         option            default
    listen              IGOR_LISTEN         --listen          127.0.0.1:7946
    advertise           IGOR_ADVERTISE      --advertise       where it listens
    name                IGOR_NAME           --name            the name it had, else the host's
    labels = {k = "v"}  IGOR_LABELS k=v,…   --label k=v       none
    slots               IGOR_SLOTS          --slots           two a processor, at least 4
    voters              IGOR_VOTERS         --voters          3
    auth                IGOR_AUTH           --auth            required
    tls                 IGOR_TLS            --tls             auto: whether a cluster founded here has TLS; always off loopback
    log_format          IGOR_LOG_FORMAT     --log-format      text on a terminal, else json
    log_level           IGOR_LOG_LEVEL      --log-level       info
    environment = {…}   -                   -                 none: what each command here finds in its environment
    users = ["etl"]     -                   -                 none: as whom, besides the node's own user, commands may run here
    oidc = {…}          -                   -                 none: where people log in with the browser (oidc_settings.py)
"""

from __future__ import annotations

import os
import pwd
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from igor_node.oidc_settings import OidcSettings, read_oidc
from igor_node.words import NAME, Invalid

DEFAULT_LISTEN = "127.0.0.1:7946"
SLOTS_LIMIT = 10_000  # a typing error, not a machine
USERS_LIMIT = 50
LABELS_LIMIT = 100  # they travel in every Hello and stand in every view of a node
LABEL_VALUE = re.compile(r"[^\s,=]{0,100}")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VOTERS = (1, 3, 5, 7)  # an even number costs a machine and tolerates no more losses
AUTH = ("required", "off")
TLS = ("auto", "on")
EVERY_ADDRESS = ("0.0.0.0", "::")
LOG_FORMATS = ("text", "json", "auto")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class NodeSettings:
    """Checked. `name` None: the one in `D/node.json`, else the host's. `advertise` None: the address it listens on, with the port it got.
    `given`: the settings that some place named; what is not in it may be remembered from before."""

    data_dir: Path
    listen: str = DEFAULT_LISTEN
    advertise: str | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    slots: int = 4
    voters: int = 3
    auth: str = "required"
    tls: str = "auto"
    log_format: str = "auto"
    log_level: str = "info"
    environment: Mapping[str, str] = field(default_factory=dict)
    users: tuple[str, ...] = ()
    oidc: OidcSettings | None = None
    given: frozenset[str] = frozenset()

    @property
    def listen_host(self) -> str:
        return split_address(self.listen)[0]

    @property
    def listen_port(self) -> int:
        return split_address(self.listen)[1]


@dataclass(frozen=True)
class Join:
    """`igor-node join`: base URLs of peers, a token of role node. `reset`: what D holds of another cluster may be thrown away.
    `ephemeral`: the node never votes, and leaves when it stops."""

    peers: tuple[str, ...]
    token: str | None = None
    reset: bool = False
    ephemeral: bool = False


def default_slots() -> int:
    return max(4, 2 * (os.cpu_count() or 1))


def default_name() -> str:
    """The host's name as a node's name: letters, digits, - _ . only."""
    name = os.uname().nodename.split(".")[0]
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip("-_.")[:100] or "node"


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT`. Raises ValueError that says what was expected."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535 or (":" in host) != host.startswith("["):
        raise ValueError(f'"{text}" is not an address; expected HOST:PORT, like {DEFAULT_LISTEN}')
    return host.strip("[]"), int(port)


def read_settings(data_dir: Path, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> NodeSettings:
    """All three places together. `options` holds the settings by their names in node.toml; None means not given. Raises Invalid with all faults."""
    faults: list[str] = []
    named: set[str] = set()
    values: dict[str, Any] = {"slots": default_slots()}
    for place, given in _places(data_dir, options, environ, faults):
        for name, value in given.items():
            check = CHECKS.get(name)
            if check is None:
                faults.append(f"{place(name)}: there is no such setting; expected one of {', '.join(sorted(CHECKS))}")
                continue
            named.add(name)
            try:
                values[name] = check(value)
            except ValueError as problem:
                faults.append(f"{place(name)}: {problem}")
    faults += _together(values)
    if faults:
        raise Invalid("the node's settings are not valid", faults=faults)
    return NodeSettings(data_dir=data_dir, given=frozenset(named), **values)


def _places(
    data_dir: Path, options: Mapping[str, Any], environ: Mapping[str, str], faults: list[str]
) -> list[tuple[Callable[[str], str], Mapping[str, Any]]]:
    path = data_dir / "node.toml"
    variables = {name: environ[variable] for name in CHECKS if name not in FILE_ONLY and environ.get(variable := f"IGOR_{name.upper()}")}
    return [
        (lambda name: f"{path}: {name}", _read_toml(path, faults)),
        (lambda name: f"IGOR_{name.upper()}", variables),
        (lambda name: "--" + ("label" if name == "labels" else name.replace("_", "-")), {n: v for n, v in options.items() if v is not None}),
    ]


def _read_toml(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        faults.append(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}")
        return {}


def _together(values: Mapping[str, Any]) -> list[str]:
    """What each setting for itself does not show."""
    host = split_address(values.get("listen") or DEFAULT_LISTEN)[0]
    faults = []
    if values.get("auth") == "off" and not all(_is_loopback(split_address(values[name])[0]) for name in ("listen", "advertise") if values.get(name)):
        faults.append('auth: "off" is for loopback alone, and this node is to be reached from elsewhere; expected "required"')
    if host in EVERY_ADDRESS and not values.get("advertise"):
        faults.append(f'listen: on "{host}" others do not know where this node is; expected --advertise HOST:PORT besides')
    if values.get("advertise") and split_address(values["advertise"])[0] in EVERY_ADDRESS:
        faults.append(f'advertise: "{values["advertise"]}" is no address of one node; expected HOST:PORT, as others reach it')
    return faults


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or re.fullmatch(r"127\.\d{1,3}\.\d{1,3}\.\d{1,3}", host) is not None


# --- one check a setting: the value as the node uses it, or ValueError


def _address(value: Any) -> str:
    split_address(_text(value))
    return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


def _name(value: Any) -> str:
    if not NAME.fullmatch(_text(value)):
        raise ValueError(f'"{value}" is not a name; expected up to 100 letters, digits, "-", "_", ".", beginning with a letter or digit')
    return _text(value)


def _labels(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, dict):
        value = dict(_pair(text) for text in value)
    if len(value) > LABELS_LIMIT:
        raise ValueError(f"{len(value)} labels are too many; expected at most {LABELS_LIMIT}")
    return {_name(key): _label_value(key, text) for key, text in value.items()}


def _pair(text: Any) -> tuple[str, str]:
    key, equals, value = str(text).strip().partition("=")
    if not equals or not key:
        raise ValueError(f'"{text}" is not a label; expected key=value, like zone=eu')
    return key, value


def _label_value(key: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, dict | list) or not LABEL_VALUE.fullmatch(text):
        raise ValueError(f'the value of label "{key}" is not allowed; expected up to 100 characters without space, "," and "="')
    return text


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError('it is not a table of texts; expected like environment = {LANG = "C.UTF-8"}')
    wrong = [name for name in value if not ENVIRONMENT_NAME.fullmatch(name) or name.startswith("IGOR_")]
    if wrong:
        raise ValueError(f'"{wrong[0]}" is not allowed as a name; expected letters, digits and "_", not beginning with a digit or with IGOR_')
    if any("\0" in text for text in value.values()):
        raise ValueError("a value holds a NUL character")
    return dict(value)


def _users(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(user, str) for user in value) or len(value) > USERS_LIMIT:
        raise ValueError(f'it is not a list of at most {USERS_LIMIT} users; expected like users = ["etl"]')
    for user in value:
        try:
            pwd.getpwnam(user)
        except (KeyError, ValueError):
            raise ValueError(f'there is no user "{user[:100]}" on this machine') from None
        if os.geteuid() != 0 and pwd.getpwnam(user).pw_uid != os.geteuid():
            raise ValueError(f'this node does not run as root, so it cannot run commands as "{user}"; expected the list left out')
    return tuple(dict.fromkeys(value))


def _slots(value: Any) -> int:
    number = _whole(value)
    if not 0 <= number <= SLOTS_LIMIT:
        raise ValueError(f"{number} slots are not possible; expected 0 (runs nothing) to {SLOTS_LIMIT}")
    return number


def _voters(value: Any) -> int:
    number = _whole(value)
    if number not in VOTERS:
        raise ValueError(f"{number} voters are not possible; expected {_either(VOTERS)}")
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,9}", str(value)):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not possible; expected {_either(choices)}")
        return str(value)

    return check


def _either(choices: tuple[Any, ...]) -> str:
    return ", ".join(str(choice) for choice in choices[:-1]) + f" or {choices[-1]}"


FILE_ONLY = frozenset({"environment", "oidc", "users"})
CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "listen": _address,
    "advertise": _address,
    "name": _name,
    "labels": _labels,
    "slots": _slots,
    "voters": _voters,
    "auth": _one_of(AUTH),
    "tls": _one_of(TLS),
    "log_format": _one_of(LOG_FORMATS),
    "log_level": _one_of(LOG_LEVELS),
    "environment": _environment,
    "users": _users,
    "oidc": read_oidc,
}
