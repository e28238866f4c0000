"""The page cache: the content of files, in frames (mm/filemap.c).

A file's content is a *mapping* from page index to frame. read(2) and write(2) copy from and to those frames through
the direct map; mmap(2) maps the very same frames into an address space, so both see one truth. A frame arrives when it
is needed first: a file that nobody reads has none.

    index        0        1        2        3
    frame      0x2a1      -      0x19c      -         size = 3 pages and a bit: page 1 is a hole, read as zeros

Where the content comes from in the first place is a `Source`: nothing (a file that the guest made), bytes, or a file of
the host that the user passed.
"""

from __future__ import annotations

import errno
from itertools import count
from typing import Final, Protocol

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from ..memory import KernelMemory
from ..pages import Pages
from ..rmap import clean, is_dirty
from ..swap import Swap

__all__ = ["Mapping", "PageCache", "Source"]

_ZEROS: Final = bytes(PAGE_SIZE)


class Source(Protocol):
    """What is behind a mapping. Both may raise Errno(EIO)."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of the content."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Take back what was changed."""
        ...

    def resize(self, size: int) -> None:
        """Take a new size."""
        ...


class Content:
    """A source in our own memory."""

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of it."""
        return bytes(self._data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Change it."""
        self._data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        """Cut it, or fill it up with zeros."""
        self._data = self._data[:size].ljust(size, b"\0")


class PageCache:
    """The frames of all files, pipes included. `pages` counts them; `charged` are those of files without a source, of
    which there can be `limit`: half of RAM, as in tmpfs.

    A page that goes is taken from every page table that has it (unmap_mapping_range): who touches it then, beyond the
    end of the file, gets SIGBUS.
    """

    def __init__(self, memory: KernelMemory, pages: Pages, swap: Swap, limit: int) -> None:
        self.memory, self._pages, self.swap, self.limit = memory, pages, swap, limit
        self.pages = self.charged = 0
        self.numbers = count(1)  # of files that no file system has
        self._places: dict[int, tuple[Mapping, int]] = {}

    def allocate(self, *, charge: bool) -> int:
        """A frame. Raises Errno: ENOSPC over the limit (shmem_inode_acct_blocks), ENOMEM."""
        if charge and self.charged >= self.limit:
            raise Errno(errno.ENOSPC)
        pfn = self._pages.allocate()
        self.pages += 1
        self.charged += charge
        return pfn

    def place(self, pfn: int, mapping: Mapping, index: int, *, swap_backed: bool) -> None:
        """A frame is a page of a file from now on, and can be reclaimed."""
        self._places[pfn] = mapping, index
        if self._pages.observer is not None:
            self._pages.observer.added(pfn, swap_backed=swap_backed)

    def set_dirty(self, pfn: int) -> None:
        """A page was written through a page table."""
        if pfn in self._places:
            mapping, index = self._places[pfn]
            mapping.set_dirty(index)

    def take_dirty(self, pfn: int) -> bool:
        """Whether a page was written through a page table that still has it; the D bits are cleared."""
        return clean(self._pages.mappings(pfn))

    def reclaim(self, pfn: int, *, wait: bool) -> bool:
        """Let a page of a file go. False if it has to stay."""
        mappings = self._pages.mappings(pfn)
        if self._pages.refcount(pfn) != len(mappings) + 1:
            return False  # the kernel is using it just now
        mapping, index = self._places[pfn]
        if is_dirty(mappings):
            mapping.set_dirty(index)
        return mapping.reclaim(index, wait=wait)

    def free(self, pfn: int, *, charge: bool, why: str = "truncate") -> None:
        """Give back a frame."""
        for mm, va in self._pages.mappings(pfn):
            mm.release(va, va + PAGE_SIZE, why)
        if self._places.pop(pfn, None) is not None and self._pages.observer is not None:
            self._pages.observer.removed(pfn)
        self._pages.put(pfn)
        self.pages -= 1
        self.charged -= charge


