"""Boot: the kernel half of the address space, the tables that the processor wants, and the switch to them.

The order matters: page tables are written through physical addresses first, because nothing is mapped yet; when CR3
points to them the direct map exists, and from then on the kernel uses only virtual addresses.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final

from emu import InputError
from emu.control import DescriptorTable, Msr
from emu.machine import Machine
from emu.pte import PAGE_SHIFT, PAGE_SIZE, Cr4, Efer, Pte, Rflags

from .asid import TlbContexts
from .compound import STRUCT_PAGE_SIZE
from .entry import KernelText
from .exceptions import Errno
from .frames import FrameAllocator
from .huge_memory import HugeMemory
from .hugetlb import Hugetlb
from .layout import (
    DF_STACK_VA,
    DIRECT_MAP,
    ENTRY_STACK_VA,
    GDT_VA,
    IDT_VA,
    TSS_VA,
    VMALLOC,
    VMEMMAP,
    Selector,
    direct_map,
)
from .memory import EarlyMemory, KernelMemory
from .memory_manager import MemoryManager
from .overcommit import Overcommit
from .page_table import PageTable
from .pages import Pages
from .pti import kernel_flags, map_trampoline
from .swap import Swap
from .swap_device import SwapDevice
from .vmalloc import Vmalloc

__all__ = ["Booted", "boot"]

HUGE_SHIFT: Final = 21
HUGE_SIZE: Final = 1 << HUGE_SHIFT

G: Final = int(Pte.G)
_READ_WRITE: Final = int(Pte.P | Pte.W | Pte.A | Pte.D | Pte.NX)
_READ_EXECUTE: Final = int(Pte.P | Pte.A)

GDT: Final = {
    0x10: 0x00AF_9B00_0000_FFFF,  # kernel code
    0x18: 0x00CF_9300_0000_FFFF,  # kernel data
    0x20: 0x00CF_FB00_0000_FFFF,  # 32-bit user code
    0x28: 0x00CF_F300_0000_FFFF,  # user data
    0x30: 0x00AF_FB00_0000_FFFF,  # user code
}
"""arch/x86/kernel/cpu/common.c, gdt_page."""
TSS_SIZE: Final = 0x68
TIMER_VECTOR: Final = 0xEC
"""LOCAL_TIMER_VECTOR, asm/irq_vectors.h."""

_GATES: Final = {
    **{0: "divide_error", 1: "debug", 3: "int3", 4: "overflow", 5: "bounds", 6: "invalid_op"},
    **{8: "double_fault", 10: "invalid_tss", 11: "segment_not_present", 12: "stack_segment"},
    **{13: "general_protection", 14: "page_fault", 16: "coprocessor_error", 17: "alignment_check"},
    **{19: "simd_coprocessor_error"},
}
_USER_GATES: Final = frozenset({3, 4})
"""Gates with DPL 3, which INT n may use: #BP and #OF (def_idts and early_idts in arch/x86/kernel/idt.c)."""
_DOUBLE_FAULT: Final = 8

PERCPU_TOP_OF_STACK: Final = PAGE_SIZE + 8
PERCPU_USER_PCID_FLUSH_MASK: Final = PAGE_SIZE + 16
SYSCALL_MASK: Final = int(Rflags.TF | Rflags.IF | Rflags.DF | Rflags.IOPL | Rflags.NT | Rflags.AC)
"""Flags that SYSCALL clears (syscall_init in arch/x86/kernel/cpu/common.c)."""


@dataclass(frozen=True, slots=True)
class Booted:
    """What boot leaves behind. `percpu` is the kernel address in GS."""

    text: KernelText
    manager: MemoryManager
    percpu: int


