"""System calls on memory (mm/mmap.c): anonymous mappings and the heap."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..layout import TASK_SIZE
from ..vma import Prot
from . import syscall

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["brk", "mmap", "munmap"]

MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_POPULATE: Final = 0x8000
MAP_FIXED_NOREPLACE: Final = 0x10_0000
MAP_IGNORED: Final = 0x0800 | 0x1000 | 0x2_0000 | 0x4000
"""MAP_DENYWRITE, MAP_EXECUTABLE, MAP_STACK, MAP_NORESERVE: nothing to do here."""
PROT_ALL: Final = 7


@syscall(9)
def mmap(kernel: Kernel, address: int, size: int, prot: int, flags: int, _fd: int, offset: int) -> int:
    """Map anonymous private memory. What is not built yet answers ENODEV or EOPNOTSUPP, never a wrong success."""
    if offset & 0xFFF:
        raise Errno(errno.EINVAL)
    if not flags & MAP_ANONYMOUS:
        raise Errno(errno.EBADF if _fd & 0xFFFF_FFFF > 2 else errno.ENODEV)
    if not flags & (MAP_SHARED | MAP_PRIVATE):
        raise Errno(errno.EINVAL)
    known = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_POPULATE | MAP_FIXED_NOREPLACE | MAP_IGNORED
    if flags & ~known:
        raise Errno(errno.EOPNOTSUPP)
    if size == 0:
        raise Errno(errno.EINVAL)
    if size > TASK_SIZE:
        raise Errno(errno.ENOMEM)
    fixed = bool(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
    replace = not flags & MAP_FIXED_NOREPLACE
    start = kernel.current.mm.map(address, size, Prot(prot & PROT_ALL), fixed=fixed, replace=replace)
    if flags & MAP_POPULATE:
        kernel.populate(kernel.current, start, start + size)
    return start


@syscall(11)
def munmap(kernel: Kernel, address: int, size: int) -> int:
    """Unmap a range of pages."""
    if size > TASK_SIZE:
        raise Errno(errno.EINVAL)
    kernel.current.mm.unmap(address, size)
    return 0


@syscall(12)
def brk(kernel: Kernel, address: int) -> int:
    """Move the end of the heap; the answer is where it is now, also if it could not be moved."""
    return kernel.current.mm.set_break(address)
