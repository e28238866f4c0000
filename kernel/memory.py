"""How the kernel touches memory: through its own virtual addresses, as its machine code would.

Before paging is set up there is only physical memory (`EarlyMemory`). Afterwards every load and store of a page-table
entry, of a frame or of a task goes through the direct map and so through the TLBs: kernel work leaves its footprint.
"""

from __future__ import annotations

from typing import Protocol

from emu.machine import Machine
from emu.pte import PAGE_SIZE
from emu.ram import Ram

from .layout import direct_map

__all__ = ["EarlyMemory", "KernelMemory", "PhysicalMemory"]


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


class EarlyMemory:
    """Physical memory before there are page tables."""

    def __init__(self, ram: Ram) -> None:
        self.load64, self.store64, self.read = ram.load64, ram.store64, ram.read
        self._ram = ram

    def clear_frame(self, pfn: int) -> None:
        """Fill a frame with zeros."""
        self._ram.zero(pfn * PAGE_SIZE, PAGE_SIZE)


class KernelMemory:
    """Physical memory through the direct map."""

    def __init__(self, machine: Machine) -> None:
        self._mmu = machine.mmu

    def load64(self, pa: int) -> int:
        """Load the word at an aligned physical address."""
        return self._mmu.load64(direct_map(pa))

    def store64(self, pa: int, value: int) -> None:
        """Store a word at an aligned physical address."""
        self._mmu.store64(direct_map(pa), value)

    def clear_frame(self, pfn: int) -> None:
        """Fill a frame with zeros (clear_page)."""
        self._mmu.write(direct_map(pfn * PAGE_SIZE), bytes(PAGE_SIZE))

    def read(self, pa: int, size: int) -> bytes:
        """Read bytes of a frame."""
        return self._mmu.read(direct_map(pa), size)

    def write(self, pa: int, data: bytes) -> None:
        """Write bytes to a frame."""
        self._mmu.write(direct_map(pa), data)

    def load_va(self, va: int) -> int:
        """Load the word at a kernel address."""
        return self._mmu.load64(va)

    def store_va(self, va: int, value: int) -> None:
        """Store a word at a kernel address."""
        self._mmu.store64(va, value)

    def read_va(self, va: int, size: int) -> bytes:
        """Read bytes at a kernel address."""
        return self._mmu.read(va, size)

    def write_va(self, va: int, data: bytes) -> None:
        """Write bytes at a kernel address."""
        self._mmu.write(va, data)
