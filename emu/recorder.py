"""Recordings: rows of what happens, written where it happens (native).

A Python function for every access costs a microsecond; a row of four or five words costs some nanoseconds. Every kind
of event that is recorded has a table in the host's memory (`columns.py` draws the rows). A full one is handed to
Python, which empties it; a ring begins again at its start and counts its laps, so that it holds the last rows.

    word 0   sequence number, over all tables: what came first
    word 1   clock in cycles
    word 2   virtual address
    word 3   pid | detail << 32 | CPL << 48 | access << 56
    ...      what only this kind has
"""

from __future__ import annotations

from typing import Any, Final

from .cycles import now
from .native import call, native, rare, words
from .pte import IMPLICIT
from .records import notify
from .state import Event

__all__ = ["COMMON_SIZE", "hit", "is_recorded", "record", "record_cr3_write", "record_walk", "tell_access", "tell_mode"]

PAGE_WALK, TLB_HIT, TABLE_FULL = int(Event.PAGE_WALK), int(Event.TLB_HIT), int(Event.TABLE_FULL)
CR3_WRITE, MODE_SWITCH = int(Event.CR3_WRITE), int(Event.MODE_SWITCH)
ON_ACCESS: Final = int(Event.ACCESS)
TLB_HIT_BIT: Final = 1 << Event.TLB_HIT
RIP: Final = 16
"""Index into Unicorn's registers (env)."""
NO_LEVEL: Final = 2
"""In place of a privilege level, for what is recorded whatever the mode."""
COMMON_SIZE: Final = 32
"""Bytes of the first four words."""
MOST_STEPS: Final = 5


@native
def is_recorded(s: Any, kind: Any) -> Any:
    """Whether events of this kind are recorded."""
    return (s.recorded >> kind) & 1


@rare
def _make_room(s: Any, kind: Any) -> None:
    """A table is full: a ring begins again, any other one goes to Python."""
    table = s.tables[kind]
    if table.is_ring:
        table.laps += 1
    else:
        call(s.notify, (TABLE_FULL, kind, 0, 0))
    table.used = 0


@rare
def record(s: Any, kind: Any, va: Any, detail: Any, cpl: Any, access: Any) -> Any:
    """Write a row. Returns the host address of what comes after its common words; 0 if nobody wants it."""
    if (s.records_not >> (cpl & 3)) & 1 or s.sequence == s.last_sequence:
        return 0
    table = s.tables[kind]
    if table.used == table.capacity:
        _make_room(s, kind)
    row = table.rows + table.used * table.row_size
    table.used += 1
    s.sequence += 1
    words(row)[0] = s.sequence
    words(row)[1] = now(s)
    words(row)[2] = va
    words(row)[3] = s.pid | (detail << 32) | (cpl << 48) | (access << 56)
    if s.sequence == s.last_sequence:
        call(s.notify, (TABLE_FULL, -1, 0, 0))
    return row + COMMON_SIZE


@native
def tell_access(s: Any, va: Any, access: Any, size: Any, pa: Any) -> None:
    """Tell listeners of an access that was made (`Access`, or'ed with IMPLICIT), and record it."""
    if (s.listeners >> ON_ACCESS) & 1 and va <= s.access_last and va + size > s.access_first:
        notify(s, ON_ACCESS, va, access | (size << 8), pa)
    if is_recorded(s, ON_ACCESS):
        row = record(s, ON_ACCESS, va, size, 0 if access & IMPLICIT else s.cpl, access & 3)
        if row:
            words(row)[0] = pa


@rare
def record_walk(s: Any, va: Any, access: Any, leaf: Any) -> None:
    """A row for a page walk: the leaf that it found, and every entry that it read."""
    cpl = 0 if access & IMPLICIT else s.cpl
    row = record(s, PAGE_WALK, va, s.walk_depth, cpl, access & 3)
    if row:
        words(row)[0] = leaf
        for step in range(MOST_STEPS):
            is_read = step < s.walk_depth
            words(row)[1 + step] = s.walk_addresses[step] if is_read else 0
            words(row)[1 + MOST_STEPS + step] = s.walk_entries[step] if is_read else 0


@native
def hit(s: Any, va: Any, access: Any, tlb: Any) -> None:
    """A TLB held the page."""
    if (s.listeners | s.recorded) & TLB_HIT_BIT:
        _tell_hit(s, va, access, tlb)


@rare
def _tell_hit(s: Any, va: Any, access: Any, tlb: Any) -> None:
    """Tell a hit, and record it, where somebody wants that."""
    if s.listeners & TLB_HIT_BIT:
        notify(s, TLB_HIT, va, access, tlb)
    if is_recorded(s, TLB_HIT):
        record(s, TLB_HIT, va, tlb, 0 if access & IMPLICIT else s.cpl, access & 3)


@native
def record_cr3_write(s: Any, value: Any, flushes: Any) -> None:
    """A row for a write of CR3."""
    if is_recorded(s, CR3_WRITE):
        record(s, CR3_WRITE, value, s.pcid, NO_LEVEL, 1 if flushes else 0)


@rare
def tell_mode(s: Any, cpl: Any) -> None:
    """The processor goes on with other rights: tell it, and record it, where somebody wants that."""
    rip = words(s.env)[RIP]
    if (s.listeners >> MODE_SWITCH) & 1:
        notify(s, MODE_SWITCH, rip, cpl, 0)
    if is_recorded(s, MODE_SWITCH):
        record(s, MODE_SWITCH, rip, 0, cpl, 0)
