"""What Python asks of the native code: the time, translate, load, store, copy, invalidate, enter and leave the kernel
(native).

Each function gets the address of the shared state first. A refused access or a failed transfer leaves its reason there.
"""

from __future__ import annotations

from typing import Any, Final

from numba import types

from .cache import cache_access, fetch_lines, flush_all, flush_line, is_cached, touch, touch_range, wait_for_loads
from .counting import find_place
from .cycles import now, read_time_stamp
from .native import call, entry, native, words
from .pte import ADDRESS_MASK, INDEX_MASK, PAGE_SIZE, Access, Pte
from .recorder import COMMON_SIZE, record, tell_access
from .records import state_at
from .soft_tlb import flush_soft_tlb
from .state import Fault
from .tlb import invalidate
from .transfer import (
    account,
    deliver,
    iretq,
    note_write,
    physical,
    read_flags,
    swapgs,
    switch_mode,
    sysretq,
    write_flags,
)
from .translate import translate
from .walk import FETCH, KIND, WRITE

__all__ = [
    "clear_bit_entry",
    "clear_page_entry",
    "copy_entry",
    "copy_page_entry",
    "descend_entry",
    "fetch_entry",
    "invalidate_entry",
    "load_entry",
    "store_entry",
    "translate_entry",
]

word, void = types.int64, types.void
BAD_PHYSICAL: Final = int(Fault.BAD_PHYSICAL)
READ: Final = int(Access.READ)
P, PS = int(Pte.P), int(Pte.PS)
PAGE: Final = PAGE_SIZE
WORDS: Final = PAGE_SIZE // 8


@native
def _physical(s: Any, va: Any, access: Any) -> Any:
    """Physical address for an access of the machine itself; -1 with the fault in the state."""
    leaf = translate(s, va, access)
    if leaf:
        pa = physical(leaf, va)
        if pa < s.ram_size:
            return pa
        s.fault = BAD_PHYSICAL
        s.fault_code = pa
    s.fault_page = va
    s.fault_access = access & KIND
    return -1


@entry(word(word, word, word))
def translate_entry(state: Any, va: Any, access: Any) -> Any:
    """Translate one access of the machine itself; returns the physical address, or -1 with the fault in the state."""
    return _physical(state_at(state, 0), va, access)


@native
def _load(s: Any, va: Any, access: Any) -> Any:
    """Load an aligned word into `s.loaded`. False with the fault in the state."""
    s.reads += 1
    pa = _physical(s, va, access)
    if pa < 0:
        return False
    if s.caches:
        touch(s, pa, READ)
    s.loaded = words(s.ram)[pa >> 3]
    tell_access(s, va, access, 8, pa)
    return True


@entry(word(word, word, word))
def load_entry(state: Any, va: Any, access: Any) -> Any:
    """Load an aligned word; 0 with `fault` set in the state if it is refused."""
    s = state_at(state, 0)
    return s.loaded if _load(s, va, access) else 0


@native
def _store(s: Any, va: Any, value: Any, access: Any) -> Any:
    """Store an aligned word. False with the fault in the state."""
    s.writes += 1
    pa = _physical(s, va, access)
    if pa < 0:
        return False
    if s.caches:
        touch(s, pa, WRITE)
    words(s.ram)[pa >> 3] = value
    note_write(s, pa)
    tell_access(s, va, access, 8, pa)
    return True


@entry(word(word, word, word, word))
def store_entry(state: Any, va: Any, value: Any, access: Any) -> Any:
    """Store an aligned word. 1 if all is well; 0 with `fault` or `code_written` set in the state."""
    s = state_at(state, 0)
    return 1 if _store(s, va, value, access) and not s.code_written else 0


@entry(word(word, word))
def fetch_entry(state: Any, va: Any) -> Any:
    """Fetch the first instruction of a kernel function that is Python. 0 with the fault in the state."""
    s = state_at(state, 0)
    s.instructions += 1
    pa = _physical(s, va, FETCH)
    if pa < 0:
        return 0
    if s.caches:
        fetch_lines(s, pa, 1)
    tell_access(s, va, FETCH, 1, pa)
    return 1


