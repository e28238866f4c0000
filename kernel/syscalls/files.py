"""System calls that open and close files and handle descriptors (fs/open.c, fs/file.c, fs/fcntl.c, fs/pipe.c)."""

from __future__ import annotations

import errno
import stat
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..files.directory import Directory, Symlink
from ..files.file import File, OpenFlag, PathFile
from ..files.inode import Dentry
from ..files.path import Last
from ..files.pipe import Fifo, Pipe, PipeEnd
from ..wait import Wait
from . import syscall
from .files_arguments import AT_FDCWD, int32, open_file, path_at, walk_from

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["close", "dup", "fcntl", "openat", "pipe2"]

CLOEXEC: Final = OpenFlag.CLOEXEC
PATH_FLAGS: Final = OpenFlag.DIRECTORY | OpenFlag.NOFOLLOW | OpenFlag.PATH | OpenFlag.CLOEXEC
PERMISSIONS: Final = 0o7777
MAX_MEMFD_NAME: Final = 249
MFD_CLOEXEC, MFD_KNOWN = 1, 0x1F
CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4


# --- open and close -------------------------------------------------------------------------------------------------


@syscall(2)
def sys_open(kernel: Kernel, path_va: int, flags: int, mode: int) -> int | Wait:
    """Open a file by path."""
    return openat(kernel, AT_FDCWD, path_va, flags, mode)


@syscall(85)
def creat(kernel: Kernel, path_va: int, mode: int) -> int | Wait:
    """Make a file or empty it, and open it for writing."""
    return openat(kernel, AT_FDCWD, path_va, OpenFlag.CREAT | OpenFlag.WRONLY | OpenFlag.TRUNC, mode)


@syscall(257)
def openat(kernel: Kernel, dirfd: int, path_va: int, flags: int, mode: int) -> int | Wait:
    """Open a file by a path from a directory (do_sys_openat2)."""
    flags = _checked_flags(flags & OpenFlag.ALL | OpenFlag.LARGEFILE)
    path = path_at(kernel, path_va)
    files = kernel.current.files
    files.free_number()
    walk = walk_from(kernel, dirfd, path)
    if flags & OpenFlag.CREAT or not path:
        # A link at the end is followed to where the new file will be, unless the file has to be new.
        follow = not flags & (OpenFlag.EXCL | OpenFlag.NOFOLLOW) and not path.endswith(b"/")
        last = walk.last(path, follow=follow)
        file = _open_or_create(kernel, last, flags, mode & PERMISSIONS & ~files.umask)
    elif flags & OpenFlag.TMPFILE == OpenFlag.TMPFILE:
        file = _open_temporary(kernel, walk.find(path), flags, mode & PERMISSIONS & ~files.umask)
    else:
        file = _open_existing(kernel, walk.find(path, follow=not flags & OpenFlag.NOFOLLOW), flags)
    return _install_when_ready(kernel, file, close_on_exec=bool(flags & CLOEXEC))


def _checked_flags(flags: int) -> int:
    """The flags that count (build_open_flags). Raises Errno(EINVAL)."""
    if flags & OpenFlag.PATH:
        return flags & PATH_FLAGS
    if flags & OpenFlag.CREAT and flags & OpenFlag.DIRECTORY:
        raise Errno(errno.EINVAL)
    if flags & OpenFlag.TMPFILE == OpenFlag.TMPFILE and not flags & OpenFlag.ACCMODE:
        raise Errno(errno.EINVAL)
    return flags


def _open_or_create(kernel: Kernel, last: Last, flags: int, permissions: int) -> File:
    """Raises Errno: EEXIST, EISDIR."""
    if last.slash and last.ordinary:
        raise Errno(errno.EISDIR)
    if last.dentry is not None:
        if flags & OpenFlag.EXCL:
            raise Errno(errno.EEXIST)
        return _open_existing(kernel, last.dentry, flags)
    inode = kernel.file_system.new_regular(last.directory.inode.sb, permissions)
    dentry = kernel.file_system.add(last, inode)
    return inode.open(kernel, dentry, flags)


def _open_temporary(kernel: Kernel, directory: Dentry, flags: int, permissions: int) -> File:
    """A file without a name (O_TMPFILE). Raises Errno(ENOTDIR)."""
    if not isinstance(directory.inode, Directory):
        raise Errno(errno.ENOTDIR)
    directory.inode.check_changeable()
    inode = kernel.file_system.new_regular(directory.inode.sb, permissions)
    inode.nlink = 0
    dentry = Dentry(b"#%d" % inode.number, directory, inode, unlinked=True)
    return inode.open(kernel, dentry, flags)


