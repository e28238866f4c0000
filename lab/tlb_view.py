"""What `cr3 tlb` shows: every translation that the TLBs hold, whose it is, and what it allows."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emu import Pte
from emu.state import TlbKind
from emu.tlb_contents import KIND_NAMES, Translation
from kernel import Kernel, Process

from .maps_view import region

__all__ = ["as_dict", "render"]

WIDEST: Final = 500
"""Columns that no table needs."""


def capacity(kernel: Kernel, kind: TlbKind) -> int:
    """How many translations the arrays of one kind have room for."""
    state = kernel.machine.state
    return sum(array.sets * array.ways for array in state.arrays[: state.array_count] if array.kind == kind)


def owner(kernel: Kernel, held: Translation) -> Process | None:
    """The process whose PCID an entry carries, None if it is nobody's."""
    context = kernel.manager.tlb.owner(held.pcid)
    return next((process for process in kernel.processes if process.mm.context_id == context), None)


def what(kernel: Kernel, held: Translation) -> str:
    """What lies at the address: a part of the kernel half, or a VMA of the process whose PCID it is."""
    if held.va >> 63:
        return region(held.va).partition(":")[0]
    process = owner(kernel, held)
    vma = process.mm.vmas.find(held.va) if process is not None else None
    if process is None or vma is None:
        return ""
    return f"pid {process.pid}: {process.mm.name_of(vma) or 'anonymous'}"


def as_dict(kernel: Kernel, process: Process, when: str) -> dict[str, Any]:
    """What `cr3 tlb --json` prints: for each TLB its size and what it holds."""
    contents = kernel.machine.mmu.contents()
    return {
        "schema": "cr3.tlb/1",
        "program": process.image.path,
        "pid": process.pid,
        "moment": when,
        "tlbs": [
            {
                "kind": kind.name.lower(),
                "entries": capacity(kernel, kind),
                "held": [_entry(kernel, held) for held in contents.of(kind)],
            }
            for kind in KIND_NAMES
        ],
    }


def _entry(kernel: Kernel, held: Translation) -> dict[str, Any]:
    return {
        "va": held.va,
        "pa": held.pa,
        "page_size": held.page_size,
        "pcid": held.pcid,
        "user": Pte.U in held.flags,
        "writable": Pte.W in held.flags,
        "executable": Pte.NX not in held.flags,
        "dirty": Pte.D in held.flags,
        "global": held.is_global,
        "what": what(kernel, held),
    }


def render(kernel: Kernel, console: Console) -> None:
    """Print a table for each TLB that holds anything."""
    console.width = WIDEST
    contents = kernel.machine.mmu.contents()
    for kind, name in KIND_NAMES.items():
        held = contents.of(kind)
        console.print(Text(f"{name}: {len(held):,} of {capacity(kernel, kind):,} entries", style="bold"))
        if held:
            console.print(_table(kernel, held))
        console.print()
    console.print(
        "Rights: u user mode, k the kernel only; r read, w write, x execute. A global entry serves every PCID."
    )


def _table(kernel: Kernel, rows: list[Translation]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("address", "to", "size", "PCID", "rights", "global", "what"):
        table.add_column(column, justify="right" if column in ("size", "PCID") else "left", no_wrap=True)
    for held in rows:
        marks = (str(held.pcid), held.rights, "global" if held.is_global else "")
        table.add_row(f"{held.va:016x}", f"{held.pa:#x}", held.size, *marks, Text(what(kernel, held)))
    return table
