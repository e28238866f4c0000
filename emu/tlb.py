"""Translation lookaside buffers: arrays that remember page walks (native).

A TLB maps (page, PCID) to a leaf with the rights of all levels combined (Intel SDM Vol. 3A 4.10.2). The hardware
fills it by itself and looks at nothing else as long as it hits, so a stale entry is *used*: an
operating system that changes a page table must say so with INVLPG, INVPCID or a write to CR3. The arrays
here are functional in that sense: what they hold is what the guest gets.

An entry's `tag` is the address of its page with the PCID in the low 12 bits. Its `leaf` looks like a
page-table leaf: P W U D G NX and the physical address, where

- bits 10:9 are the size of the entry and 53:52 the size of the page it was made from (0: 4 KiB, 1: 2 MiB, 2: 1 GiB);
  they differ where a part has no entries for 1 GiB pages and *smashes* them into smaller ones.

The same arrays, with longer tags, are the paging-structure caches (SDM 4.10.3): they remember where the next table
is, so that a walk starts near its end.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from .native import native, words
from .pte import Pte
from .records import entry_at
from .state import TlbKind

__all__ = ["Policy", "find", "find_in", "insert", "invalidate", "leaf_shift", "point_away", "pointed_at", "use"]


class Policy(IntEnum):
    """Which entry of a full set makes room. FIFO and random do not look at hits, so both engines can model them."""

    FIFO = 0
    RANDOM = 1
    LRU = 2
    PLRU = 3


FIFO: Final = int(Policy.FIFO)
RANDOM: Final = int(Policy.RANDOM)
LRU: Final = int(Policy.LRU)
P: Final = int(Pte.P)
G: Final = int(Pte.G)
SIZE_BIT: Final = 9
MADE_FROM_BIT: Final = 52
PCID_MASK: Final = 0xFFF
ANY: Final = -1
"""In place of a PCID or an address: all of them."""

PAGING_STRUCTURE: Final = int(TlbKind.PAGING_STRUCTURE)
ENTRY_SIZE: Final = 24


@native
def leaf_shift(leaf: Any) -> Any:
    """log2 of the bytes that a TLB entry covers: 12, 21 or 30."""
    return 12 + 9 * ((leaf >> SIZE_BIT) & 3)


@native
def _set_of(array: Any, va: Any, shift: Any) -> Any:
    """Index of the set that holds a page: its low bits, or two fields of bits XORed (costs: TLB hash functions)."""
    page = va >> shift
    if array.hash_bits:
        page ^= page >> array.hash_bits
    return page & (array.sets - 1)


@native
def _matches(entry: Any, va: Any, shift: Any, pcid: Any) -> Any:
    leaf = entry.leaf
    if not leaf & P or (entry.tag ^ va) >> shift:
        return False
    return leaf & G != 0 or (entry.tag ^ pcid) & PCID_MASK == 0


@native
def find_in(array: Any, va: Any, shift: Any, pcid: Any) -> Any:
    """Index of the entry of one array that translates `va` as a page of `1 << shift` bytes, or -1."""
    start = _set_of(array, va, shift) * array.ways
    size = 0 if array.kind == PAGING_STRUCTURE else (shift - 12) // 9
    for index in range(start, start + array.ways):
        entry = entry_at(array.entries, index)
        if _matches(entry, va, shift, pcid) and (entry.leaf >> SIZE_BIT) & 3 == size:
            return index
    return -1


@native
def _is_first_choice(array: Any, va: Any, pcid: Any) -> Any:
    """Whether the entry that was used last translates `va`, and is what a search would find first.

    A stale small page and the large one that replaced it may both be here. Which of them translates must not
    depend on hits, because the trap engine does not see them: it is always the smallest.
    """
    last = entry_at(array.entries, array.last)
    shift = leaf_shift(last.leaf)
    return array.shifts & ((1 << shift) - 1) == 0 and _matches(last, va, shift, pcid)


@native
def find(s: Any, kind: Any, va: Any) -> Any:
    """Find `va` in the arrays of one kind: (array number, entry index), or (-1, -1)."""
    for number in range(s.array_count):
        array = s.arrays[number]
        if array.kind == kind:
            if _is_first_choice(array, va, s.pcid):
                return number, array.last
            for shift in range(12, 31, 9):
                if (array.shifts >> shift) & 1:
                    index = find_in(array, va, shift, s.pcid)
                    if index >= 0:
                        return number, index
    return -1, -1


@native
def use(s: Any, array: Any, index: Any) -> None:
    """Note a hit, for the policies that look at hits."""
    array.last = index
    if array.policy == LRU:
        s.clock += 1
        entry_at(array.entries, index).stamp = s.clock
    elif array.policy > LRU:
        point_away(array, index // array.ways, index % array.ways)


@native
def point_away(array: Any, number: Any, way: Any) -> None:
    """Tree-PLRU: make every node on the way to `way` point to its other side."""
    tree = words(array.trees)[number]
    span = 1
    while span < array.ways:
        span *= 2
    node = 1
    low = 0
    while span > 1:
        span //= 2
        right = way >= low + span
        tree = tree & ~(1 << node) if right else tree | (1 << node)
        low += span if right else 0
        node = 2 * node + (1 if right else 0)
    words(array.trees)[number] = tree


@native
def pointed_at(array: Any, number: Any) -> Any:
    """Tree-PLRU: the way that the nodes point at (ways that do not exist are stepped around)."""
    tree = words(array.trees)[number]
    span = 1
    while span < array.ways:
        span *= 2
    node = 1
    low = 0
    while span > 1:
        span //= 2
        right = (tree >> node) & 1 and low + span < array.ways
        low += span if right else 0
        node = 2 * node + (1 if right else 0)
    return low


@native
def _oldest(array: Any, start: Any) -> Any:
    oldest = start
    for index in range(start + 1, start + array.ways):
        if entry_at(array.entries, index).stamp < entry_at(array.entries, oldest).stamp:
            oldest = index
    return oldest


@native
def _random(s: Any) -> Any:
    """One step of xorshift64; a non-negative number."""
    x = s.random
    x ^= x << 13
    x ^= (x >> 7) & 0x01FF_FFFF_FFFF_FFFF
    x ^= x << 17
    s.random = x
    return (x >> 8) & 0x7FFF_FFFF


@native
def _victim(s: Any, array: Any, number: Any) -> Any:
    """Index of the entry of a set to overwrite: a free one, else the policy's choice."""
    start = number * array.ways
    for index in range(start, start + array.ways):
        if not entry_at(array.entries, index).leaf & P:
            return index
    if array.policy == RANDOM:
        return start + _random(s) % array.ways
    if array.policy > LRU:
        return start + pointed_at(array, number)
    return _oldest(array, start)


