"""Nothing breaks out: programs of random bytes end by a signal, an exit or the instruction limit.

These seeds end well; `CR3_FIRST_SEED=100000 pytest tests/test_random_bytes.py -m slow` tries others.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIRST = int(os.environ.get("CR3_FIRST_SEED", "0"))
SEEDS, EACH = 2000, 200
ENDING = re.compile(r"seed \d+: (signal|exit|limit).*")
MOST_GROWTH = 200 * 1024
"""KiB. A machine is 10 MiB, and Python collects a few of them at a time."""


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, EACH))
def test_random_bytes_end_without_harm(first: int) -> None:
    """In a process of its own, so that a crash of the host would be seen, too."""
    command = [sys.executable, "-u", str(ROOT / "tests" / "random_bytes.py"), str(first), str(EACH)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    endings = [line for line in done.stdout.splitlines() if line.startswith("seed ")]
    assert len(endings) == EACH
    assert all(ENDING.fullmatch(line) for line in endings), endings
    assert int(done.stdout.split()[-1]) < MOST_GROWTH
