"""System calls on what is in memory: mincore, mlock and their like, msync (mm/mincore.c, mm/mlock.c, mm/msync.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from ..address_space import AddressSpace
from ..exceptions import Errno
from ..layout import TASK_SIZE, page_align
from ..limits import Resource
from ..mprotect import change_flags
from ..pte import is_mapped, is_swap, swap_place
from ..vma import Vma, VmaFlag
from . import syscall
from .memory import may_lock

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["mincore", "mlock", "mlockall", "msync", "munlock"]

MASK64: Final = (1 << 64) - 1
MLOCK_ONFAULT: Final = 1
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4


@syscall(27)
def mincore(kernel: Kernel, address: int, size: int, vector: int) -> int:
    """One byte a page: 1 if it is in memory. For a file that means: in the page cache."""
    if address % PAGE_SIZE:
        raise Errno(errno.EINVAL)
    end = address + page_align(size)
    if end > TASK_SIZE:
        raise Errno(errno.ENOMEM)
    pages = (end - address) >> PAGE_SHIFT
    if vector + pages > TASK_SIZE:
        raise Errno(errno.EFAULT)
    mm, at = kernel.current.mm, address
    while at < end:
        vma = mm.vmas.find(at)
        if vma is None:
            raise Errno(errno.ENOMEM)
        stop = min(end, vma.end, at + PAGE_SIZE * PAGE_SIZE)
        states = bytes(_is_resident(mm, vma, va) for va in range(at, stop, PAGE_SIZE))
        kernel.user.copy_to(vector + (at - address >> PAGE_SHIFT), states)
        at = stop
    return 0


def _is_resident(mm: AddressSpace, vma: Vma, va: int) -> bool:
    entry = mm.page_table.lookup(va)
    if is_mapped(entry):
        return True
    if is_swap(entry):
        return mm.manager.swap.page_in(swap_place(entry)[1]) is not None
    return vma.backing is not None and vma.backing.is_cached(vma.index(va))


# --- locking --------------------------------------------------------------------------------------------------------


@syscall(149)
def mlock(kernel: Kernel, address: int, size: int) -> int:
    """Bring pages in and keep them."""
    return _lock(kernel, address, size, populate=True)


@syscall(325)
def mlock2(kernel: Kernel, address: int, size: int, flags: int) -> int:
    """mlock, with MLOCK_ONFAULT for pages as they come."""
    if flags & ~MLOCK_ONFAULT:
        raise Errno(errno.EINVAL)
    return _lock(kernel, address, size, populate=not flags)


def _lock(kernel: Kernel, address: int, size: int, *, populate: bool) -> int:
    mm = kernel.current.mm
    if not may_lock(mm):
        raise Errno(errno.EPERM)
    start, size = _whole_pages(address, size)
    end = start + size
    already = sum(vma.part(start, end).pages for vma in mm.vmas.overlapping(start, end) if vma.flags & VmaFlag.LOCKED)
    locked = ((mm.locked_pages - already) << PAGE_SHIFT) + size
    if locked > kernel.current.limits.soft(Resource.MEMLOCK):
        raise Errno(errno.ENOMEM)
    _set_locked(mm, start, end, VmaFlag.LOCKED if populate else VmaFlag.LOCK_MASK)
    if not kernel.faults.populate_until_error(kernel.current, start, end):
        raise Errno(errno.ENOMEM)
    return 0


def _whole_pages(address: int, size: int) -> tuple[int, int]:
    """The first page of a range and the size from there; a size that is too large begins again at 0, as in C."""
    return address & ~(PAGE_SIZE - 1), page_align(size + address % PAGE_SIZE) & MASK64


def _set_locked(mm: AddressSpace, start: int, end: int, locked: int) -> None:
    """Set or clear VM_LOCKED VMA by VMA up to the first hole (apply_vma_lock_flags). Raises Errno."""
    if end >= 1 << 64:
        raise Errno(errno.EINVAL)
    at = start
    for vma in mm.vmas.overlapping(start, min(end, TASK_SIZE)):
        if vma.start > at:
            break
        low, at = max(vma.start, start), min(vma.end, end)
        flags = vma.flags & ~VmaFlag.LOCK_MASK | locked
        if flags != vma.flags and not vma.flags & VmaFlag.HUGETLB:  # what is in a pool stays in memory anyway
            change_flags(mm, low, at, flags)
    if at < end:
        raise Errno(errno.ENOMEM)


@syscall(150)
def munlock(kernel: Kernel, address: int, size: int) -> int:
    """Pages need not stay."""
    start, size = _whole_pages(address, size)
    _set_locked(kernel.current.mm, start, start + size, 0)
    return 0


@syscall(151)
def mlockall(kernel: Kernel, flags: int) -> int:
    """Lock all there is, and all that comes."""
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise Errno(errno.EINVAL)
    mm = kernel.current.mm
    if not may_lock(mm):
        raise Errno(errno.EPERM)
    if flags & MCL_CURRENT and mm.total_pages << PAGE_SHIFT > kernel.current.limits.soft(Resource.MEMLOCK):
        raise Errno(errno.ENOMEM)
    locked = VmaFlag.LOCK_MASK if flags & MCL_ONFAULT else VmaFlag.LOCKED
    mm.lock_future = locked if flags & MCL_FUTURE else 0
    if flags & MCL_CURRENT:
        _lock_all(mm, locked)
        kernel.faults.populate(kernel.current, 0, TASK_SIZE)
    return 0


def _lock_all(mm: AddressSpace, locked: int) -> None:
    for vma in list(mm.vmas):
        flags = vma.flags & ~VmaFlag.LOCK_MASK | locked
        if flags != vma.flags and not vma.flags & VmaFlag.HUGETLB:
            change_flags(mm, vma.start, vma.end, flags)


@syscall(152)
def munlockall(kernel: Kernel) -> int:
    """Nothing need stay."""
    mm = kernel.current.mm
    mm.lock_future = 0
    _lock_all(mm, 0)
    return 0


@syscall(26)
def msync(kernel: Kernel, address: int, size: int, flags: int) -> int:
    """Write changed pages of shared file mappings to the file. They are the file's own pages already."""
    end = address + (page_align(size) & MASK64)
    bad = flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or flags & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC
    if bad or address % PAGE_SIZE:
        raise Errno(errno.EINVAL)
    if end >= 1 << 64:
        raise Errno(errno.ENOMEM)
    at, hole = address, False
    for vma in kernel.current.mm.vmas.overlapping(address, min(end, TASK_SIZE)):
        hole = hole or vma.start > at
        if flags & MS_INVALIDATE and vma.flags & VmaFlag.LOCKED:
            raise Errno(errno.EBUSY)
        at = min(vma.end, end)
    if hole or at < end:
        raise Errno(errno.ENOMEM)
    return 0
