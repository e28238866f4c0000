"""Page faults: the promise is kept, or the process is told that there was none (arch/x86/mm/fault.c, mm/memory.c).

`handle_page_fault` is the lecture's slide as a decision tree:

    HandlePageFault(address, error_code)
        if AddressExists(current->mm_state, address) && AccessPermitted(current->mm_state, error_code)
            PFN = allocate_pfn()
            install_pte(address, PFN)
        else RaiseSignal(SIGSEGV)
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE, ErrorCode, Pte

from .address_space import AddressSpace
from .compound import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from .events import CopyOnWrite, PageFaultEvent, SwapIn
from .exceptions import Errno
from .fault_result import FaultResult
from .huge_memory import HPAGE_MASK
from .layout import TASK_SIZE
from .oom import out_of_memory
from .pte import SPECIAL, SWAP_EXCLUSIVE, is_special, is_swap, pfn_of, swap_place, user_pte
from .vma import Backing, Vma, VmaFlag

if TYPE_CHECKING:
    from .kernel import Kernel
    from .process import Process

__all__ = ["FaultHandler", "FaultResult"]

PAGE_MASK: Final = ~(PAGE_SIZE - 1)
FAULT_AROUND: Final = 16 * PAGE_SIZE
"""fault_around_bytes, mm/memory.c."""
WRITE, FETCH = int(ErrorCode.W), int(ErrorCode.I)
WRITABLE, DIRTY, HUGE = int(Pte.W), int(Pte.D), int(Pte.PS)


class FaultHandler:
    """Handles the page faults of all processes; counts them by kind. `retry_at` is the time (cycles) at which the page
    will be there for which the last fault has to wait.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._manager = kernel, kernel.manager
        self._memory, self._pages = kernel.memory, kernel.pages
        self.counts = {"minor": 0, "major": 0, "cow": 0, "protection": 0, "spurious": 0}
        self.retry_at = 0

    def handle(
        self, process: Process, address: int, error_code: int, rip: int, *, may_sleep: bool = False
    ) -> FaultResult:
        """Handle a fault of a process, count it, tell listeners. Where memory is short, somebody dies for it.

        Who `may_sleep` is told to RETRY at `retry_at`; for everybody else time passes here.
        """
        result = self.handle_page_fault(process.mm, address, error_code)
        while result is FaultResult.OUT_OF_MEMORY and out_of_memory(self._kernel) is not process and process.alive:
            result = self.handle_page_fault(process.mm, address, error_code)
        if self._kernel.reclaim.is_awake:
            self._kernel.reclaim.background()
        if result is FaultResult.RETRY:
            if may_sleep:
                return result
            self._wait_for_device()
            return self.handle(process, address, error_code, rip)
        _count_for(process, result)
        events = self._kernel.events
        if events.wants("page_fault"):
            events.emit(PageFaultEvent(self._kernel.now, process.pid, address, error_code, rip, result.name))
        return result

    def _wait_for_device(self) -> None:
        """Let time pass until the page is there."""
        self._kernel.machine.charge("swap_io", max(self.retry_at - self._kernel.now, 0))

    def populate(self, process: Process, start: int, end: int) -> bool:
        """Deliver every promised page of a range now, VMA by VMA (mm_populate). Whether all are there."""
        complete = True
        for vma in process.mm.vmas.overlapping(start, end):
            if not vma.flags & VmaFlag.LOCK_ON_FAULT:
                complete &= self._populate_vma(process, vma, max(vma.start, start), min(vma.end, end))
        return complete

    def populate_until_error(self, process: Process, start: int, end: int) -> bool:
        """The same, up to the first VMA that cannot be had (__mm_populate). Whether all are there."""
        return all(
            vma.flags & VmaFlag.LOCK_ON_FAULT
            or self._populate_vma(process, vma, max(vma.start, start), min(vma.end, end))
            for vma in process.mm.vmas.overlapping(start, end)
        )

    def _populate_vma(self, process: Process, vma: Vma, start: int, end: int) -> bool:
        """Deliver pages of one VMA up to the first that cannot be had (populate_vma_page_range)."""
        if not vma.flags & VmaFlag.RIGHTS:
            return False
        # A private writable page is written, so that it need not be copied later.
        write = vma.flags & (VmaFlag.WRITE | VmaFlag.SHARED) == VmaFlag.WRITE
        code = int(ErrorCode.U) | (WRITE if write else 0)
        for va in range(start, end, PAGE_SIZE):
            if not process.mm.permits(va, write=write) and not self.deliver(process, va, code).resolved:
                return False
        return True

    def deliver(self, process: Process, va: int, error_code: int) -> FaultResult:
        """Fault a page in for a process that did not touch it itself (handle_mm_fault of get_user_pages). The last
        frames are not for that: who touches memory himself needs them.
        """
        if self._kernel.reclaim.is_exhausted:
            return FaultResult.OUT_OF_MEMORY
        result = self.handle_page_fault(process.mm, va, error_code)
        while result is FaultResult.RETRY:
            self._wait_for_device()
            result = self.handle_page_fault(process.mm, va, error_code)
        _count_for(process, result)
        return result

    def handle_page_fault(self, mm: AddressSpace, address: int, error_code: int) -> FaultResult:
        """Decide about one fault, and deliver the page if it was promised."""
        if address >= TASK_SIZE:
            return self._refuse(FaultResult.BAD_ADDRESS)
        vma, grown = mm.vmas.find(address), False
        if vma is None:
            vma, grown = mm.grow_stack(address), True
        if vma is None:
            return self._refuse(FaultResult.BAD_ADDRESS)
        if not access_permitted(vma, error_code):
            return self._refuse(FaultResult.BAD_ACCESS)
        try:
            result = self._handle_mm_fault(mm, vma, address & PAGE_MASK, error_code)
        except Errno as error:
            return FaultResult.BUS_ERROR if error.number in (errno.EFAULT, errno.EIO) else FaultResult.OUT_OF_MEMORY
        if result is not FaultResult.RETRY:
            self._count(result)
        return FaultResult.STACK_GROWTH if grown and result is FaultResult.DEMAND_ZERO else result

    def _refuse(self, result: FaultResult) -> FaultResult:
        self.counts["protection"] += 1
        return result

    def _count(self, result: FaultResult) -> None:
        self.counts["major" if result.major else "minor"] += 1
        if result.copies:
            self.counts["cow"] += 1
        elif result is FaultResult.SPURIOUS:
            self.counts["spurious"] += 1

    def _handle_mm_fault(self, mm: AddressSpace, vma: Vma, va: int, error_code: int) -> FaultResult:
        """Follow the tables to where they end: at a huge page, at a PMD where one may come, or at a PTE.

        Raises Errno: ENOMEM, EFAULT beyond the end of a file or of a pool of huge pages, EIO.
        """
        if vma.flags & VmaFlag.HUGETLB:
            return self._manager.hugetlb.fault(mm, vma, va, write=error_code & WRITE != 0)
        table, huge = mm.page_table, self._manager.huge
        place, level = table.find(va)
        if level > 1:
            may_come = huge.covers(vma, va) and huge.is_allowed(mm, vma)
            if may_come or table.huge_leaves:
                result = self._handle_pmd_fault(mm, vma, va, place, error_code, may_come=may_come)
                if result is not None:
                    return result
                place, level = table.find(va)
            if level > 1:
                place = table.extend(va, place, level)
        return self._handle_pte_fault(mm, vma, va, place, error_code)

    def _handle_pmd_fault(
        self, mm: AddressSpace, vma: Vma, va: int, place: int, error_code: int, *, may_come: bool
    ) -> FaultResult | None:
        """The walk ended above the PTEs: a huge page is there, or it may come. None: small pages shall serve."""
        entry = self._memory.load64(place)
        if not entry:
            return self._create_huge_pmd(mm, vma, va & HPAGE_MASK, error_code) if may_come else None
        if error_code & WRITE and not entry & WRITABLE:
            return self._wp_huge_pmd(mm, vma, va, place, entry)
        self._memory.store64(place, entry | int(Pte.A) | (DIRTY if error_code & WRITE else 0))
        return FaultResult.SPURIOUS

    def _handle_pte_fault(self, mm: AddressSpace, vma: Vma, va: int, pte: int, error_code: int) -> FaultResult:
        """The entry says what is missing."""
        entry = self._memory.load64(pte)
        if not entry:
            if vma.backing is None:
                return self._do_anonymous_page(mm, vma, va, pte, error_code)
            return self._do_fault(mm, vma, va, pte, error_code)
        if is_swap(entry):
            return self._do_swap_page(mm, vma, va, pte, error_code)
        if error_code & WRITE and not entry & WRITABLE:
            return self._do_wp_page(mm, vma, va, pte, entry)
        self._memory.store64(pte, entry | int(Pte.A) | (DIRTY if error_code & WRITE else 0))
        return FaultResult.SPURIOUS

    # --- huge pages -------------------------------------------------------------------------------------------------

    def _create_huge_pmd(self, mm: AddressSpace, vma: Vma, va: int, error_code: int) -> FaultResult | None:
        """A huge page of zeros, if there is one to be had (do_huge_pmd_anonymous_page). Raises Errno(ENOMEM)."""
        huge = self._manager.huge
        if vma.anon_vma is None:
            mm.vmas.prepare_anon_vma(vma)
        if not error_code & WRITE and huge.use_zero_page:
            zero = huge.zero_page(mm)
            if zero is None:
                huge.counts["fault_fallback"] += 1
                return None
            pmd = mm.page_table.make_entry(va, level=2)
            mm.page_table.deposit()
            mm.page_table.set_huge(pmd, user_pte(zero, vma.flags) | SPECIAL | HUGE)
            huge.tell("zero", va, zero)
            return FaultResult.HUGE_ZERO_PAGE
        pfn = self._new_huge_page(mm, vma, va)
        if pfn is None:
            return None
        self._install_huge(mm, vma, va, pfn)
        huge.tell("fault", va, pfn)
        return FaultResult.HUGE_PAGE

    def _new_huge_page(self, mm: AddressSpace, vma: Vma, va: int) -> int | None:
        """A huge page of zeros, and a table for the day when it is split (vma_alloc_anon_folio_pmd)."""
        huge = self._manager.huge
        try:
            pfn = self._pages.allocate_huge(mm, va, reclaim=huge.may_reclaim(vma))
        except Errno:
            huge.counts["fault_fallback"] += 1
            return None
        self._memory.clear_frames(pfn, HPAGE_PMD_NR)
        huge.counts["fault_alloc"] += 1
        return pfn

    def _install_huge(self, mm: AddressSpace, vma: Vma, va: int, pfn: int) -> None:
        """Map a new huge page (map_anon_folio_pmd). Raises Errno(ENOMEM)."""
        try:
            pmd = mm.page_table.make_entry(va, level=2)
            mm.page_table.deposit()
        except Errno:
            self._pages.unmap_entire(pfn, mm, va)
            raise
        mm.page_table.set_huge(pmd, user_pte(pfn, vma.flags, dirty=True) | HUGE)

    def _wp_huge_pmd(self, mm: AddressSpace, vma: Vma, va: int, pmd: int, entry: int) -> FaultResult | None:
        """A write to a huge page that is mapped read-only (do_huge_pmd_wp_page). None: it was split, and only the small
        page that is written will be copied.
        """
        pfn, start, huge = pfn_of(entry), va & HPAGE_MASK, self._manager.huge
        if is_special(entry):
            return self._write_huge_zero(mm, vma, start, pmd)
        if self._pages.is_exclusive(pfn) or self._pages.refcount(pfn) == 1:
            self._pages.set_exclusive(pfn)
            self._memory.store64(pmd, user_pte(pfn, vma.flags, dirty=True) | HUGE)
            self._tell_copy(start, pfn, pfn)
            return FaultResult.REUSE
        huge.split_pmd(mm, va)
        return None

    def _write_huge_zero(self, mm: AddressSpace, vma: Vma, va: int, pmd: int) -> FaultResult | None:
        """A write to the huge page of zeros: a page of its own, or small ones (do_huge_zero_wp_pmd)."""
        huge = self._manager.huge
        pfn = self._new_huge_page(mm, vma, va)
        if pfn is None:
            huge.split_pmd(mm, va)
            return None
        # The place of the page of zeros has a table put aside already.
        self._memory.store64(pmd, user_pte(pfn, vma.flags, dirty=True) | HUGE)
        self._manager.tlb.flush(mm, va, va + HPAGE_PMD_SIZE, "cow", size=HPAGE_PMD_SIZE)
        huge.tell("fault", va, pfn)
        return FaultResult.HUGE_PAGE

    # --- anonymous memory -------------------------------------------------------------------------------------------

    def _do_anonymous_page(self, mm: AddressSpace, vma: Vma, va: int, pte: int, error_code: int) -> FaultResult:
        if not error_code & WRITE:
            zero = user_pte(self._manager.zero_pfn, vma.flags) | SPECIAL
            self._memory.store64(pte, zero)
            return FaultResult.ZERO_PAGE
        pfn = self._new_zeros(mm, vma, va)
        self._memory.store64(pte, user_pte(pfn, vma.flags, dirty=True))
        return FaultResult.DEMAND_ZERO

    def _new_zeros(self, mm: AddressSpace, vma: Vma, va: int) -> int:
        pfn = self._new_page(mm, vma, va)
        self._memory.clear_frame(pfn)
        return pfn

    def _new_page(self, mm: AddressSpace, vma: Vma, va: int) -> int:
        if vma.anon_vma is None:
            mm.vmas.prepare_anon_vma(vma)
        return self._pages.allocate_mapped(mm, va)

    # --- files ------------------------------------------------------------------------------------------------------

    def _do_fault(self, mm: AddressSpace, vma: Vma, va: int, pte: int, error_code: int) -> FaultResult:
        """A page of the page cache; a private one that is written is copied at once (do_cow_fault)."""
        assert vma.backing is not None
        if not error_code & WRITE and self._fault_around(mm, vma, vma.backing, va, pte):
            return FaultResult.FILE
        cached = vma.backing.page(vma.index(va))
        if cached is None:
            raise Errno(errno.EFAULT)
        if error_code & WRITE and not vma.flags & VmaFlag.SHARED:
            pfn = self._copy(mm, vma, va, cached)
            self._memory.store64(pte, user_pte(pfn, vma.flags, dirty=True))
            return FaultResult.FILE
        self._map_cached(mm, vma, va, pte, cached, dirty=error_code & WRITE != 0)
        return FaultResult.FILE

    def _map_cached(self, mm: AddressSpace, vma: Vma, va: int, pte: int, pfn: int, *, dirty: bool) -> None:
        self._pages.map(pfn, mm, va)
        writable = vma.flags & (VmaFlag.SHARED | VmaFlag.WRITE) == VmaFlag.SHARED | VmaFlag.WRITE
        self._memory.store64(pte, user_pte(pfn, vma.flags, writable=writable, dirty=dirty))

    def _fault_around(self, mm: AddressSpace, vma: Vma, backing: Backing, va: int, pte: int) -> bool:
        """Map what the page cache has of the 16 pages around, so that they need no fault (do_fault_around).

        Returns whether the page itself was among them.
        """
        first = max(va & -FAULT_AROUND, vma.start)
        beyond = backing.size + PAGE_SIZE - 1 >> PAGE_SHIFT
        for at in range(first, min((va & -FAULT_AROUND) + FAULT_AROUND, vma.end), PAGE_SIZE):
            index = vma.index(at)
            place = pte + 8 * ((at - va) >> PAGE_SHIFT)
            if index < beyond and backing.is_cached(index) and not self._memory.load64(place):
                cached = backing.page(index)
                assert cached is not None
                self._map_cached(mm, vma, at, place, cached, dirty=False)
        return self._memory.load64(pte) != 0

    # --- copy-on-write ----------------------------------------------------------------------------------------------

    def _do_wp_page(self, mm: AddressSpace, vma: Vma, va: int, pte: int, entry: int) -> FaultResult:
        """A write to a page that is mapped read-only, because others may see it."""
        pfn, special = pfn_of(entry), is_special(entry)
        if vma.flags & VmaFlag.SHARED or (not special and self._may_reuse(pfn)):
            self._memory.store64(pte, user_pte(pfn, vma.flags, dirty=True))
            self._tell_copy(va, pfn, pfn)
            return FaultResult.REUSE
        copy = self._new_zeros(mm, vma, va) if special else self._copy(mm, vma, va, pfn)
        # The old translation must be gone before the new one can be used (ptep_clear_flush), and the old frame is
        # let go last: while the TLB still had it, this process could read it.
        self._memory.store64(pte, 0)
        self._manager.tlb.flush(mm, va, va + PAGE_SIZE, "cow")
        self._memory.store64(pte, user_pte(copy, vma.flags, dirty=True))
        if not special:
            self._pages.unmap(pfn, mm, va)
        self._tell_copy(va, pfn, copy)
        return FaultResult.COPY_ON_WRITE

    def _copy(self, mm: AddressSpace, vma: Vma, va: int, pfn: int) -> int:
        """A new page with the content of another; that one is held, since a new page may cost others their frames."""
        self._pages.get(pfn)
        try:
            copy = self._new_page(mm, vma, va)
            self._memory.copy_frame(copy, pfn)
        finally:
            self._pages.put(pfn)
        return copy

    def _tell_copy(self, va: int, old: int, new: int) -> None:
        kernel = self._kernel
        if kernel.events.wants("cow"):
            kernel.events.emit(CopyOnWrite(kernel.now, kernel.machine.pid, va, old, new))

    def _may_reuse(self, pfn: int) -> bool:
        """Whether nobody else has this anonymous page (wp_can_reuse_anon_folio)."""
        if not self._pages.is_anonymous(pfn):
            return False
        if self._pages.is_exclusive(pfn):
            return True
        if not self._pages.is_alone(pfn) or self._manager.swap.is_shared(pfn):
            return False
        self._manager.swap.forget(pfn)
        self._pages.set_exclusive(pfn)
        return True

    # --- swap -------------------------------------------------------------------------------------------------------

    def _do_swap_page(self, mm: AddressSpace, vma: Vma, va: int, pte: int, error_code: int) -> FaultResult:
        """Bring a page back, from the swap cache or from the device: it is mapped when it is there."""
        swap, entry = self._manager.swap, self._memory.load64(pte)
        slot, exclusive = swap_place(entry)[1], entry & SWAP_EXCLUSIVE != 0
        pfn = swap.page_in(slot)
        if pfn is None:
            pfn = swap.swapin(slot)
        self.retry_at = swap.arrives(pfn)
        if self.retry_at and self.retry_at > self._kernel.now:
            return FaultResult.RETRY
        read = self._map_swapped(mm, vma, va, pfn, exclusive=exclusive)
        swap.drop(slot)
        write = error_code & WRITE != 0
        if (write or swap.is_half_full) and not swap.is_shared(pfn):
            swap.forget(pfn)
        writable = exclusive and vma.flags & VmaFlag.WRITE != 0
        entry = user_pte(pfn, vma.flags, writable=writable, dirty=write and writable)
        self._memory.store64(pte, entry)
        kernel = self._kernel
        if kernel.events.wants("swap_in"):
            kernel.events.emit(SwapIn(kernel.now, kernel.machine.pid, va, pfn, slot, read))
        if write and not writable:
            self._do_wp_page(mm, vma, va, pte, entry)
        return FaultResult.SWAP_IN if read else FaultResult.SWAP_CACHE

    def _map_swapped(self, mm: AddressSpace, vma: Vma, va: int, pfn: int, *, exclusive: bool) -> bool:
        """Note who maps a page of the swap cache. Whether it was read for that."""
        if vma.anon_vma is None:
            mm.vmas.prepare_anon_vma(vma)
        arrival = self._manager.swap.arrived(pfn)
        if arrival is None:
            self._pages.map(pfn, mm, va)
        else:
            self._pages.map_cached(pfn, mm, va)
        if exclusive:
            self._pages.set_exclusive(pfn)
        return arrival is not None and arrival.is_wanted


def _count_for(process: Process, result: FaultResult) -> None:
    """A process's own counts (mm_account_fault)."""
    process.major_faults += result.major
    process.minor_faults += result.resolved and not result.major


def access_permitted(vma: Vma, error_code: int) -> bool:
    """Whether the promise covers the access (access_error in arch/x86/mm/fault.c)."""
    if error_code & FETCH:
        return vma.flags & VmaFlag.EXEC != 0
    if error_code & WRITE:
        return vma.flags & VmaFlag.WRITE != 0
    return vma.flags & VmaFlag.RIGHTS != 0  # x86 cannot make a page writable or executable but not readable
