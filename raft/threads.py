"""Threads that come and go, for what takes long, beside a tick thread that must not end because the machine has no process left for a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger("raft")


def begin_thread(name: str, function: Callable[..., None], *arguments: Any) -> bool:
    """False where the system gives none now: the commands that run on this machine may have taken them all. Try again later."""
    try:
        threading.Thread(target=function, args=arguments, name=name, daemon=True).start()
    except RuntimeError as problem:
        log.debug("no thread for %s: %s", name, problem)
        return False
    return True
