"""Address translation: TLBs, page walk and rights put together (native).

The lecture's `Translate(V)`, with two levels of TLB::

    L1 ITLB or L1 DTLB --miss--> STLB --miss--> page walk --> fill STLB and L1
             |                                      |
             +---------- rights (SDM 4.6) ----------+--> page fault (SDM 4.7)

A page fault also drops what the TLBs hold for the address (SDM 4.10.4.1), so that an operating system need not flush
after it has added rights. A first write through an entry whose D is clear makes the processor walk again to set D in
the page table: a *dirty assist*.
"""

from __future__ import annotations

from typing import Any, Final

from .native import native
from .pte import IMPLICIT, Access, Pte
from .recorder import hit, is_recorded, record, record_walk
from .records import entry_at, notify
from .soft_tlb import drop_range, flush_soft_tlb
from .state import Event, Fault, TlbKind
from .tlb import find, find_in, insert, leaf_shift, use
from .walk import ERROR_P, FETCH, KIND, WRITE, is_canonical, permitted, refuse, walk

__all__ = ["drop", "forget", "look_up", "translate"]

ITLB: Final = int(TlbKind.ITLB)
DTLB: Final = int(TlbKind.DTLB)
STLB: Final = int(TlbKind.STLB)
P: Final = int(Pte.P)
D: Final = int(Pte.D)
READ: Final = int(Access.READ)
NOT_CANONICAL: Final = int(Fault.NOT_CANONICAL)
TLB_MISS: Final = int(Event.TLB_MISS)
PAGE_WALK: Final = int(Event.PAGE_WALK)


@native
def forget(s: Any, kind: Any, va: Any, shift: Any) -> None:
    """A page left a first-level TLB: keep Unicorn's soft-TLB a subset."""
    if kind == ITLB:
        s.fetch_page &= ~0xFFF  # no longer known: the next block looks it up
        flush_soft_tlb(s)
    elif kind == DTLB:
        drop_range(s, va, shift)


@native
def _array_for(s: Any, kind: Any, shift: Any) -> Any:
    """The array of a kind for pages of `1 << shift` bytes, else the one for the next smaller size: (number, shift)."""
    while shift >= 12:
        for number in range(s.array_count):
            array = s.arrays[number]
            if array.kind == kind and (array.shifts >> shift) & 1:
                return number, shift
        shift -= 9
    return -1, shift


@native
def _smash(leaf: Any, va: Any, shift: Any) -> Any:
    """The piece of `1 << shift` bytes around `va` of a larger page's leaf."""
    whole = (1 << leaf_shift(leaf)) - 1
    piece = va & whole & ~((1 << shift) - 1)
    return (leaf & ~(3 << 9)) | piece | (((shift - 12) // 9) << 9)


@native
def _fill(s: Any, kind: Any, va: Any, leaf: Any) -> None:
    """Put a leaf into the TLB of one kind, smashed if it has no entries of that size."""
    number, shift = _array_for(s, kind, leaf_shift(leaf))
    if number < 0:
        return
    if shift != leaf_shift(leaf):
        leaf = _smash(leaf, va, shift)
    evicted = insert(s, s.arrays[number], va, shift, leaf)
    if evicted:
        s.evictions[kind] += 1
        forget(s, kind, s.evicted_tag & ~0xFFF, leaf_shift(evicted))


@native
def drop(s: Any, va: Any) -> None:
    """Drop what the TLBs and paging-structure caches of the current PCID hold for one address."""
    for number in range(s.array_count):
        array = s.arrays[number]
        for shift in range(12, 49, 9):
            if (array.shifts >> shift) & 1:
                index = find_in(array, va, shift, s.pcid)
                if index >= 0:
                    entry_at(array.entries, index).leaf = 0
                    forget(s, array.kind, va, shift)


@native
def _walk(s: Any, va: Any, access: Any) -> Any:
    leaf = walk(s, va, access)
    if (s.listeners >> PAGE_WALK) & 1:
        notify(s, PAGE_WALK, va, access, leaf)
    if is_recorded(s, PAGE_WALK):
        record_walk(s, va, access, leaf)
    return leaf


@native
def _second_level(s: Any, va: Any, access: Any) -> Any:
    """STLB, else a walk that fills it. Returns a leaf, or 0 with the fault recorded."""
    number, index = find(s, STLB, va)
    if number >= 0:
        array = s.arrays[number]
        use(s, array, index)
        hit(s, va, access, STLB)
        return entry_at(array.entries, index).leaf
    s.misses[STLB] += 1
    leaf = _walk(s, va, access)
    if leaf:
        _fill(s, STLB, va, leaf)
    return leaf


@native
def _lookup(s: Any, kind: Any, va: Any, access: Any) -> Any:
    """First-level TLB, then the rest. Returns a permitted leaf, or 0 with the fault recorded."""
    number, index = find(s, kind, va)
    if number >= 0:
        array = s.arrays[number]
        use(s, array, index)
        leaf = entry_at(array.entries, index).leaf
        if not s.is_unicorns:
            hit(s, va, access, kind)
        return leaf if permitted(s, leaf, access) else refuse(s, access, ERROR_P)
    s.misses[kind] += 1
    if (s.listeners >> TLB_MISS) & 1:
        notify(s, TLB_MISS, va, access, kind)
    if is_recorded(s, TLB_MISS):
        record(s, TLB_MISS, va, kind, 0 if access & IMPLICIT else s.cpl, access & KIND)
    leaf = _second_level(s, va, access)
    if not leaf:
        return 0
    if not permitted(s, leaf, access):
        return refuse(s, access, ERROR_P)
    _fill(s, kind, va, leaf)
    return leaf


@native
def _assist(s: Any, va: Any, access: Any) -> Any:
    """Set D in the page table on behalf of a TLB entry that is clean, and renew the entry."""
    s.dirty_assists += 1
    drop(s, va)
    leaf = _walk(s, va, access)
    if leaf:
        _fill(s, STLB, va, leaf)
        _fill(s, DTLB, va, leaf)
    return leaf


@native
def look_up(s: Any, va: Any, access: Any) -> Any:
    """Translate what never faults: a data access whose refusal drops nothing. A leaf, or 0."""
    s.fault = 0
    if not is_canonical(s, va):
        return 0
    return _walk(s, va, access) if s.no_tlb else _lookup(s, DTLB, va, access)


@native
def translate(s: Any, va: Any, access: Any) -> Any:
    """Translate one access (`Access`, or'ed with IMPLICIT): a leaf, or 0 with `s.fault` and `s.fault_code` set."""
    s.fault = 0
    if not is_canonical(s, va):
        s.fault = NOT_CANONICAL
        return 0
    if s.no_tlb:
        return _walk(s, va, access)
    leaf = _lookup(s, ITLB if access & KIND == FETCH else DTLB, va, access)
    if leaf and access & KIND == WRITE and not leaf & D:
        leaf = _assist(s, va, access)
    if not leaf and not s.in_window:
        drop(s, va)
    return leaf
