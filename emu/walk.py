"""The page walker (native): from CR3 down to a leaf, as Intel SDM Vol. 3A 4.5 draws it.

    CR3 --> PML4 table --> page-directory-pointer table --> page directory --> page table --> page
            va[47:39]      va[38:30]                        va[29:21]          va[20:12]     va[11:0]

Every level costs one read of an 8-byte entry in guest RAM. The walker sets A in what it uses and D in a leaf
that is written (4.8), combines the rights of all levels (4.6: W and U must be set in every entry, NX in none) and
remembers upper levels in the paging-structure caches, so that the next walk nearby reads fewer entries.

This is the only walker. `--tlb none` calls it for every access; that gives the lecture's count of
four entry reads an access.
"""

from __future__ import annotations

from typing import Any, Final

from .cache import cache_access
from .cache_state import CacheUse
from .native import native, words
from .pte import ADDRESS_MASK, ANY_RIGHTS, IMPLICIT, Access, ErrorCode, Pte
from .state import Fault, TlbKind
from .tlb import find_in, insert, use

__all__ = ["is_canonical", "permitted", "refuse", "terminal_fault", "walk"]

P: Final = int(Pte.P)
W: Final = int(Pte.W)
U: Final = int(Pte.U)
A: Final = int(Pte.A)
D: Final = int(Pte.D)
PS: Final = int(Pte.PS)
G: Final = int(Pte.G)
NX: Final = -(1 << 63)
"""Bit 63 of an entry, as a signed number."""

WRITE: Final = int(Access.WRITE)
FETCH: Final = int(Access.FETCH)
KIND: Final = 3
WALK: Final = int(CacheUse.WALK)
TABLE: Final = ADDRESS_MASK
PAGING_STRUCTURE: Final = int(TlbKind.PAGING_STRUCTURE)
PAGE_FAULT: Final = int(Fault.PAGE)
BAD_PHYSICAL: Final = int(Fault.BAD_PHYSICAL)
ASSIST: Final = int(Fault.ASSIST)
ERROR_P: Final = int(ErrorCode.P)
ERROR_RSVD: Final = int(ErrorCode.RSVD)
ERROR_I: Final = int(ErrorCode.I)


@native
def is_canonical(s: Any, va: Any) -> Any:
    """Bits 63:47 (63:56 with five levels) are all equal (SDM Vol. 1 3.3.7.1)."""
    unused = 64 - (12 + 9 * s.levels)
    return (va << unused) >> unused == va


@native
def _is_user(s: Any, access: Any) -> Any:
    return s.cpl == 3 and not access & IMPLICIT


@native
def refuse(s: Any, access: Any, reason: Any) -> Any:
    """Record a page fault with the error code of SDM 4.7; `reason` holds its P and RSVD bits. Returns no leaf."""
    code = reason
    if access & KIND == WRITE:
        code |= 2
    if _is_user(s, access):
        code |= 4
    if access & KIND == FETCH and (s.nxe or s.smep):
        code |= ERROR_I
    s.fault = PAGE_FAULT
    s.fault_code = code
    return 0


@native
def permitted(s: Any, leaf: Any, access: Any) -> Any:
    """Whether the rights of all levels together allow the access (SDM 4.6.1)."""
    if access & ANY_RIGHTS:
        return True
    kind = access & KIND
    if _is_user(s, access):
        if not leaf & U:
            return False
        if kind == FETCH:
            return leaf & NX == 0
        return kind != WRITE or leaf & W != 0
    if kind == FETCH:
        return leaf & NX == 0 and not (s.smep and leaf & U)
    if s.smap and leaf & U and (access & IMPLICIT or not s.alignment_check):
        return False
    return kind != WRITE or leaf & W != 0 or not s.write_protect


@native
def _counter(s: Any, access: Any) -> Any:
    """Which of the four counters an access belongs to: user fetch, user data, kernel fetch, kernel data."""
    return (0 if _is_user(s, access) else 2) + (0 if access & KIND == FETCH else 1)


@native
def _read_entry(s: Any, pa: Any, access: Any) -> Any:
    """One entry from guest RAM; where there is no RAM the bus floats high."""
    s.entry_reads[_counter(s, access)] += 1
    entry = words(s.ram)[pa >> 3] if pa < s.ram_size else -1
    if s.caches:
        s.walk_cycles += cache_access(s, pa, WALK)
    s.walk_addresses[s.walk_depth] = pa
    s.walk_entries[s.walk_depth] = entry
    s.walk_depth += 1
    return entry