class Backed:
    """Whatever a memory mapping can have behind it: something with a `mapping` (a part of vma.Backing)."""

    mapping: Mapping
    page_size = PAGE_SIZE

    @property
    def size(self) -> int:
        """Bytes."""
        return self.mapping.size

    def page(self, index: int) -> int | None:
        """The frame of a page; None beyond the end. Raises Errno: ENOMEM, EIO."""
        return self.mapping.page(index)

    def is_cached(self, index: int) -> bool:
        """Whether a page is in memory already."""
        return index in self.mapping.pages


class Mapping:
    """The content of one file: `pages` is index to pfn, `size` in bytes (struct address_space and i_size).

    `write_back` is for a source that wants changed pages back. Where there is none, pages that must go are swapped out:
    index to slot.
    """

    def __init__(
        self, cache: PageCache, size: int = 0, source: Source | None = None, *, write_back: bool = False
    ) -> None:
        self.cache, self.size, self._source = cache, size, source
        self._source_end = size if source else 0
        self._write_back = write_back
        self.pages: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._swapped: dict[int, int] = {}

    def leave_source(self) -> None:
        """From now on a copy is behind the pages, and the source never changes. Raises Errno(EIO)."""
        if self._source is not None:
            self._source = Content(self._source.read(0, self._source_end))

    @property
    def is_shmem(self) -> bool:
        """Whether the pages are all there is of the content."""
        return self._source is None

    def page(self, index: int, *, create: bool = False) -> int | None:
        """The frame of a page, filled when it is needed first; None beyond the end unless `create`.

        Raises Errno: ENOMEM, ENOSPC, EIO.
        """
        pfn = self.pages.get(index)
        if pfn is not None:
            return pfn
        if not create and index * PAGE_SIZE >= self.size:
            return None
        return self._add_page(index)

    def _add_page(self, index: int) -> int:
        if index in self._swapped:
            return self._swap_in(index)
        start = index * PAGE_SIZE
        content = b""
        if self._source is not None and start < self._source_end:
            content = self._source.read(start, min(PAGE_SIZE, self._source_end - start))
        pfn = self.cache.allocate(charge=self._source is None)
        if content:
            self.cache.memory.write(pfn * PAGE_SIZE, content.ljust(PAGE_SIZE, b"\0"))
        else:
            self.cache.memory.clear_frame(pfn)
        self._place(index, pfn)
        return pfn

    def _place(self, index: int, pfn: int) -> None:
        self.pages[index] = pfn
        self.cache.place(pfn, self, index, swap_backed=self._source is None)

    def _swap_in(self, index: int) -> int:
        """Raises Errno: ENOMEM, EIO."""
        pfn = self.cache.allocate(charge=False)
        try:
            self.cache.swap.read_in(self._swapped[index], pfn)
        except Errno:
            self.cache.free(pfn, charge=False)
            raise
        self.cache.swap.drop(self._swapped.pop(index))
        self.set_dirty(index)
        self._place(index, pfn)
        return pfn

    def reclaim(self, index: int, *, wait: bool) -> bool:
        """Let a page go: a clean one is dropped, since it can be read again; others are written first. False if that
        cannot be.
        """
        if self._source is None or (index in self._dirty and not self._write_back):
            slot = self.cache.swap.write_out(self.pages[index], wait=wait)
            if slot is None:
                return False
            self.cache.swap.duplicate(slot)
            self._swapped[index] = slot
        elif index in self._dirty:
            try:
                self._write_page(index)
            except Errno:
                return False
        self._dirty.discard(index)
        self.cache.free(self.pages.pop(index), charge=False, why="reclaim")
        return True

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes, fewer at the end of the file. A hole gives zeros and gets no frame. Raises Errno."""
        parts = []
        end = min(offset + size, self.size)
        while offset < end:
            within = offset % PAGE_SIZE
            step = min(PAGE_SIZE - within, end - offset)
            parts.append(self._read_page(offset // PAGE_SIZE, within, step))
            offset += step
        return b"".join(parts)

    def _read_page(self, index: int, within: int, size: int) -> bytes:
        pfn = self.pages.get(index)
        if pfn is None:
            if index * PAGE_SIZE >= self._source_end and index not in self._swapped:
                return _ZEROS[:size]
            pfn = self._add_page(index)
        return self.cache.memory.read(pfn * PAGE_SIZE + within, size)

    def write(self, offset: int, data: bytes) -> int:
        """Write all, or as much as there is room for, and grow. Returns how much. Raises Errno if it is nothing."""
        done = 0
        while done < len(data):
            at = offset + done
            part = data[done : done + PAGE_SIZE - at % PAGE_SIZE]
            try:
                pfn = self.page(at // PAGE_SIZE, create=True)
            except Errno:
                if not done:
                    raise
                break
            assert pfn is not None
            self.cache.memory.write(pfn * PAGE_SIZE + at % PAGE_SIZE, part)
            self.set_dirty(at // PAGE_SIZE)
            done += len(part)
            self.size = max(self.size, offset + done)
        return done

    def set_dirty(self, index: int) -> None:
        """A page was or may be changed (set_page_dirty): also for whoever maps it writable and shared."""
        self._dirty.add(index)

    def truncate(self, size: int) -> None:
        """Set the size. Pages beyond it are freed, and the rest of the last one becomes zeros (truncate_pagecache)."""
        if size < self.size:
            keep = -(-size // PAGE_SIZE)
            self._remove([index for index in (*self.pages, *self._swapped) if index >= keep])
            last = self.page(keep - 1) if keep - 1 in self._swapped else self.pages.get(keep - 1)
            if last is not None and size % PAGE_SIZE:
                self.cache.memory.write(last * PAGE_SIZE + size % PAGE_SIZE, _ZEROS[size % PAGE_SIZE :])
            self._source_end = min(self._source_end, size)
        self.size = size
        if self._write_back and self._source is not None:
            self._source.resize(size)

    def _remove(self, indices: list[int]) -> None:
        charge = self._source is None
        for index in indices:
            if index in self.pages:
                self.cache.free(self.pages.pop(index), charge=charge)
            else:
                self.cache.swap.drop(self._swapped.pop(index))
                self.cache.charged -= charge
            self._dirty.discard(index)

    def evict(self) -> None:
        """Free all pages: nobody can reach the file any more. What was changed goes to the source first."""
        self.sync()
        self._remove([*self.pages, *self._swapped])

    def sync(self) -> None:
        """Write changed pages to the source (filemap_write_and_wait)."""
        if not self._write_back:
            return
        self._dirty |= {index for index, pfn in self.pages.items() if self.cache.take_dirty(pfn)}
        for index in sorted(self._dirty):
            self._write_page(index)
        self._dirty.clear()

    def _write_page(self, index: int) -> None:
        """Raises Errno(EIO)."""
        offset = index * PAGE_SIZE
        data = self.cache.memory.read(self.pages[index] * PAGE_SIZE, min(PAGE_SIZE, self.size - offset))
        assert self._source is not None
        self._source.write(offset, data)

    def next_data(self, offset: int) -> int | None:
        """The first byte at or after `offset` that is no hole (SEEK_DATA), None if there is none."""
        if offset < self._source_end:
            return offset
        index = min((index for index in (*self.pages, *self._swapped) if index >= offset // PAGE_SIZE), default=None)
        return None if index is None else max(offset, index * PAGE_SIZE)

    def next_hole(self, offset: int) -> int:
        """The first byte at or after `offset` that is in a hole, or the end of the file (SEEK_HOLE)."""
        offset = max(offset, self._source_end)
        while offset < self.size and self._has(offset // PAGE_SIZE):
            offset = (offset // PAGE_SIZE + 1) * PAGE_SIZE
        return min(offset, self.size)

    def _has(self, index: int) -> bool:
        return index in self.pages or index in self._swapped
