"""`docs/jobs.md` is true: it names every field, its examples are valid, and what it shows as a fault is what a person sees."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from igor_node.definitions import jobs, model
from igor_node.definitions.load import load_folder
from igor_node.words import Invalid, format_span, parse_instant

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "jobs.md").read_text()
NOW = parse_instant("2026-11-24T10:00:00Z")
WORDS = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"```.*?```|`[^`]+`", TEXT, re.DOTALL))))
MODELS = [each for each in vars(model).values() if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__ == model.__name__]
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("fields", [pytest.param(each.model_fields, id=each.__name__) for each in MODELS if each.model_fields])
def test_every_field_is_told(fields):
    """As code, not as a word of a sentence."""
    assert not {name for name in fields if name not in WORDS}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_are_valid(tmp_path, number):
    """Those that are whole documents as they stand, the others as a part of a job."""
    text = BLOCKS[number]
    whole = text if "kind:" in text else "apiVersion: igor/v1\nkind: Job\nname: a\n" + ("" if "stages:" in text else "command: x\n") + text
    project = "kind: Project" in whole
    (tmp_path / ("project.yaml" if project else "a.yaml")).write_text(whole)
    assert bool(load_folder(tmp_path, NOW).jobs) != project


def test_the_fault_is_what_a_person_sees(tmp_path):
    """The example's line, made again."""
    (line,) = re.findall(r"^[\w.]+\.yaml:\d+: .*$", TEXT, re.MULTILINE)
    name, number = re.match(r"([\w.]+):(\d+)", line).groups()
    head = "apiVersion: igor/v1\nkind: Job\nname: report\ncommand: x\nschedule:\n  cron: '@daily'\n".splitlines()
    assert len(head) + 1 == int(number)
    (tmp_path / name).write_text("\n".join([*head, "  timezone: Europe/Berln"]) + "\n")
    with pytest.raises(Invalid) as caught:
        load_folder(tmp_path, NOW)
    assert caught.value.faults == (line,)


def test_the_defaults_are_those_of_a_job(tmp_path):
    """Each default of the table."""
    told = {}
    for row in re.findall(r"^\| (`.*?) \| .* \| (.*) \|$", TEXT, re.MULTILINE):
        names = re.findall(r"`(\w+)`", row[0])
        told |= dict(zip(names, re.sub("`", "", row[1]).split(", "), strict=False))
    (tmp_path / "a.yaml").write_text("apiVersion: igor/v1\nkind: Job\nname: a\ncommand: x\n")
    (job,) = load_folder(tmp_path, NOW).jobs
    stage = job.stages[0]
    assert (told["overlap"], told["max_queued"], told["max_parallel"]) == (job.overlap, str(job.max_queued), str(job.max_parallel))
    assert (told["grace"], told["slots"], told["priority"]) == (format_span(stage.grace_ns), str(stage.slots), str(job.priority))
    assert (told["lease"], told["on_node_loss"], told["max_attempts"]) == (format_span(job.lease_ns), stage.on_node_loss, str(job.max_attempts))
    assert (told["on_push"], told["shell"], told["success_codes"]) == (job.on_push, job.shell, str([*stage.success_codes]))
    assert (told["log_limit"], job.log_limit_bytes) == ("100MiB", 100 << 20)
    assert told["window"] == format_span(jobs.CatchUp().window_ns)