@native
def _set_flag(s: Any, pa: Any, entry: Any, flags: Any) -> Any:
    """Set A (and D) in an entry of guest RAM, as the processor does with a locked access.

    That takes a microcode assist, which waits for the instruction to retire; False in a transient window, where none
    ever will.
    """
    if entry & flags != flags and pa < s.ram_size:
        if s.in_window:
            s.fault = ASSIST
            return False
        s.accessed_assists += 1
        words(s.ram)[pa >> 3] = entry | flags
    return True


@native
def _is_leaf(s: Any, entry: Any, shift: Any) -> Any:
    return shift == 12 or (entry & PS != 0 and (shift == 21 or (shift == 30 and s.page1g != 0)))


@native
def _reserved(s: Any, entry: Any, shift: Any) -> Any:
    """The reserved bits that are set (SDM Tables 4-15 to 4-20)."""
    bits = entry & s.physical_mask
    if not s.nxe:
        bits |= entry & NX
    if _is_leaf(s, entry, shift):
        bits |= entry & ((1 << shift) - 1) & ~0x1FFF
        return bits
    return bits | (entry & PS if shift > 12 else 0)


@native
def _first_table(s: Any, va: Any) -> Any:
    """Where the walk starts: (table, rights so far, shift of its entries), from the deepest cache that knows."""
    shift = 21
    while shift < 12 + 9 * s.levels:
        for number in range(s.array_count):
            array = s.arrays[number]
            if array.kind == PAGING_STRUCTURE and (array.shifts >> shift) & 1:
                index = find_in(array, va, shift, s.pcid)
                if index >= 0:
                    use(s, array, index)
                    return _cached_table(array, index), shift - 9
        shift += 9
    return s.cr3 | P | W | U, 3 + 9 * s.levels


@native
def _cached_table(array: Any, index: Any) -> Any:
    return words(array.entries)[3 * index + 1]


@native
def _remember_table(s: Any, va: Any, shift: Any, table: Any) -> None:
    """Put the entry of an upper level, with the rights so far, into its paging-structure cache."""
    for number in range(s.array_count):
        array = s.arrays[number]
        if array.kind == PAGING_STRUCTURE and (array.shifts >> shift) & 1:
            insert(s, array, va, shift, table)


@native
def _make_leaf(s: Any, entry: Any, rights: Any, shift: Any, written: Any) -> Any:
    """A TLB entry: address, combined rights, D and G of the leaf, and the size of the page."""
    size = (shift - 12) // 9
    address = entry & TABLE & ~((1 << shift) - 1)
    dirty = D if written else entry & D
    is_global = entry & G if s.globals_enabled else 0
    return address | P | rights | dirty | is_global | (size << 9) | (size << 52)


@native
def walk(s: Any, va: Any, access: Any) -> Any:
    """Walk the page tables for one access. Returns a leaf with the combined rights, or 0 with the fault recorded."""
    s.walks_by[_counter(s, access)] += 1
    s.walk_depth = 0
    table, shift = _first_table(s, va)
    rights = table & (W | U | NX)
    while True:
        pa = (table & TABLE) + (((va >> shift) & 511) << 3)
        s.walk_shift = shift
        entry = _read_entry(s, pa, access)
        if not entry & P:
            return refuse(s, access, 0)
        if _reserved(s, entry, shift):
            return refuse(s, access, ERROR_P | ERROR_RSVD)
        rights = (rights & entry & (W | U)) | ((rights | entry) & NX)
        if _is_leaf(s, entry, shift):
            break
        if not _set_flag(s, pa, entry, A):
            return 0
        table = (entry & TABLE) | P | rights
        _remember_table(s, va, shift, table)
        shift -= 9
    if not permitted(s, rights, access):
        return refuse(s, access, ERROR_P)
    written = access & KIND == WRITE
    if not _set_flag(s, pa, entry, A | D if written else A):
        return 0
    return _make_leaf(s, entry, rights, shift, written)


@native
def terminal_fault(s: Any, va: Any) -> Any:
    """Where the entry that the last walk of `va` ended at would lead, were it a present leaf; -1 if it cannot be one.

    An entry with P clear (or a reserved bit set) is the operating system's, and its address bits may be anything.
    """
    entry, shift = s.walk_entries[s.walk_depth - 1], s.walk_shift
    if not _is_leaf(s, entry, shift):
        return -1
    offset = (1 << shift) - 1
    return (entry & TABLE & ~offset) | (va & offset)
