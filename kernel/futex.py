"""Futexes: sleeping until a word of memory changes (kernel/futex).

The fast path of a lock is in user mode; only who must wait comes here. A futex is known by its address space and
address, or, where the memory is shared, by its frame.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from .exceptions import Errno
from .signals import ERESTARTSYS
from .wait import Wait, WaitQueue

if TYPE_CHECKING:
    from .address_space import AddressSpace
    from .kernel import Kernel

__all__ = ["Futexes"]

Key = tuple[int, int]
PAGE_OFFSET: Final = 0xFFF


class Sleeper:
    """One who waits; `mask` says for which wake-ups (FUTEX_WAIT_BITSET)."""

    def __init__(self, mask: int) -> None:
        self.mask = mask
        self.queue = WaitQueue()
        self.is_awake = False


class Futexes:
    """All futexes that somebody waits for."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._sleepers: dict[Key, list[Sleeper]] = {}

    def _key(self, mm: AddressSpace, va: int) -> Key:
        vma = mm.vmas.find(va)
        if vma is not None and vma.is_shared and vma.backing is not None:
            return id(vma.backing), vma.index(va) << 12 | va & PAGE_OFFSET
        return mm.context_id, va

    def wait(self, va: int, expected: int, *, mask: int, deadline: int | None) -> int | Wait:
        """Sleep if the word still has the expected value. Raises Errno: EINVAL, EFAULT, EAGAIN."""
        kernel = self._kernel
        if va % 4 or not mask:
            raise Errno(errno.EINVAL)
        if int.from_bytes(kernel.user.copy_from(va, 4), "little") != expected & 0xFFFF_FFFF:
            raise Errno(errno.EAGAIN)
        key, sleeper = self._key(kernel.current.mm, va), Sleeper(mask)
        self._sleepers.setdefault(key, []).append(sleeper)

        def attempt() -> int | None:
            return 0 if sleeper.is_awake else None

        return Wait((sleeper.queue,), attempt, deadline, -errno.ETIMEDOUT, -ERESTARTSYS)

    def wake(self, mm: AddressSpace, va: int, count: int, mask: int = 0xFFFF_FFFF) -> int:
        """Wake at most so many; returns how many there were."""
        key = self._key(mm, va)
        sleepers = [s for s in self._sleepers.get(key, []) if s.queue.waiters]
        woken = [s for s in sleepers if s.mask & mask][:count]
        for sleeper in woken:
            sleeper.is_awake = True
            sleeper.queue.wake()
        rest = [s for s in sleepers if s not in woken]
        if rest:
            self._sleepers[key] = rest
        else:
            self._sleepers.pop(key, None)
        return len(woken)
