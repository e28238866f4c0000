"""Counting: what a basic block retires and how often it touches memory, added when it begins (native).

What a block does depends on its bytes alone, so Python works it out once (`blocks.py`), and here it is found again
by the physical address and size of the code. Where code may have been written since, its bytes are compared, too.
"""

from __future__ import annotations

from typing import Any, Final

from .fetch import KNOWN, PAGE, code_byte, code_page
from .native import native, rare, words
from .records import block_at, leave, notify
from .soft_tlb import flush_soft_tlb
from .state import FETCHED, WRITTEN, Event, Stop
from .window_state import BranchKind

__all__ = ["BRANCH_KIND", "NOWHERE", "block_size", "count_again", "count_block", "find_place", "mix"]

STOP_DEADLINE, STOP_UNKNOWN, STOP_REFETCH = int(Stop.DEADLINE), int(Stop.UNKNOWN_BLOCK), int(Stop.REFETCH)
STOP_ITERATIONS: Final = int(Stop.ITERATIONS)
SELF_MODIFIED: Final = int(Event.SELF_MODIFIED)
BRANCH_KIND: Final = 7
NO_BRANCH, CALL = int(BranchKind.NONE), int(BranchKind.CALL)
NOWHERE: Final = -1


@native
def mix(total: Any, byte: Any) -> Any:
    """One step of a hash."""
    total = (total ^ byte) * 0x100000001B3
    return total ^ (total >> 29) & 0x7FFFFFFFF


@native
def _checksum(s: Any, va: Any, size: Any) -> Any:
    """A hash of the bytes of a block."""
    total = 0
    for offset in range(size):
        total = mix(total, code_byte(s, va + offset))
    return total


@native
def _hash(key: Any) -> Any:
    return key ^ (key >> 7) ^ (key >> 43)


@native
def block_size(s: Any) -> Any:
    """Bytes of the block that is under way."""
    return (s.block_key >> 48) & 0xFFF


@native
def find_place(s: Any, key: Any) -> Any:
    """Index of a block in the open-addressing table; the free place where it belongs if it is not there."""
    index = _hash(key) & s.block_mask
    while True:
        found = block_at(s.blocks, index).key
        if found == key or found == 0:
            return index
        index = (index + 1) & s.block_mask


@native
def _enter_pages(s: Any, va: Any, size: Any) -> Any:
    """Note the pages that a block lies on. False when one of them must be fetched again."""
    page = va & PAGE
    if s.fetch_page != page | KNOWN:
        pa = code_page(s, page)
        if pa < 0:
            return False
        s.fetch_page = page | KNOWN
        s.fetch_pa = pa
    last = (va + size - 1) & PAGE
    if last != page:
        pa = code_page(s, last)
        if pa < 0:
            return False
        s.second_pa = pa
        s.fetch_page = page  # not KNOWN: the second page may have pushed it out of the ITLB
    return True


@native
def _is_volatile(s: Any, va: Any, size: Any) -> Any:
    """Whether the bytes at this place may have changed since the block was counted first."""
    both = FETCHED | WRITTEN
    return words(s.frame_flags)[s.fetch_pa >> 12] & both == both or (va ^ (va + size - 1)) & PAGE != 0


@native
def _is_restarted(s: Any, va: Any, size: Any) -> Any:
    """Whether the last block may have been left in its middle, because it wrote to itself.

    Unicorn then begins again at the store, which is a block of its own. A jump back into a block runs on to the
    end of that block; where that end is no jump, nothing but a restart leads back to it.
    """
    if s.block_key == 0 or va < s.block_va:
        return False
    left = s.block_va + block_size(s) - (va + size)
    last = block_at(s.blocks, s.block_index)
    kind = last.branch & BRANCH_KIND
    return left > 0 or (left == 0 and kind in (NO_BRANCH, CALL) and last.rep_va != va)


@native
def _synchronise(s: Any, block: Any) -> None:
    """Access engine: leave out the search for RIP before each access of a block in which nobody asks for it."""
    skip = s.unsynced_bit if block.is_plain and s.listeners == 0 else 0
    words(s.unsynced)[0] = (words(s.unsynced)[0] & ~s.unsynced_bit) | skip


@native
def _begin(s: Any, va: Any, key: Any, index: Any) -> None:
    """Note which block is under way, or is stopped before."""
    s.block_va = va
    s.block_key = key
    s.block_index = index
    if s.unsynced:
        _synchronise(s, block_at(s.blocks, index))


@native
def count_again(s: Any, va: Any, size: Any) -> Any:
    """Count a block that is known, on the page that the last one was on. False where more must be looked at."""
    if s.fast_page != va & PAGE | KNOWN:
        return False
    key = s.fetch_pa | (va & 0xFFF) | (size << 48)
    index = _hash(key) & s.block_mask
    known = block_at(s.blocks, index)
    instructions = s.instructions + known.instructions
    if known.key != key or not known.is_plain or instructions > s.deadline:
        return False
    s.instructions = instructions
    s.reads += known.reads
    s.writes += known.writes
    _begin(s, va, key, index)
    return True


@rare
def count_block(s: Any, va: Any, size: Any) -> None:
    """Count any block, or stop before it."""
    if not _enter_pages(s, va, size):
        s.fetch_page = 0
        flush_soft_tlb(s)
        leave(s, STOP_REFETCH, 0)
        return
    is_volatile = _is_volatile(s, va, size)
    if is_volatile and _is_restarted(s, va, size):
        notify(s, SELF_MODIFIED, va, size, 0)
    key = s.fetch_pa | (va & 0xFFF) | (size << 48)
    index = find_place(s, key)
    known = block_at(s.blocks, index)
    is_known = known.key == key and (not known.is_watched or known.va == va)
    if not is_known or (is_volatile and known.checksum != _checksum(s, va, size)):
        _begin(s, va, key, index)
        s.stop_value = _checksum(s, va, size)
        leave(s, STOP_UNKNOWN, va)
        return
    repeats = s.rep_va != 0 and s.rep_va == va and known.rep_va == va
    s.iterations += repeats
    if repeats and s.iterations >= s.iteration_limit:
        leave(s, STOP_ITERATIONS, va)
        return
    instructions = 0 if repeats else known.instructions
    if s.instructions + instructions > s.deadline:
        _begin(s, va, key, index)
        leave(s, STOP_DEADLINE, va)
        return
    s.instructions += instructions
    s.reads += known.reads
    s.writes += known.writes
    s.repeats = repeats
    s.rep_va = known.rep_va
    _begin(s, va, key, index)
    s.fetched_0 = 0
    s.fetched_1 = 0
    if s.passed_va != va:
        s.passed_va = NOWHERE
    calm = known.is_plain and not is_volatile and s.passed_va == NOWHERE
    s.fast_page = va & PAGE | KNOWN if calm else 0
