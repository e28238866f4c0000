"""An address space: the VMAs that promise memory and the page table that delivers it (struct mm_struct).

System calls change the promises; page faults deliver. What is taken away is flushed from the TLB before its frame is
given to somebody else, because the hardware goes on using what it remembers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from .compound import HPAGE_PMD_SIZE
from .exceptions import Errno
from .layout import MMAP_BASE, MMAP_MIN_HINT, STACK_TOP, TASK_SIZE, page_align
from .limits import INFINITY, Limits, Resource
from .memory import PhysicalMemory
from .memory_manager import MemoryManager
from .memory_map import MemoryMap
from .page_table import PageTable
from .pte import D, P, W, is_huge, is_mapped, is_special, is_swap, pfn_of, swap_place
from .vma import Backing, Vma, VmaFlag, VmaSet
from .work import kernel_work

if TYPE_CHECKING:
    from .files.file import File

__all__ = ["AddressSpace"]

PAGE_MASK: Final = ~(PAGE_SIZE - 1)
ZAP_PTE_RANGE: Final = kernel_work("zap_pte_range", __name__, each=50)
"""Assumption: a hundred instructions to clear an entry, to give up its reference, and to put the frame on a list."""
EXIT_MMAP: Final = kernel_work("exit_mmap", __name__, cycles=34_000)
"""What exit and wait4 were measured to take more where the child had memory of its own (see syscalls/__init__.py)."""
STACK_GUARD: Final = 256 * PAGE_SIZE
"""A stack does not grow closer than this to a mapping below it, unless that is inaccessible or a stack, too
(stack_guard_gap; expand_downwards in mm/vma.c)."""


class AddressSpace:
    """One process's memory; `users` processes share it (CLONE_VM).

    `heap_start` and `heap_end` are where brk began and where it stands; `stack_start` is the first stack pointer.
    `strings` are where its arguments and its environment begin and end: four addresses.
    `thp_disable` is what PR_SET_THP_DISABLE said; `holds_huge_zero` says whether the huge page of zeros is mapped.
    `exe` is the program's file. `lock_future` are the flags that mlockall gives to what is mapped later.
    `context_id` is never used again; `tlb_generation` counts its changes (both for `asid.py`).
    """

    def __init__(self, manager: MemoryManager, limits: Limits | None = None) -> None:
        self.manager = manager
        self.limits = limits or Limits()
        self.page_table = PageTable(manager.memory, manager.frames, manager.kernel_half)
        self.vmas = VmaSet()
        self.users = 1
        self.heap_start = self.heap_end = self.stack_start = 0
        self.stack_top, self.mmap_base = STACK_TOP, MMAP_BASE
        self.strings = (0, 0, 0, 0)
        self.data_size = 0  # of the program's initialised data, which counts against RLIMIT_DATA with the heap
        self.context_id = next(manager.context_ids)
        self.tlb_generation = 0
        self.peak_pages = 0
        self.lock_future = 0
        self.thp_disable = 0
        self.holds_huge_zero = False
        self.faults_of_exec = 0
        self.exe: File | None = None
        self._last: tuple[Vma, ...] = ()

    # --- promises ---------------------------------------------------------------------------------------------------

    def map(
        self,
        start: int,
        size: int,
        flags: int,
        *,
        backing: Backing | None = None,
        page_offset: int = 0,
        fixed: bool = False,
        replace: bool = True,
    ) -> int:
        """Promise `size` bytes at `start` (a hint, unless fixed) and return where (do_mmap). Raises Errno."""
        size = page_align(size)
        if size == 0 or size > TASK_SIZE:
            raise Errno(errno.ENOMEM)
        if len(self.vmas) > self.manager.max_map_count:
            raise Errno(errno.ENOMEM)
        start = self._check_fixed(start, size, replace) if fixed else self.choose(start & PAGE_MASK, size)
        vma = Vma(start, start + size, flags, backing, page_offset if backing else start >> PAGE_SHIFT)
        replaced = sum(old.part(start, start + size).pages for old in self.vmas.overlapping(start, start + size))
        self.check_limits(vma.pages - replaced, flags)
        self.check_split(start, start + size)
        self._charge(vma)
        self.unmap(start, size)
        if flags & VmaFlag.HUGETLB:
            self.manager.hugetlb.open_vma(vma)
        self.add(vma)
        return start

    def place(
        self, start: int, size: int, *, fixed: bool, replace: bool, huge: bool, page_size: int = PAGE_SIZE
    ) -> int:
        """Where a mapping will be: exactly at `start`, or as `choose` says (__get_unmapped_area). Raises Errno."""
        size = page_align(size)
        if size > TASK_SIZE:
            raise Errno(errno.ENOMEM)
        if not fixed:
            return self.choose(start & PAGE_MASK, size, huge=huge, page_size=page_size)
        if start % page_size and page_size > PAGE_SIZE:
            raise Errno(errno.EINVAL)
        return self._check_fixed(start, size, replace)

    def _check_fixed(self, start: int, size: int, replace: bool) -> int:
        if start + size > TASK_SIZE:
            raise Errno(errno.ENOMEM)
        if start % PAGE_SIZE:
            raise Errno(errno.EINVAL)
        if start < self.manager.mmap_min_addr:
            raise Errno(errno.EPERM)
        if not replace and self.vmas.overlapping(start, start + size):
            raise Errno(errno.EEXIST)
        return start

    def choose(self, hint: int, size: int, *, huge: bool = False, page_size: int = PAGE_SIZE) -> int:
        """The hint if it is free, else the highest gap below the stack (get_unmapped_area). Raises Errno(ENOMEM).

        `huge` begins at a 2 MiB border if the size is a multiple of it, so that huge pages fit
        (thp_get_unmapped_area). What has huge pages of a pool begins at a border of its `page_size`.
        """
        if huge and not hint and size % HPAGE_PMD_SIZE == 0:
            padded = self.vmas.gap(size + HPAGE_PMD_SIZE, self.manager.mmap_min_addr, self.mmap_base)
            if padded is not None:
                return (padded & -HPAGE_PMD_SIZE) + HPAGE_PMD_SIZE
        if hint:
            hint = max(hint, MMAP_MIN_HINT, self.manager.mmap_min_addr)  # round_hint_to_min
            hint += -hint % page_size
        if 0 < hint <= TASK_SIZE - size and not self.vmas.overlapping(hint, hint + size):
            above = self.vmas.find_next(hint)
            if above is None or hint + size <= above.start_gap:
                return hint
        padding = page_size - PAGE_SIZE
        for ceiling in (self.mmap_base, TASK_SIZE):  # above the base, too, as a last resort
            gap = self.vmas.gap(size + padding, self.manager.mmap_min_addr, ceiling)
            if gap is not None:
                return (gap + padding) & -page_size
        raise Errno(errno.ENOMEM)

    def check_limits(self, pages: int, flags: int) -> None:
        """Whether so many more pages are within RLIMIT_AS and RLIMIT_DATA (may_expand_vm). Raises Errno(ENOMEM)."""
        most = self.limits.soft(Resource.AS)
        if most != INFINITY and (self.total_pages + pages) << PAGE_SHIFT > most:
            raise Errno(errno.ENOMEM)
        self.check_data(pages, flags)

    def check_data(self, pages: int, flags: int) -> None:
        """Whether so many more pages are within RLIMIT_DATA, if these are data. Raises Errno(ENOMEM)."""
        most = self.limits.soft(Resource.DATA)
        if most != INFINITY and _is_data(flags) and (self.data_pages + pages) << PAGE_SHIFT > most:
            raise Errno(errno.ENOMEM)

    def check_locked(self, pages: int, flags: int) -> None:
        """Whether so many more pages may be locked, if these are (mlock_future_ok). Raises Errno(EAGAIN)."""
        if flags & VmaFlag.LOCKED and (self.locked_pages + pages) << PAGE_SHIFT > self.limits.soft(Resource.MEMLOCK):
            raise Errno(errno.EAGAIN)

    def _charge(self, vma: Vma) -> None:
        """Count a promise that the system must be able to keep. Raises Errno(ENOMEM)."""
        if vma.counts_as_committed:
            self.manager.overcommit.charge(vma.pages)
            vma.flags |= VmaFlag.ACCOUNT

    def add(self, vma: Vma, *, merge: bool = True) -> None:
        """Put a VMA into its free range; it takes a hold on its backing."""
        if vma.backing is not None:
            vma.backing.get()
        self.vmas.insert(vma, merge=merge)
        self.manager.huge.enter(self, vma)
        self.peak_pages = max(self.peak_pages, self.total_pages)

    def unmap(self, start: int, size: int) -> None:
        """Take back a promise, with the pages that were delivered on it (munmap). Raises Errno."""
        end = start + page_align(size)
        if start % PAGE_SIZE or size == 0 or end > TASK_SIZE:
            raise Errno(errno.EINVAL)
        found = self.vmas.overlapping(start, end)
        if found and len(self.vmas) >= self.manager.max_map_count and found[0].start < start and end < found[0].end:
            raise Errno(errno.ENOMEM)  # it would split one VMA into two
        self.check_split(start, end)
        self.manager.huge.split_borders(self, start, end)
        for piece in self.vmas.remove(start, end):
            self.forget(piece)
        if found:
            self.release(start, end, "munmap", free_tables=True)

    def check_split(self, start: int, end: int) -> None:
        """Whether VMAs can be cut at two addresses: those with huge pages of a pool only between them (may_split).

        Raises Errno(EINVAL).
        """
        for border in (start, end):
            vma = self.vmas.find(border)
            if vma is not None and vma.start < border and border % vma.page_size:
                raise Errno(errno.EINVAL)

    def forget(self, vma: Vma) -> None:
        """A VMA that was taken out is given up: what it held and what was promised on it."""
        if vma.flags & VmaFlag.HUGETLB:
            self.manager.hugetlb.close_vma(self, vma)
        if vma.flags & VmaFlag.ACCOUNT:
            self.manager.overcommit.uncharge(vma.pages)
        if vma.backing is not None:
            vma.backing.put()

    def set_break(self, address: int) -> int:
        """Move the end of the heap (brk). Returns where it stands then: unchanged if it cannot be moved there."""
        data = address - self.heap_start + self.data_size
        if address < self.heap_start or data > self.limits.soft(Resource.DATA):
            return self.heap_end
        old, new = page_align(self.heap_end), page_align(address)
        if new < old:
            if not self.vmas.overlapping(new, old):
                return self.heap_end
            self.unmap(new, old - new)
        elif new > old and not self._extend_heap(old, new):
            return self.heap_end
        self.heap_end = address
        return address

    def _extend_heap(self, old: int, new: int) -> bool:
        # One free page is kept below the next mapping (check_brk_limits, mm/mmap.c).
        above = self.vmas.find_next(old)
        if new + PAGE_SIZE > TASK_SIZE or (above is not None and new + PAGE_SIZE > above.start_gap):
            return False
        vma = Vma(old, new, VmaFlag.DATA | self.lock_future, None, old >> PAGE_SHIFT)
        try:
            self.check_locked(vma.pages, vma.flags)
            self.check_limits(vma.pages, vma.flags)
            self._charge(vma)
        except Errno:
            return False
        self.add(vma, merge=old > page_align(self.heap_start))  # what is below the heap stays what it is
        return True

    def grow_stack(self, address: int) -> Vma | None:
        """The stack VMA, extended down to `address`, if that is within the limit and keeps the gap (expand_stack)."""
        vma = self.vmas.find_next(address)
        start = address & PAGE_MASK
        if vma is None or not vma.flags & VmaFlag.GROWS_DOWN or start < self.manager.mmap_min_addr:
            return None
        if vma.end - start > self.limits.soft(Resource.STACK):
            return None
        below, _ = self.vmas.neighbours(vma)
        is_other = below is not None and below.prot and not below.flags & VmaFlag.GROWS_DOWN
        if below is not None and is_other and start - below.end < STACK_GUARD:
            return None
        if vma.anon_vma is None:
            self.vmas.prepare_anon_vma(vma)
        more = (vma.start - start) >> PAGE_SHIFT
        try:
            self.check_locked(more, vma.flags)
            self.check_limits(more, vma.flags)
            if vma.flags & VmaFlag.ACCOUNT:
                self.manager.overcommit.charge(more)
        except Errno:
            return None
        grown = Vma(start, vma.end, vma.flags, vma.backing, vma.page_offset - more, vma.anon_vma)
        self.vmas.replace(vma, grown)
        return grown

    # --- deliveries -------------------------------------------------------------------------------------------------

    def release(self, start: int, end: int, why: str, *, free_tables: bool = False) -> None:
        """Take the pages of a range away: entries first, then the TLB, and only then the frames (zap_page_range).

        In any other order the hardware could still reach a frame that already belongs to somebody else.
        """
        memory, huge, dropped = self.manager.memory, self.manager.huge, []
        huge.split_borders(self, start, end)
        tables: list[int] = []
        for va, entry, place in list(self.page_table.leaves(start, end)):
            if is_huge(entry):
                tables += huge.take_out(self, place)
            else:
                memory.store64(place, 0)
            dropped.append((va, entry))
        if dropped:
            memory.enter(ZAP_PTE_RANGE, len(dropped))
        if free_tables:
            tables += self._unlink_tables(start, end)
        if dropped:
            entries = [entry for _, entry in dropped]
            size = min(map(huge.size_of, entries)) if all(map(is_huge, entries)) else PAGE_SIZE
            self.manager.tlb.flush(self, dropped[0][0], dropped[-1][0] + huge.size_of(entries[-1]), why, size=size)
        elif tables:
            self.manager.tlb.flush(self, start, start + PAGE_SIZE, why)  # the walker's caches know them
        for va, entry in dropped:
            self.drop(va, entry)
        self.page_table.free_tables(tables)

    def _unlink_tables(self, start: int, end: int) -> list[int]:
        """Take out the tables that serve only this range and the free ranges around it (free_pgtables)."""
        below, above = self.vmas.find_previous(start), self.vmas.find_next(end)
        return self.page_table.unlink_tables(below.end if below else 0, above.start if above else TASK_SIZE + PAGE_SIZE)

    def drop(self, va: int, entry: int) -> None:
        """Let go of what an entry held, which the TLB has forgotten already."""
        if is_huge(entry) and not is_special(entry):
            self.manager.pages.unmap_entire(pfn_of(entry), self, va)
        elif is_mapped(entry) and not is_special(entry):
            self.manager.pages.unmap(pfn_of(entry), self, va, dirty=entry & D != 0)
        elif is_swap(entry):
            self.manager.swap.drop(swap_place(entry)[1])

    def destroy(self) -> None:
        """Give everything back (exit_mmap). Nobody runs on it any more."""
        self.manager.tlb.leave(self)
        self.manager.memory.enter(EXIT_MMAP)
        self._last = tuple(self.vmas)
        for vma in self._last:
            self.vmas.remove(vma.start, vma.end)
            self.release(vma.start, vma.end, "exit")
            self.forget(vma)
        if self.exe is not None:
            self.exe.put()
        self.manager.huge.exit(self)
        self.page_table.free()

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def total_pages(self) -> int:
        """Pages that are promised (total_vm)."""
        return self.vmas.pages

    @property
    def data_pages(self) -> int:
        """Pages that count against RLIMIT_DATA (data_vm)."""
        return sum(vma.pages for vma in self.vmas if _is_data(vma.flags))

    @property
    def locked_pages(self) -> int:
        """Pages of VMAs that are locked in memory (locked_vm)."""
        return sum(vma.pages for vma in self.vmas if vma.flags & VmaFlag.LOCKED)

    def resident(self, memory: PhysicalMemory | None = None) -> int:
        """Pages of 4 KiB that are present now, those of pools not counted; by default looking has no effect."""
        plain = memory or self.manager.early
        return sum(
            self.manager.huge.size_of(entry) >> PAGE_SHIFT
            for vma in self.vmas
            if not vma.flags & VmaFlag.HUGETLB
            for _, entry, _ in self.page_table.leaves(vma.start, vma.end, plain)
            if is_mapped(entry) and not is_special(entry)
        )

    def swapped(self) -> int:
        """Pages that are in swap; looking has no effect."""
        plain = self.manager.early
        return sum(
            is_swap(entry) for vma in self.vmas for _, entry, _ in self.page_table.leaves(vma.start, vma.end, plain)
        )

    def name_of(self, vma: Vma) -> str:
        """What /proc/PID/maps calls a VMA."""
        if vma.backing is not None:
            return vma.backing.name
        if vma.start < self.heap_end and vma.end > self.heap_start:
            return "[heap]"
        return "[stack]" if vma.start <= self.stack_start < vma.end else ""

    def maps(self) -> MemoryMap:
        """The VMAs in order; of a process that has ended, as they were at its end."""
        return MemoryMap(tuple(self.vmas) or self._last, self.name_of)

    def permits(self, va: int, *, write: bool) -> bool:
        """Whether a page is there that can be read, or written, without a fault."""
        entry = self.page_table.lookup(va)
        return bool(entry & P and (not write or entry & W))


def _is_data(flags: int) -> bool:
    """Private and writable, and no stack (is_data_mapping)."""
    return flags & (VmaFlag.WRITE | VmaFlag.SHARED | VmaFlag.GROWS_DOWN) == VmaFlag.WRITE
