"""Virtual memory areas: the promises that a process was made (mm/vma.c, include/linux/mm_types.h).

A VMA is a range of pages with one set of rights and one backing. Two never overlap; neighbours with the same rights
and backing merge. Nothing in page tables says what *may* be there: only the VMAs do, and a page fault asks them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any, Final, Protocol

from sortedcontainers import SortedDict

from emu.pte import PAGE_SHIFT, PAGE_SIZE

__all__ = ["AnonVma", "Backing", "Prot", "Vma", "VmaFlag", "VmaSet"]

STACK_GUARD_GAP: Final = 256 * PAGE_SIZE
"""Kept free below a mapping that grows down (stack_guard_gap in mm/mmap.c)."""


class Prot(IntFlag):
    """PROT_* of mmap(2)."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4


class VmaFlag:
    """VM_* (include/linux/mm.h). Plain numbers: every page fault looks at them."""

    READ: Final = 0x1
    WRITE: Final = 0x2
    EXEC: Final = 0x4
    SHARED: Final = 0x8
    MAY_READ: Final = 0x10
    MAY_WRITE: Final = 0x20
    MAY_EXEC: Final = 0x40
    MAY_SHARE: Final = 0x80
    GROWS_DOWN: Final = 0x100
    LOCKED: Final = 0x2000
    LOCK_MASK: Final = 0x8_2000
    DONT_COPY: Final = 0x2_0000
    DONT_EXPAND: Final = 0x4_0000
    LOCK_ON_FAULT: Final = 0x8_0000
    ACCOUNT: Final = 0x10_0000
    NO_RESERVE: Final = 0x20_0000
    HUGETLB: Final = 0x40_0000
    WIPE_ON_FORK: Final = 0x200_0000
    DONT_DUMP: Final = 0x400_0000
    HUGE_PAGE: Final = 0x2000_0000
    NO_HUGE_PAGE: Final = 0x4000_0000

    RIGHTS: Final = 0x7
    MAY_ALL: Final = 0x70
    DATA: Final = 0x73
    """What anonymous memory of a program has: readable and writable, and mprotect may allow the rest."""


class Backing(Protocol):
    """What lies behind a file mapping: pages in a page cache (struct address_space of a file).

    Whoever keeps a VMA on it holds it with `get` and lets it go with `put`.
    """

    @property
    def name(self) -> str:
        """What /proc/PID/maps calls it."""
        ...

    @property
    def device(self) -> int:
        """Its st_dev."""
        ...

    @property
    def number(self) -> int:
        """Its inode number."""
        ...

    @property
    def is_shmem(self) -> bool:
        """Whether its pages are all there is of it, and lie in no file elsewhere."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the file."""
        ...

    @property
    def page_size(self) -> int:
        """Bytes of the pages that it has: more than 4096 for huge pages of a pool."""
        ...

    def page(self, index: int) -> int | None:
        """The pfn of a page, brought in if need be; None beyond the end. Raises Errno(ENOMEM)."""
        ...

    def is_cached(self, index: int) -> bool:
        """Whether a page is in memory already."""
        ...

    def get(self) -> object:
        """One more user."""
        ...

    def put(self) -> None:
        """One user less."""
        ...


class AnonVma:
    """Marks VMAs whose anonymous pages may lie side by side in one VMA (struct anon_vma).

    It is made by the first fault; a child of fork has one of its own, with its parent's in the chain.
    """

    def __init__(self, *, forked: bool = False) -> None:
        self.forked = forked


