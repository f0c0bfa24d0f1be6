"""A year of a small fleet in seconds: the real rules, apply and leader's loops, under virtual time, while chance does what chance does.

Jobs of every kind of schedule, overlap policy, pool and size; nodes that die, are cut off and come; leaders that change, and spans without one;
pauses, pushes, removals, backfills. After each event, and in the end, the checks of `Fleet.check`: each is one of the promises in SEMANTICS.

What real nodes do each second is done each half hour here (`SLOW`): heartbeats, looks at nodes, leases accordingly. Nothing else is changed.
"""

from __future__ import annotations

import importlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from igor_node.definitions.jobs import CatchUp, Job, Schedule, Stage, encode_job
from igor_node.ledger import query_audit
from igor_node.ledger.commands import CancelRun, CreateBackfill, CreateRun, Done, PauseJobs, PushProject, Refused, ResumeJobs
from igor_node.rules import audit as rule
from igor_node.rules.timetable import JobTimetable
from igor_node.words import SECOND, new_id
from tests.unit.leader import world as leader_world
from tests.unit.leader.world import START, Start, World

MINUTE, HOUR, DAY = 60, 3_600, 86_400
BEAT_S = 1_800.0
SLOW: tuple[tuple[str, str, float], ...] = (
    ("igor_node.leader.leader", "RESTART_S", 3_600.0),
    ("igor_node.leader.watch", "LOOK_EVERY_S", 900.0),
    ("igor_node.leader.watch", "NODE_LOST_AFTER", 9 * HOUR * SECOND),
    ("igor_node.rules.node_loss", "SILENT_AFTER", 150 * MINUTE * SECOND),
    ("igor_node.leader.autopilot", "LOOK_EVERY_S", 6 * HOUR),
    ("igor_node.leader.backfills", "IDLE_S", 6 * HOUR),
    ("igor_node.leader.digests", "LOOK_EVERY_S", 6 * HOUR),
    ("igor_node.leader.versions", "LOOK_EVERY_S", 6 * HOUR),
    ("igor_node.leader.timekeeping", "LOOK_EVERY_S", HOUR),
    ("igor_node.leader.rotation", "QUIET_S", 6 * HOUR),
    ("igor_node.leader.retention", "LOOK_EVERY_S", 6 * HOUR),
    ("igor_node.leader.retention", "RUNS_KEPT_FOR", 1_000 * DAY * SECOND),
    ("igor_node.leader.fires", "IDLE", HOUR * SECOND),
    ("igor_node.leader.placement", "IDLE", HOUR * SECOND),
    ("igor_node.leader.placement", "WIDE_EVERY", 30 * MINUTE * SECOND),
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
OVERLAPS = ("queue", "queue_one", "skip", "cancel", "allow")
POOLS = {"press": 2, "door": 1}
BACKFILL_PARALLEL = 3
PATIENCE = 2 * HOUR * SECOND  # after which all that is due is decided, and whatever waits has a reason
LEASE_NS = 9 * HOUR * SECOND


@contextmanager
def slowed() -> Iterator[None]:
    """The constants of SLOW, and the nodes' own beat, for as long as this lasts."""
    places = [(importlib.import_module(module), name, value) for module, name, value in SLOW]
    places += [(leader_world, "BEAT_S", BEAT_S), (leader_world, "CONNECT_AGAIN_S", 60.0)]
    before = [getattr(module, name) for module, name, _ in places]
    try:
        for module, name, value in places:
            setattr(module, name, int(value) if isinstance(getattr(module, name), int) else value)
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)


class Broken(AssertionError):
    """A promise that was not kept."""


