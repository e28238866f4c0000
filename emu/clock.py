"""Time: one deterministic clock in cycles, of which every cause keeps its own part.

Nothing here measures the host. What the native code counts (instructions, TLB misses, entry reads, assists, copied
bytes) costs what the CPU profile says (`cycles.py` adds it up); everything else is charged by name when it happens. The
parts sum to the total, always: the total *is* their sum.
"""

from __future__ import annotations

import ctypes

from .profile import Costs
from .state import State

__all__ = ["Clock"]

_NATIVE_CAUSES = (
    *("instructions", "itlb_misses", "dtlb_misses", "page_walks", "ad_assists"),
    *("entry_exit", "exceptions", "cr3_writes", "control_registers", "copies", "rdtsc"),
    *("data_caches", "instruction_caches"),
)
"""In the order of `cycles.now`."""


class Clock:
    """The cycle clock of one machine."""

    def __init__(self, state: State, costs: Costs, frequency_mhz: int, code: dict[str, int]) -> None:
        self._state, self._frequency_mhz = state, frequency_mhz
        self._address = ctypes.addressof(state)
        self._now = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code["now_entry"])
        state.cost_syscall, state.cost_sysret, state.cost_iret = costs.syscall, costs.sysret, costs.iret
        state.cost_swapgs, state.cost_stac_clac = costs.swapgs, costs.stac_clac
        state.cost_page_fault = costs.page_fault
        state.cost_cr3_flush, state.cost_cr3_noflush = costs.mov_to_cr3_flush, costs.mov_to_cr3_noflush
        state.cost_read_control, state.cost_rdtsc = costs.mov_from_cr, costs.rdtsc
        state.cost_stlb_hit, state.cost_assist = costs.stlb_hit, costs.walk_ad_assist
        state.cost_entry_read = 0 if state.caches else costs.walk_entry_read
        state.instructions_per_cycle = costs.instructions_per_cycle
        state.copied_bytes_per_cycle = costs.copied_bytes_per_cycle
        self._charged: dict[str, int] = {}

    def charge(self, cause: str, cycles: int) -> None:
        """Let time pass for a named cause."""
        self._charged[cause] = self._charged.get(cause, 0) + cycles
        self._state.charged_cycles += cycles

    @property
    def now(self) -> int:
        """Cycles since power-on."""
        return int(self._now(self._address))

    def nanoseconds(self, cycles: int) -> int:
        """So many cycles as time, rounded down."""
        return cycles * 1000 // self._frequency_mhz

    def cycles(self, nanoseconds: int) -> int:
        """So much time in cycles, rounded down."""
        return nanoseconds * self._frequency_mhz // 1000

    def by_cause(self) -> dict[str, int]:
        """Cycles of each cause; causes that cost nothing so far are left out, except instructions."""
        self._now(self._address)
        parts = dict(zip(_NATIVE_CAUSES, self._state.cause_cycles, strict=True))
        for cause, cycles in self._charged.items():
            parts[cause] = parts.get(cause, 0) + cycles
        return {cause: cycles for cause, cycles in parts.items() if cycles or cause == "instructions"}