@entry(word(word, word, word, word, word))
def copy_entry(state: Any, va: Any, host: Any, size: Any, access: Any) -> Any:
    """Read a virtual range into host memory, or write it from there; one access for 8 bytes.

    Returns how many bytes were copied; when they are fewer, the fault is in the state.
    """
    s = state_at(state, 0)
    done = 0
    while done < size:
        at = va + done
        step = min(size - done, PAGE - (at & (PAGE - 1)))
        pa = _physical(s, at, access)
        if pa < 0:
            break
        if s.caches:
            touch_range(s, pa, step, (step + 7) >> 3, access & KIND)
        if access & KIND == WRITE:
            s.writes += (step + 7) >> 3
            call(s.memmove, (s.ram + pa, host + done, step))
            note_write(s, pa)
        else:
            s.reads += (step + 7) >> 3
            call(s.memmove, (host + done, s.ram + pa, step))
        tell_access(s, at, access, step, pa)
        done += step
    if s.alignment_check:  # only between STAC and CLAC: everything else is a few words of the kernel's own
        s.copied_bytes += done
    return done


@entry(word(word, word))
def clear_page_entry(state: Any, va: Any) -> Any:
    """Fill a page with zeros, by stores of 8 bytes. 0 with the fault in the state."""
    s = state_at(state, 0)
    pa = _physical(s, va, WRITE)
    if pa < 0:
        return 0
    s.writes += WORDS
    if s.caches:
        touch_range(s, pa, PAGE, WORDS, WRITE)
    call(s.memset, (s.ram + pa, 0, PAGE))
    note_write(s, pa)
    s.copied_bytes += PAGE
    tell_access(s, va, WRITE, PAGE, pa)
    return 1


@entry(word(word, word, word))
def copy_page_entry(state: Any, target: Any, source: Any) -> Any:
    """Copy a page, 8 bytes at a time. 0 with the fault in the state."""
    s = state_at(state, 0)
    below = _physical(s, source, READ)
    if below < 0:
        return 0
    s.reads += WORDS
    tell_access(s, source, READ, PAGE, below)
    pa = _physical(s, target, WRITE)
    if pa < 0:
        return 0
    s.writes += WORDS
    if s.caches:
        touch_range(s, below, PAGE, WORDS, READ)
        touch_range(s, pa, PAGE, WORDS, WRITE)
    call(s.memmove, (s.ram + pa, s.ram + below, PAGE))
    note_write(s, pa)
    s.copied_bytes += PAGE
    tell_access(s, target, WRITE, PAGE, pa)
    return 1


@native
def _place(table: Any, va: Any, level: Any) -> Any:
    """Physical address of the entry for `va` in the table of a level."""
    return table + (((va >> (3 + 9 * level)) & INDEX_MASK) << 3)


@entry(word(word, word, word, word, word, word))
def descend_entry(state: Any, direct_map: Any, table: Any, va: Any, level: Any, last: Any) -> Any:
    """Follow page tables by loads of the kernel's, from the table of one level down to the level `last`.

    `direct_map` is where physical memory begins in virtual memory. Returns the physical address of the entry for `va`
    at that level, or of the one above it that is not present or maps a huge page, or'ed with its level; -1 with the
    fault in the state.
    """
    s = state_at(state, 0)
    pa = _place(table, va, level)
    while level > last:
        if not _load(s, direct_map + pa, READ):
            return -1
        if not s.loaded & P or s.loaded & PS:
            break
        level -= 1
        pa = _place(s.loaded & ADDRESS_MASK, va, level)
    return pa | level


@native
def _clear_in_table(s: Any, at: Any, va: Any, end: Any, bit: Any, found: Any, room: Any) -> Any:
    """Clear a bit in the entries of one lowest-level table, from `va` to `end` or the table's last; -1 with a fault."""
    count = 0
    while va < end and count < room:
        if not _load(s, at, READ):
            return -1
        if s.loaded & P and s.loaded & bit:
            if not _store(s, at, s.loaded & ~bit, WRITE):
                return -1
            words(found)[2 * count] = va
            words(found)[2 * count + 1] = s.loaded
            count += 1
        at += 8
        va += PAGE
        if at & (PAGE - 1) == 0:
            break
    return count


@entry(word(word, word, word, word, word, word, word, word))
def clear_bit_entry(state: Any, direct_map: Any, table: Any, va: Any, end: Any, bit: Any, found: Any, room: Any) -> Any:
    """Clear a bit in all present leaves from `va` to `end` of a table of level 4, by loads and stores of the kernel's.

    Writes (va, entry as it was) of those that had the bit to host memory at `found`, until there is `room` for no more.
    Returns how many, or -1 with the fault in the state.
    """
    s = state_at(state, 0)
    count = 0
    while va < end and count < room:
        level = 4
        pa = _place(table, va, level)
        while level > 1:
            if not _load(s, direct_map + pa, READ):
                return -1
            if not s.loaded & P or s.loaded & PS:
                break
            level -= 1
            pa = _place(s.loaded & ADDRESS_MASK, va, level)
        if level == 1:
            done = _clear_in_table(s, direct_map + pa, va, end, bit, found + 16 * count, room - count)
            if done < 0:
                return -1
            count += done
        elif s.loaded & P and s.loaded & bit:
            if not _store(s, direct_map + pa, s.loaded & ~bit, WRITE):
                return -1
            words(found)[2 * count] = va
            words(found)[2 * count + 1] = s.loaded
            count += 1
        shift = 3 + 9 * max(level, 2)
        va = ((va >> shift) + 1) << shift
    return count


