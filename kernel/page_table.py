"""Page tables as the kernel edits them: install, look up, clear and free entries.

The tables are real entries in guest RAM; this file only knows how to find the place of one. The upper levels come
into being when the first page below them is installed, and go when the address space goes. All user tables permit
everything; what a page permits is decided by its own entry, as in Linux (_PAGE_TABLE in asm/pgtable_types.h).

An entry of level 2 or 3 can be a leaf itself, and map a huge page. It may have to become a table of small pages one
day, at a moment when there is no memory for one. So each such PMD has a table *deposited* when it is made, which waits
unused until it is split or goes (pgtable_trans_huge_deposit in mm/pgtable-generic.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from emu.pte import ADDRESS_MASK, INDEX_MASK, PAGE_SHIFT, PAGE_SIZE, Pte

from .exceptions import KernelPanic
from .frames import FrameAllocator
from .memory import PhysicalMemory

__all__ = ["PageTable"]

TOP_LEVEL: Final = 4
KERNEL_HALF: Final = 256
"""First PGD entry of the kernel's half."""
P, W, U, A, PS, NX = (int(flag) for flag in (Pte.P, Pte.W, Pte.U, Pte.A, Pte.PS, Pte.NX))
_USER_TABLE: Final = P | W | U | A
_KERNEL_TABLE: Final = P | W | A


