"""Growing, shrinking and moving a mapping (mm/mremap.c).

Moving copies nothing: the page-table entries go to the new place, and the frames do not notice.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from .address_space import AddressSpace
from .exceptions import Errno
from .layout import MMAP_MIN_ADDR, TASK_SIZE, page_align
from .limits import Resource
from .pte import is_mapped, is_special, pfn_of
from .vma import Vma, VmaFlag

__all__ = ["mremap"]

MAYMOVE: Final = 1
FIXED: Final = 2
DONTUNMAP: Final = 4


def mremap(mm: AddressSpace, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """Change the size of a mapping, or its place. Returns where it is now. Raises Errno."""
    exact_old = old_size
    old_size, new_size = page_align(old_size), page_align(new_size)
    _check(old, exact_old, old_size, new_size, flags, new)
    if flags & (FIXED | DONTUNMAP):
        return _move_to(mm, old, old_size, new_size, flags, new)
    if old_size and new_size <= old_size:
        return _shrink(mm, old, old_size, new_size)
    vma = _movable(mm, old, old_size, new_size, flags)
    if old_size and vma.end == old + old_size and _expand(mm, vma, new_size - old_size):
        return old
    if not flags & MAYMOVE:
        raise Errno(errno.ENOMEM)
    return _move(mm, vma, old, old_size, new_size, mm.choose(0, new_size), keep=False)


def _check(old: int, exact_old: int, old_size: int, new_size: int, flags: int, new: int) -> None:
    """What cannot be, in any address space (check_mremap_params). Raises Errno(EINVAL)."""
    moves = flags & (FIXED | DONTUNMAP)
    bad = (
        flags & ~(MAYMOVE | FIXED | DONTUNMAP)
        or old % PAGE_SIZE
        or new_size == 0
        or new_size > TASK_SIZE
        or (moves and not flags & MAYMOVE)
        or (flags & DONTUNMAP and old_size != new_size)
        or old + exact_old > (1 << 64) - 1
    )
    if bad:
        raise Errno(errno.EINVAL)
    if not moves:
        return
    if new % PAGE_SIZE or new > TASK_SIZE - new_size or (old + old_size > new and new + new_size > old):
        raise Errno(errno.EINVAL)


def _shrink(mm: AddressSpace, old: int, old_size: int, new_size: int) -> int:
    vma = mm.vmas.find(old)
    if vma is None:
        raise Errno(errno.EFAULT)
    if new_size < old_size:
        mm.unmap(old + new_size, old_size - new_size)
    return old


def _movable(mm: AddressSpace, old: int, old_size: int, new_size: int, flags: int) -> Vma:
    """The VMA that holds all of the old range (check_prep_vma). Raises Errno."""
    vma = mm.vmas.find(old)
    if vma is None:
        raise Errno(errno.EFAULT)
    if not old_size and not vma.is_shared:
        raise Errno(errno.EINVAL)  # only a shared mapping can be mapped a second time
    if flags & DONTUNMAP and vma.flags & VmaFlag.HUGETLB:
        raise Errno(errno.EINVAL)
    if old_size > vma.end - old:
        raise Errno(errno.EFAULT)
    more = (new_size - old_size) >> PAGE_SHIFT
    limit = mm.limits.soft(Resource.MEMLOCK)
    if more > 0 and vma.flags & VmaFlag.LOCKED and (mm.locked_pages + more) << PAGE_SHIFT > limit:
        raise Errno(errno.EAGAIN)
    if more > 0:
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


def _move_to(mm: AddressSpace, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """Move to a chosen place; what was there is unmapped first (mremap_to). Raises Errno."""
    if flags & FIXED:
        if new < MMAP_MIN_ADDR:
            raise Errno(errno.EPERM)
        mm.unmap(new, new_size)
    if old_size > new_size:
        mm.unmap(old + new_size, old_size - new_size)
        old_size = new_size
    vma = _movable(mm, old, old_size, new_size, flags)
    place = new if flags & FIXED else mm.choose(new, new_size)
    return _move(mm, vma, old, old_size, new_size, place, keep=bool(flags & DONTUNMAP))


def _move(mm: AddressSpace, vma: Vma, old: int, old_size: int, new_size: int, new: int, *, keep: bool) -> int:
    """Make the new VMA, take the entries there, give up the old one unless it is kept (move_vma)."""
    if vma.flags & VmaFlag.ACCOUNT:
        mm.manager.overcommit.charge(new_size >> PAGE_SHIFT)
    offset = vma.index(old)
    if vma.backing is None and vma.anon_vma is None:
        offset = new >> PAGE_SHIFT  # nothing in it yet: it may be numbered as if it had always been here
    mm.add(replace(vma, start=new, end=new + new_size, page_offset=offset))
    _move_entries(mm, old, new, old_size)
    if old_size and not keep:
        mm.unmap(old, old_size)
    return new


def _move_entries(mm: AddressSpace, old: int, new: int, size: int) -> None:
    """Take the entries out, flush the old place, and put them in at the new one (move_page_tables)."""
    memory, pages = mm.manager.memory, mm.manager.pages
    moved = list(mm.page_table.leaves(old, old + size))
    places = [mm.page_table.make_entry(new + va - old) for va, _, _ in moved]
    for (va, entry, pte), place in zip(moved, places, strict=True):
        memory.store64(pte, 0)
        memory.store64(place, entry)
        if is_mapped(entry) and not is_special(entry):
            pages.move(pfn_of(entry), mm, va, new + va - old)
    if moved:
        mm.manager.tlb.flush(mm, moved[0][0], moved[-1][0] + PAGE_SIZE, "mremap")
