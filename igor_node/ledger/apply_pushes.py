"""How definitions come into the ledger, and how jobs are paused and resumed: what becomes of the runs that have not started meanwhile.

Three things can meet a run that has not started: its job was changed (it takes the new version), paused or removed (it is skipped). A run whose
attempt is with a node already is the node's to decide: the attempt is marked with a `revoke`, the node confirms that it never started it or
reports that it has, and `settle_given_back` does then what would have been done at once (SEMANTICS, "Pause, push and cancel").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from igor_node.definitions.jobs import Job, decode_job
from igor_node.ledger import schema
from igor_node.ledger.apply_ends import end_waiting_run
from igor_node.ledger.apply_runs import write_stages
from igor_node.ledger.commands import Done, PauseJobs, PushProject, Refused, Result, ResumeJobs
from igor_node.ledger.schema import attempt_id, span_of
from igor_node.ledger.transaction import LATEST, BrokenInvariant, JobRecord, RunRecord, Transaction, in_words, to_json
from igor_node.rules.states import RunEvent
from igor_node.words import NAME, SECOND, Trigger, format_instant

REVOKE_LEAST_NS = 1 * SECOND  # a push leaves a fire that is due sooner with its node: to hand it out anew would make it late
JOB_REMOVED = "job removed"
NEW_VERSION = "a new version was pushed"
PAUSED = "paused"
BY_DEFINITION = "its definition says so"


class _Known(NamedTuple):
    """A job of the project as it was before the push."""

    job: str
    name: str
    spec_version: int
    decided_until: int
    paused_at: int | None
    text: bytes


class _Changes(NamedTuple):
    """What a push does, before it is done. `rewritten`: jobs whose text differs, if only in what nobody sees."""

    created: list[Job]
    changed: list[str]
    rewritten: list[Job]
    removed: list[_Known]
    known: dict[str, _Known]
    texts: dict[str, bytes]

    @property
    def nothing(self) -> bool:
        return not (self.created or self.rewritten or self.removed)


# --- push


def push_project(tx: Transaction, command: PushProject) -> Result:
    """All or nothing. `version`, `unchanged`, and the names of jobs `created`, `changed`, `removed`; `handed_out`: fires that are with a node and may
    start all the same, with the old version."""
    row = tx.one(schema.SELECT_PROJECT, command.project)
    version = 0 if row is None else int(row[0])
    if command.if_version is not None and command.if_version != version:
        return Refused("StaleVersion", _stale(command, version), "read the project again, then push with its version")
    jobs = _decode(command)
    if isinstance(jobs, Refused):
        return jobs
    changes = _compare(tx, command, jobs)
    if version and changes.nothing and _pools(tx, command.project) == command.pools and _same_sources(tx, command, version):
        return Done(_answer(version, changes, unchanged=True, handed_out=[]))
    if len(changes.removed) * 2 > len(changes.known) and not command.prune:
        names = in_words([job.name for job in changes.removed])
        message = f"this push would remove {len(changes.removed)} of {len(changes.known)} jobs of project {command.project}: {names}"
        return Refused("Conflict", message, "push with --prune if that is meant")
    return Done(_answer(version + 1, changes, unchanged=False, handed_out=_take(tx, command, version + 1, changes)))


def _stale(command: PushProject, version: int) -> str:
    if command.if_version == 0:
        return f"project {command.project} exists already, its version is {version}"
    return f"project {command.project} is at version {version}, not {command.if_version}" if version else f"there is no project {command.project}"


def _decode(command: PushProject) -> list[tuple[Job, bytes]] | Refused:
    """The jobs with their texts, by name."""
    if not NAME.fullmatch(command.project):
        return Refused("Invalid", f'"{command.project}" is not a name for a project')
    jobs: dict[str, tuple[Job, bytes]] = {}
    for text in command.jobs:
        try:
            job = decode_job(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Refused("Malformed", f"a job of project {command.project} cannot be read")
        if (
            job.project != command.project
            or not NAME.fullmatch(job.name)
            or job.name in jobs
            or not job.stages
            or len({one.name for one in job.stages}) < len(job.stages)
        ):
            return Refused("Invalid", f"job {job.id} cannot stand in project {command.project}: name, project or stages are wrong or double")
        jobs[job.name] = job, text
    if not all(NAME.fullmatch(name) and slots > 0 for name, slots in command.pools.items()):
        return Refused("Invalid", f"a pool of project {command.project} has no proper name, or no slots")
    return [jobs[name] for name in sorted(jobs)]


def _compare(tx: Transaction, command: PushProject, pushed: list[tuple[Job, bytes]]) -> _Changes:
    jobs = [job for job, _ in pushed]
    texts = {job.name: text for job, text in pushed}
    rows = tx.all(schema.SELECT_JOBS_OF_PROJECT, command.project, *span_of(command.project))
    known = {row[1]: _Known._make(row) for row in rows}
    created = [job for job in jobs if job.name not in known]
    rewritten = [job for job in jobs if job.name in known and texts[job.name] != known[job.name].text]
    changed = [job.name for job in rewritten if _visible(job) != _visible(decode_job(known[job.name].text))]
    removed = [job for name, job in known.items() if name not in texts]
    return _Changes(created, changed, rewritten, removed, known, texts)


def _visible(job: Job) -> Job:
    """The job without the place where its definition stands."""
    return msgspec.structs.replace(job, source_file="", source_line=0)


def _pools(tx: Transaction, project: str) -> dict[str, int]:
    return {pool.partition("/")[2]: slots for pool, slots in tx.all(schema.SELECT_POOLS_OF_PROJECT, *span_of(project))}


def _take_pools(tx: Transaction, command: PushProject) -> None:
    tx.execute(schema.DELETE_POOLS_OF_PROJECT, span_of(command.project))
    for name in sorted(command.pools):
        tx.execute(schema.INSERT_POOL, (f"{command.project}/{name}", command.pools[name]))


def _same_sources(tx: Transaction, command: PushProject, version: int) -> bool:
    row = tx.one(schema.SELECT_SOURCES, command.project, version)
    return row is not None and row[0] == to_json(command.sources).decode()


def _answer(version: int, changes: _Changes, *, unchanged: bool, handed_out: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": version,
        "unchanged": unchanged,
        "created": [job.name for job in changes.created],
        "changed": changes.changed,
        "removed": [job.name for job in changes.removed],
        "handed_out": handed_out,
    }


def _take(tx: Transaction, command: PushProject, version: int, changes: _Changes) -> list[dict[str, Any]]:
    """Writes the push; the fires that are with a node."""
    project = command.project
    names = [to_json(names).decode() for names in ([job.name for job in changes.created], changes.changed, [job.name for job in changes.removed])]
    tx.execute(schema.UPSERT_PROJECT, (project, version))
    _take_pools(tx, command)
    row = (project, version, tx.time, tx.actor, command.source, to_json(command.sources).decode(), *names, len(changes.texts))
    tx.execute(schema.INSERT_VERSION, row)
    handed_out: list[dict[str, Any]] = []
    for gone in changes.removed:
        handed_out += _remove(tx, gone)
    tx.execute(schema.UPDATE_JOB_VERSIONS, (version, project, *span_of(project)))
    for job in changes.created:
        _create(tx, job, changes.texts[job.name], version)
    for job in changes.rewritten:
        handed_out += _change(tx, job, changes.known[job.name], changes.texts[job.name], version, seen=job.name in changes.changed)
    tx.event("project", project=project, version=version, created=len(changes.created), changed=len(changes.changed), removed=len(changes.removed))
    tx.touch("projects", "jobs", "runs", "stages", "attempts")
    return handed_out


def _create(tx: Transaction, job: Job, text: bytes, version: int) -> None:
    """A job that is new, or was removed before: it speaks only for times after now and after all that was ever decided for it."""
    before = tx.job(job.id)
    paused = (tx.time, BY_DEFINITION, tx.actor) if job.paused else (None, "", "")
    tx.execute(schema.INSERT_DEFINITION, (job.id, version, text))
    if before is None:
        tx.execute(schema.INSERT_JOB, (job.id, job.project, job.name, version, version, *paused, tx.time, tx.time, tx.time))
        decided = tx.time
    else:
        decided = max(before.decided_until, tx.time)
        tx.execute(schema.REVIVE_JOB, (version, version, *paused, decided, tx.time, job.id))
    _note(tx, job.id, decided, "paused" if job.paused else "active", version, BY_DEFINITION if job.paused else "")
    tx.event("job", job=job.id, action="created", version=version)


def _change(tx: Transaction, job: Job, known: _Known, text: bytes, version: int, *, seen: bool) -> list[dict[str, Any]]:
    old = decode_job(known.text)
    tx.execute(schema.INSERT_DEFINITION, (job.id, version, text))
    tx.execute(schema.UPDATE_JOB_SPEC, (version, tx.time, job.id))
    handed_out: list[dict[str, Any]] = []
    if job.paused and not old.paused and known.paused_at is None:
        handed_out += _pause(tx, job.id, BY_DEFINITION, None)
    elif old.paused and not job.paused and known.paused_at is not None:
        _resume(tx, job.id)
    record = _record(tx, job.id)
    last = tx.one(schema.LAST_HISTORY, job.id)
    if job.schedules != old.schedules:
        _note(tx, job.id, max(record.decided_until, tx.time), last[2], version, record.pause_reason)  # no schedule names a time before its push
    if seen:
        tx.event("job", job=job.id, action="changed", version=version)
    return handed_out + _take_new_version(tx, job, old, record)


def _take_new_version(tx: Transaction, job: Job, old: Job, record: JobRecord) -> list[dict[str, Any]]:
    """Runs that have not started take the new version, unless the definition they were made with says `on_push: keep`."""
    handed_out = []
    for run in _waiting_runs(tx, job.id):
        if old.on_push == "keep":
            continue
        with_nodes = tx.all(schema.SELECT_OPEN_ATTEMPTS_OF_RUN, run.id)
        if not with_nodes:
            renew_run(tx, run, record, job)
        elif _runs_otherwise(job, old) and run.due_at > tx.time + REVOKE_LEAST_NS:
            handed_out += _revoke(tx, run, with_nodes, NEW_VERSION)
    return handed_out


def _runs_otherwise(new: Job, old: Job) -> bool:
    """Whether what the node holds would do something else under the new definition."""
    names = ("stages", "params", "umask", "shell", "lease_ns", "log_limit_bytes")
    return any(getattr(new, name) != getattr(old, name) for name in names)


def _remove(tx: Transaction, gone: _Known) -> list[dict[str, Any]]:
    tx.execute(schema.REMOVE_JOB, (tx.time, tx.time, gone.job))
    _note(tx, gone.job, gone.decided_until, "removed", gone.spec_version, JOB_REMOVED)
    tx.event("job", job=gone.job, action="removed")
    handed_out = []
    for run in _waiting_runs(tx, gone.job):
        handed_out += _skip(tx, run, JOB_REMOVED)
    return handed_out


def _waiting_runs(tx: Transaction, job: str) -> list[RunRecord]:
    runs = []
    for (run_id,) in tx.all(schema.SELECT_WAITING_RUNS, job):
        run = tx.run(run_id)
        if run is None:
            raise BrokenInvariant(f"run {run_id} stands in an index and not in its table")
        runs.append(run)
    return runs


def _skip(tx: Transaction, run: RunRecord, reason: str) -> list[dict[str, Any]]:
    with_nodes = tx.all(schema.SELECT_OPEN_ATTEMPTS_OF_RUN, run.id)
    if with_nodes:
        return _revoke(tx, run, with_nodes, reason)
    end_waiting_run(tx, run, RunEvent.SKIPPED, reason)
    return []


def _revoke(tx: Transaction, run: RunRecord, with_nodes: list[Any], reason: str) -> list[dict[str, Any]]:
    handed_out = []
    for stage, n, node, _, _ in with_nodes:
        tx.execute(schema.UPDATE_ATTEMPT_REVOKE, (reason, run.id, stage, n))
        name = tx.one(schema.SELECT_NODE, node)
        handed_out.append(
            {"run": run.id, "job": run.job, "node": name[0] if name else node, "due_at": run.due_at, "attempt": attempt_id(run.id, stage, n)}
        )
    tx.touch("attempts")
    return handed_out


def renew_run(tx: Transaction, run: RunRecord, job: JobRecord, spec: Job) -> None:
    """A run that no node has, and that never started, takes the version in force."""
    old = tx.spec(run.job, run.spec_version)
    tx.execute(schema.UPDATE_RUN_VERSION, (job.version, job.spec_version, run.id))
    if old.stages != spec.stages:
        placed = [int(tx.one(schema.LAST_ATTEMPT, run.id, stage.name)[0]) for stage in spec.stages]
        tx.execute(schema.DELETE_STAGES, (run.id,))
        write_stages(tx, run.id, spec, placed)
    tx.touch("runs", "stages")


def settle_given_back(tx: Transaction, run: RunRecord, revoke: str | None) -> bool:
    """A node gave an attempt back before it started, and no node has the run now. True where the run ended by that; else it may be placed again."""
    job = _record(tx, run.job)
    if run.cancel is not None:
        end_waiting_run(tx, run, RunEvent.CANCELLED, run.cancel)
    elif job.removed_at is not None:
        end_waiting_run(tx, run, RunEvent.SKIPPED, JOB_REMOVED)
    elif revoke is not None and revoke.startswith(PAUSED):
        end_waiting_run(tx, run, RunEvent.SKIPPED, revoke)
    else:
        if tx.spec(run.job, run.spec_version).on_push != "keep" and run.spec_version != job.spec_version:
            renew_run(tx, run, job, tx.spec(run.job, job.spec_version))
        return False
    return True


# --- pause and resume


def pause_jobs(tx: Transaction, command: PauseJobs) -> Result:
    """`paused`: the jobs; `handed_out`: fires that are with a node and may start all the same, unless it confirms that they did not."""
    if refused := _unknown(tx, command.jobs):
        return refused
    if command.until is not None and not tx.time < command.until < LATEST:
        return Refused("Invalid", f"a pause ends later than now, which is {format_instant(tx.time)}")
    handed_out: list[dict[str, Any]] = []
    for job in command.jobs:
        handed_out += _pause(tx, job, command.reason, command.until)
    tx.touch("jobs", "runs", "stages")
    return Done({"paused": list(command.jobs), "handed_out": handed_out})


def resume_jobs(tx: Transaction, command: ResumeJobs) -> Result:
    """`resumed`: those that were paused."""
    if refused := _unknown(tx, command.jobs):
        return refused
    resumed = [job for job in command.jobs if _resume(tx, job)]
    tx.touch("jobs")
    return Done({"resumed": resumed})


def _unknown(tx: Transaction, jobs: tuple[str, ...]) -> Refused | None:
    for job in jobs:
        record = tx.job(job)
        if record is None or record.removed_at is not None:
            return Refused("NotFound", f'no job is named "{job}"', "igor jobs lists them")
    return None


def _pause(tx: Transaction, job: str, reason: str, until: int | None) -> list[dict[str, Any]]:
    record = _record(tx, job)
    tx.execute(schema.PAUSE_JOB, (record.paused_at or tx.time, until, reason, tx.actor, job))
    if record.paused_at is None:
        _note(tx, job, record.decided_until, "paused", record.spec_version, reason)
    tx.event("job", job=job, action="paused", reason=reason, until=until)
    words = f"{PAUSED}: {reason}" if reason else PAUSED
    handed_out = []
    for run in _waiting_runs(tx, job):
        coming = run.trigger == Trigger.SCHEDULE and run.due_at > tx.time and (until is None or (run.scheduled_at or 0) < until)
        if coming:
            handed_out += _skip(tx, run, words)
    return handed_out


def _resume(tx: Transaction, job: str) -> bool:
    record = _record(tx, job)
    if record.paused_at is None:
        return False
    until = record.paused_until
    # A pause covers scheduled times before its `until` (rules.pause); what a resume leaves behind is inclusive.
    resumed_at = tx.time if until is None else min(tx.time, until - 1)
    tx.execute(schema.RESUME_JOB, (resumed_at, job))
    _note(tx, job, max(record.decided_until, resumed_at), "active", record.spec_version, "")
    tx.event("job", job=job, action="resumed")
    return True


def _record(tx: Transaction, job: str) -> JobRecord:
    record = tx.job(job)
    if record is None:
        raise BrokenInvariant(f"job {job} has no row")
    return record


def _note(tx: Transaction, job: str, after: int, state: str, spec_version: int, reason: str) -> None:
    """A new line in the job's history of schedules; `after` never goes back."""
    last = tx.one(schema.LAST_HISTORY, job)
    number, after = (1, after) if last is None else (last[0] + 1, max(last[1], after))
    tx.execute(schema.INSERT_HISTORY, (job, number, after, tx.time, state, spec_version, reason, tx.actor))
