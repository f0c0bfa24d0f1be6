"""The tables of the ledger, each with the named statements that apply uses on it. Queries of readers are in query_*.py.

Who writes: apply alone, on the Raft thread. Who reads: everybody, through read-only connections. Rules that hold all over: ids are texts of
words.new_id (they sort by time); times are Instants and spans nanoseconds, as INTEGER; a flag is 0 or 1; JSON stands as text; nothing has a
default that depends on time or chance; every statement that can return two rows has an ORDER BY.

These are the tables of a *new* ledger, the same in every build for ever: FIRST_VERSION. What comes later is a step in apply.py, whose migration runs
in the log entry that raises the ledger to it (versions.py).

A job's row never goes away (its `decided_until` must outlive it). A run's row and what hangs on it (stages, attempts, tries) goes by Prune.
Indices are chosen so that lists stay fast with millions of ended runs: what is live or in trouble has small partial indices of its own, and the
primary key of runs is their order of creation.

`version` is the project's version, what people see. `spec_version` is the version in which the job's definition last changed: the key of its text in
`definitions`, so that a push of one changed job among thousands stores one text.
"""

from __future__ import annotations

FIRST_VERSION = 3  # of these tables; those before it were never released
APPLICATION_ID = 0x49676F72  # "Igor" in the file's header: nothing else is ever taken for a ledger

# --- where the ledger stands: one row, written with every batch

POSITION = """
CREATE TABLE position(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  applied_index INTEGER NOT NULL, applied_term INTEGER NOT NULL, members BLOB NOT NULL,
  ledger_time INTEGER NOT NULL, last_event INTEGER NOT NULL, digest BLOB NOT NULL, runs INTEGER NOT NULL
) STRICT"""
"""`digest`: of all entries up to here and what they were answered (digest.py). `runs`: how many rows that table has; counting them takes seconds."""
INSERT_POSITION = "INSERT INTO position VALUES (1, 0, 0, ?, 0, 0, ?, 0)"
SELECT_POSITION = "SELECT applied_index, applied_term, members, ledger_time, last_event, digest, runs FROM position WHERE one = 1"
UPDATE_POSITION = """
UPDATE position SET applied_index = ?, applied_term = ?, members = ?, ledger_time = ?, last_event = ?, digest = ?, runs = ? WHERE one = 1"""

DIGESTS = "CREATE TABLE digests(entry INTEGER PRIMARY KEY, digest BLOB NOT NULL) STRICT"
"""The digest at every 1,000th index, the last of them: what replicas compare."""
INSERT_DIGEST = "INSERT INTO digests VALUES (?, ?)"
PRUNE_DIGESTS = "DELETE FROM digests WHERE entry <= ?"
LAST_DIGEST = "SELECT entry, digest FROM digests ORDER BY entry DESC LIMIT 1"

META = "CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID"
SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
GET_META = "SELECT value FROM meta WHERE name = ?"

# --- idempotence

RESULTS = "CREATE TABLE results(id TEXT PRIMARY KEY, result BLOB NOT NULL) STRICT, WITHOUT ROWID"
"""What each command of the last 24 h of ledger time was answered. The id's own time says how old it is."""
INSERT_RESULT = "INSERT INTO results VALUES (?, ?)"
SELECT_RESULT = "SELECT result FROM results WHERE id = ?"
NEWEST_RESULT = "SELECT max(id) FROM results"
PRUNE_RESULTS = "DELETE FROM results WHERE id IN (SELECT id FROM results WHERE id < ? ORDER BY id LIMIT ?)"

KEYS = "CREATE TABLE keys(key TEXT PRIMARY KEY, job TEXT NOT NULL, run TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID"
"""Idempotency keys of clients, for 24 h."""
KEYS_BY_TIME = "CREATE INDEX keys_by_time ON keys(at)"
SET_KEY = "INSERT INTO keys VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET job = excluded.job, run = excluded.run, at = excluded.at"
SELECT_KEY = "SELECT job, run, at FROM keys WHERE key = ?"
PRUNE_KEYS = "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE at < ? ORDER BY at, key LIMIT ?)"

# --- nodes and tokens

