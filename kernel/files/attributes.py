"""What stat(2), statx(2) and statfs(2) say about an inode, laid out as programs expect (asm/stat.h, linux/stat.h)."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from .inode import Inode

if TYPE_CHECKING:
    from .page_cache import PageCache

__all__ = ["STATX_SIZE", "STAT_SIZE", "stat_bytes", "statfs_bytes", "statx_bytes"]

STAT_SIZE: Final = 144
STATX_SIZE: Final = 256
STATX_BASIC_STATS: Final = 0x7FF
STATX_MNT_ID: Final = 0x1000
BILLION: Final = 1_000_000_000
NAME_MAX: Final = 255


def stat_bytes(inode: Inode) -> bytes:
    """A struct stat."""
    head = struct.pack("<QQQ", inode.sb.device, inode.number, inode.nlink)
    owner = struct.pack("<IIIIQ", inode.mode, inode.uid, inode.gid, 0, inode.rdev)
    sizes = struct.pack("<qqq", inode.size, PAGE_SIZE, inode.blocks)
    times = b"".join(struct.pack("<qQ", *divmod(time, BILLION)) for time in (inode.atime, inode.mtime, inode.ctime))
    return (head + owner + sizes + times).ljust(STAT_SIZE, b"\0")


def statx_bytes(inode: Inode) -> bytes:
    """A struct statx with the basic fields."""
    head = struct.pack("<IIQ", STATX_BASIC_STATS, PAGE_SIZE, 0)
    owner = struct.pack("<IIIH2x", inode.nlink, inode.uid, inode.gid, inode.mode)
    sizes = struct.pack("<QQQQ", inode.number, inode.size, inode.blocks, 0)
    moments = (inode.atime, 0, inode.ctime, inode.mtime)
    times = b"".join(struct.pack("<qI4x", *divmod(time, BILLION)) for time in moments)
    numbers = (*_split(inode.rdev), *_split(inode.sb.device))
    return (head + owner + sizes + times + struct.pack("<IIII", *numbers)).ljust(STATX_SIZE, b"\0")


def _split(device: int) -> tuple[int, int]:
    return os.major(device), os.minor(device)


def statfs_bytes(inode: Inode, cache: PageCache) -> bytes:
    """A struct statfs: sizes are those of all files in memory."""
    free = cache.limit - cache.charged
    sizes = (cache.limit, free, free, 0, 0)
    words = (inode.sb.magic, PAGE_SIZE, *sizes, inode.sb.device, NAME_MAX, PAGE_SIZE, 0x1020)
    return struct.pack("<11q", *words).ljust(120, b"\0")
