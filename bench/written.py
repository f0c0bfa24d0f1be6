"""What each benchmark does with its findings at the end: the JSON for programs, and the exit code for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def written(found: Mapping[str, Any], file: Path) -> int:
    """Writes them to `file` and says so. 0 where `goals_met`, else 1."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {file}")
    return 0 if found["goals_met"] else 1