NODES = """
CREATE TABLE nodes(
  node TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, labels TEXT NOT NULL, slots INTEGER NOT NULL, version TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, changed_at INTEGER NOT NULL, registered_at INTEGER NOT NULL, removed_at INTEGER,
  ephemeral INTEGER NOT NULL
) STRICT, WITHOUT ROWID"""
"""A removed node keeps its row: runs of the past name it."""
SELECT_NODE = "SELECT name, address, labels, slots, version, state, reason, removed_at, ephemeral FROM nodes WHERE node = ?"
SELECT_NODE_NAMED = "SELECT node FROM nodes WHERE name = ? AND removed_at IS NULL AND node <> ? ORDER BY node LIMIT 1"
UPSERT_NODE = """
INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?) ON CONFLICT (node) DO UPDATE SET
  name = excluded.name, address = excluded.address, labels = excluded.labels, slots = excluded.slots, version = excluded.version,
  state = excluded.state, reason = excluded.reason, changed_at = excluded.changed_at, removed_at = NULL,
  ephemeral = excluded.ephemeral"""
UPDATE_NODE_STATE = "UPDATE nodes SET state = ?, reason = ?, changed_at = ? WHERE node = ?"
RENAME_NODE = "UPDATE nodes SET name = ?, changed_at = ? WHERE node = ?"
REMOVE_NODE = "UPDATE nodes SET removed_at = ?, state = 'lost', reason = ?, changed_at = ? WHERE node = ?"

AUTHORITIES = """
CREATE TABLE authorities(
  generation INTEGER PRIMARY KEY, certificates TEXT NOT NULL, sealed_key BLOB NOT NULL, set_at INTEGER NOT NULL, dropped_at INTEGER
) STRICT"""
"""The cluster's CAs; none in a cluster without TLS. `sealed_key` is worth nothing without the cluster's key, which is in no ledger and no backup."""
SELECT_AUTHORITY = "SELECT certificates, sealed_key, dropped_at FROM authorities WHERE generation = ?"
NEWEST_AUTHORITY = "SELECT coalesce(max(generation), 0) FROM authorities"
UPSERT_AUTHORITY = """
INSERT INTO authorities VALUES (?, ?, ?, ?, NULL) ON CONFLICT (generation) DO UPDATE SET sealed_key = excluded.sealed_key"""
DROP_AUTHORITY = "UPDATE authorities SET dropped_at = ? WHERE generation = ? AND dropped_at IS NULL"

CLUSTER_KEYS = """
CREATE TABLE cluster_keys(
  generation INTEGER PRIMARY KEY, mark BLOB NOT NULL, made_at INTEGER NOT NULL, used_at INTEGER, dropped_at INTEGER
) STRICT"""
"""What became of each of the cluster's keys; the keys themselves are with the members. `mark`: names one (trust/keys.py). The newest with `used_at`
is in force; a newer one is to come."""
SELECT_CLUSTER_KEY = "SELECT mark, used_at, dropped_at FROM cluster_keys WHERE generation = ?"
NEWEST_CLUSTER_KEY = "SELECT coalesce(max(generation), 0) FROM cluster_keys"
USED_CLUSTER_KEY = "SELECT coalesce(max(generation), 0) FROM cluster_keys WHERE used_at IS NOT NULL"
INSERT_CLUSTER_KEY = "INSERT INTO cluster_keys VALUES (?, ?, ?, NULL, NULL)"
USE_CLUSTER_KEY = "UPDATE cluster_keys SET used_at = ? WHERE generation = ? AND used_at IS NULL"
DROP_CLUSTER_KEYS = "UPDATE cluster_keys SET dropped_at = ? WHERE generation < ? AND dropped_at IS NULL"

SECRETS = """
CREATE TABLE secrets(
  project TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB, set_at INTEGER NOT NULL, set_by TEXT NOT NULL, ended_at INTEGER,
  PRIMARY KEY (project, name, version)
) STRICT, WITHOUT ROWID"""
"""`project` "": of the whole cluster. Of a version that was replaced or removed (`ended_at`) the sealed value is gone. The newest version's row stays
also where it was removed: no number is used twice, for the seal names it."""
SECRETS_SET = "CREATE INDEX secrets_set ON secrets(project, name) WHERE ended_at IS NULL"
NEWEST_SECRET = "SELECT coalesce(max(version), 0) FROM secrets WHERE project = ? AND name = ?"
COUNT_SECRETS = "SELECT count(*) FROM secrets INDEXED BY secrets_set WHERE ended_at IS NULL"
SELECT_SECRET = "SELECT version FROM secrets WHERE project = ? AND name = ? AND ended_at IS NULL"
INSERT_SECRET = "INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?, NULL)"
END_SECRET = "UPDATE secrets SET ended_at = ?, sealed = NULL WHERE project = ? AND name = ? AND ended_at IS NULL"
FORGET_VERSIONS = "DELETE FROM secrets WHERE project = ? AND name = ? AND version <= ?"
RESEAL_SECRET = "UPDATE secrets SET sealed = ? WHERE project = ? AND name = ? AND version = ? AND ended_at IS NULL"

