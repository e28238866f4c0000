"""Processes: an address space, a kernel stack, and registers saved on it (struct task_struct, struct pt_regs)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from emu.image import Image
from emu.pte import PAGE_SHIFT, PAGE_SIZE, Pte, Rflags

from .address_space import AddressSpace
from .files import FilesStruct
from .layout import KERNEL_STACK_PAGES, VMALLOC, Selector
from .memory import KernelMemory

__all__ = ["PT_REGS", "KernelStack", "Process", "Registers"]

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
    """Pages in the vmalloc area, above an unmapped guard page. `top` is the first address beyond."""

    number: int
    pfns: tuple[int, ...]

    @property
    def bottom(self) -> int:
        """Lowest address."""
        return VMALLOC + self.number * (KERNEL_STACK_PAGES + 1) * PAGE_SIZE + PAGE_SIZE

    @property
    def top(self) -> int:
        """The first address beyond."""
        return self.bottom + KERNEL_STACK_PAGES * PAGE_SIZE

    def pages(self) -> list[tuple[int, int]]:
        """(va, PTE) of its pages."""
        flags = Pte.P | Pte.W | Pte.A | Pte.D | Pte.NX
        return [(self.bottom + i * PAGE_SIZE, pfn << PAGE_SHIFT | flags) for i, pfn in enumerate(self.pfns)]


@dataclass
class Process:
    """One process. `exit_code` and `signal` are None while it lives; then exactly one of them is set."""

    pid: int
    image: Image
    mm: AddressSpace
    stack: KernelStack
    files: FilesStruct
    arguments: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: int | None = None
    minor_faults: int = 0
    major_faults: int = 0
    instructions: int = 0
    syscalls: dict[str, int] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None and self.signal is None

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
