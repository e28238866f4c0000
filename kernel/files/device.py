"""Devices: what stands behind a device node's number, never anything of the host's (drivers/char/mem.c).

A device is a class with a number:

    @device(1, 3)
    class NullFile(File): ...
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from .file import File
from .inode import Dentry, Inode, SuperBlock
from .iov import IovIter

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Device", "DeviceFile", "device"]

CHUNK: Final = 4096

_DEVICES: dict[int, type[DeviceFile]] = {}


def device(major: int, minor: int) -> Callable[[type[DeviceFile]], type[DeviceFile]]:
    """Register a class of open files as the character device with this number."""

    def register(opened: type[DeviceFile]) -> type[DeviceFile]:
        _DEVICES[os.makedev(major, minor)] = opened
        return opened

    return register


class Device(Inode):
    """A device node. Anybody may make one; without a driver behind its number it cannot be opened."""

    def __init__(self, sb: SuperBlock, mode: int, rdev: int) -> None:
        super().__init__(sb, mode, rdev=rdev)

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> File:
        """Raises Errno: ENXIO if there is no such device (chrdev_open, blkdev_open)."""
        opened = _DEVICES.get(self.rdev) if self.kind == stat.S_IFCHR else None
        if opened is None:
            raise Errno(errno.ENXIO)
        return opened(dentry, flags, kernel)


class DeviceFile(File):
    """An open device. Most have a position that means nothing (null_lseek)."""

    seekable = True

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel) -> None:
        super().__init__(dentry, flags)
        self._kernel = kernel

    def seek_target(self, offset: int, whence: int, end: int) -> int:
        """Always the start."""
        return 0

    def fill(self, to: IovIter, content: Callable[[int], bytes]) -> int:
        """Put `content(size)` into an iterator until it is full. Raises Errno(EFAULT)."""
        done = 0
        while to.left:
            wanted = min(to.left, CHUNK)
            copied = to.copy_to(content(wanted))
            done += copied
            if copied < wanted:
                if not done:
                    raise Errno(errno.EFAULT)
                break
        return done


@device(1, 3)
class NullFile(DeviceFile):
    """/dev/null: an end of file to read; takes everything without a look at it."""

    def read(self, to: IovIter, position: int) -> int:
        """Nothing."""
        return 0

    def write(self, source: IovIter, position: int) -> int:
        """Everything."""
        return source.left


@device(1, 5)
class ZeroFile(NullFile):
    """/dev/zero: zeros without end."""

    def read(self, to: IovIter, position: int) -> int:
        """Zeros."""
        return self.fill(to, bytes)


@device(1, 7)
class FullFile(DeviceFile):
    """/dev/full: a disk without room."""

    def read(self, to: IovIter, position: int) -> int:
        """Zeros."""
        return self.fill(to, bytes)

    def write(self, source: IovIter, position: int) -> int:
        """Raises Errno(ENOSPC)."""
        raise Errno(errno.ENOSPC)


@device(1, 8)
@device(1, 9)
class RandomFile(DeviceFile):
    """/dev/random and /dev/urandom: the same numbers in every run, as all that is random here."""

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel) -> None:
        super().__init__(dentry, flags, kernel)
        self._random: random.Random = kernel.random

    def read(self, to: IovIter, position: int) -> int:
        """Random bytes."""
        return self.fill(to, self._random.randbytes)

    def write(self, source: IovIter, position: int) -> int:
        """Taken, but what comes out stays the seed's."""
        done = 0
        while source.left:
            wanted = min(source.left, CHUNK)
            taken = len(source.copy_from(wanted))
            done += taken
            if taken < wanted:
                if not done:
                    raise Errno(errno.EFAULT)
                break
        return done


@device(5, 0)
class TerminalFile(DeviceFile):
    """/dev/tty: the controlling terminal, which no process here has."""

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel) -> None:
        raise Errno(errno.ENXIO)
