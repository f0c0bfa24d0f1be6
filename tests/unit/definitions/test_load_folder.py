"""Folders of definitions: what they become, and every fault of every file at once, with file, line, field and what was expected."""

import json
import subprocess
import sys

import pytest

from igor_node.definitions.load import check_objects, load_folder
from igor_node.words import SECOND, Invalid, parse_instant, parse_span

NOW = parse_instant("2026-11-24T10:00:00Z")
HEAD = "apiVersion: igor/v1\nkind: Job\nname: a\n"  # three lines
CONTRACT = """
apiVersion: igor/v1
kind: Job
name: nightly-report
description: Sales of the day, for the board
owner: data-team
schedule: {cron: "0 2 * * *", timezone: Europe/Berlin, catch_up: {window: 6h, policy: latest}}
command: ["./report.sh", "--day", "${{ params.day }}"]
params: {day: {type: date, default: "${{ scheduled_date }}"}}
env: {LANG: C.UTF-8}
overlap: queue
timeout: 30m
retries: {max: 3, backoff: {initial: 10s, factor: 2, max: 5m}}
deadline: 3h
constraints: {zone: eu}
"""


@pytest.fixture
def folder(tmp_path):
    """Writes files into a folder named `shop`."""
    place = tmp_path / "shop"
    place.mkdir()

    def write(**files):
        for name, text in files.items():
            path = place / name.replace("__", ".")
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return place

    return write


def faults(place):
    with pytest.raises(Invalid) as caught:
        load_folder(place, NOW)
    return list(caught.value.faults)


def one_fault(folder, text):
    found = faults(folder(a__yaml=text))
    assert len(found) == 1, found
    return found[0]


def load(folder, text):
    return load_folder(folder(a__yaml=text), NOW).jobs


# --- what is accepted


def test_the_contract_s_example(folder):
    """Every field arrives, durations in nanoseconds."""
    (job,) = load(folder, CONTRACT)
    (stage,), (schedule,) = job.stages, job.schedules
    assert (job.id, job.owner, job.deadline_ns, job.source_file, job.source_line) == (
        "shop/nightly-report",
        "data-team",
        parse_span("3h"),
        "a.yaml",
        2,
    )
    assert (schedule.cron, schedule.timezone, schedule.catch_up.window_ns) == ("0 2 * * *", "Europe/Berlin", parse_span("6h"))
    assert (stage.name, stage.command, stage.env) == ("main", ("./report.sh", "--day", "${{ params.day }}"), {"LANG": "C.UTF-8"})
    assert (stage.timeout_ns, stage.retries.max, stage.retries.backoff.max_ns, stage.constraints) == (1800 * SECOND, 3, 300 * SECOND, {"zone": "eu"})


def test_a_node_gets_the_same_jobs_from_the_objects_of_a_push(folder):
    loaded = load_folder(folder(a__yaml=CONTRACT, b__yaml=HEAD + "command: 'true'\n"), NOW)
    assert check_objects("shop", json.loads(json.dumps(loaded.objects)), NOW) == (loaded.jobs, loaded.pools)
    assert loaded.sources == {"a.yaml": CONTRACT, "b.yaml": HEAD + "command: 'true'\n"}


def test_a_node_s_faults_name_the_person_s_file_and_line(folder):
    """The objects of a push carry their lines."""
    loaded = load_folder(folder(a__yaml=HEAD + "schedule:\n  at: 2026-12-01T00:00:00Z\ncommand: x\n"), NOW)
    with pytest.raises(Invalid) as caught:
        check_objects("shop", loaded.objects, parse_instant("2026-12-02T00:00:00Z"))
    assert caught.value.faults == ("a.yaml:5: schedule.at: 2026-12-01T00:00:00Z is in the past; expected a time after 2026-12-02T00:00:00Z",)


def test_objects_without_a_source_are_numbered():
    with pytest.raises(Invalid) as caught:
        check_objects("shop", [{"apiVersion": "igor/v1", "kind": "Job", "name": "a"}, 5], NOW)
    assert caught.value.faults == (
        "definitions[0]: command: is missing; expected a command, or stages",
        "definitions[1]: document: 5 is not a definition; expected a mapping with apiVersion, kind and name",
    )


def test_the_project_is_named_by_project_yaml_and_its_defaults_come_first(folder):
    project = "apiVersion: igor/v1\nkind: Project\nname: sales\n"
    project += "defaults: {owner: ops, timeout: 5m, env: {A: '1', B: '1'}, schedule: {timezone: Asia/Tokyo}}\n"
    place = folder(
        project__yaml=project,
        a__yaml=HEAD + "command: x\nenv: {B: '2'}\nowner: me\nschedule: {cron: '0 9 * * *'}\n",
        b__yaml=HEAD.replace("a\n", "b\n") + "command: x\n",
    )
    a, b = load_folder(place, NOW).jobs
    assert (a.id, a.owner, a.stages[0].env, a.stages[0].timeout_ns, a.schedules[0].timezone) == (
        "sales/a",
        "me",
        {"A": "1", "B": "2"},
        parse_span("5m"),
        "Asia/Tokyo",
    )
    assert (b.owner, b.schedules) == ("ops", ())


def test_stages_take_what_the_job_says_and_say_their_own(folder):
    text = (
        HEAD
        + """
timeout: 5m
env: {A: job, B: job}
retries: {max: 2}
stages:
  - {name: get, command: get}
  - {name: put, command: [put, 1, true], needs: [get], timeout: 1m, env: {B: stage}, retries: {max: 0}, allow_failure: true}
  - {name: tidy, command: tidy, needs: [put], always: true}
"""
    )
    get, put, tidy = load(folder, text)[0].stages
    assert (get.timeout_ns, get.env, get.retries.max) == (parse_span("5m"), {"A": "job", "B": "job"}, 2)
    assert (put.command, put.timeout_ns, put.env, put.retries.max, put.allow_failure) == (
        ("put", "1", "true"),
        parse_span("1m"),
        {"A": "job", "B": "stage"},
        0,
        True,
    )
    assert (tidy.needs, tidy.always) == (("put",), True)


def test_calendars_become_dates(folder):
    text = (
        HEAD
        + "schedule: {cron: 0 9 * * *, calendar: {exclude: [xmas, eve]}}\ncommand: x\n"
        + "---\napiVersion: igor/v1\nkind: Calendar\nname: xmas\ndays: [2026-12-26, 2026-12-25]\n"
        + "---\napiVersion: igor/v1\nkind: Calendar\nname: eve\ndays: [2026-12-24, 2026-12-25]\n"
    )
    assert load(folder, text)[0].schedules[0].exclude == ("2026-12-24", "2026-12-25", "2026-12-26")


@pytest.mark.parametrize(
    "at, instant",
    [
        ("{at: 2027-01-01T00:00:00Z}", "2027-01-01T00:00:00Z"),
        ("{at: 2027-01-01T00:00:00+01:00}", "2026-12-31T23:00:00Z"),
        ("{at: 2027-01-01T00:00:00, timezone: Europe/Berlin}", "2026-12-31T23:00:00Z"),
        ("{at: 2027-03-28T02:30, timezone: Europe/Berlin}", "2027-03-28T01:00:00Z"),
    ],
)
def test_at_with_an_offset_or_a_zone(folder, at, instant):
    assert load(folder, HEAD + f"schedule: {at}\ncommand: x\n")[0].schedules[0].at == parse_instant(instant)


def test_yaml_1_2_reads_plain_words_as_texts(folder):
    """`NO`, `on`, `12:30` and `010` are texts; `true` and 8 become what a command sees."""
    text = HEAD + "command: [NO, on, 12:30, 010, yes]\nenv: {A: off, B: true, C: 8, D: 0o17}\numask: 022\n"
    (job,) = load(folder, text)
    assert job.stages[0].command == ("NO", "on", "12:30", "010", "yes")
    assert job.stages[0].env == {"A": "off", "B": "true", "C": "8", "D": "0o17"}
    assert job.umask == 0o22


def test_aliases_are_allowed(folder):
    text = HEAD + "stages:\n  - &s {name: x, command: c, env: &e {A: b}}\n  - {name: y, command: c, env: *e}\n"
    assert load(folder, text)[0].stages[1].env == {"A": "b"}


def test_python_files_build_the_same_objects(folder):
    builder = "from igor_node.definitions import Job\nfor shop in ('berlin', 'paris'):\n"
    builder += "    Job(f'sales-{shop}', schedule={'cron': 'H 2 * * *'}, command=('./sales.sh', shop))\n"
    jobs = load_folder(folder(more__py=builder), NOW).jobs
    assert [(job.id, job.stages[0].command, job.source_file, job.source_line) for job in jobs] == [
        ("shop/sales-berlin", ("./sales.sh", "berlin"), "more.py", 3),
        ("shop/sales-paris", ("./sales.sh", "paris"), "more.py", 3),
    ]


# --- faults


def test_all_faults_of_all_files_at_once(folder):
    """A misspelt field hides neither the other faults of its job nor those of other files."""
    place = folder(
        a__yaml=HEAD + 'comand: x\nschedule: {cron: "0 25 * * *", timezone: Europe/Berln}\ntimeout: 30\ntimeout: 40s\n',
        b__yaml="apiVersion: igor/v1\nkind: Job\nname: a\nstages:\n  - {name: x, command: c, needs: [z]}\n  - {name: z, command: c, needs: [x]}\n",
        c__yaml="a: [",
        d__py="import nothing_of_that_name\n",
    )
    assert faults(place) == [
        'a.yaml:4: comand: "comand" is not a field here; did you mean "command"?',
        'a.yaml:5: schedule.timezone: "Europe/Berln" is not a time zone; did you mean "Europe/Berlin"?',
        'a.yaml:5: schedule.cron: hour: 25 in "25" is out of range; expected 0 to 23',
        "a.yaml:6: timeout: 30 is not a duration; expected a number with its unit, in a text like 90s, 1h30m or 2d",
        "a.yaml:7: timeout: the key stands twice, first in line 6; expected it once",
        'b.yaml:3: name: the Job "a" is defined already in a.yaml:3; expected a name of its own',
        "b.yaml:5: stages[0].needs: stages need each other in a circle: x -> z -> x; expected an order",
        "c.yaml:1: document: while parsing a flow node expected the node content, but found '<stream end>'; expected YAML 1.2",
        "d.py:1: document: ModuleNotFoundError: No module named 'nothing_of_that_name'; expected a program that ends well",
    ]


@pytest.mark.parametrize(
    "rest, fault",
    [
        ("", "a.yaml:1: command: is missing; expected a command, or stages"),
        ("command: x\nschedule: {timezone: UTC}\n", "a.yaml:5: schedule: has none of cron, every, at; expected one of them, or no schedule"),
        (
            "command: x\nschedule: {every: 5m, cron: '* * * * *'}\n",
            "a.yaml:5: schedule.cron: stands beside every|a.yaml:5: schedule.every: stands beside cron",
        ),
        ("command: x\nschedule: {every: 90}\n", "a.yaml:5: schedule.every: 90 is not a duration; expected a number with its unit"),
        ("command: x\nschedule: {every: 010}\n", "a.yaml:5: schedule.every: '010' is not a duration"),
        ("command: x\nschedule: {every: 30 minutes}\n", "a.yaml:5: schedule.every: '30 minutes' is not a duration"),
        ("command: x\nschedule: {every: 500ms}\n", "out of range; expected 1s to 3650d"),
        ("command: x\nschedule: {cron: '* * * * *', timezone: europe/berlin}\n", 'did you mean "Europe/Berlin"'),
        ("command: x\nschedule: {at: 2026-01-01T00:00:00Z}\n", "is in the past; expected a time after 2026-11-24T10:00:00Z"),
        ("command: x\nschedule: {at: 2027-01-01T00:00:00}\n", "says no zone; expected an offset or Z at its end, or timezone"),
        ("command: x\nschedule: {at: 2027-13-01T00:00:00Z}\n", "is not a time"),
        ("command: x\nschedule: {at: 9000-01-01T00:00:00Z}\n", "expected a time from 1970 to 2261"),
        ("command: x\nschedule: {every: 5m, jitter: 5m}\n", "schedule.jitter: 5m is not less than the interval; expected less than 5m"),
        (
            "command: x\nschedule: {every: 5m, starts_at: 2027-01-01T00:00:00Z, ends_at: 2026-12-01T00:00:00Z}\n",
            "schedule.ends_at: is not after starts_at",
        ),
        ("command: x\nschedule: {every: 5m, calendar: {exclude: [xmas]}}\n", "schedule.calendar.exclude[0]: no calendar is named"),
        ("command: x\ncron: '* * * * *'\n", 'a.yaml:5: cron: "cron" is not a field here; did you mean "schedule.cron"?'),
        ("command: x\nschedules: [{cron: '0 0 31 2 *'}]\n", 'schedules[0].cron: "0 0 31 2 *" matches no date in 400 years'),
        ("command: x\nstages: [{name: s, command: y}]\n", "a.yaml:4: command: stands beside stages; expected one of the two"),
        ("stages: [{name: s, command: y, needs: [t]}]\n", 'stages[0].needs[0]: no stage is named "t"; expected none'),
        ("stages: [{name: s, command: y, needs: [s]}]\n", "in a circle: s -> s"),
        ("stages: [{name: s, command: y}, {name: s, command: y}]\n", 'stages[1].name: the stage "s" is stages[0] already'),
        ("stages: [{name: s, command: y, when: 'true'}]\n", "stages[0].when: is not supported by this version yet"),
        ("stages: []\n", "stages: is empty; expected at least 1"),
        ("command: x\nsecrets: {A: b}\nenv: {A: c}\n", "secrets.A: stands in env: too; expected it in one of them"),
        ("command: x\non_failure: [{notify: ops}]\n", "on_failure: is not supported by this version yet"),
        ("command: x\nenv: {DB_PASSWORD: x}\n", "env.DB_PASSWORD: the name says that it is a secret; expected it under secrets:"),
        ("command: x\nenv: {my_api_key: x}\n", "env.my_api_key: the name says that it is a secret"),
        ("command: x\nenv: {A: 1.10}\n", "env.A: 1.1 is a number with a fraction; expected a text, in quotes"),
        ("command: x\nenv: {A: }\n", "env.A: null is not a text"),
        ("command: x\nenv: {IGOR_RUN: x}\n", "belongs to Igor"),
        ("command: x ${{ params.x }}\n", 'command: "params.x" is not a value'),
        ("command: |\n  cat <<E\n  ${{ run }}\n  E\n", "command: ${{ run }} stands inside a here-document"),
        ("command: x\nparams: {d: {type: secret}}\n", "params.d.type: secret is not supported by this version yet"),
        ("command: x\nparams: {d: {type: date, default: 24.12.2026}}\n", 'params.d.default: "24.12.2026" is not a date'),
        ("command: x\nparams: {d: {pattern: '['}}\n", "is not a regular expression"),
        ("command: x\nparams: {d: {min: 1}}\n", "params.d.min: is for numbers, the type is string"),
        ("command: x\nparams: {a-b: {}, a_b: {}}\n", "params.a_b: is the same variable as a-b"),
        ("command: x\nparams: {d: {}}\nschedule: {every: 5m}\n", "params.d: has no default, but the schedule gives no values"),
        ("command: x\nlog_limit: 100\n", "log_limit: 100 is not a size; expected a number with its unit, like 100MiB"),
        ("command: x\nlease: 1s\n", 'lease: "1s" is out of range; expected 5s'),
        ("command: x\nworkdir: here\n", 'workdir: "here" is not an absolute path'),
        ("command: x\nretry_codes: [0]\nsuccess_codes: [0]\n", "retry_codes: 0 stands in success_codes too"),
        ("command: x\noverlap: que\n", 'overlap: "que" is not known; did you mean "queue"?'),
        ("command: x\npaused: yes\n", 'paused: "yes" is not allowed; expected true or false'),
        ("command: x\ntags: {a: b}\n", 'tags: {"a": "b"} is not a list'),
        ("command: []\n", "command: [] is not a command"),
        ("command: ' '\n", "command: is empty; expected a command"),
        ("command: x\nsource: y\n", 'source: "source" is not a field here'),
        ("command: !!str x\n", "command: the tag tag:yaml.org,2002:str is not allowed"),
        ("command: x\n<<: {owner: y}\n", '<<: "<<" is not a field here'),
    ],
)
def test_one_fault(folder, rest, fault):
    """One wrong thing, one line: file, line, field, what is wrong, what was expected."""
    found = one_fault(folder, HEAD + rest)
    assert found.startswith("a.yaml:")
    assert any(each in found for each in fault.split("|")), found


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "a.yaml:1: document: the file is empty"),
        ("# nothing\n---\n", "a.yaml:1: document: the file is empty"),
        (b"name: \xff\n", "a.yaml:1: document: byte 7 is not UTF-8"),
        ("x" * (1024 * 1024 + 1), "a.yaml:1: document: the file has 1048577 bytes"),
        ("kind: Jbo\napiVersion: igor/v1\nname: a\ncommand: x\n", 'a.yaml:1: kind: "Jbo" is not a kind; did you mean "Job"?'),
        ("name: a\n", "a.yaml:1: kind: is missing; expected one of Job"),
        ("- a\n", "a.yaml:1: document: the document is not a mapping"),
        ("kind: Job\nname: a\ncommand: x\n", "a.yaml:1: apiVersion: is missing; expected igor/v1"),
        ("apiVersion: igor/v1\nkind: Job\ncommand: x\n", "a.yaml:1: name: is missing; expected a name"),
        ("apiVersion: igor/v1\nkind: Job\ncommand: x\nname: -a\n", 'a.yaml:4: name: "-a" is not a name'),
        ("apiVersion: igor/v1\nkind: Channel\nname: p\nslack: x\n", "a.yaml:2: kind: Channel is not supported by this version yet"),
        ("apiVersion: igor/v1\nkind: Calendar\nname: c\ndays: [2026-02-30]\n", 'a.yaml:4: days[0]: "2026-02-30" is not a day'),
        ("apiVersion: igor/v1\nkind: Project\nname: shop\n", "a.yaml:2: kind: a Project stands in a.yaml; expected it in project.yaml"),
        (HEAD + "command: " + "[" * 60 + "]" * 60, "nesting is deeper than 50"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
            "aliases unfold to more than 10000 nodes",
        ),
        (HEAD + "command: x\ntags: &a [*a]\n", "the alias *a stands within its own anchor"),
    ],
)
def test_one_fault_of_a_file(folder, text, fault):
    """What is wrong with a file or a document as a whole."""
    assert fault in one_fault(folder, text)