TOKENS = """
CREATE TABLE tokens(
  token TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL, name TEXT NOT NULL, projects TEXT NOT NULL, node TEXT, subject TEXT,
  made_by TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER, last_used_at INTEGER
) STRICT, WITHOUT ROWID"""
"""`hash`: SHA-256 of the secret, as hex digits. `projects`: JSON list, empty for all. `node`: whose own token it is. `subject`: of a log-in."""
TOKENS_OF_SUBJECT = "CREATE INDEX tokens_of_subject ON tokens(subject, created_at) WHERE subject IS NOT NULL"
SELECT_TOKEN = "SELECT hash, revoked_at, expires_at FROM tokens WHERE token = ?"
SELECT_TOKEN_BY_HASH = "SELECT token FROM tokens WHERE hash = ?"
INSERT_TOKEN = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)"
NOTE_TOKEN_USE = "UPDATE tokens SET last_used_at = ?1 WHERE token = ?2 AND node IS NULL AND (last_used_at IS NULL OR last_used_at < ?1)"
COUNT_TOKENS = "SELECT count(*) FROM tokens WHERE node IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)"
SELECT_LOGINS = """
SELECT token, role, projects FROM tokens WHERE subject = ? AND revoked_at IS NULL AND expires_at > ? ORDER BY created_at DESC, token DESC"""
PRUNE_TOKENS = """
DELETE FROM tokens WHERE token IN (
  SELECT token FROM tokens WHERE node IS NULL AND (revoked_at < ?1 OR expires_at < ?1) ORDER BY token LIMIT ?2)"""
"""Never those of nodes: a node that comes back would get the old secret again."""

ENDED_SESSIONS = "CREATE TABLE ended_sessions(session TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID"
"""Sessions of the page that somebody logged out of before their end."""
INSERT_ENDED_SESSION = "INSERT OR IGNORE INTO ended_sessions VALUES (?, ?)"
COUNT_ENDED_SESSIONS = "SELECT count(*) FROM ended_sessions"
PRUNE_ENDED_SESSIONS = "DELETE FROM ended_sessions WHERE session IN (SELECT session FROM ended_sessions WHERE until < ? ORDER BY session LIMIT ?)"
REVOKE_TOKEN = "UPDATE tokens SET revoked_at = ? WHERE token = ? AND revoked_at IS NULL"
REVOKE_TOKENS_OF_NODE = "UPDATE tokens SET revoked_at = ? WHERE node = ? AND revoked_at IS NULL"

# --- definitions

PROJECTS = "CREATE TABLE projects(project TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID"
SELECT_PROJECT = "SELECT version FROM projects WHERE project = ?"
UPSERT_PROJECT = "INSERT INTO projects VALUES (?, ?) ON CONFLICT (project) DO UPDATE SET version = excluded.version"

VERSIONS = """
CREATE TABLE versions(
  project TEXT NOT NULL, version INTEGER NOT NULL, pushed_at INTEGER NOT NULL, actor TEXT NOT NULL, source TEXT NOT NULL, sources TEXT NOT NULL,
  created TEXT NOT NULL, changed TEXT NOT NULL, removed TEXT NOT NULL, jobs INTEGER NOT NULL,
  PRIMARY KEY (project, version)
) STRICT, WITHOUT ROWID"""
"""One row a push that changed something. `sources` JSON {path: text}; `created`, `changed`, `removed` JSON lists of jobs' names."""
INSERT_VERSION = "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT_SOURCES = "SELECT sources FROM versions WHERE project = ? AND version = ?"

POOLS = "CREATE TABLE pools(pool TEXT PRIMARY KEY, slots INTEGER NOT NULL) STRICT, WITHOUT ROWID"
"""`pool`: PROJECT/NAME."""
SELECT_POOLS = "SELECT pool, slots FROM pools ORDER BY pool"
SELECT_POOL = "SELECT slots FROM pools WHERE pool = ?"
SELECT_POOLS_OF_PROJECT = "SELECT pool, slots FROM pools WHERE pool >= ? AND pool < ? ORDER BY pool"
DELETE_POOLS_OF_PROJECT = "DELETE FROM pools WHERE pool >= ? AND pool < ?"
INSERT_POOL = "INSERT INTO pools VALUES (?, ?)"

