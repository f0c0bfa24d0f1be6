"""One report holds everything that is wrong: a fault hides none beside it, none inside of it, and none between files."""

import time

import pytest

from igor_node.definitions.load import check_objects, load_folder
from igor_node.words import Invalid, parse_instant

NOW = parse_instant("2026-11-24T10:00:00Z")
HEAD = "apiVersion: igor/v1\nkind: Job\nname: a\n"  # three lines


@pytest.fixture
def report(tmp_path):
    """The faults of a folder of these files, without the words after the first `;`."""
    place = tmp_path / "shop"
    place.mkdir()

    def faults(**files):
        for name, text in files.items():
            (place / f"{name}.yaml").write_text(text)
        with pytest.raises(Invalid) as caught:
            load_folder(place, NOW)
        return [fault.split(";")[0] for fault in caught.value.faults]

    return faults


def test_a_misspelt_name_counts_as_the_name(report):
    """`nmae` is one fault, not two, and the zone, the double key, the circle and the double name are there too."""
    text = "apiVersion: igor/v1\nkind: Job\nnmae: a\nschedule: {cron: '0 2 * * *', timezone: Europe/Berln}\ntimeout: 5m\ntimeout: 6m\n"
    text += "stages:\n  - {name: x, command: c, needs: [y]}\n  - {name: y, command: c, needs: [x]}\n"
    assert report(a=text, b=HEAD + "command: x\n") == [
        'a.yaml:3: nmae: "nmae" is not a field here',
        'a.yaml:4: schedule.timezone: "Europe/Berln" is not a time zone',
        "a.yaml:6: timeout: the key stands twice, first in line 5",
        "a.yaml:8: stages[0].needs: stages need each other in a circle: x -> y -> x",
        'b.yaml:3: name: the Job "a" is defined already in a.yaml:3',
    ]


def test_what_stands_in_a_misspelt_field_is_judged_at_its_own_line(report):
    text = HEAD + "command: x\nshedule:\n  crn: 0 25 * * *\n  timezone: nowhere\nretrys:\n  max: many\n"
    assert report(a=text) == [
        'a.yaml:5: shedule: "shedule" is not a field here',
        'a.yaml:6: shedule.crn: "crn" is not a field here',
        'a.yaml:6: shedule.crn: hour: 25 in "25" is out of range',
        'a.yaml:7: shedule.timezone: "nowhere" is not a time zone',
        'a.yaml:8: retrys: "retrys" is not a field here',
        'a.yaml:9: retrys.max: "many" is not allowed',
    ]


def test_a_schedule_s_field_beside_schedule_is_judged_too(report):
    assert report(a=HEAD + "command: x\ncron: 0 25 * * *\ntimezone: Europe/Berln\n") == [
        'a.yaml:5: cron: "cron" is not a field here',
        'a.yaml:5: cron: hour: 25 in "25" is out of range',
        'a.yaml:6: timezone: "timezone" is not a field here',
        'a.yaml:6: timezone: "Europe/Berln" is not a time zone',
    ]


@pytest.mark.parametrize("kind", ["kind: job", "kind: Jbo", "kind: Task", "kidn: Job"])
def test_an_unknown_kind_hides_nothing(report, kind):
    """What it looks like is what it is judged as."""
    found = report(a=f"apiVersion: igor/v2\n{kind}\nname: a\ncommand: x\ntimeout: 30\n")
    assert [fault.split(": ")[:2] for fault in found] == [["a.yaml:1", "apiVersion"], ["a.yaml:2", kind.split(":")[0]], ["a.yaml:5", "timeout"]]


def test_stages_with_faults_are_no_reason_for_others(report):
    """A stage whose name cannot be read may be the one that another needs."""
    text = (
        HEAD + "stages:\n  - {nmae: x, command: c}\n  - {name: y z, command: c}\n  - 5\n  - {name: w, command: c, needs: [x, y z, v], timeout: 1}\n"
    )
    assert report(a=text) == [
        'a.yaml:5: stages[0].nmae: "nmae" is not a field here',
        'a.yaml:6: stages[1].name: "y z" is not a name',
        "a.yaml:7: stages[2]: 5 is not a mapping",
        "a.yaml:8: stages[3].timeout: 1 is not a duration",
        'a.yaml:8: stages[3].needs[1]: "y z" is not a name',
    ]


def test_values_of_a_param_that_is_wrong_are_not_unknown(report):
    text = HEAD + "command: echo ${{ params.day }} ${{ params.n }}\nparams:\n  day: {type: dat}\n  n: 5\nschedule: {every: 5m}\n"
    assert report(a=text) == [
        'a.yaml:6: params.day.type: "dat" is not known',
        "a.yaml:7: params.n: 5 is not a mapping",
    ]


