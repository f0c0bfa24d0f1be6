"""Builds the preloads of this folder: shared objects in C that are loaded into igor-node's processes and change what these see of the machine."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@functools.cache
def built(name: str) -> Path:
    """The shared object made from `name`.c; kept for as long as the test process lives. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler (Debian: apt-get install gcc libc6-dev)")
    target = _folder() / f"{name}.so"
    made = subprocess.run(
        [compiler, "-O2", "-Wall", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-o", str(target), str(HERE / f"{name}.c")],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, f"{name}.c does not compile:\n{made.stderr}"
    return target


@functools.cache
def _folder() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="igor-preload-")
    _kept.append(holder)
    return Path(holder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends
