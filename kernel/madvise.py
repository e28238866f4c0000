"""What a program tells about its memory, and what the kernel does with it (mm/madvise.c).

Advice is added with a decorator. A range is walked VMA by VMA; a hole does not stop the walk, but the answer is
ENOMEM then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE, ErrorCode

from .address_space import AddressSpace
from .exceptions import Errno
from .fault import FaultResult
from .khugepaged import madvise_collapse
from .layout import TASK_SIZE, page_align
from .mprotect import change_flags
from .pte import is_huge, is_mapped, is_special, is_swap, pfn_of, swap_place
from .vma import Vma, VmaFlag

if TYPE_CHECKING:
    from .kernel import Kernel
    from .process import Process

__all__ = ["advice", "madvise"]

Advice = Callable[["Kernel", AddressSpace, Vma, int, int], None]
_ADVICE: dict[int, Advice] = {}
POPULATE_READ: Final = 22
POPULATE_WRITE: Final = 23
MASK64: Final = (1 << 64) - 1
_NO_LRU: Final = VmaFlag.LOCKED | VmaFlag.HUGETLB


def advice(*numbers: int) -> Callable[[Advice], Advice]:
    """Register a function for MADV_* numbers: it gets the kernel, the address space, a VMA, and which part is meant."""

    def register(body: Advice) -> Advice:
        _ADVICE.update(dict.fromkeys(numbers, body))
        return body

    return register


def madvise(kernel: Kernel, process: Process, start: int, size: int, number: int) -> None:
    """Take advice about a range (do_madvise). Raises Errno; what could be done is done."""
    if number not in _ADVICE and number not in (POPULATE_READ, POPULATE_WRITE):
        raise Errno(errno.EINVAL)
    end = start + page_align(size)
    if start % PAGE_SIZE or end >= 1 << 64:
        raise Errno(errno.EINVAL)
    if end == start:
        return
    if number in (POPULATE_READ, POPULATE_WRITE):
        _populate(kernel, process, start, end, write=number == POPULATE_WRITE)
        return
    mm, at, hole = process.mm, start, False
    for vma in mm.vmas.overlapping(start, min(end, TASK_SIZE)):
        hole = hole or vma.start > at
        low, at = max(vma.start, start), min(vma.end, end)
        _ADVICE[number](kernel, mm, vma, low, at)
    if hole or at < end:
        raise Errno(errno.ENOMEM)


@advice(0, 1, 2)
def _reading_order(kernel: Kernel, _mm: AddressSpace, _vma: Vma, _start: int, _end: int) -> None:
    """MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL: for readahead, which there is none of."""


@advice(3)
def _will_need(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_WILLNEED: pages that are in swap come back in advance (swapin_walk_pmd_entry); those of files are there."""
    for _, entry, _ in list(mm.page_table.leaves(start, end)):
        if is_swap(entry):
            mm.manager.swap.prefetch(swap_place(entry)[1])


@advice(4)
def _dont_need(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_DONTNEED: away with the pages; the promise stays."""
    if vma.flags & VmaFlag.LOCKED:
        raise Errno(errno.EINVAL)
    _zap(mm, vma, start, end)


@advice(24)
def _dont_need_locked(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_DONTNEED_LOCKED: also where they are locked."""
    _zap(mm, vma, start, end)


def _zap(mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Take pages away, those of a pool as a whole (madvise_dontneed_free_valid_vma)."""
    if start % vma.page_size:
        raise Errno(errno.EINVAL)
    end &= -vma.page_size
    if end > start and vma.flags & VmaFlag.HUGETLB:
        mm.manager.hugetlb.zap(mm, vma, start, end)
    elif end > start:
        mm.release(start, end, "madvise")


def _own_pages(mm: AddressSpace, start: int, end: int, *, whole: bool = True) -> Iterator[tuple[int, int]]:
    """(va, pfn) of the pages in a range that no other entry maps: reclaim asks nobody else about them.

    Huge pages of which only a part is meant become single pages before; unless they may stay `whole`, all do.
    """
    _split_pages(mm, start, end, whole=whole)
    for va, entry, _ in list(mm.page_table.leaves(start, end)):
        if is_mapped(entry) and not is_special(entry) and mm.manager.pages.mapcount(pfn_of(entry)) == 1:
            yield va, pfn_of(entry)


def _split_pages(mm: AddressSpace, start: int, end: int, *, whole: bool) -> None:
    pages, huge = mm.manager.pages, mm.manager.huge
    huge.split_borders(mm, start, end)
    heads: dict[int, None] = {}
    for _, entry, _ in list(mm.page_table.leaves(start, end)) if pages.compounds else ():
        compound = pages.compound(pfn_of(entry)) if is_mapped(entry) and not is_special(entry) else None
        if compound is not None and not compound.is_shared and not (whole and is_huge(entry)):
            heads[compound.head] = None
    for head in heads:
        huge.split_page(head)


@advice(8)
def _free(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_FREE: the pages may go when memory is short, unless they are written again. In swap they go at once."""
    if vma.backing is not None or vma.is_shared or vma.flags & _NO_LRU:
        raise Errno(errno.EINVAL)
    for va, entry, pte in list(mm.page_table.leaves(start, end)):
        if is_swap(entry):
            mm.manager.memory.store64(pte, 0)
            mm.drop(va, entry)
    for _, pfn in _own_pages(mm, start, end):
        kernel.reclaim.lazy_free(pfn)


@advice(9)
def _remove(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_REMOVE: punch a hole into the file behind a shared mapping."""
    if vma.flags & VmaFlag.LOCKED or vma.backing is None:
        raise Errno(errno.EINVAL)
    if not (vma.flags & VmaFlag.SHARED and vma.flags & VmaFlag.WRITE):
        raise Errno(errno.EACCES)
    raise Errno(errno.EOPNOTSUPP)


@advice(20)
def _cold(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_COLD: when memory is short, these first."""
    if vma.flags & _NO_LRU:
        raise Errno(errno.EINVAL)
    for _, pfn in _own_pages(mm, start, end):
        kernel.reclaim.cold(pfn)


@advice(21)
def _page_out(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_PAGEOUT: out with them now, as far as there is swap or a file."""
    if vma.flags & _NO_LRU:
        raise Errno(errno.EINVAL)
    for _, pfn in _own_pages(mm, start, end, whole=False):
        kernel.reclaim.reclaim_page(pfn, wait=True)


def _flag(number: int, *, on: int = 0, off: int = 0) -> None:
    """Advice that only sets or clears flags of the VMA."""

    @advice(number)
    def change(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
        flags = vma.flags & ~off | on
        if flags != vma.flags:
            change_flags(mm, start, end, flags)


_flag(10, on=VmaFlag.DONT_COPY)  # MADV_DONTFORK
_flag(11, off=VmaFlag.DONT_COPY)  # MADV_DOFORK
_flag(15, on=VmaFlag.NO_HUGE_PAGE, off=VmaFlag.HUGE_PAGE)  # MADV_NOHUGEPAGE
_flag(16, on=VmaFlag.DONT_DUMP)  # MADV_DONTDUMP
_flag(17, off=VmaFlag.DONT_DUMP)  # MADV_DODUMP
_flag(19, off=VmaFlag.WIPE_ON_FORK)  # MADV_KEEPONFORK


advice(25)(madvise_collapse)


@advice(14)
def _huge_page(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_HUGEPAGE: huge pages here, please."""
    flags = vma.flags & ~VmaFlag.NO_HUGE_PAGE | VmaFlag.HUGE_PAGE
    if flags != vma.flags:
        kernel.manager.huge.enter(mm, change_flags(mm, start, end, flags))


@advice(18)
def _wipe_on_fork(kernel: Kernel, mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_WIPEONFORK: a child finds zeros here."""
    if vma.backing is not None or vma.flags & VmaFlag.SHARED:
        raise Errno(errno.EINVAL)
    if not vma.flags & VmaFlag.WIPE_ON_FORK:
        change_flags(mm, start, end, vma.flags | VmaFlag.WIPE_ON_FORK)


def _populate(kernel: Kernel, process: Process, start: int, end: int, *, write: bool) -> None:
    """Fault pages in now, as if each was touched (faultin_page_range). Raises Errno."""
    code = int(ErrorCode.U | (ErrorCode.W if write else 0))
    for va in range(start, end, PAGE_SIZE):
        vma = process.mm.vmas.find(va)
        if vma is None:
            raise Errno(errno.ENOMEM)
        if not vma.flags & (VmaFlag.WRITE if write else VmaFlag.READ):
            raise Errno(errno.EINVAL)
        if process.mm.permits(va, write=write):
            continue
        result = kernel.faults.deliver(process, va, code)
        if result is FaultResult.BUS_ERROR:
            raise Errno(errno.EFAULT)
        if not result.resolved:
            raise Errno(errno.ENOMEM)