class PageTable:
    """One PGD and everything below it. `pgd` is its physical address.

    With page-table isolation (`isolated`) there are two, side by side: `user_pgd`, one page above, is what user mode
    runs on. It has the user half, kept equal entry by entry, and of the kernel only what it takes to get in.
    `huge_leaves` counts entries that map huge pages of the user's.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        frames: FrameAllocator,
        kernel_half: PageTable | None = None,
        *,
        isolated: bool = False,
    ) -> None:
        self.memory, self._frames = memory, frames
        self.isolated: bool = kernel_half.isolated if kernel_half is not None else isolated
        self._tables: dict[int, None] = {}  # frames of this PGD and the tables it made, to free them
        self._deposited: list[int] = []  # physical addresses of tables that huge pages may need one day
        self.huge_leaves = 0
        self.pgd = self._new_table(order=int(self.isolated))
        self.user_pgd = self.pgd + PAGE_SIZE if self.isolated else self.pgd
        if kernel_half is not None:
            self._inherit(kernel_half)

    @property
    def table_count(self) -> int:
        """Frames of the tables that this address space made, the PGD included."""
        return len(self._tables) + self.isolated

    @property
    def tables_below(self) -> int:
        """Tables below the PGD (mm_pgtables_bytes)."""
        return len(self._tables) - 1

    def _new_table(self, order: int = 0) -> int:
        pfn = self._frames.allocate(order)
        self._tables[pfn] = None
        for part in range(1 << order):
            self.memory.clear_frame(pfn + part)
        return pfn << PAGE_SHIFT

    def _inherit(self, parent: PageTable) -> None:
        """Share the kernel's half: one update below the PGD is then seen by all (the lecture's family values)."""
        for index in range(KERNEL_HALF, INDEX_MASK + 1):
            for mine, its in {self.pgd: parent.pgd, self.user_pgd: parent.user_pgd}.items():
                entry = parent.memory.load64(its + 8 * index)
                if entry:
                    self.memory.store64(mine + 8 * index, entry)

    def _set_entry(self, pa: int, level: int, entry: int) -> None:
        """Store an entry of an upper level; one of the user half's in the PGD goes to both (pti_set_user_pgtbl).

        In the kernel's own PGD it forbids execution: a kernel that came back to user code without switching CR3
        shall fault at once.
        """
        if level == TOP_LEVEL and self.isolated and pa - self.pgd < 8 * KERNEL_HALF:
            self._set_user_entry(pa + PAGE_SIZE, entry)
            entry |= NX if entry else 0
        self.memory.store64(pa, entry)

    def _set_user_entry(self, pa: int, entry: int) -> None:
        self.memory.store64(pa, entry)

    def entry_address(self, va: int, level: int = 1, *, create: bool = False) -> int | None:
        """Physical address of the entry for `va` at a level (1: PTE, 2: PMD). None if no table of that level is there:
        one on the way is missing, or a huge page is in its place.
        """
        pa, reached = self.memory.descend(self.pgd, va, TOP_LEVEL, level)
        if reached > level:
            return self.extend(va, pa, reached, level) if create else None
        return pa

    def find(self, va: int) -> tuple[int, int]:
        """(physical address, level) of the entry at which the walk for `va` ends: a PTE, a huge page, or nothing."""
        return self.memory.descend(self.pgd, va, TOP_LEVEL, 1)

    def extend(self, va: int, pa: int, reached: int, level: int = 1) -> int:
        """Go on from the empty entry at which a walk ended, with new tables down to a level; the place of the entry
        for `va` there. Raises Errno(ENOMEM).
        """
        if self.huge_leaves and self.memory.load64(pa) & PS:
            raise KernelPanic(f"a huge page is where a table is wanted for {va:#x}")
        while reached > level:
            table = self._new_table()
            self._set_entry(pa, reached, table | (_USER_TABLE if va >> 63 == 0 else _KERNEL_TABLE))
            pa, reached = self.memory.descend(table, va, reached - 1, level)
        return pa

    def make_entry(self, va: int, level: int = 1) -> int:
        """Physical address of the entry for `va`, with the tables above it made where missing. Raises Errno(ENOMEM)."""
        pa = self.entry_address(va, level, create=True)
        assert pa is not None
        return pa

    def install(self, va: int, entry: int, level: int = 1) -> None:
        """Put a leaf in place, making the tables above it where they are missing. Raises Errno(ENOMEM)."""
        self.memory.store64(self.make_entry(va, level), entry)

    def install_in_user_pgd(self, va: int, entry: int) -> None:
        """Put a leaf of the kernel's into the user's PGD, below tables that only that one has."""
        pa, level = self.memory.descend(self.user_pgd, va, TOP_LEVEL, 1)
        while level > 1:
            table = self._new_table()
            self.memory.store64(pa, table | _KERNEL_TABLE)
            pa, level = self.memory.descend(table, va, level - 1, 1)
        self.memory.store64(pa, entry)

    def lookup(self, va: int) -> int:
        """The entry that maps a page, also as a part of a huge one, or its PTE; 0 if there is none."""
        pa, level = self.find(va)
        return self.memory.load64(pa) if level == 1 or self.huge_leaves else 0

    def clear(self, va: int) -> int:
        """Take a PTE out and return it; 0 if there was none. Flushing the TLB is the caller's duty."""
        pa = self.entry_address(va)
        if pa is None:
            return 0
        entry = self.memory.load64(pa)
        if entry:
            self.memory.store64(pa, 0)
        return entry

    # --- huge pages -------------------------------------------------------------------------------------------------

    @property
    def deposited(self) -> int:
        """Tables that wait for a huge page to be split."""
        return len(self._deposited)

    def deposit(self, table: int | None = None) -> None:
        """Put a table aside for a PMD that is about to map a huge page; a new one, or one that was emptied.

        Raises Errno(ENOMEM).
        """
        self._deposited.append(self._new_table() if table is None else table)

    def withdraw(self) -> int:
        """The physical address of a table that was put aside: one huge PMD is no more."""
        return self._deposited.pop()

    def set_huge(self, pa: int, entry: int) -> None:
        """Let an empty entry of an upper level map a huge page."""
        self.huge_leaves += 1
        self.memory.store64(pa, entry)

    def clear_huge(self, pa: int, entry: int = 0) -> None:
        """Take a huge page out; `entry` is what comes in its place. Flushing the TLB is the caller's duty."""
        self.huge_leaves -= 1
        self.memory.store64(pa, entry)

    def set_table(self, pa: int, table: int) -> None:
        """Let a PMD that mapped a huge page lead to a table (pmd_populate)."""
        self.clear_huge(pa, table | _USER_TABLE)

    # --- going through all ------------------------------------------------------------------------------------------

    @staticmethod
    def _used(memory: PhysicalMemory, table: int, indices: range) -> Iterator[tuple[int, int]]:
        """(index, entry) of the entries among consecutive ones of a table that hold anything."""
        entries = np.frombuffer(memory.read(table + 8 * indices.start, 8 * len(indices)), dtype="<u8")
        used = np.flatnonzero(entries)
        yield from zip((used + indices.start).tolist(), entries[used].tolist(), strict=True)

    def leaves(self, start: int, end: int, memory: PhysicalMemory | None = None) -> Iterator[tuple[int, int, int]]:
        """(va, entry, physical address of the entry) of every leaf from `start` up to `end` that holds anything: PTEs,
        and the entries of upper levels that map huge pages (`is_huge`).

        Missing tables are skipped. With a `memory` of their own, people look without being seen: nothing is
        translated or counted.
        """
        yield from self._leaves(memory or self.memory, self.pgd, TOP_LEVEL, 0, start, end)

    def _leaves(
        self, memory: PhysicalMemory, table: int, level: int, base: int, start: int, end: int
    ) -> Iterator[tuple[int, int, int]]:
        shift = 3 + 9 * level
        first = max(start - base, 0) >> shift
        last = min((end - base + (1 << shift) - 1) >> shift, INDEX_MASK + 1)
        for index, entry in self._used(memory, table, range(first, last)):
            va = base + (index << shift)
            if level == 1 or entry & PS:
                yield va, entry, table + 8 * index
            else:
                yield from self._leaves(memory, entry & ADDRESS_MASK, level - 1, va, start, end)

    def unlink_tables(self, floor: int, ceiling: int) -> list[int]:
        """Take out every table that serves nothing outside `floor` to `ceiling`; the pages are gone already.

        Returns their frames. They are freed with `free_tables` when the TLB has forgotten them.
        """
        found: list[int] = []
        self._unlink(self.pgd, TOP_LEVEL, 0, floor, ceiling, found)
        return found

    def _unlink(self, table: int, level: int, base: int, floor: int, ceiling: int, found: list[int]) -> None:
        shift = 3 + 9 * level
        first = max(floor - base, 0) >> shift
        last = min((ceiling - base + (1 << shift) - 1) >> shift, KERNEL_HALF if level == TOP_LEVEL else INDEX_MASK + 1)
        for index, entry in list(self._used(self.memory, table, range(first, last))):
            va, below = base + (index << shift), entry & ADDRESS_MASK
            if entry & PS:
                raise KernelPanic(f"a huge page at {va:#x} is left where all pages are gone")
            if level > 2:
                self._unlink(below, level - 1, va, floor, ceiling, found)
            if floor <= va and va + (1 << shift) <= ceiling:
                self._set_entry(table + 8 * index, level, 0)
                found.append(below >> PAGE_SHIFT)

    def free_tables(self, tables: list[int]) -> None:
        """Free tables that were taken out."""
        for pfn in tables:
            del self._tables[pfn]
            self._frames.free(pfn)

    def free(self) -> None:
        """Free the PGD and every table of the user half; the pages themselves must be gone already."""
        self.free_tables(list(self._tables))