@entry(void(word, word, word, word))
def invalidate_entry(state: Any, va: Any, pcid: Any, globals_too: Any) -> None:
    """Invalidate TLB entries (SDM 4.10.4.1) and, since Unicorn's must stay a subset, all of its own."""
    s = state_at(state, 0)
    invalidate(s, va, pcid, globals_too != 0)
    s.fetch_page = 0
    flush_soft_tlb(s)


@entry(word(word, word, word, word))
def deliver_entry(state: Any, vector: Any, error_code: Any, is_software: Any) -> Any:
    """Deliver an interrupt or exception (error code -1: none). 0 with the second exception pending."""
    return 1 if deliver(state_at(state, 0), vector, error_code, is_software) else 0


@entry(void(word, word, word, word, word))
def record_entry(state: Any, kind: Any, va: Any, values: Any, extra: Any) -> None:
    """Record what Python has done for the processor: the upper half of a row's last common word, and what follows."""
    s = state_at(state, 0)
    row = record(s, kind, va, values & 0xFFFF, (values >> 16) & 0xFF, values >> 24)
    if row and s.tables[kind].row_size > COMMON_SIZE:
        words(row)[0] = extra


@entry(word(word, word))
def transfer_entry(state: Any, kind: Any) -> Any:
    """Execute SWAPGS (0), SYSRETQ (1) or IRETQ (2). 0 with the exception pending; RIP moves only where they set it."""
    s = state_at(state, 0)
    if kind == 0:
        return 1 if swapgs(s) else 0
    if kind == 1:
        return 1 if sysretq(s) else 0
    return 1 if iretq(s) else 0


@entry(void(word, word))
def switch_mode_entry(state: Any, cpl: Any) -> None:
    """Change the privilege level."""
    switch_mode(state_at(state, 0), cpl)


@entry(void(word, word))
def account_entry(state: Any, counted_as: Any) -> None:
    """Close the account of the current mode, and count as another one from now on."""
    s = state_at(state, 0)
    account(s)
    s.counted_as = counted_as


@entry(word(word))
def read_flags_entry(state: Any) -> Any:
    """RFLAGS."""
    return read_flags(state_at(state, 0))


@entry(void(word, word))
def write_flags_entry(state: Any, flags: Any) -> None:
    """Set RFLAGS."""
    write_flags(state_at(state, 0), flags)


@entry(word(word))
def now_entry(state: Any) -> Any:
    """Cycles since power-on."""
    return now(state_at(state, 0))


@entry(void(word, word, word))
def time_stamp_entry(state: Any, later: Any, auxiliary: Any) -> None:
    """RDTSC or RDTSCP, before so many instructions that the block has counted."""
    read_time_stamp(state_at(state, 0), later, auxiliary)


@entry(word(word, word, word))
def cache_access_entry(state: Any, pa: Any, use: Any) -> Any:
    """Look up a line, and bring it; returns its latency."""
    return cache_access(state_at(state, 0), pa, use)


@entry(void(word, word, word, word))
def touch_entry(state: Any, pa: Any, size: Any, use: Any) -> None:
    """One load or store of a physical range, of one line or two."""
    touch_range(state_at(state, 0), pa, size, 1, use)


@entry(word(word, word, word))
def is_cached_entry(state: Any, level: Any, pa: Any) -> Any:
    """Whether a cache holds a line."""
    return 1 if is_cached(state_at(state, 0), level, pa) else 0


@entry(void(word, word))
def flush_line_entry(state: Any, pa: Any) -> None:
    """Drop a line from every cache, or (-1) every line."""
    s = state_at(state, 0)
    if pa < 0:
        flush_all(s)
    else:
        flush_line(s, pa)


@entry(void(word))
def wait_entry(state: Any) -> None:
    """Wait for earlier loads."""
    wait_for_loads(state_at(state, 0))


@entry(word(word, word))
def find_block(state: Any, key: Any) -> Any:
    """Where a block stands, or belongs, in the table."""
    return find_place(state_at(state, 0), key)
