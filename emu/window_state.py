"""The part of transient windows and branch prediction in the memory that Python and the native code share.

See `state.py`; what is done with it is in `window.py` and `predictor.py`.

>>> Window(reorder_buffer=224).reorder_buffer
224
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint64
from enum import IntEnum
from typing import Final

__all__ = ["BranchKind", "Predictor", "Window", "WindowBlock", "WindowEnd", "WindowFrame", "WindowSource"]

MAX_RETURNS: Final = 32
"""Places of the largest return stack."""


class BranchKind(IntEnum):
    """What a block may end with; conditional branches and returns are guessed (`predictor.py`)."""

    NONE = 0
    CONDITIONAL = 1  # Jcc, LOOP
    CALL = 2
    RETURN = 3
    JUMP = 4  # any other


class Predictor(ctypes.Structure):
    """The branch predictor (`predictor.py`)."""

    _fields_ = (
        ("counters", c_uint64),  # host address of a word for each two-bit counter
        ("mask", c_uint64),  # their number - 1
        ("history", c_uint64),  # bit 0: the last conditional branch was taken
        ("returns", c_uint64 * MAX_RETURNS),  # addresses behind the last calls
        ("returns_size", c_uint64),
        ("returns_top", c_uint64),  # place of the next one
        ("returns_held", c_uint64),
        ("branch", c_uint64),  # of the block under way, as in Block; 0: none, or it was looked at
        ("end_va", c_uint64),  # the address behind that block
        ("waited", c_uint64),  # cycles that loads had waited when that block began
        ("wait", c_uint64),  # cycles that the loads of the block with the last branch waited
    )


class WindowEnd(IntEnum):
    """Why a transient window closed (`window.py`)."""

    NONE = 0
    UNKNOWN_BLOCK = 1  # it has not closed: Python must look at a block first
    CAPACITY = 2  # the reorder buffer is full, or the branch that was guessed is known
    STORE_BUFFER = 3  # it holds no more stores
    SERIALIZING = 4  # an instruction that does not begin before all earlier ones have completed
    FAULT = 5  # an exception inside, which cannot be delivered before the one that opened it


class WindowSource(IntEnum):
    """What a frame aside holds."""

    COPY = 0  # the frame, with the stores of the window
    SUPERVISOR = 1  # what was forwarded of a page of the supervisor's
    TERMINAL = 2  # what was forwarded of a page that is not present


class WindowFrame(ctypes.Structure):
    """A frame as a transient window sees it: with the stores of the window, or with data that was forwarded."""

    _fields_ = (
        ("pa", c_uint64),  # the frame of RAM
        ("source", c_uint64),  # a WindowSource
        ("settled", c_uint64),  # bit n set: it is decided what line n gives, its data or zeros
        ("padding", c_uint64),
    )


class WindowBlock(ctypes.Structure):
    """Where a window ends in one basic block."""

    _fields_ = (
        ("key", c_uint64),  # physical address | size << 48; 0: free
        ("checksum", c_uint64),
        ("barrier", c_uint64),  # offset of the first instruction that ends a window; the block's size: none
        ("cache_instructions", c_uint64),  # host address of a list, or 0, as in Block
    )


class Window(ctypes.Structure):
    """The transient window (`window.py`): what the part can do, and what goes on in the window that is open."""

    _fields_ = (
        ("uc", c_uint64),  # the Unicorn that executes it
        ("env", c_uint64),
        ("reorder_buffer", c_uint64),  # instructions
        ("store_buffer", c_uint64),  # stores
        ("forwards", c_uint64),  # user loads get data that only the supervisor may read
        ("needs_l1d", c_uint64),  # ... if the L1 data cache has it
        ("forwards_terminal", c_uint64),  # ... and what the L1D has at the address of a page that is not there
        ("blocks", c_uint64),  # host address of a table of WindowBlock
        ("block_mask", c_uint64),
        ("frames", c_uint64),  # host address of the WindowFrame array
        ("frame_limit", c_uint64),
        ("frame_count", c_uint64),
        ("memory", c_uint64),  # host address of the frames themselves
        ("base", c_uint64),  # their guest-physical address, behind RAM
        ("clock", c_uint64),  # what RDTSC reads
        # the window that is open
        ("capacity", c_uint64),  # instructions
        ("end", c_uint64),
        ("barrier_va", c_uint64),
        ("cache_instructions", c_uint64),  # of the block under way
        ("block_va", c_uint64),
        ("block_key", c_uint64),
        ("second_pa", c_uint64),  # of the page that the block ends on
        ("checksum", c_uint64),
        ("instructions", c_uint64),
        ("loads", c_uint64),
        ("stores", c_uint64),
    )
