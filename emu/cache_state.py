"""The caches' part of the memory that Python and the native code share (see `state.py`).

>>> CacheArray(sets=64, ways=8).sets
64
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint64
from enum import IntEnum

__all__ = ["CacheArray", "CacheLevel", "CacheUse"]


class CacheLevel(IntEnum):
    """The caches of one core. What none of them holds is in memory."""

    L1D = 0
    L1I = 1
    L2 = 2
    LLC = 3
    MEMORY = 4


class CacheUse(IntEnum):
    """What a line is wanted for; the first three as in `pte.Access`."""

    READ = 0
    WRITE = 1
    FETCH = 2
    WALK = 3  # an entry of a page table
    PREFETCH = 4


class CacheArray(ctypes.Structure):
    """One set-associative cache. It holds no data: that is in guest memory, and always up to date."""

    _fields_ = (
        ("lines", c_uint64),  # host address of sets * ways words: physical address of the line | 1; 0: free
        ("sets", c_uint64),
        ("mask", c_uint64),  # sets - 1 if that is a mask; 0: divide
        ("ways", c_uint64),
        ("policy", c_uint64),  # LRU: the ways of a set stand in the order of their last use
        ("trees", c_uint64),  # host address of one PLRU word a set
        ("last", c_uint64),  # the line that was used last: looked at first
        ("latency", c_uint64),  # cycles of a load that hits here
        ("hits", c_uint64),
        ("misses", c_uint64),
        ("evictions", c_uint64),
    )