STAGED = """
CREATE TABLE staged(
  push TEXT NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (push, part)
) STRICT"""
"""Parts of pushes that are larger than an entry, until the last one is there; `at`: when the part came."""
COUNT_STAGED = "SELECT count(*), coalesce(max(parts), 0) FROM staged WHERE push = ?"
SELECT_STAGED_PART = "SELECT data FROM staged WHERE push = ? AND part = ?"
SELECT_STAGED = "SELECT data FROM staged WHERE push = ? ORDER BY part"
COUNT_STAGINGS = "SELECT count(DISTINCT push) FROM staged"
INSERT_STAGED = "INSERT INTO staged VALUES (?, ?, ?, ?, ?)"
DELETE_STAGED = "DELETE FROM staged WHERE push = ?"
EXPIRE_STAGED = "DELETE FROM staged WHERE push IN (SELECT push FROM staged GROUP BY push HAVING max(at) < ? ORDER BY push)"

DEFINITIONS = """
CREATE TABLE definitions(job TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, PRIMARY KEY (job, version)) STRICT, WITHOUT ROWID"""
"""The text of a job (JSON of definitions.jobs.Job) under each spec_version."""
INSERT_DEFINITION = "INSERT INTO definitions VALUES (?, ?, ?)"
SELECT_SPEC = "SELECT spec FROM definitions WHERE job = ? AND version = ?"

JOBS = """
CREATE TABLE jobs(
  job TEXT PRIMARY KEY, project TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec_version INTEGER NOT NULL,
  removed_at INTEGER, paused_at INTEGER, paused_until INTEGER, pause_reason TEXT NOT NULL, paused_by TEXT NOT NULL, resumed_at INTEGER,
  decided_until INTEGER NOT NULL, fence INTEGER NOT NULL, created_at INTEGER NOT NULL, changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID"""
JOBS_BY_NAME = "CREATE INDEX jobs_by_name ON jobs(name)"
SELECT_JOB = """
SELECT project, version, spec_version, removed_at, paused_at, paused_until, resumed_at, decided_until, fence, pause_reason FROM jobs WHERE job = ?"""
SELECT_JOBS_OF_PROJECT = """
SELECT jobs.job, jobs.name, jobs.spec_version, jobs.decided_until, jobs.paused_at, definitions.spec
FROM jobs JOIN definitions ON definitions.job = jobs.job AND definitions.version = jobs.spec_version
WHERE jobs.project = ? AND jobs.job >= ? AND jobs.job < ? AND jobs.removed_at IS NULL ORDER BY jobs.job"""
INSERT_JOB = "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL, ?, NULL, ?, ?, NULL, ?, 0, ?, ?)"
REVIVE_JOB = """
UPDATE jobs SET version = ?, spec_version = ?, removed_at = NULL, paused_at = ?, paused_until = NULL, pause_reason = ?, paused_by = ?,
  resumed_at = NULL, decided_until = ?, changed_at = ? WHERE job = ?"""
UPDATE_JOB_SPEC = "UPDATE jobs SET spec_version = ?, changed_at = ? WHERE job = ?"
UPDATE_JOB_VERSIONS = "UPDATE jobs SET version = ? WHERE project = ? AND job >= ? AND job < ? AND removed_at IS NULL"
REMOVE_JOB = "UPDATE jobs SET removed_at = ?, changed_at = ? WHERE job = ?"
PAUSE_JOB = "UPDATE jobs SET paused_at = ?, paused_until = ?, pause_reason = ?, paused_by = ? WHERE job = ?"
RESUME_JOB = "UPDATE jobs SET paused_at = NULL, paused_until = NULL, pause_reason = '', paused_by = '', resumed_at = ? WHERE job = ?"
UPDATE_DECIDED = "UPDATE jobs SET decided_until = ? WHERE job = ?"
NEXT_FENCE = "UPDATE jobs SET fence = fence + 1 WHERE job = ? RETURNING fence"

HISTORY = """
CREATE TABLE history(
  job TEXT NOT NULL, number INTEGER NOT NULL, after INTEGER NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL, spec_version INTEGER NOT NULL,
  reason TEXT NOT NULL, actor TEXT NOT NULL, PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID"""
"""What the job's schedule was, for `audit`: from each row on, for scheduled times strictly later than `after`, the job was `active`, `paused` or
`removed` with the definition of `spec_version`. `after` never goes back within a job."""
LAST_HISTORY = "SELECT number, after, state, spec_version FROM history WHERE job = ? ORDER BY number DESC LIMIT 1"
INSERT_HISTORY = "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

