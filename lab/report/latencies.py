"""Reload latencies: what an attack by Flush+Reload saw.

The attacker has one line, or page, for each value that a secret byte can have. What the processor did with the byte,
before it was refused, brought one of them into the caches. So the attacker loads all 256 and takes the time: one load
is quick.

A program that keeps these times has them in a report: 256 numbers of 32 bits, in cycles, at the symbol `latencies`, as
they are when it ends.
"""

from __future__ import annotations

import struct
from typing import Final

from kernel import Kernel, Process
from kernel.pagewalk import peek

__all__ = ["SYMBOL", "VALUES", "latencies"]

SYMBOL: Final = "latencies"
VALUES: Final = 256
WORD: Final = 4


def latencies(kernel: Kernel, process: Process) -> list[int]:
    """The times that a process has measured so far; empty if it measures none."""
    if SYMBOL not in process.image.symbols:
        return []
    measured = struct.unpack(f"<{VALUES}I", peek(kernel, process, process.image.symbols[SYMBOL], WORD * VALUES))
    return list(measured) if any(measured) else []
