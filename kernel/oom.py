"""Out of memory: one process dies so that the others can go on (mm/oom_kill.c).

Memory was promised that is not there. The kernel kills the process whose end gives back most, and takes its pages at
once (the OOM reaper), because a process that waits for memory itself would never get to its own end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import OomKill
from .siginfo import SI_KERNEL, SIGKILL, SigInfo
from .signal_delivery import send_signal

if TYPE_CHECKING:
    from .kernel import Kernel
    from .process import Process

__all__ = ["badness", "out_of_memory"]


def badness(process: Process) -> int:
    """Pages that come back when a process ends: its own, those in swap, its page tables' (oom_badness)."""
    return process.mm.resident() + process.mm.swapped() + process.mm.page_table.table_count


def out_of_memory(kernel: Kernel) -> Process | None:
    """Kill the process that has most. Returns it, or None if there is none to kill."""
    living = kernel.living_processes()
    if not living:
        return None
    victim = max(living, key=badness)
    kernel.oom_kills += 1
    _tell(kernel, victim)
    if victim is kernel.scheduler.current:
        send_signal(kernel, victim, SigInfo(SIGKILL, SI_KERNEL))
    else:
        kernel.end(victim, signal=SIGKILL)
    return victim


def _tell(kernel: Kernel, victim: Process) -> None:
    """Name the victim, and what it had (the line that Linux writes to its log)."""
    if kernel.events.wants("oom_kill"):
        mm = victim.mm
        had = mm.resident(), mm.swapped(), mm.page_table.table_count
        kernel.events.emit(OomKill(kernel.now, kernel.machine.pid, victim.pid, victim.name, *had))