# --- runs and what hangs on them

RUNS = """
CREATE TABLE runs(
  id TEXT PRIMARY KEY, job TEXT NOT NULL, project TEXT NOT NULL, version INTEGER NOT NULL, spec_version INTEGER NOT NULL,
  trigger TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, scheduled_at INTEGER, due_at INTEGER NOT NULL, created_at INTEGER NOT NULL,
  started_at INTEGER, ended_at INTEGER, lateness_ns INTEGER, params TEXT NOT NULL, beside INTEGER NOT NULL, begun INTEGER NOT NULL,
  order_at INTEGER NOT NULL, cancel TEXT, trouble TEXT
) STRICT, WITHOUT ROWID"""
"""`begun`: its first stage was placed, it holds its job's slot. `order_at`: rules.overlap.order_key. `cancel`: the reason, where one was asked
for. `trouble`: the state again, where it ended otherwise than `succeeded`; has small indices of its own."""
RUNS_BY_JOB = "CREATE INDEX runs_by_job ON runs(job, id)"
RUNS_LIVE = "CREATE INDEX runs_live ON runs(job, begun, beside, order_at, id) WHERE ended_at IS NULL"  # lines.py: heads and counts without the rest
RUNS_FIRES = "CREATE UNIQUE INDEX runs_fires ON runs(job, scheduled_at) WHERE trigger = 'schedule'"  # a fire exists once
RUNS_TROUBLE = "CREATE INDEX runs_trouble ON runs(trouble, id) WHERE trouble IS NOT NULL"
RUNS_TROUBLE_BY_JOB = "CREATE INDEX runs_trouble_by_job ON runs(job, trouble, id) WHERE trouble IS NOT NULL"
INSERT_RUN = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, NULL, ?, ?, 0, ?, NULL, ?)"
SELECT_RUN = """
SELECT id, job, spec_version, state, reason, scheduled_at, due_at, started_at, ended_at, beside, begun, order_at, cancel, trigger, version, created_at
FROM runs WHERE id = ?"""
SELECT_FIRE_AFTER = "SELECT id FROM runs WHERE job = ? AND scheduled_at > ? AND trigger = 'schedule' ORDER BY scheduled_at LIMIT 1"
SELECT_LIVE_RUNS = "SELECT id, begun, order_at, due_at, beside FROM runs WHERE job = ? AND ended_at IS NULL ORDER BY order_at, id"
COUNT_LIVE_RUNS = "SELECT begun, count(*) FROM runs WHERE job = ? AND ended_at IS NULL GROUP BY begun ORDER BY begun"
FIRST_LIVE_RUN = "SELECT id, begun FROM runs WHERE job = ? AND ended_at IS NULL ORDER BY order_at, id LIMIT 1"
FIRST_BEGUN_RUN = "SELECT id FROM runs WHERE job = ? AND begun = 1 AND ended_at IS NULL ORDER BY order_at, id LIMIT 1"
FIRST_WAITING_RUNS = """
SELECT id FROM (
  SELECT * FROM (SELECT id, order_at FROM runs WHERE job = ?1 AND begun = 0 AND beside = 0 AND ended_at IS NULL ORDER BY order_at, id LIMIT ?2)
  UNION ALL
  SELECT * FROM (SELECT id, order_at FROM runs WHERE job = ?1 AND begun = 0 AND beside = 1 AND ended_at IS NULL ORDER BY order_at, id LIMIT ?2)
) ORDER BY order_at, id LIMIT ?2"""
RUNS_AHEAD = """
SELECT id FROM runs WHERE job = ? AND begun = 0 AND beside = 0 AND ended_at IS NULL AND (order_at, id) < (?, ?) ORDER BY order_at, id LIMIT ?"""
SELECT_WAITING_RUNS = "SELECT id FROM runs WHERE job = ? AND ended_at IS NULL AND started_at IS NULL ORDER BY order_at, id"
UPDATE_RUN_STATE = "UPDATE runs SET state = ?, reason = ? WHERE id = ?"
UPDATE_RUN_STARTED = "UPDATE runs SET state = ?, reason = ?, started_at = ?, lateness_ns = ? WHERE id = ?"
UPDATE_RUN_ENDED = "UPDATE runs SET state = ?, reason = ?, ended_at = ?, trouble = ? WHERE id = ?"
UPDATE_RUN_BEGUN = "UPDATE runs SET begun = ?, reason = '' WHERE id = ?"
UPDATE_RUN_CANCEL = "UPDATE runs SET cancel = ? WHERE id = ?"
UPDATE_RUN_VERSION = "UPDATE runs SET version = ?, spec_version = ? WHERE id = ?"
PRUNABLE_RUNS = """
SELECT id FROM runs WHERE id < ?1 AND (ended_at < ?2 OR (id < ?3 AND ended_at IS NOT NULL)) ORDER BY id LIMIT ?4"""
DELETE_RUN = "DELETE FROM runs WHERE id = ?"

