"""Fills `igor_node/ui/static/vendor/` from npm packages: one minified ES module a library, one SVG sprite, and `VENDOR.toml` that says where from.

Only who updates a library runs this (it needs npm and node; the page itself needs neither, its sources are what is served):

    python -m tools.vendor_ui

`tests/unit/ui/test_vendor.py` checks that every vendored file has the SHA-256 that VENDOR.toml names.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "igor_node" / "ui" / "static" / "vendor"
ESBUILD = "esbuild@0.28.2"
LIT_EXPORTS = """
export { html, svg, nothing, render, LitElement } from 'lit';
export { repeat } from 'lit/directives/repeat.js';
export { classMap } from 'lit/directives/class-map.js';
export { live } from 'lit/directives/live.js';
export { ref, createRef } from 'lit/directives/ref.js';
"""
LIBRARIES = {  # file -> (package, licence, source of the bundle)
    "lit.js": ("lit@3.3.3", "BSD-3-Clause", LIT_EXPORTS),
    "ansi_up.js": ("ansi_up@6.0.6", "MIT", "export { AnsiUp } from 'ansi_up';"),
}
ICONS_PACKAGE = ("lucide-static@1.62.0", "ISC")
ICONS = (  # the ones the page uses; names of lucide
    "house", "list", "list-checks", "server", "calendar-clock", "circle-check", "circle-x", "circle-alert", "circle-pause", "circle-dashed",
    "circle-slash", "timer-off", "ban", "skull", "diamond", "play", "pause", "square", "refresh-cw", "search", "sun", "moon", "monitor", "clock",
    "hourglass", "loader", "user", "copy", "download", "terminal", "triangle-alert", "info", "x", "chevron-right", "chevron-down", "skip-forward",
    "external-link", "crown", "menu", "keyboard",
)  # fmt: skip


def sprite(folder: Path) -> str:
    """The icons as symbols of one SVG, each 24 by 24, drawn with the current colour."""
    symbols = []
    for name in ICONS:
        text = (folder / f"{name}.svg").read_text()
        body = re.sub(r"<!--.*?-->|<svg[^>]*>|</svg>", "", text, flags=re.S)
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{" ".join(body.split())}</symbol>')
    return '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    packages = [package for package, _, _ in LIBRARIES.values()]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        subprocess.run(["npm", "init", "-y"], cwd=work, check=True, capture_output=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *packages, ICONS_PACKAGE[0], ESBUILD], cwd=work, check=True, capture_output=True)
        rows = []
        for file, (package, licence, source) in LIBRARIES.items():
            (work / file).write_text(source)
            arguments = [file, "--bundle", "--format=esm", "--minify", "--legal-comments=inline", f"--outfile={TARGET / file}"]
            subprocess.run([work / "node_modules" / ".bin" / "esbuild", *arguments], cwd=work, check=True, capture_output=True)
            rows.append((file, package, licence))
        (TARGET / "icons.svg").write_text(sprite(work / "node_modules" / "lucide-static" / "icons"))
        rows.append(("icons.svg", *ICONS_PACKAGE))
    lines = ["# Made by tools/vendor_ui.py; do not edit.\n"]
    for file, package, licence in rows:
        library, _, version = package.rpartition("@")
        digest = hashlib.sha256((TARGET / file).read_bytes()).hexdigest()
        lines.append(f'\n["{file}"]\nname = "{library}"\nversion = "{version}"\nlicence = "{licence}"\nsource = "npm"\nsha256 = "{digest}"\n')
    (TARGET / "VENDOR.toml").write_text("".join(lines))


if __name__ == "__main__":
    main()
