"""What people get wrong, one thing a row: the one fault, its line, its field, and a word of what was expected. And what looks odd but is right."""

import pytest

from igor_node.definitions.load import load_folder
from igor_node.words import Invalid, parse_instant

NOW = parse_instant("2026-11-24T10:00:00Z")
HEAD = "apiVersion: igor/v1\nkind: Job\nname: a\n"  # three lines
JOB = HEAD + "command: x\n"  # four lines
STAGES = HEAD + "stages:\n"  # the first stage is in line 5
BOMB = "".join(f"{'abcdefghi'[n]}: &{'abcdefghi'[n]} [{', '.join(['*' + 'abcdefghi'[n - 1] if n else 'x'] * 9)}]\n" for n in range(9))

BAD = [
    # name, text, line, field, words
    # --- YAML
    ("tab", HEAD + "schedule:\n\tcron: x\n", 5, "document", "expected YAML 1.2"),
    ("not closed", HEAD + "command: [x\n", 4, "document", "expected YAML 1.2"),
    ("quote not closed", HEAD + "command: 'x\n", 4, "document", "expected YAML 1.2"),
    ("wrong indent", HEAD + "command: x\n owner: y\n", 5, "document", "expected YAML 1.2"),
    ("empty", b"", 1, "document", "is empty"),
    ("only a byte order mark", b"\xef\xbb\xbf", 1, "document", "is empty"),
    ("only comments", b"# nothing\n\n# more\n", 1, "document", "is empty"),
    ("latin-1", HEAD.encode() + "command: caf\u00e9\n".encode("latin-1"), 4, "document", "not UTF-8"),
    ("utf-16", (HEAD + "command: x\n").encode("utf-16"), 1, "document", "not UTF-8"),
    ("NUL", HEAD.encode() + b"command: a\0b\n", 4, "document", "expected YAML 1.2"),
    ("control character", HEAD.encode() + b"command: a\x07b\n", 4, "document", "expected YAML 1.2"),
    ("too large", HEAD + "description: " + "x" * (1 << 20) + "\n", 1, "document", "expected at most 1048576"),
    ("a list", "- a\n- b\n", 1, "document", "expected apiVersion, kind and name"),
    ("a text", "hello\n", 1, "document", "expected apiVersion, kind and name"),
    ("YAML 1.1", "%YAML 1.1\n---\n" + JOB, 2, "document", "expected YAML 1.2"),
    ("standard tag", HEAD + "command: !!str x\n", 4, "command", "tag"),
    ("own tag", HEAD + "command: !env x\n", 4, "command", "tag"),
    ("python tag", HEAD + 'command: !!python/object/apply:os.system ["id"]\n', 4, "command", "tag"),
    ("tag on a key", HEAD + "!!str command: x\n", 4, "command", "tag"),
    ("tag on the document", "--- !job\n" + JOB, 1, "document", "tag"),
    ("double key", JOB + "owner: x\nowner: y\n", 6, "owner", "first in line 5"),
    ("double key, same value", JOB + "owner: x\nowner: x\n", 6, "owner", "twice"),
    ("double key, quoted", JOB + "owner: x\n'owner': y\n", 6, "owner", "twice"),
    ("double key, deep", JOB + "env:\n  A: '1'\n  B: '2'\n  A: '3'\n", 8, "env.A", "first in line 6"),
    ("double key, in one line", JOB + "env: {A: x, A: y}\n", 5, "env.A", "twice"),
    ("double command", HEAD + "command: x\ncommand: y\n", 5, "command", "twice"),
    ("complex key", JOB + "? [a, b]\n: c\n", 5, "document", "name of a field"),
    ("alias without anchor", JOB + "env: *e\n", 5, "env", "no anchor"),
    ("alias into itself", JOB + "links: &l {a: *l}\n", 5, "links.a", "within its own anchor"),
    ("alias bomb", BOMB, 5, "e[0]", "10000"),
    ("merge key", JOB + "env: &e {A: b}\n<<: *e\n", 6, "<<", "not a field"),
    ("nesting of lists", HEAD + "command: " + "[" * 200 + "]" * 200 + "\n", 4, "command[0][0]", "deeper than 50"),
    ("nesting of mappings", HEAD + "env: " + "{a: " * 200 + "}" * 200 + "\n", 4, "env.a.a", "deeper than 50"),
    # --- heads
    ("no kind", "apiVersion: igor/v1\nname: a\ncommand: x\n", 1, "kind", "is missing"),
    ("kind in small letters", HEAD.replace("Job", "job") + "command: x\n", 2, "kind", 'did you mean "Job"'),
    ("unknown kind", HEAD.replace("Job", "Deployment"), 2, "kind", "expected one of Job"),
    ("kind is a list", HEAD.replace("Job", "[Job]") + "command: x\n", 2, "kind", "is not a kind"),
    ("no apiVersion", "kind: Job\nname: a\ncommand: x\n", 1, "apiVersion", "igor/v1"),
    ("next apiVersion", HEAD.replace("v1", "v2") + "command: x\n", 1, "apiVersion", "igor/v1"),
    ("apiVersion is a number", HEAD.replace("igor/v1", "1") + "command: x\n", 1, "apiVersion", "igor/v1"),
    ("no name", "apiVersion: igor/v1\nkind: Job\ncommand: x\n", 1, "name", "is missing"),
    ("null name", "apiVersion: igor/v1\nkind: Job\nname:\ncommand: x\n", 3, "name", "is not a text"),
    *(
        (f"name {name[:12]}", f"apiVersion: igor/v1\nkind: Job\nname: {name}\ncommand: x\n", 3, "name", "expected")
        for name in ("a/b", "a b", "'a '", "-a", ".a", "_a", "äpfel", "a$b", "a" * 101, "''", "12", "true", '"a\\nb"', "[a]", "{a: b}", "../a", "a:b")
    ),
    ("no command", HEAD, 1, "command", "is missing"),
    ("command and stages", JOB + "stages: [{name: x, command: y}]\n", 4, "command", "beside stages"),
    ("misspelt", HEAD + "comand: x\n", 4, "comand", 'did you mean "command"'),
    ("in capitals", JOB + "Timeout: 5m\n", 5, "Timeout", 'did you mean "timeout"'),
    ("unknown", JOB + "colour: red\n", 5, "colour", "is not a field here"),
    ("unknown in a schedule", JOB + "schedule:\n  every: 5m\n  tz: UTC\n", 7, "schedule.tz", "is not a field here"),
    ("unknown in backoff", JOB + "retries: {max: 1, backoff: {initail: 5s}}\n", 5, "retries.backoff.initail", 'did you mean "initial"'),
    ("schedule's field in the job", JOB + "every: 5m\n", 5, "every", 'did you mean "schedule.every"'),
    # --- types of fields
    ("command is a number", HEAD + "command: 5\n", 4, "command", "is not a command"),
    ("command is a mapping", HEAD + "command: {run: x}\n", 4, "command", "is not a command"),
    ("command is null", HEAD + "command:\n", 4, "command", "is missing"),
    ("command is empty", HEAD + "command: ''\n", 4, "command", "is empty"),
    ("command is an empty list", HEAD + "command: []\n", 4, "command", "is not a command"),
    ("program is empty", HEAD + "command: ['', a]\n", 4, "command", "the program to run"),
    ("fraction in a command", HEAD + "command: [sleep, 1.50]\n", 4, "command", "in quotes"),
    ("list in a command", HEAD + "command: [sleep, [1]]\n", 4, "command", "is not a text"),
    ("env is a list", JOB + "env: [A=b]\n", 5, "env", "is not a mapping"),
    ("env value is a list", JOB + "env: {A: [b]}\n", 5, "env.A", "is not a text"),
    ("env value is null", JOB + "env:\n  A:\n", 6, "env.A", "is not a text"),
    ("env name with a dash", JOB + "env: {A-B: c}\n", 5, "env.A-B", "environment variable"),
    ("env name with a digit first", JOB + "env: {1A: c}\n", 5, "env.1A", "environment variable"),
    ("env name of Igor", JOB + "env: {IGOR_JOB: c}\n", 5, "env.IGOR_JOB", "belongs to Igor"),
    *(
        (f"env {name}", JOB + f"env:\n  OK: fine\n  {name}: hunter2\n", 7, f"env.{name}", "secrets:")
        for name in ("DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MAIL_API_KEY", "S3_ACCESS_KEY", "MY_SECRET", "db_password")
    ),
    ("env of a stage", STAGES + "- name: s\n  command: x\n  env: {GH_TOKEN: x}\n", 7, "stages[0].env.GH_TOKEN", "secrets:"),
    ("paused is yes", JOB + "paused: yes\n", 5, "paused", "true or false"),
    ("paused is 1", JOB + "paused: 1\n", 5, "paused", "true or false"),
    ("tags are a text", JOB + "tags: a\n", 5, "tags", "is not a list"),
    ("a tag is a number", JOB + "tags: [a, 5]\n", 5, "tags[1]", "in quotes"),
    ("owner is a number", JOB + "owner: 5\n", 5, "owner", "in quotes"),
    ("links are a list", JOB + "links: [a]\n", 5, "links", "is not a mapping"),
    ("slots are none", JOB + "slots: 0\n", 5, "slots", "from 1"),
    ("slots in a text", JOB + "slots: '2'\n", 5, "slots", "whole number"),
    ("slots are a half", JOB + "slots: 0.5\n", 5, "slots", "whole number"),
    ("slots are true", JOB + "slots: true\n", 5, "slots", "whole number"),
    ("max_queued", JOB + "max_queued: -1\n", 5, "max_queued", "from 1"),
    ("max_parallel", JOB + "max_parallel: 100000\n", 5, "max_parallel", "to 1000"),
    ("priority", JOB + "priority: high\n", 5, "priority", "whole number"),
    ("overlap", JOB + "overlap: forbid\n", 5, "overlap", "expected one of queue"),
    ("overlap in capitals", JOB + "overlap: Skip\n", 5, "overlap", 'did you mean "skip"'),
    ("overlap is a boolean", JOB + "overlap: false\n", 5, "overlap", "is not known"),
    ("on_node_loss", JOB + "on_node_loss: retry\n", 5, "on_node_loss", "is not known"),
    ("on_push", JOB + "on_push: never\n", 5, "on_push", "is not known"),
    ("umask", JOB + "umask: 999\n", 5, "umask", "octal"),
    ("workdir", JOB + "workdir: ./data\n", 5, "workdir", "absolute"),
    ("shell with options", JOB + "shell: bash -e\n", 5, "shell", "is not a program"),
    ("constraints are a list", JOB + "constraints: [eu]\n", 5, "constraints", "is not a mapping"),
    ("constraints with a bad label", JOB + "constraints: {'a b': c}\n", 5, "constraints.a b", "is not a name"),
    ("exit code 256", JOB + "success_codes: [0, 256]\n", 5, "success_codes[1]", "to 255"),
    ("exit codes in no list", JOB + "success_codes: 0\n", 5, "success_codes", "is not a list"),
    ("no exit code", JOB + "success_codes: []\n", 5, "success_codes", "at least 1"),
    ("one exit code in two", JOB + "success_codes: [0, 3]\nskip_codes: [3]\n", 6, "skip_codes", "success_codes too"),
    ("retries are a number", JOB + "retries: 3\n", 5, "retries", "is not a mapping"),
    ("retries below none", JOB + "retries: {max: -1}\n", 5, "retries.max", "from 0"),
    ("retries on nonsense", JOB + "retries: {max: 1, on: [oom]}\n", 5, "retries.on[0]", "no reason to try again"),
    ("retries on a range", JOB + "retries: {max: 1, on: [1-5]}\n", 5, "retries.on[0]", "no reason to try again"),
    ("retries on true", JOB + "retries: {max: 1, on: true}\n", 5, "retries.on", "is not a list"),
    ("backoff shrinks", JOB + "retries: {max: 1, backoff: {factor: 0.5}}\n", 5, "retries.backoff.factor", "from 1"),
    ("backoff never ends", JOB + "retries: {max: 1, backoff: {factor: .inf}}\n", 5, "retries.backoff.factor", "from 1"),
    ("backoff jitter", JOB + "retries: {max: 1, backoff: {jitter: 2}}\n", 5, "retries.backoff.jitter", "from 0 to 1"),
    ("backoff initial", JOB + "retries:\n  backoff:\n    initial: 10\n", 7, "retries.backoff.initial", "unit"),
    # --- durations and sizes
    *(
        (f"timeout {span}", JOB + f"timeout: {span}\n", 5, "timeout", "expected")
        for span in (
            "30",
            "010",
            "30 minutes",
            "-5m",
            "0s",
            "5M",
            "1h 30m",
            "1.5h",
            "PT5M",
            "''",
            "5",
            "1m1h",
            "5min",
            "true",
            "[5m]",
            "99999999999d",
            "1e3s",
            "٣s",
        )
    ),
    ("lease too short", JOB + "lease: 4s\n", 5, "lease", "5s"),
    ("deadline without a unit", JOB + "deadline: 45\n", 5, "deadline", "unit"),
    ("grace is negative", JOB + "grace: -1s\n", 5, "grace", "is not a duration"),
    *(
        (f"log_limit {size}", JOB + f"log_limit: {size}\n", 5, "log_limit", "expected")
        for size in ("100", "100M", "1.5GiB", "-1MiB", "100 MiB", "1B", "100mib", "9999999999TiB")
    ),
    # --- schedules
    ("cron out of range", JOB + "schedule:\n  cron: 60 * * * *\n", 6, "schedule.cron", "expected 0 to 59"),
    ("cron hour", JOB + "schedule: {cron: 0 24 * * *}\n", 5, "schedule.cron", "hour"),
    ("cron day 0", JOB + "schedule: {cron: 0 0 0 * *}\n", 5, "schedule.cron", "day"),
    ("cron month 13", JOB + "schedule: {cron: 0 0 1 13 *}\n", 5, "schedule.cron", "month"),
    ("cron weekday 8", JOB + "schedule: {cron: 0 0 * * 8}\n", 5, "schedule.cron", "day of week"),
    ("cron of four fields", JOB + "schedule: {cron: '* * * *'}\n", 5, "schedule.cron", "expected"),
    ("cron of seven fields", JOB + "schedule: {cron: '0 0 0 1 1 ? 2027'}\n", 5, "schedule.cron", "expected"),
    ("cron is empty", JOB + "schedule: {cron: ''}\n", 5, "schedule.cron", "expected"),
    ("cron step of none", JOB + "schedule: {cron: '*/0 * * * *'}\n", 5, "schedule.cron", "expected"),
    ("cron step too long", JOB + "schedule: {cron: '*/90 * * * *'}\n", 5, "schedule.cron", "every:"),
    ("cron never", JOB + "schedule: {cron: 0 0 30 2 *}\n", 5, "schedule.cron", "matches no date"),
    ("cron @reboot", JOB + "schedule: {cron: '@reboot'}\n", 5, "schedule.cron", "expected"),
    ("cron @every", JOB + "schedule: {cron: '@every 5m'}\n", 5, "schedule.cron", "every:"),
    ("cron with a zone", JOB + "schedule: {cron: 'CRON_TZ=Europe/Berlin 0 0 * * *'}\n", 5, "schedule.cron", "timezone:"),
    ("cron with a wrong name", JOB + "schedule: {cron: 0 0 * * MOON}\n", 5, "schedule.cron", 'did you mean "MON"'),
    ("cron is a number", JOB + "schedule: {cron: 5}\n", 5, "schedule.cron", "in quotes"),
    ("schedule is a text", JOB + "schedule: '* * * * *'\n", 5, "schedule", "is not a mapping"),
    ("schedule is a list", JOB + "schedule: [{every: 5m}]\n", 5, "schedule", "is not a mapping"),
    ("schedule is empty", JOB + "schedule: {}\n", 5, "schedule", "none of cron, every, at"),
    ("schedule with two kinds", JOB + "schedule:\n  cron: '* * * * *'\n  every: 5m\n", 7, "schedule.every", "stands beside cron"),
    ("schedule and schedules", JOB + "schedule: {every: 5m}\nschedules: [{every: 7m}]\n", 6, "schedules", "one of the two"),
    ("schedules are none", JOB + "schedules: []\n", 5, "schedules", "at least 1"),
    ("a fault in the second", JOB + "schedules:\n  - {every: 5m}\n  - {every: 7}\n", 7, "schedules[1].every", "unit"),
    ("zone in small letters", JOB + "schedule: {cron: '@daily', timezone: europe/berlin}\n", 5, "schedule.timezone", "Europe/Berlin"),
    ("zone as an offset", JOB + "schedule: {cron: '@daily', timezone: '+01:00'}\n", 5, "schedule.timezone", "IANA"),
    ("zone is a number", JOB + "schedule: {cron: '@daily', timezone: 1}\n", 5, "schedule.timezone", "in quotes"),
    ("zone is empty", JOB + "schedule: {cron: '@daily', timezone: ''}\n", 5, "schedule.timezone", "IANA"),
    ("zone is a path", JOB + "schedule: {cron: '@daily', timezone: ../etc/passwd}\n", 5, "schedule.timezone", "IANA"),
    ("zone unknown", JOB + "schedule: {cron: '@daily', timezone: Mars/Base}\n", 5, "schedule.timezone", "is not a time zone"),
    ("zone in local", JOB + "schedule: {cron: '@daily', timezone: localtime}\n", 5, "schedule.timezone", "is not a time zone"),
    ("every below a second", JOB + "schedule: {every: 500ms}\n", 5, "schedule.every", "1s"),
    ("every is none", JOB + "schedule: {every: 0s}\n", 5, "schedule.every", "1s"),
    ("every hour", JOB + "schedule: {every: hour}\n", 5, "schedule.every", "is not a duration"),
    ("at in the past", JOB + "schedule: {at: 2020-01-01T00:00:00Z}\n", 5, "schedule.at", "in the past"),
    ("at now", JOB + "schedule: {at: 2026-11-24T10:00:00Z}\n", 5, "schedule.at", "in the past"),
    ("at without a zone", JOB + "schedule: {at: 2027-01-01T00:00:00}\n", 5, "schedule.at", "says no zone"),
    ("at a date", JOB + "schedule: {at: 2027-01-01}\n", 5, "schedule.at", "expected"),
    ("at no date", JOB + "schedule: {at: 2027-02-30T00:00:00Z}\n", 5, "schedule.at", "expected"),
    ("at noon", JOB + "schedule: {at: noon}\n", 5, "schedule.at", "expected"),
    ("at is a number", JOB + "schedule: {at: 1800000000}\n", 5, "schedule.at", "in quotes"),
    ("starts_at", JOB + "schedule: {every: 5m, starts_at: soon}\n", 5, "schedule.starts_at", "expected"),
    (
        "ends before it starts",
        JOB + "schedule:\n  every: 5m\n  starts_at: 2027-02-01T00:00:00Z\n  ends_at: 2027-01-01T00:00:00Z\n",
        8,
        "schedule.ends_at",
        "later",
    ),
    ("jitter as long as every", JOB + "schedule: {every: 5m, jitter: 300s}\n", 5, "schedule.jitter", "less than 5m"),
    ("jitter longer than cron", JOB + "schedule: {cron: '*/5 * * * *', jitter: 6m}\n", 5, "schedule.jitter", "less than 5m"),
    ("jitter without a unit", JOB + "schedule: {every: 5m, jitter: 3}\n", 5, "schedule.jitter", "unit"),
    ("catch_up policy", JOB + "schedule: {every: 5m, catch_up: {policy: newest}}\n", 5, "schedule.catch_up.policy", "latest"),
    ("catch_up is a text", JOB + "schedule: {every: 5m, catch_up: latest}\n", 5, "schedule.catch_up", "is not a mapping"),
    ("catch_up window", JOB + "schedule: {every: 5m, catch_up: {window: 10}}\n", 5, "schedule.catch_up.window", "unit"),
    ("catch_up in the job", JOB + "schedule: {every: 5m}\ncatch_up: {policy: all}\n", 6, "catch_up", 'did you mean "schedule.catch_up"'),
    ("calendar unknown", JOB + "schedule: {every: 5m, calendar: {exclude: [xmas]}}\n", 5, "schedule.calendar.exclude[0]", "no calendar"),
    ("calendar is a text", JOB + "schedule: {every: 5m, calendar: xmas}\n", 5, "schedule.calendar", "is not a mapping"),
    # --- stages
    ("stages are a mapping", HEAD + "stages: {s: {command: x}}\n", 4, "stages", "is not a list"),
    ("no stage", HEAD + "stages: []\n", 4, "stages", "at least 1"),
    ("stage is a text", STAGES + "- x\n", 5, "stages[0]", "is not a mapping"),
    ("stage without a name", STAGES + "- command: x\n", 5, "stages[0].name", "is missing"),
    ("stage without a command", STAGES + "- name: s\n", 5, "stages[0].command", "is missing"),
    ("stage's name", STAGES + "- {name: a/b, command: x}\n", 5, "stages[0].name", "is not a name"),
    ("needs an unknown stage", STAGES + "- {name: s, command: x}\n- {name: t, command: x, needs: [S]}\n", 6, "stages[1].needs[0]", "no stage"),
    ("needs itself", STAGES + "- name: s\n  command: x\n  needs: [s]\n", 7, "stages[0].needs", "s -> s"),
    (
        "circle of three",
        STAGES + "".join(f"- {{name: {a}, command: x, needs: [{b}]}}\n" for a, b in ("ab", "bc", "ca")),
        5,
        "stages[0].needs",
        "a -> b -> c -> a",
    ),
    ("needs is a text", STAGES + "- {name: s, command: x}\n- {name: t, command: x, needs: s}\n", 6, "stages[1].needs", "is not a list"),
    ("needs twice", STAGES + "- {name: s, command: x}\n- {name: t, command: x, needs: [s, s]}\n", 6, "stages[1].needs[1]", "twice"),
    ("two stages of a name", STAGES + "- {name: s, command: x}\n- {name: s, command: y}\n", 6, "stages[1].name", "stages[0] already"),
    ("schedule in a stage", STAGES + "- {name: s, command: x, schedule: {every: 5m}}\n", 5, "stages[0].schedule", "is not a field here"),
    ("misspelt in a stage", STAGES + "- name: s\n  command: x\n  timeuot: 5m\n", 7, "stages[0].timeuot", 'did you mean "timeout"'),
    ("needs in a job", JOB + "needs: [b]\n", 5, "needs", "is not a field here"),
    ("allow_failure is a text", STAGES + "- {name: s, command: x, allow_failure: 'yes'}\n", 5, "stages[0].allow_failure", "true or false"),
    # --- what this version cannot do
    *(
        (f"not yet: {text.split(':')[0]}", JOB + text + "\n", 5, text.split(":")[0], "not supported by this version yet")
        for text in (
            "limits: {memory: 2GiB}",
            "state: true",
            "shadow: true",
            "on_failure: [{notify: ops}]",
            "on_success: [{notify: ops}]",
            "on_recovery: [{notify: ops}]",
            "on_late: [{notify: ops}]",
        )
    ),
    *(
        (f"not yet: {field}", STAGES + f"- name: s\n  command: x\n  {field}: {value}\n", 7, f"stages[0].{field}", "not supported by this version yet")
        for field, value in (
            ("when", "'true'"),
            ("matrix", "{n: [1, 2]}"),
            ("approval", "{role: ops}"),
            ("trigger", "{job: b}"),
            ("save", "[out]"),
            ("fetch", "[out]"),
            ("fail_fast", "true"),
            ("max_parallel", "2"),
        )
    ),
    ("a pool of nobody", JOB + "pools: [p]\n", 5, "pools[0]", 'no pool is named "p"; expected a document of kind Pool'),
    ("a misspelt pool", JOB + "pools: [dbb]\n---\napiVersion: igor/v1\nkind: Pool\nname: db\nslots: 2\n", 5, "pools[0]", 'did you mean "db"'),
    ("a pool of a stage", STAGES + "- {name: s, command: x, pools: [o/p, q]}\n", 5, "stages[0].pools[1]", 'no pool is named "q"'),
    ("no name of a pool", JOB + "pools: [a/b/c]\n", 5, "pools[0]", "is not a name of a pool"),
    ("a pool without slots", "apiVersion: igor/v1\nkind: Pool\nname: p\nslots: 0\n", 4, "slots", "expected"),
    ("not yet: Monitor", "apiVersion: igor/v1\nkind: Monitor\nname: p\n", 2, "kind", "not supported by this version yet"),
    ("not yet: Channel", "apiVersion: igor/v1\nkind: Channel\nname: p\nslack: x\n", 2, "kind", "not supported by this version yet"),
    # --- params and values
    ("field of a param", JOB + "params:\n  type:\n    defalt: x\n", 7, "params.type.defalt", 'did you mean "default"'),
    ("params are a list", JOB + "params: [day]\n", 5, "params", "is not a mapping"),
    ("param is a text", JOB + "params: {day: date}\n", 5, "params.day", "is not a mapping"),
    ("param's name", JOB + "params: {'a b': {}}\n", 5, "params.a b", "name of a param"),
    ("param's type", JOB + "params:\n  n:\n    type: int\n", 7, "params.n.type", "is not known"),
    ("param's default is a list", JOB + "params: {n: {default: [1]}}\n", 5, "params.n.default", "expected a text"),
    ("default of another type", JOB + "params: {n: {type: integer, default: many}}\n", 5, "params.n.default", "is not a whole number"),
    ("default is no date", JOB + "params: {d: {type: date, default: 2026-02-30}}\n", 5, "params.d.default", "is not a date"),
    ("default is no boolean", JOB + "params: {b: {type: boolean, default: yes}}\n", 5, "params.b.default", "true or false"),
    ("default is no choice", JOB + "params: {c: {choices: [a, b], default: c}}\n", 5, "params.c.default", "none of the choices"),
    ("default below min", JOB + "params: {n: {type: integer, min: 2, default: 1}}\n", 5, "params.n.default", "at least 2"),
    ("default above max", JOB + "params: {n: {type: number, max: 2, default: 2.5}}\n", 5, "params.n.default", "at most 2"),
    ("default and pattern", JOB + "params: {p: {pattern: '[a-z]+', default: A1}}\n", 5, "params.p.default", "does not match"),
    ("a choice of another type", JOB + "params: {n: {type: integer, default: 1, choices: [1, two]}}\n", 5, "params.n.choices[1]", "whole number"),
    ("no choices", JOB + "params: {n: {choices: []}}\n", 5, "params.n.choices", "at least 1"),
    ("min above max", JOB + "params: {n: {type: integer, min: 3, max: 2}}\n", 5, "params.n.max", "less than min"),
    ("min of a text", JOB + "params: {n: {min: 3}}\n", 5, "params.n.min", "for numbers"),
    ("min is a text", JOB + "params: {n: {type: integer, min: low}}\n", 5, "params.n.min", "is not a number"),
    ("pattern", JOB + "params: {p: {pattern: '(('}}\n", 5, "params.p.pattern", "regular expression"),
    ("pattern of a number", JOB + "params: {p: {type: integer, pattern: '[0-9]'}}\n", 5, "params.p.pattern", "for texts"),
    ("two params, one variable", JOB + "params:\n  a-b: {default: x}\n  A_B: {default: x}\n", 7, "params.A_B", "same variable"),
    ("no default, but a schedule", JOB + "schedule: {every: 5m}\nparams: {day: {type: date}}\n", 6, "params.day", "no default"),
    ("unknown value", HEAD + "command: echo ${{ params.dya }}\nparams: {day: {default: x}}\n", 4, "command", "params.day"),
    ("unknown value in a list", HEAD + "command:\n  - echo\n  - ${{ foo }}\n", 6, "command[1]", "is not a value"),
    ("unknown value in env", JOB + "env: {A: '${{ secrets.x }}'}\n", 5, "env.A", "is not a value"),
    ("value is not closed", HEAD + "command: echo ${{ run\n", 4, "command", "not closed"),
    ("an expression", HEAD + "command: echo ${{ run + 1 }}\n", 4, "command", 'did you mean "run"'),
    ("an empty value", HEAD + "command: echo ${{ }}\n", 4, "command", "expected one of scheduled_time"),
    ("values of stages", HEAD + "command: echo ${{ stages.x.y }}\n", 4, "command", "not supported by this version yet"),
    ("param in a default", JOB + "params: {a: {default: '${{ params.b }}'}, b: {default: x}}\n", 5, "params.a.default", "is not a value"),
    # --- other kinds
    ("day", "apiVersion: igor/v1\nkind: Calendar\nname: c\ndays:\n  - 2026-12-25\n  - 25.12.2026\n", 6, "days[1]", "is not a day"),
    ("no days", "apiVersion: igor/v1\nkind: Calendar\nname: c\n", 1, "days", "is missing"),
    ("field of a calendar", "apiVersion: igor/v1\nkind: Calendar\nname: c\ndays: []\ncron: x\n", 5, "cron", "is not a field here"),
    ("project in a job's file", "apiVersion: igor/v1\nkind: Project\nname: shop\n", 2, "kind", "project.yaml"),
    ("job twice", JOB + "---\n" + JOB, 8, "name", "defined already in a.yaml:3"),
    ("calendar twice", "".join(["---\napiVersion: igor/v1\nkind: Calendar\nname: c\ndays: []\n"] * 2), 9, "name", "defined already in a.yaml:4"),
]

