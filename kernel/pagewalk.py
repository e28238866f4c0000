"""Looking at the pages of a process, entry by entry (mm/pagewalk.c), and adding them up (fs/proc/task_mmu.c).

Nothing here has an effect: entries and struct pages are read past the TLBs, and nothing is counted.

>>> from emu import Machine
>>> from emu.assembler import assemble_source
>>> from kernel import Kernel
>>> kernel = Kernel(Machine(ram="16M"))
>>> process = kernel.spawn(assemble_source("_start: jmp _start"))
>>> totals = resident_set(kernel, process.mm)
>>> totals.anonymous, totals.private_dirty, totals.file  # the stack, where its arguments lie
(4096, 4096, 0)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu.pte import ADDRESS_MASK, PAGE_SIZE, Pte
from emu.walk_report import page_walk

from .compound import FLAGS, STRUCT_PAGE_SIZE
from .layout import VMEMMAP
from .page_table import KERNEL_HALF, TOP_LEVEL
from .pages import ANONYMOUS
from .pte import is_huge, is_mapped, is_special, pfn_of
from .vma import Vma, VmaFlag

if TYPE_CHECKING:
    from .address_space import AddressSpace
    from .kernel import Kernel
    from .process import Process

__all__ = ["MappedPage", "ResidentSet", "mapped_pages", "mapped_ranges", "peek", "resident_set"]

P, A, D, PS = int(Pte.P), int(Pte.A), int(Pte.D), int(Pte.PS)
KERNEL_START: Final = 0xFFFF_8000_0000_0000
"""First address of the kernel half."""
PSS_SHIFT: Final = 12
"""Shares of a page are counted in parts of a byte, so that the rounding does not add up."""


@dataclass(frozen=True, slots=True)
class MappedPage:
    """A page of 4 KiB of which an entry tells, by itself or as a part of the huge page that it maps (`is_huge`). `pfn`
    is None for a page that was swapped out.

    `mapcount` says how many entries map the frame; 0 for the zero page, which nobody counts, and for swapped ones.
    """

    va: int
    entry: int
    pfn: int | None
    mapcount: int
    is_anonymous: bool

    @property
    def is_huge(self) -> bool:
        """Whether the entry maps a huge page."""
        return is_huge(self.entry)

    @property
    def is_zero_page(self) -> bool:
        """Whether this is the page of zeros that all share until they write."""
        return self.pfn is not None and is_special(self.entry)

    @property
    def is_dirty(self) -> bool:
        """Whether it was written through this entry."""
        return self.entry & D != 0

    @property
    def is_exclusive(self) -> bool:
        """Whether no other entry maps the frame."""
        return self.mapcount == 1


def mapped_pages(kernel: Kernel, mm: AddressSpace, start: int, end: int) -> Iterator[MappedPage]:
    """Every page from `start` up to `end` that an entry tells of, in order."""
    for va, entry, _ in mm.page_table.leaves(start, end, kernel.manager.early):
        if not is_mapped(entry):
            yield MappedPage(va, entry, None, 0, is_anonymous=True)
            continue
        first, is_anonymous = pfn_of(entry), not is_special(entry) and _is_anonymous(kernel, pfn_of(entry))
        compound = kernel.pages.compound(first)
        entire = len(compound.entire) if compound is not None else 0
        for offset in range(max(start - va, 0), min(mm.manager.huge.size_of(entry), end - va), PAGE_SIZE):
            pfn = first + offset // PAGE_SIZE
            mapcount = 0 if is_special(entry) else len(kernel.pages.mappings(pfn)) + entire
            yield MappedPage(va + offset, entry, pfn, mapcount, is_anonymous=is_anonymous)


def _is_anonymous(kernel: Kernel, pfn: int) -> bool:
    """PageAnon, read where the struct page lies."""
    walk = page_walk(kernel.machine.ram, kernel.manager.kernel_half.pgd, VMEMMAP + STRUCT_PAGE_SIZE * pfn + 8 * FLAGS)
    assert walk.pa is not None
    return kernel.manager.early.load64(walk.pa) & ANONYMOUS != 0


@dataclass(slots=True)
class ResidentSet:
    """Bytes of a VMA, or of all, that are in memory (struct mem_size_stats).

    Shared and private say whether other entries map a page, too; `pss` divides each page among all that map it, in
    units of 1/4096 byte. The zero page counts nowhere.
    """

    anonymous: int = 0
    file: int = 0
    shmem: int = 0
    shared_clean: int = 0
    shared_dirty: int = 0
    private_clean: int = 0
    private_dirty: int = 0
    referenced: int = 0
    swap: int = 0
    anonymous_huge: int = 0
    shared_hugetlb: int = 0
    private_hugetlb: int = 0
    pss: int = 0
    pss_dirty: int = 0
    pss_anonymous: int = 0
    pss_file: int = 0
    pss_shmem: int = 0
    pss_locked: int = 0

    @property
    def resident(self) -> int:
        """Rss."""
        return self.anonymous + self.file + self.shmem

    def add(self, page: MappedPage, vma: Vma) -> None:
        """Count a page (smaps_account)."""
        if page.pfn is None:
            self.swap += PAGE_SIZE
            return
        if page.is_zero_page:
            return
        if vma.flags & VmaFlag.HUGETLB:  # they are in no other sum (smaps_hugetlb_range)
            self.private_hugetlb += PAGE_SIZE * page.is_exclusive
            self.shared_hugetlb += PAGE_SIZE * (not page.is_exclusive)
            return
        share = (PAGE_SIZE << PSS_SHIFT) // page.mapcount
        self._add_kind(page, vma, share)
        dirty = "dirty" if page.is_dirty else "clean"
        name = f"{'private' if page.is_exclusive else 'shared'}_{dirty}"
        setattr(self, name, getattr(self, name) + PAGE_SIZE)
        self.pss += share
        self.pss_dirty += share * page.is_dirty
        self.pss_locked += share * (vma.flags & VmaFlag.LOCKED != 0)
        self.referenced += PAGE_SIZE * (page.entry & A != 0)

    def _add_kind(self, page: MappedPage, vma: Vma, share: int) -> None:
        if page.is_anonymous:
            self.anonymous += PAGE_SIZE
            self.anonymous_huge += PAGE_SIZE * page.is_huge
            self.pss_anonymous += share
        elif vma.backing is not None and vma.backing.is_shmem:
            self.shmem += PAGE_SIZE
            self.pss_shmem += share
        else:
            self.file += PAGE_SIZE
            self.pss_file += share


def resident_set(kernel: Kernel, mm: AddressSpace, vma: Vma | None = None) -> ResidentSet:
    """What is in memory of one VMA, or of all."""
    totals = ResidentSet()
    for one in mm.vmas if vma is None else (vma,):
        for page in mapped_pages(kernel, mm, one.start, one.end):
            totals.add(page, one)
    return totals


def peek(kernel: Kernel, process: Process, va: int, size: int) -> bytes:
    """What a process has at an address, as the kernel maps it; pages that are not there are zero."""
    data = b""
    while len(data) < size:
        pa = kernel.page_walk(process, va + len(data)).pa
        part = min(size - len(data), PAGE_SIZE - (va + len(data)) % PAGE_SIZE)
        data += bytes(part) if pa is None else kernel.manager.early.read(pa, part)
    return data


def mapped_ranges(kernel: Kernel, pgd: int) -> list[tuple[int, int]]:
    """The parts of the kernel half that a PGD at a physical address maps, as (start, end), in order."""
    found: list[tuple[int, int]] = []
    for start, end in _leaf_ranges(kernel, pgd, TOP_LEVEL, KERNEL_START, KERNEL_HALF):
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _leaf_ranges(kernel: Kernel, table: int, level: int, base: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """What the entries of a table map, from one of them on; large pages too."""
    shift = 3 + 9 * level
    data = kernel.manager.early.read(table + 8 * first, PAGE_SIZE - 8 * first)
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", data)):
        start = base + (index << shift)
        if not entry & P:
            continue
        if level == 1 or (level < TOP_LEVEL and entry & PS):
            yield start, start + (1 << shift)
        else:
            yield from _leaf_ranges(kernel, entry & ADDRESS_MASK, level - 1, start)
