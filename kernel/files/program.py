"""The files of programs that people start: what exec maps, and what /proc/self/exe leads to (mm->exe_file).

A program from an ELF file has its path in the guest's tree, if nothing else is there. One that was assembled a moment
ago is in no directory; it has a path to show, and can be opened by way of /proc/self/exe.
"""

from __future__ import annotations

import os
import posixpath
from contextlib import suppress
from typing import TYPE_CHECKING

from emu.image import Image

from ..exceptions import Errno
from .inode import Dentry
from .page_cache import Mapping
from .regular import Regular

if TYPE_CHECKING:
    from ..kernel import Kernel
    from .file import File

__all__ = ["open_program"]

PERMISSIONS = 0o755


class ProgramBytes:
    """The content of a program's file (a Source)."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes."""
        return self.data[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Nobody writes to it."""

    def resize(self, size: int) -> None:
        """Nobody changes its size."""


class Program(Regular):
    """The inode of a program, read-only."""

    def __init__(self, kernel: Kernel, data: bytes) -> None:
        source = ProgramBytes(data)
        mapping = Mapping(kernel.page_cache, len(data), source)
        super().__init__(kernel.file_system.tmpfs, mapping, PERMISSIONS, read_only=True)
        self.source = source
        self.nlink = 0


def open_program(kernel: Kernel, image: Image, *, named: bool) -> File:
    """Open the file of a program. `named` puts it into the tree."""
    path = os.fsencode(posixpath.normpath("/" + image.path)).lstrip(b"/")
    dentry = _place(kernel, path, image.file) if named else None
    if dentry is None:
        dentry = Dentry(path, kernel.file_system.root, Program(kernel, image.file))
    return dentry.inode.open(kernel, dentry, 0)


def _place(kernel: Kernel, path: bytes, data: bytes) -> Dentry | None:
    """The name of a program in the tree, made if it is free; None where something else is."""
    tree = kernel.file_system
    try:
        found = tree.walk().find(b"/" + path)
    except Errno:
        with suppress(Errno):
            return tree.add_inode(b"/" + path, Program(kernel, data))
        return None
    inode = found.inode
    return found if isinstance(inode, Program) and inode.source.data == data else None
