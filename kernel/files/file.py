"""Open files (struct file in include/linux/fs.h): a position and flags, shared by descriptors that dup or fork made.

    descriptor 3 ─┐
    descriptor 5 ─┼─> File: offset, flags ──> Dentry: a name ──> Inode: the content
    a child's  3 ─┘

Reading and writing are given an iterator over the user's memory (`iov`), so that what cannot be delivered is not lost.
They return a count, or a `Wait` where there is nothing yet.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ..exceptions import Errno
from ..vma import Backing
from ..wait import Wait, WaitQueue
from .inode import Dentry, Inode
from .iov import IovIter

__all__ = ["MAX_OFFSET", "File", "OpenFlag", "Poll"]

MAX_OFFSET: Final = (1 << 63) - 1
"""Largest file offset (MAX_LFS_FILESIZE)."""


class OpenFlag:
    """O_* of open(2) on x86-64 (include/uapi/asm-generic/fcntl.h)."""

    WRONLY: Final = 0o1
    RDWR: Final = 0o2
    ACCMODE: Final = 0o3
    CREAT: Final = 0o100
    EXCL: Final = 0o200
    NOCTTY: Final = 0o400
    TRUNC: Final = 0o1000
    APPEND: Final = 0o2000
    NONBLOCK: Final = 0o4000
    DSYNC: Final = 0o10000
    ASYNC: Final = 0o20000
    DIRECT: Final = 0o40000
    LARGEFILE: Final = 0o100000
    DIRECTORY: Final = 0o200000
    NOFOLLOW: Final = 0o400000
    NOATIME: Final = 0o1000000
    CLOEXEC: Final = 0o2000000
    SYNC: Final = 0o4010000
    PATH: Final = 0o10000000
    TMPFILE: Final = 0o20200000
    ALL: Final = 0o37777703
    """Every flag that exists (VALID_OPEN_FLAGS)."""
    CREATION: Final = CREAT | EXCL | NOCTTY | TRUNC | CLOEXEC
    """Flags of opening only; an open file does not remember them (do_dentry_open)."""
    SETTABLE: Final = APPEND | NONBLOCK | DIRECT | NOATIME
    """What fcntl(F_SETFL) can change (SETFL_MASK); nothing here can send signals by itself, so not ASYNC."""


class Poll:
    """Events of poll(2)."""

    IN: Final = 0x001
    OUT: Final = 0x004
    ERR: Final = 0x008
    HUP: Final = 0x010
    NVAL: Final = 0x020
    RDNORM: Final = 0x040
    WRNORM: Final = 0x100
    READABLE: Final = IN | RDNORM
    WRITABLE: Final = OUT | WRNORM


class File:
    """An open file that can do nothing yet; each kind of file adds what it can.

    `references` counts its descriptors and mappings; the last `put` releases it.
    """

    seekable = False

    def __init__(self, dentry: Dentry, flags: int) -> None:
        self.dentry, self.flags = dentry, flags & ~OpenFlag.CREATION
        self.references, self.offset = 1, 0
        self.inode.hold()

    @property
    def inode(self) -> Inode:
        """The file that is open."""
        return self.dentry.inode

    @property
    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return self.flags & OpenFlag.ACCMODE in (0, OpenFlag.RDWR) and not self.is_path

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & OpenFlag.ACCMODE in (OpenFlag.WRONLY, OpenFlag.RDWR) and not self.is_path

    @property
    def is_path(self) -> bool:
        """Whether it only stands for a place in the tree (O_PATH)."""
        return bool(self.flags & OpenFlag.PATH)

    @property
    def nonblocking(self) -> bool:
        """Whether it answers EAGAIN instead of waiting."""
        return bool(self.flags & OpenFlag.NONBLOCK)

    # --- what kinds of files differ in ------------------------------------------------------------------------------

    def read(self, to: IovIter, position: int) -> int | Wait:
        """Put what is at `position` into an iterator. Raises Errno."""
        raise Errno(errno.EINVAL)

    def write(self, source: IovIter, position: int) -> int | Wait:
        """Take bytes from an iterator to `position`. Raises Errno."""
        raise Errno(errno.EINVAL)

    def mmap(self, flags: int) -> tuple[int, Backing | None]:
        """Flags and backing of a mapping with these VM_* flags. Raises Errno(ENODEV): most kinds cannot be mapped."""
        raise Errno(errno.ENODEV)

    def seek(self, offset: int, whence: int) -> int:
        """Move the position. Raises Errno."""
        if not self.seekable:
            raise Errno(errno.ESPIPE)
        self.offset = self.seek_target(offset, whence, self.inode.size)
        return self.offset

    def seek_target(self, offset: int, whence: int, end: int) -> int:
        """Where a seek leads. Raises Errno: EINVAL, ENXIO beyond the end for SEEK_DATA and SEEK_HOLE."""
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            if not 0 <= offset < end:
                raise Errno(errno.ENXIO)
            return offset if whence == os.SEEK_DATA else end
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.offset, os.SEEK_END: end}.get(whence)
        if start is None or not 0 <= start + offset <= MAX_OFFSET:
            raise Errno(errno.EINVAL)
        return start + offset

    def poll(self) -> int:
        """Events that are true now; a file that never waits is always ready (DEFAULT_POLLMASK)."""
        return Poll.READABLE | Poll.WRITABLE

    def queues(self) -> tuple[WaitQueue, ...]:
        """What wakes when `poll` may answer something else."""
        return ()

    def available(self) -> int:
        """Bytes that can be read now (FIONREAD). Raises Errno(ENOTTY) where nobody knows."""
        raise Errno(errno.ENOTTY)

    def partner(self) -> WaitQueue | None:
        """The queue in which opening waits for the other side (a FIFO's), None if there is no need to."""
        return None

    def sync(self) -> None:
        """Write what was changed to where it stays. Raises Errno."""
        raise Errno(errno.EINVAL)

    def release(self) -> None:
        """The last reference went."""

    # --- references -------------------------------------------------------------------------------------------------

    def get(self) -> File:
        """One more reference."""
        self.references += 1
        return self

    def put(self) -> None:
        """One reference less (fput)."""
        self.references -= 1
        if not self.references:
            self.release()
            self.inode.put()


class PathFile(File):
    """A place in the tree that was opened with O_PATH: it can be a start of paths, and little else."""
