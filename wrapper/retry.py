"""What follows a try that has ended: another one, or the end of the attempt. Pure: no clock, no file; chance comes as an argument.

SEMANTICS, "The wrapper". `retries.max` counts the tries after the first. Which failures are tried again: all (`on` and `retry_codes` absent), or
those whose exit code stands in `on` or `retry_codes`; a signal S counts as exit code 128 + S, a time-out as the word `timeout`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def state_of(spec: dict[str, Any], exit_code: int | None, signal: int | None) -> str:
    """How a command that ended by itself has ended its try."""
    if signal is not None or exit_code is None:
        return "failed"
    if exit_code in spec["success_codes"]:
        return "succeeded"
    return "skipped" if exit_code in spec["skip_codes"] else "failed"


def wants_retry(spec: dict[str, Any], *, try_n: int, state: str, exit_code: int | None, signal: int | None) -> bool:
    if state not in ("failed", "timed_out", "lost") or try_n > spec["retries"]["max"]:
        return False
    on, codes = spec["retries"]["on"], spec["retry_codes"]
    if state == "timed_out":
        return on is None or "timeout" in on
    if state == "lost" or (on is None and codes is None):
        return True
    code = 128 + signal if signal is not None else exit_code
    return code in (on or ()) or code in (codes or ())


def backoff_ns(spec: dict[str, Any], try_n: int, chance: float) -> int:
    """The wait after try `try_n`. `chance` in [0, 1) takes away up to the share `jitter` of it."""
    retries = spec["retries"]
    power = min(try_n - 1, 64)  # past it any factor has reached its maximum; floats would overflow
    wait = min(retries["initial_ns"] * float(retries["factor"]) ** power, float(retries["max_ns"]))
    return int(wait * (1.0 - retries["jitter"] * chance))
