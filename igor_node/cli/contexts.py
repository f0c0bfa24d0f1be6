"""Contexts: the clusters that `igor login` remembers, each under a name, one of them in use.

    ~/.config/igor/contexts/NAME.json     {"cluster", "nodes", "token"}, mode 0600
    ~/.config/igor/context                the name of the one in use

`--context NAME` or `IGOR_CONTEXT` names another for one command. A file a context, so that two log-ins at once lose nothing. The token stands in the
file alone: no command prints it, and none takes it as an argument, where every user of the machine could read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igor_node import words

FILE_BYTES = 1024 * 1024  # a larger one is not one of ours


@dataclass(frozen=True)
class Context:
    name: str
    cluster: str
    nodes: tuple[str, ...]
    token: str | None

    @property
    def token_id(self) -> str:
        """What of the token may be shown."""
        parts = (self.token or "").split(".")
        return parts[2] if len(parts) == 4 else ""


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    return Path(base) / "igor"


def file_of(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Raises Malformed for what is no name."""
    if not words.NAME.fullmatch(name):
        raise words.Malformed(f'"{name}" is not a name of a context; expected letters, digits, "-", "_", "."')
    return folder(environ) / "contexts" / f"{name}.json"


def names(environ: Mapping[str, str] = os.environ) -> list[str]:
    return sorted(path.stem for path in (folder(environ) / "contexts").glob("*.json") if words.NAME.fullmatch(path.stem))


def current(environ: Mapping[str, str] = os.environ) -> str | None:
    """The name of the one in use: that of the environment, else the one that was chosen last."""
    named = environ.get("IGOR_CONTEXT", "").strip()
    if named:
        return named
    try:
        name = (folder(environ) / "context").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if words.NAME.fullmatch(name) and file_of(name, environ).exists() else None


def read(name: str, environ: Mapping[str, str] = os.environ) -> Context:
    """Raises NotFound, or Malformed where the file is not one of ours."""
    path = file_of(name, environ)
    try:
        with path.open("rb") as file:
            kept = json.loads(file.read(FILE_BYTES))
        token = kept.get("token")
        if not isinstance(kept["cluster"], str) or not all(isinstance(node, str) for node in kept["nodes"]) or not isinstance(token, str | None):
            raise ValueError("a field has another type")
        return Context(name, kept["cluster"], tuple(kept["nodes"]), token)
    except FileNotFoundError:
        known = ", ".join(names(environ)) or "none"
        raise words.NotFound(f'no context is named "{name}"', hint=f"there are: {known}; igor login makes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise words.Malformed(f"{path}: is not a context of igor login", hint=f"igor logout {name} removes it") from None


def write(context: Context, environ: Mapping[str, str] = os.environ) -> Path:
    path = file_of(context.name, environ)
    write_private(path, {"cluster": context.cluster, "nodes": list(context.nodes), "token": context.token})
    return path


def use(name: str, environ: Mapping[str, str] = os.environ) -> None:
    """From now on, until another is chosen."""
    if not file_of(name, environ).exists():
        read(name, environ)  # says which there are
    _write(folder(environ) / "context", name + "\n")


def remove(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether there was one. The next command uses none where it was the one in use."""
    path = file_of(name, environ)
    known = path.exists()
    path.unlink(missing_ok=True)
    return known


def name_for(cluster: str, environ: Mapping[str, str] = os.environ) -> str:
    """The context of that cluster which there is, else one with its id for a name."""
    for name in names(environ):
        try:
            if read(name, environ).cluster == cluster:
                return name
        except words.Malformed:
            continue
    return cluster if words.NAME.fullmatch(cluster) else "cluster"


def write_private(path: Path, value: Any) -> None:
    _write(path, json.dumps(value))


def _write(path: Path, text: str) -> None:
    """Mode 0600 from the first byte, and whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def nodes_of(addresses: Sequence[str], cluster: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that were named, then all that the cluster knows: later calls go on when one is down."""
    others = [node["address"] for node in cluster.get("nodes") or [] if node.get("address")]
    return tuple(dict.fromkeys([*addresses, *others]))
