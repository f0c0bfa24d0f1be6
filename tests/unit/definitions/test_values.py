"""Values in commands: one quoted word wherever a shell can be told so, a refusal where it cannot; params and their text."""

import subprocess

import pytest

from igor_node.definitions.jobs import Job, Param, Schedule, Stage
from igor_node.definitions.quoting import Unquotable
from igor_node.definitions.values import RunValues, check_params, path_faults, render_command, render_env, run_values
from igor_node.words import Invalid, parse_instant

NASTY = [
    "",
    "plain",
    "two words",
    "it's",
    '"',
    "$(echo pwned)",
    "`echo pwned`",
    "a\nb",
    "\\",
    "\\'",
    "*",
    "~",
    "-n",
    "# no",
    "$HOME",
    "; exit 7",
    "é ☃",
    "'\"'",
]
AT = parse_instant("2026-11-24T02:00:00Z")


def values(text: str) -> RunValues:
    return RunValues({"x": text}, {"params.x": text})


def spoken(command: str, text: str, shell: str = "/bin/sh") -> str:
    rendered = render_command(command, values(text), shell)
    assert isinstance(rendered, str)
    return subprocess.run([shell, "-c", rendered], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize(
    "command, before, behind",
    [
        ("printf '[%s]' ${{ params.x }}", "[", "]"),
        ("printf '[%s]' --day=${{params.x}}.csv", "[--day=", ".csv]"),
        ("printf '[%s]' \"day ${{ params.x }}!\"", "[day ", "!]"),
        ("printf '[%s]' 'day ${{ params.x }}!'", "[day ", "!]"),
        ("printf '[%s]' \"$(printf %s. ${{ params.x }})\"", "[", ".]"),
        ("printf '[%s]' \"$(printf '%s.' \"${{ params.x }}\")\"", "[", ".]"),
        ("# don't\nprintf '[%s]' ${{ params.x }} # isn't", "[", "]"),
        ("cat <<'END' >/dev/null\nit's $( \nEND\nprintf '[%s]' ${{ params.x }}", "[", "]"),
        ("cat <<-END >/dev/null\n\tit's\n\tEND\nprintf '[%s]' ${{ params.x }}", "[", "]"),
        ('A="${B:-c}"; case $A in c) printf "[%s]" ${{ params.x }};; esac', "[", "]"),
        ('A=$((1 + (2 << 3))); test $A = 17; printf "[%s]" "\\"${{ params.x }}"', '["', "]"),
        ("A=`echo \"it's\"`; printf '[%s]' ${{ params.x }}", "[", "]"),
        ("echo it\\'s >/dev/null; (printf '[%s]' ${{ params.x }})", "[", "]"),
    ],
)
def test_a_value_is_one_word(command, before, behind, text, shell):
    """Whatever it holds, the shell sees it as it is."""
    assert spoken(command, text, shell) == f"{before}{text}{behind}"


@pytest.mark.parametrize(
    "command, hint",
    [
        ("cat <<END\n${{ params.x }}\nEND", "here-document"),
        ("echo `date -d ${{ params.x }}`", "backquotes"),
        ("echo ${A:-${{ params.x }}}", r"\$\{ … \}"),
        ("echo $((1 + ${{ params.x }}))", r"\$\(\( … \)\)"),
        ("echo \\${{ params.x }}", "backslash"),
        ("echo $'a' ${{ params.x }}", "from shell to shell"),
        ('echo "$(case a in a) echo b;; esac)" ${{ params.x }}', "case within"),
        ("echo \"${A:-'b'}\" ${{ params.x }}", "within double quotes"),
        ("cat <<END\nnever ends ${{ params.x }}", "here-document"),
        ("cat <<$A\n$A\n${{ params.x }}", "here-document"),
        ("((a << 2)); echo ${{ params.x }}", "unclear"),
    ],
)
def test_where_no_value_can_be_put_in(command, hint):
    """The refusal says what to write instead."""
    with pytest.raises(Unquotable, match=hint):
        render_command(command, values("v"))


def test_another_shell_than_posix_takes_no_values():
    with pytest.raises(Unquotable, match="only POSIX shells"):
        render_command("print(${{ params.x }})", values("v"), "/usr/bin/python3")
    assert render_command("print(1)", values("v"), "/usr/bin/python3") == "print(1)"


def test_a_comment_stays_as_it_is():
    """A value with a line break would end it."""
    assert render_command("true # ${{ params.x }}", values("a\nexit 7")) == "true # ${{ params.x }}"


def test_lists_and_environments_take_values_as_they_are():
    assert render_command(("a", "--x=${{ params.x }}"), values("two words")) == ("a", "--x=two words")
    assert render_env({"A": "<${{ params.x }}>"}, values("it's")) == {"A": "<it's>"}


def test_a_value_is_never_read_for_placeholders():
    """What a person gives is text, also where it looks like a path."""
    assert render_command(("${{ params.x }}",), values("${{ params.x }}")) == ("${{ params.x }}",)


JOB = Job(
    project="shop",
    name="report",
    schedules=(Schedule(cron="30 0 * * *", timezone="Europe/Berlin"),),
    stages=(Stage(name="main", command="true"),),
    params={
        "day": Param(type="date", default="${{ scheduled_date }}"),
        "count": Param(type="integer", default=3, min=1, max=10),
        "mode": Param(choices=("fast", "full"), default="fast"),
        "dry": Param(type="boolean", default=False),
        "ratio": Param(type="number", default=0.5),
        "code": Param(pattern="[A-Z]{3}", default="ABC"),
        "who": Param(required=True),
    },
)


def test_params_become_text_and_defaults_are_filled_in():
    """A default that depends on the run is left for the run."""
    assert check_params(JOB, {"who": "me", "count": "7", "dry": True}) == {
        "count": "7",
        "mode": "fast",
        "dry": "true",
        "ratio": "0.5",
        "code": "ABC",
        "who": "me",
    }


def test_all_faults_of_params_at_once():
    given = {"day": "2026-02-30", "count": 11, "mode": "fats", "dry": "yes", "ratio": "nan", "code": "abc", "wo": 1}
    with pytest.raises(Invalid) as caught:
        check_params(JOB, given)
    assert caught.value.faults == (
        'params.wo: job shop/report has no such param; did you mean "who"?',
        'params.day: "2026-02-30" is not a date like 2026-11-24; expected a date like 2026-11-24',
        "params.count: 11 is out of range; expected a whole number from 1 to 10",
        'params.mode: "fats" is none of the choices; expected one of fast, full',
        'params.dry: "yes" is not true or false; expected true or false',
        'params.ratio: "nan" is not a number; expected a number',
        'params.code: "abc" does not match its pattern; expected a text like [A-Z]{3}',
        "params.who: is missing; expected a text",
    )


@pytest.mark.parametrize("value", [None, 1.5, [], {}, "a\0b"])
def test_a_text_is_a_text(value):
    with pytest.raises(Invalid, match="not valid"):
        check_params(JOB, {"who": value})


def test_params_are_bounded():
    with pytest.raises(Invalid) as caught:
        check_params(JOB, {"who": "x" * 70_000})
    assert "larger than 65536 bytes" in caught.value.faults[0]


def test_values_of_a_scheduled_run_have_the_date_of_the_schedule_s_zone():
    """23:30 UTC is the next day in Berlin."""
    at = parse_instant("2026-11-24T23:30:00Z")
    found = run_values(JOB, run="r1", scheduled_at=at, created_at=at, given={"who": "me", "code": "${{ run }}"})
    assert found.params["day"] == "2026-11-25"
    assert found.params["code"] == "${{ run }}"
    assert found.by_path["params.day"] == "2026-11-25"
    assert found.by_path["scheduled_time"] == "2026-11-24T23:30:00Z"
    assert (found.by_path["job"], found.by_path["project"], found.by_path["run"]) == ("report", "shop", "r1")


def test_values_of_a_run_on_demand_are_those_of_its_creation():
    found = run_values(JOB, run="r1", scheduled_at=None, created_at=AT, given={"who": "me"})
    assert found.by_path["scheduled_time"] == "2026-11-24T02:00:00Z"
    assert found.params["day"] == "2026-11-24"


def test_a_run_without_a_required_param_is_an_error_of_its_own():
    """A push may add a param while a run waits."""
    with pytest.raises(Invalid, match="has no value for the param who"):
        run_values(JOB, run="r1", scheduled_at=None, created_at=AT, given={})


@pytest.mark.parametrize(
    "text, fault",
    [
        ("${{ params.dya }}", 'did you mean "params.day"'),
        ("${{ secrets.x }}", "is not a value; expected one of"),
        ("${{ stages.a.b }}", "not supported by this version yet"),
        ("${{ params.day", "is not closed"),
        ("${{ params.day | upper }}", "is not a value"),
        ("${{ a.b }} ${{ {} }}", "more than a path"),
        ("${{}}", "is not a value"),
    ],
)
def test_faults_of_paths(text, fault):
    """What `validate` says."""
    assert any(fault in each for each in path_faults(text, ("params.day", "run")))


def test_paths_that_are_right():
    assert path_faults("${{ params.day }}-${{run}} ${HOME} $${A}", ("params.day", "run")) == []