def boot(
    machine: Machine,
    *,
    pcid: bool,
    asid: str = "pcid",
    pti: bool = False,
    empty_caches: bool = False,
    swap: SwapDevice | None = None,
) -> Booted:
    """Bring a machine from power-on to a kernel that can run processes. Raises InputError if RAM is too small."""
    frames = FrameAllocator(first=1, count=(machine.ram.size >> PAGE_SHIFT) - 1)
    features = machine.profile.features
    text = KernelText(smap=features.smap, pti=pti, pcid=pcid and features.pcid, empty_caches=empty_caches)
    try:
        early = EarlyMemory(machine.ram)
        page_table = PageTable(early, frames, isolated=pti)
        _map_direct(machine, page_table)
        _map_text(machine, page_table, frames, text)
        page_table.entry_address(VMALLOC, create=True)  # before any process inherits the PGD
        _map_vmemmap(machine, page_table, frames)
        zero_pfn = frames.allocate()
        percpu = direct_map(_map_entry_area(machine, page_table, frames, text) << PAGE_SHIFT)
        if pti:
            map_trampoline(page_table, text, percpu)
    except Errno as error:
        if error.number != errno.ENOMEM:
            raise
        raise InputError(f"RAM of {machine.ram.size >> 10}K is too small for the kernel; give it 1M or more") from None
    _switch_on(machine, page_table, percpu, text, pcid=pcid)
    memory = KernelMemory(machine)
    page_table.memory = memory
    memory.clear_frame(zero_pfn)
    pages = Pages(memory, frames)
    area = Swap(machine, memory, pages, swap)
    manager = _memory_manager(machine, memory, early, frames, pages, page_table, zero_pfn, asid, percpu, area)
    return Booted(text, manager, percpu)


def _memory_manager(
    machine: Machine,
    memory: KernelMemory,
    early: EarlyMemory,
    frames: FrameAllocator,
    pages: Pages,
    page_table: PageTable,
    zero_pfn: int,
    asid: str,
    percpu: int,
    swap: Swap,
) -> MemoryManager:
    """The memory management, now that the kernel's own addresses work."""
    tagged = bool(machine.control.cr4 & Cr4.PCIDE)
    mask = percpu + PERCPU_USER_PCID_FLUSH_MASK if page_table.isolated else None
    tlb = TlbContexts(machine, memory, page_table.pgd, tagged=tagged, mode=asid, user_flush_mask=mask)
    huge = HugeMemory(machine, memory, frames, pages, tlb, zero_pfn)
    return MemoryManager(
        memory,
        early,
        frames,
        pages,
        tlb,
        page_table,
        Vmalloc(memory, frames, page_table, tlb),
        Overcommit(frames.total, lambda: swap.total),
        zero_pfn,
        swap,
        huge,
        Hugetlb(machine, memory, pages, tlb, huge),
    )


def _map_vmemmap(machine: Machine, page_table: PageTable, frames: FrameAllocator) -> None:
    """A struct page for every frame, with 2 MiB pages where they are filled (vmemmap_populate_hugepages)."""
    size = (machine.ram.size >> PAGE_SHIFT) * STRUCT_PAGE_SIZE
    huge_end = size & ~(HUGE_SIZE - 1)
    for offset in range(0, huge_end, HUGE_SIZE):
        pfn = frames.allocate(order=HUGE_SHIFT - PAGE_SHIFT)
        page_table.install(VMEMMAP + offset, pfn << PAGE_SHIFT | kernel_flags(page_table) | Pte.PS, level=2)
    for offset in range(huge_end, size, PAGE_SIZE):
        page_table.install(VMEMMAP + offset, frames.allocate() << PAGE_SHIFT | kernel_flags(page_table))


def _map_direct(machine: Machine, page_table: PageTable) -> None:
    """All RAM at DIRECT_MAP, with 2 MiB pages where RAM fills them."""
    size = machine.ram.size
    huge_end = size & ~(HUGE_SIZE - 1)
    for pa in range(0, huge_end, HUGE_SIZE):
        page_table.install(DIRECT_MAP + pa, pa | kernel_flags(page_table) | Pte.PS, level=2)
    for pa in range(huge_end, size, PAGE_SIZE):
        page_table.install(DIRECT_MAP + pa, pa | kernel_flags(page_table))


def _map_text(machine: Machine, page_table: PageTable, frames: FrameAllocator, text: KernelText) -> None:
    """The assembled entry code, a page with a stub for each function that it calls, and those of the others."""
    for va, content in text.pages.items():
        pfn = frames.allocate()
        machine.ram.write(pfn << PAGE_SHIFT, content.ljust(PAGE_SIZE, b"\xcc"))
        is_global = not page_table.isolated or va in text.entry
        page_table.install(va, pfn << PAGE_SHIFT | _READ_EXECUTE | (G if is_global else 0))