def test_a_broken_file_hides_neither_its_first_documents_nor_other_files(report):
    """And what it may have defined is not missed elsewhere."""
    broken = HEAD + "command: x\nschedule: {every: 5}\n---\nkind: Calendar\nname: [\n"
    other = HEAD + "command: x\nschedule: {every: 5m, calendar: {exclude: [xmas]}}\nowner: 5\n"
    assert [fault.split(": ")[:2] for fault in report(a=broken, b=other)] == [
        ["a.yaml:5", "schedule.every"],
        ["a.yaml:8", "document"],
        ["b.yaml:3", "name"],
        ["b.yaml:6", "owner"],
    ]


def test_the_second_of_a_double_key_does_not_move_the_lines_of_the_first(report):
    text = HEAD + "command: x\nschedule:\n  cron: 0 25 * * *\n  timezone: nowhere\nschedule:\n  timezone: UTC\n  cron: '@daily'\n"
    assert report(a=text) == [
        'a.yaml:6: schedule.cron: hour: 25 in "25" is out of range',
        'a.yaml:7: schedule.timezone: "nowhere" is not a time zone',
        "a.yaml:8: schedule: the key stands twice, first in line 5",
    ]


def test_a_fault_in_the_defaults_is_told_there_and_once(report):
    """Whatever else is wrong with the project: its other defaults hold."""
    project = "apiVersion: igor/v1\nkind: Project\nname: shop\ndefaults:\n  timout: 5\n  schedule:\n    timezone: Asia/Tokio\n"
    one, two = (f"apiVersion: igor/v1\nkind: Job\nname: {name}\ncommand: x\nschedule: {{at: 2027-01-01T00:00:00}}\n" for name in "ab")
    assert report(project=project, a=one, b=two) == [
        'project.yaml:5: defaults.timout: "timout" is not a field here',
        "project.yaml:5: defaults.timout: 5 is not a duration",
        'project.yaml:7: defaults.schedule.timezone: "Asia/Tokio" is not a time zone',
    ]


def test_a_calendar_with_a_fault_is_still_known(report):
    text = HEAD + "command: x\nschedule: {every: 5m, calendar: {exclude: [xmas]}}\n---\napiVersion: igor/v1\nkind: Calendar\nname: xmas\ndays: 5\n"
    assert report(a=text) == ["a.yaml:10: days: 5 is not a list"]


def test_source_is_one_fault_of_several(report):
    assert report(a=HEAD + "source: x\ncommand: x\ntimeout: 30\n") == [
        'a.yaml:4: source: "source" is not a field here',
        "a.yaml:6: timeout: 30 is not a duration",
    ]


def test_a_schedule_with_a_fault_still_gives_no_values(report):
    text = HEAD + "command: x\nparams: {day: {type: date}}\nschedule: {cron: 0 25 * * *}\n"
    assert [fault.split(": ")[:2] for fault in report(a=text)] == [["a.yaml:5", "params.day"], ["a.yaml:6", "schedule.cron"]]


def test_an_alias_that_stands_for_nothing_hides_nothing(report):
    """The rest of the document is read on."""
    text = HEAD + "command: x\nenv: *e\nlinks: &l {a: *l, b: 5}\ntags: [*t, 5]\nstages: *s\n---\n" + HEAD + "command: x\ntimeout: 5\n"
    assert [fault.split(": ")[:2] for fault in report(a=text)] == [
        ["a.yaml:5", "env"],
        ["a.yaml:6", "links.a"],
        ["a.yaml:6", "links.b"],
        ["a.yaml:7", "tags[0]"],
        ["a.yaml:7", "tags[0]"],
        ["a.yaml:8", "stages"],
        ["a.yaml:12", "name"],
        ["a.yaml:14", "timeout"],
    ]


def test_what_is_no_file_is_not_passed_over(report, tmp_path):
    """Else a link that leads nowhere would remove jobs."""
    (tmp_path / "shop" / "b.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "shop" / "c.yml").mkdir()
    assert report(a=HEAD + "command: x\ntimeout: 5\n") == [
        "a.yaml:5: timeout: 5 is not a duration",
        "b.yaml:1: document: is not a file",
        "c.yml:1: document: is not a file",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {f"x{number}": 1 for number in range(20_000)},
        {"env": {f"A{number}": 1.5 for number in range(20_000)}},
        {"stages": [{"name": f"s{number}", "command": "x", "needs": [f"t{need}" for need in range(900)]} for number in range(1_000)]},
        {"stages": [{"name": f"s{number}", "command": "x", "needs": [f"s{need}" for need in range(1_000)]} for number in range(1_000)]},
    ],
)
def test_a_push_with_thousands_of_faults_is_answered_soon(fields):
    """A node judges what anybody with a token sends; what takes longer for each further fault would stop it for minutes."""
    began = time.process_time()
    with pytest.raises(Invalid):
        check_objects("p", [{"apiVersion": "igor/v1", "kind": "Job", "name": "a", **fields}], NOW)
    assert time.process_time() - began < 10
