"""What time it is: the clock, added up from what was counted (native).

Every cause of `clock.py` is a count times a cost of the CPU profile, or cycles that were noted when something happened.
The time is their sum at the moment somebody asks, which is seldom.
"""

from __future__ import annotations

from typing import Any, Final

from .cache import wait_for_loads
from .native import native, words

__all__ = ["now", "read_time_stamp"]

MASK32: Final = 0xFFFF_FFFF
RAX, RCX, RDX = 0, 1, 2
"""Indices into Unicorn's registers (env)."""


@native
def now(s: Any) -> Any:
    """Cycles since power-on; the parts of the native causes are left in `cause_cycles`, in the order of `clock.py`."""
    parts = s.cause_cycles
    parts[0] = s.instructions // s.instructions_per_cycle
    found = s.misses[0] + s.misses[1] - s.misses[2]  # by the STLB; a fetch that it does not help walks, once
    code = s.misses[0] - s.walks_by[0] - s.walks_by[2] if found else 0
    parts[1] = code * s.cost_stlb_hit
    parts[2] = (found - code) * s.cost_stlb_hit
    reads = s.entry_reads
    parts[3] = (reads[0] + reads[1] + reads[2] + reads[3]) * s.cost_entry_read + s.walk_cycles
    parts[4] = (s.accessed_assists + s.dirty_assists) * s.cost_assist
    parts[5] = s.entry_exit_cycles
    parts[6] = s.exception_cycles
    parts[7] = s.cr3_cycles
    parts[8] = s.control_cycles
    parts[9] = s.copied_bytes // s.copied_bytes_per_cycle
    parts[10] = s.rdtsc_cycles
    parts[11] = s.load_cycles
    parts[12] = s.fetch_cycles
    total = s.charged_cycles
    for number in range(13):
        total += parts[number]
    return total


@native
def read_time_stamp(s: Any, later: Any, auxiliary: Any) -> None:
    """RDTSC, RDTSCP: the clock in EDX:EAX as of this instruction, after which the block counted `later` others.

    RDTSCP waits until earlier loads have their data; RDTSC does not (SDM Vol. 2B).
    """
    if auxiliary:
        wait_for_loads(s)
    s.rdtsc_cycles += s.cost_rdtsc
    s.instructions -= later
    time = now(s)
    s.instructions += later
    registers = words(s.env)
    registers[RAX] = time & MASK32
    registers[RDX] = (time >> 32) & MASK32
    if auxiliary:
        registers[RCX] = s.tsc_aux & MASK32
