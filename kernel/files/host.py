"""Files of the host: only those that the user passed, and never more than that.

`--root DIR` shows a directory as the guest's `/`. It is read, never written: what the guest changes stays in the page
cache and in its own tree, and is gone with the kernel. `--file HOST:GUEST` shows one file; `:rw` lets it be written.

    the guest's path --> names of the guest's tree (path.py) --> open by open, O_NOFOLLOW, from the root's descriptor

The host never resolves a path of the guest's. A symbolic link is read as text and followed in the guest's tree, so
`..` and absolute targets end at the guest's root. What is no regular file, directory or link does not exist.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emu.exceptions import InputError

from ..exceptions import Errno
from .directory import Symlink, TreeDirectory
from .inode import Dentry, Inode, SuperBlock
from .page_cache import Mapping as PageMapping
from .page_cache import PageCache
from .regular import Regular

if TYPE_CHECKING:
    from .file_system import FileSystem

__all__ = ["HostDirectory", "HostFile", "HostTree", "add_host_files"]

Parts = tuple[bytes, ...]
Opener = Callable[[int], int]

BINARY: Final = getattr(os, "O_BINARY", 0)
NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)


class HostFile:
    """The content of a regular file; `opener(flags)` gives a descriptor of it (a Source)."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        try:
            fd = self._opener(flags | BINARY)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Errno(errno.EIO)
                yield fd
            finally:
                os.close(fd)
        except OSError:
            raise Errno(errno.EIO) from None

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes. Raises Errno(EIO)."""
        with self._opened(os.O_RDONLY) as fd:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)

    def write(self, offset: int, data: bytes) -> None:
        """Change the host's file. Raises Errno(EIO)."""
        with self._opened(os.O_WRONLY) as fd:
            os.lseek(fd, offset, os.SEEK_SET)
            while data:
                data = data[os.write(fd, data) :]

    def resize(self, size: int) -> None:
        """Set the size of the host's file. Raises Errno(EIO)."""
        with self._opened(os.O_WRONLY) as fd:
            os.ftruncate(fd, size)


class HostTree:
    """A directory of the host's, opened once. Raises InputError if it is none."""

    def __init__(self, root: Path) -> None:
        if os.open not in os.supports_dir_fd or not NOFOLLOW:
            raise InputError("a root directory needs a host that can open files relative to a directory")
        try:
            self._root = os.open(root, os.O_RDONLY | DIRECTORY)
        except OSError as error:
            raise InputError(f"{root}: cannot be the root directory: {error.strerror}") from None

    def close(self) -> None:
        """Let go of the directory; afterwards nothing below it can be reached."""
        if self._root >= 0:
            os.close(self._root)
        self._root = -1

    def open(self, parts: Parts, flags: int) -> int:
        """A descriptor, opened one component at a time and through no link. Raises OSError."""
        here = os.dup(self._root)
        for index, name in enumerate(parts):
            step = flags if index == len(parts) - 1 else os.O_RDONLY | DIRECTORY
            try:
                there = os.open(name, step | NOFOLLOW, dir_fd=here)
            finally:
                os.close(here)
            here = there
        return here

    def list(self, parts: Parts) -> list[tuple[bytes, os.stat_result, bytes]]:
        """(name, status, target of a link) of all that is in a directory. Raises OSError."""
        fd = self.open(parts, os.O_RDONLY | DIRECTORY)
        try:
            found = []
            for name in sorted(map(os.fsencode, os.listdir(fd))):  # noqa: PTH208 - of a descriptor, not of a path
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
                found.append((name, status, target))
            return found
        finally:
            os.close(fd)


class HostDirectory(TreeDirectory):
    """A directory of the host's tree, read when the guest looks at it first; from then on it is the guest's own.

    `dentry` is its own place in the guest's tree.
    """

    def __init__(self, sb: SuperBlock, cache: PageCache, tree: HostTree, parts: Parts = ()) -> None:
        super().__init__(sb)
        self._cache, self._tree, self._parts = cache, tree, parts
        self.dentry: Dentry | None = None
        self._loaded = False

    @property
    def children(self) -> dict[bytes, Dentry]:
        """The names in it. Raises Errno(EACCES) if the host does not let us read it."""
        if not self._loaded:
            self._loaded = True
            self._load()
        return self._children

    def _load(self) -> None:
        try:
            found = self._tree.list(self._parts)
        except OSError:
            raise Errno(errno.EACCES) from None
        for name, status, target in found:
            inode = self._inode(name, status, target)
            if inode is None:
                continue
            dentry = Dentry(name, self.dentry, inode)
            if isinstance(inode, HostDirectory):
                inode.dentry = dentry
            self.attach(dentry)
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(status.st_mode)
            inode.atime, inode.mtime, inode.ctime = status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns

    def _inode(self, name: bytes, status: os.stat_result, target: bytes) -> Inode | None:
        parts = (*self._parts, name)
        if stat.S_ISDIR(status.st_mode):
            return HostDirectory(self.sb, self._cache, self._tree, parts)
        if stat.S_ISLNK(status.st_mode):
            return Symlink(self.sb, target)
        if stat.S_ISREG(status.st_mode):
            source = HostFile(lambda flags: self._tree.open(parts, flags))
            return Regular(self.sb, PageMapping(self._cache, status.st_size, source))
        return None


def add_host_files(file_system: FileSystem, files: Mapping[str, Path]) -> None:
    """Put files of the host into the guest's tree. Raises InputError."""
    for guest, host in files.items():
        path, writable = guest.removesuffix(":rw"), guest.endswith(":rw")
        if not path.startswith("/"):
            raise InputError(f"{guest}: the guest's path of a file begins with /")
        source = HostFile(partial(os.open, host.absolute()))
        try:
            size = _regular_size(host, os.O_RDWR if writable else os.O_RDONLY)
            file_system.add_file(os.fsencode(path), source, size, writable=writable)
        except OSError as error:
            raise InputError(f"{host}: cannot be opened for the guest: {error.strerror}") from None
        except Errno as error:
            raise InputError(f"{path}: the guest cannot have a file there: {os.strerror(error.number)}") from None


def _regular_size(host: Path, flags: int) -> int:
    """The size of a regular file that can be opened. Raises OSError, InputError."""
    if not host.is_file():
        raise InputError(f"{host}: there is no such file to pass to the guest")
    fd = os.open(host, flags | BINARY)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
