"""Frame metadata: a `struct page` for every frame, and who maps it (include/linux/mm_types.h, mm/rmap.c).

A frame belongs to whoever holds a reference: a page table that maps it, the page cache, the swap cache. The last one
to let go frees it. The *reverse mapping* leads from a frame to the page-table entries that map it, which is what
reclaim, migration and copy-on-write need to know.

    vmemmap + 64 * pfn    0  flags             bit 17: PG_anon_exclusive, bit 18: anonymous, bit 19: may be dropped
                         48  _mapcount         entries that map the frame
                         52  _refcount         references, those of the entries among them

The counts are real words in guest memory, written at their kernel addresses.

>>> from emu import Machine
>>> from kernel import Kernel
>>> pages = Kernel(Machine(ram="4M")).pages
>>> pfn = pages.allocate()
>>> pages.get(pfn); pages.refcount(pfn)
2
>>> pages.put(pfn); pages.put(pfn); pages.refcount(pfn)
0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from .exceptions import KernelPanic
from .frames import FrameAllocator
from .layout import VMEMMAP
from .memory import KernelMemory

if TYPE_CHECKING:
    from .address_space import AddressSpace

__all__ = ["STRUCT_PAGE_SIZE", "Mapping", "PageObserver", "Pages"]

STRUCT_PAGE_SIZE: Final = 64
FLAGS, COUNTS = 0, 48
REFERENCE: Final = 1 << 32
"""One reference, in the word that holds both counts; one mapping is 1."""
MAPPED: Final = REFERENCE + 1
ANON_EXCLUSIVE: Final = 1 << 17
ANONYMOUS: Final = 1 << 18
"""Linux says this in the low bit of page->mapping (PAGE_MAPPING_ANON)."""
LAZY_FREE: Final = 1 << 19
"""The program does not need the content (MADV_FREE); Linux says this by a clear PG_swapbacked."""
MAPCOUNT: Final = REFERENCE - 1

Mapping = tuple["AddressSpace", int]
"""An address space and the va at which it maps a frame."""


class PageObserver(Protocol):
    """Whoever wants to know which pages there are: reclaim."""

    def added(self, pfn: int, *, swap_backed: bool) -> None:
        """A page is in memory. One that is `swap_backed` has no file to be read from again."""
        ...

    def removed(self, pfn: int) -> None:
        """Its frame is given back."""
        ...

    def written(self, pfn: int) -> None:
        """An entry with the D bit is gone, but the page is still there."""
        ...


class Pages:
    """The struct pages of a machine, and the reverse mapping. `anonymous` counts frames that only processes have, or
    the swap cache for them.
    """

    def __init__(self, memory: KernelMemory, frames: FrameAllocator) -> None:
        self._memory, self._frames = memory, frames
        self._mappings: dict[int, list[Mapping]] = {}
        self.anonymous = 0
        self.observer: PageObserver | None = None

    # --- references -------------------------------------------------------------------------------------------------

    def allocate(self, order: int = 0) -> int:
        """A frame with one reference that nobody maps yet. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate(order)
        self._memory.store_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS, 0)
        self._memory.store_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + COUNTS, REFERENCE)
        return pfn

    def _add(self, pfn: int, change: int) -> int:
        va = VMEMMAP + STRUCT_PAGE_SIZE * pfn + COUNTS
        counts = self._memory.load_va(va) + change
        self._memory.store_va(va, counts & (1 << 64) - 1)
        return counts

    def get(self, pfn: int) -> None:
        """Take another reference (get_page)."""
        self._add(pfn, REFERENCE)

    def put(self, pfn: int) -> None:
        """Let a reference go; the last one frees the frame (put_page)."""
        self._dropped(pfn, self._add(pfn, -REFERENCE))

    def _dropped(self, pfn: int, counts: int) -> None:
        if counts >= REFERENCE:
            return
        if counts:
            raise KernelPanic(f"frame {pfn:#x} has no reference left, but counts {counts:#x}")
        self._frames.free(pfn)

    def refcount(self, pfn: int) -> int:
        """References to a frame."""
        return self._memory.load_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + COUNTS) >> 32

    def mapcount(self, pfn: int) -> int:
        """Page-table entries that map a frame."""
        return self._memory.load_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + COUNTS) & MAPCOUNT

    # --- the reverse mapping ----------------------------------------------------------------------------------------

    def allocate_mapped(self, mm: AddressSpace, va: int) -> int:
        """A frame for one anonymous page, of which the entry at `va` has the only reference. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate()
        struct_page = VMEMMAP + STRUCT_PAGE_SIZE * pfn
        self._memory.store_va(struct_page + FLAGS, ANON_EXCLUSIVE | ANONYMOUS)
        self._memory.store_va(struct_page + COUNTS, MAPPED)
        self._mappings[pfn] = [(mm, va)]
        self.anonymous += 1
        self.lru_add(pfn)
        return pfn

    def allocate_cached(self) -> int:
        """A frame for one anonymous page that only the swap cache has so far. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate()
        struct_page = VMEMMAP + STRUCT_PAGE_SIZE * pfn
        self._memory.store_va(struct_page + FLAGS, ANONYMOUS)
        self._memory.store_va(struct_page + COUNTS, REFERENCE)
        self.anonymous += 1
        return pfn

    def map_cached(self, pfn: int, mm: AddressSpace, va: int) -> None:
        """The first entry to map such a page takes over the swap cache's reference."""
        self._add(pfn, MAPPED - REFERENCE)
        self._mappings[pfn] = [(mm, va)]

    def drop_cached(self, pfn: int) -> None:
        """Nobody wanted such a page."""
        self.anonymous -= 1
        self.put(pfn)

    def lru_add(self, pfn: int) -> None:
        """From now on reclaim may take an anonymous page."""
        if self.observer is not None:
            self.observer.added(pfn, swap_backed=True)

    def lru_del(self, pfn: int) -> None:
        """Its frame is about to be given back."""
        if self.observer is not None:
            self.observer.removed(pfn)

    @property
    def has_spare(self) -> bool:
        """Whether a frame can be had for something that nobody waits for."""
        return self._frames.free_frames > self._frames.low

    def map(self, pfn: int, mm: AddressSpace, va: int) -> None:
        """An entry at `va` maps the frame from now on, and holds a reference."""
        self._add(pfn, MAPPED)
        self._mappings.setdefault(pfn, []).append((mm, va))

    def unmap(self, pfn: int, mm: AddressSpace, va: int, *, dirty: bool = False) -> None:
        """An entry that mapped the frame is gone, and so is its reference. `dirty` is its D bit."""
        mappings = self._mappings[pfn]
        mappings.remove((mm, va))
        if not mappings:
            del self._mappings[pfn]
        counts = self._add(pfn, -MAPPED)
        if counts < REFERENCE:  # it was anonymous: the page cache holds its own frames
            self.anonymous -= 1
            self.lru_del(pfn)
        elif dirty and self.observer is not None:
            self.observer.written(pfn)
        self._dropped(pfn, counts)

    def move(self, pfn: int, mm: AddressSpace, old: int, new: int) -> None:
        """The entry at `old` is at `new` now (move_ptes)."""
        mappings = self._mappings[pfn]
        mappings[mappings.index((mm, old))] = (mm, new)

    def mappings(self, pfn: int) -> tuple[Mapping, ...]:
        """Who maps a frame (rmap_walk)."""
        return tuple(self._mappings.get(pfn, ()))

    @property
    def mapped_frames(self) -> int:
        """Frames that some page table maps."""
        return len(self._mappings)

    # --- who may write without asking -------------------------------------------------------------------------------

    def is_exclusive(self, pfn: int) -> bool:
        """Whether one process alone has this anonymous page (PageAnonExclusive)."""
        return self._memory.load_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS) & ANON_EXCLUSIVE != 0

    def is_anonymous(self, pfn: int) -> bool:
        """Whether a mapped frame holds anonymous memory, not a page of a file (PageAnon)."""
        return self._memory.load_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS) & ANONYMOUS != 0

    def share(self, pfn: int) -> None:
        """One more process has this page: if it is anonymous, nobody has it alone any more."""
        va = VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS
        flags = self._memory.load_va(va)
        if flags & ANON_EXCLUSIVE:
            self._memory.store_va(va, flags & ~ANON_EXCLUSIVE)

    def set_exclusive(self, pfn: int) -> None:
        """Nobody else has this anonymous page any more."""
        self._memory.store_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS, ANONYMOUS | ANON_EXCLUSIVE)

    # --- what the program does not need -----------------------------------------------------------------------------

    def is_lazy(self, pfn: int) -> bool:
        """Whether an anonymous page may be dropped instead of written out."""
        return self._memory.load_va(VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS) & LAZY_FREE != 0

    def set_lazy(self, pfn: int, lazy: bool) -> None:
        """MADV_FREE, or the page was written after it."""
        va = VMEMMAP + STRUCT_PAGE_SIZE * pfn + FLAGS
        flags = self._memory.load_va(va) & ~LAZY_FREE
        self._memory.store_va(va, flags | (LAZY_FREE if lazy else 0))
