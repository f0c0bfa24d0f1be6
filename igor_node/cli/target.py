"""Which nodes a command talks to and with which token: the first of these places that names a node.

1. `--context NAME`: a context of `igor login` (contexts.py);
2. `--node URL` (repeatable), else `IGOR_NODE` (comma-separated);
3. `--data-dir D`, else `IGOR_DATA_DIR`: `D/address` and `D/admin.token`, and `D/peers` (the other nodes, as the node last knew them);
4. `IGOR_CONTEXT`, else the context that is in use;
5. the default data directory, where there is one.

The token is `--token-file F`, else `IGOR_TOKEN`, else the one of the same place. A token that was found in a data directory is sent to an address
of another place only on loopback: whoever names a node must not get the key of another one.

This module also keeps the index of the last write, so that the next command, at whatever node, sees what this one did. Losing it loses nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from igor_node import words
from igor_node.cli import contexts
from igor_node.cli.contexts import Context
from igor_node.trust.pins import fingerprint_in

DEFAULT_PORT = 7946
INDEX_AGE_S = 30.0  # every connected node has a write within 3 s; after ten times that the index says nothing new
SMALL_FILE_BYTES = 1024 * 1024  # a larger address, token or context file is not one of ours


@dataclass(frozen=True)
class Target:
    """`place` says in words where the nodes were found, for messages."""

    addresses: tuple[str, ...]
    token: str | None
    place: str
    authorities: str = ""  # CAs to believe where the token names none, PEM


def find_target(
    nodes: Sequence[str] = (),
    data_dir: Path | None = None,
    token_file: str | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    context: str | None = None,
) -> Target:
    """The nodes and the token. Raises Unavailable (exit 7) where no place names a node, Malformed (2) where one is named wrongly."""
    found = _place(nodes, data_dir, environ) if context is None else target_of(contexts.read(context, environ), environ)
    token = given_token(token_file, environ) or found.token
    return Target(secured(found.addresses, token), token, found.place, found.authorities)


def secured(addresses: Sequence[str], token: str | None) -> tuple[str, ...]:
    """A token that names a CA is of a cluster with TLS: its nodes are asked in no other way, however they were named."""
    if fingerprint_in(token) is None:
        return tuple(addresses)
    return tuple(dict.fromkeys(address.replace("http://", "https://", 1) for address in addresses))


def _place(nodes: Sequence[str], data_dir: Path | None, environ: Mapping[str, str]) -> Target:
    directory = data_dir or (Path(environ["IGOR_DATA_DIR"]) if environ.get("IGOR_DATA_DIR") else None)
    named = list(nodes) or _nodes_of_environment(environ)
    if named:
        addresses = tuple(dict.fromkeys(normal_address(node) for node in named))
        return Target(addresses, _token_for(addresses, directory, environ), "--node" if nodes else "IGOR_NODE")
    if directory is not None:
        found = _of_data_dir(directory)
        if found is None:
            raise words.Unavailable(f"{directory}: no node has been in service here (there is no file address)", hint="start one: igor-node start")
        return found
    if (name := contexts.current(environ)) is not None:
        return target_of(contexts.read(name, environ), environ)
    found = _of_data_dir(default_data_dir(environ))
    if found is None:
        raise words.Unavailable(
            "no node is known: no --node, IGOR_NODE, --data-dir, IGOR_DATA_DIR, no login, and nothing in " + str(default_data_dir(environ)),
            hint="name one with --node URL, or start one: igor-node start",
        )
    return found


def _nodes_of_environment(environ: Mapping[str, str]) -> list[str]:
    """In a job's command `IGOR_NODE` is the name of the node that runs it, not an address: it is no answer to where the cluster is."""
    values = [value.strip() for value in environ.get("IGOR_NODE", "").split(",") if value.strip()]
    inside_a_run = "IGOR_RUN" in environ and "IGOR_ATTEMPT" in environ
    return [value for value in values if not inside_a_run or ":" in value]


