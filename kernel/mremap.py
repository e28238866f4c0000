"""Growing, shrinking and moving a mapping (mm/mremap.c).

Moving copies nothing: the page-table entries go to the new place, and the frames do not notice.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from .address_space import AddressSpace
from .compound import HPAGE_PMD_SIZE
from .exceptions import Errno
from .layout import TASK_SIZE, page_align
from .pte import is_huge, is_mapped, is_special, pfn_of
from .vma import Vma, VmaFlag

__all__ = ["mremap"]

MASK64: Final = (1 << 64) - 1
MAYMOVE: Final = 1
FIXED: Final = 2
DONTUNMAP: Final = 4


def mremap(mm: AddressSpace, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """Change the size of a mapping, or its place. Returns where it is now. Raises Errno."""
    old_size, new_size = page_align(old_size) & MASK64, page_align(new_size) & MASK64
    _check(old, old_size, new_size, flags, new)
    old_size, new_size = _check_pooled(mm, old, old_size, new_size, new)
    if flags & FIXED and old_size == new_size:
        return _move_all(mm, old, old_size, flags, new)
    if flags & (FIXED | DONTUNMAP):
        return _move_to(mm, old, old_size, new_size, flags, new)
    if new_size <= old_size:
        return _shrink(mm, old, old_size, new_size)
    vma = _movable(mm, old, old_size, new_size)
    if old_size and vma.end == old + old_size and _expand(mm, vma, new_size - old_size):
        return old
    if not flags & MAYMOVE:
        raise Errno(errno.ENOMEM)
    return _move(mm, vma, old, old_size, new_size, _choose(mm, vma, 0, new_size), keep=False)


def _choose(mm: AddressSpace, vma: Vma, hint: int, size: int) -> int:
    return mm.choose(hint, size, huge=vma.backing is None, page_size=vma.page_size)


def _check(old: int, old_size: int, new_size: int, flags: int, new: int) -> None:
    """What cannot be, in any address space (check_mremap_params). Raises Errno(EINVAL)."""
    moves = flags & (FIXED | DONTUNMAP)
    bad = (
        flags & ~(MAYMOVE | FIXED | DONTUNMAP)
        or old % PAGE_SIZE
        or new_size == 0
        or new_size > TASK_SIZE
        or (moves and not flags & MAYMOVE)
        or (flags & DONTUNMAP and old_size != new_size)
    )
    if bad:
        raise Errno(errno.EINVAL)
    if not moves:
        return
    if new % PAGE_SIZE or new > TASK_SIZE - new_size or (old + old_size > new and new + new_size > old):
        raise Errno(errno.EINVAL)


def _check_pooled(mm: AddressSpace, old: int, old_size: int, new_size: int, new: int) -> tuple[int, int]:
    """Huge pages of a pool are moved as a whole, and none are added (align_hugetlb). Raises Errno(EINVAL).

    Returns both sizes, rounded up.
    """
    vma = mm.vmas.find(old)
    if vma is None or not vma.flags & VmaFlag.HUGETLB:
        return old_size, new_size
    old_size, new_size = (size + -size % vma.page_size for size in (old_size, new_size))
    if old % vma.page_size or new % vma.page_size or new_size > old_size:
        raise Errno(errno.EINVAL)
    return old_size, new_size


def _shrink(mm: AddressSpace, old: int, old_size: int, new_size: int) -> int:
    vma = mm.vmas.find(old)
    if vma is None:
        raise Errno(errno.EFAULT)
    if new_size < old_size:
        mm.unmap(old + new_size, old_size - new_size)
    return old


def _movable(mm: AddressSpace, old: int, old_size: int, new_size: int) -> Vma:
    """The VMA that holds all of the old range (check_prep_vma). Raises Errno."""
    vma = mm.vmas.find(old)
    if vma is None:
        raise Errno(errno.EFAULT)
    if not old_size and not vma.is_shared:
        raise Errno(errno.EINVAL)  # only a shared mapping can be mapped a second time
    if old_size > vma.end - old:
        raise Errno(errno.EFAULT)
    more = (new_size - old_size) >> PAGE_SHIFT
    if more > 0:
        mm.check_locked(more, vma.flags)
        mm.check_limits(more, vma.flags)
    return vma


def _expand(mm: AddressSpace, vma: Vma, more: int) -> bool:
    """Grow a VMA upwards in place, if there is room (vma_expandable). Raises Errno(ENOMEM)."""
    above = mm.vmas.find_next(vma.end)
    end = vma.end + more
    if end > TASK_SIZE or (above is not None and end > above.start_gap):
        return False
    if vma.flags & VmaFlag.ACCOUNT:
        mm.manager.overcommit.charge(more >> PAGE_SHIFT)
    grown = replace(vma, start=vma.end, end=end, page_offset=vma.index(vma.end))
    mm.add(grown)
    return True


def _move_all(mm: AddressSpace, old: int, size: int, flags: int, new: int) -> int:
    """Move all VMAs of a range, and the holes between them (remap_move). Raises Errno."""
    found = mm.vmas.overlapping(old, old + size)
    if not found or found[0].start > old:
        raise Errno(errno.EFAULT)
    for vma in found:
        start, end = max(vma.start, old), min(vma.end, old + size)
        _move_to(mm, start, end - start, end - start, flags, new + start - old)
    return new


def _move_to(mm: AddressSpace, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """Move to a chosen place; what was there is unmapped first (mremap_to). Raises Errno."""
    vma = _movable(mm, old, min(old_size, new_size) if old_size else 0, new_size)
    if flags & FIXED:
        if new < mm.manager.mmap_min_addr:
            raise Errno(errno.EPERM)
        mm.unmap(new, new_size)
    if old_size > new_size:
        mm.unmap(old + new_size, old_size - new_size)
        old_size = new_size
    if flags & DONTUNMAP:
        mm.check_limits(old_size >> PAGE_SHIFT, vma.flags)
    vma = _movable(mm, old, old_size, new_size)  # unmapping may have cut it
    place = new if flags & FIXED else _choose(mm, vma, new, new_size)
    return _move(mm, vma, old, old_size, new_size, place, keep=bool(flags & DONTUNMAP))


def _move(mm: AddressSpace, vma: Vma, old: int, old_size: int, new_size: int, new: int, *, keep: bool) -> int:
    """Make the new VMA, take the entries there, give up the old one unless it is kept (move_vma)."""
    if vma.flags & VmaFlag.ACCOUNT:
        mm.manager.overcommit.charge(new_size >> PAGE_SHIFT)
    offset = vma.index(old)
    if vma.backing is None and vma.anon_vma is None:
        offset = new >> PAGE_SHIFT  # nothing in it yet: it may be numbered as if it had always been here
    mm.add(replace(vma, start=new, end=new + new_size, page_offset=offset))
    try:
        _move_entries(mm, old, new, old_size)
    except Errno:  # no memory for a page table
        mm.unmap(new, new_size)
        raise
    if vma.flags & VmaFlag.HUGETLB:  # what was promised to it is promised to the new one (clear_vma_resv_huge_pages)
        for piece in mm.vmas.overlapping(old, old + old_size):
            piece.flags |= VmaFlag.NO_RESERVE
    if keep:
        _leave_empty(mm, vma, old, old_size)
    elif old_size:
        mm.unmap(old, old_size)
    return new


def _leave_empty(mm: AddressSpace, vma: Vma, old: int, size: int) -> None:
    """What stays behind has no pages and is not locked (dontunmap_complete)."""
    left = mm.vmas.find(old)
    assert left is not None
    left.flags &= ~VmaFlag.LOCK_MASK
    if (left.start, left.end) == (old, old + size) == (vma.start, vma.end):
        left.anon_vma = None


def _move_huge(mm: AddressSpace, old: int, new: int, size: int) -> None:
    """Move whole huge pages where that can be, and split the others. Raises Errno(ENOMEM), with nothing moved."""
    huge, table = mm.manager.huge, mm.page_table
    if not table.huge_leaves:
        return
    huge.split_borders(mm, old, old + size)
    for va, entry, _ in list(table.leaves(old, old + size)):
        if is_huge(entry):
            table.make_entry(new + va - old, level=huge.level_of(entry))
    pages = [(va, pmd) for va, entry, pmd in table.leaves(old, old + size) if is_huge(entry)]
    moved = [va for va, pmd in pages if huge.move_pmd(mm, va, new + va - old, pmd)]
    for va, _ in pages:
        if va not in moved:
            huge.split_pmd(mm, va)
    if moved:
        mm.manager.tlb.flush(mm, moved[0], moved[-1] + HPAGE_PMD_SIZE, "mremap", size=HPAGE_PMD_SIZE)


def _move_entries(mm: AddressSpace, old: int, new: int, size: int) -> None:
    """Take the entries out, flush the old place, and put them in at the new one (move_page_tables)."""
    memory, pages = mm.manager.memory, mm.manager.pages
    _move_huge(mm, old, new, size)
    places = {va: mm.page_table.make_entry(new + va - old) for va, _, _ in mm.page_table.leaves(old, old + size)}
    moved = list(mm.page_table.leaves(old, old + size))  # as they are now: a new table may have cost a page its frame
    for va, entry, pte in moved:
        place = places[va]
        memory.store64(pte, 0)
        memory.store64(place, entry)
        if is_mapped(entry) and not is_special(entry):
            pages.move(pfn_of(entry), mm, va, new + va - old)
    if moved:
        mm.manager.tlb.flush(mm, moved[0][0], moved[-1][0] + PAGE_SIZE, "mremap")
