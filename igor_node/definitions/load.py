"""Definitions in, jobs out: the folder of a client, and the objects of a push.

`load_folder` is what `igor validate`, `plan` and `push` call: `*.yaml` and `*.py` directly in the folder, `project.yaml` names the project.
`check_objects` is what a node calls with the objects of a PUT. Both give the same faults, all at once, because both end in `resolve.py`; an
object carries where it comes from in its key `source` (`{"file", "line", "lines": {path: line}}`), which is no field of a definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igor_node.definitions.documents import FILE_LIMIT_BYTES, NESTING_LIMIT, read_file
from igor_node.definitions.faults import Faults, Origin
from igor_node.definitions.jobs import Job
from igor_node.definitions.judged import Written
from igor_node.definitions.resolve import Resolved, resolve
from igor_node.words import NAME, Instant, Invalid, wall_now

FILES_LIMIT = 20_000  # of one folder
PROJECT_FILE = "project.yaml"
SUFFIXES = (".yaml", ".yml", ".py")


@dataclass(frozen=True)
class Loaded:
    """A folder that is valid. `objects` and `sources` (text by file name) are the body of a push."""

    project: str
    objects: list[dict[str, Any]]
    sources: dict[str, str]
    jobs: list[Job]
    pools: dict[str, int]  # slots by name


def load_folder(folder: Path | str, now: Instant | None = None) -> Loaded:
    """Raises Invalid with every fault of every file. `now` is the client's clock where none is given: an `at:` must be after it."""
    folder = Path(folder)
    faults = Faults()
    objects: list[dict[str, Any]] = []
    sources: dict[str, str] = {}
    for path in _files(folder, faults):
        data = _bytes(path, faults)
        if data is None:
            continue
        sources[path.name] = data.decode("utf-8", "replace")
        objects += _python(path, faults) if path.suffix == ".py" else _yaml(path, data, faults)
    project = _project(folder, objects, faults)
    found = _resolve(project, objects, wall_now() if now is None else now, faults)
    if len(faults):
        raise invalid(faults)
    return Loaded(project, objects, sources, found.jobs, found.pools)


def check_objects(project: str, objects: Sequence[Any], now: Instant) -> Resolved:
    """The jobs and pools of a push. Raises Invalid with every fault."""
    faults = Faults()
    if not NAME.fullmatch(project):
        faults.add(Origin("definitions"), ("project",), f'"{project[:100]}" is not a name; expected letters, digits, -, _ and .')
    found = _resolve(project, objects, now, faults)
    if len(faults):
        raise invalid(faults)
    return found


def invalid(faults: Faults) -> Invalid:
    count = len(faults.lines())
    return Invalid(f"the definitions have {count} faults" if count != 1 else "the definitions have a fault", faults=faults.lines())


def _resolve(project: str, objects: Sequence[Any], now: Instant, faults: Faults) -> Resolved:
    documents = []
    for index, value in enumerate(objects):
        source = value.get("source") if isinstance(value, dict) else None
        plain = {key: part for key, part in value.items() if key != "source"} if isinstance(value, dict) else value
        origin = Origin.of(source, index)
        if _too_deep(plain):
            faults.add(origin, (), f"the nesting is deeper than {NESTING_LIMIT}; expected less")
        else:
            documents.append(Written(plain, origin))
    return resolve(project, documents, now, faults)


def _too_deep(value: Any) -> bool:
    """Without recursion: the value may come from anybody."""
    level = [value]
    for _ in range(NESTING_LIMIT + 1):
        level = [part for each in level if isinstance(each, dict | list) for part in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return False
    return True


def _files(folder: Path, faults: Faults) -> list[Path]:
    if not folder.is_dir():
        faults.add(Origin(str(folder)), (), "is not a folder; expected the folder that holds the *.yaml files")
        return []
    named = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith((".", "__")))
    found = [path for path in named if path.is_file()]
    for path in named:
        if not path.is_file():
            faults.add(Origin(path.name, 1), (), "is not a file; expected one that can be read")
            faults.unread = True
    if not named:
        faults.add(Origin(str(folder)), (), "holds no definitions; expected *.yaml files")
    if len(found) > FILES_LIMIT:
        faults.add(Origin(str(folder)), (), f"holds {len(found)} files; expected at most {FILES_LIMIT}")
    return found[:FILES_LIMIT]


def _bytes(path: Path, faults: Faults) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT_BYTES + 1)
    except OSError as problem:
        faults.add(Origin(path.name, 1), (), f"the file cannot be read ({problem.strerror}); expected a file that can")
        faults.unread = True
        return None


def _yaml(path: Path, data: bytes, faults: Faults) -> list[dict[str, Any]]:
    objects = []
    for document in read_file(path.name, data, faults):
        value = document.value
        if not isinstance(value, dict):
            faults.add(Origin(path.name, document.line), (), "the document is not a mapping; expected apiVersion, kind and name")
        else:
            if "source" in value:
                faults.add(Origin(path.name, document.line, document.lines), ("source",), '"source" is not a field here; expected it left out')
            objects.append({**value, "source": {"file": path.name, "line": document.line, "lines": document.lines}})
    return objects


def _python(path: Path, faults: Faults) -> list[dict[str, Any]]:
    from igor_node.definitions.build import run_builder

    return run_builder(path, faults)


def _project(folder: Path, objects: Sequence[dict[str, Any]], faults: Faults) -> str:
    """The name in `project.yaml`, else the folder's own."""
    for value in objects:
        if value.get("kind") == "Project":
            origin = Origin.of(value["source"], 0)
            if origin.file not in (PROJECT_FILE, "project.yml") and not origin.file.endswith(".py"):
                faults.add(origin, ("kind",), f"a Project stands in {origin.file}; expected it in {PROJECT_FILE}")
            if isinstance(value.get("name"), str):
                return str(value["name"])
    name = folder.resolve().name
    if not NAME.fullmatch(name) and not faults.unread:
        what = f"the folder's name \"{name}\" cannot be a project's; expected {PROJECT_FILE} with kind: Project and a name:"
        faults.add(Origin(str(folder)), (), what)
    return name
