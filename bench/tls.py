"""What does TLS between the nodes cost a commit?

Question: the commits of `bench/commit.py` (three real processes on this machine, 100-byte commands, each applied to SQLite), with links in clear and
with links inside TLS 1.3 by certificates of the cluster's CA, in turn within one run. Unit: milliseconds, commits a second. Goal: one in flight, p50
with TLS <= 1.5 x without. Prints a table and writes JSON with versions and parameters.

    python -m bench.tls [--seconds 5] [--rounds 2] [--in-flight 1000] [--json out/tls.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import ssl
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.commit import measure
from bench.written import written
from tests.cluster.raft_cluster import cluster_in

GOAL_RATIO = 1.5
COMPARED = ("one_in_flight_p50_ms", "one_in_flight_p99_ms", "many_in_flight_a_second", "many_in_flight_p50_ms", "many_in_flight_processor_us")


def one_round(options: argparse.Namespace, *, tls: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="igor-tls-") as folder, cluster_in(Path(folder), tls=tls) as cluster:
        cluster.three()
        return measure(cluster, options)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="of each kind, in turn: a shared machine is not the same for a minute")
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--json", type=Path, default=Path("out/tls.json"))
    options = parser.parse_args()
    options.size = 100
    rounds = [(one_round(options, tls=False), one_round(options, tls=True)) for _ in range(options.rounds)]
    figures: dict[str, float] = {}
    for name in COMPARED:
        plain, inside = median(one[0][name] for one in rounds), median(one[1][name] for one in rounds)
        figures |= {f"{name}_in_clear": plain, f"{name}_with_tls": inside, f"{name}_ratio": inside / plain}
    found = {
        "question": "commits on three local nodes with links inside TLS, against links in clear",
        "parameters": {"seconds": options.seconds, "rounds": options.rounds, "in_flight": options.in_flight, "size_bytes": options.size},
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "kernel": platform.release(), "openssl": ssl.OPENSSL_VERSION},
        "versions": {name: version(name) for name in ("igor-node", "pysyncobj", "msgspec", "cryptography")},
        **{name: round(value, 3) for name, value in figures.items()},
        "one_in_flight_p50_ratio_goal": GOAL_RATIO,
        "goals_met": figures["one_in_flight_p50_ms_ratio"] <= GOAL_RATIO,
    }
    for name in (*figures, "one_in_flight_p50_ratio_goal", "goals_met"):
        print(f"  {name.replace('_', ' '):<44} {found[name]!s:>12}")
    return written(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
