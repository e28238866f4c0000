"""What system calls on files are given: numbers with signs, paths in user memory, buffers, and where a path begins."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from ..files.directory import Directory
from ..files.inode import Dentry
from ..files.iov import UserIter
from ..files.path import PATH_MAX, Last, Walk
from ..layout import TASK_SIZE

if TYPE_CHECKING:
    from ..files.file import File
    from ..kernel import Kernel

__all__ = [
    "AT_EMPTY_PATH",
    "AT_FDCWD",
    "AT_REMOVEDIR",
    "AT_SYMLINK_FOLLOW",
    "AT_SYMLINK_NOFOLLOW",
    "MAX_RW_COUNT",
    "buffers",
    "check_range",
    "find",
    "find_last",
    "int32",
    "int64",
    "one_buffer",
    "open_file",
    "path_at",
    "walk_from",
]

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000

MAX_RW_COUNT: Final = 0x7FFF_F000
"""Most bytes that one call moves (include/linux/fs.h)."""
IOV_MAX: Final = 1024
"""Most buffers of one call (UIO_MAXIOV)."""
STRING_STEP: Final = 256


def int32(value: int) -> int:
    """An argument of type int.

    >>> int32(0x1_FFFF_FF9C)
    -100
    """
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


def int64(value: int) -> int:
    """An argument of type long."""
    return value - (1 << 64) if value >> 63 else value


def open_file(kernel: Kernel, fd: int) -> File:
    """The open file of a descriptor. Raises Errno(EBADF)."""
    return kernel.current.files.file(int32(fd))


# --- paths ----------------------------------------------------------------------------------------------------------


def path_at(kernel: Kernel, va: int) -> bytes:
    """A path in user memory (getname); may be empty. Raises Errno: EFAULT, ENAMETOOLONG."""
    path = bytearray()
    while len(path) < PATH_MAX:
        at = va + len(path)
        wanted = min(STRING_STEP, PAGE_SIZE - at % PAGE_SIZE, PATH_MAX - len(path))
        part = kernel.user.copy_from(at, wanted)
        end = part.find(0)
        if end >= 0:
            return bytes(path + part[:end])
        path += part
    raise Errno(errno.ENAMETOOLONG)


def walk_from(kernel: Kernel, dirfd: int, path: bytes) -> Walk:
    """A walk that begins where a relative path does. Raises Errno: EBADF, ENOTDIR."""
    files, start = kernel.current.files, int32(dirfd)
    if path.startswith(b"/") or start == AT_FDCWD:
        return kernel.file_system.walk(files.cwd, files.root)
    dentry = files.descriptor(start).file.dentry
    if path and not isinstance(dentry.inode, Directory):
        raise Errno(errno.ENOTDIR)
    return kernel.file_system.walk(dentry, files.root)


def find(kernel: Kernel, dirfd: int, path_va: int, flags: int = 0) -> Dentry:
    """What a path leads to, or with AT_EMPTY_PATH and an empty path, what a descriptor stands for. Raises Errno."""
    path = path_at(kernel, path_va)
    if not path and flags & AT_EMPTY_PATH:
        files, start = kernel.current.files, int32(dirfd)
        return files.cwd if start == AT_FDCWD else files.descriptor(start).file.dentry
    return walk_from(kernel, dirfd, path).find(path, follow=not flags & AT_SYMLINK_NOFOLLOW)


def find_last(kernel: Kernel, dirfd: int, path_va: int) -> Last:
    """Where a path ends, for calls that make or remove a name. Raises Errno."""
    path = path_at(kernel, path_va)
    return walk_from(kernel, dirfd, path).last(path)


# --- buffers --------------------------------------------------------------------------------------------------------


def check_range(va: int, size: int) -> None:
    """Refuse a range that is not all in the user half, whatever is mapped there (access_ok). Raises Errno(EFAULT)."""
    if va + size > TASK_SIZE:
        raise Errno(errno.EFAULT)


def one_buffer(kernel: Kernel, va: int, size: int) -> UserIter:
    """An iterator over one buffer. Raises Errno(EFAULT)."""
    check_range(va, size)
    return UserIter(kernel.user, [(va, min(size, MAX_RW_COUNT))])


def buffers(kernel: Kernel, iov_va: int, count: int) -> UserIter:
    """An iterator over an array of struct iovec (import_iovec). Raises Errno: EINVAL, EFAULT."""
    if count > IOV_MAX:
        raise Errno(errno.EINVAL)
    words = struct.unpack(f"<{2 * count}Q", kernel.user.copy_from(iov_va, 16 * count))
    segments, total = [], 0
    for va, size in zip(words[::2], words[1::2]):
        if size >> 63:
            raise Errno(errno.EINVAL)
        used = min(size, MAX_RW_COUNT - total)
        check_range(va, used if count == 1 else size)  # import_ubuf cuts first, __import_iovec checks first
        segments.append((va, used))
        total += used
    return UserIter(kernel.user, segments)
