"""System calls on names and directories (fs/namei.c, fs/readdir.c, fs/open.c, fs/d_path.c)."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..files.directory import Directory, DirectoryFile, Symlink, TreeDirectory
from ..files.inode import Dentry
from . import syscall
from .files_arguments import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    find,
    find_last,
    int32,
    open_file,
    path_at,
)

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["getdents64", "mkdirat", "renameat2", "unlinkat"]

DIRECTORY_PERMISSIONS: Final = 0o1777
PERMISSIONS: Final = 0o7777
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


# --- make -----------------------------------------------------------------------------------------------------------


@syscall(83)
def mkdir(kernel: Kernel, path_va: int, mode: int) -> int:
    """Make a directory."""
    return mkdirat(kernel, AT_FDCWD, path_va, mode)


@syscall(258)
def mkdirat(kernel: Kernel, dirfd: int, path_va: int, mode: int) -> int:
    """Make a directory by a path from a directory."""
    last = find_last(kernel, dirfd, path_va)
    permissions = mode & DIRECTORY_PERMISSIONS & ~kernel.current.files.umask
    kernel.file_system.add(last, TreeDirectory(last.directory.inode.sb, permissions))
    return 0


@syscall(133)
def mknod(kernel: Kernel, path_va: int, mode: int, device: int) -> int:
    """Make a regular file, a FIFO or a device node."""
    return mknodat(kernel, AT_FDCWD, path_va, mode, device)


@syscall(259)
def mknodat(kernel: Kernel, dirfd: int, path_va: int, mode: int, device: int) -> int:
    """The same by a path from a directory. A device node is only a number: what it stands for is the kernel's."""
    last = find_last(kernel, dirfd, path_va)
    mode = stat.S_IFMT(mode & 0xFFFF) | mode & PERMISSIONS & ~kernel.current.files.umask
    inode = kernel.file_system.new_node(last.directory.inode.sb, mode, device & 0xFFFF_FFFF)
    kernel.file_system.add(last, inode)
    return 0


@syscall(88)
def symlink(kernel: Kernel, target_va: int, path_va: int) -> int:
    """Make a symbolic link."""
    return symlinkat(kernel, target_va, AT_FDCWD, path_va)


@syscall(266)
def symlinkat(kernel: Kernel, target_va: int, dirfd: int, path_va: int) -> int:
    """The same by a path from a directory."""
    target = path_at(kernel, target_va)
    if not target:
        raise Errno(errno.ENOENT)
    last = find_last(kernel, dirfd, path_va)
    kernel.file_system.add(last, Symlink(last.directory.inode.sb, target))
    return 0


@syscall(86)
def link(kernel: Kernel, old_va: int, new_va: int) -> int:
    """Give a file one more name."""
    return linkat(kernel, AT_FDCWD, old_va, AT_FDCWD, new_va, 0)


@syscall(265)
def linkat(kernel: Kernel, old_dirfd: int, old_va: int, new_dirfd: int, new_va: int, flags: int) -> int:
    """The same by paths from directories."""
    flags &= 0xFFFF_FFFF
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise Errno(errno.EINVAL)
    follow = 0 if flags & AT_SYMLINK_FOLLOW else AT_SYMLINK_NOFOLLOW
    dentry = find(kernel, old_dirfd, old_va, flags & AT_EMPTY_PATH | follow)
    kernel.file_system.link(dentry, find_last(kernel, new_dirfd, new_va))
    return 0


# --- remove and rename ----------------------------------------------------------------------------------------------


@syscall(87)
def unlink(kernel: Kernel, path_va: int) -> int:
    """Remove a name."""
    return unlinkat(kernel, AT_FDCWD, path_va, 0)


@syscall(84)
def rmdir(kernel: Kernel, path_va: int) -> int:
    """Remove an empty directory."""
    return unlinkat(kernel, AT_FDCWD, path_va, AT_REMOVEDIR)


