"""Files without a name: shared anonymous memory (mm/shmem.c).

A shared mapping needs something that both sides share. For anonymous memory that is a file nobody can open: its pages
are in the page cache like those of any other, and go when the last mapping goes.
"""

from __future__ import annotations

from .files.page_cache import Mapping, PageCache

__all__ = ["UnnamedFile", "shared_memory"]


class UnnamedFile:
    """A mapping with a name for people, freed with its last user."""

    def __init__(self, name: str, mapping: Mapping) -> None:
        self.name, self.mapping = name, mapping
        self._users = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.mapping.size

    def page(self, index: int) -> int | None:
        """The frame of a page; None beyond the end. Raises Errno(ENOMEM)."""
        return self.mapping.page(index)

    def is_cached(self, index: int) -> bool:
        """Whether a page is in memory already."""
        return index in self.mapping.pages

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
