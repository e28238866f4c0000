"""Virtual memory areas: the promises that a process was made (mm/mmap.c, include/linux/mm_types.h).

A VMA is a range of pages with one set of rights and one backing. Two never overlap; neighbours with the same rights
and backing merge. Nothing in page tables says what *may* be there: only the VMAs do, and a page fault asks them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntFlag

__all__ = ["Backing", "Prot", "Vma", "VmaSet"]


class Prot(IntFlag):
    """PROT_* of mmap(2)."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4


@dataclass(frozen=True, slots=True)
class Backing:
    """Bytes behind a mapping (an image's segment); pages beyond its end are zeros. Compared by identity of `data`."""

    name: str
    data: bytes

    def page(self, offset: int, size: int) -> bytes:
        """The bytes of one page of the backing, padded with zeros."""
        return self.data[offset : offset + size].ljust(size, b"\0")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backing) and self.data is other.data and self.name == other.name

    def __hash__(self) -> int:
        return hash((self.name, id(self.data)))


@dataclass(frozen=True, slots=True)
class Vma:
    """Pages `start` to `end` (exclusive). `backing` is None for anonymous memory; `name` is for people."""

    start: int
    end: int
    prot: Prot
    backing: Backing | None = None
    offset: int = 0
    grows_down: bool = False
    name: str = ""

    def merges_with(self, upper: Vma) -> bool:
        """Whether the next VMA continues this one."""
        same = (self.prot, self.backing, self.grows_down, self.name) == (
            *(upper.prot, upper.backing, upper.grows_down, upper.name),
        )
        contiguous = self.backing is None or self.offset + self.end - self.start == upper.offset
        return same and contiguous and self.end == upper.start

    def part(self, start: int, end: int) -> Vma:
        """The piece of this VMA between two addresses."""
        start, end = max(start, self.start), min(end, self.end)
        offset = self.offset + (start - self.start) if self.backing is not None else 0
        return replace(self, start=start, end=end, offset=offset)


class VmaSet:
    """The VMAs of one address space, in order.

    >>> vmas = VmaSet()
    >>> vmas.insert(Vma(0x1000, 0x3000, Prot.READ)); vmas.insert(Vma(0x3000, 0x4000, Prot.READ))
    >>> [(hex(vma.start), hex(vma.end)) for vma in vmas]
    [('0x1000', '0x4000')]
    >>> [hex(vma.start) for vma in vmas.remove(0x2000, 0x3000)], len(vmas)
    (['0x2000'], 2)
    """

    def __init__(self) -> None:
        self._vmas: list[Vma] = []

    def __iter__(self) -> Iterator[Vma]:
        return iter(tuple(self._vmas))

    def __len__(self) -> int:
        return len(self._vmas)

    def find(self, address: int) -> Vma | None:
        """The VMA that contains an address."""
        vma = self.find_next(address)
        return vma if vma is not None and vma.start <= address else None

    def find_next(self, address: int) -> Vma | None:
        """The first VMA that ends above an address (find_vma)."""
        index = bisect_right(self._vmas, address, key=lambda vma: vma.end)
        return self._vmas[index] if index < len(self._vmas) else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All VMAs that share a page with a range."""
        first = bisect_right(self._vmas, start, key=lambda vma: vma.end)
        last = bisect_left(self._vmas, end, key=lambda vma: vma.start)
        return self._vmas[first:last]

    def insert(self, vma: Vma) -> None:
        """Add a VMA to a free range, merged with its neighbours where they match."""
        index = bisect_left(self._vmas, vma.start, key=lambda other: other.start)
        if index < len(self._vmas) and vma.merges_with(self._vmas[index]):
            vma = replace(vma, end=self._vmas.pop(index).end)
        if index and self._vmas[index - 1].merges_with(vma):
            index -= 1
            vma = replace(self._vmas.pop(index), end=vma.end)
        self._vmas.insert(index, vma)

    def remove(self, start: int, end: int) -> list[Vma]:
        """Cut a range out, splitting VMAs at its borders. Returns the pieces that were there."""
        found = self.overlapping(start, end)
        for vma in found:
            self._vmas.remove(vma)
            if vma.start < start:
                self._vmas.insert(self._place(vma.start), vma.part(vma.start, start))
            if vma.end > end:
                self._vmas.insert(self._place(end), vma.part(end, vma.end))
        return [vma.part(start, end) for vma in found]

    def _place(self, start: int) -> int:
        return bisect_left(self._vmas, start, key=lambda vma: vma.start)

    def gap(self, size: int, floor: int, ceiling: int) -> int | None:
        """Start of the highest free range of `size` bytes between two addresses (top-down, as Linux maps)."""
        top = ceiling
        for vma in reversed(self._vmas):
            if vma.start >= top:
                continue
            if vma.end <= top - size:
                break
            top = min(top, vma.start)
        return top - size if top - size >= floor else None