def _open_existing(kernel: Kernel, dentry: Dentry, flags: int) -> File:
    """Open what is there (do_open). Raises Errno: ENOTDIR, ELOOP, and what the kind of file refuses."""
    inode = dentry.inode
    if flags & OpenFlag.DIRECTORY and not isinstance(inode, Directory):
        raise Errno(errno.ENOTDIR)
    if flags & OpenFlag.PATH:
        return PathFile(dentry, flags)
    if isinstance(inode, Symlink):
        raise Errno(errno.ELOOP)
    file = inode.open(kernel, dentry, flags)
    if flags & OpenFlag.TRUNC and inode.kind == stat.S_IFREG:
        inode.truncate(0)
    return file


def _install_when_ready(kernel: Kernel, file: File, *, close_on_exec: bool) -> int | Wait:
    """Give an opened file its descriptor; a FIFO waits for its other end first."""
    files, queue = kernel.current.files, file.partner()
    if queue is None:
        return files.install(file, close_on_exec=close_on_exec)

    def attempt() -> int | None:
        return None if file.partner() is not None else files.install(file, close_on_exec=close_on_exec)

    return Wait((queue,), attempt)


@syscall(3)
def close(kernel: Kernel, fd: int) -> int:
    """Close a descriptor."""
    kernel.current.files.close(int32(fd))
    return 0


@syscall(436)
def close_range(kernel: Kernel, first: int, last: int, flags: int) -> int:
    """Close all descriptors of a range, or mark them close-on-exec."""
    first, last, flags = first & 0xFFFF_FFFF, last & 0xFFFF_FFFF, flags & 0xFFFF_FFFF
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise Errno(errno.EINVAL)
    files = kernel.current.files
    for fd, descriptor in list(files):
        if first <= fd <= last:
            if flags & CLOSE_RANGE_CLOEXEC:
                descriptor.close_on_exec = True
            else:
                files.close(fd)
    return 0


@syscall(319)
def memfd_create(kernel: Kernel, name_va: int, flags: int) -> int:
    """A file in memory, without a place in the tree (mm/memfd.c)."""
    flags &= 0xFFFF_FFFF
    if flags & ~MFD_KNOWN:
        raise Errno(errno.EINVAL)
    try:
        name = path_at(kernel, name_va)
    except Errno as error:
        raise Errno(errno.EINVAL if error.number == errno.ENAMETOOLONG else error.number) from None
    if len(name) > MAX_MEMFD_NAME:
        raise Errno(errno.EINVAL)
    inode = kernel.file_system.new_regular(kernel.file_system.tmpfs, 0o777)
    inode.nlink = 0
    dentry = Dentry(b"/memfd:" + name, None, inode, unlinked=True)
    return kernel.current.files.install(
        inode.open(kernel, dentry, OpenFlag.RDWR | OpenFlag.LARGEFILE), close_on_exec=bool(flags & MFD_CLOEXEC)
    )


@syscall(22)
def pipe(kernel: Kernel, fds_va: int) -> int:
    """Make a pipe."""
    return pipe2(kernel, fds_va, 0)


@syscall(293)
def pipe2(kernel: Kernel, fds_va: int, flags: int) -> int:
    """Make a pipe; its ends' descriptors go to two ints in user memory."""
    flags &= 0xFFFF_FFFF
    if flags & ~(CLOEXEC | OpenFlag.NONBLOCK | OpenFlag.DIRECT):
        raise Errno(errno.EINVAL)
    files = kernel.current.files
    inode = Fifo(kernel.file_system.pipefs)
    dentry = Dentry(b"pipe:[%d]" % inode.number, None, inode)
    reader = inode.open(kernel, dentry, flags & ~CLOEXEC)
    writer = inode.open(kernel, dentry, flags & ~CLOEXEC & ~OpenFlag.NONBLOCK | OpenFlag.WRONLY)
    writer.flags |= flags & OpenFlag.NONBLOCK
    fds = []
    try:
        for end in (reader, writer):
            fds.append(files.install(end, close_on_exec=bool(flags & CLOEXEC)))
        kernel.user.copy_to(fds_va, struct.pack("<ii", *fds))
    except Errno:
        for fd in fds:
            files.close(fd)
        if not fds:
            writer.put()
        raise
    return 0