BACKFILLS = """
CREATE TABLE backfills(
  backfill TEXT PRIMARY KEY, job TEXT NOT NULL, parallel INTEGER NOT NULL, total INTEGER NOT NULL, made INTEGER NOT NULL, state TEXT NOT NULL,
  reason TEXT NOT NULL, actor TEXT NOT NULL, created_at INTEGER NOT NULL, ended_at INTEGER
) STRICT, WITHOUT ROWID"""
"""Runs for past times that somebody asked for. `made`: for how many of them; `ended_at`: when that was the last, or it was cancelled."""
BACKFILLS_OPEN = "CREATE INDEX backfills_open ON backfills(job, backfill) WHERE ended_at IS NULL"
BACKFILLS_OF_JOB = "CREATE INDEX backfills_of_job ON backfills(job)"
BACKFILL_TIMES = """
CREATE TABLE backfill_times(
  backfill TEXT NOT NULL, n INTEGER NOT NULL, scheduled_at INTEGER NOT NULL, run TEXT, PRIMARY KEY (backfill, n)
) STRICT, WITHOUT ROWID"""
INSERT_BACKFILL = "INSERT INTO backfills VALUES (?, ?, ?, ?, 0, 'running', ?, ?, ?, NULL)"
INSERT_BACKFILL_TIME = "INSERT INTO backfill_times VALUES (?, ?, ?, NULL)"
SELECT_BACKFILL = "SELECT job, parallel, total, made, state, reason, ended_at FROM backfills WHERE backfill = ?"
SELECT_BACKFILL_TIME = "SELECT scheduled_at FROM backfill_times WHERE backfill = ? AND n = ?"
SET_BACKFILL_RUN = "UPDATE backfill_times SET run = ? WHERE backfill = ? AND n = ?"
UPDATE_BACKFILL = "UPDATE backfills SET made = ?, state = ?, reason = ?, ended_at = ? WHERE backfill = ?"
LIVE_RUNS_OF_BACKFILL = """
SELECT runs.id FROM backfill_times JOIN runs ON runs.id = backfill_times.run
WHERE backfill_times.backfill = ? AND runs.ended_at IS NULL ORDER BY backfill_times.n"""
LIVE_BACKFILL_RUNS = "SELECT count(*) FROM runs WHERE job = ? AND ended_at IS NULL AND trigger = 'backfill'"
PRUNE_BACKFILL_TIMES = """
DELETE FROM backfill_times WHERE backfill IN (SELECT backfill FROM backfills WHERE ended_at < ? ORDER BY backfill LIMIT 10)"""
PRUNE_BACKFILLS = "DELETE FROM backfills WHERE backfill IN (SELECT backfill FROM backfills WHERE ended_at < ? ORDER BY backfill LIMIT 10)"

STRETCHES = """
CREATE TABLE stretches(
  job TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (job, first)
) STRICT, WITHOUT ROWID"""
"""Fires that had no run, many as one row."""
LAST_STRETCH = "SELECT first, last, count, outcome, reason FROM stretches WHERE job = ? ORDER BY first DESC LIMIT 1"
INSERT_STRETCH = "INSERT INTO stretches VALUES (?, ?, ?, ?, ?, ?, ?)"
GROW_STRETCH = "UPDATE stretches SET last = ?, count = ?, at = ? WHERE job = ? AND first = ?"
PRUNE_STRETCHES = """
DELETE FROM stretches WHERE (job, first) IN (SELECT job, first FROM stretches WHERE last < ? ORDER BY job, first LIMIT ?)"""

STAGES = """
CREATE TABLE stages(
  run TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, slots INTEGER NOT NULL,
  attempts INTEGER NOT NULL, losses INTEGER NOT NULL, queued_at INTEGER, started_at INTEGER, ended_at INTEGER,
  PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID"""
