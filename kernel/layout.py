"""The address map of a process and of the kernel, as Linux has it with 4-level page tables.

    0000000000000000  user half: text at 0x400000, brk heap above it, mmap area below the stack
    00007ffffffff000  end of the user half (TASK_SIZE)
    ffff888000000000  direct map: all RAM, with 2 MiB pages
    ffffc90000000000  vmalloc area: kernel stacks, with a guard page below each
    ffffea0000000000  vmemmap: a struct page of 64 bytes for every frame
    fffffe0000000000  cpu_entry_area: IDT, GDT, entry stack, TSS, exception stacks
    ffffffff81000000  kernel text

Facts: Documentation/arch/x86/x86_64/mm.rst, arch/x86/include/asm/page_64_types.h, asm/cpu_entry_area.h. Linux chooses
the same addresses when it does not randomise them.
"""

from __future__ import annotations

from typing import Final

from emu import PAGE_SIZE

__all__ = [
    "CPU_ENTRY_AREA",
    "DIRECT_MAP",
    "KERNEL_TEXT",
    "MMAP_MIN_ADDR",
    "STACK_TOP",
    "TASK_SIZE",
    "VMALLOC",
    "VMEMMAP",
    "Selector",
    "direct_map",
    "page_align",
]

TASK_SIZE: Final = 0x7FFF_FFFF_F000
"""First address that is not the user's: one page below bit 47 (TASK_SIZE_MAX in page_64_types.h)."""
STACK_TOP: Final = TASK_SIZE
MMAP_MIN_ADDR: Final = 0x1000
"""Lowest address that a program can map: a null pointer with an offset shall fault (vm.mmap_min_addr; its default is
CONFIG_DEFAULT_MMAP_MIN_ADDR, 4096 in mm/Kconfig)."""
MMAP_MIN_HINT: Final = 0x1_0000
"""Lowest address that the kernel chooses near a hint (CONFIG_LSM_MMAP_MIN_ADDR; round_hint_to_min)."""
STACK_GAP: Final = 128 << 20
"""Kept free below the stack's top for it to grow (MIN_GAP in arch/x86/mm/mmap.c, without randomisation)."""
MMAP_BASE: Final = STACK_TOP - STACK_GAP

DIRECT_MAP: Final = 0xFFFF_8880_0000_0000
VMALLOC: Final = 0xFFFF_C900_0000_0000
VMEMMAP: Final = 0xFFFF_EA00_0000_0000
CPU_ENTRY_AREA: Final = 0xFFFF_FE00_0000_0000
KERNEL_TEXT: Final = 0xFFFF_FFFF_8100_0000

# struct cpu_entry_area: the IDT is shared and comes first, then the first CPU's own pages.
IDT_VA: Final = CPU_ENTRY_AREA
GDT_VA: Final = CPU_ENTRY_AREA + PAGE_SIZE
ENTRY_STACK_VA: Final = CPU_ENTRY_AREA + 2 * PAGE_SIZE
TSS_VA: Final = CPU_ENTRY_AREA + 3 * PAGE_SIZE
DF_STACK_VA: Final = CPU_ENTRY_AREA + 6 * PAGE_SIZE
"""Two pages, above one guard page."""

KERNEL_STACK_PAGES: Final = 4
"""THREAD_SIZE is 16 KiB (asm/page_64_types.h)."""


class Selector:
    """Segment selectors, asm/segment.h."""

    KERNEL_CS: Final = 0x10
    KERNEL_DS: Final = 0x18
    USER_DS: Final = 0x2B
    USER_CS: Final = 0x33
    TSS: Final = 0x40


def direct_map(pa: int) -> int:
    """Kernel address of a physical address (`__va` in Linux)."""
    return DIRECT_MAP + pa


def page_align(address: int) -> int:
    """The next page boundary at or above an address (PAGE_ALIGN).

    >>> hex(page_align(0x1001))
    '0x2000'
    """
    return (address + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)
