"""Huge pages that are set aside: pools, and memory with MAP_HUGETLB (mm/hugetlb.c, fs/hugetlbfs/inode.c).

Transparent huge pages come when there are some. A program that must have them asks for pages of a *pool*, which
somebody filled before, when memory was not in small pieces yet: nr_hugepages in /proc/sys/vm and below
/sys/kernel/mm/hugepages. There is a pool of 2 MiB pages and one of 1 GiB pages. They are never split, never swapped,
and belong to nobody else.

What can be promised is reserved by mmap, so that the page fault cannot fail:

    nr_hugepages         pages of the pool, those that are in use among them
    free_hugepages       pages that nobody maps
    resv_hugepages       free ones that are promised to a mapping, and wait for its page fault
    surplus_hugepages    beyond nr_hugepages, and gone when they are free again; nr_overcommit_hugepages may come

A private mapping that was not promised any, that of a child of fork, gets what is left, or SIGBUS.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT

from .events import CopyOnWrite
from .exceptions import Errno
from .fault_result import FaultResult
from .huge_memory import HugeMemory
from .memory import KernelMemory
from .pages import Pages
from .pte import PS, A, D, W, pfn_of, user_pte
from .vma import Vma, VmaFlag

if TYPE_CHECKING:
    from emu.machine import Machine

    from .address_space import AddressSpace
    from .asid import TlbContexts

__all__ = ["HugePool", "Hugetlb", "HugetlbFile"]

DEVICE: Final = os.makedev(0, 15)
"""Of the hugetlbfs that the kernel has for itself (hugetlbfs_vfsmount)."""
NAME: Final = "/anon_hugepage (deleted)"
PMD_SHIFT, PUD_SHIFT = 21, 30
LEVELS: Final = {PMD_SHIFT: 2, PUD_SHIFT: 3}
"""Which level of the page tables maps pages of a size, by its binary logarithm."""


class HugePool:
    """Huge pages of one size (struct hstate). `total` counts the `surplus` ones, too; there may be `overcommit`."""

    def __init__(self, memory: KernelMemory, pages: Pages, shift: int) -> None:
        self._memory, self._pages, self.shift = memory, pages, shift
        self.free: list[int] = []
        self.total = self.reserved = self.surplus = self.overcommit = 0

    @property
    def size(self) -> int:
        """Bytes of a page."""
        return 1 << self.shift

    @property
    def order(self) -> int:
        """Binary logarithm of the frames of a page."""
        return self.shift - PAGE_SHIFT

    @property
    def frames(self) -> int:
        """Frames of all pages."""
        return self.total << self.order

    @property
    def may_overcommit(self) -> bool:
        """Whether pages may come beyond the pool: not where they are too large for the frame allocator of Linux
        (hstate_is_gigantic).
        """
        return self.shift == PMD_SHIFT

    @property
    def persistent(self) -> int:
        """Pages that stay when they are free (persistent_huge_pages)."""
        return self.total - self.surplus

    def resize(self, count: int) -> None:
        """Fill the pool up to a number of pages, as far as there is memory, or give back what nobody uses
        (set_max_huge_pages).
        """
        self.surplus = max(self.surplus - max(count - self.persistent, 0), 0)
        while self.persistent < count and self._grow():
            pass
        least = max(count, self.reserved + self.total - len(self.free))
        while self.persistent > least and self.free:
            self._release(self.free.pop())
        self.surplus = max(self.surplus, self.total - count)

    def _grow(self) -> bool:
        try:
            self.free.append(self._pages.allocate_pooled(self.order, self.put))
        except Errno:
            return False
        self.total += 1
        return True

    def _grow_surplus(self) -> bool:
        if not self.may_overcommit or self.surplus >= self.overcommit or not self._grow():
            return False
        self.surplus += 1
        return True

    def _release(self, pfn: int) -> None:
        self.total -= 1
        self._pages.free_pooled(pfn)

    def reserve(self, count: int) -> None:
        """Promise pages (hugetlb_acct_memory). Raises Errno(ENOMEM), with nothing changed."""
        while self.reserved + count > len(self.free):
            if not self._grow_surplus():
                self._shrink_surplus()
                raise Errno(errno.ENOMEM)
        self.reserved += count

    def unreserve(self, count: int) -> None:
        """Promised pages are not wanted any more (return_unused_surplus_pages)."""
        self.reserved -= count
        self._shrink_surplus()

    def _shrink_surplus(self) -> None:
        while self.surplus and len(self.free) > self.reserved:
            self.surplus -= 1
            self._release(self.free.pop())

    def take(self, *, promised: bool) -> int | None:
        """A page that nobody has, of those that are promised or of the others (alloc_hugetlb_folio); with zeros in it.

        None if there is none.
        """
        if promised:
            self.reserved -= 1
        elif len(self.free) <= self.reserved and not self._grow_surplus():
            return None
        pfn = self.free.pop(0)
        self._memory.clear_frames(pfn, 1 << self.order)
        return pfn

    def put(self, pfn: int) -> None:
        """The last one let a page go (free_huge_folio)."""
        self._pages.clear_flags(pfn)
        self.free.insert(0, pfn)
        self._shrink_surplus()

    def close(self) -> None:
        """Give all back."""
        self.overcommit = 0
        self.resize(0)


class HugetlbFile:
    """What is behind one mapping with MAP_HUGETLB: a file of hugetlbfs that has no name.

    `owner` is the address space that made it. Pages that were promised but not delivered yet are those of its size that
    are not in `delivered`. A shared one has `pages`, by number.
    """

    is_shmem = False
    device, name = DEVICE, NAME

    def __init__(
        self, pool: HugePool, pages: Pages, owner: AddressSpace, size: int, number: int, *, shared: bool
    ) -> None:
        self.pool, self._pages, self.owner, self.size, self.number = pool, pages, owner, size, number
        self.page_size = pool.size
        self.pages: dict[int, int] = {}
        self.delivered: set[int] = set()
        self.is_shared, self.is_promised = shared, False
        self.robbed: set[AddressSpace] = set()
        self._users = 0

    @property
    def count(self) -> int:
        """Its size in huge pages."""
        return self.size >> self.pool.shift

    def promise(self) -> None:
        """Reserve all of its pages (hugetlb_reserve_pages). Raises Errno(ENOMEM)."""
        self.pool.reserve(self.count)
        self.is_promised = True

    def is_promised_to(self, mm: AddressSpace, vma: Vma, number: int) -> bool:
        """Whether a page waits in the pool for this mapping (vma_needs_reservation)."""
        if not self.is_promised or number in self.delivered:
            return False
        return self.is_shared or (mm is self.owner and not vma.flags & VmaFlag.NO_RESERVE)

    def numbers(self, vma: Vma) -> range:
        """The numbers of the pages of a mapping."""
        return range(vma.page_offset >> self.pool.order, vma.page_offset + vma.pages >> self.pool.order)

    def waiting(self, mm: AddressSpace, vma: Vma) -> int:
        """How many pages are promised to a private mapping and not delivered."""
        return 0 if self.is_shared else sum(self.is_promised_to(mm, vma, number) for number in self.numbers(vma))

    @property
    def shared_waiting(self) -> int:
        """How many pages are promised to whoever shares it."""
        return self.count - len(self.delivered) if self.is_shared and self.is_promised else 0

    def page(self, index: int) -> int | None:
        """The frame of a page of 4 KiB, if it is there."""
        head = self.pages.get(index >> self.pool.order)
        return None if head is None else head + (index & (1 << self.pool.order) - 1)

    def is_cached(self, index: int) -> bool:
        """Whether a page is in memory."""
        return index >> self.pool.order in self.pages

    def get(self) -> None:
        """One more user."""
        self._users += 1

    def put(self) -> None:
        """One user less; the last one gives back what is shared (hugetlbfs_evict_inode)."""
        self._users -= 1
        if self._users:
            return
        self.pool.unreserve(self.shared_waiting)
        while self.pages:
            pfn = self.pages.popitem()[1]
            self._pages.compounds[pfn].is_cached = False
            self._pages.put(pfn)


class Hugetlb:
    """The pools, by the binary logarithm of their page size, and the page faults of what is mapped from them."""

    def __init__(
        self, machine: Machine, memory: KernelMemory, pages: Pages, tlb: TlbContexts, huge: HugeMemory
    ) -> None:
        self._machine, self._memory, self._pages, self._tlb, self._huge = machine, memory, pages, tlb, huge
        shifts = (PMD_SHIFT, PUD_SHIFT) if machine.profile.features.page1g else (PMD_SHIFT,)
        self.pools = {shift: HugePool(memory, pages, shift) for shift in shifts}
        self.default = self.pools[PMD_SHIFT]
        self._files = 0

    @property
    def frames(self) -> int:
        """Frames that belong to pools."""
        return sum(pool.frames for pool in self.pools.values())

    def pool(self, shift: int) -> HugePool:
        """The pool that mmap asks for; 0 for the default one (hstate_sizelog). Raises Errno(EINVAL)."""
        if shift and shift not in self.pools:
            raise Errno(errno.EINVAL)
        return self.pools[shift or PMD_SHIFT]

    def file(self, pool: HugePool, mm: AddressSpace, size: int, *, shared: bool) -> HugetlbFile:
        """What will be behind a mapping (hugetlb_file_setup)."""
        self._files += 1
        return HugetlbFile(pool, self._pages, mm, size, self._files, shared=shared)

    def open_vma(self, vma: Vma) -> None:
        """A new mapping is promised all of its pages, unless it wants none. Raises Errno(ENOMEM)."""
        file = vma.backing
        assert isinstance(file, HugetlbFile)
        if not vma.flags & VmaFlag.NO_RESERVE:
            file.promise()

    def close_vma(self, mm: AddressSpace, vma: Vma) -> None:
        """A mapping is gone: what was promised to it is not wanted (hugetlb_vm_op_close)."""
        file = vma.backing
        assert isinstance(file, HugetlbFile)
        file.pool.unreserve(file.waiting(mm, vma))

    def zap(self, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
        """Take pages away from a mapping that stays (__unmap_hugepage_range). What was promised to it still is."""
        file = vma.backing
        assert isinstance(file, HugetlbFile)
        numbers = set()
        for va, entry, _ in list(mm.page_table.leaves(start, end)):
            if self._pages.refcount(pfn_of(entry)) == 1:
                numbers.add(vma.index(va) >> file.pool.order)
        mm.release(start, end, "madvise")
        if not file.is_shared and mm is file.owner and not file.pool.surplus:
            numbers &= file.delivered
            file.delivered -= numbers
            file.pool.reserved += len(numbers)

    # --- page faults ------------------------------------------------------------------------------------------------

    def fault(self, mm: AddressSpace, vma: Vma, va: int, *, write: bool) -> FaultResult:
        """Deliver a page, or make it writable (hugetlb_fault). Raises Errno: EFAULT if no page is left, ENOMEM."""
        file = vma.backing
        assert isinstance(file, HugetlbFile)
        start, level = va & -file.pool.size, LEVELS[file.pool.shift]
        place = mm.page_table.make_entry(start, level)
        entry = self._memory.load64(place)
        if not entry:
            return self._no_page(mm, vma, file, start, place, write=write)
        if write and not entry & W:
            return self._write_protected(mm, vma, file, start, place)
        self._memory.store64(place, entry | A | (D if write else 0))
        return FaultResult.SPURIOUS

    def _no_page(
        self, mm: AddressSpace, vma: Vma, file: HugetlbFile, va: int, place: int, *, write: bool
    ) -> FaultResult:
        """Deliver a page of the file, or of the mapping's own (hugetlb_no_page)."""
        number = vma.index(va) >> file.pool.order
        if mm in file.robbed:
            raise Errno(errno.EFAULT)
        if file.is_shared:
            pfn = file.pages[number] if number in file.pages else self._new_page(mm, vma, file, number)
            self._pages.map_entire(pfn, mm, va)
            writable = vma.flags & VmaFlag.WRITE != 0
        else:
            if vma.anon_vma is None:
                mm.vmas.prepare_anon_vma(vma)
            pfn = self._new_page(mm, vma, file, number)
            self._map_private(mm, va, pfn)
            writable = write
        mm.page_table.set_huge(place, user_pte(pfn, vma.flags, writable=writable, dirty=write) | PS)
        self._huge.tell("fault", va, pfn, file.pool.size)
        return FaultResult.HUGE_PAGE

    def _new_page(self, mm: AddressSpace, vma: Vma, file: HugetlbFile, number: int) -> int:
        """Take a page from the pool. Raises Errno(EFAULT)."""
        pfn = file.pool.take(promised=file.is_promised_to(mm, vma, number))
        if pfn is None:
            raise Errno(errno.EFAULT)
        if file.is_shared:
            self._pages.get(pfn)
            self._pages.compounds[pfn].is_cached = True
            file.pages[number] = pfn
        if file.is_shared or mm is file.owner:
            file.delivered.add(number)
        return pfn

    def _map_private(self, mm: AddressSpace, va: int, pfn: int) -> None:
        self._pages.set_exclusive(pfn)
        self._pages.map_entire(pfn, mm, va)

    def _write_protected(self, mm: AddressSpace, vma: Vma, file: HugetlbFile, va: int, place: int) -> FaultResult:
        """A write to a page that is mapped read-only: alone it is had as it is, else as a copy (hugetlb_wp)."""
        old = pfn_of(self._memory.load64(place))
        if file.is_shared or self._pages.is_exclusive(old) or self._pages.refcount(old) == 1:
            return self._reuse(vma, va, place, old, shared=file.is_shared)
        new = file.pool.take(promised=False)
        if new is None:
            if mm is not file.owner:
                raise Errno(errno.EFAULT)
            self._rob_others(mm, file, old)
            return self._reuse(vma, va, place, old, shared=False)
        self._memory.copy_frames(new, old, 1 << file.pool.order)
        self._memory.store64(place, 0)
        self._tlb.flush(mm, va, va + file.pool.size, "cow", size=file.pool.size)
        self._map_private(mm, va, new)
        self._memory.store64(place, user_pte(new, vma.flags, dirty=True) | PS)
        self._pages.unmap_entire(old, mm, va)
        self._huge.tell("cow", va, new, file.pool.size)
        self._tell_copy(va, old, new)
        return FaultResult.COPY_ON_WRITE

    def _reuse(self, vma: Vma, va: int, place: int, pfn: int, *, shared: bool) -> FaultResult:
        if not shared:
            self._pages.set_exclusive(pfn)
        self._memory.store64(place, user_pte(pfn, vma.flags, dirty=True) | PS)
        self._tell_copy(va, pfn, pfn)
        return FaultResult.REUSE

    def _tell_copy(self, va: int, old: int, new: int) -> None:
        machine = self._machine
        if machine.events.wants("cow"):
            machine.events.emit(CopyOnWrite(machine.clock.now, machine.pid, va, old, new))

    def _rob_others(self, mm: AddressSpace, file: HugetlbFile, pfn: int) -> None:
        """The owner was promised his pages, a child of fork was not: the child loses it, and gets SIGBUS when it comes
        back for it (unmap_ref_private).
        """
        for other, va in list(self._pages.compounds[pfn].entire):
            if other is not mm:
                place, _ = other.page_table.find(va)
                other.page_table.clear_huge(place)
                self._tlb.flush(other, va, va + file.pool.size, "cow", size=file.pool.size)
                self._pages.unmap_entire(pfn, other, va)
                file.robbed.add(other)

    def close(self) -> None:
        """Give all pools back."""
        for pool in self.pools.values():
            pool.close()
