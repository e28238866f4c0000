"""khugepaged: small pages become huge ones later, when a program has filled them (mm/khugepaged.c).

A page fault gives a huge page only where nothing is yet. Where small pages are, because memory was short, or the
program asked too late, a kernel thread looks at them from time to time, some pages at a time, and *collapses* a table
of 512 PTEs into one PMD: it copies the pages to a new huge one. A program can ask for that at once (MADV_COLLAPSE).

    the PMD is emptied                    from now on nobody can walk to the small pages
    the TLB forgets them                  or the program would go on writing to pages that are copied already
    the pages are copied, then let go
    the emptied table is put aside        for the day when the huge page is split
    the PMD maps the huge page

The thread's knobs are below /sys/kernel/mm/transparent_hugepage/khugepaged. Its time is the model's.
"""

from __future__ import annotations

import errno
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from emu.pte import ADDRESS_MASK, PAGE_SIZE, ErrorCode

from .compound import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from .exceptions import Errno
from .huge_memory import HPAGE_MASK, THP_DISABLE
from .layout import direct_map
from .pte import PS, A, is_huge, is_mapped, is_special, is_swap, pfn_of, user_pte
from .vma import Vma, VmaFlag

if TYPE_CHECKING:
    from .address_space import AddressSpace
    from .kernel import Kernel

__all__ = ["Collapse", "Khugepaged", "madvise_collapse"]

MILLISECOND: Final = 1_000_000
"""Nanoseconds."""


class Collapse(Enum):
    """How an attempt ended (enum scan_result)."""

    SUCCEED = auto()
    PMD_MAPPED = auto()  # it is a huge page already
    PMD_NULL = auto()  # nothing was ever there
    EXCEED_NONE_PTE = auto()  # too much of it is not used
    EXCEED_SWAP_PTE = auto()
    EXCEED_SHARED_PTE = auto()
    LACK_REFERENCED_PAGE = auto()  # nobody used it lately
    PAGE_COUNT = auto()  # the kernel is using a page just now, or it is on its way from swap
    PAGE_ANON = auto()  # nothing was ever written, or not to anonymous memory
    ALLOC_HUGE_PAGE_FAIL = auto()

    @property
    def is_huge(self) -> bool:
        """Whether there is a huge page now."""
        return self in (Collapse.SUCCEED, Collapse.PMD_MAPPED)

    @property
    def errno(self) -> int:
        """What MADV_COLLAPSE answers (madvise_collapse_errno)."""
        numbers = {Collapse.ALLOC_HUGE_PAGE_FAIL: errno.ENOMEM, Collapse.PAGE_COUNT: errno.EAGAIN}
        return numbers.get(self, errno.EINVAL)


