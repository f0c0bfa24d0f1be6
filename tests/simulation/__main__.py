"""Runs histories by seed: `python -m tests.simulation --seed 17`, or `--seeds 0-299`; `--off NAME` turns a mend off; `-v` tells the story."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from raft.settings import ALL_MENDS, Mends
from tests.simulation.checks import Broken
from tests.simulation.history import History


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--seeds", help="a range, like 0-299")
    parser.add_argument("--off", action="append", default=[], choices=Mends.__struct_fields__)
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    seeds = list(arguments.seed)
    if arguments.seeds:
        first, last = arguments.seeds.split("-")
        seeds += range(int(first), int(last) + 1)
    mends = msgspec.structs.replace(ALL_MENDS, **dict.fromkeys(arguments.off, False))
    failed = 0
    began = time.process_time()
    for seed in seeds:
        history = History(seed, mends)
        try:
            history.run()
        except (Broken, Exception) as problem:
            failed += 1
            print(f"seed {seed}: {type(problem).__name__}: {problem}")
            if arguments.verbose:
                print("\n".join(history.world.notes[-60:]))
                raise
        else:
            if arguments.verbose:
                print("\n".join(history.world.notes[-60:]))
            checks = history.world.checks
            if len(seeds) <= 20:
                print(
                    f"seed {seed}: well; {history.world.events} events, {checks.acknowledgements} acknowledged, {checks.reads} reads, "
                    f"{len(checks.leaders)} terms led, back after {history.recovered_s:.2f} s"
                )
    print(f"{len(seeds)} histories, {failed} broken, {(time.process_time() - began) / max(1, len(seeds)):.3f} s of CPU each")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
