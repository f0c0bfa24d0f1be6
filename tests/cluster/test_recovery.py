"""Bad days to their end: the majority is lost for ever and the survivor goes on; the whole cluster is lost and comes back from a backup."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


def runs(cluster: Cluster, job: str, **query: Any) -> list[Any]:
    asked = "".join(f"&{name}={value}" for name, value in query.items())
    return list(cluster.api("GET", f"/v1/runs?job={job}&limit=1000{asked}")["items"])


def beat(cluster: Cluster, witness: Path) -> None:
    """A job of every second that writes each fire down, and a first run of it."""
    schedule = {"every": "1s", "catch_up": {"window": "1h", "policy": "all"}}
    command = f'echo "$IGOR_SCHEDULED_TIME" >> {witness}'
    cluster.push("pay", {"name": "beat", "schedule": schedule, "command": command, "overlap": "allow", "lease": "5s"})
    wait_for(lambda: len(runs(cluster, "beat", state="succeeded")) >= 3, 30, "some runs")


def audit(cluster: Cluster, job: str, first: str, last: str) -> Any:
    done = cluster.igor("audit", "--job", job, "--from", first, "--to", last, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def check_accounted(cluster: Cluster, witness: Path, first: str, before: list[str]) -> None:
    """One run a fire, and each is made or made up for; what had ended before the bad day was not run again by it."""
    last = runs(cluster, "beat", state="succeeded")[0]["scheduled_time"]
    figures = audit(cluster, "beat", first, last)
    assert (figures["doubled"], figures["unaccounted"], figures["missed"], figures["skipped"]) == (0, 0, 0, 0)
    seen = witness.read_text().split()
    times = [cluster.run(run)["scheduled_time"] for run in before]
    assert times and [seen.count(moment) for moment in times] == [1] * len(times)


def ends_with(node: Node, code: int, *words: str) -> None:
    assert node.process is not None and node.process.wait(20) == code, node.tail()
    assert all(word in node.tail(3) for word in words) and "Traceback" not in node.tail(3)


def rejoin(node: Node, founder: Node, *more: str) -> None:
    token = str(founder.folder / "join.token")
    node.start(arguments=["join", founder.address, "--token-file", token, "--data-dir", str(node.folder), *more], wait=False)


def test_the_majority_is_lost_for_ever(tmp_path: Path) -> None:
    """The survivor is recovered, leads alone, and has all it acknowledged; the others are refused until they rejoin empty, under their old names."""
    witness = tmp_path / "witness"
    with Cluster(3) as cluster:
        beat(cluster, witness)
        first = min(run["scheduled_time"] for run in runs(cluster, "beat"))
        cluster.push("kept", {"name": "kept", "command": "true"})
        kept = cluster.api("POST", "/v1/jobs/kept/runs", {"params": {}})["id"]
        survivor = next(node for node in cluster.nodes if node is not cluster.leader())
        wait_for(lambda: survivor.request("GET", f"/v1/runs/{kept}")[0] == 200, 10, "the survivor to know the run")
        ended = [run["id"] for run in survivor.request("GET", "/v1/runs?job=beat&state=succeeded")[2]["items"]]
        others = [node for node in cluster.nodes if node is not survivor]
        refused = survivor.program("recover", "--data-dir", str(survivor.folder))
        assert refused.returncode == 3 and "in use" in refused.stderr
        for node in others:
            node.end_machine()
        survivor.kill()
        looked = survivor.program("recover", "--data-dir", str(survivor.folder), "--dry-run")
        assert looked.returncode == 0 and all(node.name in looked.stdout for node in others) and "epoch 0" in looked.stdout
        for _ in range(2):  # the second finds nothing to do
            recovered = survivor.program("recover", "--data-dir", str(survivor.folder))
            assert recovered.returncode == 0 and "only voter, in epoch 1" in recovered.stdout, recovered.stderr
        survivor.start()
        cluster.nodes = [survivor, *others]  # its tokens are used from now on: the founder's may be lost
        assert cluster.status()["voters"] == [survivor.name]
        assert cluster.run(kept)["id"] == kept
        before = len(runs(cluster, "beat", state="succeeded"))
        wait_for(lambda: len(runs(cluster, "beat", state="succeeded")) > before + 2, 30, "runs to go on")
        others[0].start(wait=False)
        ends_with(others[0], 4, "this cluster was recovered: epoch 1", "join --reset")
        rejoin(others[1], survivor)
        ends_with(others[1], 4, "this cluster was recovered: epoch 1", "join --reset")
        for node in others:
            rejoin(node, survivor, "--reset", "--name", node.name, "--listen", "127.0.0.1:0")
        for node in others:
            node.wait_up()
        wait_for(lambda: set(cluster.status()["voters"]) == {"n1", "n2", "n3"}, 30, "three voters again")
        assert cluster.igor("verify").returncode == 0
        check_accounted(cluster, witness, first, ended)


def test_from_a_backup(tmp_path: Path) -> None:
    """Taken while jobs run, from a follower; restored in an empty folder: same jobs, same runs, and the schedule goes on where the backup ends."""
    witness, file, again = tmp_path / "witness", tmp_path / "igor.backup", tmp_path / "restored"
    with Cluster(3) as cluster:
        beat(cluster, witness)
        first = min(run["scheduled_time"] for run in runs(cluster, "beat"))
        before = {run["id"]: run["state"] for run in runs(cluster, "beat", state="succeeded")}
        taken = cluster.igor("backup", str(file))
        assert taken.returncode == 0 and f"from {cluster.leader().name}" not in taken.stderr, taken.stderr
        assert not list(tmp_path.glob("*.part"))
        secrets = [(node.folder / name).read_text().strip() for node in cluster.nodes for name in ("cluster.key", "node.token")]
        assert not [secret for secret in [*secrets, cluster.token] if secret.split(".")[-1].encode() in file.read_bytes()]
        wait_for(lambda: len(runs(cluster, "beat", state="succeeded")) > len(before) + 2, 30, "runs after the backup")
        later = {run["scheduled_time"] for run in runs(cluster, "beat", state="succeeded")}
        admin = cluster.token
        for node in cluster.nodes:
            node.end_machine()
        check_refusals(cluster, file, tmp_path)
        node = Node(cluster, "n1")
        node.folder = again
        restored = cluster.igor("restore", str(file), "--data-dir", str(again), "--name", "n1")
        assert restored.returncode == 0 and "only voter, in epoch 1" in restored.stdout, restored.stderr
        cluster.nodes[0] = node
        node.start(arguments=["start", "--data-dir", str(again), "--listen", "127.0.0.1:0"])
        assert cluster.status()["voters"] == ["n1"] and cluster.token != admin
        assert node.request("GET", "/v1/whoami", token=admin)[2]["role"] == "admin"
        found = {run["id"]: run["state"] for run in runs(cluster, "beat")}
        assert found.items() >= before.items()
        wait_for(
            lambda: later <= {run["scheduled_time"] for run in runs(cluster, "beat", state="succeeded")}, 30, "fires after the backup to be caught up"
        )
        check_accounted(cluster, witness, first, sorted(before))
        cluster.nodes[1].folder = tmp_path / "fresh"
        rejoin(cluster.nodes[1], node, "--name", "n2", "--listen", "127.0.0.1:0")
        cluster.nodes[1].wait_up()
        wait_for(lambda: {n["name"]: n["role"] for n in cluster.status()["nodes"]}.get("n2") == "learner", 20, "an empty node to join")


def check_refusals(cluster: Cluster, file: Path, tmp_path: Path) -> None:
    """One line, which names the file or the folder, and nothing is changed."""
    data = file.read_bytes()
    bad = {"cut": data[:-100], "flipped": data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "foreign": b"SQLite format 3\0" * 100}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        check_refused(cluster.igor("restore", str(tmp_path / name), "--data-dir", str(tmp_path / "d")), 1, str(tmp_path / name))
        assert not (tmp_path / "d").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter").write_text("dear")
    check_refused(cluster.igor("restore", str(file), "--data-dir", str(tmp_path / "used")), 3, "letter")
    assert (tmp_path / "used" / "letter").read_text() == "dear"


def check_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words)


def test_verify_shows_who_is_down() -> None:
    """All the same: 0. One down: 7, with its name. And `status` says how long it was not heard."""
    with Cluster(3) as cluster:
        assert cluster.igor("verify").returncode == 0
        gone = next(node for node in cluster.nodes if node is not cluster.leader())
        gone.kill()
        done = cluster.igor("verify")
        assert done.returncode == 7 and f"{gone.name} was not reached" in done.stderr
        wait_for(lambda: said_unheard(cluster, gone.name), 20, "the status to say so")


def said_unheard(cluster: Cluster, name: str) -> bool:
    out = cluster.igor("status").stdout
    return f"{name} (up, last heard " in out or f"{name} (silent" in out