@native
def insert(s: Any, array: Any, va: Any, shift: Any, leaf: Any) -> Any:
    """Put a translation into one array. Returns the leaf that made room (0: none); its tag is in `s.evicted_tag`."""
    number = _set_of(array, va, shift)
    index = _victim(s, array, number)
    entry = entry_at(array.entries, index)
    evicted = entry.leaf if entry.leaf & P else 0
    s.evicted_tag = entry.tag
    entry.tag = (va >> shift << shift) | s.pcid
    entry.leaf = leaf
    s.clock += 1
    entry.stamp = s.clock
    array.last = index
    if array.policy > LRU:
        point_away(array, number, index % array.ways)
    return evicted


@native
def _covers(entry: Any, kind: Any, va: Any) -> Any:
    """Whether an entry belongs to the page of `va`; a piece of a smashed page belongs to all of that page."""
    if kind == PAGING_STRUCTURE:
        return True
    made_from = 12 + 9 * ((entry.leaf >> MADE_FROM_BIT) & 3)
    return (entry.tag ^ va) >> made_from == 0


@native
def invalidate(s: Any, va: Any, pcid: Any, globals_too: Any) -> None:
    """Drop entries of `pcid` (or ANY), for the page of `va` (or ANY), and global ones if asked (SDM 4.10.4.1).

    Paging-structure caches know no globals; an entry is dropped whatever the address, as INVLPG does.
    """
    for number in range(s.array_count):
        array = s.arrays[number]
        for index in range(array.sets * array.ways):
            entry = entry_at(array.entries, index)
            leaf = entry.leaf
            if leaf & P:
                is_global = leaf & G != 0
                mine = globals_too if is_global else pcid == ANY or entry.tag & PCID_MASK == pcid
                if mine and (va == ANY or _covers(entry, array.kind, va)):
                    entry.leaf = 0
