"""/proc/stat, vmstat, loadavg and uptime: the whole system in numbers (fs/proc/stat.c and others, mm/vmstat.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from ..layout import KERNEL_STACK_PAGES
from ..timers import BOOT_TIME
from .generated import proc_file

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..process import Process

__all__ = ["loadavg", "stat", "uptime", "vmstat"]

TICK: Final = 10_000_000
"""Nanoseconds of a hundredth of a second."""


@proc_file("/proc/vmstat")
def vmstat(kernel: Kernel, _process: Process | None) -> bytes:
    """Pages by use, and events since boot; those of Linux's that there are."""
    frames, pages, cache, faults = kernel.frames, kernel.pages, kernel.page_cache, kernel.faults.counts
    spaces = {process.mm for process in kernel.living_processes()}
    anonymous = pages.anonymous - kernel.manager.swap.unmapped
    counts = {
        "nr_free_pages": frames.free_frames,
        "nr_anon_pages": anonymous,
        "nr_mapped": pages.mapped_frames - anonymous,
        "nr_file_pages": cache.pages,
        "nr_shmem": cache.charged,
        "nr_kernel_stack": len(kernel.living_processes()) * KERNEL_STACK_PAGES * PAGE_SIZE >> 10,
        "nr_page_table_pages": sum(mm.page_table.tables_below for mm in spaces),
        "nr_swapcached": kernel.manager.swap.cached,
        "pswpin": kernel.manager.swap.reads,
        "pswpout": kernel.manager.swap.writes,
        "pgfault": faults["minor"] + faults["major"],
        "pgmajfault": faults["major"],
        "pgsteal_kswapd": kernel.reclaim.reclaimed_by["background"],
        "pgsteal_direct": kernel.reclaim.reclaimed_by["direct"],
        "pgscan_kswapd": kernel.reclaim.scanned_by["background"],
        "pgscan_direct": kernel.reclaim.scanned_by["direct"],
        "oom_kill": kernel.oom_kills,
        **{f"thp_{name}": count for name, count in kernel.manager.huge.counts.items()},
    }
    return b"".join(b"%s %d\n" % (name.encode(), count) for name, count in counts.items())


@proc_file("/proc/stat")
def stat(kernel: Kernel, _process: Process | None) -> bytes:
    """Time by use in hundredths of a second, and counts. What processes do is user time, the rest is the system's."""
    kernel.scheduler.account()
    idle, waiting = _idle(kernel), kernel.machine.clock.by_cause().get("swap_io", 0)
    user = sum(process.cycles for process in kernel.processes)
    system = max(kernel.now - idle - waiting - user, 0)
    times = (*(kernel.ticks(cycles) for cycles in (user, 0, system, idle, waiting)), 0, 0, 0, 0, 0)
    lines = [
        *(f"{name} {' '.join(map(str, times))}" for name in ("cpu ", "cpu0")),
        f"intr {kernel.scheduler.jiffies}",
        f"ctxt {kernel.scheduler.switches}",
        f"btime {BOOT_TIME}",
        f"processes {len(kernel.processes)}",
        f"procs_running {_running(kernel)}",
        f"procs_blocked {sum(process.waits_for_io for process in kernel.living_processes())}",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _idle(kernel: Kernel) -> int:
    """Cycles in which everybody slept."""
    return kernel.machine.clock.by_cause().get("idle", 0)


@proc_file("/proc/uptime")
def uptime(kernel: Kernel, _process: Process | None) -> bytes:
    """Seconds since boot, and how many of them the processor had nothing to do."""
    idle = kernel.machine.clock.nanoseconds(_idle(kernel))
    (up, up_rest), (rest, rest_rest) = (divmod(time // TICK, 100) for time in (kernel.nanoseconds(), idle))
    return b"%d.%02d %d.%02d\n" % (up, up_rest, rest, rest_rest)


@proc_file("/proc/loadavg")
def loadavg(kernel: Kernel, _process: Process | None) -> bytes:
    """Processes that wanted to run, on average over 1, 5 and 15 minutes; those that do now, all; the last number."""
    shown, threads = kernel.scheduler.load.shown(), len(kernel.living_processes())
    return f"{shown} {_running(kernel)}/{threads} {kernel.last_pid}\n".encode()


def _running(kernel: Kernel) -> int:
    """Processes that run or wait for their turn."""
    return sum(process.state.name == "READY" for process in kernel.living_processes())
