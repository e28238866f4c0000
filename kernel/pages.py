"""Frame metadata: a `struct page` for every frame, and who maps it (include/linux/mm_types.h, mm/rmap.c).

A frame belongs to whoever holds a reference: a page table that maps it, the page cache, the swap cache. The last one
to let go frees it. The *reverse mapping* leads from a frame to the page-table entries that map it, which is what
reclaim, migration and copy-on-write need to know.

    vmemmap + 64 * pfn    0  flags             bit 17: PG_anon_exclusive, bit 18: anonymous, bit 19: may be dropped
                         48  _mapcount         entries that map the frame
                         52  _refcount         references, those of the entries among them

Frames of a huge page belong together; `compound.py` says how.

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

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from emu.pte import PAGE_SIZE

from .compound import (
    COUNTS,
    FLAGS,
    HEAD,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    MAPCOUNT,
    PG_HEAD,
    REFERENCE,
    STRUCT_PAGE_SIZE,
    Compound,
    Mapping,
    StructPages,
)
from .exceptions import KernelPanic
from .frames import FrameAllocator
from .layout import VMEMMAP
from .memory import KernelMemory

if TYPE_CHECKING:
    from .address_space import AddressSpace


__all__ = ["PageObserver", "Pages"]

FLAGS_VA, COUNTS_VA = VMEMMAP + 8 * FLAGS, VMEMMAP + 8 * COUNTS
MAPPED: Final = REFERENCE + 1
ANON_EXCLUSIVE: Final = 1 << 17
ANONYMOUS: Final = 1 << 18
"""Linux says this in the low bit of page->mapping (PAGE_MAPPING_ANON)."""
LAZY_FREE: Final = 1 << 19
"""The program does not need the content (MADV_FREE); Linux says this by a clear PG_swapbacked."""
HEAD_MASK: Final = -HPAGE_PMD_NR
"""Where the head of a frame's compound page is, if it belongs to one."""


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

    `compounds` are the compound pages by their heads; `deferred` those of them that are only mapped in parts, and not
    in all (deferred_split_folio): they hold frames that nobody uses.
    """

    def __init__(self, memory: KernelMemory, frames: FrameAllocator) -> None:
        self._memory, self._frames = memory, frames
        self._structs = StructPages(memory)
        self._mappings: dict[int, list[Mapping]] = {}
        self.compounds: dict[int, Compound] = {}
        self.deferred: dict[int, None] = {}
        self.anonymous = 0
        self.observer: PageObserver | None = None

    # --- references -------------------------------------------------------------------------------------------------

    def allocate(self, order: int = 0) -> int:
        """A frame with one reference that nobody maps yet. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate(order)
        self._memory.store_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn, 0)
        self._memory.store_va(COUNTS_VA + STRUCT_PAGE_SIZE * pfn, REFERENCE)
        return pfn

    def _add(self, pfn: int, change: int) -> int:
        va = COUNTS_VA + STRUCT_PAGE_SIZE * pfn
        counts = self._memory.load_va(va) + change
        self._memory.store_va(va, counts & (1 << 64) - 1)
        return counts

    def get(self, pfn: int) -> None:
        """Take another reference (get_page)."""
        self._add(self.head(pfn), REFERENCE)

    def put(self, pfn: int) -> None:
        """Let a reference go; the last one frees the frame (put_page)."""
        pfn = self.head(pfn)
        self._dropped(pfn, self._add(pfn, -REFERENCE))

    def head(self, pfn: int) -> int:
        """The first frame of its compound page, whose struct page has the references; or itself (compound_head)."""
        return pfn & HEAD_MASK if pfn & HEAD_MASK in self.compounds else pfn

    def _dropped(self, pfn: int, counts: int) -> None:
        if counts >= REFERENCE:
            return
        if counts:
            raise KernelPanic(f"frame {pfn:#x} has no reference left, but counts {counts:#x}")
        compound = self.compounds.get(pfn)
        if compound is None:
            self._frames.free(pfn)
        else:
            compound.free()

    def refcount(self, pfn: int) -> int:
        """References to a frame, or to all of its compound page."""
        return self._memory.load_va(COUNTS_VA + STRUCT_PAGE_SIZE * self.head(pfn)) >> 32

    def mapcount(self, pfn: int) -> int:
        """Page-table entries that map a frame, by itself or with the rest of its compound page."""
        count = self._memory.load_va(COUNTS_VA + STRUCT_PAGE_SIZE * pfn) & MAPCOUNT
        head = pfn & HEAD_MASK
        return count + self._structs.entire_mapcount(head) if head in self.compounds else count

    def compound(self, pfn: int) -> Compound | None:
        """The compound page that a frame belongs to. (Of one of 1 GiB only the first parts know.)"""
        return self.compounds.get(pfn & HEAD_MASK)

    def frames_of(self, pfn: int) -> int:
        """How many frames a page has: those of its compound page, or one."""
        compound = self.compounds.get(pfn & HEAD_MASK)
        return compound.frames if compound else 1

    # --- the reverse mapping ----------------------------------------------------------------------------------------

    def allocate_mapped(self, mm: AddressSpace, va: int) -> int:
        """A frame for one anonymous page, of which the entry at `va` has the only reference. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate()
        self._memory.store_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn, ANON_EXCLUSIVE | ANONYMOUS)
        self._memory.store_va(COUNTS_VA + STRUCT_PAGE_SIZE * pfn, MAPPED)
        self._mappings[pfn] = [(mm, va)]
        self.anonymous += 1
        self.lru_add(pfn)
        return pfn

    def allocate_cached(self) -> int:
        """A frame for one anonymous page that only the swap cache has so far. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate()
        self._memory.store_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn, ANONYMOUS)
        self._memory.store_va(COUNTS_VA + STRUCT_PAGE_SIZE * pfn, REFERENCE)
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
        """A PTE at `va` maps the frame from now on, and holds a reference."""
        compound = self.compounds.get(pfn & HEAD_MASK)
        if compound is None:
            self._add(pfn, MAPPED)
        else:
            self._add(pfn, 1)
            self._add(compound.head, REFERENCE)
            compound.parts += 1
            compound.count(mm, 1)
        self._mappings.setdefault(pfn, []).append((mm, va))

    def unmap(self, pfn: int, mm: AddressSpace, va: int, *, dirty: bool = False) -> None:
        """A PTE that mapped the frame is gone, and so is its reference. `dirty` is its D bit."""
        mappings = self._mappings[pfn]
        mappings.remove((mm, va))
        if not mappings:
            del self._mappings[pfn]
        compound = self.compounds.get(pfn & HEAD_MASK)
        if compound is not None:
            self._unmap_part(compound, pfn, mm)
            return
        counts = self._add(pfn, -MAPPED)
        if counts < REFERENCE:  # it was anonymous: the page cache holds its own frames
            self.anonymous -= 1
            self.lru_del(pfn)
        elif dirty and self.observer is not None:
            self.observer.written(pfn)
        self._dropped(pfn, counts)

    def move(self, pfn: int, mm: AddressSpace, old: int, new: int, *, entire: bool = False) -> None:
        """The entry at `old` is at `new` now (move_ptes, move_huge_pmd)."""
        mappings = self.compounds[pfn].entire if entire else self._mappings[pfn]
        mappings[mappings.index((mm, old))] = (mm, new)

    def mappings(self, pfn: int) -> tuple[Mapping, ...]:
        """The PTEs that map a frame (rmap_walk); those that map all of its compound page are in `Compound.entire`."""
        return tuple(self._mappings.get(pfn, ()))

    def folio_mappings(self, pfn: int) -> tuple[Mapping, ...]:
        """All entries that map a page, whether it is one frame or a compound page."""
        compound = self.compounds.get(pfn & HEAD_MASK)
        if compound is None:
            return tuple(self._mappings.get(pfn, ()))
        frames = range(compound.head, compound.head + HPAGE_PMD_NR) if compound.parts else ()
        return (*compound.entire, *(mapping for frame in frames for mapping in self._mappings.get(frame, ())))

    @property
    def mapped_frames(self) -> int:
        """Frames that some page table maps."""
        entire = [compound for compound in self.compounds.values() if compound.entire]
        both = sum(head in self._mappings for compound in entire if compound.parts for head in self._parts(compound))
        return len(self._mappings) + sum(compound.frames for compound in entire) - both

    @staticmethod
    def _parts(compound: Compound) -> range:
        return range(compound.head, compound.head + compound.frames)

    # --- compound pages ---------------------------------------------------------------------------------------------

    def allocate_huge(self, mm: AddressSpace, va: int, *, reclaim: bool = True) -> int:
        """A compound page of anonymous memory, of which the PMD at `va` has the only reference; its first frame.

        Raises Errno(ENOMEM): also, unless `reclaim`, where memory is short.
        """
        pfn = self._frames.allocate(HPAGE_PMD_ORDER, reclaim=reclaim)
        self._structs.make_compound(pfn, HPAGE_PMD_ORDER, ANONYMOUS, ANON_EXCLUSIVE, references=0)
        self.compounds[pfn] = Compound(pfn, HPAGE_PMD_ORDER, self._free_huge)
        self.map_entire(pfn, mm, va)
        self.anonymous += HPAGE_PMD_NR
        self.lru_add(pfn)
        return pfn

    def _free_huge(self, pfn: int) -> None:
        """The last mapping of a huge page of anonymous memory is gone (destroy_large_folio)."""
        self.anonymous -= HPAGE_PMD_NR
        self.lru_del(pfn)
        self.forget_compound(pfn)
        self._frames.free(pfn)

    def allocate_pooled(self, order: int, give_back: Callable[[int], object]) -> int:
        """A compound page that nobody has a reference to, for a pool; `give_back` gets it each time that the last one
        lets it go. Raises Errno(ENOMEM).
        """
        pfn = self._frames.allocate(order)
        self._structs.make_compound(pfn, order, 0, 0, references=0)
        self.compounds[pfn] = Compound(pfn, order, give_back, is_transparent=False)
        return pfn

    def free_pooled(self, pfn: int) -> None:
        """The pool does not want it any more."""
        self.forget_compound(pfn)
        self._frames.free(pfn)

    def clear_flags(self, pfn: int) -> None:
        """A compound page of a pool is nobody's."""
        self._memory.store_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn, PG_HEAD)

    def forget_compound(self, pfn: int) -> None:
        """The frames of a compound page belong together no more."""
        self._structs.clear(pfn, self.compounds.pop(pfn).order)
        self.deferred.pop(pfn, None)

    def map_entire(self, pfn: int, mm: AddressSpace, va: int) -> None:
        """An entry of an upper level at `va` maps a compound page from now on, and holds a reference."""
        compound = self.compounds[pfn]
        self._add(pfn, REFERENCE)
        self._structs.entire_mapcount(pfn, 1)
        compound.entire.append((mm, va))
        compound.count(mm, 1)

    def unmap_entire(self, pfn: int, mm: AddressSpace, va: int) -> None:
        """An entry that mapped a compound page is gone, and so is its reference."""
        compound = self.compounds[pfn]
        compound.entire.remove((mm, va))
        compound.count(mm, -1)
        self._structs.entire_mapcount(pfn, -1)
        if compound.parts and not compound.entire and not all(part in self._mappings for part in self._parts(compound)):
            self.deferred[pfn] = None
        self._dropped(pfn, self._add(pfn, -REFERENCE))

    def _unmap_part(self, compound: Compound, pfn: int, mm: AddressSpace) -> None:
        compound.parts -= 1
        compound.count(mm, -1)
        if not self._add(pfn, -1) & MAPCOUNT and not compound.entire:
            self.deferred[compound.head] = None
        self._dropped(compound.head, self._add(compound.head, -REFERENCE))

    def split_entire(self, pfn: int, mm: AddressSpace, va: int) -> None:
        """The entry that mapped all of a compound page is a table now, whose PTEs map its parts."""
        compound = self.compounds[pfn]
        compound.entire.remove((mm, va))
        compound.parts += HPAGE_PMD_NR
        compound.count(mm, HPAGE_PMD_NR - 1)
        self._structs.entire_mapcount(pfn, -1)
        words = self._structs.load(pfn, HPAGE_PMD_NR)
        words[:, COUNTS] += 1
        words[0, COUNTS] += (HPAGE_PMD_NR - 1) * REFERENCE
        words[:, FLAGS] |= words[0, FLAGS] & (ANON_EXCLUSIVE | LAZY_FREE)
        self._structs.store(pfn, words)
        for part in range(HPAGE_PMD_NR):
            self._mappings.setdefault(pfn + part, []).append((mm, va + part * PAGE_SIZE))

    def split_compound(self, pfn: int) -> None:
        """Make a compound page that is mapped in parts only single pages (__split_folio_to_order).

        Parts that nobody maps are free then.
        """
        words = self._structs.load(pfn, HPAGE_PMD_NR)
        mapcounts = words[:, COUNTS] & MAPCOUNT
        self.lru_del(pfn)
        self.forget_compound(pfn)
        words[0, FLAGS] &= ~np.uint64(PG_HEAD)
        words[:, HEAD] = 0
        words[:, COUNTS] = mapcounts * MAPPED
        self._structs.store(pfn, words)
        self._frames.split(pfn)
        for part, mapcount in enumerate(mapcounts.tolist(), pfn):
            if not mapcount:
                self.anonymous -= 1
                self._frames.free(part)
            else:
                self.lru_add(part)

    # --- who may write without asking -------------------------------------------------------------------------------

    def is_exclusive(self, pfn: int) -> bool:
        """Whether one process alone has this anonymous page (PageAnonExclusive)."""
        return self._memory.load_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn) & ANON_EXCLUSIVE != 0

    def is_anonymous(self, pfn: int) -> bool:
        """Whether a mapped frame holds anonymous memory, not a page of a file (PageAnon)."""
        return self._memory.load_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn) & ANONYMOUS != 0

    def share(self, pfn: int) -> None:
        """One more process has this page: if it is anonymous, nobody has it alone any more."""
        va = FLAGS_VA + STRUCT_PAGE_SIZE * pfn
        flags = self._memory.load_va(va)
        if flags & ANON_EXCLUSIVE:
            self._memory.store_va(va, flags & ~ANON_EXCLUSIVE)

    def set_exclusive(self, pfn: int) -> None:
        """Nobody else has this anonymous page any more."""
        head = PG_HEAD if pfn in self.compounds else 0
        self._memory.store_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn, ANONYMOUS | ANON_EXCLUSIVE | head)

    def is_alone(self, pfn: int) -> bool:
        """Whether only one address space has anything of this page, and nobody else uses it now. Of a compound page
        that it has but one part of, it does not: then it shall copy that part and give up the rest
        (__wp_can_reuse_large_anon_folio).
        """
        compound = self.compounds.get(pfn & HEAD_MASK)
        if compound is None:
            return self.refcount(pfn) == 1
        return not compound.is_shared and self.refcount(pfn) == compound.mappings > 1

    def is_used(self, pfn: int) -> bool:
        """Whether somebody beside the page tables and the swap cache has a reference: the kernel itself, just now."""
        compound = self.compounds.get(pfn & HEAD_MASK)
        mappings = compound.mappings if compound is not None else len(self._mappings.get(pfn, ()))
        return self.refcount(pfn) != mappings

    def is_shared(self, pfn: int) -> bool:
        """Whether more than one address space maps a page, or something of its compound page."""
        compound = self.compounds.get(pfn & HEAD_MASK)
        return compound.is_shared if compound is not None else len(self._mappings.get(pfn, ())) > 1

    # --- what the program does not need -----------------------------------------------------------------------------

    def is_lazy(self, pfn: int) -> bool:
        """Whether an anonymous page may be dropped instead of written out."""
        return self._memory.load_va(FLAGS_VA + STRUCT_PAGE_SIZE * pfn) & LAZY_FREE != 0

    def set_lazy(self, pfn: int, lazy: bool) -> None:
        """MADV_FREE, or the page was written after it."""
        va = FLAGS_VA + STRUCT_PAGE_SIZE * pfn
        flags = self._memory.load_va(va) & ~LAZY_FREE
        self._memory.store_va(va, flags | (LAZY_FREE if lazy else 0))