class Khugepaged:
    """The thread, and what it does. Numbers that can be set have the names of their files."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._manager = kernel, kernel.manager
        self._memory, self._pages = kernel.memory, kernel.pages
        self.defrag = 1
        self.pages_to_scan = 8 * HPAGE_PMD_NR
        self.scan_sleep_millisecs, self.alloc_sleep_millisecs = 10_000, 60_000
        self.max_ptes_none, self.max_ptes_swap, self.max_ptes_shared = HPAGE_PMD_NR - 1, 64, 256
        self.pages_collapsed = self.full_scans = 0
        self._place: tuple[AddressSpace | None, int] = (None, 0)
        self._next_scan = 0

    # --- the thread -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """A timer interrupt: is it time to look (khugepaged_do_scan)?"""
        kernel = self._kernel
        if self._manager.huge.spaces and kernel.now >= self._next_scan:
            failed = self._scan()
            sleep = self.alloc_sleep_millisecs if failed else self.scan_sleep_millisecs
            self._next_scan = kernel.now + kernel.cycles(sleep * MILLISECOND)

    def wake(self) -> None:
        """A knob was turned: look soon (wake_up_interruptible of khugepaged_wait)."""
        self._next_scan = 0

    def _scan(self) -> bool:
        """Look at some pages, from where the last scan ended, once around at most. Whether there was no memory."""
        progress, scans = 0, self.full_scans
        while progress < self.pages_to_scan and self.full_scans == scans:
            found = self._next()
            if found is None:
                continue
            mm, vma, va = found
            result = self.collapse(mm, vma, va, is_asked=False)
            progress += HPAGE_PMD_NR
            if result is Collapse.SUCCEED:
                self.pages_collapsed += 1
            elif result is Collapse.ALLOC_HUGE_PAGE_FAIL:
                return True
        return False

    def _next(self) -> tuple[AddressSpace, Vma, int] | None:
        """The next 2 MiB that may become a huge page; None at the end of an address space (khugepaged_scan_mm_slot)."""
        huge, (mm, at) = self._manager.huge, self._place
        if mm not in huge.spaces:
            mm, at = next(iter(huge.spaces), None), 0
        if mm is None:
            self.full_scans += 1
            return None
        for vma in mm.vmas:
            start = max(vma.start + -vma.start % HPAGE_PMD_SIZE, at)
            if start + HPAGE_PMD_SIZE <= vma.end and huge.is_allowed(mm, vma):
                self._place = mm, start + HPAGE_PMD_SIZE
                return mm, vma, start
        spaces = list(huge.spaces)
        behind = spaces[spaces.index(mm) + 1 :]
        self._place = (behind[0] if behind else None, 0)
        self.full_scans += not behind
        return None

    # --- one huge page ----------------------------------------------------------------------------------------------

    def collapse(self, mm: AddressSpace, vma: Vma, va: int, *, is_asked: bool) -> Collapse:
        """Make one huge page of the small ones in an aligned 2 MiB. A program that asks for it gets it even where it
        costs more memory than it saves time (hpage_collapse_scan_pmd).
        """
        pmd, level = mm.page_table.find(va)
        if level > 1:
            return Collapse.PMD_MAPPED if is_huge(self._memory.load64(pmd)) else Collapse.PMD_NULL
        if vma.anon_vma is None:
            return Collapse.PAGE_ANON
        refusal = self._look(pmd, is_asked=is_asked) or self._swap_in(mm, va, pmd)
        if refusal is not None:
            return refusal
        counts = self._manager.huge.counts
        try:
            pfn = self._pages.allocate_huge(mm, va, reclaim=is_asked or self.defrag != 0)
        except Errno:
            counts["collapse_alloc_failed"] += 1
            return Collapse.ALLOC_HUGE_PAGE_FAIL
        counts["collapse_alloc"] += 1
        refusal = self._look(pmd, is_asked=True)  # the huge page may have cost one of the small ones its frame
        if refusal is not None or any(map(is_swap, self._entries(pmd))):
            self._pages.unmap_entire(pfn, mm, va)
            return refusal or Collapse.PAGE_COUNT
        self._replace(mm, vma, va, pmd, pfn)
        self._manager.huge.tell("collapse", va, pfn)
        return Collapse.SUCCEED

    def _entries(self, table: int) -> list[int]:
        """All entries of a table."""
        return self._memory.load_words(direct_map(table), HPAGE_PMD_NR)

    def _look(self, table: int, *, is_asked: bool) -> Collapse | None:
        """Why the pages of a table cannot, or shall not, become one; None if they can."""
        entries = self._entries(table)
        pages = [pfn_of(entry) for entry in entries if is_mapped(entry) and not is_special(entry)]
        if not all(map(self._pages.is_anonymous, pages)):
            return Collapse.PAGE_ANON
        if any(self._pages.is_used(pfn) for pfn in pages):
            return Collapse.PAGE_COUNT
        if is_asked:
            return None
        swapped = sum(map(is_swap, entries))
        if len(entries) - len(pages) - swapped > self.max_ptes_none:
            return Collapse.EXCEED_NONE_PTE
        if swapped > self.max_ptes_swap:
            return Collapse.EXCEED_SWAP_PTE
        if sum(map(self._pages.is_shared, pages)) > self.max_ptes_shared:
            return Collapse.EXCEED_SHARED_PTE
        used = sum(entry & A != 0 for entry in entries if is_mapped(entry))
        if not used or (swapped and used < HPAGE_PMD_NR // 2):
            return Collapse.LACK_REFERENCED_PAGE
        return None

    def _swap_in(self, mm: AddressSpace, va: int, table: int) -> Collapse | None:
        """Bring back what is in swap; what the device has not read yet is for another time
        (__collapse_huge_page_swapin).
        """
        missing = False
        for index, entry in enumerate(self._entries(table)):
            if is_swap(entry):
                result = self._kernel.faults.handle_page_fault(mm, va + index * PAGE_SIZE, int(ErrorCode.U))
                missing |= not result.resolved or is_swap(self._memory.load64(table + 8 * index))
        return Collapse.PAGE_COUNT if missing else None

    def _replace(self, mm: AddressSpace, vma: Vma, va: int, table: int, pfn: int) -> None:
        """Let the PMD map the huge page, with the content of the small ones (collapse_huge_page)."""
        memory, pmd = self._memory, mm.page_table.entry_address(va, level=2)
        assert pmd is not None
        memory.store64(pmd, 0)
        self._manager.tlb.flush(mm, va, va + HPAGE_PMD_SIZE, "collapse")
        for index, entry in enumerate(self._entries(table)):
            if not is_mapped(entry) or is_special(entry):
                memory.clear_frame(pfn + index)
                continue
            memory.copy_frame(pfn + index, pfn_of(entry))
            self._pages.unmap(pfn_of(entry), mm, va + index * PAGE_SIZE)
        memory.clear_frame(table // PAGE_SIZE)
        mm.page_table.deposit(table & ADDRESS_MASK)
        mm.page_table.set_huge(pmd, user_pte(pfn, vma.flags, dirty=True) | PS)


def madvise_collapse(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_COLLAPSE: huge pages now, whatever the knobs say. Raises Errno, with done what could be."""
    refused = vma.flags & (VmaFlag.NO_HUGE_PAGE | VmaFlag.HUGETLB) or vma.backing is not None
    first, last = start + -start % HPAGE_PMD_SIZE, end & HPAGE_MASK
    if refused or mm.thp_disable == THP_DISABLE or not kernel.manager.huge.covers(vma, vma.end - HPAGE_PMD_SIZE):
        raise Errno(errno.EINVAL)
    failure = Collapse.PMD_NULL if last < first else None
    for va in range(first, last, HPAGE_PMD_SIZE):
        result = kernel.khugepaged.collapse(mm, vma, va, is_asked=True)
        if not result.is_huge:
            failure = result
            if result is not Collapse.PAGE_COUNT:
                break
    if failure is not None:
        raise Errno(failure.errno)
