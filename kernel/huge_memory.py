"""Transparent huge pages: 2 MiB of anonymous memory at once, without being asked (mm/huge_memory.c).

A PMD can map a huge page itself instead of leading to a table of 512 PTEs: the H bit of the lecture's `walk_pmd`. One
page fault then delivers what 512 would have, a walk ends one level earlier, and one TLB entry covers all of it. The
price is 2 MiB of memory for whoever wanted 4 KiB. Who gets huge pages is decided by a knob of sysfs and by the program:

    enabled    always     every mapping that covers a whole aligned 2 MiB
               madvise    those for which the program said MADV_HUGEPAGE
               never      nobody

The program need not know: wherever something concerns only a part of a huge page (munmap, mprotect, swap, a copy after
fork), its PMD is *split* into a table of small pages first. The table was put aside when the huge page was mapped, so
that a split can never fail. The frames stay one compound page until memory is short (see compound.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emu.pte import ADDRESS_MASK, PAGE_SHIFT, PAGE_SIZE

from .compound import HPAGE_PMD_NR, HPAGE_PMD_ORDER, HPAGE_PMD_SIZE
from .events import HugePageEvent
from .exceptions import Errno
from .pte import PS, SPECIAL, A, D, P, W, is_huge, is_special, pfn_of, with_rights
from .vma import Vma, VmaFlag

if TYPE_CHECKING:
    from emu.machine import Machine

    from .address_space import AddressSpace
    from .asid import TlbContexts
    from .frames import FrameAllocator
    from .memory import KernelMemory
    from .pages import Pages

__all__ = ["DEFRAG", "ENABLED", "HPAGE_MASK", "THP_DISABLE", "HugeMemory"]

HPAGE_MASK: Final = -HPAGE_PMD_SIZE
ENABLED: Final = ("always", "madvise", "never")
DEFRAG: Final = ("always", "defer", "defer+madvise", "madvise", "never")
THP_DISABLE: Final = 1
"""PR_SET_THP_DISABLE: no transparent huge pages for this process."""
THP_DISABLE_EXCEPT_ADVISED: Final = 3
"""The same, except where it asks for them."""
_ZEROS: Final = bytes(PAGE_SIZE)
_COUNTS: Final = (
    *("fault_alloc", "fault_fallback", "collapse_alloc", "collapse_alloc_failed", "split_page", "split_page_failed"),
    *("split_pmd", "zero_page_alloc", "zero_page_alloc_failed"),
)


class HugeMemory:
    """The knobs of transparent huge pages, and what is done to PMDs that map them.

    `enabled` and `defrag` are words of ENABLED and DEFRAG. `counts` are the thp_* lines of /proc/vmstat. `zero_pfn` is
    the huge page of zeros that all reads of untouched memory share, while somebody needs it. `spaces` are the address
    spaces that khugepaged looks at.
    """

    def __init__(
        self, machine: Machine, memory: KernelMemory, frames: FrameAllocator, pages: Pages, tlb: TlbContexts, zero: int
    ) -> None:
        self._machine, self._memory, self._frames, self._pages = machine, memory, frames, pages
        self._tlb, self._small_zero = tlb, zero
        self.enabled, self.defrag, self.use_zero_page = "madvise", "madvise", True
        self.zero_pfn: int | None = None
        self._zero_users = 0
        self.spaces: dict[AddressSpace, None] = {}
        self.counts = dict.fromkeys(_COUNTS, 0)

    # --- who gets them ----------------------------------------------------------------------------------------------

    def is_allowed(self, mm: AddressSpace, vma: Vma) -> bool:
        """Whether a VMA may have huge pages now (thp_vma_allowable_order)."""
        advised = vma.flags & VmaFlag.HUGE_PAGE != 0
        if not advised and self.enabled != "always":
            return False
        if self.enabled == "never" or vma.backing is not None or vma.flags & (VmaFlag.NO_HUGE_PAGE | VmaFlag.HUGETLB):
            return False
        return not mm.thp_disable or (mm.thp_disable == THP_DISABLE_EXCEPT_ADVISED and advised)

    @staticmethod
    def covers(vma: Vma, va: int) -> bool:
        """Whether a VMA has all of the aligned 2 MiB around an address (thp_vma_suitable_order)."""
        start = va & HPAGE_MASK
        return vma.start <= start and start + HPAGE_PMD_SIZE <= vma.end

    def enter(self, mm: AddressSpace, vma: Vma) -> None:
        """Khugepaged looks at an address space from now on, if this VMA may have huge pages (khugepaged_enter_vma)."""
        if self.is_allowed(mm, vma):
            self.spaces[mm] = None

    def exit(self, mm: AddressSpace) -> None:
        """An address space ends (khugepaged_exit, mm_put_huge_zero_folio)."""
        self.spaces.pop(mm, None)
        if mm.holds_huge_zero:
            mm.holds_huge_zero = False
            self._zero_users -= 1

    def may_reclaim(self, vma: Vma) -> bool:
        """Whether a fault shall wait for memory to be reclaimed, to get a huge page (vma_thp_gfp_mask)."""
        advised = vma.flags & VmaFlag.HUGE_PAGE != 0
        return self.defrag == "always" or (advised and self.defrag in ("defer+madvise", "madvise"))

    def tell(self, kind: str, va: int, pfn: int, size: int = HPAGE_PMD_SIZE) -> None:
        """Tell listeners what happened to a huge page."""
        if self._machine.events.wants("huge_page"):
            self._machine.events.emit(HugePageEvent(self._machine.clock.now, self._machine.pid, va, kind, pfn, size))

    # --- the huge page of zeros -------------------------------------------------------------------------------------

    def zero_page(self, mm: AddressSpace) -> int | None:
        """The huge page of zeros, which an address space then holds to its end (mm_get_huge_zero_folio). None if there
        is no memory for it.
        """
        if self.zero_pfn is None:
            try:
                self.zero_pfn = self._frames.allocate(HPAGE_PMD_ORDER)
            except Errno:
                self.counts["zero_page_alloc_failed"] += 1
                return None
            self._memory.clear_frames(self.zero_pfn, HPAGE_PMD_NR)
            self.counts["zero_page_alloc"] += 1
        if not mm.holds_huge_zero:
            mm.holds_huge_zero = True
            self._zero_users += 1
        return self.zero_pfn

    def shrink(self) -> int:
        """Memory is short: give back what is kept in case it may be useful, the parts of huge pages that nobody maps
        (deferred_split_scan), and the huge page of zeros. Returns how many frames.
        """
        before = self._frames.free_frames
        for pfn in list(self._pages.deferred):
            self.split_page(pfn)
        self.free_zero_page()
        return self._frames.free_frames - before

    def free_zero_page(self) -> None:
        """Give back the huge page of zeros, unless somebody holds it."""
        if self.zero_pfn is not None and not self._zero_users:
            self._frames.free(self.zero_pfn)
            self.zero_pfn = None

    @property
    def kept_frames(self) -> int:
        """Frames of the huge page of zeros."""
        return HPAGE_PMD_NR if self.zero_pfn is not None else 0

    # --- splitting --------------------------------------------------------------------------------------------------

    def split_borders(self, mm: AddressSpace, start: int, end: int) -> None:
        """No huge page shall lie on both sides of `start`, or of `end` (vma_adjust_trans_huge)."""
        if mm.page_table.huge_leaves:
            for border in (start, end):
                if border % HPAGE_PMD_SIZE:
                    self.split_pmd(mm, border)

    def split_pmd(self, mm: AddressSpace, va: int) -> None:
        """Map the huge page at an address, if there is one, by a table of small pages (__split_huge_pmd).

        Nothing else changes: the same frames, with the same rights.
        """
        pmd, level = mm.page_table.find(va)
        entry = self._memory.load64(pmd) if level == 2 else 0
        if not is_huge(entry):
            return
        start, pfn = va & HPAGE_MASK, pfn_of(entry)
        table = mm.page_table.withdraw()
        self._memory.write(table, self._parts(entry))
        mm.page_table.set_table(pmd, table)
        self._tlb.flush(mm, start, start + HPAGE_PMD_SIZE, "split")
        if not is_special(entry):
            self._pages.split_entire(pfn, mm, start)
        self.counts["split_pmd"] += 1
        self.tell("split", start, pfn)

    def _parts(self, entry: int) -> bytes:
        """The 512 PTEs that map together what one PMD does."""
        if is_special(entry):
            pfns = np.full(HPAGE_PMD_NR, self._small_zero, dtype=np.uint64)
        else:
            pfns = np.arange(pfn_of(entry), pfn_of(entry) + HPAGE_PMD_NR, dtype=np.uint64)
        addresses = pfns << np.uint64(PAGE_SHIFT)
        if entry & ADDRESS_MASK != pfn_of(entry) << PAGE_SHIFT:
            addresses ^= np.uint64(ADDRESS_MASK)
        return (addresses | np.uint64(entry & ~ADDRESS_MASK & ~PS)).tobytes()

    def split_page(self, pfn: int) -> bool:
        """Make a huge page single pages, wherever it is mapped (split_huge_page). Those that hold nothing but zeros
        are given back: the page of zeros does as well. False if the kernel is using it just now.
        """
        compound = self._pages.compounds[pfn]
        if self._pages.refcount(pfn) != compound.mappings:
            self.counts["split_page_failed"] += 1
            return False
        where = compound.entire[0][1] if compound.entire else 0
        for mm, va in list(compound.entire):
            self.split_pmd(mm, va)
        self._pages.split_compound(pfn)
        self.counts["split_page"] += 1
        self.tell("split_page", where, pfn)
        for part in range(pfn, pfn + HPAGE_PMD_NR):
            if self._memory.read(part * PAGE_SIZE, PAGE_SIZE) == _ZEROS:
                self._map_to_zero_page(part)
        return True

    def _map_to_zero_page(self, pfn: int) -> None:
        """Nobody shall keep a frame of zeros (try_to_map_unused_to_zeropage)."""
        for mm, va in self._pages.mappings(pfn):
            vma = mm.vmas.find(va)
            if vma is None or vma.flags & VmaFlag.LOCKED:
                continue
            pte, _ = mm.page_table.find(va)
            kept = self._memory.load64(pte) & ~(ADDRESS_MASK | D)
            zero = with_rights(self._small_zero << PAGE_SHIFT | P | kept, vma.flags) | SPECIAL
            self._memory.store64(pte, zero)
            # Whoever still has the huge page in the TLB would write to a frame that is another's by then.
            self._tlb.flush(mm, va, va + PAGE_SIZE, "split")
            self._pages.unmap(pfn, mm, va)

    # --- changing what a PMD maps -----------------------------------------------------------------------------------

    def size_of(self, entry: int) -> int:
        """Bytes that an entry maps."""
        if not is_huge(entry):
            return PAGE_SIZE
        if is_special(entry):
            return HPAGE_PMD_SIZE
        return self._pages.frames_of(pfn_of(entry)) * PAGE_SIZE

    def level_of(self, entry: int) -> int:
        """The level of the page tables that an entry belongs to."""
        return {PAGE_SIZE: 1, HPAGE_PMD_SIZE: 2}.get(self.size_of(entry), 3)

    def take_out(self, mm: AddressSpace, pmd: int) -> list[int]:
        """Empty an entry that maps a huge page (zap_huge_pmd). Returns the frame of the table that was put aside for
        it, if there was one, to be freed.
        """
        entry = self._memory.load64(pmd)
        mm.page_table.clear_huge(pmd)
        return [mm.page_table.withdraw() >> PAGE_SHIFT] if self.is_transparent(entry) else []

    def is_transparent(self, entry: int) -> bool:
        """Whether the huge page of an entry can be split."""
        return is_special(entry) or self._pages.compounds[pfn_of(entry)].is_transparent

    def copy_pmd(self, new: AddressSpace, va: int, pmd: int) -> bool:
        """Share a huge page with a child: both may only read it from now on (copy_huge_pmd). Raises Errno(ENOMEM).

        False if it is none any more: memory for the tables may have cost just this one.
        """
        entry = self._memory.load64(pmd)
        place = new.page_table.make_entry(va, level=self.level_of(entry))
        if self.is_transparent(entry):
            new.page_table.deposit()
            entry = self._memory.load64(pmd)
            if not is_huge(entry):
                new.page_table.free_tables([new.page_table.withdraw() >> PAGE_SHIFT])
                return False
        if entry & W:
            entry &= ~W
            self._memory.store64(pmd, entry)
        new.page_table.set_huge(place, entry & ~A)
        if is_special(entry):
            self.zero_page(new)
        else:
            self._pages.map_entire(pfn_of(entry), new, va)
            self._pages.share(pfn_of(entry))
        return True

    def move_pmd(self, mm: AddressSpace, old: int, new: int, pmd: int) -> bool:
        """Move a huge page to another place in an address space, where its PMD exists (move_huge_pmd). False if that is
        none for it.
        """
        if new % HPAGE_PMD_SIZE or mm.page_table.entry_address(new) is not None:
            return False  # a table is there, even if it is empty
        entry = self._memory.load64(pmd)
        place = mm.page_table.make_entry(new, level=self.level_of(entry))
        mm.page_table.clear_huge(pmd)
        mm.page_table.set_huge(place, entry)
        if not is_special(entry):
            self._pages.move(pfn_of(entry), mm, old, new, entire=True)
        return True