@dataclass(slots=True, eq=False)
class Vma:
    """Pages `start` to `end` (exclusive, bytes). `backing` is None for anonymous memory.

    `page_offset` is the page of the backing at `start`; anonymous memory is numbered by its first address.
    """

    start: int
    end: int
    flags: int
    backing: Backing | None = None
    page_offset: int = 0
    anon_vma: AnonVma | None = None

    @property
    def prot(self) -> Prot:
        """The rights."""
        return Prot(self.flags & VmaFlag.RIGHTS)

    @property
    def rights(self) -> str:
        """As in /proc/PID/maps: `r-xp` is a private mapping that can be read and executed."""
        letters = (letter if self.flags & 1 << bit else "-" for bit, letter in enumerate("rwx"))
        return "".join(letters) + ("s" if self.is_shared else "p")

    @property
    def pages(self) -> int:
        """Its size in pages."""
        return (self.end - self.start) >> PAGE_SHIFT

    @property
    def page_size(self) -> int:
        """Bytes of the pages that are delivered (vma_kernel_pagesize), transparent huge pages aside."""
        return PAGE_SIZE if self.backing is None else self.backing.page_size

    @property
    def is_shared(self) -> bool:
        """Whether writes are seen by others (VM_SHARED, or VM_MAYSHARE of a file that is open read-only)."""
        return self.flags & (VmaFlag.SHARED | VmaFlag.MAY_SHARE) != 0

    @property
    def counts_as_committed(self) -> bool:
        """Whether its pages are promised by the system as a whole: private and writable (accountable_mapping)."""
        return self.flags & (VmaFlag.NO_RESERVE | VmaFlag.HUGETLB | VmaFlag.SHARED | VmaFlag.WRITE) == VmaFlag.WRITE

    @property
    def start_gap(self) -> int:
        """The lowest address that must stay free for it (vm_start_gap)."""
        return max(self.start - STACK_GUARD_GAP, 0) if self.flags & VmaFlag.GROWS_DOWN else self.start

    def index(self, va: int) -> int:
        """The page of the backing that belongs at an address."""
        return self.page_offset + ((va - self.start) >> PAGE_SHIFT)

    def continues(self, upper: Vma) -> bool:
        """Whether `upper` goes on where this one ends, with the same flags and backing (can_vma_merge_before)."""
        return (
            self.end == upper.start
            and self.flags == upper.flags
            and not self.flags & VmaFlag.DONT_EXPAND
            and self.backing is upper.backing
            and self.page_offset + self.pages == upper.page_offset
        )

    def shares_anon_vma(self, other: Vma) -> bool:
        """Whether the anonymous pages of both may lie in one VMA (is_mergeable_anon_vma)."""
        if self.anon_vma is other.anon_vma:
            return True
        known = self.anon_vma or other.anon_vma
        return (self.anon_vma is None or other.anon_vma is None) and known is not None and not known.forked

    def part(self, start: int, end: int) -> Vma:
        """The piece of this VMA between two addresses."""
        start, end = max(start, self.start), min(end, self.end)
        return replace(self, start=start, end=end, page_offset=self.index(start))


