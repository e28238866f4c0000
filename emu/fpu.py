"""The x87 and SSE registers as FXSAVE and FXRSTOR lay them out: 512 bytes (SDM Vol. 1, 10.5.1 and Table 10-2).

    0   FCW, FSW (2 bytes each), FTW (1 byte: a bit for each register that is not empty), FOP at 6
    8   FIP, FDP (8 bytes each): the last instruction and its operand; the machine keeps neither, they are 0
    24  MXCSR, MXCSR_MASK (4 bytes each)
    32  ST0 to ST7, 16 bytes each, of which 10 are used
    160 XMM0 to XMM15, 16 bytes each
    416 nothing; the last 48 bytes are the software's own

The stack registers are saved in the order of the stack, their tags in the order of the registers.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

__all__ = ["FXSAVE_SIZE", "Fpu"]

FXSAVE_SIZE: Final = 512
MXCSR_MASK: Final = 0xFFFF
"""Bits of MXCSR that exist (SDM Vol. 1, 11.6.6)."""
STACK_AT, XMM_AT = 32, 160
_HEAD: Final = struct.Struct("<HHBxHQQII")
_CONTROL: Final = (x86.UC_X86_REG_FPCW, x86.UC_X86_REG_FPSW, x86.UC_X86_REG_FPTAG, x86.UC_X86_REG_MXCSR)
EMPTY: Final = 3
TOP_SHIFT: Final = 11


class Fpu:
    """The floating-point registers of one Unicorn, whose handle is given; an area is 512 bytes.

    All registers are read or written at once, right between Unicorn and the area: one by one takes 50 times as long.
    """

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._handle = handle
        self._area = (ctypes.c_uint8 * FXSAVE_SIZE)()
        self._control = (ctypes.c_uint64 * len(_CONTROL))()
        at = ctypes.addressof(self._area)
        words = ctypes.addressof(self._control)
        self._control_batch = self._batch(_CONTROL, [words + 8 * n for n in range(len(_CONTROL))])
        places = [at + STACK_AT + 16 * n for n in range(8)] + [at + XMM_AT + 16 * n for n in range(16)]
        xmm = [x86.UC_X86_REG_XMM0 + n for n in range(16)]
        self._data_batches = [
            self._batch([x86.UC_X86_REG_FP0 + (top + n) % 8 for n in range(8)] + xmm, places) for top in range(8)
        ]
        """One for each place of the top of the stack."""

    def _batch(self, registers: list[int] | tuple[int, ...], places: list[int]) -> tuple[object, object, int]:
        count = len(registers)
        return (ctypes.c_int * count)(*registers), (ctypes.c_void_p * count)(*places), count

    def control(self) -> tuple[int, int, int]:
        """FCW, FSW and MXCSR."""
        uclib.uc_reg_read_batch(self._handle, *self._control_batch)
        control, status, _, mxcsr = self._control
        return control, status, mxcsr

    def fxsave(self) -> bytes:
        """What FXSAVE would store now; the software's bytes are 0."""
        control, status, mxcsr = self.control()
        tags = self._control[2]
        uclib.uc_reg_read_batch(self._handle, *self._data_batches[status >> TOP_SHIFT & 7])
        used = sum(1 << n for n in range(8) if tags >> 2 * n & EMPTY != EMPTY)
        _HEAD.pack_into(self._area, 0, control, status, used, 0, 0, 0, mxcsr, MXCSR_MASK)
        return bytes(self._area)

    def fxrstor(self, area: bytes) -> bool:
        """Load what FXSAVE stored. False, with nothing changed, for bits of MXCSR that do not exist (#GP)."""
        control, status, used, _, _, _, mxcsr, _ = _HEAD.unpack_from(area)
        if mxcsr & ~MXCSR_MASK:
            return False
        ctypes.memmove(self._area, area, XMM_AT + 16 * 16)
        tags = sum(EMPTY << 2 * n for n in range(8) if not used >> n & 1)
        self._control[:] = [control, status, tags, mxcsr]
        uclib.uc_reg_write_batch(self._handle, *self._data_batches[status >> TOP_SHIFT & 7])
        uclib.uc_reg_write_batch(self._handle, *self._control_batch)
        return True
