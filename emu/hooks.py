"""Hooks: native functions that Unicorn calls at a moment of its own.

Unicorn decides when it translates code which hooks that code calls, so a hook on code is effective only for what is
translated afterwards; whoever adds one drops the translations that are there.
"""

from __future__ import annotations

import ctypes

from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from .exceptions import MachineError
from .state import State

__all__ = ["Hooks"]


class Hooks:
    """The hooks of one Unicorn instance; those that every machine needs are there from the start."""

    def __init__(self, handle: ctypes.c_void_p, state: State, code: dict[str, int]) -> None:
        self._handle, self._state, self._code = handle, state, code
        self.add("fill", uc_const.UC_HOOK_TLB_FILL)
        self.add("block", uc_const.UC_HOOK_BLOCK)
        self.add("interrupt", uc_const.UC_HOOK_INTR)
        self.add("invalid", uc_const.UC_HOOK_INSN_INVALID)
        for name, number in (
            ("syscall", x86.UC_X86_INS_SYSCALL),
            ("cpuid", x86.UC_X86_INS_CPUID),
            ("rdtsc", x86.UC_X86_INS_RDTSC),
            ("rdtscp", x86.UC_X86_INS_RDTSCP),
        ):
            self.add(name, uc_const.UC_HOOK_INSN, 1, 0, number)

    def add(self, name: str, kind: int, begin: int = 1, end: int = 0, *extra: int) -> int:
        """Install a function of `callbacks.py` for a kind of hook, from one address to another (1, 0: everywhere)."""
        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._handle,
            ctypes.byref(handle),
            kind,
            ctypes.c_void_p(self._code[name]),
            ctypes.c_void_p(ctypes.addressof(self._state)),
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
            *(ctypes.c_int(number) for number in extra),
        )
        if status:
            raise MachineError(f"Unicorn refuses the hook {name} (error {status})")
        return handle.value

    def remove(self, handle: int) -> None:
        """Take a hook out; 0 is none."""
        if handle:
            uclib.uc_hook_del(self._handle, ctypes.c_size_t(handle))
