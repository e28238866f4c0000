"""What a process used, as getrusage(2) and wait4(2) tell it (struct rusage)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from .process import Process

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["children_usage", "usage"]

RUSAGE: Final = struct.Struct("<18q")
"""ru_utime and ru_stime, two words each; ru_maxrss, of which no peak is kept; then counts (9th: ru_minflt)."""


def usage(kernel: Kernel, process: Process) -> bytes:
    """Of one process. All its time counts as user time: what the kernel did for it is not told apart."""
    if process.alive:
        kernel.scheduler.account()
    seconds, rest = divmod(kernel.machine.clock.nanoseconds(process.cycles) // 1000, 1_000_000)
    faults = (process.minor_faults, process.major_faults)
    return RUSAGE.pack(seconds, rest, 0, 0, 0, 0, 0, 0, *faults, 0, 0, 0, 0, 0, 0, process.switches, 0)


def children_usage(process: Process) -> bytes:
    """Of all children that ended and were asked for."""
    faults = (process.children_minor_faults, process.children_major_faults)
    return RUSAGE.pack(0, 0, 0, 0, 0, 0, 0, 0, *faults, 0, 0, 0, 0, 0, 0, 0, 0)
