"""What `cr3 maps` shows: the VMAs of a process, the state of their pages, and what the kernel half maps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emu.pte import PAGE_SIZE
from kernel import Kernel, Process
from kernel.layout import CPU_ENTRY_AREA, DIRECT_MAP, KERNEL_TEXT, VMALLOC, VMEMMAP
from kernel.pagewalk import mapped_ranges
from kernel.vma import Vma

from .page_states import NOT_THERE, STATES, PageReader, PageStates

__all__ = ["as_dict", "kernel_table", "page_map", "region", "vma_rows", "vma_table"]


RESIDENT: Final = "fspch"
ROW: Final = 64
"""Pages in a line of the page map."""
WIDEST: Final = 500
"""Columns that no table needs."""
REGIONS: Final = (
    (DIRECT_MAP, "direct map: all RAM"),
    (VMALLOC, "vmalloc: kernel stacks"),
    (VMEMMAP, "vmemmap: a struct page for every frame"),
    (CPU_ENTRY_AREA, "cpu_entry_area: IDT, GDT, TSS, stacks"),
    (KERNEL_TEXT, "kernel text"),
)


# --- the VMAs ---------------------------------------------------------------------------------------------------------


def row_of(process: Process, vma: Vma, pages: PageStates) -> dict[str, Any]:
    """A VMA with its pages counted."""
    there = list(pages.within(vma.start, vma.end).values())
    return {
        **{"start": vma.start, "end": vma.end, "rights": vma.rights, "name": process.mm.name_of(vma)},
        **{"pages": vma.pages, "resident": sum(map(there.count, RESIDENT))},
        **{state.name: there.count(letter) for letter, state in STATES.items() if letter != NOT_THERE},
    }


def vma_rows(kernel: Kernel, process: Process) -> list[dict[str, Any]]:
    """All VMAs of a process with their pages counted."""
    pages = PageReader(kernel).states(process.mm)
    return [row_of(process, vma, pages) for vma in process.mm.vmas]


def as_dict(kernel: Kernel, process: Process, when: str) -> dict[str, Any]:
    """What `cr3 maps --json` writes: addresses and counts of pages."""
    table = process.mm.page_table
    return {
        "schema": "cr3.maps/1",
        "program": process.image.path,
        "pid": process.pid,
        "moment": when,
        "vmas": vma_rows(kernel, process),
        "kernel": {
            name: [{"start": start, "end": end} for start, end in mapped_ranges(kernel, pgd)]
            for name, pgd in (("kernel_pgd", table.pgd), ("user_pgd", table.user_pgd))
        },
    }


def vma_table(kernel: Kernel, process: Process, console: Console) -> None:
    """The VMAs as a table. All numbers count pages of 4 KiB."""
    rows = vma_rows(kernel, process)
    counts = [name for name in rows[0] if name not in ("start", "end", "rights", "name")] if rows else []
    table = _table("address", "rights", *counts, "name", right=counts)
    for row in rows:
        numbers = [str(row[name] or "-") for name in counts]
        table.add_row(f"{row['start']:08x}-{row['end']:08x}", row["rights"], *numbers, Text(row["name"]))
    totals = (str(sum(row[name] for row in rows) or "-") for name in counts)
    table.add_row("all together", "", *totals, "", style="bold")
    _print(console, table)


# --- the pages --------------------------------------------------------------------------------------------------------


def page_map(kernel: Kernel, process: Process, console: Console) -> None:
    """Every page as a character, and what the characters mean."""
    used, pages = {NOT_THERE}, PageReader(kernel).states(process.mm)
    for vma in process.mm.vmas:
        there = pages.within(vma.start, vma.end)
        used |= set(there.values())
        title = f"{vma.start:08x}-{vma.end:08x} {vma.rights} {process.mm.name_of(vma)}"
        console.print(Text(title.rstrip(), style="bold"), soft_wrap=True)
        for line in _map_lines(vma, there):
            console.print(line, soft_wrap=True)
    console.print()
    for letter, state in STATES.items():
        if letter in used:
            console.print(Text.assemble((letter, state.colour), f"  {state.meaning}"), soft_wrap=True)


def _map_lines(vma: Vma, there: dict[int, str]) -> Iterator[Text]:
    """Lines of 64 pages; where nothing is there for several lines, one line says so."""
    rows = range(0, vma.pages, ROW)
    full = {row for row in rows if any(page in there for page in range(row, min(row + ROW, vma.pages)))}
    skipped = 0
    for row in rows:
        if row not in full and vma.pages > ROW:
            skipped += min(ROW, vma.pages - row)
            continue
        yield from _skipped(skipped)
        skipped = 0
        letters = [there.get(page, NOT_THERE) for page in range(row, min(row + ROW, vma.pages))]
        line = Text(f"  {vma.start + row * PAGE_SIZE:012x}  ")
        for letter in letters:
            line.append(letter, STATES[letter].colour)
        yield line
    yield from _skipped(skipped)


def _skipped(pages: int) -> Iterator[Text]:
    if pages:
        yield Text(f"  {'...':12}  {pages:,} pages that are promised only", STATES[NOT_THERE].colour)


# --- the kernel half --------------------------------------------------------------------------------------------------


def kernel_table(kernel: Kernel, process: Process, console: Console) -> None:
    """What the kernel's PGD maps above the user half, and which parts of it the user's PGD maps, too."""
    table = _table("kernel addresses", "size", "what", "user mode's PGD", right=["size"])
    users = mapped_ranges(kernel, process.mm.page_table.user_pgd)
    for start, end, seen in _cut(mapped_ranges(kernel, process.mm.page_table.pgd), users):
        table.add_row(f"{start:016x}-{end:016x}", _size(end - start), region(start), "maps it" if seen else "-")
    _print(console, table)
    if not process.mm.page_table.isolated:
        console.print("\nWithout page-table isolation there is one PGD for both (--pti on makes two).")


def _cut(ranges: list[tuple[int, int]], users: list[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """The ranges, cut where the regions and those of the other PGD begin and end."""
    cuts = sorted({border for pair in users for border in pair} | {start for start, _ in REGIONS})
    for start, end in ranges:
        borders = [start, *(cut for cut in cuts if start < cut < end), end]
        for low, high in pairwise(borders):
            yield low, high, any(first <= low and high <= last for first, last in users)


def region(va: int) -> str:
    """What a part of the kernel half is for."""
    return next(name for start, name in reversed(REGIONS) if va >= start)


def _size(size: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if size >= 1 << shift and not size % (1 << shift):
            return f"{size >> shift} {unit}"
    return f"{size >> 10} KiB"


def _table(*columns: str, right: list[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def _print(console: Console, table: Table) -> None:
    """Print a table as wide as it is, also into a pipe: nothing is cut."""
    console.width = WIDEST
    console.print(table)
