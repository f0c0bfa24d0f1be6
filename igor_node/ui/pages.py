"""The page's files, read once from the package: the shell and what it loads.

`http` serves them and knows nothing else of the page. Names are paths below `static/`, with slashes.
"""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

from jinja2 import Environment

TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".json": "application/json"}
NOT_SERVED = (".toml", ".md", ".py")


@lru_cache(maxsize=1)
def static_files() -> dict[str, tuple[bytes, str]]:
    """Every file of the page with its content type."""
    return dict(_walk(resources.files("igor_node.ui") / "static", ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, tuple[bytes, str]]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif not entry.name.endswith(NOT_SERVED):
            found.append((prefix + entry.name, (entry.read_bytes(), content_type(entry.name))))
    return found


def content_type(name: str) -> str:
    suffix = name[name.rfind(".") :]
    return TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def shell_html(base: str) -> bytes:
    """The one HTML document. `base` is the path under which the files are served."""
    template = (resources.files("igor_node.ui") / "shell.html").read_text(encoding="utf-8")
    modules = [name for name in static_files() if name.endswith(".js")]
    return Environment(autoescape=True).from_string(template).render(base=base, modules=modules).encode()
