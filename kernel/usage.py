"""What a process used, as getrusage(2) and wait4(2) tell it (struct rusage)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from .process import Process

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["children_usage", "usage"]

RUSAGE: Final = struct.Struct("<18q")
"""ru_utime and ru_stime, two words each; ru_maxrss in KiB; then counts (9th word: ru_minflt)."""


def usage(kernel: Kernel, process: Process) -> bytes:
    """Of one process. All its time counts as user time: what the kernel did for it is not told apart."""
    if process.alive:
        kernel.scheduler.account()
    microseconds = process.cycles // process_frequency(kernel)
    seconds, rest = divmod(microseconds, 1_000_000)
    peak = process.mm.peak_resident * PAGE_SIZE >> 10
    faults = (process.minor_faults, process.major_faults)
    return RUSAGE.pack(seconds, rest, 0, 0, peak, 0, 0, 0, *faults, 0, 0, 0, 0, 0, 0, process.switches, 0)


def children_usage(process: Process) -> bytes:
    """Of all children that ended and were asked for."""
    faults = (process.children_minor_faults, process.children_major_faults)
    return RUSAGE.pack(0, 0, 0, 0, 0, 0, 0, 0, *faults, 0, 0, 0, 0, 0, 0, 0, 0)


def process_frequency(kernel: Kernel) -> int:
    """Cycles in a microsecond."""
    return kernel.machine.profile.cpu.frequency_mhz
