"""The registers of the processor that software sees: general registers, RIP, RFLAGS, segment bases."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from unicorn.unicorn_py3.unicorn import uclib

from .softcore import GPR_NAMES
from .state import State

__all__ = ["Registers"]

RIP: Final = 16
"""Index of RIP, behind the sixteen general registers."""


class Registers:
    """Registers by name. `gprs[i]` are the general registers in encoding order, `gprs[16]` is RIP."""

    state: State
    gprs: Any
    _handle: ctypes.c_void_p
    _scratch: ctypes.c_uint64
    _address: int
    _read_flags: Any
    _write_flags: Any

    @property
    def rip(self) -> int:
        """The instruction pointer."""
        return int(self.gprs[RIP])

    @rip.setter
    def rip(self, va: int) -> None:
        self.gprs[RIP] = va

    @property
    def rflags(self) -> int:
        """RFLAGS. IF and AC are the model's: Unicorn's own IF is always set."""
        flags: int = self._read_flags(self._address)
        return flags

    @rflags.setter
    def rflags(self, value: int) -> None:
        self._write_flags(self._address, value)

    @property
    def interrupt_flag(self) -> bool:
        """RFLAGS.IF."""
        return bool(self.state.interrupt_flag)

    @interrupt_flag.setter
    def interrupt_flag(self, allowed: bool) -> None:
        self.state.interrupt_flag = allowed

    def read_segment_base(self, register: int) -> int:
        """FS or GS base (`UC_X86_REG_FS_BASE`, `UC_X86_REG_GS_BASE`)."""
        uclib.uc_reg_read(self._handle, register, ctypes.byref(self._scratch))
        return self._scratch.value

    def write_segment_base(self, register: int, va: int) -> None:
        """Set the FS or GS base."""
        self._scratch.value = va
        uclib.uc_reg_write(self._handle, register, ctypes.byref(self._scratch))

    def registers(self) -> dict[str, int]:
        """All general registers, RIP and RFLAGS by name."""
        values = dict(zip(GPR_NAMES, self.gprs, strict=False))
        return values | {"rip": self.rip, "rflags": self.rflags}