class Fleet:
    """`jobs` of them, `days` long. Everything follows from `seed`."""

    def __init__(self, world: World, seed: int, jobs: int, days: int) -> None:
        self.world, self.chance, self.days = world, random.Random(seed), days
        self.specs = {job.name: job for job in (self.job(number) for number in range(jobs))}
        self.nodes = 0
        self.happened: Counter[str] = Counter()
        self.starts: dict[str, list[Start]] = {}  # by stage of a run
        self.looked_at = 0
        self.resting = False
        self.room: Counter[str] = Counter()  # how many runs of a job may go on at once, by what it was since the last look
        self.most: Counter[str] = Counter()  # how many may wait, likewise
        self.policies: dict[str, set[str]] = {}  # likewise
        self.line: Counter[str] = Counter()  # how many of a job there were
        self.windows: Counter[str] = Counter()  # the longest in which a fire of the job may be caught up with, of all that was ever pushed
        self.latest = ""  # run that was looked at

    # --- what there is

    def job(self, number: int) -> Job:
        chance, name = self.chance, f"job-{number:03}"
        self.world.durations[name] = 10 ** chance.uniform(1.5, 4.6)
        pools = tuple(f"p/{pool}" for pool in sorted(POOLS) if chance.random() < 0.15)
        stage = Stage(
            name="main", command="true", slots=chance.choice((1, 1, 1, 2, 4)), pools=pools, on_node_loss=chance.choice(("rerun", "rerun", "fail"))
        )
        return Job(
            project="p", name=name, schedules=tuple(self.schedule() for _ in range(chance.choice((1, 1, 1, 2)))), stages=(stage,),
            overlap=chance.choice(OVERLAPS), max_queued=chance.choice((1, 2, 5, 100)), max_parallel=chance.choice((1, 2, 5)),
            priority=chance.choice((-2, 0, 0, 5)), lease_ns=LEASE_NS,
        )  # fmt: skip

    def schedule(self) -> Schedule:
        chance = self.chance
        minute, hour, day = chance.randrange(60), chance.randrange(24), chance.randrange(7)
        kind = chance.choice(("daily", "weekly", "weekly", "monthly", "every", "last", "night", "night"))
        common: dict[str, Any] = {
            "catch_up": CatchUp(window_ns=chance.choice((600, 6 * HOUR, 2 * DAY)) * SECOND, policy=chance.choice(("latest", "all", "none")))
        }
        if chance.random() < 0.2:
            common["jitter_ns"] = chance.choice((MINUTE, HOUR)) * SECOND
        if kind == "every":
            return Schedule(every_ns=chance.choice((7, 18, 30)) * HOUR * SECOND, **common)
        crons = {
            "daily": f"{minute} {hour} * * *", "weekly": f"{minute} {hour} * * {day}", "monthly": f"{minute} {hour} {chance.randrange(1, 29)} * *",
            "last": f"{minute} {hour} LW * *", "night": f"*/20 {chance.choice((1, 2, 3))} * * {day}",
        }  # fmt: skip
        excluded = tuple(f"2027-{month:02}-{chance.randrange(1, 29):02}" for month in range(1, 13)) if chance.random() < 0.1 else ()
        return Schedule(cron=crons[kind], timezone=chance.choice(ZONES), exclude=excluded, **common)

    def push(self) -> None:
        for job in self.specs.values():
            self.room[job.id] = max(self.room[job.id], room_of(job))
            self.most[job.id] = max(self.most[job.id], most_waiting(job))
            self.policies.setdefault(job.id, set()).add(job.overlap)
            self.windows[job.id] = max(self.windows[job.id], *(schedule.catch_up.window_ns for schedule in job.schedules))
        jobs = tuple(encode_job(job) for _, job in sorted(self.specs.items()))
        answer = self.world.propose(PushProject(project="p", jobs=jobs, pools=POOLS, prune=True))
        assert isinstance(answer, Done), answer

    async def begin(self) -> None:
        self.push()
        self.world.log.append = self.somebody_before(self.world.log.append)  # type: ignore[assignment, method-assign]
        for _ in range(4):
            await self.node_comes()
        await self.world.lead()

    def somebody_before(self, append: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Now and then a person's command comes between what the leader has read and what it proposes."""
        among_themselves = False

        def between(command: bytes) -> Any:
            nonlocal among_themselves
            if not (among_themselves or self.resting) and self.world.leader is not None and self.chance.random() < 0.01:
                among_themselves = True
                names = self.some_jobs()
                until = self.world.clock.now() + 3 * HOUR * SECOND
                if self.chance.random() < 0.3:
                    self.change_some()
                else:
                    self.expect(self.chance.choice((PauseJobs(jobs=names, until=until), ResumeJobs(jobs=names))))
                among_themselves = False
            return append(command)

        return between

    # --- what happens

    async def node_comes(self) -> None:
        self.nodes += 1
        await self.world.join(f"n{self.nodes}", slots=self.chance.choice((4, 8)))

    async def node_dies(self) -> None:
        alive = [node for node in self.world.nodes.values() if node.alive]
        self.chance.choice(alive).die()
        await self.node_comes()

    async def node_is_cut_off(self) -> None:
        node = self.chance.choice([node for node in self.world.nodes.values() if node.alive])
        node.disconnect()
        await self.world.run(self.chance.choice((10, HOUR, 6 * HOUR, 20 * HOUR)))
        node.connected = True

    async def leader_changes(self) -> None:
        await self.world.lead()

    async def nobody_leads(self) -> None:
        """For a while; sometimes a new leader finds definitions that nobody has scheduled by yet."""
        await self.world.depose()
        await self.world.run(self.chance.choice((3, 60, HOUR, 20 * HOUR)))
        if self.chance.random() < 0.4:
            await self.change_jobs()
            await self.world.run(self.chance.choice((3, 60, HOUR)))
        await self.world.lead()

    async def pause(self) -> None:
        names = self.some_jobs()
        until = self.world.clock.now() + int(self.chance.uniform(0.1, 20) * DAY) * SECOND if self.chance.random() < 0.6 else None
        self.expect(PauseJobs(jobs=names, reason="chance", until=until))

    async def resume(self) -> None:
        self.expect(ResumeJobs(jobs=self.some_jobs()))

    async def run_on_demand(self) -> None:
        self.expect(CreateRun(job=self.some_jobs()[0], run=new_id(self.world.clock.now()), beside=self.chance.random() < 0.2))

    async def cancel(self) -> None:
        live = self.world.query(lambda c: c.execute("SELECT id FROM runs WHERE ended_at IS NULL ORDER BY id").fetchall())
        if live:
            self.expect(CancelRun(run=self.chance.choice(live)[0], reason="chance"))

    async def change_jobs(self) -> None:
        self.change_some()

    def change_some(self) -> None:
        for full_name in self.some_jobs():
            name = full_name.partition("/")[2]
            job = self.specs[name]
            changed = {"schedules": (self.schedule(),), "overlap": self.chance.choice(OVERLAPS), "priority": self.chance.randrange(-3, 4)}
            self.specs[name] = msgspec.structs.replace(job, **{key: changed[key] for key in self.chance.sample(sorted(changed), 2)})
        self.push()

    async def remove_and_bring_back(self) -> None:
        names = [name.partition("/")[2] for name in self.some_jobs()]
        kept, self.specs = self.specs, {name: job for name, job in self.specs.items() if name not in names}
        self.push()
        self.check(since=self.world.clock.now() - DAY * SECOND)
        await self.world.run(self.chance.choice((1, HOUR, 3 * DAY)))
        self.specs = kept
        self.push()

    async def backfill(self) -> None:
        (job, *_) = self.some_jobs()
        now = self.world.clock.now()
        times = tuple(now - number * DAY * SECOND for number in range(1, self.chance.randrange(2, 8)))
        self.expect(CreateBackfill(backfill=new_id(now), job=job, times=times, parallel=self.chance.choice((1, BACKFILL_PARALLEL))))

    def some_jobs(self) -> tuple[str, ...]:
        return tuple(f"p/{name}" for name in self.chance.sample(sorted(self.specs), self.chance.randrange(1, 6)))

    def expect(self, command: Any) -> None:
        answer = self.world.propose(command)
        assert isinstance(answer, Done) or (isinstance(answer, Refused) and answer.error in ("Conflict", "NotFound")), answer

    def events(self) -> list[Callable[[], Any]]:
        return [
            self.node_dies, self.node_is_cut_off, self.leader_changes, self.nobody_leads, self.pause, self.resume, self.resume, self.run_on_demand,
            self.cancel, self.change_jobs, self.remove_and_bring_back, self.remove_and_bring_back, self.backfill, self.backfill, self.backfill,
        ]  # fmt: skip

    async def live(self) -> None:
        """Through all its days: an event or two a day, and a check after each."""
        end = START + self.days * DAY * SECOND
        while self.world.clock.now() < end:
            await self.world.run(self.chance.expovariate(1 / (0.75 * DAY)))
            event = self.chance.choice(self.events())
            self.happened[event.__name__] += 1
            await event()
            self.check(since=self.world.clock.now() - 5 * DAY * SECOND)
        await self.come_to_rest()
        self.check(since=START)

    async def come_to_rest(self) -> None:
        """No schedule, no trouble: whatever waits must get its place and end."""
        self.resting = True
        self.expect(PauseJobs(jobs=tuple(f"p/{name}" for name in sorted(self.specs))))
        for node in self.world.nodes.values():
            node.connected = node.alive
        await self.world.run(20 * DAY)
        left = self.world.query(lambda c: c.execute("SELECT id, job, state, reason FROM runs WHERE ended_at IS NULL").fetchall())
        if left:
            raise Broken(f"starved: {left[:5]}")

    # --- what must hold

    def check(self, since: int) -> None:
        if self.world.faults.found:
            raise Broken(f"a loop of the leader failed: {self.world.faults.found[0]}")
        self.check_audit(max(START, since))
        self.check_ledger()
        self.check_lines()
        self.check_new_runs()
        self.check_backfills()
        self.check_attempts()

    def check_audit(self, since: int) -> None:
        now, led = self.world.clock.now(), self.led_for(PATIENCE)

        def look(connection: Any) -> None:
            for name in query_audit.audit_jobs(connection):
                found = query_audit.audit_job(connection, name, since, now)
                periods = [rule.Period(one.after, one.state, JobTimetable(one.spec) if one.spec is not None else NOTHING) for one in found.segments]
                runs = [rule.RunRecord(one.run, one.scheduled_at, one.due_at, one.state, one.reason, one.started_at) for one in found.records]
                stretches = [rule.StretchRecord(one.first, one.last, one.count, one.outcome, one.reason) for one in found.stretches]
                answer = rule.audit([rule.JobRecords(name, found.decided_until, periods, runs, stretches)], since, now, now)
                if answer.doubled or answer.count(rule.UNACCOUNTED):
                    raise Broken(
                        f"{name}: {answer.doubled} doubled, {[row for row in answer.rows if row.outcome == rule.UNACCOUNTED][:3]} unaccounted"
                    )
                if led and any(row.outcome == rule.PENDING and row.run is None and row.first < now - PATIENCE for row in answer.rows):
                    raise Broken(f"{name}: a fire was due long ago, and nothing is decided about it")
                if any(row.outcome in (rule.SKIPPED, rule.MISSED) and not row.reason for row in answer.rows):
                    raise Broken(f"{name}: a fire was skipped or missed without a reason")

        self.world.query(look)

    def led_for(self, span: int) -> bool:
        return self.world.leader is not None and self.world.clock.now() - self.world.led_since > span

    def check_ledger(self) -> None:
        """Overlap, slots, pools, reasons."""
        now, query = self.world.clock.now(), self.world.query
        going = Counter(row[0] for row in query(lambda c: c.execute(_GOING).fetchall()))
        for spec in self.specs.values():
            # What a push makes narrower holds for what begins after it.
            room = self.room[spec.id] if going[spec.id] else room_of(spec)
            if going[spec.id] > room:
                raise Broken(f"{going[spec.id]} runs of {spec.id} go on at once ({spec.overlap})")
            self.room[spec.id] = max(room_of(spec), min(room, going[spec.id]))
        held = query(lambda c: c.execute("SELECT node, sum(slots) FROM attempts WHERE ended_at IS NULL GROUP BY node").fetchall())
        slots = {node.id: node.slots for node in self.world.nodes.values()}
        if over := [(node, used) for node, used in held if used > slots[node]]:
            raise Broken(f"over their slots: {over}")
        pooled = Counter(
            pool
            for (names,) in query(lambda c: c.execute("SELECT pools FROM attempts WHERE ended_at IS NULL AND pools <> ''").fetchall())
            for pool in msgspec.json.decode(names)
        )
        if over_pools := {pool: count for pool, count in pooled.items() if count > POOLS[pool.partition("/")[2]]}:
            raise Broken(f"over their pools: {over_pools}")
        stuck = query(lambda c: c.execute(_STUCK, (now - PATIENCE,)).fetchall())
        if stuck and self.led_for(PATIENCE):
            raise Broken(f"waits without a reason: {stuck[:3]}")

    def check_lines(self) -> None:
        """What waits for its job's earlier runs is bounded by the policy, but for what waited before that was pushed. Of a removed job nothing
        waits."""
        rows = self.world.query(lambda c: c.execute(_WAITING).fetchall())
        waiting, live = Counter({job: count for job, count, _ in rows}), Counter({job: both for job, _, both in rows})
        for spec in self.specs.values():
            # Under `skip` nothing is made beside another; what a policy before it made counts as what waited.
            count = live[spec.id] if self.policies[spec.id] == {"skip"} else waiting[spec.id]
            if count > max(self.most[spec.id], self.line[spec.id]):
                raise Broken(f"{count} runs of {spec.id} wait, at most {self.most[spec.id]} may ({spec.overlap})")
            self.line[spec.id], self.most[spec.id], self.policies[spec.id] = live[spec.id], most_waiting(spec), {spec.overlap}
        if left := self.world.query(lambda c: c.execute(_OF_REMOVED).fetchall()):
            raise Broken(f"a run of a removed job waits: {left[:3]}")

    def check_new_runs(self) -> None:
        """Runs that were made since the last look: not in a pause, and within the window in which they may be caught up with."""
        rows = self.world.query(lambda c: c.execute(_NEW_RUNS, (self.latest,)).fetchall())
        self.latest = max([self.latest, *(row[0] for row in rows)])
        for run, job, scheduled_at, due_at, created_at, paused_at, resumed_at in rows:
            if created_at > max(due_at, scheduled_at + self.windows[job]) + MINUTE * SECOND:
                raise Broken(f"run {run} of {job} was made {(created_at - scheduled_at) // SECOND} s late, beyond its window")
            covered = paused_at is not None and paused_at + MINUTE * SECOND < scheduled_at < (resumed_at or 1 << 62) - MINUTE * SECOND
            if covered and created_at > paused_at:
                raise Broken(f"run {run} of {job} was made for a time in a pause")

    def check_backfills(self) -> None:
        if over := self.world.query(lambda c: c.execute(_BACKFILLED, (BACKFILL_PARALLEL,)).fetchall()):
            raise Broken(f"more runs of a backfill at once than were asked for: {over}")
        if wrong := self.world.query(lambda c: c.execute(_BACKFILLED_WRONG).fetchall()):
            raise Broken(f"a backfill made a run for another time: {wrong[:3]}")

    def check_attempts(self) -> None:
        """No fire has two runs; no two attempts of a stage run at one time, and no attempt was started twice."""
        if over := self.world.query(lambda c: c.execute(_LOST_TOO_OFTEN).fetchall()):
            raise Broken(f"more attempts than there may be: {over[:3]}")
        doubled = self.world.query(
            lambda c: c.execute(
                "SELECT job, scheduled_at, count(*) FROM runs WHERE trigger = 'schedule' GROUP BY job, scheduled_at HAVING count(*) > 1"
            ).fetchall()
        )
        if doubled:
            raise Broken(f"a fire has two runs: {doubled[:3]}")
        for start in self.world.starts[self.looked_at :]:
            stage = start.attempt.rpartition(".")[0]
            before = self.starts.setdefault(stage, [])
            if any(other.attempt == start.attempt for other in before):
                raise Broken(f"an attempt of {stage} was started twice")
            if any(other.at <= start.at < (other.ended_at or 1 << 62) for other in before):
                raise Broken(f"two attempts of {stage} ran at one time: {before} and {start}")
            before.append(start)
        self.looked_at = len(self.world.starts)


_GOING = "SELECT job FROM runs WHERE begun = 1 AND beside = 0 AND ended_at IS NULL"
_WAITING = """
SELECT job, sum(begun = 0), count(*) FROM runs WHERE beside = 0 AND ended_at IS NULL AND cancel IS NULL GROUP BY job"""
_OF_REMOVED = """
SELECT runs.id FROM runs JOIN jobs ON jobs.job = runs.job WHERE jobs.removed_at IS NOT NULL AND runs.ended_at IS NULL AND runs.begun = 0"""
_NEW_RUNS = """
SELECT runs.id, runs.job, runs.scheduled_at, runs.due_at, runs.created_at, CASE WHEN history.state = 'paused' THEN history.at END,
  coalesce((SELECT min(later.at) FROM history AS later WHERE later.job = runs.job AND later.number > history.number), jobs.paused_until)
FROM runs JOIN jobs ON jobs.job = runs.job JOIN history ON history.job = runs.job AND history.number = (
  SELECT max(number) FROM history AS before WHERE before.job = runs.job AND before.after < runs.scheduled_at AND before.at <= runs.created_at)
WHERE runs.id > ? AND runs.trigger = 'schedule' AND runs.state NOT IN ('skipped', 'missed') ORDER BY runs.id"""
_BACKFILLED = "SELECT job, count(*) FROM runs WHERE trigger = 'backfill' AND ended_at IS NULL GROUP BY job HAVING count(*) > ?"
_BACKFILLED_WRONG = """
SELECT backfill, n FROM backfill_times JOIN runs ON runs.id = backfill_times.run WHERE runs.scheduled_at <> backfill_times.scheduled_at
UNION ALL SELECT backfill, made FROM backfills
WHERE made <> (SELECT count(*) FROM backfill_times WHERE backfill_times.backfill = backfills.backfill AND run IS NOT NULL)"""
_LOST_TOO_OFTEN = """
SELECT lost.run, count(*) FROM attempts AS lost JOIN runs ON runs.id = lost.run
JOIN definitions ON definitions.job = runs.job AND definitions.version = runs.spec_version
WHERE lost.state = 'lost' AND (NOT instr(definitions.spec, '"on_node_loss":"fail"')
  OR EXISTS (SELECT 1 FROM attempts AS next WHERE next.run = lost.run AND next.stage = lost.stage AND next.n > lost.n))
GROUP BY lost.run, lost.stage HAVING count(*) > CASE WHEN instr(definitions.spec, '"on_node_loss":"fail"') THEN 0 ELSE 3 END"""
_STUCK = """
SELECT stages.run, stages.name FROM stages JOIN runs ON runs.id = stages.run
WHERE stages.state = 'queued' AND stages.reason = '' AND max(stages.queued_at, runs.due_at) < ?"""
NOTHING = JobTimetable(Job(project="", name="", stages=()))


def room_of(job: Job) -> int:
    return job.max_parallel if job.overlap == "allow" else 1


def most_waiting(job: Job) -> int:
    return {"queue_one": 1, "cancel": 1, "skip": 1}.get(job.overlap, job.max_queued)


async def simulate(folder: Path, seed: int, jobs: int, days: int) -> Fleet:
    """Raises Broken where a promise was not kept."""
    with slowed():
        async with World(folder) as world:
            fleet = Fleet(world, seed, jobs, days)
            await fleet.begin()
            await fleet.live()
            return fleet