def normal_address(text: str) -> str:
    """`HOST:PORT`, `HOST` or a URL as a base URL. Raises Malformed."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise words.Malformed(f'"{text}" is not the address of a node; expected HOST:PORT or https://HOST:PORT')
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain: a loopback address, or `localhost`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/igor")
    return Path(environ.get("HOME") or "/").joinpath(".local/share/igor")


# --- data directories


def _of_data_dir(directory: Path) -> Target | None:
    address = _small_text(directory / "address")
    if not address:
        return None
    others = _small_text(directory / "peers").split()
    addresses = tuple(dict.fromkeys(normal_address(text) for text in [address, *others]))
    return Target(addresses, _small_text(directory / "admin.token") or None, str(directory), _small_text(directory / "ca.crt"))


def _small_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(SMALL_FILE_BYTES).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as problem:
        raise words.Malformed(f"{path}: cannot be read ({getattr(problem, 'strerror', None) or problem})") from None


# --- tokens


def given_token(token_file: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    if token_file is None:
        return environ.get("IGOR_TOKEN", "").strip() or None
    return read_token_file(token_file)


def read_token_file(path: str) -> str:
    """The token in a file, `-` for standard input. Raises Malformed where there is none."""
    import sys

    if path == "-":
        token = sys.stdin.readline().strip()
    else:
        if not os.path.exists(path):
            raise words.Malformed(f"{path}: there is no such token file")
        token = _small_text(Path(path))
    if not token or len(token.split()) != 1:
        raise words.Malformed(f"{path}: holds no token; expected one line that begins with igor1.")
    return token


def _token_for(addresses: Iterable[str], directory: Path | None, environ: Mapping[str, str]) -> str | None:
    """A token for nodes that were named by address: the named data directory's, the context's for its own nodes, this machine's on loopback."""
    local = all(is_loopback(urlsplit(address).hostname or "") for address in addresses)
    if directory is not None and local:
        return _small_text(directory / "admin.token") or None
    for kept in _contexts(environ):
        if set(addresses) & {normal_address(node) for node in kept.nodes}:
            return kept.token
    return _own_token(default_data_dir(environ)) if local else None


def _own_token(directory: Path) -> str | None:
    try:
        return _small_text(directory / "admin.token") or None
    except words.Malformed:  # another user's directory: as if it were not there
        return None


# --- contexts of `igor login`


def target_of(context: Context, environ: Mapping[str, str] = os.environ) -> Target:
    place = f"context {context.name}, {contexts.file_of(context.name, environ)}"
    return Target(tuple(normal_address(node) for node in context.nodes), context.token, place)


def _contexts(environ: Mapping[str, str]) -> list[Context]:
    """The one in use first: it is asked for its token by the nodes that it names itself."""
    found = []
    name = contexts.current(environ)
    for one in dict.fromkeys([*([name] if name is not None else []), *contexts.names(environ)]):
        try:
            found.append(contexts.read(one, environ))
        except words.IgorError:
            continue
    return found


# --- the index of the last write


def _index_file(target: Target, environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or "/", ".local/state")
    # By token, because another cluster that took over an address has other tokens and a smaller index.
    who = target.token or ",".join(sorted(target.addresses))
    return Path(base) / "igor" / f"index-{hashlib.sha256(who.encode()).hexdigest()[:16]}.json"


def remember_index(target: Target, index: int, environ: Mapping[str, str] = os.environ) -> None:
    try:
        contexts.write_private(_index_file(target, environ), {"index": index, "at": time.time()})
    except OSError:
        pass  # a home that cannot be written to costs only this comfort


def remembered_index(target: Target, environ: Mapping[str, str] = os.environ) -> int | None:
    """The index of a write of the last half minute, None where there was none."""
    try:
        kept = json.loads(_index_file(target, environ).read_bytes())
        return int(kept["index"]) if 0 <= time.time() - float(kept["at"]) < INDEX_AGE_S else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
