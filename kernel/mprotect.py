"""Changing the rights of memory that is there (mm/mprotect.c).

The promise changes first, VMA by VMA, then the entries of the pages that were delivered, then the TLB is told. What
came before a hole in the range stays changed: mprotect is not all or nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from emu.pte import PAGE_SIZE

from .address_space import AddressSpace
from .exceptions import Errno
from .layout import TASK_SIZE, page_align
from .pte import is_mapped, is_special, naive, pfn_of, with_rights
from .vma import Vma, VmaFlag

__all__ = ["change_flags", "mprotect"]

GROWS_DOWN: Final = 0x0100_0000
GROWS_UP: Final = 0x0200_0000
_PRIVATE_LOCKED: Final = VmaFlag.WRITE | VmaFlag.SHARED | VmaFlag.LOCKED


Populate = Callable[[int, int], object]
"""Deliver the pages from one address up to another."""


def mprotect(mm: AddressSpace, start: int, size: int, prot: int, populate: Populate) -> None:
    """Give a range other rights (do_mprotect_pkey). Raises Errno, with what came before the error changed.

    What is locked and becomes writable is copied at once, with `populate`.
    """
    to_start_of_stack = prot & GROWS_DOWN
    prot &= ~(GROWS_DOWN | GROWS_UP)
    if to_start_of_stack and start + size and prot & ~0xF == 0 and not start % PAGE_SIZE:
        vma = mm.vmas.find_next(start)
        if vma is None or vma.start >= start + page_align(size):
            raise Errno(errno.ENOMEM)
        if not vma.flags & VmaFlag.GROWS_DOWN:
            raise Errno(errno.EINVAL)
        size, start = start + size - vma.start, vma.start
    if start % PAGE_SIZE:
        raise Errno(errno.EINVAL)
    if size == 0:
        return
    end = start + page_align(size)
    if end >= 1 << 64 or end <= start:
        raise Errno(errno.ENOMEM)
    if prot & ~0xF:  # PROT_SEM (8) is known and ignored
        raise Errno(errno.EINVAL)
    _protect(mm, start, end, prot & VmaFlag.RIGHTS, populate)


def _protect(mm: AddressSpace, start: int, end: int, rights: int, populate: Populate) -> None:
    at = start
    for vma in mm.vmas.overlapping(start, min(end, TASK_SIZE)):
        if vma.start > at:
            raise Errno(errno.ENOMEM)
        flags = vma.flags & ~VmaFlag.RIGHTS | rights
        if rights & ~(flags >> 4):  # VM_MAYREAD and its like lie four bits above VM_READ
            raise Errno(errno.EACCES)
        low, high = max(vma.start, start), min(vma.end, end)
        if flags != vma.flags:
            _change(mm, vma, low, high, flags)
            if vma.flags & _PRIVATE_LOCKED == VmaFlag.LOCKED and flags & VmaFlag.WRITE:
                populate(low, high)
        at = vma.end
    if at < end:
        raise Errno(errno.ENOMEM)


def _change(mm: AddressSpace, vma: Vma, start: int, end: int, flags: int) -> None:
    becomes = Vma(start, end, flags)
    if flags & VmaFlag.WRITE and not vma.flags & VmaFlag.WRITE:
        mm.check_data(becomes.pages, flags)
    if becomes.counts_as_committed and not vma.flags & (VmaFlag.ACCOUNT | VmaFlag.WRITE):
        mm.manager.overcommit.charge(becomes.pages)
        flags |= VmaFlag.ACCOUNT
    elif vma.flags & VmaFlag.ACCOUNT and not flags & VmaFlag.WRITE and vma.backing is None and vma.anon_vma is None:
        mm.manager.overcommit.uncharge(becomes.pages)  # nothing was ever written here, and nothing will be
        flags &= ~VmaFlag.ACCOUNT
    _change_entries(mm, change_flags(mm, start, end, flags), start, end)


def change_flags(mm: AddressSpace, start: int, end: int, flags: int) -> Vma:
    """Give a range inside one VMA other flags, splitting and merging as needed (vma_modify_flags).

    Raises Errno(EINVAL) where that would cut a huge page of a pool.
    """
    mm.check_split(start, end)
    mm.manager.huge.split_borders(mm, start, end)
    for piece in mm.vmas.remove(start, end):
        piece.flags = flags
        mm.vmas.insert(piece)
    vma = mm.vmas.find(start)
    assert vma is not None
    return vma


def _change_entries(mm: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Rewrite the entries of the pages that are there (change_protection)."""
    memory, flags = mm.manager.memory, vma.flags
    changed = []
    for va, entry, pte in list(mm.page_table.leaves(start, end)):
        if is_mapped(entry):
            new = with_rights(entry, flags, writable=_writable(mm, vma, entry))
            memory.store64(pte, new if mm.manager.pte_inversion else naive(new))
            changed.append((va, mm.manager.huge.size_of(entry)))
    if changed:
        mm.manager.tlb.flush(mm, changed[0][0], sum(changed[-1]), "mprotect")


def _writable(mm: AddressSpace, vma: Vma, entry: int) -> bool:
    """Whether the page can be written without a fault that decides (can_change_pte_writable)."""
    if not vma.flags & VmaFlag.WRITE or is_special(entry):
        return False
    if vma.flags & (VmaFlag.SHARED | VmaFlag.HUGETLB):
        return vma.flags & VmaFlag.SHARED != 0
    pfn = pfn_of(entry)
    return mm.manager.pages.is_anonymous(pfn) and mm.manager.pages.is_exclusive(pfn)
