"""Kernel functions as kernel text: what Linux's C takes, where Python does its work.

Python takes none of the model's time, and is fetched by nobody. So a function in which Linux spends time is declared,
with the cycles of its instructions, and *entered* when Python does what it does:

    COPY_PROCESS = kernel_work("copy_process", __name__, cycles=15_000)
    memory.enter(COPY_PROCESS)

Then the first instruction is fetched from its place in kernel text, through the ITLB, and the cycles go to the cause
`kernel_work`. Memory that it touches is not part of them: its loads and stores are made, through the DTLB. Functions
that are declared in one file of ours lie on one page of text, as those of one object file do.

Cycles are for what the function does by itself. None of them knows whether there is page-table isolation. Where they
come from is said beside each: most were measured under Linux 6.18 (`python -m benchmarks.calls`), and that another
processor takes as many is an assumption. docs/footprint.md has all of them.

>>> work = kernel_work("cut_the_grass", "kernel.garden", cycles=100, each=10)
>>> work.price(3)
130
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.pte import PAGE_SIZE

from .layout import KERNEL_TEXT

__all__ = ["Work", "all_work", "kernel_work", "work_pages"]

WORK_OFFSET: Final = 0x20_0000
"""Where their pages begin in kernel text."""
SPACING: Final = 32
"""Bytes from one entry point to the next; any number will do."""


@dataclass(frozen=True, slots=True)
class Work:
    """A function: its name in Linux, its address, and its cycles, with so many more for `each` page or entry."""

    name: str
    va: int
    cycles: int
    each: int

    def price(self, times: int = 1) -> int:
        """Cycles of one call that handles so many pages."""
        return self.cycles + times * self.each


_WORK: dict[str, Work] = {}
_FILES: dict[str, int] = {}
"""For each file of ours how many functions it declared; its place is the number of its page."""


def kernel_work(name: str, module: str, *, cycles: int = 0, each: int = 0) -> Work:
    """Declare a function, with the `__name__` of the module that does its work."""
    number = _FILES.get(module, 0)
    _FILES[module] = number + 1
    page = KERNEL_TEXT + WORK_OFFSET + list(_FILES).index(module) * PAGE_SIZE
    work = _WORK[name] = Work(name, page + number * SPACING, cycles, each)
    return work


def all_work() -> tuple[Work, ...]:
    """Every function that was declared."""
    return tuple(_WORK.values())


def work_pages() -> tuple[int, ...]:
    """Addresses of the pages of text that they lie on."""
    return tuple(dict.fromkeys(work.va & -PAGE_SIZE for work in _WORK.values()))