GOOD = {
    "the least": JOB,
    "byte order mark": "\ufeff" + JOB,
    "CRLF": JOB.replace("\n", "\r\n"),
    "document marks": "---\n" + JOB + "...\n",
    "%YAML 1.2": "%YAML 1.2\n---\n" + JOB,
    "JSON": '{"apiVersion": "igor/v1", "kind": "Job", "name": "a", "command": ["x", "y"]}',
    "no line end": JOB.rstrip("\n"),
    "comments": "# first\n" + JOB + "# last\n",
    "empty documents between": "---\n---\n" + JOB + "---\n",
    "NO, on, 12:30 and 010 are texts": HEAD + "command: [NO, on, off, y, 12:30, 010, 0x1f, 1_000, 2026-01-01]\ntags: [NO, on, 010]\nowner: yes\n",
    "block text": HEAD + "command: |\n  set -eu\n  echo a: b # c\n",
    "the shell's own variables": HEAD + 'command: echo "${HOME}" $((1 + 2)) ${X:-y}\n',
    "null is left out": JOB + "owner:\ntimeout: ~\nschedule: null\n",
    "aliases": JOB + "env: &e {A: b}\n---\napiVersion: igor/v1\nkind: Job\nname: b\n"
    "stages: [{name: x, command: y, env: &f {C: d}}, {name: z, command: y, env: *f}]\n",
    "longest name": HEAD.replace("name: a", "name: " + "a" * 100) + "command: x\n",
    "name with all signs": HEAD.replace("name: a", "name: 9-a_b.C") + "command: x\n",
    "name that looks like a number": HEAD.replace("name: a", "name: '12'") + "command: x\n",
    "stage named as another's job": STAGES + "- {name: a, command: x}\n",
    "durations": JOB + "timeout: 1d2h3m4s\ntotal_timeout: 3650d\ngrace: 0s\nlease: 5s\ndeadline: 90m\n",
    "sizes": JOB + "log_limit: 4KiB\n",
    "every policy": JOB + "schedule: {cron: '@daily', catch_up: {window: 0s, policy: none}}\noverlap: cancel\non_node_loss: wait\non_push: keep\n",
    "several schedules": JOB + "schedules: [{cron: 'H 2 * * *', timezone: Asia/Tokyo}, {every: 7m, jitter: 6m}, {at: '2027-01-01T00:00:00+09:00'}]\n",
    "cron with seconds": JOB + "schedule: {cron: '*/10 * * * * *'}\n",
    "leap day": JOB + "schedule: {cron: 0 0 29 2 *}\n",
    "wrapping range": JOB + "schedule: {cron: '0 22-4/2 * * FRI-MON'}\n",
    "at in a zone": JOB + "schedule: {at: 2027-03-28T02:30:00, timezone: Europe/Berlin}\n",
    "retries": JOB + "retries: {max: 3, backoff: {initial: 10s, factor: 1.5, max: 5m, jitter: 0.1}, on: [1, 75, timeout]}\n",
    "exit codes": JOB + "success_codes: [0, 3]\nretry_codes: [75]\nskip_codes: [99]\n",
    "secret names that are allowed": JOB + "env: {CSRF_TOKEN: public, TOKENS: '5', PASSWORD_FILE: /x}\nallow_plain: [CSRF_TOKEN]\n",
    "diamond": STAGES
    + "- {name: d, command: x, needs: [b, c]}\n- {name: b, command: x, needs: [a]}\n- {name: c, command: x, needs: [a]}\n- {name: a, command: x}\n",
    "always and allow_failure": STAGES + "- {name: s, command: x, allow_failure: true}\n- {name: t, command: [y], needs: [s], always: true}\n",
    "params of each type": HEAD
    + "command: echo ${{ params.d }} ${{params.n}} ${{ scheduled_time }} ${{ job }} ${{ run }} ${{ project }}\nschedule: {every: 5m}\n"
    + "params:\n  d: {type: date, default: '${{ scheduled_date }}'}\n  n: {type: integer, default: 2, min: 1, max: 3, choices: [1, 2]}\n"
    + "  f: {type: number, default: 0.5}\n  b: {type: boolean, default: false}\n  s: {default: '', description: any text}\n"
    + "  p: {pattern: '[a-z]+', default: ab}\n",
    "params without defaults on demand": JOB + "params: {day: {type: date}, what: }\n",
    "calendar": JOB
    + "schedule: {cron: '@daily', calendar: {exclude: [c]}}\n---\napiVersion: igor/v1\nkind: Calendar\nname: c\ndays: [2026-12-25, '2027-12-25']\n",
    "job and calendar of one name": JOB + "---\napiVersion: igor/v1\nkind: Calendar\nname: a\ndays: []\n",
    "for people": JOB + "description: >\n  Long\n  text.\nowner: me\ntags: [a]\nlinks: {runbook: https://example.com/x#y}\nseverity: high\n",
    "the rest": JOB
    + "paused: true\nworkdir: /tmp\numask: '022'\nshell: /bin/bash\nslots: 2\npriority: -5\nmax_queued: 3\nmax_parallel: 4\nmax_attempts: 1\n",
}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "shop"
    place.mkdir()
    return place


