"""/proc/PID/status, statm and stat: a process in numbers (fs/proc/array.c, fs/proc/task_mmu.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from ..layout import page_align
from ..limits import Resource
from ..pagewalk import ResidentSet, resident_set
from ..signals import SIG_DFL, SIG_IGN, bit
from ..vma import VmaFlag
from .generated import living, proc_file

if TYPE_CHECKING:
    from ..address_space import AddressSpace
    from ..kernel import Kernel
    from ..process import Process

__all__ = ["stat", "statm", "status"]

USER_HZ: Final = 100
"""Clock ticks a second in what people are told (asm/param.h)."""
STATES: Final = {
    "READY": "R (running)",
    "SLEEPING": "S (sleeping)",
    "STOPPED": "T (stopped)",
    "ZOMBIE": "Z (zombie)",
    "DEAD": "X (dead)",
}
"""By the name of a process.State."""
ALL_CAPABILITIES: Final = (1 << 41) - 1
"""Up to CAP_CHECKPOINT_RESTORE (include/uapi/linux/capability.h)."""
CODE_FLAGS: Final = VmaFlag.EXEC | VmaFlag.WRITE | VmaFlag.GROWS_DOWN


def _state(process: Process) -> str:
    """What it does (task_state_array): one that waits for a device cannot be interrupted."""
    return "D (disk sleep)" if process.waits_for_io else STATES[process.state.name]


# --- sizes ----------------------------------------------------------------------------------------------------------


def _code(process: Process) -> tuple[int, int, int, int]:
    """Start and end of code, start and end of data, as exec finds them in a file (load_elf_binary)."""
    loaded = [segment for segment in process.image.segments if segment.size]
    code = [segment for segment in loaded if segment.executable]
    return (
        min((segment.va for segment in code), default=0),
        max((segment.va + len(segment.data) for segment in code), default=0),
        max((segment.va for segment in loaded), default=0),
        max((segment.va + len(segment.data) for segment in loaded), default=0),
    )


def _text_pages(process: Process) -> int:
    start, end, _, _ = _code(process)
    return (page_align(end) >> PAGE_SHIFT) - (start >> PAGE_SHIFT)


def _pages(mm: AddressSpace, mask: int, wanted: int) -> int:
    """Pages of the VMAs with certain flags."""
    return sum(vma.pages for vma in mm.vmas if vma.flags & mask == wanted)


@proc_file("/proc/[pid]/statm")
def statm(kernel: Kernel, process: Process | None) -> bytes:
    """Pages: promised, resident, those of files among them, code, 0, data and stack, 0 (task_statm)."""
    mm = living(process).mm
    there = resident_set(kernel, mm)
    data = mm.data_pages + _pages(mm, VmaFlag.GROWS_DOWN, VmaFlag.GROWS_DOWN)
    shared = (there.file + there.shmem) // PAGE_SIZE
    numbers = (mm.total_pages, there.resident // PAGE_SIZE, shared, _text_pages(living(process)), 0, data, 0)
    return b"%s\n" % b" ".join(b"%d" % number for number in numbers)


def _memory(process: Process, there: ResidentSet) -> dict[str, int]:
    """Bytes by the names of status (task_mem)."""
    mm = process.mm
    code = _pages(mm, CODE_FLAGS, VmaFlag.EXEC)
    hugetlb = there.shared_hugetlb + there.private_hugetlb
    text = min(_text_pages(process), code)
    pages = {
        **{"VmPeak": max(mm.peak_pages, mm.total_pages), "VmSize": mm.total_pages, "VmLck": mm.locked_pages},
        **{"VmPin": 0, "VmHWM": there.resident // PAGE_SIZE},
        **{"VmRSS": there.resident // PAGE_SIZE, "RssAnon": there.anonymous // PAGE_SIZE},
        **{"RssFile": there.file // PAGE_SIZE, "RssShmem": there.shmem // PAGE_SIZE, "VmData": mm.data_pages},
        **{"VmStk": _pages(mm, VmaFlag.GROWS_DOWN, VmaFlag.GROWS_DOWN), "VmExe": text, "VmLib": code - text},
        **{
            "VmPTE": mm.page_table.tables_below,
            "VmSwap": there.swap // PAGE_SIZE,
            "HugetlbPages": hugetlb // PAGE_SIZE,
        },
    }
    return {name: count << PAGE_SHIFT for name, count in pages.items()}


# --- status ---------------------------------------------------------------------------------------------------------


@proc_file("/proc/[pid]/status")
def status(kernel: Kernel, process: Process | None) -> bytes:
    """A line a fact (proc_pid_status)."""
    process = living(process)
    memory = _memory(process, resident_set(kernel, process.mm))
    facts = {
        **_identity(process),
        **{name: f"{size >> 10:8} kB" for name, size in memory.items()},
        **{"CoreDumping": "0", "THP_enabled": "0", "untag_mask": f"{(1 << 64) - 1:#x}"},
        "Threads": str(len(kernel.threads(process))),
        **_signals(process),
        **{f"Cap{name}": f"{mask:016x}" for name, mask in _capabilities().items()},
        **{"NoNewPrivs": "0", "Seccomp": "0", "Seccomp_filters": "0"},
        **{"Speculation_Store_Bypass": "not vulnerable", "SpeculationIndirectBranch": "not affected"},
        **{"Cpus_allowed": "1", "Cpus_allowed_list": "0", "Mems_allowed": "1", "Mems_allowed_list": "0"},
        **{"voluntary_ctxt_switches": str(process.switches), "nonvoluntary_ctxt_switches": "0"},
    }
    text = "".join(f"{name}:\t{value}\n" for name, value in facts.items())
    return text.encode("utf-8", "surrogateescape")


def _identity(process: Process) -> dict[str, str]:
    """Names and numbers. Everybody is root."""
    parent = process.parent.tgid if process.parent is not None else 0
    ids = {"Tgid": process.tgid, "Ngid": 0, "Pid": process.pid, "PPid": parent, "TracerPid": 0}
    inside = {"NStgid": process.tgid, "NSpid": process.pid, "NSpgid": process.group, "NSsid": process.session}
    return {
        "Name": process.name.replace("\\", "\\\\").replace("\n", "\\n"),
        **{"Umask": f"{process.files.umask:04o}", "State": _state(process)},
        **{name: str(number) for name, number in ids.items()},
        **{"Uid": "0\t0\t0\t0", "Gid": "0\t0\t0\t0", "FDSize": str(_table_size(process)), "Groups": " "},
        **{name: str(number) for name, number in inside.items()},
        "Kthread": "0",
    }


def _table_size(process: Process) -> int:
    """Room for descriptors: 64, then powers of two from 256 on (alloc_fdtable)."""
    highest = max((fd for fd, _ in process.files), default=0)
    return 64 if highest < 64 else max(256, 1 << highest.bit_length())


def _signals(process: Process) -> dict[str, str]:
    signals = process.signals
    masks = {
        **{"SigPnd": signals.private.mask, "ShdPnd": signals.shared.mask, "SigBlk": signals.blocked},
        **{"SigIgn": _ignored(process), "SigCgt": _caught(process)},
    }
    queued = len(signals.private.queue) + len(signals.shared.queue)
    limit = process.limits.soft(Resource.SIGPENDING)
    return {"SigQ": f"{queued}/{limit}", **{name: f"{mask:016x}" for name, mask in masks.items()}}


def _ignored(process: Process) -> int:
    return sum(bit(number) for number, action in process.signals.actions.items() if action.handler == SIG_IGN)


def _caught(process: Process) -> int:
    actions = process.signals.actions.items()
    return sum(bit(number) for number, action in actions if action.handler not in (SIG_DFL, SIG_IGN))


def _capabilities() -> dict[str, int]:
    return {"Inh": 0, "Prm": ALL_CAPABILITIES, "Eff": ALL_CAPABILITIES, "Bnd": ALL_CAPABILITIES, "Amb": 0}


# --- stat -----------------------------------------------------------------------------------------------------------


@proc_file("/proc/[pid]/stat")
def stat(kernel: Kernel, process: Process | None) -> bytes:
    """52 fields on one line; proc_pid_stat(5) numbers them (do_task_stat)."""
    process = living(process)
    kernel.scheduler.account()
    head = f"{process.pid} ({process.name}) {_state(process)[0]}"
    numbers = [*_family(kernel, process), *_space(kernel, process), *_ending(process)]
    return " ".join([head, *map(str, numbers)]).encode("utf-8", "surrogateescape") + b"\n"


def _family(kernel: Kernel, process: Process) -> list[int]:
    """Fields 4 to 22: relatives, faults, times, threads, start."""
    parent = process.parent.tgid if process.parent is not None else 0
    faults = [process.minor_faults, process.children_minor_faults, process.major_faults, process.children_major_faults]
    times = [kernel.ticks(process.cycles), 0, 0, 0]
    started = kernel.ticks(process.started)
    no_terminal = [0, -1]
    priority, nice = 20, 0
    relatives = [parent, process.group, process.session, *no_terminal, 0]
    return [*relatives, *faults, *times, priority, nice, len(kernel.threads(process)), 0, started]


def _space(kernel: Kernel, process: Process) -> list[int]:
    """Fields 23 to 30: sizes and places in the address space."""
    mm = process.mm
    code_start, code_end, _, _ = _code(process)
    resident = resident_set(kernel, mm).resident // PAGE_SIZE
    most = process.limits.soft(Resource.RSS)
    return [mm.total_pages << PAGE_SHIFT, resident, most, code_start, code_end, mm.stack_start, 0, 0]


def _ending(process: Process) -> list[int]:
    """Fields 31 to 52: signals, scheduling, and the rest of the address space."""
    mm, mask = process.mm, (1 << 31) - 1
    signals = [process.signals.private.mask, process.signals.blocked, _ignored(process), _caught(process)]
    waits = int(process.state.name == "SLEEPING")
    _, _, data_start, data_end = _code(process)
    places = [data_start, data_end, mm.heap_start, *mm.strings]
    scheduling = [waits, 0, 0, process.exit_signal, 0, 0, 0, 0, 0, 0]
    return [*(signal & mask for signal in signals), *scheduling, *places, 0]
