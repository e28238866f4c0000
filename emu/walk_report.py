"""A page walk for people: the entries of one address, level by level, decoded.

It reads the same entries as the walker of the hardware (`walk.py`), but sets no flags, fills no TLB and counts nothing.

>>> from emu.ram import Ram
>>> ram = Ram(1 << 20)
>>> for table, index, entry in ((0x1000, 0, 0x2007), (0x2000, 6, 0x3007), (0x3000, 0, 0x4007), (0x4000, 1, 0x5067)):
...     ram.store64(table + 8 * index, entry)
>>> walk = page_walk(ram, cr3=0x1000, va=0x180001008)
>>> [step.index for step in walk.steps], walk.offset, hex(walk.pa or 0)
([0, 6, 0, 1], 8, '0x5008')
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .html import table
from .pte import ADDRESS_MASK, INDEX_MASK, Pte, describe_entry
from .ram import Ram

__all__ = ["LEVEL_NAMES", "PageWalkReport", "Step", "page_walk"]

LEVEL_NAMES: Final = ("PT", "PD", "PDPT", "PML4", "PML5")
"""Names of the tables, from the one whose entries map 4 KiB pages upwards (SDM Vol. 3A 4.5)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a walk: `level` counts from 1 (PT); `pa` is where the entry stands."""

    level: int
    index: int
    pa: int
    entry: int

    @property
    def name(self) -> str:
        """Name of the table that the entry is in."""
        return LEVEL_NAMES[self.level - 1]

    @property
    def decoded(self) -> str:
        """The entry in words."""
        return describe_entry(self.entry)


@dataclass(frozen=True, slots=True)
class PageWalkReport:
    """All entries of one address. `pa` is None where the walk ends in an entry that is not present."""

    va: int
    cr3: int
    steps: tuple[Step, ...]
    pa: int | None
    page_size: int

    @property
    def user(self) -> bool:
        """Whether user mode may access the page: every level has to permit it (SDM 4.6)."""
        return self.pa is not None and all(step.entry & Pte.U for step in self.steps)

    @property
    def writable(self) -> bool:
        """Whether every level permits writing."""
        return self.pa is not None and all(step.entry & Pte.W for step in self.steps)

    @property
    def executable(self) -> bool:
        """Whether no level forbids execution."""
        return self.pa is not None and not any(step.entry & Pte.NX for step in self.steps)

    def _repr_html_(self) -> str:
        """A table for notebooks: an entry a row, and where the walk led."""
        rows = [(step.name, step.index, f"{step.pa:#x}", f"{step.entry:#018x}", step.decoded) for step in self.steps]
        end = "a page fault" if self.pa is None else f"physical address {self.pa:#x}"
        return table(f"{self.va:#x}: {end}", ("table", "index", "entry at", "entry", "meaning"), rows)

    @property
    def offset(self) -> int:
        """Offset of the address in its page."""
        return self.va & (self.page_size - 1)


def page_walk(ram: Ram, cr3: int, va: int, levels: int = 4) -> PageWalkReport:
    """Walk the page tables at `cr3` for `va`, without any effect."""
    steps: list[Step] = []
    table = cr3 & ADDRESS_MASK
    for level in range(levels, 0, -1):
        shift = 3 + 9 * level
        index = (va >> shift) & INDEX_MASK
        pa = table + 8 * index
        entry = ram.load64(pa) if pa + 8 <= ram.size else 0
        steps.append(Step(level, index, pa, entry))
        size = 1 << shift
        if not entry & Pte.P:
            return PageWalkReport(va, cr3, tuple(steps), None, size)
        if level == 1 or (level in (2, 3) and entry & Pte.PS):
            frame = entry & ADDRESS_MASK & ~(size - 1)
            return PageWalkReport(va, cr3, tuple(steps), frame | (va & (size - 1)), size)
        table = entry & ADDRESS_MASK
    raise AssertionError("level 1 always ends a walk")
