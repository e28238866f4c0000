"""Page-table isolation: user mode runs on page tables that know next to nothing of the kernel (arch/x86/mm/pti.c).

Every process has two PGDs in one 8 KiB pair. The kernel's has everything. The user's, one page above, has the user
half and a *trampoline*, what the processor and the entry code need before CR3 is switched:

    cpu_entry_area      IDT, GDT, TSS, the entry stack, the exception stacks
    entry text          the code up to SWITCH_TO_KERNEL_CR3, and from SWITCH_TO_USER_CR3 on
    the per-CPU TSS     where SYSCALL's entry code puts the user's RSP

Nothing else of the kernel is there, so there is nothing that a Meltdown could read. The price is a CR3 write on every
way in and out, and that kernel pages are not global any more: without PCIDs each of those writes forgets them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from emu.pte import ADDRESS_MASK, INDEX_MASK, PAGE_SHIFT, Pte

from .entry import KernelText
from .layout import CPU_ENTRY_AREA
from .page_table import KERNEL_HALF, PageTable

if TYPE_CHECKING:
    from .address_space import AddressSpace

__all__ = ["inconsistencies", "kernel_flags", "map_trampoline"]

G, NX = int(Pte.G), int(Pte.NX)
DATA: Final = int(Pte.P | Pte.W | Pte.A | Pte.D | Pte.NX)
PGD_SHIFT: Final = 39


def kernel_flags(page_table: PageTable) -> int:
    """Flags of the kernel's own data pages: global, unless they must not survive the way to user mode."""
    return DATA if page_table.isolated else DATA | G


def map_trampoline(page_table: PageTable, text: KernelText, percpu: int) -> None:
    """Put into the user's PGD of the first process what all others inherit (pti_init)."""
    _share_pgd_entry(page_table, CPU_ENTRY_AREA)
    for va in text.entry:
        _clone_page(page_table, va)
    _clone_page(page_table, percpu)


def _share_pgd_entry(page_table: PageTable, va: int) -> None:
    """All that one PGD entry covers is seen by both (pti_clone_p4d)."""
    offset = 8 * (va >> PGD_SHIFT & INDEX_MASK)
    page_table.memory.store64(page_table.user_pgd + offset, page_table.memory.load64(page_table.pgd + offset))


def _clone_page(page_table: PageTable, va: int) -> None:
    """Map one page in the user's PGD as it is in the kernel's, through tables of its own (pti_clone_pgtable)."""
    place, level = page_table.find(va)
    entry = page_table.memory.load64(place)
    if level > 1:  # the direct map has large pages: take the piece
        piece = va >> PAGE_SHIFT & INDEX_MASK
        entry = (entry & ADDRESS_MASK) + (piece << PAGE_SHIFT) | DATA
    page_table.install_in_user_pgd(va, entry)


# --- checking -------------------------------------------------------------------------------------------------------


def inconsistencies(mm: AddressSpace) -> Iterator[str]:
    """Where the two PGDs of an address space do not say the same; nothing, if the kernel is right.

    In the user half the entries are equal, but that the kernel's forbid execution. In the kernel half the user's PGD
    has what that of the first process had.
    """
    table, memory = mm.page_table, mm.manager.early
    if not table.isolated:
        return
    for index in range(KERNEL_HALF):
        mine, users = memory.load64(table.pgd + 8 * index), memory.load64(table.user_pgd + 8 * index)
        if (mine | NX | int(Pte.A)) != (users | NX | int(Pte.A)) and (mine or users):
            yield f"PGD entry {index}: the kernel's is {mine:#x}, the user's {users:#x}"
        if mine and not mine & NX:
            yield f"PGD entry {index} lets the kernel execute user code"
    parent = mm.manager.kernel_half
    for index in range(KERNEL_HALF, INDEX_MASK + 1):
        mine, inherited = memory.load64(table.user_pgd + 8 * index), memory.load64(parent.user_pgd + 8 * index)
        if mine & ADDRESS_MASK != inherited & ADDRESS_MASK:
            yield f"PGD entry {index} of the user's: {mine:#x} instead of {inherited:#x}"
