"""Inodes and names (struct inode and struct dentry in include/linux/fs.h and dcache.h).

An *inode* is a file itself: its kind, times and content. A *dentry* is a name in a directory that leads to it; a
regular file can have several. A file goes when its last name and its last user (a descriptor, a mapping) are gone.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno

if TYPE_CHECKING:
    from ..kernel import Kernel
    from .file import File

__all__ = ["NAME_MAX", "Dentry", "Inode", "SuperBlock"]

NAME_MAX: Final = 255
"""Bytes of one name (include/uapi/linux/limits.h)."""
BLOCK: Final = 512
"""Unit of st_blocks."""


@dataclass(eq=False)
class SuperBlock:
    """One file system: `device` is the st_dev of its files, `magic` its f_type, `clock` the time in nanoseconds."""

    name: bytes
    device: int
    magic: int
    clock: Callable[[], int]
    last_number: int = 0

    def new_number(self) -> int:
        """An inode number that no file of this file system has."""
        self.last_number += 1
        return self.last_number


class Inode:
    """A file. `mode` has its kind and permissions, `nlink` counts names, `users` what else keeps it alive."""

    def __init__(self, sb: SuperBlock, mode: int, *, number: int | None = None, rdev: int = 0) -> None:
        self.sb, self.mode, self.rdev = sb, mode, rdev
        self.number = sb.new_number() if number is None else number
        self.uid = self.gid = 0
        self.nlink, self.users = 1, 0
        self.atime = self.mtime = self.ctime = sb.clock()

    @property
    def kind(self) -> int:
        """S_IFREG and its like."""
        return stat.S_IFMT(self.mode)

    @property
    def size(self) -> int:
        """st_size."""
        return 0

    @property
    def blocks(self) -> int:
        """st_blocks, in units of 512 bytes."""
        return 0

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> File:
        """An open file, which holds this inode. Raises Errno."""
        raise Errno(errno.ENXIO)

    def truncate(self, size: int) -> None:
        """Set the size. Raises Errno."""
        raise Errno(errno.EISDIR if self.kind == stat.S_IFDIR else errno.EINVAL)

    def touch(self, *, accessed: bool = False) -> None:
        """Set the time of the last access, or those of the last change."""
        now = self.sb.clock()
        if accessed:
            self.atime = now
        else:
            self.mtime = self.ctime = now

    def hold(self) -> None:
        """One more user (ihold)."""
        self.users += 1

    def put(self) -> None:
        """One user less (iput)."""
        self.users -= 1
        self.drop_if_unused()

    def drop_if_unused(self) -> None:
        """Free the content when neither a name nor a user is left."""
        if not self.nlink and not self.users:
            self.evict()

    def evict(self) -> None:
        """Free the content (evict_inode)."""


@dataclass(eq=False, slots=True)
class Dentry:
    """A name in a directory. `parent` is None for a root, and for files that never had a name, like pipes.

    `position` is where a directory listing finds it.
    """

    name: bytes
    parent: Dentry | None
    inode: Inode
    position: int = 0
    unlinked: bool = False

    def path(self) -> bytes:
        """The absolute path, or the name of what is in no directory (d_path)."""
        if self.parent is None:
            return self.name
        names = []
        here: Dentry | None = self
        while here is not None and here.parent is not None:
            names.append(here.name)
            here = here.parent
        return b"/" + b"/".join(reversed(names))

    def shown_path(self) -> bytes:
        """The path as links in /proc show it."""
        return self.path() + (b" (deleted)" if self.unlinked else b"")