def test_a_folder_without_definitions(folder, tmp_path):
    assert "holds no definitions; expected *.yaml files" in faults(folder())[0]
    assert "is not a folder" in faults(tmp_path / "nowhere")[0]


def test_a_folder_whose_name_is_no_project(tmp_path):
    place = tmp_path / "my jobs"
    place.mkdir()
    (place / "a.yaml").write_text(HEAD + "command: x\n")
    assert "cannot be a project's; expected project.yaml" in faults(place)[0]


def test_defaults_cannot_be_what_each_job_must_say(folder):
    project = "apiVersion: igor/v1\nkind: Project\nname: shop\ndefaults:\n  command: x\n  schedule: {cron: '* * * * *'}\n  timout: 5s\n"
    found = faults(folder(project__yaml=project, a__yaml=HEAD + "command: x\n"))
    assert [each.split(":")[2].strip() for each in found] == ["defaults.command", "defaults.schedule.cron", "defaults.timout"]


def test_a_builder_that_leaves_early_is_a_fault_with_its_line(folder):
    found = faults(folder(a__py="from igor_node.definitions import Job\nJob('x', command=5)\nimport sys\nsys.exit(3)\n"))
    assert found == [
        "a.py:2: command: 5 is not a command; expected a text for the shell, or a list of the program and its arguments",
        "a.py:4: document: SystemExit: 3; expected a program that ends well",
    ]


def test_many_faults_are_cut_with_their_number(folder):
    text = HEAD + "command: x\nenv:\n" + "".join(f"  A{n}: 1.5\n" for n in range(400)) + "".join(f"x{n}: y\n" for n in range(700))
    found = faults(folder(a__yaml=text))
    assert len(found) == 1001
    assert found[-1] == "and 100 more faults"


def test_deep_objects_of_a_push_are_refused():
    deep: object = []
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(Invalid) as caught:
        check_objects("shop", [{"kind": "Job", "x": deep}], NOW)
    assert caught.value.faults == ("definitions[0]: document: the nesting is deeper than 50; expected less",)


def test_what_is_light_stays_light():
    """The schedules and values of a job cost neither pydantic nor ruamel."""
    program = (
        "import sys, igor_node.definitions.preview, igor_node.definitions.values\n"
        "heavy = {'pydantic', 'ruamel', 'ruamel.yaml', 'croniter', 'igor_node.definitions.model'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
