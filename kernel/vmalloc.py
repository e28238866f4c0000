"""The vmalloc area: kernel memory that is contiguous only in its addresses (mm/vmalloc.c).

Frames are mapped one by one below an entry of the PGD that every process inherited. So one change below the PGD is
seen by all: that is why a process can run on, or look at, kernel memory that was made while another one ran. An
unmapped page below each area catches what runs off its end.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from .asid import TlbContexts
from .exceptions import Errno, KernelPanic
from .layout import VMALLOC
from .memory import KernelMemory
from .page_table import PageTable
from .pti import kernel_flags

if TYPE_CHECKING:
    from .frames import FrameAllocator

__all__ = ["Vmalloc"]

LARGEST: Final = 1 << 27
"""Pages that the one PGD entry spans."""


class Vmalloc:
    """Hands out areas of kernel memory, the lowest free addresses first."""

    def __init__(self, memory: KernelMemory, frames: FrameAllocator, page_table: PageTable, tlb: TlbContexts) -> None:
        self._memory, self._frames, self._page_table, self._tlb = memory, frames, page_table, tlb
        self._areas: dict[int, list[int]] = {}  # start: pfns

    def allocate(self, pages: int) -> int:
        """The kernel address of so many pages of zeros. Raises Errno(ENOMEM), with nothing allocated."""
        if self._frames.free_frames < pages + 2:  # two may become page tables
            raise Errno(errno.ENOMEM)
        start = self._place(pages)
        pfns = self._areas[start] = [self._frames.allocate() for _ in range(pages)]
        for index, pfn in enumerate(pfns):
            self._page_table.install(start + index * PAGE_SIZE, pfn << PAGE_SHIFT | kernel_flags(self._page_table))
            self._memory.clear_frame(pfn)
        return start

    def _place(self, pages: int) -> int:
        """The first gap that has room for the pages and the guard page below them."""
        at = VMALLOC
        for start in sorted(self._areas):
            if start - at >= (pages + 1) * PAGE_SIZE:
                break
            at = start + len(self._areas[start]) * PAGE_SIZE
        if at + (pages + 1) * PAGE_SIZE > VMALLOC + LARGEST * PAGE_SIZE:
            raise Errno(errno.ENOMEM)
        return at + PAGE_SIZE

    def free(self, start: int) -> None:
        """Take an area away: entries, TLB, frames, in this order."""
        pfns = self._areas.pop(start, None)
        if pfns is None:
            raise KernelPanic(f"vfree of {start:#x}, which is no area")
        for index in range(len(pfns)):
            self._page_table.clear(start + index * PAGE_SIZE)
        self._tlb.flush_kernel(start, start + len(pfns) * PAGE_SIZE)
        for pfn in pfns:
            self._frames.free(pfn)

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """(start, pages) of each area, in order (/proc/vmallocinfo)."""
        return tuple((start, len(pfns)) for start, pfns in sorted(self._areas.items()))
