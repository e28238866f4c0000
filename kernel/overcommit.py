"""Overcommit: how much memory may be promised (mm/util.c, __vm_enough_memory; Documentation/mm/overcommit-accounting).

Promises are cheap, because most of them are never called in. Mode 0 refuses only what is obviously too much, mode 1
nothing, mode 2 everything beyond swap and a share of RAM: then no process dies because another one called in first.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from .exceptions import Errno

__all__ = ["ALWAYS", "GUESS", "NEVER", "Overcommit"]

GUESS, ALWAYS, NEVER = 0, 1, 2
RATIO: Final = 50
"""vm.overcommit_ratio, percent of RAM."""


class Overcommit:
    """Pages that were promised to all processes, and the rule for more. Sizes in pages.

    >>> memory = Overcommit(ram=1000, swap=lambda: 0)
    >>> memory.charge(900); memory.charge(900); memory.committed
    1800
    >>> memory.mode = NEVER
    >>> memory.limit
    500
    """

    def __init__(self, ram: int, swap: Callable[[], int]) -> None:
        self._ram, self._swap = ram, swap
        self.mode, self.ratio = GUESS, RATIO
        self.committed = 0

    @property
    def limit(self) -> int:
        """CommitLimit of /proc/meminfo."""
        return self._ram * self.ratio // 100 + self._swap()

    def charge(self, pages: int) -> None:
        """Promise pages. Raises Errno(ENOMEM)."""
        if self.mode == GUESS and pages > self._ram + self._swap():
            raise Errno(errno.ENOMEM)
        if self.mode == NEVER and self.committed + pages > self.limit:
            raise Errno(errno.ENOMEM)
        self.committed += pages

    def uncharge(self, pages: int) -> None:
        """A promise is over."""
        self.committed -= pages
