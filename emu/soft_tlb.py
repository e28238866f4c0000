"""Unicorn's own TLB, kept a subset of the modelled first-level TLBs (native).

Unicorn translates by itself whatever its soft-TLB holds, without asking us. If that is always a subset of what our
L1 ITLB and DTLB hold, then every access it translates alone is a certain hit, and the model runs only where
it may miss. So whenever an entry leaves a first-level TLB, the same page must leave the soft-TLB.

Unicorn's interface can only flush everything. That is what happens for code (chained blocks depend on it); one data
page is dropped by marking its soft-TLB entry as unused, which is also safe inside a memory hook.
Layout (QEMU 5, `CPUTLBEntry` in exec/cpu-defs.h, as checked at start by `softcore.py`)::

    {mask, table} --> 64-byte entries: addr_read, addr_write, addr_code, paddr, addend
"""

from __future__ import annotations

from typing import Any, Final

from .native import call, native, words
from .state import FLUSH_COMMAND

__all__ = ["drop_page", "drop_range", "flush_soft_tlb"]

ENTRY_SHIFT: Final = 6
VICTIMS: Final = 8
UNUSED: Final = -1


@native
def flush_soft_tlb(s: Any) -> None:
    """Forget every translation that Unicorn keeps. Not allowed inside a memory hook."""
    s.soft_flushes += 1
    s.fast_page = 0
    call(s.uc_ctl, (s.uc, FLUSH_COMMAND))


@native
def _drop_entry(address: Any, page: Any) -> Any:
    """Mark one soft-TLB entry as unused if it belongs to `page` (a page number); says whether it did."""
    entry = words(address)
    found = False
    for kind in range(3):
        if entry[kind] != UNUSED and entry[kind] >> 12 == page:
            found = True
    if found:
        entry[0] = UNUSED
        entry[1] = UNUSED
        entry[2] = UNUSED
    return found


@native
def drop_page(s: Any, va: Any) -> None:
    """Drop the soft-TLB's entry of one 4 KiB data page."""
    page = va >> 12
    mask = words(s.soft_tlb)[0]
    table = words(s.soft_tlb)[1]
    if _drop_entry(table + ((page << ENTRY_SHIFT) & mask), page):
        words(s.soft_used)[0] -= 1
    for victim in range(VICTIMS):
        _drop_entry(s.soft_victims + (victim << ENTRY_SHIFT), page)


@native
def _drop_covered(address: Any, va: Any, shift: Any) -> Any:
    entry = words(address)
    for kind in range(3):
        if entry[kind] != UNUSED and (entry[kind] ^ va) >> shift == 0:
            return _drop_entry(address, entry[kind] >> 12)
    return False


@native
def drop_range(s: Any, va: Any, shift: Any) -> None:
    """Drop every 4 KiB piece of a data page of `1 << shift` bytes."""
    if shift == 12:
        drop_page(s, va)
        return
    table = words(s.soft_tlb)[1]
    for number in range((words(s.soft_tlb)[0] >> ENTRY_SHIFT) + 1):
        if _drop_covered(table + (number << ENTRY_SHIFT), va, shift):
            words(s.soft_used)[0] -= 1
    for victim in range(VICTIMS):
        _drop_covered(s.soft_victims + (victim << ENTRY_SHIFT), va, shift)
