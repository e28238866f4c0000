"""Files without a name: shared anonymous memory, and the program that a process was made from (mm/shmem.c).

A shared mapping needs something that both sides share. For anonymous memory that is a file nobody can open: its pages
are in the page cache like those of any other, and go when the last mapping goes.
"""

from __future__ import annotations

from typing import Any

from emu.image import Image
from emu.pte import PAGE_SIZE

from .files.page_cache import Mapping, PageCache

__all__ = ["ImageSource", "UnnamedFile", "image_file", "shared_memory"]


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


class ImageSource:
    """The bytes of a program as they lie in memory, from its first page on."""

    def __init__(self, image: Image) -> None:
        self._segments = [segment for segment in image.segments if segment.data]
        self.start = min((segment.va for segment in self._segments), default=0) & ~(PAGE_SIZE - 1)
        self.size = max((segment.va + len(segment.data) for segment in self._segments), default=0) - self.start

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the program; zeros where it has none."""
        page = bytearray(size)
        at = self.start + offset
        for segment in self._segments:
            low, high = max(at, segment.va), min(at + size, segment.va + len(segment.data))
            if low < high:
                page[low - at : high - at] = segment.data[low - segment.va : high - segment.va]
        return bytes(page)

    def write(self, offset: int, data: bytes) -> None:
        """Nobody writes to it."""

    def resize(self, size: int) -> None:
        """Nobody changes its size."""


def image_file(cache: PageCache, image: Image) -> UnnamedFile:
    """A program as a file: page 0 is the page of its lowest address."""
    source: Any = ImageSource(image)
    return UnnamedFile(image.path, Mapping(cache, source.size, source))


def shared_memory(cache: PageCache, size: int) -> UnnamedFile:
    """Memory for MAP_SHARED | MAP_ANONYMOUS (shmem_zero_setup)."""
    return UnnamedFile("/dev/zero (deleted)", Mapping(cache, size))
