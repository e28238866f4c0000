"""How the kernel touches memory: through its own virtual addresses, as its machine code would.

Before paging is set up there is only physical memory (`EarlyMemory`). Afterwards every load and store of a page-table
entry, of a frame or of a task goes through the direct map and so through the TLBs: kernel work leaves its footprint.
"""

from __future__ import annotations

from typing import Protocol

from emu.machine import Machine
from emu.pte import ADDRESS_MASK, INDEX_MASK, PAGE_SIZE, Pte
from emu.ram import Ram

from .layout import DIRECT_MAP, direct_map
from .work import Work

__all__ = ["EarlyMemory", "KernelMemory", "PhysicalMemory"]

PRESENT, LARGE = int(Pte.P), int(Pte.PS)


class PhysicalMemory(Protocol):
    """8-byte words and whole frames by physical address."""

    def load64(self, pa: int) -> int:
        """Load the word at an aligned physical address."""
        ...

    def store64(self, pa: int, value: int) -> None:
        """Store a word at an aligned physical address."""
        ...

    def read(self, pa: int, size: int) -> bytes:
        """Read bytes of a frame."""
        ...

    def clear_frame(self, pfn: int) -> None:
        """Fill a frame with zeros."""
        ...

    def descend(self, table: int, va: int, level: int, last: int) -> tuple[int, int]:
        """Follow page tables from the table of one level down to the level `last`.

        Returns (physical address, level) of the entry for `va` at that level, or of the one above it that is not
        present or maps a huge page.
        """
        ...


class EarlyMemory:
    """Physical memory before there are page tables."""

    def __init__(self, ram: Ram) -> None:
        self.load64, self.store64, self.read = ram.load64, ram.store64, ram.read
        self._ram = ram

    def clear_frame(self, pfn: int) -> None:
        """Fill a frame with zeros."""
        self._ram.zero(pfn * PAGE_SIZE, PAGE_SIZE)

    def descend(self, table: int, va: int, level: int, last: int) -> tuple[int, int]:
        """Follow page tables."""
        while True:
            pa = table + 8 * (va >> (3 + 9 * level) & INDEX_MASK)
            if level == last:
                return pa, level
            entry = self.load64(pa)
            if not entry & PRESENT or entry & LARGE:
                return pa, level
            table, level = entry & ADDRESS_MASK, level - 1


class KernelMemory:
    """Physical memory through the direct map; what ends in `_va`, and `load_words`, takes any kernel address."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._mmu = machine, machine.mmu
        mmu = machine.mmu
        self.load_va, self.store_va, self.load_words = mmu.load64, mmu.store64, mmu.load_words
        self.read_va, self.write_va = mmu.read, mmu.write

    def enter(self, work: Work, times: int = 1) -> None:
        """A function of the kernel's: its text is fetched, and its instructions take their time (see work.py)."""
        self._mmu.fetch(work.va)
        self._machine.charge("kernel_work", work.price(times))

    def load64(self, pa: int) -> int:
        """Load the word at an aligned physical address."""
        return self._mmu.load64(direct_map(pa))

    def store64(self, pa: int, value: int) -> None:
        """Store a word at an aligned physical address."""
        self._mmu.store64(direct_map(pa), value)

    def clear_frame(self, pfn: int) -> None:
        """Fill a frame with zeros (clear_page)."""
        self._mmu.clear_page(direct_map(pfn * PAGE_SIZE))

    def clear_frames(self, pfn: int, count: int) -> None:
        """Fill consecutive frames with zeros (clear_huge_page)."""
        for frame in range(pfn, pfn + count):
            self.clear_frame(frame)

    def copy_frames(self, target: int, source: int, count: int) -> None:
        """Copy consecutive frames (copy_user_huge_page)."""
        for part in range(count):
            self.copy_frame(target + part, source + part)

    def copy_frame(self, target: int, source: int) -> None:
        """Copy one frame to another (copy_page)."""
        self._mmu.copy_page(direct_map(target * PAGE_SIZE), direct_map(source * PAGE_SIZE))

    def descend(self, table: int, va: int, level: int, last: int) -> tuple[int, int]:
        """Follow page tables."""
        return self._mmu.descend(DIRECT_MAP, table, va, level, last)

    def clear_bit(self, table: int, start: int, end: int, bit: int) -> list[tuple[int, int]]:
        """Clear a bit in all present leaves of a range; returns (va, entry as it was) of those that had it."""
        return self._mmu.clear_bit(DIRECT_MAP, table, start, end, bit)

    def read(self, pa: int, size: int) -> bytes:
        """Read bytes of a frame."""
        return self._mmu.read(direct_map(pa), size)

    def write(self, pa: int, data: bytes) -> None:
        """Write bytes to a frame."""
        self._mmu.write(direct_map(pa), data)
