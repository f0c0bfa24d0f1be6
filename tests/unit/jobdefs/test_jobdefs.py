"""The jobs of `jobdefs/`: valid, in four languages, often enough for a demo, and each command really runs in a bare shell."""

import re
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from igor_node.definitions.load import load_folder
from igor_node.definitions.schedule import fires
from igor_node.definitions.values import check_params, render_stage, run_values
from igor_node.words import SECOND, Instant, parse_instant

FOLDER = Path(__file__).resolve().parents[3] / "jobdefs"
AT = parse_instant("2026-11-24T10:00:00Z")
JOBS = {job.name: job for job in load_folder(FOLDER, AT).jobs}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHORT = {"OVERSHOOT_S": "1"}  # the job that takes 34 seconds

pytestmark = pytest.mark.skipif(not Path("/var/lib/dpkg/status").exists(), reason="these jobs ask the dpkg database")


@pytest.fixture
def place(tmp_path):
    """`data` is where jobs keep their things, `scratch` where they run."""
    (tmp_path / "scratch").mkdir()
    return tmp_path


def command_of(job, stage, params=None):
    values = run_values(job, run="run1", scheduled_at=AT, created_at=AT, given=check_params(job, params or {}))
    command, env = render_stage(stage, values, job.shell)
    return ([job.shell, "-c", command] if isinstance(command, str) else list(command)), env


def run(place, name, stage=None, params=None, **more):
    """Runs the stages of a job one after the other (or one of them), as a wrapper would with an empty environment."""
    job, done = JOBS[name], None
    for each in job.stages:
        if stage is None or each.name == stage:
            argv, env = command_of(job, each, params)
            env = {"PATH": PATH, **env, **SHORT, "DEMO_DATA": str(place / "data"), **more}
            done = subprocess.run(argv, env=env, cwd=place / "scratch", capture_output=True, text=True, timeout=60)
            if done.returncode:
                return done
    return done


@pytest.mark.parametrize("name", JOBS)
def test_each_command_runs_in_a_bare_shell(place, name):
    """On an empty folder, and again: exit code 0, something said, nothing left outside of its folder."""
    for _ in range(2):
        done = run(place, name)
        assert done.returncode in JOBS[name].stages[0].success_codes, done.stderr
        assert done.returncode == 0 or name == "disk-usage"
    assert {each.name for each in place.iterdir()} <= {"data", "scratch"}


def test_without_a_setting_the_data_is_in_a_folder_of_the_user(place):
    """`$TMPDIR/igor-demo-UID`, readable by nobody else."""
    for name in JOBS:
        for stage in JOBS[name].stages:
            argv, env = command_of(JOBS[name], stage)
            env = {"PATH": PATH, "TMPDIR": str(place), **env, **SHORT}
            subprocess.run(argv, env=env, cwd=place / "scratch", capture_output=True, timeout=60)
    (made,) = [each for each in place.iterdir() if each.name != "scratch"]
    assert made.name.startswith("igor-demo-")
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [name for name in JOBS if name != "overshoots"])
def test_three_nodes_of_one_machine_at_once(place, name):
    """The same job three times at the same moment, as after a rerun: all succeed."""
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda number: run(place, name, IGOR_RUN=f"run{number}"), range(3)))
    assert [each.returncode for each in done if each.returncode not in JOBS[name].stages[0].success_codes] == [], [each.stderr for each in done]


def test_four_languages_of_a_bare_debian():
    text = "".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    for program in (r"^  - python3$", r"^  - perl$", r"^  - awk$", r"^ *command: (&\w+ )?\|$"):
        assert re.search(program, text, re.MULTILINE), program


def test_a_minute_has_enough_fires():
    """`make demo-check` wants 40 fires of 8 jobs in a minute; one node less may not change that."""
    per_job = {name: len(fires(job, AT, Instant(AT + 60 * SECOND), 1_000)) for name, job in JOBS.items()}
    assert sum(per_job.values()) >= 80
    assert sum(count > 0 for count in per_job.values()) >= 9
    assert [name for name, job in JOBS.items() if not job.schedules] == ["package-search", "config-changes"]


def test_every_job_is_bounded_and_says_what_it_does():
    for job in JOBS.values():
        assert job.description
        assert all(stage.timeout_ns for stage in job.stages)


def test_a_sample_is_written_once_for_its_scheduled_time(place):
    """A rerun of the same fire changes nothing; the rollup counts it once."""
    for second in ("00", "02", "02"):
        assert run(place, "metrics-sample", IGOR_SCHEDULED_TIME=f"2099-11-24T10:00:{second}Z").returncode == 0
    assert run(place, "metrics-rollup").returncode == 0
    with sqlite3.connect(place / "data" / "metrics.db") as database:
        assert database.execute("SELECT count(*) FROM samples").fetchone() == (2,)
        assert database.execute("SELECT minute, samples FROM minutes").fetchall() == [("2099-11-24T10:00", 2)]


def test_a_backup_that_was_changed_is_found_out(place):
    """One byte is enough."""
    assert run(place, "backup").returncode == 0
    (backup,) = (place / "data" / "backups").glob("backup-*.tar.gz")
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 1
    backup.write_bytes(data)
    assert run(place, "backup", stage="verify").returncode != 0


def test_the_clean_up_keeps_the_newest(place):
    for minute in range(8):
        assert run(place, "backup", stage="pack", IGOR_SCHEDULED_TIME=f"2026-11-24T10:0{minute}:00Z").returncode == 0
    assert run(place, "backup-cleanup", params={"keep": 3}).returncode == 0
    kept = sorted(each.name for each in (place / "data" / "backups").iterdir() if not each.name.startswith("."))
    assert kept == [f"backup-20261124T100{minute}00Z.tar.gz{kind}" for minute in (5, 6, 7) for kind in ("", ".sha256")]


def test_the_flaky_job_fails_on_some_first_tries_only(place):
    """A third of the runs, and with the code that its retries name."""
    codes = [run(place, "flaky", IGOR_RUN=f"run{number}", IGOR_TRY="1").returncode for number in range(30)]
    assert set(codes) == {0, 75}
    assert 4 <= codes.count(75) <= 16
    assert {run(place, "flaky", IGOR_RUN=f"run{number}", IGOR_TRY="2").returncode for number in range(6)} == {0}
    assert 75 in JOBS["flaky"].stages[0].retries.on


def test_the_job_that_overshoots_its_interval():
    """34 seconds every 30, queued."""
    job = JOBS["overshoots"]
    assert (job.schedules[0].every_ns, job.overlap, job.stages[0].env["OVERSHOOT_S"]) == (30 * SECOND, "queue", "34")


def test_a_search_with_params(place):
    """Values arrive as they are."""
    done = run(place, "package-search", params={"pattern": "dpkg*", "limit": "3", "smallest_mb": 0, "with_description": False, "section": "admin"})
    assert "match dpkg* in section admin" in done.stdout
    assert "MiB  dpkg " in done.stdout
    done = run(place, "config-changes", params={"folder": "/var/lib/dpkg", "name": "stat*", "depth": 1})
    assert "/var/lib/dpkg/status\n" in done.stdout
