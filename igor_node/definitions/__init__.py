"""Job definitions: model, YAML and Python loaders, schedules (cron, time zones), JSON Schema.

Read jobs.py first: the job as the ledger keeps it. Then, on the way from a person's file to such a job: documents.py (YAML with lines), model.py
(the fields), shape.py (a document as a model, and its faults), resolve.py (everything between fields and documents), load.py (the two doors: a
folder, a push); and schedule.py (when it fires) with cron.py and zones.py, values.py (`${{ }}` and params), preview.py (in words, for people). No
clock is read but in `load_folder`: times are arguments.
`Job`, `Calendar`, `Pool` and `Project` are for `*.py` files of a folder (build.py); they are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igor_node.definitions.build import Calendar, Job, Pool, Project

__all__ = ["Calendar", "Job", "Pool", "Project"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from igor_node.definitions import build

    return getattr(build, name)
