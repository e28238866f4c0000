"""The kernel's own events, beside those of the hardware (`emu.events`)."""

from __future__ import annotations

from dataclasses import dataclass

from emu.events import Event, event

__all__ = [
    "ContextSwitch",
    "CopyOnWrite",
    "ExecEvent",
    "ExitEvent",
    "ForkEvent",
    "FunctionEntry",
    "FunctionExit",
    "HugePageEvent",
    "OomKill",
    "PageFaultEvent",
    "ReclaimEvent",
    "SignalEvent",
    "SwapIn",
    "SwapIo",
    "SwapOut",
    "SyscallEvent",
    "SyscallExit",
]


@event("page_fault")
@dataclass(frozen=True, slots=True)
class PageFaultEvent(Event):
    """A page fault was handled. `outcome` is the name of a FaultResult; `rip` is the instruction that faulted."""

    address: int
    error_code: int
    rip: int
    outcome: str


@event("syscall")
@dataclass(frozen=True, slots=True)
class SyscallEvent(Event):
    """A system call begins."""

    number: int
    name: str
    arguments: tuple[int, ...]


@event("syscall_exit")
@dataclass(frozen=True, slots=True)
class SyscallExit(Event):
    """A system call returns; a negative result is an errno."""

    number: int
    name: str
    result: int


@event("function_entry")
@dataclass(frozen=True, slots=True)
class FunctionEntry(Event):
    """The kernel enters one of its functions: Python at an address of kernel text."""

    name: str


@event("function_exit")
@dataclass(frozen=True, slots=True)
class FunctionExit(Event):
    """A function of the kernel is done. `pid` is the process that had called it, whoever runs now."""

    name: str


@event("signal")
@dataclass(frozen=True, slots=True)
class SignalEvent(Event):
    """A signal is delivered; `address` is si_addr where the signal has one."""

    signal: int
    name: str
    address: int | None


@event("exec")
@dataclass(frozen=True, slots=True)
class ExecEvent(Event):
    """A program was loaded into a process."""

    path: str
    entry: int


@event("exit")
@dataclass(frozen=True, slots=True)
class ExitEvent(Event):
    """A process ended, with an exit code or by a signal."""

    exit_code: int | None
    signal: int | None


@event("fork")
@dataclass(frozen=True, slots=True)
class ForkEvent(Event):
    """A process was made; `pid` is the parent. `shares_memory` says that both have one address space."""

    child: int
    shares_memory: bool


@event("context_switch")
@dataclass(frozen=True, slots=True)
class ContextSwitch(Event):
    """The processor goes on with another process. 0 is the kernel's own idle task."""

    previous: int
    next: int


@event("cow")
@dataclass(frozen=True, slots=True)
class CopyOnWrite(Event):
    """A page that others read, too, was written. `old` and `new` are frames; they are the same where nobody else
    had it any more.
    """

    address: int
    old: int
    new: int


@event("huge_page")
@dataclass(frozen=True, slots=True)
class HugePageEvent(Event):
    """Something happened to the huge page of `size` bytes whose first frame is `pfn`. `kind` says what:

    `fault` (a new one), `zero` (the one of zeros), `cow` (a copy), `collapse` (small pages became one), `split` (one
    PMD became a table), `split_page` (the frames became single pages).
    """

    address: int
    kind: str
    pfn: int
    size: int


@event("swap_out")
@dataclass(frozen=True, slots=True)
class SwapOut(Event):
    """A page left memory; it lies in a slot of the swap device. `pfn` is the frame that it had."""

    address: int
    pfn: int
    slot: int


@event("swap_in")
@dataclass(frozen=True, slots=True)
class SwapIn(Event):
    """A page came back from a slot. `read` is False if it was still in memory (the swap cache)."""

    address: int
    pfn: int
    slot: int
    read: bool


@event("oom_kill")
@dataclass(frozen=True, slots=True)
class OomKill(Event):
    """Memory is out, and the process `victim` is killed for it. It had so many pages in memory, in swap and for its
    page tables.
    """

    victim: int
    name: str
    resident: int
    swapped: int
    tables: int


@event("swap_io")
@dataclass(frozen=True, slots=True)
class SwapIo(Event):
    """The swap device got a request, a `read` or a `write` of a slot, and works on it from `starts` to `ends` (cycles).

    It has one queue: the work begins when what came before is done.
    """

    kind: str
    slot: int
    starts: int
    ends: int


@event("reclaim")
@dataclass(frozen=True, slots=True)
class ReclaimEvent(Event):
    """Memory was short: so many pages were looked at, so many taken. `kind` is `direct` or `background`."""

    kind: str
    scanned: int
    reclaimed: int
