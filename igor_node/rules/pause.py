"""Pause: whether a fire falls into a pause of its job. Asked by the leader for each fire and by `ledger.apply` again.

A pause is a span: from the pause on, to its `until` or to the resume. Fires in it are never run, also not after the resume (SEMANTICS, "Pause,
push and cancel"). A resume leaves `resumed_at` behind, so that a leader that decides late still knows which fires the pause had covered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pause:
    """What the ledger knows of a job's pause. `resumed_at`: the end of the last pause, kept after it."""

    paused: bool = False
    until: int | None = None
    resumed_at: int | None = None
    reason: str = ""

    def covers(self, scheduled_at: int) -> bool:
        if self.paused:
            return self.until is None or scheduled_at < self.until
        return self.resumed_at is not None and scheduled_at <= self.resumed_at

    def in_words(self) -> str:
        """The reason of its fires' record. Always the same, so that one pause is one record; who paused it and why stands with the job."""
        return "paused"


def is_paused(*, paused: bool, until: int | None, scheduled_at: int) -> bool:
    """Whether a fire may not become a run because its job is paused then."""
    return Pause(paused=paused, until=until).covers(scheduled_at)
