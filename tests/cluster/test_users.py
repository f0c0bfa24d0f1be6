"""Commands as another user: whom the node's owner allows, with that user's groups and environment, and nobody else."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("needs root: to run commands as other users")
    folder: Path = tmp_path_factory.mktemp("users")
    (folder / "n1").mkdir()
    (folder / "n1" / "node.toml").write_text('users = ["nobody"]\n')
    with Cluster(1, folder=folder) as started:
        yield started


def output(cluster: Cluster, name: str, command: str, **more: object) -> tuple[str, list[str]]:
    cluster.push(name, {"name": name, "command": command, **more})
    run = cluster.api("POST", f"/v1/jobs/{name}/runs", {})["id"]
    ended = cluster.wait_run(run)
    return ended["state"], cluster.igor("logs", run).stdout.splitlines()


def test_a_command_is_that_user_and_cannot_come_back(cluster: Cluster) -> None:
    """Real, effective and saved ids; groups; environment; the scratch folder is its own, the node's keys are not."""
    keys = cluster.nodes[0].folder / "cluster.key"
    command = (
        "id -u; id -ru; id -g; id -G; echo $HOME $USER $LOGNAME; umask; touch here && stat -c %u here; "
        f"cat {keys} 2>/dev/null && echo read; grep -E '^(Uid|Gid)' /proc/self/status | tr -s '\\t' ' '"
    )
    state, lines = output(cluster, "other", command, user="nobody", umask="027")
    user = pwd.getpwnam("nobody")
    groups = " ".join(map(str, os.getgrouplist("nobody", user.pw_gid)))
    uid, gid = str(user.pw_uid), str(user.pw_gid)
    assert state == "succeeded", lines
    assert lines[:5] == [uid, uid, gid, groups, f"{user.pw_dir} nobody nobody"]
    assert lines[5:7] == ["0027", uid]
    assert lines[7:] == [f"Uid: {uid} {uid} {uid} {uid}", f"Gid: {gid} {gid} {gid} {gid}"]


def test_without_a_user_it_is_the_nodes_own(cluster: Cluster) -> None:
    assert output(cluster, "own", "id -u") == ("succeeded", ["0"])


def test_a_user_whom_no_node_allows_waits_and_says_so(cluster: Cluster) -> None:
    other = next(user.pw_name for user in pwd.getpwall() if user.pw_name not in ("root", "nobody"))
    cluster.push("denied", {"name": "denied", "command": "id -u", "user": other})
    run = cluster.api("POST", "/v1/jobs/denied/runs", {})["id"]
    wait_for(lambda: f"user:{other}" in str(cluster.api("GET", f"/v1/runs/{run}/why")), 20, "the reason")
    assert cluster.run(run)["state"] == "queued"


def test_it_ends_with_its_wrapper(cluster: Cluster) -> None:
    """Linux forgets that when the user changes; it is said again."""
    cluster.push("mortal", {"name": "mortal", "command": "exec sleep 321.5", "user": "nobody"})
    run = cluster.api("POST", "/v1/jobs/mortal/runs", {})["id"]

    def sleepers() -> list[int]:
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in found if _arguments(pid) == b"sleep\x00321.5\x00"]

    (pid,) = wait_for(sleepers, 20, "the command")
    assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
    parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(parent, 9)
    wait_for(lambda: not sleepers(), 10, "the command to end with its wrapper")
    assert cluster.wait_run(run)["state"] == "failed"


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
