"""System calls on memory: promises made, changed and taken back (mm/mmap.c, mm/mprotect.c, mm/mremap.c)."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT, PAGE_SIZE

from .. import madvise as advising
from .. import mprotect as protecting
from .. import mremap as remapping
from ..address_space import AddressSpace
from ..exceptions import Errno
from ..layout import TASK_SIZE, page_align
from ..limits import Resource
from ..overcommit import NEVER
from ..shmem import shared_memory
from ..vma import Backing, VmaFlag
from . import syscall

if TYPE_CHECKING:
    from ..files.file import File
    from ..hugetlb import HugePool
    from ..kernel import Kernel

__all__ = ["brk", "madvise", "may_lock", "mmap", "mprotect", "mremap", "munmap"]

PROT_ALL: Final = 7


class Map:
    """MAP_* (include/uapi/linux/mman.h)."""

    SHARED: Final = 0x01
    PRIVATE: Final = 0x02
    SHARED_VALIDATE: Final = 0x03
    TYPE: Final = 0x0F
    FIXED: Final = 0x10
    ANONYMOUS: Final = 0x20
    GROWSDOWN: Final = 0x0100
    LOCKED: Final = 0x2000
    NORESERVE: Final = 0x4000
    POPULATE: Final = 0x8000
    NONBLOCK: Final = 0x1_0000
    STACK: Final = 0x2_0000
    HUGETLB: Final = 0x4_0000
    HUGE_SHIFT: Final = 26
    HUGE_MASK: Final = 0x3F
    FIXED_NOREPLACE: Final = 0x10_0000
    LEGACY: Final = 0x0F_DFFF
    """What MAP_SHARED_VALIDATE knows (LEGACY_MAP_MASK), roughly."""


@syscall(9, cycles=2600)
def mmap(kernel: Kernel, address: int, size: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """Map anonymous memory or a file (ksys_mmap_pgoff, do_mmap)."""
    if offset % PAGE_SIZE:
        raise Errno(errno.EINVAL)
    file = None if flags & Map.ANONYMOUS else kernel.current.files.file(fd & 0xFFFF_FFFF)
    if size == 0:
        raise Errno(errno.EINVAL)
    pool = _pool(kernel, file, flags) if flags & Map.HUGETLB else None
    page_size = pool.size if pool is not None else PAGE_SIZE
    size += -size % page_size
    mm = kernel.current.mm
    start = mm.place(
        address,
        size,
        fixed=bool(flags & (Map.FIXED | Map.FIXED_NOREPLACE)),
        replace=not flags & Map.FIXED_NOREPLACE,
        huge=file is None and not flags & (Map.SHARED | Map.HUGETLB),
        page_size=page_size,
    )
    vm_flags = _vm_flags(prot, flags) | mm.lock_future
    if flags & Map.LOCKED and not may_lock(mm):
        raise Errno(errno.EPERM)
    mm.check_locked(page_align(size) >> PAGE_SHIFT, vm_flags)
    if pool is not None:
        return _map_pooled(kernel, mm, pool, start, size, vm_flags, flags)
    vm_flags, backing = _anonymous(kernel, vm_flags, flags, size) if file is None else _of_file(file, vm_flags, flags)
    if flags & Map.NORESERVE and kernel.manager.overcommit.mode != NEVER:
        vm_flags |= VmaFlag.NO_RESERVE
    mm.map(start, size, vm_flags, backing=backing, page_offset=offset >> PAGE_SHIFT, fixed=True)
    if flags & (Map.POPULATE | Map.NONBLOCK) == Map.POPULATE or vm_flags & VmaFlag.LOCKED:
        kernel.faults.populate(kernel.current, start, start + page_align(size))
    return start


def _pool(kernel: Kernel, file: File | None, flags: int) -> HugePool:
    """The pool that MAP_HUGETLB means. Raises Errno(EINVAL)."""
    if file is not None:
        raise Errno(errno.EINVAL)
    return kernel.manager.hugetlb.pool(flags >> Map.HUGE_SHIFT & Map.HUGE_MASK)


def _map_pooled(
    kernel: Kernel, mm: AddressSpace, pool: HugePool, start: int, size: int, vm_flags: int, flags: int
) -> int:
    """Map huge pages of a pool, which are promised now unless MAP_NORESERVE says not to (hugetlbfs_file_mmap)."""
    kind = flags & Map.TYPE
    if kind not in (Map.SHARED, Map.PRIVATE, Map.SHARED_VALIDATE) or flags & Map.GROWSDOWN:
        raise Errno(errno.EINVAL)
    file = kernel.manager.hugetlb.file(pool, mm, size, shared=kind != Map.PRIVATE)
    populates = vm_flags & VmaFlag.LOCKED or flags & (Map.POPULATE | Map.NONBLOCK) == Map.POPULATE
    vm_flags = vm_flags & ~VmaFlag.LOCK_MASK | VmaFlag.HUGETLB | VmaFlag.DONT_EXPAND
    if file.is_shared:
        vm_flags |= VmaFlag.SHARED | VmaFlag.MAY_SHARE
    if flags & Map.NORESERVE:
        vm_flags |= VmaFlag.NO_RESERVE
    mm.map(start, size, vm_flags, backing=file, fixed=True)
    if populates:
        kernel.faults.populate(kernel.current, start, start + size)
    return start


def may_lock(mm: AddressSpace) -> bool:
    """Whether a process may lock memory at all (can_do_mlock)."""
    return mm.limits.soft(Resource.MEMLOCK) != 0


def _vm_flags(prot: int, flags: int) -> int:
    vm_flags = prot & PROT_ALL | VmaFlag.MAY_ALL
    if flags & Map.GROWSDOWN:
        vm_flags |= VmaFlag.GROWS_DOWN
    if flags & Map.LOCKED:
        vm_flags |= VmaFlag.LOCKED
    if flags & Map.STACK:
        vm_flags |= VmaFlag.NO_HUGE_PAGE
    return vm_flags


def _anonymous(kernel: Kernel, vm_flags: int, flags: int, size: int) -> tuple[int, Backing | None]:
    """Flags and backing of memory without a file. Raises Errno(EINVAL)."""
    if flags & Map.TYPE == Map.PRIVATE:
        return vm_flags, None
    if flags & Map.TYPE != Map.SHARED or flags & Map.GROWSDOWN:
        raise Errno(errno.EINVAL)
    return vm_flags | VmaFlag.SHARED | VmaFlag.MAY_SHARE, shared_memory(kernel.page_cache, page_align(size))


def _of_file(file: File, vm_flags: int, flags: int) -> tuple[int, Backing | None]:
    """Flags and backing of a file mapping: what the descriptor may not, the mapping may not. Raises Errno."""
    kind = flags & Map.TYPE
    if kind not in (Map.SHARED, Map.PRIVATE, Map.SHARED_VALIDATE):
        raise Errno(errno.EINVAL)
    if kind == Map.SHARED_VALIDATE and flags & ~Map.LEGACY:
        raise Errno(errno.EOPNOTSUPP)
    if kind != Map.PRIVATE:
        if vm_flags & VmaFlag.WRITE and not file.writable:
            raise Errno(errno.EACCES)
        vm_flags |= VmaFlag.SHARED | VmaFlag.MAY_SHARE
        if not file.writable:
            vm_flags &= ~(VmaFlag.SHARED | VmaFlag.MAY_WRITE)
    if not file.readable:
        raise Errno(errno.EACCES)
    if flags & Map.GROWSDOWN:
        raise Errno(errno.EINVAL)
    return file.mmap(vm_flags)


@syscall(10, cycles=2500)
def mprotect(kernel: Kernel, address: int, size: int, prot: int) -> int:
    """Change the rights of a range of pages."""
    process = kernel.current
    protecting.mprotect(process.mm, address, size, prot, partial(kernel.faults.populate, process))
    return 0


@syscall(11, cycles=2300)
def munmap(kernel: Kernel, address: int, size: int) -> int:
    """Unmap a range of pages."""
    if size > TASK_SIZE:
        raise Errno(errno.EINVAL)
    kernel.current.mm.unmap(address, size)
    return 0


@syscall(12, cycles=1700)
def brk(kernel: Kernel, address: int) -> int:
    """Move the end of the heap; the answer is where it is now, also if it could not be moved."""
    mm = kernel.current.mm
    before = page_align(mm.heap_end)
    end = mm.set_break(address)
    if mm.lock_future:
        kernel.faults.populate(kernel.current, before, page_align(end))
    return end


@syscall(25, cycles=2500)
def mremap(kernel: Kernel, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """Grow, shrink or move a mapping."""
    mm = kernel.current.mm
    start = remapping.mremap(mm, old, old_size, new_size, flags, new)
    vma = mm.vmas.find(start)
    if vma is not None and vma.flags & VmaFlag.LOCKED and new_size > old_size:
        kernel.faults.populate(kernel.current, start + page_align(old_size), start + page_align(new_size))
    return start


@syscall(28, cycles=700)
def madvise(kernel: Kernel, address: int, size: int, advice: int) -> int:
    """Say how a range will be used."""
    advising.madvise(kernel, kernel.current, address, size, advice & 0xFFFF_FFFF)
    return 0
