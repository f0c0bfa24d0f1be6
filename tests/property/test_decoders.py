"""Every decoder of somebody else's bytes, given good ones that were spoiled: it reads them or says what is wrong, in the words of its own.

A short look at each in the suite; the soak fuzzes each for ten minutes with atheris, which follows the branches. `IGOR_FUZZ_S` gives another time.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.decoders import DECODERS, check

SPOILED = 400
SOAK_S = 600


def spoiled(chance: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut out, doubled, put in, replaced by those that mean much."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(made))
        match chance.randint(0, 4):
            case 0 if made:
                made[at % len(made)] ^= 1 << chance.randint(0, 7)
            case 1:
                del made[at : at + chance.randint(1, 20)]
            case 2:
                made[at:at] = made[at : at + chance.randint(1, 20)] * chance.randint(1, 50)
            case 3:
                made[at:at] = chance.choice(
                    (b"\xff", b"\x00", b"\xc1", b"\xdf\xff\xff\xff\xff", b"-", b"9" * 30, b"*", b"&a *a", b"\n", "💥".encode())
                )
            case _ if made:
                made[at % len(made)] = chance.randint(0, 255)
    return bytes(made)


@pytest.mark.parametrize("name", DECODERS)
def test_what_cannot_be_read_is_refused_in_its_own_words(name: str) -> None:
    chance = random.Random(int(os.environ.get("IGOR_SEED") or 11))
    for seed in DECODERS[name].seeds:
        check(name, seed)
    for number in range(SPOILED):
        check(name, spoiled(chance, DECODERS[name].seeds[number % len(DECODERS[name].seeds)]))


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 300)
@pytest.mark.parametrize("name", DECODERS)
def test_no_input_that_a_fuzzer_finds_is_worse_than_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    seconds = os.environ.get("IGOR_FUZZ_S") or str(SOAK_S)
    command = [sys.executable, "-m", "tests.harness.decoders", name, seconds, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=int(seconds) + 200)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
