"""Processes: an address space, a kernel stack, and registers saved on it (struct task_struct, struct pt_regs)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from emu.image import Image
from emu.pte import PAGE_SIZE, Rflags

from .address_space import AddressSpace
from .files import FilesStruct
from .itimer import IntervalTimer
from .layout import KERNEL_STACK_PAGES, Selector
from .limits import Limits
from .memory import KernelMemory
from .siginfo import SIGCHLD
from .signals import Signals
from .wait import Wait, WaitQueue

__all__ = ["PT_REGS", "KernelStack", "LastTrap", "Process", "Registers", "State", "Thread"]

PT_REGS: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
    *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
)
"""Fields of struct pt_regs, from its start (asm/ptrace.h); each is 8 bytes."""
PT_REGS_SIZE: Final = 8 * len(PT_REGS)
_OFFSET: Final = {name: 8 * index for index, name in enumerate(PT_REGS)}


class Registers:
    """The user registers of a process that is in the kernel: a struct pt_regs at a kernel address.

    Reading a field is a load, writing it a store, as they are for Linux.
    """

    def __init__(self, memory: KernelMemory, va: int) -> None:
        self._memory, self.va = memory, va

    def __getitem__(self, name: str) -> int:
        return self._memory.load_va(self.va + _OFFSET[name])

    def __setitem__(self, name: str, value: int) -> None:
        self._memory.store_va(self.va + _OFFSET[name], value)

    def arguments(self) -> tuple[int, int, int, int, int, int]:
        """The six arguments of a system call: RDI RSI RDX R10 R8 R9."""
        r10, r9, r8, _rax, _rcx, rdx, rsi, rdi = self._memory.load_words(self.va + _OFFSET["r10"], 8)
        return rdi, rsi, rdx, r10, r8, r9


@dataclass(frozen=True, slots=True)
class KernelStack:
    """Pages in the vmalloc area, above an unmapped guard page."""

    bottom: int

    @property
    def top(self) -> int:
        """The first address beyond."""
        return self.bottom + KERNEL_STACK_PAGES * PAGE_SIZE


class State(Enum):
    """What a process is doing (TASK_RUNNING and so on, include/linux/sched.h)."""

    READY = auto()  # runs, or waits for its turn
    SLEEPING = auto()  # waits for an event
    STOPPED = auto()  # by a signal, until SIGCONT
    ZOMBIE = auto()  # ended; its parent has not asked yet
    DEAD = auto()


class LastTrap(NamedTuple):
    """The last fault of user mode that became a signal, as handlers are told (thread_struct: trap_nr and so on)."""

    number: int = 0
    error_code: int = 0
    cr2: int = 0


@dataclass(slots=True)
class Thread:
    """What the processor must know to go on with a process that was left in the kernel (thread_struct).

    `context` has all registers of the processor but RIP, the floating-point ones among them.
    """

    rip: int
    context: Any
    user_gs_base: int = 0


@dataclass(eq=False)
class Process:
    """One process. `exit_code` and `signal` are None while it lives; then exactly one of them is set.

    `tgid` is the process that a thread belongs to, its own pid for the first. `work` is set when there is something
    to do before it goes back to user mode (TIF flags).
    """

    pid: int
    image: Image
    mm: AddressSpace
    stack: KernelStack
    thread: Thread
    files: FilesStruct
    arguments: tuple[str, ...] = ()
    parent: Process | None = None
    tgid: int = 0
    limits: Limits = field(default_factory=Limits)
    signals: Signals = field(default_factory=Signals)
    children: list[Process] = field(default_factory=list)
    child_ended: WaitQueue = field(default_factory=WaitQueue)
    state: State = State.READY
    wait: Wait | None = None
    waker: Callable[[], None] = lambda: None
    work: bool = False
    syscall: int = 0  # the system call that it made last
    keeps_registers: bool = False  # its system call replaced all registers (exec, sigreturn): no answer in RAX
    interrupted: int = 0  # the -ERESTART code with which a signal ended its system call
    restart_block: Wait | None = None  # what restart_syscall goes on with
    trap: LastTrap = LastTrap()  # noqa: RUF009 - it cannot change
    alarm: IntervalTimer = field(default_factory=IntervalTimer)
    stopped_by: int = 0  # the signal that stopped it, until its parent asked
    was_continued: bool = False  # after that, until its parent asked
    need_resched: bool = False
    vfork_done: WaitQueue | None = None
    set_child_tid: int = 0  # where it writes its number before it runs first
    clear_child_tid: int = 0
    group: int = 0
    session: int = 0
    own_name: str = ""
    exit_signal: int = SIGCHLD
    exit_code: int | None = None
    signal: int | None = None
    minor_faults: int = 0
    major_faults: int = 0
    children_minor_faults: int = 0
    children_major_faults: int = 0
    started: int = 0  # the clock when it was made
    instructions: int = 0
    cycles: int = 0
    switches: int = 0
    syscalls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tgid = self.tgid or self.pid
        self.group = self.group or self.tgid
        self.session = self.session or self.group
        self.mm.limits = self.files.limits = self.limits

    def __repr__(self) -> str:
        """Short: its fields lead to the whole kernel."""
        return f"<Process {self.pid} {self.image.path} {self.state.name.lower()}>"

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None and self.signal is None

    @property
    def waits_for_io(self) -> bool:
        """Whether it sleeps until a device is done."""
        return self.state is State.SLEEPING and self.wait is not None and self.wait.is_io

    @property
    def name(self) -> str:
        """Its name in /proc (task->comm): 15 characters of the program's."""
        return self.own_name or PurePosixPath(self.image.path).name[:15]

    @property
    def registers_va(self) -> int:
        """Where its pt_regs lie: at the top of its kernel stack."""
        return self.stack.top - PT_REGS_SIZE


def first_registers(entry: int, stack_pointer: int) -> bytes:
    """The pt_regs with which a program starts: all zero but RIP and RSP (start_thread, ELF_PLAT_INIT)."""
    values = dict.fromkeys(PT_REGS, 0)
    values |= {"rip": entry, "rsp": stack_pointer, "eflags": int(Rflags.IF | Rflags.FIXED)}
    values |= {"cs": Selector.USER_CS, "ss": Selector.USER_DS, "orig_rax": (1 << 64) - 1}
    return struct.pack(f"<{len(PT_REGS)}Q", *(values[name] for name in PT_REGS))
