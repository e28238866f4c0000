"""Regular files: an inode with a mapping (mm/shmem.c, mm/filemap.c)."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from ..vma import Backing
from .file import File, OpenFlag
from .inode import BLOCK, Dentry, Inode, SuperBlock
from .iov import IovIter
from .page_cache import Backed, Mapping

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Regular", "RegularFile"]


class Regular(Inode):
    """A file with content. `read_only` ones answer EROFS to whoever wants to change them."""

    def __init__(self, sb: SuperBlock, mapping: Mapping, permissions: int = 0o644, *, read_only: bool = False) -> None:
        super().__init__(sb, stat.S_IFREG | permissions)
        self.mapping, self.read_only = mapping, read_only

    @property
    def size(self) -> int:
        """st_size."""
        return self.mapping.size

    @property
    def blocks(self) -> int:
        """st_blocks."""
        return len(self.mapping.pages) * (PAGE_SIZE // BLOCK)

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> RegularFile:
        """Raises Errno: EROFS."""
        if self.read_only and (flags & OpenFlag.ACCMODE or flags & OpenFlag.TRUNC):
            raise Errno(errno.EROFS)
        return RegularFile(dentry, flags, self)

    def truncate(self, size: int) -> None:
        """Set the size."""
        if self.read_only:
            raise Errno(errno.EROFS)
        self.mapping.truncate(size)
        self.touch()

    def evict(self) -> None:
        """Free the pages."""
        self.mapping.evict()


class RegularFile(Backed, File):
    """An open regular file. `mapping` is what mmap(2) maps."""

    seekable = True

    def __init__(self, dentry: Dentry, flags: int, regular: Regular) -> None:
        super().__init__(dentry, flags)
        self.mapping = regular.mapping

    # --- as the backing of a mapping (vma.Backing) ----------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its path, for /proc/PID/maps."""
        return self.dentry.shown_path().decode("utf-8", "surrogateescape")

    @property
    def device(self) -> int:
        """Its st_dev."""
        return self.inode.sb.device

    @property
    def number(self) -> int:
        """Its inode number."""
        return self.inode.number

    @property
    def is_shmem(self) -> bool:
        """Whether its pages are all there is of it: a file that the guest made."""
        return self.mapping.is_shmem

    def mmap(self, flags: int) -> tuple[int, Backing | None]:
        """Any mapping of it is fine; what a shared one may write goes to the file."""
        return flags, self

    # --- reading and writing ----------------------------------------------------------------------------------------

    def read(self, to: IovIter, position: int) -> int:
        """Page by page, as far as the user's memory takes it (generic_file_read_iter)."""
        done = 0
        while to.left and position < self.mapping.size:
            data = self.mapping.read(position, min(to.left, PAGE_SIZE - position % PAGE_SIZE))
            copied = to.copy_to(data)
            done, position = done + copied, position + copied
            if copied < len(data):
                if not done:
                    raise Errno(errno.EFAULT)
                break
        if not self.flags & OpenFlag.NOATIME:
            self.inode.touch(accessed=True)
        return done

    def write(self, source: IovIter, position: int) -> int:
        """Page by page, as far as the user's memory gives it (generic_perform_write)."""
        done = 0
        while source.left:
            wanted = min(source.left, PAGE_SIZE - position % PAGE_SIZE)
            data = source.copy_from(wanted)
            written = self._write_part(position, data, done)
            done, position = done + written, position + written
            if written < wanted:
                break
        self.inode.touch()
        return done

    def _write_part(self, position: int, data: bytes, done: int) -> int:
        """Write within a page. What is not the first part fails by a short count."""
        try:
            if not data:
                raise Errno(errno.EFAULT)
            return self.mapping.write(position, data)
        except Errno:
            if not done:
                raise
            return 0

    def seek_target(self, offset: int, whence: int, end: int) -> int:
        """Where a seek leads, with holes."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            return super().seek_target(offset, whence, end)
        if not 0 <= offset < end:
            raise Errno(errno.ENXIO)
        found = self.mapping.next_data(offset) if whence == os.SEEK_DATA else self.mapping.next_hole(offset)
        if found is None:
            raise Errno(errno.ENXIO)
        return found

    def available(self) -> int:
        """Bytes up to the end."""
        return self.mapping.size - self.offset

    def sync(self) -> None:
        """Write changed pages to the source."""
        self.mapping.sync()

    def release(self) -> None:
        """Closing writes back what a host file should have."""
        self.mapping.sync()