# --- descriptors ----------------------------------------------------------------------------------------------------


@syscall(32)
def dup(kernel: Kernel, fd: int) -> int:
    """One more descriptor for an open file."""
    files = kernel.current.files
    return files.install(files.descriptor(int32(fd)).file.get())


@syscall(33)
def dup2(kernel: Kernel, old: int, new: int) -> int:
    """Make a number a descriptor of an open file."""
    if int32(old) == int32(new):
        kernel.current.files.descriptor(int32(old))
        return int32(new)
    return dup3(kernel, old, new, 0)


@syscall(292)
def dup3(kernel: Kernel, old: int, new: int, flags: int) -> int:
    """The same with O_CLOEXEC, and no mercy for equal numbers (ksys_dup3)."""
    files, flags = kernel.current.files, flags & 0xFFFF_FFFF
    source, target = int32(old), int32(new)
    if flags & ~CLOEXEC or source == target:
        raise Errno(errno.EINVAL)
    if not 0 <= target < files.limit:
        raise Errno(errno.EBADF)
    files.replace(target, files.descriptor(source).file.get(), close_on_exec=bool(flags))
    return target


class Fcntl:
    """Commands of fcntl(2)."""

    DUPFD: Final = 0
    GETFD: Final = 1
    SETFD: Final = 2
    GETFL: Final = 3
    SETFL: Final = 4
    DUPFD_CLOEXEC: Final = 1030
    SETPIPE_SZ: Final = 1031
    GETPIPE_SZ: Final = 1032
    WITH_PATH: Final = (DUPFD, DUPFD_CLOEXEC, GETFD, SETFD, GETFL)
    """What O_PATH descriptors can do (check_fcntl_cmd)."""


@syscall(72)
def fcntl(kernel: Kernel, fd: int, command: int, argument: int) -> int:
    """Commands on a descriptor (do_fcntl)."""
    files, command = kernel.current.files, command & 0xFFFF_FFFF
    descriptor = files.descriptor(int32(fd))
    file = descriptor.file
    if file.is_path and command not in Fcntl.WITH_PATH:
        raise Errno(errno.EBADF)
    match command:
        case Fcntl.DUPFD | Fcntl.DUPFD_CLOEXEC:
            if argument >= files.limit:
                raise Errno(errno.EINVAL)
            return files.install(file.get(), close_on_exec=command == Fcntl.DUPFD_CLOEXEC, lowest=argument)
        case Fcntl.GETFD:
            return int(descriptor.close_on_exec)
        case Fcntl.SETFD:
            descriptor.close_on_exec = bool(argument & 1)
            return 0
        case Fcntl.GETFL:
            return file.flags
        case Fcntl.SETFL:
            file.flags = file.flags & ~OpenFlag.SETTABLE | argument & OpenFlag.SETTABLE
            return 0
        case Fcntl.GETPIPE_SZ:
            return _pipe_of(file).capacity
        case Fcntl.SETPIPE_SZ:
            return _pipe_of(file).resize(argument & 0xFFFF_FFFF)
    raise Errno(errno.EINVAL)


def _pipe_of(file: File) -> Pipe:
    if not isinstance(file, PipeEnd):
        raise Errno(errno.EBADF)
    return file.pipe


FIONREAD: Final = 0x541B
FIOCLEX, FIONCLEX, FIONBIO = 0x5451, 0x5450, 0x5421


@syscall(16)
def ioctl(kernel: Kernel, fd: int, request: int, argument: int) -> int:
    """Requests to a device; nothing here is a terminal, so most are ENOTTY (do_vfs_ioctl)."""
    request &= 0xFFFF_FFFF
    descriptor = kernel.current.files.descriptor(int32(fd))
    file = open_file(kernel, fd)
    if request in (FIOCLEX, FIONCLEX):
        descriptor.close_on_exec = request == FIOCLEX
        return 0
    if request == FIONBIO:
        (on,) = struct.unpack("<i", kernel.user.copy_from(argument, 4))
        file.flags = file.flags & ~OpenFlag.NONBLOCK | (OpenFlag.NONBLOCK if on else 0)
        return 0
    if request == FIONREAD:
        kernel.user.copy_to(argument, struct.pack("<i", file.available()))
        return 0
    raise Errno(errno.ENOTTY)