class VmaSet:
    """The VMAs of one address space, in order of their addresses.

    >>> vmas = VmaSet()
    >>> vmas.insert(Vma(0x1000, 0x3000, VmaFlag.READ, page_offset=1))
    >>> vmas.insert(Vma(0x3000, 0x4000, VmaFlag.READ, page_offset=3))
    >>> [(hex(vma.start), hex(vma.end)) for vma in vmas]
    [('0x1000', '0x4000')]
    >>> _ = vmas.remove(0x2000, 0x3000)
    >>> [(hex(vma.start), hex(vma.end)) for vma in vmas]
    [('0x1000', '0x2000'), ('0x3000', '0x4000')]
    >>> hex(vmas.gap(0x1000, 0, 0x4000))
    '0x2000'
    """

    def __init__(self) -> None:
        self._by_start: Any = SortedDict()
        self.pages = 0  # of all of them
        self._recent: Vma | None = None  # the one found last: faults come in clusters

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._by_start.values())

    def __len__(self) -> int:
        return len(self._by_start)

    def find(self, va: int) -> Vma | None:
        """The VMA that contains an address."""
        vma = self._recent
        if vma is not None and vma.start <= va < vma.end:
            return vma
        index = self._by_start.bisect_right(va) - 1
        if index < 0:
            return None
        found: Vma = self._by_start.values()[index]
        if va >= found.end:
            return None
        self._recent = found
        return found

    def find_next(self, va: int) -> Vma | None:
        """The first VMA that ends above an address (find_vma)."""
        index = self._by_start.bisect_right(va)
        values = self._by_start.values()
        if index and values[index - 1].end > va:
            index -= 1
        return values[index] if index < len(values) else None

    def find_previous(self, va: int) -> Vma | None:
        """The last VMA that begins below an address."""
        index = self._by_start.bisect_left(va)
        return self._by_start.values()[index - 1] if index else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All VMAs that share a page with a range."""
        first = self._by_start.bisect_right(start)
        values = self._by_start.values()
        if first and values[first - 1].end > start:
            first -= 1
        return list(values[first : self._by_start.bisect_left(end)])

    def neighbours(self, vma: Vma) -> tuple[Vma | None, Vma | None]:
        """The VMAs before and behind a place, adjacent or not."""
        index = self._by_start.bisect_left(vma.start)
        behind = self._by_start.bisect_left(vma.end)
        values = self._by_start.values()
        return (values[index - 1] if index else None), (values[behind] if behind < len(values) else None)

    def prepare_anon_vma(self, vma: Vma) -> None:
        """Before the first anonymous page of a VMA: a neighbour's mark is shared, so that the two can merge one day."""
        lower, upper = self.neighbours(vma)
        for one, other, near in ((vma, upper, upper), (lower, vma, lower)):
            if one is None or other is None or near is None or near.anon_vma is None:
                continue
            if not near.anon_vma.forked and _could_merge(one, other):
                vma.anon_vma = near.anon_vma
                return
        vma.anon_vma = AnonVma()

    def insert(self, vma: Vma, *, merge: bool = True) -> None:
        """Add a VMA to a free range, merged with its neighbours where they match (vma_merge)."""
        self.pages += vma.pages
        lower, upper = self.neighbours(vma) if merge else (None, None)
        if lower is not None and not (lower.continues(vma) and lower.shares_anon_vma(vma)):
            lower = None
        if upper is not None and vma.continues(upper) and vma.shares_anon_vma(upper) and _agree(lower, upper):
            del self._by_start[upper.start]
            vma = replace(vma, end=upper.end, anon_vma=vma.anon_vma or upper.anon_vma)
            _merged(upper)
        if lower is not None:
            _merged(vma)
            vma = replace(lower, end=vma.end, anon_vma=lower.anon_vma or vma.anon_vma)
        self._by_start[vma.start] = vma
        self._recent = None

    def remove(self, start: int, end: int) -> list[Vma]:
        """Cut a range out, splitting VMAs at its borders. Returns the pieces that were there, in order."""
        self._recent = None
        pieces = []
        for vma in self.overlapping(start, end):
            del self._by_start[vma.start]
            if vma.start < start:
                self._put(vma.part(vma.start, start), vma)
            if vma.end > end:
                self._put(vma.part(end, vma.end), vma)
            pieces.append(vma.part(start, end))
            self.pages -= pieces[-1].pages
        return pieces

    def _put(self, part: Vma, whole: Vma) -> None:
        self._by_start[part.start] = part
        if whole.backing is not None:
            whole.backing.get()

    def replace(self, old: Vma, new: Vma) -> None:
        """Put `new` where `old` was."""
        self.pages += new.pages - old.pages
        del self._by_start[old.start]
        self._by_start[new.start] = new
        self._recent = None

    def gap(self, size: int, floor: int, ceiling: int) -> int | None:
        """Start of the highest free range of `size` bytes between two addresses (vm_unmapped_area, top-down)."""
        top = ceiling
        for vma in reversed(self._by_start.values()):
            if vma.start_gap >= top:
                continue
            if vma.end <= top - size:
                break
            top = min(top, vma.start_gap)
        return top - size if top - size >= floor else None


def _could_merge(lower: Vma, upper: Vma) -> bool:
    """Whether two VMAs would be one if they had the same rights (anon_vma_compatible)."""
    return (
        lower.end == upper.start
        and lower.backing is upper.backing
        and not (lower.flags ^ upper.flags) & ~VmaFlag.RIGHTS
        and lower.page_offset + lower.pages == upper.page_offset
    )


def _agree(lower: Vma | None, upper: Vma) -> bool:
    """Whether what lies between two VMAs may join both (are_anon_vmas_compatible); else it joins the lower one."""
    if lower is None or lower.anon_vma is None or upper.anon_vma is None:
        return True
    return lower.anon_vma is upper.anon_vma


def _merged(vma: Vma) -> None:
    """A VMA that became a part of its neighbour holds its backing no more: the neighbour does."""
    if vma.backing is not None:
        vma.backing.put()
