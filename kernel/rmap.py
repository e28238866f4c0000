"""The bits of all entries that map one frame, found through the reverse mapping (mm/rmap.c).

A and D are set by the processor when it walks to an entry, not when it finds the translation in the TLB. So whoever
clears one of them makes the TLB forget the page, or the next use leaves no trace. (Linux on x86 saves that flush for A
and lives with reference bits that come late: ptep_clear_flush_young in arch/x86/mm/pgtable.c. Here it can be left out,
too: `kernel.manager.tlb.skip.add("young")`.)
"""

from __future__ import annotations

from collections.abc import Iterator

from emu.pte import PAGE_SIZE, Pte

from .address_space import AddressSpace
from .compound import Mapping
from .pte import pfn_of
from .vma import VmaFlag

__all__ = ["clean", "is_dirty", "is_locked", "referenced", "replace_entries", "take_used"]

A, D = int(Pte.A), int(Pte.D)
Mappings = tuple[Mapping, ...]


def _entries(mappings: Mappings) -> Iterator[tuple[Mapping, int, int]]:
    """(who maps, physical address of the entry, the entry)."""
    for mm, va in mappings:
        pte, _ = mm.page_table.find(va)
        yield (mm, va), pte, mm.manager.memory.load64(pte)


def _take(mappings: Mappings, bit: int, why: str) -> bool:
    """Clear a bit in all entries; whether it was set in one of them."""
    found = False
    for (mm, va), pte, entry in _entries(mappings):
        if entry & bit:
            found = True
            mm.manager.memory.store64(pte, entry & ~bit)
            size = mm.manager.huge.size_of(entry)
            mm.manager.tlb.flush(mm, va, va + size, why, size=size)
    return found


def referenced(mappings: Mappings) -> bool:
    """Whether somebody used the page since this was asked last (folio_referenced)."""
    return _take(mappings, A, "young")


def take_used(mm: AddressSpace) -> list[int]:
    """Frames of an address space that were used since this was asked last.

    Its page tables are read from end to end, which costs less than to find the entries of each frame (walk_mm of the
    multi-generational LRU).
    """
    memory, pgd = mm.manager.memory, mm.page_table.pgd
    found = [leaf for vma in mm.vmas for leaf in memory.clear_bit(pgd, vma.start, vma.end, A)]
    mm.manager.tlb.flush_pages(mm, [va for va, _ in found], "young")
    return [pfn_of(entry) for _, entry in found]


def clean(mappings: Mappings) -> bool:
    """Whether somebody wrote to the page since this was asked last (folio_mkclean)."""
    return _take(mappings, D, "clean")


def is_dirty(mappings: Mappings) -> bool:
    """Whether an entry says that the page was written."""
    return any(entry & D for _, _, entry in _entries(mappings))


def is_locked(mappings: Mappings) -> bool:
    """Whether somebody locked the page in memory (VM_LOCKED)."""
    vmas = (mm.vmas.find(va) for mm, va in mappings)
    return any(vma is not None and vma.flags & VmaFlag.LOCKED for vma in vmas)


def replace_entries(mappings: Mappings, pfn: int, entry: int) -> None:
    """Put another entry in place of all that map a frame: entries first, then the TLB, then the references go
    (try_to_unmap).
    """
    for mm, va in mappings:
        mm.manager.memory.store64(mm.page_table.find(va)[0], entry)
        mm.manager.tlb.flush(mm, va, va + PAGE_SIZE, "reclaim")
    for mm, va in mappings:
        mm.manager.pages.unmap(pfn, mm, va)
