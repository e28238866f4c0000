"""What the kernel writes into page-table entries beside what the hardware reads (arch/x86/include/asm/pgtable.h).

A present entry is the hardware's. One that is not present is all the kernel's own: where P is clear the processor
looks at no other bit. Linux keeps two kinds there:

    PROT_NONE      P=0, bit 8 set: the frame stays, no access is allowed (_PAGE_PROTNONE is the G bit)
    swap entry     P=0, bit 8 clear: where the page lies on a swap device

An entry of an upper level that has PS set maps a huge page, and leads to no table: the H bit of the lecture's
`walk_pmd`. It stays set where P is clear (PROT_NONE), and no other entry has it (pmd_trans_huge).

A swap entry has the number of the swap area in bits 59-63 and the place in it in bits 9-58 (asm/pgtable_64.h).
Both kinds store their number inverted (asm/pgtable-invert.h), so that the physical address in such an entry points to
no memory: a processor with L1TF would use it speculatively. Kernels before August 2018 did not (`naive`).

>>> entry = user_pte(0x1234, VmaFlag.READ | VmaFlag.WRITE, dirty=True)
>>> locked = with_rights(entry, 0)
>>> is_mapped(locked), locked & P, hex(pfn_of(locked))
(True, 0, '0x1234')
>>> with_rights(locked, VmaFlag.READ | VmaFlag.WRITE) == entry & ~W
True
>>> is_mapped(swap_entry(1, 0x1234)), swap_place(swap_entry(1, 0x1234)) == (1, 0x1234)
(False, True)
>>> is_huge(entry), is_huge(entry | PS), is_huge(with_rights(entry | PS, 0))
(False, True, True)
>>> locked >> 51 & 1, hex(naive(locked) & ADDRESS_MASK), pfn_of(naive(locked)) == pfn_of(locked)
(1, '0x1234000', True)
"""

from __future__ import annotations

from typing import Final

from emu.pte import ADDRESS_MASK, PAGE_SHIFT, Pte

from .vma import VmaFlag

__all__ = [
    "is_huge",
    "is_mapped",
    "is_special",
    "is_swap",
    "naive",
    "pfn_of",
    "swap_entry",
    "swap_place",
    "user_pte",
    "with_rights",
]

P, W, U, A, D, PS, NX = (int(flag) for flag in (Pte.P, Pte.W, Pte.U, Pte.A, Pte.D, Pte.PS, Pte.NX))
PROTNONE: Final = 1 << 8
SPECIAL: Final = 1 << 9
"""No struct page counts this mapping (_PAGE_SPECIAL): the zero page."""
MAPPED: Final = P | PROTNONE
INVERTED: Final = 1 << 51
"""The highest bit of a frame's address: no memory is there, so it is set only where the address is inverted."""
SWAP_TYPE_SHIFT: Final = 59
SWAP_OFFSET_SHIFT: Final = 9
SWAP_OFFSET_MASK: Final = (1 << SWAP_TYPE_SHIFT - SWAP_OFFSET_SHIFT) - 1
SWAP_EXCLUSIVE: Final = 1 << 3
"""The page was one process's alone when it went out (_PAGE_SWP_EXCLUSIVE, which is the PWT bit)."""
KEPT: Final = A | D | PS | SPECIAL
"""What an entry keeps when its rights change (_PAGE_CHG_MASK)."""


def user_pte(pfn: int, flags: int, *, writable: bool = False, dirty: bool = False) -> int:
    """A leaf for a user page with the rights of a VMA's flags (mk_pte with vm_page_prot).

    It is writable only where asked: a private page may be shared with others until it is copied.
    """
    entry = pfn << PAGE_SHIFT | A
    if dirty:
        entry |= D
        writable = writable or flags & VmaFlag.WRITE != 0
    return _protect(entry, flags, writable)


def _protect(entry: int, flags: int, writable: bool) -> int:
    """Give the frame and the history of an entry (A, D) the rights of a VMA."""
    if not flags & VmaFlag.RIGHTS:
        return entry ^ ADDRESS_MASK | PROTNONE | U
    entry |= P | U
    if writable:
        entry |= W
    return entry if flags & VmaFlag.EXEC else entry | NX


def with_rights(entry: int, flags: int, *, writable: bool = False) -> int:
    """The same mapping with other rights (pte_modify)."""
    return _protect(pfn_of(entry) << PAGE_SHIFT | entry & KEPT, flags, writable)


def naive(entry: int) -> int:
    """A PROT_NONE entry as it was before anybody knew of L1TF: with the address of its frame for all to see."""
    return entry ^ ADDRESS_MASK if not entry & P and entry & INVERTED else entry


def pfn_of(entry: int) -> int:
    """The frame of an entry that maps one (pte_pfn)."""
    if not entry & P and entry & INVERTED:
        entry ^= ADDRESS_MASK
    return (entry & ADDRESS_MASK) >> PAGE_SHIFT


def is_mapped(entry: int) -> bool:
    """Whether an entry holds a frame, even if it permits nothing (pte_present)."""
    return entry & MAPPED != 0


def is_special(entry: int) -> bool:
    """Whether the frame is one that nobody counts (pte_special)."""
    return entry & SPECIAL != 0


def is_huge(entry: int) -> bool:
    """Whether an entry of an upper level maps a huge page itself (pmd_leaf)."""
    return entry & PS != 0


def is_swap(entry: int) -> bool:
    """Whether an entry says where in swap the page lies (is_swap_pte)."""
    return entry != 0 and not entry & MAPPED


def swap_entry(area: int, offset: int) -> int:
    """The entry of a page that lies in a swap area (__swp_entry). It is never 0, nor present."""
    return area << SWAP_TYPE_SHIFT | (offset ^ SWAP_OFFSET_MASK) << SWAP_OFFSET_SHIFT


def swap_place(entry: int) -> tuple[int, int]:
    """Area and offset of a swap entry (__swp_type, __swp_offset)."""
    return entry >> SWAP_TYPE_SHIFT, (entry >> SWAP_OFFSET_SHIFT & SWAP_OFFSET_MASK) ^ SWAP_OFFSET_MASK