@pytest.mark.parametrize("text, line, field, words", [pytest.param(*row[1:], id=row[0]) for row in BAD])
def test_bad(folder, text, line, field, words):
    """One fault, and none that only follows from it."""
    (folder / "a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Invalid) as caught:
        load_folder(folder, NOW)
    (fault,) = caught.value.faults
    place, path, what = fault.split(": ", 2)
    assert (place, path) == (f"a.yaml:{line}", field), fault
    assert words in what
    assert "; " in what or what.endswith("yet"), "a fault says what was expected"


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in GOOD.items()])
def test_good(folder, text):
    """No fault, and a job comes of it."""
    (folder / "a.yaml").write_bytes(text.encode())
    assert load_folder(folder, NOW).jobs


JOB_FILE, PROJECT = {"a.yaml": JOB}, "apiVersion: igor/v1\nkind: Project\nname: shop\n"
FOLDERS = [
    # name, files, faults without the words of what was expected
    (
        "project twice in a file",
        JOB_FILE | {"project.yaml": PROJECT + "---\n" + PROJECT},
        ["project.yaml:6: kind: the project is named already in project.yaml:1"],
    ),
    (
        "two project files",
        JOB_FILE | {"project.yaml": PROJECT, "project.yml": PROJECT},
        ["project.yml:2: kind: the project is named already in project.yaml:1"],
    ),
    (
        "no name",
        JOB_FILE | {"project.yaml": PROJECT.replace("name: shop", "title: x")},
        ["project.yaml:1: name: is missing", 'project.yaml:3: title: "title" is not a field here'],
    ),
    ("a bad name", JOB_FILE | {"project.yaml": PROJECT.replace("shop", "my shop")}, ['project.yaml:3: name: "my shop" is not a name']),
    (
        "schedule of a project",
        JOB_FILE | {"project.yaml": PROJECT + "schedule: {every: 5m}\n"},
        ['project.yaml:4: schedule: "schedule" is not a field here'],
    ),
    ("defaults are a list", JOB_FILE | {"project.yaml": PROJECT + "defaults: [a]\n"}, ['project.yaml:4: defaults: ["a"] is not a mapping']),
    (
        "no default for names",
        JOB_FILE | {"project.yaml": PROJECT + "defaults: {name: x}\n"},
        ['project.yaml:4: defaults.name: "name" is not a field here'],
    ),
    (
        "a wrong default",
        JOB_FILE | {"project.yaml": PROJECT + "defaults: {timeout: 30}\n"},
        ["project.yaml:4: defaults.timeout: 30 is not a duration"],
    ),
    (
        "a secret for all",
        JOB_FILE | {"project.yaml": PROJECT + "defaults:\n  env: {A_TOKEN: x}\n"},
        ["project.yaml:5: defaults.env.A_TOKEN: the name says that it is a secret"],
    ),
    (
        "one job in three files",
        {f"{name}.yaml": JOB for name in "abc"},
        [f'{name}.yaml:3: name: the Job "a" is defined already in a.yaml:3' for name in "bc"],
    ),
    (
        "a job in yaml and in Python",
        JOB_FILE | {"b.py": "from igor_node.definitions import Job\n\nJob('a', command='x')\n"},
        ['b.py:3: name: the Job "a" is defined already in a.yaml:3'],
    ),
]


