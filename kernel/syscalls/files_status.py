"""System calls that tell about files, and change what they tell (fs/stat.c, fs/statfs.c, fs/attr.c, fs/open.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..files.attributes import stat_bytes, statfs_bytes, statx_bytes
from ..files.directory import Directory, Symlink
from ..files.inode import Inode
from . import syscall
from .files_arguments import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, find, int32, open_file

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["newfstatat", "statx"]

AT_NO_AUTOMOUNT: Final = 0x800
AT_STATX_SYNC_TYPE: Final = 0x6000
AT_EACCESS: Final = 0x200
STATX_RESERVED: Final = 1 << 31
UTIME_NOW, UTIME_OMIT = 0x3FFF_FFFF, 0x3FFF_FFFE
BILLION: Final = 1_000_000_000


# --- stat -----------------------------------------------------------------------------------------------------------


@syscall(4)
def stat(kernel: Kernel, path_va: int, buffer: int) -> int:
    """Tell about a file by path."""
    return newfstatat(kernel, AT_FDCWD, path_va, buffer, 0)


@syscall(6)
def lstat(kernel: Kernel, path_va: int, buffer: int) -> int:
    """The same; a link at the end is the file itself."""
    return newfstatat(kernel, AT_FDCWD, path_va, buffer, AT_SYMLINK_NOFOLLOW)


@syscall(5)
def fstat(kernel: Kernel, fd: int, buffer: int) -> int:
    """Tell about an open file."""
    inode = kernel.current.files.descriptor(int32(fd)).file.inode
    kernel.user.copy_to(buffer, stat_bytes(inode))
    return 0


@syscall(262)
def newfstatat(kernel: Kernel, dirfd: int, path_va: int, buffer: int, flags: int) -> int:
    """Any of them, by a path from a directory."""
    flags &= 0xFFFF_FFFF
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise Errno(errno.EINVAL)
    inode = _inode_at(kernel, dirfd, path_va, flags)
    kernel.user.copy_to(buffer, stat_bytes(inode))
    return 0


def _inode_at(kernel: Kernel, dirfd: int, path_va: int, flags: int) -> Inode:
    """A null pointer is an empty path where there may be one (vfs_fstatat)."""
    if not path_va and flags & AT_EMPTY_PATH:
        if int32(dirfd) == AT_FDCWD:
            return kernel.current.files.cwd.inode
        return kernel.current.files.descriptor(int32(dirfd)).file.inode
    return find(kernel, dirfd, path_va, flags).inode


@syscall(332)
def statx(kernel: Kernel, dirfd: int, path_va: int, flags: int, mask: int, buffer: int) -> int:
    """Tell more about a file."""
    flags &= 0xFFFF_FFFF
    if mask & STATX_RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise Errno(errno.EINVAL)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise Errno(errno.EINVAL)
    inode = _inode_at(kernel, dirfd, path_va, flags)
    kernel.user.copy_to(buffer, statx_bytes(inode))
    return 0


@syscall(137)
def statfs(kernel: Kernel, path_va: int, buffer: int) -> int:
    """Tell about the file system of a path."""
    inode = find(kernel, AT_FDCWD, path_va).inode
    kernel.user.copy_to(buffer, statfs_bytes(inode, kernel.page_cache))
    return 0


@syscall(138)
def fstatfs(kernel: Kernel, fd: int, buffer: int) -> int:
    """Tell about the file system of an open file."""
    inode = kernel.current.files.descriptor(int32(fd)).file.inode
    kernel.user.copy_to(buffer, statfs_bytes(inode, kernel.page_cache))
    return 0


# --- permissions ----------------------------------------------------------------------------------------------------


@syscall(21)
def access(kernel: Kernel, path_va: int, mode: int) -> int:
    """Whether a file can be read, written or executed."""
    return faccessat2(kernel, AT_FDCWD, path_va, mode, 0)


@syscall(269)
def faccessat(kernel: Kernel, dirfd: int, path_va: int, mode: int) -> int:
    """The same by a path from a directory."""
    return faccessat2(kernel, dirfd, path_va, mode, 0)


@syscall(439)
def faccessat2(kernel: Kernel, dirfd: int, path_va: int, mode: int, flags: int) -> int:
    """The same with flags. Every process is root's: it may do all but execute what nobody can (do_faccessat)."""
    mode, flags = mode & 0xFFFF_FFFF, flags & 0xFFFF_FFFF
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    inode = find(kernel, dirfd, path_va, flags).inode
    if mode & 1 and not isinstance(inode, Directory) and not inode.mode & 0o111:
        raise Errno(errno.EACCES)
    if mode & 2 and getattr(inode, "read_only", False):
        raise Errno(errno.EROFS)
    return 0


@syscall(90)
def chmod(kernel: Kernel, path_va: int, mode: int) -> int:
    """Set the permissions of a file."""
    return fchmodat(kernel, AT_FDCWD, path_va, mode)


@syscall(268)
def fchmodat(kernel: Kernel, dirfd: int, path_va: int, mode: int) -> int:
    """The same by a path from a directory."""
    return _set_permissions(find(kernel, dirfd, path_va).inode, mode)


@syscall(91)
def fchmod(kernel: Kernel, fd: int, mode: int) -> int:
    """The same of an open file."""
    return _set_permissions(open_file(kernel, fd).inode, mode)


def _set_permissions(inode: Inode, mode: int) -> int:
    if isinstance(inode, Symlink):
        raise Errno(errno.EOPNOTSUPP)
    inode.mode = inode.kind | mode & 0o7777
    inode.ctime = inode.sb.clock()
    return 0


@syscall(280)
def utimensat(kernel: Kernel, dirfd: int, path_va: int, times_va: int, flags: int) -> int:
    """Set the times of a file, of an open one if the path is a null pointer."""
    flags &= 0xFFFF_FFFF
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    times = struct.unpack("<qqqq", kernel.user.copy_from(times_va, 32)) if times_va else (0, UTIME_NOW, 0, UTIME_NOW)
    if any(
        not 0 <= nanoseconds < BILLION and nanoseconds not in (UTIME_NOW, UTIME_OMIT) for nanoseconds in times[1::2]
    ):
        raise Errno(errno.EINVAL)
    inode = find(kernel, dirfd, path_va, flags).inode if path_va else open_file(kernel, dirfd).inode
    inode.ctime = inode.sb.clock()
    inode.atime = _chosen_time(inode.atime, inode.ctime, *times[:2])
    inode.mtime = _chosen_time(inode.mtime, inode.ctime, *times[2:])
    return 0


def _chosen_time(before: int, now: int, seconds: int, nanoseconds: int) -> int:
    special = {UTIME_NOW: now, UTIME_OMIT: before}
    return special.get(nanoseconds, seconds * BILLION + nanoseconds)