"""`attempts`: placements so far, the last one's number. `losses`: those that were lost or refused, against max_attempts."""
STAGES_QUEUED = "CREATE INDEX stages_queued ON stages(run, position) WHERE state = 'queued'"
INSERT_STAGE = "INSERT INTO stages VALUES (?, ?, ?, ?, '', ?, ?, 0, ?, NULL, NULL)"
SELECT_STAGE = "SELECT state, reason, slots, attempts, losses, started_at FROM stages WHERE run = ? AND name = ?"
SELECT_STAGES = "SELECT name, state, reason FROM stages WHERE run = ? ORDER BY position"
SELECT_WAIT = """
SELECT stages.state, stages.reason, runs.state, runs.due_at, runs.reason, runs.job FROM stages JOIN runs ON runs.id = stages.run
WHERE stages.run = ? AND stages.name = ?"""
UPDATE_STAGE = "UPDATE stages SET state = ?, reason = ? WHERE run = ? AND name = ?"
UPDATE_STAGE_QUEUED = "UPDATE stages SET state = ?, reason = ?, queued_at = ?, losses = ? WHERE run = ? AND name = ?"
END_WAITING_STAGES = "UPDATE stages SET state = ?, reason = ?, ended_at = ? WHERE run = ? AND state IN ('waiting', 'queued')"
UPDATE_STAGE_SLOTS = "UPDATE stages SET slots = ?, position = ? WHERE run = ? AND name = ?"
UPDATE_STAGE_PLACED = "UPDATE stages SET state = ?, reason = '', attempts = ? WHERE run = ? AND name = ?"
UPDATE_STAGE_STARTED = "UPDATE stages SET state = ?, reason = '', started_at = coalesce(started_at, ?) WHERE run = ? AND name = ?"
UPDATE_STAGE_ENDED = "UPDATE stages SET state = ?, reason = ?, ended_at = ? WHERE run = ? AND name = ?"
DELETE_STAGES = "DELETE FROM stages WHERE run = ?"

ATTEMPTS = """
CREATE TABLE attempts(
  run TEXT NOT NULL, stage TEXT NOT NULL, n INTEGER NOT NULL, node TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
  fence INTEGER NOT NULL, slots INTEGER NOT NULL, renew_hash TEXT NOT NULL, why TEXT NOT NULL, placed_at INTEGER NOT NULL, started_at INTEGER,
  ended_at INTEGER, last_seq INTEGER NOT NULL, revoke TEXT, late TEXT, pools TEXT NOT NULL,
  PRIMARY KEY (run, stage, n)
) STRICT, WITHOUT ROWID"""
"""`why`: what the other nodes lacked. `revoke`: why its node was asked not to start it. `late`: the state in which it ended after it was `lost`.
`pools`: those of which it holds a slot until it has ended, as JSON; empty for none."""
LAST_ATTEMPT = "SELECT coalesce(max(n), 0) FROM attempts WHERE run = ? AND stage = ?"
ATTEMPTS_OPEN = "CREATE INDEX attempts_open ON attempts(node, slots) WHERE ended_at IS NULL"
ATTEMPTS_POOLED = "CREATE INDEX attempts_pooled ON attempts(pools) WHERE ended_at IS NULL AND pools <> ''"
SELECT_POOLED = "SELECT pools, run FROM attempts WHERE ended_at IS NULL AND pools <> '' ORDER BY run, stage, n"
INSERT_ATTEMPT = "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, NULL, NULL, 0, NULL, NULL, ?)"
SELECT_ATTEMPT = """
SELECT attempts.node, attempts.state, attempts.reason, attempts.started_at, attempts.ended_at, attempts.last_seq, attempts.revoke, attempts.late,
  attempts.slots, stages.state, stages.attempts, stages.losses, runs.job, runs.spec_version, runs.state, runs.due_at, runs.started_at,
  runs.ended_at, runs.cancel
FROM attempts JOIN stages ON stages.run = attempts.run AND stages.name = attempts.stage JOIN runs ON runs.id = attempts.run
WHERE attempts.run = ? AND attempts.stage = ? AND attempts.n = ?"""
UPDATE_ATTEMPT = """
UPDATE attempts SET state = ?, reason = ?, started_at = ?, ended_at = ?, last_seq = ?, late = ? WHERE run = ? AND stage = ? AND n = ?"""
UPDATE_ATTEMPT_REVOKE = "UPDATE attempts SET revoke = ? WHERE run = ? AND stage = ? AND n = ?"
SELECT_OPEN_ATTEMPTS_OF_RUN = """
SELECT stage, n, node, state, revoke FROM attempts WHERE run = ? AND ended_at IS NULL ORDER BY stage, n"""
SLOTS_USED = "SELECT coalesce(sum(slots), 0) FROM attempts WHERE node = ? AND ended_at IS NULL"
COUNT_OPEN_ATTEMPTS = "SELECT count(*) FROM attempts WHERE node = ? AND ended_at IS NULL"
DELETE_ATTEMPTS = "DELETE FROM attempts WHERE run = ?"

