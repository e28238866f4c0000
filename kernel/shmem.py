"""Files without a name: shared anonymous memory (mm/shmem.c).

A shared mapping needs something that both sides share. For anonymous memory that is a file nobody can open: its pages
are in the page cache like those of any other, and go when the last mapping goes.
"""

from __future__ import annotations

import os
from typing import Final

from .files.page_cache import Backed, Mapping, PageCache

DEVICE: Final = os.makedev(0, 1)
"""Of the tmpfs that the kernel has for itself (shm_mnt)."""

__all__ = ["UnnamedFile", "shared_memory"]


class UnnamedFile(Backed):
    """A mapping with a name for people, freed with its last user."""

    def __init__(self, name: str, mapping: Mapping) -> None:
        self.name, self.mapping = name, mapping
        self.device, self.number, self.is_shmem = DEVICE, next(mapping.cache.numbers), True
        self._users = 0

    def get(self) -> None:
        """One more user."""
        self._users += 1

    def put(self) -> None:
        """One user less."""
        self._users -= 1
        if not self._users:
            self.mapping.evict()


def shared_memory(cache: PageCache, size: int) -> UnnamedFile:
    """Memory for MAP_SHARED | MAP_ANONYMOUS (shmem_zero_setup)."""
    return UnnamedFile("/dev/zero (deleted)", Mapping(cache, size))