@syscall(263)
def unlinkat(kernel: Kernel, dirfd: int, path_va: int, flags: int) -> int:
    """Either of them by a path from a directory."""
    flags &= 0xFFFF_FFFF
    if flags & ~AT_REMOVEDIR:
        raise Errno(errno.EINVAL)
    last = find_last(kernel, dirfd, path_va)
    if flags:
        kernel.file_system.rmdir(last)
    else:
        kernel.file_system.unlink(last)
    return 0


@syscall(82)
def rename(kernel: Kernel, old_va: int, new_va: int) -> int:
    """Give a file another name."""
    return renameat2(kernel, AT_FDCWD, old_va, AT_FDCWD, new_va, 0)


@syscall(264)
def renameat(kernel: Kernel, old_dirfd: int, old_va: int, new_dirfd: int, new_va: int) -> int:
    """The same by paths from directories."""
    return renameat2(kernel, old_dirfd, old_va, new_dirfd, new_va, 0)


@syscall(316)
def renameat2(kernel: Kernel, old_dirfd: int, old_va: int, new_dirfd: int, new_va: int, flags: int) -> int:
    """The same, optionally not over another file, or exchanging both."""
    flags &= 0xFFFF_FFFF
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
        raise Errno(errno.EINVAL)
    old = find_last(kernel, old_dirfd, old_va)
    kernel.file_system.rename(old, find_last(kernel, new_dirfd, new_va), flags)
    return 0


# --- look -----------------------------------------------------------------------------------------------------------


@syscall(89)
def readlink(kernel: Kernel, path_va: int, buffer: int, size: int) -> int:
    """The target of a symbolic link, without a null at its end."""
    return readlinkat(kernel, AT_FDCWD, path_va, buffer, size)


@syscall(267)
def readlinkat(kernel: Kernel, dirfd: int, path_va: int, buffer: int, size: int) -> int:
    """The same by a path from a directory, or of the link that a descriptor stands for."""
    if int32(size) <= 0:
        raise Errno(errno.EINVAL)
    dentry = find(kernel, dirfd, path_va, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)
    if not isinstance(dentry.inode, Symlink):
        raise Errno(errno.EINVAL if path_at(kernel, path_va) else errno.ENOENT)
    target = dentry.inode.target(kernel)[: int32(size)]
    kernel.user.copy_to(buffer, target)
    return len(target)


@syscall(217)
def getdents64(kernel: Kernel, fd: int, buffer: int, size: int) -> int:
    """The next entries of a directory."""
    file = open_file(kernel, fd)
    if not isinstance(file, DirectoryFile):
        raise Errno(errno.ENOTDIR)
    before = file.offset
    records = file.getdents64(size & 0xFFFF_FFFF)
    try:
        kernel.user.copy_to(buffer, records)
    except Errno:
        file.offset = before
        raise
    return len(records)


# --- where a process is ---------------------------------------------------------------------------------------------


@syscall(79)
def getcwd(kernel: Kernel, buffer: int, size: int) -> int:
    """The path of the working directory, with its null."""
    cwd = kernel.current.files.cwd
    if cwd.unlinked:
        raise Errno(errno.ENOENT)
    path = cwd.path() + b"\0"
    if len(path) > size:
        raise Errno(errno.ERANGE)
    kernel.user.copy_to(buffer, path)
    return len(path)


@syscall(80)
def chdir(kernel: Kernel, path_va: int) -> int:
    """Set the working directory."""
    return _enter(kernel, find(kernel, AT_FDCWD, path_va))


@syscall(81)
def fchdir(kernel: Kernel, fd: int) -> int:
    """Set the working directory to an open one."""
    return _enter(kernel, kernel.current.files.descriptor(int32(fd)).file.dentry)


def _enter(kernel: Kernel, dentry: Dentry) -> int:
    if not isinstance(dentry.inode, Directory):
        raise Errno(errno.ENOTDIR)
    kernel.current.files.cwd = dentry
    return 0


@syscall(95)
def umask(kernel: Kernel, mask: int) -> int:
    """Set which permissions new files do not get; the answer is what it was."""
    files = kernel.current.files
    before, files.umask = files.umask, mask & 0o777
    return before