TRIES = """
CREATE TABLE tries(
  run TEXT NOT NULL, stage TEXT NOT NULL, attempt INTEGER NOT NULL, n INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
  started_at INTEGER NOT NULL, ended_at INTEGER, exit_code INTEGER, signal INTEGER, max_rss_bytes INTEGER, cpu_ns INTEGER, duration_ns INTEGER,
  PRIMARY KEY (run, stage, attempt, n)
) STRICT, WITHOUT ROWID"""
INSERT_TRY = "INSERT OR IGNORE INTO tries VALUES (?, ?, ?, ?, ?, '', ?, NULL, NULL, NULL, NULL, NULL, NULL)"
END_TRY = """
UPDATE tries SET state = ?, reason = ?, ended_at = ?, exit_code = ?, signal = ?, max_rss_bytes = ?, cpu_ns = ?, duration_ns = ?
WHERE run = ? AND stage = ? AND attempt = ? AND n = ? AND state IN ('running', 'lost')"""
LOSE_TRIES = """
UPDATE tries SET state = 'lost', reason = ?, ended_at = ? WHERE run = ? AND stage = ? AND attempt = ? AND state = 'running'"""
LAST_TRY = "SELECT exit_code, signal FROM tries WHERE run = ? AND stage = ? AND attempt = ? ORDER BY n DESC LIMIT 1"
DELETE_TRIES = "DELETE FROM tries WHERE run = ?"

# --- events: what changed, for /v1/events and the page

EVENTS = """
CREATE TABLE events(
  number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, project TEXT, job TEXT, run TEXT, stage TEXT, node TEXT,
  actor TEXT NOT NULL, data TEXT NOT NULL
) STRICT"""
INSERT_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PRUNE_EVENTS = """
DELETE FROM events WHERE number IN (SELECT number FROM (SELECT number, at FROM events ORDER BY number LIMIT ?) WHERE at < ?)"""

ACTIVITY = """
CREATE TABLE activity(
  number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, command TEXT NOT NULL, actor TEXT NOT NULL, token TEXT NOT NULL,
  address TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL, project TEXT, before TEXT, after TEXT
) STRICT"""
"""Who did what (apply_activity.py). Numbers are never given twice, so that a page of it goes on where the one before ended."""
INSERT_ACTIVITY = """
INSERT INTO activity (at, command, actor, token, address, action, object, project, before, after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
PRUNE_ACTIVITY = """
DELETE FROM activity WHERE number IN (SELECT number FROM (SELECT number, at FROM activity ORDER BY number LIMIT ?) WHERE at < ?)"""

TABLES = (
    POSITION, DIGESTS, META, RESULTS, KEYS, KEYS_BY_TIME, NODES, AUTHORITIES, CLUSTER_KEYS, SECRETS, SECRETS_SET,
    TOKENS, TOKENS_OF_SUBJECT, ENDED_SESSIONS, PROJECTS, VERSIONS, POOLS, STAGED,
    DEFINITIONS, JOBS, JOBS_BY_NAME, HISTORY,
    RUNS, RUNS_BY_JOB, RUNS_LIVE, RUNS_FIRES, RUNS_TROUBLE, RUNS_TROUBLE_BY_JOB, BACKFILLS,
    BACKFILLS_OPEN, BACKFILLS_OF_JOB, BACKFILL_TIMES, STRETCHES, STAGES, STAGES_QUEUED,
    ATTEMPTS, ATTEMPTS_OPEN, ATTEMPTS_POOLED, TRIES, EVENTS, ACTIVITY,
)  # fmt: skip


def attempt_id(run: str, stage: str, n: int) -> str:
    """The id of an attempt, and the name of its folder on the node."""
    return f"{run}.{stage}.{n}"


def split_attempt(attempt: str) -> tuple[str, str, int] | None:
    """Run, stage and number of an attempt's id; None where it is none. A stage's name may hold dots, a run's id does not."""
    run, _, rest = attempt.partition(".")
    stage, _, number = rest.rpartition(".")
    if not (run and stage and number.isascii() and number.isdigit() and len(number) <= 9):
        return None
    return run, stage, int(number)


def span_of(prefix: str) -> tuple[str, str]:
    """The range of texts that begin with `prefix/`: "/" and the character after it in ASCII."""
    return f"{prefix}/", f"{prefix}0"