@pytest.mark.parametrize("files, told", [pytest.param(*row[1:], id=row[0]) for row in FOLDERS])
def test_bad_folders(folder, files, told):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(Invalid) as caught:
        load_folder(folder, NOW)
    assert [fault.split(";")[0] for fault in caught.value.faults] == told


def test_every_bad_one_is_told_at_once(folder):
    """A folder of all of them: each file has its fault in the one report."""
    names = [f"f{number:03}.yaml" for number in range(len(BAD))]
    for name, (_, text, *_) in zip(names, BAD, strict=True):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Invalid) as caught:
        load_folder(folder, NOW)
    told = {fault.split(":")[0] for fault in caught.value.faults}
    assert told == set(names)


CLASHES = {("schedule", "schedules"), ("schedules", "schedule"), ("schedule", "every")}  # of their own


def lines_of_a_job():
    """The bad ones that are one more line in a job: (key, that line, field, words)."""
    for _, text, line, field, words in BAD:
        if isinstance(text, str) and text.startswith(JOB) and text.count("\n") == 5 and line == 5 and field != "document":
            more = text[len(JOB) :]
            yield more.split(":")[0], more, field, words


def test_no_fault_hides_another(folder):
    """Each bad line beside the bad lines of other keys that follow it in the table: both are told, at their lines, and nothing else."""
    rows = list(lines_of_a_job())
    assert len(rows) > 80
    for at, (key, more, field, words) in enumerate(rows):
        others = [row for row in rows[at + 1 :] if row[0] != key and (row[0], key) not in CLASHES]
        for _, more_too, field_too, words_too in (others * 2)[:: max(1, len(others) // 4)][:4]:
            (folder / "a.yaml").write_text(JOB + more + more_too)
            with pytest.raises(Invalid) as caught:
                load_folder(folder, NOW)
            first, second = caught.value.faults
            assert first.startswith(f"a.yaml:5: {field}: ") and words in first
            assert second.startswith(f"a.yaml:6: {field_too}: ") and words_too in second
