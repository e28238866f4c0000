"""The frame allocator: a binary buddy system over all of RAM (mm/page_alloc.c).

Free memory is kept as blocks of 2**order frames, each aligned to its size. To allocate, a block of the right order is
taken, or a larger one is halved; to free, a block is merged with its *buddy*, the neighbour that it was once split
from, as long as that is free too.

>>> frames = FrameAllocator(first=1, count=15)
>>> a, b = frames.allocate(), frames.allocate()
>>> frames.free(a); frames.free(b)
>>> frames.free_frames, frames.used, frames.peak
(15, 0, 2)
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from .exceptions import Errno, KernelPanic

__all__ = ["FrameAllocator"]

MAX_ORDER: Final = 18
"""Largest block: 2**18 frames, 1 GiB."""
COSTLY_ORDER: Final = 3
"""Larger blocks are hard to get, and nobody may insist on them (PAGE_ALLOC_COSTLY_ORDER)."""


class FreeBlocks(set[int]):
    """The first frames of the free blocks of one order; `pop` takes the lowest (a heap knows which that is).

    A block that is taken out of the middle stays in the heap until it comes to its top, or until no block is left: it
    cannot come back before, because a larger block is only split when there is none of this order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[int] = []

    def add(self, pfn: int) -> None:
        """Add a block."""
        super().add(pfn)
        heappush(self._heap, pfn)

    def remove(self, pfn: int) -> None:
        """Take out a block that is there."""
        super().remove(pfn)
        if not self:
            self._heap.clear()

    def pop(self) -> int:
        """Take out the lowest block."""
        pfn = heappop(self._heap)
        while pfn not in self:
            pfn = heappop(self._heap)
        self.remove(pfn)
        return pfn


class FrameAllocator:
    """Hands out frames `first` to `first + count - 1`, lowest addresses first.

    `used` counts frames that are allocated now, `peak` the most that ever were. An allocation that would leave fewer
    than `low` free calls `when_low(order)` first, which may free some.
    """

    def __init__(self, first: int, count: int) -> None:
        self._free = [FreeBlocks() for _ in range(MAX_ORDER + 1)]
        self._allocated: dict[int, int] = {}
        self._end = first + count
        self.total, self.used, self.peak = count, 0, 0
        self.low = 0
        self.when_low: Callable[[int], object] = id
        pfn = first
        while pfn < self._end:
            order = min((pfn & -pfn).bit_length() - 1 if pfn else MAX_ORDER, MAX_ORDER)
            while pfn + (1 << order) > self._end:
                order -= 1
            self._free[order].add(pfn)
            pfn += 1 << order

    @property
    def free_frames(self) -> int:
        """Frames that are free now."""
        return self.total - self.used

    def free_blocks(self) -> list[int]:
        """How many blocks of each order are free."""
        return [len(blocks) for blocks in self._free]

    def allocate(self, order: int = 0, *, reclaim: bool = True) -> int:
        """The first pfn of 2**order frames, aligned to their number. Raises Errno(ENOMEM).

        A large block is only had as long as enough is left for others; without `reclaim` that is the end of it
        (__GFP_DIRECT_RECLAIM, zone_watermark_ok).
        """
        if self.total - self.used - (1 << order) < self.low:
            if reclaim:
                self.when_low(order)
            if order > COSTLY_ORDER and self.total - self.used - (1 << order) < self.low:
                raise Errno(errno.ENOMEM)
        for larger in range(order, MAX_ORDER + 1):
            if self._free[larger]:
                pfn = self._free[larger].pop()
                self._split(pfn, larger, order)
                self._allocated[pfn] = order
                self.used += 1 << order
                if self.used > self.peak:
                    self.peak = self.used
                return pfn
        raise Errno(errno.ENOMEM)

    def _split(self, pfn: int, order: int, wanted: int) -> None:
        """Give back the upper halves of a block of which only the start is wanted."""
        while order > wanted:
            order -= 1
            self._free[order].add(pfn + (1 << order))

    def split(self, pfn: int) -> None:
        """Make what `allocate` returned single frames, each to be freed by itself (split_page)."""
        order = self._allocated[pfn]
        self._allocated.update(dict.fromkeys(range(pfn, pfn + (1 << order)), 0))

    def free(self, pfn: int) -> None:
        """Give back what `allocate` returned. Freeing anything else is a bug of the kernel's."""
        order = self._allocated.pop(pfn, None)
        if order is None:
            raise KernelPanic(f"frame {pfn:#x} is freed but was not allocated")
        self.used -= 1 << order
        while order < MAX_ORDER:
            buddy = pfn ^ (1 << order)
            if buddy not in self._free[order]:
                break
            self._free[order].remove(buddy)
            pfn = min(pfn, buddy)
            order += 1
        self._free[order].add(pfn)
