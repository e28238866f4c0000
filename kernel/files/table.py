"""Descriptors: small numbers for open files, one table a process (fs/file.c), with its place in the tree (fs_struct).

fork(2) copies the table, not the files: parent and child share offsets. execve(2) closes what is marked close-on-exec.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..exceptions import Errno
from ..limits import Limits, Resource
from .file import File
from .inode import Dentry

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Descriptor", "FilesStruct"]


@dataclass(slots=True)
class Descriptor:
    """An entry of the table."""

    file: File
    close_on_exec: bool = False


class FilesStruct:
    """A process's descriptors, its working directory `cwd`, its `root`, and its `umask`.

    `limits` are those of its process.
    """

    def __init__(self, root: Dentry, cwd: Dentry, umask: int = 0o022) -> None:
        self.root, self.cwd, self.umask, self.limits = root, cwd, umask, Limits()
        self._table: dict[int, Descriptor] = {}
        self._users = 1

    @classmethod
    def new(cls, kernel: Kernel) -> FilesStruct:
        """For a first process: the standard streams, and `/`."""
        files = cls(kernel.file_system.root, kernel.file_system.root)
        for file in kernel.file_system.standard_files():
            files.install(file)
        return files

    def __iter__(self) -> Iterator[tuple[int, Descriptor]]:
        return iter(sorted(self._table.items()))

    def __len__(self) -> int:
        return len(self._table)

    @property
    def limit(self) -> int:
        """The lowest number that no descriptor can have (RLIMIT_NOFILE)."""
        return self.limits.soft(Resource.NOFILE)

    # --- one descriptor ---------------------------------------------------------------------------------------------

    def descriptor(self, fd: int) -> Descriptor:
        """An entry, also of a file opened with O_PATH. Raises Errno(EBADF)."""
        found = self._table.get(fd)
        if found is None:
            raise Errno(errno.EBADF)
        return found

    def file(self, fd: int) -> File:
        """The open file behind a descriptor (fdget). Raises Errno(EBADF)."""
        file = self.descriptor(fd).file
        if file.is_path:
            raise Errno(errno.EBADF)
        return file

    def free_number(self, lowest: int = 0) -> int:
        """The lowest free number from `lowest` on. Raises Errno(EMFILE)."""
        for fd in range(lowest, self.limit):
            if fd not in self._table:
                return fd
        raise Errno(errno.EMFILE)

    def install(self, file: File, *, close_on_exec: bool = False, lowest: int = 0) -> int:
        """Give a file the lowest free number; the reference is taken over. Raises Errno(EMFILE), with it put."""
        try:
            fd = self.free_number(lowest)
        except Errno:
            file.put()
            raise
        self._table[fd] = Descriptor(file, close_on_exec)
        return fd

    def replace(self, fd: int, file: File, *, close_on_exec: bool = False) -> None:
        """Give a file this number, whatever had it before; the reference is taken over."""
        before = self._table.get(fd)
        self._table[fd] = Descriptor(file, close_on_exec)
        if before is not None:
            before.file.put()

    def close(self, fd: int) -> None:
        """Take a descriptor away. Raises Errno(EBADF)."""
        self.descriptor(fd)
        self._table.pop(fd).file.put()

    # --- the whole table --------------------------------------------------------------------------------------------

    def fork(self) -> FilesStruct:
        """A copy whose descriptors share the open files."""
        child = FilesStruct(self.root, self.cwd, self.umask)
        for fd, descriptor in self._table.items():
            child._table[fd] = Descriptor(descriptor.file.get(), descriptor.close_on_exec)
        return child

    def share(self) -> FilesStruct:
        """The same table for another process (CLONE_FILES)."""
        self._users += 1
        return self

    def put(self) -> None:
        """One user less; the last one closes everything."""
        self._users -= 1
        if not self._users:
            self.close_all()

    def exec(self) -> None:
        """Close what is not for another program (do_close_on_exec)."""
        for fd, descriptor in list(self):
            if descriptor.close_on_exec:
                self.close(fd)

    def close_all(self) -> None:
        """Close everything."""
        for fd, _ in list(self):
            self.close(fd)
