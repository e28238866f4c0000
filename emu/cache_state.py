"""The caches' part of the memory that Python and the native code share (see `state.py`).

>>> CacheArray(sets=64, ways=8).sets
64
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint64
from enum import IntEnum

__all__ = ["CacheAction", "CacheArray", "CacheInstruction", "CacheLevel", "CacheUse"]


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


class CacheAction(IntEnum):
    """What an instruction of `cache_control.py` does."""

    END = 0  # no instruction: the list of a block's ends here
    FLUSH = 1
    PREFETCH = 2
    PREFETCH_L2 = 3
    WAIT = 4


class CacheInstruction(ctypes.Structure):
    """An instruction of a block that acts on caches, and how the address of its operand is formed."""

    _fields_ = (
        ("va", c_uint64),
        ("action", c_uint64),
        ("base", c_uint64),  # number of a register, 16: RIP of the next instruction, 17: none
        ("index", c_uint64),  # number of a register, 17: none
        ("scale", c_uint64),
        ("displacement", c_uint64),
        ("mask", c_uint64),  # of 32-bit or 64-bit addresses
        ("segment", c_uint64),  # host address of the segment's base; 0: it is 0
        ("next_va", c_uint64),
    )


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
