"""The data directory itself survives a power cut from the moment a node has its lock."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.harness.powerloss import Disk, Mode

PROGRAM = """
import sys
from pathlib import Path
from igor_node.data_dir import DataDir
data = DataDir(Path(sys.argv[1]))
data.lock()
data.write("cluster.key", "00")
"""


def test_a_new_data_directory_and_what_is_written_in_it_survive_the_power_cut(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "root", tmp_path / "record")
    disk.arm()
    environment = {**os.environ, **disk.environment()}
    subprocess.run([sys.executable, "-c", PROGRAM, str(disk.root / "var" / "igor")], check=True, env=environment)
    disk.cut(random.Random(1), Mode.NOTHING)
    assert (disk.root / "var" / "igor" / "cluster.key").read_text() == "00"