def _map_entry_area(machine: Machine, page_table: PageTable, frames: FrameAllocator, text: KernelText) -> int:
    """cpu_entry_area and the per-CPU pages. Returns the first pfn of the per-CPU area, which begins with the TSS."""
    percpu = frames.allocate(order=1)
    idt, gdt, entry_stack = frames.allocate(), frames.allocate(), frames.allocate()
    double_fault_stack = [frames.allocate(), frames.allocate()]
    placed = {IDT_VA: idt, GDT_VA: gdt, ENTRY_STACK_VA: entry_stack, TSS_VA: percpu}
    placed |= {DF_STACK_VA + i * PAGE_SIZE: pfn for i, pfn in enumerate(double_fault_stack)}
    for va, pfn in placed.items():
        machine.ram.zero(pfn << PAGE_SHIFT, PAGE_SIZE)
        page_table.install(va, pfn << PAGE_SHIFT | _READ_WRITE | G)
    machine.ram.zero((percpu + 1) << PAGE_SHIFT, PAGE_SIZE)
    machine.ram.write(idt << PAGE_SHIFT, _idt(text))
    machine.ram.write(gdt << PAGE_SHIFT, _gdt())
    machine.ram.write(percpu << PAGE_SHIFT, _tss())
    return percpu


def _idt(text: KernelText) -> bytes:
    """256 gates (SDM Figure 6-8); vectors without a handler stay not present."""
    table = bytearray(256 * 16)
    handlers = {vector: text.symbols[f"asm_exc_{name}"] for vector, name in _GATES.items()}
    handlers[TIMER_VECTOR] = text.symbols["asm_sysvec_apic_timer_interrupt"]
    for vector, handler in handlers.items():
        ist = 1 if vector == _DOUBLE_FAULT else 0
        access = 0x8E | (0x60 if vector in _USER_GATES else 0)
        gate = (handler & 0xFFFF, Selector.KERNEL_CS, ist, access, handler >> 16 & 0xFFFF, handler >> 32, 0)
        struct.pack_into("<HHBBHII", table, 16 * vector, *gate)
    return bytes(table)


def _gdt() -> bytes:
    """The descriptors, with that of the TSS (SDM Figure 8-4)."""
    table = bytearray(Selector.TSS + 16)
    for selector, descriptor in GDT.items():
        struct.pack_into("<Q", table, selector, descriptor)
    low = TSS_SIZE - 1 | (TSS_VA & 0xFF_FFFF) << 16 | 0x89 << 40 | (TSS_VA >> 24 & 0xFF) << 56
    struct.pack_into("<QQ", table, Selector.TSS, low, TSS_VA >> 32)
    return bytes(table)


def _tss() -> bytes:
    """RSP0 is the entry stack, IST1 the double-fault stack (SDM Figure 8-11)."""
    tss = bytearray(TSS_SIZE)
    struct.pack_into("<Q", tss, 0x04, ENTRY_STACK_VA + PAGE_SIZE)
    struct.pack_into("<Q", tss, 0x24, DF_STACK_VA + 2 * PAGE_SIZE)
    struct.pack_into("<H", tss, 0x66, TSS_SIZE)
    return bytes(tss)


def _switch_on(machine: Machine, page_table: PageTable, percpu: int, text: KernelText, *, pcid: bool) -> None:
    """Control registers, MSRs and table registers."""
    features = machine.profile.features
    machine.write_msr(Msr.EFER, Efer.SCE | Efer.LME | (Efer.NXE if features.nx else 0))
    machine.write_cr3(page_table.pgd)
    cr4 = machine.control.cr4
    for present, bit in ((features.pge, Cr4.PGE), (features.smep, Cr4.SMEP), (features.smap, Cr4.SMAP)):
        cr4 |= bit if present else 0
    machine.write_cr4(cr4 | (Cr4.PCIDE if pcid and features.pcid else 0))
    machine.control.gdtr = DescriptorTable(GDT_VA, Selector.TSS + 15)
    machine.control.idtr = DescriptorTable(IDT_VA, 256 * 16 - 1)
    machine.interrupts.load_task_register(Selector.TSS)
    machine.write_msr(Msr.STAR, Selector.KERNEL_CS << 32 | 0x23 << 48)
    machine.write_msr(Msr.LSTAR, text.symbols["entry_SYSCALL_64"])
    machine.write_msr(Msr.FMASK, SYSCALL_MASK)
    machine.write_msr(Msr.GS_BASE, percpu)
    machine.write_msr(Msr.KERNEL_GS_BASE, 0)
