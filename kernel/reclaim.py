"""Reclaim: taking memory back from those who use it least (mm/vmscan.c).

Three marks on the number of free frames decide when, as in Linux (`Watermarks`):

    high   enough: kswapd goes back to sleep
    low    kswapd wakes, and reclaims in the background until `high`
    min    whoever wants a frame must reclaim some first (direct reclaim)

Which page goes is the replacement policy's choice. There are two lists with a policy each, because going means two
things: a page of a file is dropped, since it can be read again; an anonymous page must be written to swap first.
`vm.swappiness` weighs one list against the other.

    the policy names a victim                             `victim`
    the page is taken from every page table that has it   `swap_out`: found through the reverse mapping
    the TLB forgets it                                    or a process would go on using a frame that is another's
    its frame is free

Who touches it later finds the swap address in the PTE and brings it back (`swapin` in swap.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Final

from emu import InputError

from . import rmap
from .events import ReclaimEvent, SwapOut
from .files.sysctl import swappiness
from .policies import ReplacementPolicy, find_policy
from .pte import SWAP_EXCLUSIVE, swap_entry

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["Reclaim", "Watermarks"]

CLUSTER: Final = 32
"""Pages that are reclaimed at once (SWAP_CLUSTER_MAX)."""
MOST_FAILURES: Final = 16
"""kswapd gives up after so many rounds without a page (MAX_RECLAIM_RETRIES)."""
LEAST_PAGES: Final = 16
"""So many are always left. With fewer, one instruction might never have its code and its operands in memory at the
same time; then it is better that somebody dies. (Linux avoids that by scanning short lists seldom.)"""
SCAN_WORK: Final = 150
"""Cycles to look at one page, beyond its memory accesses. Assumption: some 400 instructions of shrink_folio_list."""
WALK_WORK: Final = 20
"""The same, when page tables are read from end to end. Assumption: some 50 instructions of walk_pte_range."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Numbers of free frames.

    >>> Watermarks.of(16384)
    Watermarks(min=256, low=320, high=384)
    """

    min: int
    low: int
    high: int

    @classmethod
    def of(cls, frames: int) -> Watermarks:
        """As Linux chooses them (calculate_min_free_kbytes and __setup_per_zone_wmarks in mm/page_alloc.c)."""
        kilobytes = min(max(isqrt(4 * frames * 16), 128), 262_144)
        least = kilobytes // 4
        step = max(least // 4, frames * 10 // 10_000)
        return cls(least, least + step, least + 2 * step)


@dataclass(slots=True)
class PageList:
    """Pages of one kind, with the policy that chooses among them."""

    policy: ReplacementPolicy
    pages: int = 0


class Reclaim:
    """Knows all pages that can be reclaimed, and does it. `scanned_by` and `reclaimed_by` count pages.

    Raises InputError for a policy that there is not, or one that would have to know the future.
    """

    def __init__(self, kernel: Kernel, policy_name: str, seed: int = 1) -> None:
        policy = find_policy(policy_name)
        if policy.knows_future:
            raise InputError(f"policy {policy_name} must know the run in advance: it is one for cr3 policies only")
        self._kernel, self._pages, self._swap = kernel, kernel.pages, kernel.manager.swap
        self.file, self.anonymous = PageList(policy(self, seed)), PageList(policy(self, seed))
        self._list_of: dict[int, PageList] = {}
        self._used: set[int] = set()  # seen in the page tables, but nobody was told yet
        self.watermarks = Watermarks.of(kernel.frames.total)
        kernel.frames.low, kernel.frames.when_low = self.watermarks.low, self._when_low
        kernel.pages.observer = self
        self.is_awake = self._is_short = self._is_exhausted = False
        self._failures = 0
        self._credit = 0.0
        self.scanned = 0
        self.scanned_by = {"background": 0, "direct": 0}
        self.reclaimed_by = {"background": 0, "direct": 0}
        if policy.sees_accesses and kernel.machine.engine == "access":
            kernel.on("access", lambda event: self._accessed(event.pa >> 12))

    # --- what there is ----------------------------------------------------------------------------------------------

    def added(self, pfn: int, *, swap_backed: bool) -> None:
        """A page is in memory (lru_add)."""
        self._add(pfn, self.anonymous if swap_backed else self.file)

    def _add(self, pfn: int, pages: PageList) -> None:
        self._list_of[pfn] = pages
        pages.pages += self._pages.frames_of(pfn)
        pages.policy.added(pfn)

    def removed(self, pfn: int) -> None:
        """Its frame is given back (lru_del)."""
        pages = self._list_of.pop(pfn)
        pages.pages -= self._pages.frames_of(pfn)
        pages.policy.removed(pfn)
        self._used.discard(pfn)
        self._swap.forget(pfn)

    def written(self, pfn: int) -> None:
        """A page of a file was written through an entry that is gone."""
        self._kernel.page_cache.set_dirty(pfn)

    def _accessed(self, pfn: int) -> None:
        pfn = self._pages.head(pfn)
        if pfn in self._list_of:
            self._list_of[pfn].policy.accessed(pfn)

    def _move(self, pfn: int, target: PageList) -> None:
        if self._list_of[pfn] is not target:
            source = self._list_of[pfn]
            source.pages -= self._pages.frames_of(pfn)
            source.policy.removed(pfn)
            self._add(pfn, target)

    # --- the bits, for policies (PageBits) --------------------------------------------------------------------------

    def referenced(self, page: int) -> bool:
        """Whether the page was used since this was asked last."""
        self.scanned += 1
        return self._take_used(page)

    def _take_used(self, page: int) -> bool:
        was_seen = page in self._used
        self._used.discard(page)
        return rmap.referenced(self._pages.folio_mappings(page)) or was_seen

    def used(self, pages: Collection[int]) -> set[int]:
        """Those of some pages that were used since this was asked last."""
        for mm in dict.fromkeys(process.mm for process in self._kernel.living_processes()):
            self._used.update(pfn for pfn in map(self._pages.head, rmap.take_used(mm)) if pfn in self._list_of)
        self._kernel.machine.charge("kernel_work", WALK_WORK * len(pages))
        found = self._used.intersection(pages)
        self._used -= found
        return found

    def dirty(self, page: int) -> bool:
        """Whether the page must be written before it can go."""
        if self._pages.is_anonymous(page) and self._swap.slot_of(page) is None:
            return True
        return rmap.is_dirty(self._pages.folio_mappings(page))

    # --- when -------------------------------------------------------------------------------------------------------

    def _when_low(self, order: int) -> None:
        """A frame is wanted, and few are free: wake kswapd; below `min` reclaim at once (__alloc_pages_slowpath)."""
        self.is_awake = self._is_short = True
        if self._kernel.frames.free_frames - (1 << order) < self.watermarks.min:
            self._is_exhausted = not self.shrink(CLUSTER, "direct")

    def background(self) -> None:
        """Kswapd has its turn: reclaim until `high` is reached, or nothing more can be had (balance_pgdat)."""
        self.is_awake = False
        while self._failures < MOST_FAILURES:
            missing = self.watermarks.high - self._kernel.frames.free_frames
            if missing <= 0:
                return
            if not self.shrink(min(missing, CLUSTER), "background"):
                self._failures += 1
                return

    @property
    def is_exhausted(self) -> bool:
        """Whether few frames are left and no page can go: what nobody waits for is not done then."""
        return self._is_exhausted and self._kernel.frames.free_frames < self.watermarks.min

    def tick(self) -> None:
        """A timer interrupt. Policies that sample do it only when memory has been short."""
        if self._is_short:
            for pages in (self.anonymous, self.file):
                pages.policy.tick()

    # --- how --------------------------------------------------------------------------------------------------------

    def shrink(self, target: int, kind: str) -> int:
        """Reclaim so many pages, or as many as can be had. Returns how many (shrink_lruvec)."""
        before, done, refused = self.scanned, self._kernel.manager.huge.shrink(), 0
        while done < target and refused <= len(self._list_of):
            pages = self._choose()
            if pages is None:
                break
            page = self._victim(pages)
            self.scanned += 1
            if self.reclaim_page(page, wait=kind == "direct"):
                done += 1
            else:
                refused += 1
                self._list_of[page].policy.refused(page)
        self._finish(kind, self.scanned - before, done)
        return done

    def _victim(self, pages: PageList) -> int:
        """Ask the policy. Raises InputError for one that names a page that it does not have."""
        page = pages.policy.victim()
        if not isinstance(page, int) or self._list_of.get(page) is not pages:
            raise InputError(f"policy {pages.policy.name}: its victim {page!r} is no page that it was given")
        return page

    def _finish(self, kind: str, scanned: int, done: int) -> None:
        kernel = self._kernel
        self.scanned_by[kind] += scanned
        self.reclaimed_by[kind] += done
        if done:
            self._failures = 0
        kernel.machine.charge("kernel_work", SCAN_WORK * scanned)
        if scanned and kernel.events.wants("reclaim"):
            kernel.events.emit(ReclaimEvent(kernel.now, kernel.machine.pid, kind, scanned, done))

    def _choose(self) -> PageList | None:
        """Which list gives the next page: in proportion to its length and its weight (get_scan_count)."""
        anonymous = self.anonymous.pages if self._swap.has_room else 0
        if anonymous + self.file.pages <= LEAST_PAGES:
            return None
        if not anonymous or not self.file.pages:
            return self.anonymous if anonymous else self.file if self.file.pages else None
        weight = swappiness.value(self._kernel)
        share = anonymous * weight
        self._credit += share / (share + self.file.pages * (200 - weight))
        if self._credit < 1:
            return self.file
        self._credit -= 1
        return self.anonymous

    def reclaim_page(self, pfn: int, *, wait: bool) -> bool:
        """Take one page out of memory. False if it has to stay (shrink_folio_list)."""
        mappings = self._pages.folio_mappings(pfn)
        if not mappings and self._swap.slot_of(pfn) is not None:
            return self._swap.discard(pfn)
        if rmap.is_locked(mappings):
            return False
        compound = self._pages.compound(pfn)
        if compound is not None:  # it goes piece by piece, and a piece of zeros is gone with the split
            split = self._kernel.manager.huge.split_page(compound.head)
            return split and (pfn not in self._list_of or self.reclaim_page(pfn, wait=wait))
        if not self._pages.is_anonymous(pfn):
            return self._kernel.page_cache.reclaim(pfn, wait=wait)
        if self._pages.refcount(pfn) != len(mappings):
            return False  # the kernel is using it just now
        if self._pages.is_lazy(pfn):
            return self._drop_lazy(pfn)
        return self.swap_out(pfn, wait=wait)

    def _drop_lazy(self, pfn: int) -> bool:
        """A page that the program gave up with MADV_FREE goes, unless it was written again."""
        mappings = self._pages.mappings(pfn)
        if rmap.is_dirty(mappings):
            self._pages.set_lazy(pfn, False)
            self._move(pfn, self.anonymous)
            return False
        rmap.replace_entries(mappings, pfn, 0)
        return True

    def swap_out(self, pfn: int, *, wait: bool) -> bool:
        """The lecture's swap-out of a victim: its content goes to the device, unless it lies there already; then the
        present bit of every PTE that maps it is 0, and the swap address is in its place. False if it cannot go.
        """
        mappings, slot = self._pages.mappings(pfn), self._swap.slot_of(pfn)
        if slot is None or rmap.is_dirty(mappings):
            slot = self._swap.write_out(pfn, wait=wait)
            if slot is None:
                return False
        for _ in mappings:
            self._swap.duplicate(slot)
        entry = swap_entry(0, slot) | (SWAP_EXCLUSIVE if self._pages.is_exclusive(pfn) else 0)
        kernel = self._kernel
        if kernel.events.wants("swap_out"):
            kernel.events.emit(SwapOut(kernel.now, kernel.machine.pid, mappings[0][1], pfn, slot))
        rmap.replace_entries(mappings, pfn, entry)
        return True

    # --- what programs say ------------------------------------------------------------------------------------------

    def lazy_free(self, pfn: int) -> None:
        """MADV_FREE: the page goes with those of files, unwritten (folio_mark_lazyfree)."""
        self._swap.forget(pfn)
        self._take_used(pfn)
        rmap.clean(self._pages.folio_mappings(pfn))
        self._pages.set_lazy(pfn, True)
        self._move(pfn, self.file)

    def cold(self, pfn: int) -> None:
        """MADV_COLD: the page was not used, whatever its A bit says."""
        self._take_used(pfn)
        if pfn in self._list_of:
            self._list_of[pfn].policy.cold(pfn)
