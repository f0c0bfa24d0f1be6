"""A node that cannot start says why in one clear line, exits with the right code, and never shows a traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster


def start(*arguments: str, timeout_s: float = 30) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IGOR_")}
    done = subprocess.run(
        [sys.executable, "-m", "igor_node.cli.node", *arguments, "--log-format", "text"],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment,
    )
    return done.returncode, done.stderr


def clear(stderr: str, *words: str) -> bool:
    return "Traceback" not in stderr and all(word in stderr for word in words)


def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = start("start", "--data-dir", str(tmp_path / "d"), "--listen", f"127.0.0.1:{port}")
    assert code == 1 and clear(said, str(port), "in use"), said


def test_data_directory_in_use(tmp_path: Path) -> None:
    with Cluster(1, folder=tmp_path) as cluster:
        code, said = start("start", "--data-dir", str(cluster.nodes[0].folder))
    assert code == 3 and clear(said, str(cluster.nodes[0].folder), "in use"), said


def test_data_directory_not_writable(tmp_path: Path) -> None:
    """Root may write everywhere but on a file system that is mounted read-only."""
    folder = tmp_path / "d"
    folder.mkdir(mode=0o500)
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True).returncode == 0
    if os.geteuid() == 0 and not mounted:
        pytest.skip("as root this needs the right to mount")
    try:
        code, said = start("start", "--data-dir", str(folder), "--listen", "127.0.0.1:0")
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)
    assert code in (1, 3) and clear(said, str(folder), "writable"), said


def test_data_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("not a folder")
    code, said = start("start", "--data-dir", str(tmp_path / "d"), "--listen", "127.0.0.1:0")
    assert code in (1, 3) and clear(said, str(tmp_path / "d")), said


def test_every_address_is_no_address_of_a_node(tmp_path: Path) -> None:
    """Others would not know where it is; one line says what is missing."""
    code, said = start("start", "--data-dir", str(tmp_path / "d"), "--listen", "0.0.0.0:0")
    assert code == 2 and clear(said, "--advertise"), said
    assert not (tmp_path / "d" / "node.json").exists()


def test_without_tokens_a_node_stays_on_loopback(tmp_path: Path) -> None:
    code, said = start("start", "--data-dir", str(tmp_path / "d"), "--listen", "192.0.2.1:7946", "--auth", "off")
    assert code == 2 and clear(said, "loopback"), said
    assert not (tmp_path / "d" / "node.json").exists()


def test_full_disk_at_start(tmp_path: Path) -> None:
    """A file system without room: one line that names the folder and the lack of space."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a tiny file system needs the right to mount")
    try:
        code, said = start("start", "--data-dir", str(folder / "d"), "--listen", "127.0.0.1:0")
    finally:
        subprocess.run(["umount", str(folder)], check=False)
    assert code in (1, 3) and clear(said, str(folder)) and ("full" in said or "space" in said), said


def test_join_with_a_wrong_token(tmp_path: Path) -> None:
    with Cluster(1, folder=tmp_path) as cluster:
        code, said = start(
            "join", cluster.nodes[0].address, "--token", "igor1.none.nobody.nothing", "--data-dir", str(tmp_path / "d2"), "--listen", "127.0.0.1:0"
        )
    assert code == 4 and clear(said, "token"), said


def test_a_directory_of_another_cluster(tmp_path: Path) -> None:
    """Two people ran `start`: two clusters that never merge. Joining says so and names --reset, which then does it."""
    with Cluster(1, folder=tmp_path / "a") as first, Cluster(1, folder=tmp_path / "b") as second:
        lonely = second.nodes[0]
        assert lonely.stop() == 0
        arguments = ("join", first.nodes[0].address, "--token-file", str(first.nodes[0].folder / "join.token"), "--data-dir", str(lonely.folder))
        code, said = start(*arguments)
        assert code == 4 and clear(said, "--reset", "cluster"), said
        lonely.start(arguments=[*arguments, "--reset", "--listen", "127.0.0.1:0", "--name", "n2"])
        wait_for(lambda: len(first.status()["nodes"]) == 2, 20, "the second node to be registered")
        assert first.status()["highly_available"] is False


def test_join_nobody(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    code, said = start("join", f"127.0.0.1:{port}", "--token", "igor1.none.a.b", "--data-dir", str(tmp_path / "d2"), "--listen", "127.0.0.1:0")
    assert code in (1, 4) and clear(said, str(port)), said


def test_leader_and_follower_stop_at_once() -> None:
    """Two of three get SIGTERM in the same moment while the third is dead: nobody can take over, and both end all the same."""
    with Cluster(3) as cluster:
        cluster.push("busy", {"name": "ticks", "schedule": {"every": "1s"}, "command": "true", "overlap": "allow"})
        leader = cluster.leader()
        dead, other = (node for node in cluster.nodes if node is not leader)
        dead.kill()
        for node in (leader, other):
            node.signal(signal.SIGTERM)
        assert [node.process.wait(20) for node in (leader, other) if node.process] == [0, 0]


def test_sigterm_is_a_stop_in_order(tmp_path: Path) -> None:
    with Cluster(1, folder=tmp_path) as cluster:
        assert cluster.nodes[0].stop() == 0
        cluster.nodes[0].start()
        assert cluster.status()["leader"] == "n1"
