"""The caches as Python sees them: built from a profile, looked into, flushed.

The work itself is native (`cache.py`); this is the handle on it.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
import numpy.typing as npt

from .cache_state import CacheAction, CacheInstruction, CacheLevel, CacheUse
from .instruction import Instruction
from .profile import Cache, Profile
from .softcore import GPR_NAMES
from .state import State

__all__ = ["CACHE_NAMES", "Hierarchy"]

CACHE_NAMES: Final = ("l1d", "l1i", "l2", "llc")
"""By `CacheLevel`; also the keys of a profile's `[caches]`."""

REPLACEMENT: Final = {"lru": 2, "plru": 3}
"""As `tlb.Policy` numbers them."""
EVERYTHING: Final = -1
MASK64: Final = (1 << 64) - 1

_ACTIONS: Final = {
    "clflush": CacheAction.FLUSH,
    "lfence": CacheAction.WAIT,
    "mfence": CacheAction.WAIT,
    **dict.fromkeys(("prefetcht0", "prefetchnta", "prefetchw", "prefetch"), CacheAction.PREFETCH),
    **dict.fromkeys(("prefetcht1", "prefetcht2"), CacheAction.PREFETCH_L2),
}
"""By instruction. The other encodings of 0F 0D and 0F 18 are NOPs on these parts."""

_REGISTERS: Final = (*GPR_NAMES, "rip", "")


class Hierarchy:
    """L1D, L1I, L2 and last-level cache of one core; without `is_on` nothing is built, and nothing ever happens."""

    def __init__(self, state: State, profile: Profile, is_on: bool, code: dict[str, int]) -> None:
        self._state, self.is_on = state, is_on
        self._address = ctypes.addressof(state)
        self._storage: list[npt.NDArray[np.uint64]] = []
        word = ctypes.c_int64
        self._access = ctypes.CFUNCTYPE(word, word, word, word)(code["cache_access_entry"])
        self._touch = ctypes.CFUNCTYPE(None, word, word, word, word)(code["touch_entry"])
        self._is_cached = ctypes.CFUNCTYPE(word, word, word, word)(code["is_cached_entry"])
        self._flush = ctypes.CFUNCTYPE(None, word, word)(code["flush_line_entry"])
        self._wait = ctypes.CFUNCTYPE(None, word)(code["wait_entry"])
        self._has_prefetchw = profile.features.prefetchw
        if is_on:
            self._build(profile)

    def _build(self, profile: Profile) -> None:
        caches = profile.caches
        for level, name in enumerate(CACHE_NAMES):
            self._add(level, getattr(caches, name), caches.line)
        self._state.llc_is_inclusive = caches.llc_inclusive
        self._state.dram_latency = caches.dram_latency
        self._state.caches = 1

    def _add(self, level: int, cache: Cache, line: int) -> None:
        sets = cache.sets(line)
        array = self._state.cache[level]
        array.lines, array.trees = self._allocate(sets * cache.ways), self._allocate(sets)
        array.sets, array.ways, array.latency = sets, cache.ways, cache.latency
        array.mask = sets - 1 if sets & (sets - 1) == 0 else 0
        array.policy = REPLACEMENT[cache.replacement]

    def _allocate(self, count: int) -> int:
        words = np.zeros(count, dtype=np.uint64)
        self._storage.append(words)
        return int(words.ctypes.data)

    def instruction(self, one: Instruction, va: int) -> CacheInstruction | None:
        """What native code must know of an instruction at `va` to act on the caches; None: it does not."""
        action = _ACTIONS.get(one.name, CacheAction.END)
        if one.name == "prefetchw" and not self._has_prefetchw:
            action = CacheAction.END
        if action == CacheAction.WAIT:
            return CacheInstruction(va=va, action=action)
        if action == CacheAction.END or one.memory is None:
            return None
        m, s = one.memory, self._state
        return CacheInstruction(
            va=va,
            next_va=va + one.size,
            action=action,
            base=_REGISTERS.index(m.base),
            index=_REGISTERS.index(m.index),
            scale=m.scale,
            displacement=m.displacement & MASK64,
            mask=(1 << m.address_bits) - 1,
            segment={"fs": s.fs_base, "gs": s.gs_base}.get(m.segment, 0),
        )

    def access(self, pa: int, use: CacheUse) -> int:
        """Look up the line of a physical address, and bring it. Returns its latency in cycles; no time passes."""
        return int(self._access(self._address, pa, use)) if self.is_on else 0

    def touch(self, pa: int, size: int, use: CacheUse) -> None:
        """A load or store of the machine's own; the time that a load waits passes."""
        if self.is_on:
            self._touch(self._address, pa, size, use)

    def holds(self, level: CacheLevel, pa: int) -> bool:
        """Whether a cache holds the line of a physical address; changes nothing."""
        return self.is_on and bool(self._is_cached(self._address, level, pa))

    def flush_line(self, pa: int) -> None:
        """Drop the line of a physical address from every cache."""
        if self.is_on:
            self._flush(self._address, pa)

    def flush(self) -> None:
        """Drop every line from every cache."""
        if self.is_on:
            self._flush(self._address, EVERYTHING)

    def wait_for_loads(self) -> None:
        """Let the time pass until the last load has its data (LFENCE, and what serialises)."""
        self._wait(self._address)

    @property
    def stalled(self) -> int:
        """Cycles so far of waiting for caches and page walks."""
        return int(self._state.load_cycles + self._state.fetch_cycles + self._state.walk_cycles)

    def lines(self, level: CacheLevel) -> set[int]:
        """Physical addresses of the lines that a cache holds now."""
        return {int(line) & ~1 for line in self._storage[2 * level] if line} if self.is_on else set()

    def counts(self) -> dict[str, dict[str, int]]:
        """Hits, misses and evictions of each cache."""
        arrays = zip(CACHE_NAMES, self._state.cache, strict=True)
        return {name: {"hits": a.hits, "misses": a.misses, "evictions": a.evictions} for name, a in arrays}
