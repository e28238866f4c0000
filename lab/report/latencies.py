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

from emu.pte import PAGE_SIZE
from kernel import Kernel, Process

__all__ = ["SYMBOL", "VALUES", "latencies"]

SYMBOL: Final = "latencies"
VALUES: Final = 256
WORD: Final = 4


def latencies(kernel: Kernel, process: Process) -> list[int]:
    """The times that a process has measured so far; empty if it measures none."""
    if SYMBOL not in process.image.symbols:
        return []
    measured = struct.unpack(f"<{VALUES}I", _memory(kernel, process, process.image.symbols[SYMBOL], WORD * VALUES))
    return list(measured) if any(measured) else []


def _memory(kernel: Kernel, process: Process, va: int, size: int) -> bytes:
    """What a process has at an address; pages that are not there are zero."""
    data = b""
    while len(data) < size:
        pa = kernel.page_walk(process, va + len(data)).pa
        part = min(size - len(data), PAGE_SIZE - (va + len(data)) % PAGE_SIZE)
        data += bytes(part) if pa is None else kernel.machine.ram.read(pa, part)
    return data
