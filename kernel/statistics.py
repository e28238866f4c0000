"""What a run counted, in the shape of the statistics schema `cr3.stats/1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .kernel import Kernel
    from .process import Process

__all__ = ["statistics"]

USER, KERNEL = 3, 0
TLBS: Final = ("itlb", "dtlb", "stlb")


def statistics(kernel: Kernel) -> dict[str, Any]:
    """All counters of a kernel and its machine, now."""
    machine = kernel.machine
    user, system = machine.retired(USER), machine.retired(KERNEL)
    causes = machine.clock.by_cause()
    first = kernel.processes[0]
    transient = {"transient": machine.transient.statistics()} if machine.transient is not None else {}
    caches = {"caches": machine.caches.counts()} if machine.caches.is_on else {}
    return {
        "exit": _exit(first),
        "instructions": {"user": user[0], "kernel": system[0]},
        "accesses": {"user": _accesses(user), "kernel": _accesses(system)},
        "cycles": {"total": sum(causes.values()), "by_cause": causes},
        "tlb": _tlb(kernel),
        **caches,
        "walk": _walk(kernel),
        "faults": dict(kernel.faults.counts),
        "swap": {"in": kernel.manager.swap.reads, "out": kernel.manager.swap.writes},
        "frames": {"peak": kernel.frames.peak, "leaked": kernel.leaked_frames},
        "cr3_writes": dict(machine.cr3_writes),
        "syscalls": _syscalls(kernel.processes),
        **transient,
        "context_switches": kernel.scheduler.switches,
        "processes": [_process(process) for process in kernel.processes],
    }


def _exit(process: Process) -> dict[str, int | None]:
    return {"code": process.exit_code, "signal": process.signal}


def _accesses(retired: tuple[int, int, int]) -> dict[str, int]:
    """Fetches are counted as one an instruction, as the lecture counts them."""
    return {"fetch": retired[0], "read": retired[1], "write": retired[2]}


def _tlb(kernel: Kernel) -> dict[str, Any]:
    """Hits are accesses minus misses; the STLB is asked once for every first-level miss."""
    s = kernel.machine.state
    asked = (s.instructions, s.reads + s.writes + s.other_lookups, s.misses[0] + s.misses[1])
    tables = {
        name: {"hits": 0 if s.no_tlb else asked[i] - s.misses[i], "misses": s.misses[i], "evictions": s.evictions[i]}
        for i, name in enumerate(TLBS)
    }
    return {**tables, "flushes": dict(kernel.machine.flushes)}


def _walk(kernel: Kernel) -> dict[str, Any]:
    s = kernel.machine.state
    reads = s.entry_reads
    return {
        "count": sum(s.walks_by),
        "entry_reads": {
            "user": {"fetch": reads[0], "data": reads[1]},
            "kernel": {"fetch": reads[2], "data": reads[3]},
        },
        "by": {
            "user": {"fetch": s.walks_by[0], "data": s.walks_by[1]},
            "kernel": {"fetch": s.walks_by[2], "data": s.walks_by[3]},
        },
        "assists": {"accessed": s.accessed_assists, "dirty": s.dirty_assists},
    }


def _syscalls(processes: list[Process]) -> dict[str, int]:
    total: dict[str, int] = {}
    for process in processes:
        for name, count in process.syscalls.items():
            total[name] = total.get(name, 0) + count
    return total


def _process(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "exit": _exit(process),
        "minor": process.minor_faults,
        "major": process.major_faults,
        "instructions": process.instructions,
    }
