"""Directories and symbolic links in memory (fs/libfs.c, mm/shmem.c)."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from ..exceptions import Errno
from .file import File, OpenFlag
from .inode import NAME_MAX, Dentry, Inode, SuperBlock
from .iov import IovIter

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Directory", "DirectoryFile", "Entry", "Symlink", "TreeDirectory"]

FIRST_POSITION: Final = 2
"""Positions 0 and 1 of a listing are `.` and `..`."""
ENTRY_SIZE: Final = 20
"""What an entry adds to a directory's size (BOGO_DIRENT_SIZE in mm/shmem.c)."""


class Entry(NamedTuple):
    """One line of a listing; `position` is where the next one begins to look."""

    position: int
    number: int
    kind: int
    name: bytes


class Directory(Inode):
    """A directory that can be searched and listed, not changed."""

    def __init__(self, sb: SuperBlock, permissions: int = 0o755, number: int | None = None) -> None:
        super().__init__(sb, stat.S_IFDIR | permissions, number=number)
        self.nlink = 2

    def lookup(self, kernel: Kernel, here: Dentry, name: bytes) -> Dentry | None:
        """What has a name in this directory, whose own dentry is `here`."""
        raise NotImplementedError

    def entries(self, kernel: Kernel, here: Dentry, position: int) -> Iterator[Entry]:
        """The listing from a position on, without `.` and `..`."""
        raise NotImplementedError

    def check_changeable(self, *, creating: bool = False) -> None:
        """Raises Errno if names cannot be added or removed: generated trees refuse (fs/proc/generic.c)."""
        raise Errno(errno.ENOENT if creating else errno.EPERM)

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> DirectoryFile:
        """Raises Errno: EISDIR for writing."""
        if flags & (OpenFlag.ACCMODE | OpenFlag.CREAT | OpenFlag.TRUNC):
            raise Errno(errno.EISDIR)
        return DirectoryFile(dentry, flags, kernel)


class TreeDirectory(Directory):
    """A directory whose names are kept in memory. One that was removed is `dead`."""

    def __init__(self, sb: SuperBlock, permissions: int = 0o755) -> None:
        super().__init__(sb, permissions)
        self._children: dict[bytes, Dentry] = {}
        self._last_position = FIRST_POSITION - 1
        self.dead = False

    @property
    def children(self) -> dict[bytes, Dentry]:
        """The names in it."""
        return self._children

    @property
    def size(self) -> int:
        """st_size as tmpfs counts it."""
        return ENTRY_SIZE * (len(self.children) + 2)

    def lookup(self, kernel: Kernel, here: Dentry, name: bytes) -> Dentry | None:
        """What has a name here. Raises Errno: ENAMETOOLONG."""
        if len(name) > NAME_MAX:
            raise Errno(errno.ENAMETOOLONG)
        return self.children.get(name)

    def entries(self, kernel: Kernel, here: Dentry, position: int) -> Iterator[Entry]:
        """The listing, oldest first."""
        for dentry in list(self.children.values()):
            if dentry.position >= position:
                yield Entry(dentry.position, dentry.inode.number, dentry.inode.kind, dentry.name)

    def check_changeable(self, *, creating: bool = False) -> None:
        """A directory that was removed takes no new names."""
        if creating and self.dead:
            raise Errno(errno.ENOENT)

    def add(self, here: Dentry, name: bytes, inode: Inode) -> Dentry:
        """Give an inode a name here."""
        dentry = Dentry(name, here, inode)
        self.attach(dentry)
        return dentry

    def attach(self, dentry: Dentry) -> None:
        """Take a dentry among the children, at the end of the listing."""
        self._last_position += 1
        dentry.position = self._last_position
        self._children[dentry.name] = dentry
        self.nlink += dentry.inode.kind == stat.S_IFDIR
        self.touch()

    def detach(self, dentry: Dentry) -> None:
        """Take a dentry from the children."""
        del self._children[dentry.name]
        self.nlink -= dentry.inode.kind == stat.S_IFDIR
        self.touch()

    def evict(self) -> None:
        """Free everything below."""
        for dentry in self._children.values():
            dentry.inode.evict()


class DirectoryFile(File):
    """An open directory."""

    seekable = True

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel) -> None:
        super().__init__(dentry, flags)
        self._kernel = kernel

    def read(self, to: IovIter, position: int) -> int:
        """A directory is read with getdents64(2) (generic_read_dir)."""
        raise Errno(errno.EISDIR)

    def seek_target(self, offset: int, whence: int, end: int) -> int:
        """To the start, or to a position that getdents64 told."""
        start = {0: 0, 1: self.offset}.get(whence)
        if start is None or start + offset < 0:
            raise Errno(errno.EINVAL)
        return start + offset

    def listing(self) -> Iterator[Entry]:
        """The entries from the file's position on."""
        inode = self.inode
        assert isinstance(inode, Directory)
        parent = (self.dentry.parent or self.dentry).inode
        dots = [Entry(0, inode.number, stat.S_IFDIR, b"."), Entry(1, parent.number, stat.S_IFDIR, b"..")]
        yield from dots[self.offset :]
        if not (isinstance(inode, TreeDirectory) and inode.dead):
            yield from inode.entries(self._kernel, self.dentry, max(self.offset, FIRST_POSITION))

    def getdents64(self, size: int) -> bytes:
        """As many struct linux_dirent64 as fit; moves on. Raises Errno: EINVAL if not even one fits, ENOENT."""
        if self.dentry.unlinked:
            raise Errno(errno.ENOENT)
        records = bytearray()
        for entry in self.listing():
            length = (19 + len(entry.name) + 1 + 7) & ~7
            if len(records) + length > size:
                if not records:
                    raise Errno(errno.EINVAL)
                break
            self.offset = entry.position + 1
            head = struct.pack("<QqHB", entry.number, self.offset, length, entry.kind >> 12)
            records += (head + entry.name).ljust(length, b"\0")
        self.inode.touch(accessed=True)
        return bytes(records)

    def sync(self) -> None:
        """Nothing is kept outside."""


class Symlink(Inode):
    """A symbolic link: a path to go on with."""

    def __init__(self, sb: SuperBlock, target: bytes) -> None:
        super().__init__(sb, stat.S_IFLNK | 0o777)
        self._target = target

    @property
    def size(self) -> int:
        """st_size."""
        return len(self._target)

    def target(self, kernel: Kernel) -> bytes:
        """What readlink(2) says. Raises Errno."""
        return self._target

    def jump(self, kernel: Kernel) -> Dentry | None:
        """Where it leads without a path (nd_jump_link), None for ordinary links. Raises Errno."""
        return None

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> File:
        """A link itself cannot be opened."""
        raise Errno(errno.ELOOP)
