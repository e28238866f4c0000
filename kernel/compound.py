"""Compound pages: consecutive frames that are one page (include/linux/page-flags.h, mm/rmap.c, mm/huge_memory.c).

Each frame keeps its struct page. The first one, the *head*, has the references of all; the others are *tails* and say
where their head is. A compound page can be mapped as a whole, by an entry of an upper level, and in parts, by PTEs:

    head       48  _mapcount, _refcount      PTEs that map this very frame; references to the whole page
    tail        8  compound_head             kernel address of the head's struct page, with bit 0 set
               48  _mapcount                 PTEs that map this frame
    1st tail   16  _entire_mapcount          entries that map all of it

A process that writes to a part after fork has its own PMD split, and gets a copy of 4 KiB. Its parent still maps the
whole. So the two ways exist side by side, and the page is given back when the last mapping of either kind goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from emu.pte import PAGE_SIZE

from .layout import VMEMMAP
from .memory import KernelMemory

if TYPE_CHECKING:
    from .address_space import AddressSpace

__all__ = [
    "HPAGE_PMD_NR",
    "HPAGE_PMD_ORDER",
    "HPAGE_PMD_SIZE",
    "STRUCT_PAGE_SIZE",
    "Compound",
    "Mapping",
    "StructPages",
]

STRUCT_PAGE_SIZE: Final = 64
HPAGE_PMD_ORDER: Final = 9
HPAGE_PMD_NR: Final = 1 << HPAGE_PMD_ORDER
"""Frames of a huge page that a PMD maps."""
HPAGE_PMD_SIZE: Final = HPAGE_PMD_NR * PAGE_SIZE
FLAGS, HEAD, ENTIRE, COUNTS = 0, 1, 2, 6
"""Words of a struct page."""
PG_HEAD: Final = 1 << 6
TAIL: Final = 1
REFERENCE: Final = 1 << 32
"""One reference, in the word that holds both counts; one mapping is 1."""
MAPCOUNT: Final = REFERENCE - 1
WORDS: Final = STRUCT_PAGE_SIZE // 8

Mapping = tuple["AddressSpace", int]
"""An address space and the va at which it maps a frame."""
StructPageWords = np.ndarray[tuple[int, int], np.dtype[np.uint64]]


@dataclass(slots=True)
class Compound:
    """What is known of one compound page. One that `is_transparent` can be split; those of hugetlb pools cannot. One of
    a file `is_cached`, and has one more reference for that.

    `entire` are the entries that map all of it, `parts` counts the PTEs that map
    a frame of it, `spaces` the mappings of both kinds that each address space has. `give_back` gets the head when the
    last reference goes.
    """

    head: int
    order: int
    give_back: Callable[[int], object]
    is_transparent: bool = True
    is_cached: bool = False
    entire: list[Mapping] = field(default_factory=list)
    parts: int = 0
    spaces: Counter[AddressSpace] = field(default_factory=Counter)

    @property
    def frames(self) -> int:
        """How many there are."""
        return 1 << self.order

    @property
    def mappings(self) -> int:
        """Entries of both kinds (folio_mapcount, which counts the PTEs one by one)."""
        return len(self.entire) + self.parts

    @property
    def is_shared(self) -> bool:
        """Whether more than one address space maps something of it (folio_maybe_mapped_shared)."""
        return len(self.spaces) > 1

    def free(self) -> None:
        """Nobody has a reference any more."""
        self.give_back(self.head)

    def count(self, mm: AddressSpace, change: int) -> None:
        """So many more mappings, or fewer, of an address space."""
        self.spaces[mm] += change
        if not self.spaces[mm]:
            del self.spaces[mm]


class StructPages:
    """The struct pages of consecutive frames, written and read all at once."""

    def __init__(self, memory: KernelMemory) -> None:
        self._memory = memory

    def load(self, pfn: int, count: int) -> StructPageWords:
        """A row of words for each frame."""
        data = self._memory.read_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn, STRUCT_PAGE_SIZE * count)
        return np.frombuffer(data, dtype="<u8").reshape(count, WORDS).copy()

    def store(self, pfn: int, words: StructPageWords) -> None:
        """Write them."""
        self._memory.write_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn, words.tobytes())

    def make_compound(self, pfn: int, order: int, flags: int, exclusive: int, references: int) -> None:
        """Make frames one page, of which each part has `flags`, and the whole `exclusive` too (prep_compound_page)."""
        words = np.zeros((1 << order, WORDS), dtype=np.uint64)
        words[:, FLAGS] = flags
        words[1:, HEAD] = VMEMMAP + STRUCT_PAGE_SIZE * pfn | TAIL
        words[0, FLAGS] = flags | exclusive | PG_HEAD
        words[0, COUNTS] = references * REFERENCE
        self.store(pfn, words)

    def clear(self, pfn: int, order: int) -> None:
        """The frames are given back: they are no page any more (free_pages_prepare)."""
        self.store(pfn, np.zeros((1 << order, WORDS), dtype=np.uint64))

    def entire_mapcount(self, pfn: int, change: int = 0) -> int:
        """Entries that map all of a page, after a change of their number."""
        va = VMEMMAP + STRUCT_PAGE_SIZE * (pfn + 1) + 8 * ENTIRE
        count = self._memory.load_va(va) + change
        if change:
            self._memory.store_va(va, count)
        return count
