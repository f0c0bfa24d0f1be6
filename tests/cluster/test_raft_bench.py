"""The benchmark of commits runs as its docstring says and leaves no process behind. Its figures are judged by people, not here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


def children_named(script: str, marker: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace") if process.name.isdigit() else ""
            if script in command and marker in (process / "environ").read_bytes().decode(errors="replace"):
                found.append(command)
        except OSError:
            pass  # gone, or not ours
    return found


def run(module: str, marker: str, written: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, "--json", str(written), *options]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "IGOR_TEST_MARKER": marker}, capture_output=True, text=True, timeout=90)


def test_catch_up_prints_a_table_and_writes_json(tmp_path):
    """A small ledger and a short load: a follower that begins empty gets a copy of it and is level."""
    written = tmp_path / "catch_up.json"
    done = run("bench.catch_up", str(tmp_path), written, "--megabytes", "20", "--seconds", "0.5", "--rate", "100")
    report = json.loads(written.read_text())
    assert done.returncode == (0 if report["goals_met"] else 1), done.stderr
    assert report["ledger_bytes"] > 20_000_000 and report["level_after_s"] > 0
    assert 0 < report["meanwhile_p50_ms"] <= report["meanwhile_p99_ms"] <= report["meanwhile_max_ms"]
    assert "p99 ratio" in done.stdout
    assert children_named("raft_node.py", f"IGOR_TEST_MARKER={tmp_path}") == []


def test_commit_prints_a_table_and_writes_json(tmp_path):
    """Short, for its shape alone."""
    written = tmp_path / "deep" / "commit.json"
    marker = f"IGOR_TEST_MARKER={tmp_path}"
    done = run("bench.commit", str(tmp_path), written, "--seconds", "0.3", "--in-flight", "50")
    report = json.loads(written.read_text())
    assert done.returncode == (0 if report["goals_met"] else 1), done.stderr
    assert report["parameters"] == {"seconds": 0.3, "in_flight": 50, "size_bytes": 100, "ledger": False}
    assert report["fdatasync_p50_ms"] > 0 and 0 < report["one_in_flight_p50_ms"] <= report["one_in_flight_p99_ms"]
    assert report["many_in_flight_a_second"] > 0 and report["versions"]["pysyncobj"]
    assert "one in flight p50 ms" in done.stdout
    if shutil.which("etcd"):
        assert report["versions"]["etcd"] and report["etcd_many_in_flight_a_second"] > 0 and report["one_in_flight_p50_to_etcd"] > 0
        assert "many in flight a second to etcd" in done.stdout
        assert children_named("etcd", marker) == []
    assert children_named("raft_node.py", marker) == []


def test_tls_prints_a_table_and_writes_json(tmp_path):
    """And the links of its second half are inside TLS: whoever speaks in clear there is not heard (tests/unit/raft_io/test_links_tls.py)."""
    written = tmp_path / "tls.json"
    done = run("bench.tls", str(tmp_path), written, "--seconds", "0.3", "--rounds", "1", "--in-flight", "50")
    report = json.loads(written.read_text())
    assert done.returncode == (0 if report["goals_met"] else 1), done.stderr
    assert report["one_in_flight_p50_ms_ratio"] > 0 and report["many_in_flight_a_second_with_tls"] > 0
    assert "one in flight p50 ms with tls" in done.stdout
    assert children_named("raft_node.py", f"IGOR_TEST_MARKER={tmp_path}") == []


def test_reconnect_prints_a_table_and_writes_json(tmp_path):
    written = tmp_path / "reconnect.json"
    done = run("bench.reconnect", str(tmp_path), written, "--nodes", "5", "--seconds", "2")
    report = json.loads(written.read_text())
    assert done.returncode == (0 if report["goals_met"] else 1), done.stderr
    assert report["rounds"] >= 1 and report["quiet_p50_ms"] > 0 and report["while_they_come_back_p99_ms"] > 0
    assert "while they come back p99 ms" in done.stdout


@pytest.mark.soak
def test_burst_prints_a_table_and_writes_json(tmp_path):
    written = tmp_path / "burst.json"
    done = run("bench.burst", str(tmp_path), written, "--jobs", "20", "--ahead", "12")
    report = json.loads(written.read_text())
    assert done.returncode == (0 if report["goals_met"] else 1), done.stderr
    assert report["runs"] == report["succeeded"] == report["wrappers_waiting"] == 20
    assert 0 <= report["lateness_p50_s"] <= report["lateness_p99_s"] <= report["lateness_max_s"] and "lateness p99 s" in done.stdout
