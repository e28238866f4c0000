"""The state of every page of an address space, for all of its pages at once.

A report looks hundreds of times at thousands of pages, so whole tables are read at once: 512 entries, and the words of
512 struct pages, are one numpy expression.

>>> from emu import Machine
>>> from emu.assembler import assemble_source
>>> from kernel import Kernel
>>> kernel = Kernel(Machine(ram="16M"))
>>> mm = kernel.spawn(assemble_source("_start: jmp _start")).mm
>>> pages = PageReader(kernel).states(mm)
>>> [hex(page) for page in pages.numbers], pages.letters  # the stack, with the program's arguments
(['0x7fffffffe'], b'p')
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from emu.pte import ADDRESS_MASK, PAGE_SHIFT, PAGE_SIZE, Pte
from emu.ram import Ram
from emu.walk_report import page_walk
from kernel import Kernel
from kernel.address_space import AddressSpace
from kernel.compound import COUNTS, FLAGS, HPAGE_PMD_NR, MAPCOUNT, STRUCT_PAGE_SIZE
from kernel.layout import VMEMMAP
from kernel.page_table import KERNEL_HALF, TOP_LEVEL
from kernel.pages import ANONYMOUS
from kernel.pte import MAPPED, SPECIAL

__all__ = ["NOT_THERE", "STATES", "PageReader", "PageState", "PageStates", "Table", "tables"]

Words = npt.NDArray[np.uint64]
ENTRIES: Final = PAGE_SIZE // 8
PRESENT, LARGE = int(Pte.P), int(Pte.PS)
WORDS_OF_STRUCT_PAGE: Final = STRUCT_PAGE_SIZE // 8
STRUCT_PAGES_OF_PAGE: Final = PAGE_SIZE // STRUCT_PAGE_SIZE


class PageState(NamedTuple):
    """One of the things that a page can be."""

    name: str
    meaning: str
    colour: str


NOT_THERE: Final = "."
STATES: Final = {
    NOT_THERE: PageState("absent", "promised only: an access is a page fault", "bright_black"),
    "z": PageState("zero", "read before it was ever written: the page of zeros that all share", "cyan"),
    "f": PageState("file", "a page of a file, in the page cache", "green"),
    "s": PageState("shared", "memory that is shared for ever (MAP_SHARED without a file)", "magenta"),
    "p": PageState("private", "this process's own, written", "yellow"),
    "c": PageState("cow", "another process has it too: who writes first gets a copy", "blue"),
    "h": PageState("huge", "a part of a huge page", "bright_yellow"),
    "w": PageState("swapped", "written to a swap area", "red"),
}
"""The character of each state in the page map. Those in memory have a frame of their own: f, s, p, c and h."""


@dataclass(frozen=True, slots=True)
class Table:
    """A page-table page: its frame, its level (1: PT), the first address that it maps, and its 512 entries now."""

    pfn: int
    level: int
    va: int
    entries: Words


def tables(ram: Ram, pgd: int, indices: range = range(ENTRIES)) -> Iterator[Table]:
    """The table at a physical address and every table below some of its entries, each before what is below it."""
    yield from _tables(ram, pgd >> PAGE_SHIFT, TOP_LEVEL, 0, indices)


def _tables(ram: Ram, pfn: int, level: int, va: int, indices: range) -> Iterator[Table]:
    entries = ram.words[pfn * ENTRIES : (pfn + 1) * ENTRIES]
    yield Table(pfn, level, va, entries)
    if level == 1:
        return
    shift = 3 + 9 * level
    for index in np.flatnonzero(entries & np.uint64(PRESENT)).tolist():
        entry = int(entries[index])
        if index in indices and not (entry & LARGE and level < TOP_LEVEL):
            below = va + (index << shift)
            yield from _tables(ram, (entry & ADDRESS_MASK) >> PAGE_SHIFT, level - 1, below, range(ENTRIES))


@dataclass(frozen=True, slots=True)
class Leaves:
    """The entries of the user half that map pages, or tell where they are: page numbers, entries, in order.

    An entry of a large page stands for each of its pages of 4 KiB; `large` says which those are.
    """

    numbers: npt.NDArray[np.int64]
    entries: Words
    large: npt.NDArray[np.bool_]


def leaves(ram: Ram, pgd: int) -> Leaves:
    """All leaves of the user half."""
    numbers, entries, sizes = [], [], []
    for table in tables(ram, pgd, range(KERNEL_HALF)):
        used = np.flatnonzero(table.entries)
        if table.level == 1:
            chosen, pages = used, 1
        elif table.level < TOP_LEVEL:
            chosen = used[(table.entries[used] & np.uint64(LARGE)) != 0]
            pages = 1 << 9 * (table.level - 1)
        else:
            continue
        first = (table.va >> PAGE_SHIFT) + chosen * pages
        numbers.append((first[:, None] + np.arange(pages)).ravel())
        entries.append(np.repeat(table.entries[chosen], pages))
        sizes.append(np.full(len(chosen) * pages, pages > 1))
    if not numbers:
        return Leaves(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.bool_))
    found = np.concatenate(numbers)
    order = np.argsort(found, kind="stable")
    return Leaves(found[order], np.concatenate(entries)[order], np.concatenate(sizes)[order])


@dataclass(frozen=True, slots=True)
class PageStates:
    """Which pages are more than a promise: their numbers in order, and a letter of `STATES` for each."""

    numbers: npt.NDArray[np.int64]
    letters: bytes

    def within(self, start: int, end: int) -> dict[int, str]:
        """The letters of the pages from one address up to another, by number from the first one on."""
        first, last = np.searchsorted(self.numbers, (start >> PAGE_SHIFT, end >> PAGE_SHIFT))
        numbers = (self.numbers[first:last] - (start >> PAGE_SHIFT)).tolist()
        return dict(zip(numbers, self.letters[first:last].decode(), strict=True))


class PageReader:
    """Reads page tables and all struct pages of a kernel where they lie in RAM."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._ram = kernel, kernel.machine.ram
        frames = self._ram.size >> PAGE_SHIFT
        pgd = kernel.manager.kernel_half.pgd
        walks = (page_walk(self._ram, pgd, VMEMMAP + at) for at in range(0, frames * STRUCT_PAGE_SIZE, PAGE_SIZE))
        self._places = np.array([(walk.pa or 0) >> 3 for walk in walks], np.int64)

    def _words(self, pfns: npt.NDArray[np.int64], number: int) -> Words:
        """A word of the struct page of each frame."""
        page, place = np.divmod(pfns, STRUCT_PAGES_OF_PAGE)
        words: Words = self._ram.words[self._places[page] + place * WORDS_OF_STRUCT_PAGE + number]
        return words

    def _alone(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether no other entry maps a frame, nor the huge page that it is a part of."""
        alone: npt.NDArray[np.bool_] = (self._words(pfns, COUNTS) & np.uint64(MAPCOUNT)) == 1
        whole = [page.head for page in self._kernel.pages.compounds.values() if page.entire and page.parts]
        if whole:
            alone &= ~np.isin(pfns & -HPAGE_PMD_NR, whole)
        return alone

    def states(self, mm: AddressSpace) -> PageStates:
        """The state of every page that an entry tells of."""
        found = leaves(self._ram, mm.page_table.pgd)
        entries = found.entries
        mapped = (entries & np.uint64(MAPPED)) != 0
        inverted = np.where(entries & np.uint64(PRESENT), entries, entries ^ np.uint64(ADDRESS_MASK))
        pfns = np.where(mapped, (inverted & np.uint64(ADDRESS_MASK)) >> np.uint64(PAGE_SHIFT), 0).astype(np.int64)
        anonymous = mapped & ((self._words(pfns, FLAGS) & np.uint64(ANONYMOUS)) != 0)
        alone = self._alone(pfns)
        letters = np.full(len(entries), ord("f"), np.uint8)
        letters[anonymous & alone] = ord("p")
        letters[anonymous & ~alone] = ord("c")
        letters[found.large] = ord("h")
        letters[mapped & ((entries & np.uint64(SPECIAL)) != 0)] = ord("z")
        letters[~mapped] = ord("w")
        for vma in mm.vmas:
            if vma.backing is not None and vma.backing.is_shmem:
                first, end = np.searchsorted(found.numbers, (vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT))
                part = letters[first:end]
                part[part == ord("f")] = ord("s")
        return PageStates(found.numbers, letters.tobytes())
