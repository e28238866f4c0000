"""Hooks: native functions that Unicorn calls at a moment of its own.

Unicorn decides when it translates code which hooks that code calls, so a hook on code is effective only for what is
translated afterwards; whoever adds one drops the translations that are there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from .exceptions import MachineError
from .state import State

__all__ = ["Hooks", "add_hook"]


def add_hook(
    handle: ctypes.c_void_p, function: int, kind: int, data: int, begin: int = 1, end: int = 0, *extra: int
) -> int:
    """Have Unicorn call a C function for a kind of hook, from one address to another (1, 0: everywhere).

    The function gets `data`. Returns what removes the hook. Raises MachineError.
    """
    hook = ctypes.c_size_t()
    status = uclib.uc_hook_add(
        handle,
        ctypes.byref(hook),
        kind,
        ctypes.c_void_p(function),
        ctypes.c_void_p(data),
        ctypes.c_uint64(begin),
        ctypes.c_uint64(end),
        *(ctypes.c_int(number) for number in extra),
    )
    if status:
        raise MachineError(f"Unicorn refuses a hook of kind {kind:#x} (error {status})")
    return hook.value


class Hooks:
    """The hooks of one Unicorn instance; those that every machine needs are there from the start."""

    def __init__(self, handle: ctypes.c_void_p, state: State, code: dict[str, int]) -> None:
        self._handle, self._state, self._code = handle, state, code
        self._add("fill", uc_const.UC_HOOK_TLB_FILL)
        self._add("block_through_caches" if state.caches else "block", uc_const.UC_HOOK_BLOCK)
        self._add("interrupt", uc_const.UC_HOOK_INTR)
        self._add("invalid", uc_const.UC_HOOK_INSN_INVALID)
        for name, number in (
            ("syscall", x86.UC_X86_INS_SYSCALL),
            ("cpuid", x86.UC_X86_INS_CPUID),
            ("rdtsc", x86.UC_X86_INS_RDTSC),
            ("rdtscp", x86.UC_X86_INS_RDTSCP),
        ):
            self._add(name, uc_const.UC_HOOK_INSN, 1, 0, number)
        self._every_access = self._every_instruction = 0
        self._breakpoints: dict[int, int] = {}
        self._watched: dict[int, int] = {}
        self._probed: dict[int, int] = {}
        self._probed_data: list[int] = []

    @property
    def breakpoints(self) -> tuple[int, ...]:
        """Addresses at which Unicorn stops."""
        return tuple(self._breakpoints)

    @property
    def has_every_instruction(self) -> bool:
        """Whether the `instruction` hook is there."""
        return self._every_instruction != 0

    def see_every_access(self) -> bool:
        """Call `access` for every load and store. False if it was so before."""
        if self._every_access:
            return False
        self._every_access = self._add("access", uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE)
        return True

    def on_code(self, breakpoints: tuple[int, ...], *, every_instruction: bool) -> None:
        """Install what is called before instructions anew: the order is that in which Unicorn calls.

        An instruction at which we stop is not told; one that the model executes is.
        """
        in_order = (self._breakpoints, self._probed, self._watched)
        for handle in (*(handle for hooks in in_order for handle in hooks.values()), self._every_instruction):
            self._remove(handle)
        self._breakpoints = {va: self._on_instruction("breakpoint", va) for va in breakpoints}
        self._every_instruction = self._add("instruction", uc_const.UC_HOOK_CODE) if every_instruction else 0
        self._probed = {va: self._on_instruction("probe", va) for va in self._probed}
        self._watched = {va: self._on_instruction("watch", va) for va in self._watched}

    def probe(self, addresses: Iterable[int], function: int) -> None:
        """Call a C function before the instructions at some addresses, in place of earlier ones (`probes.py`)."""
        for handle in self._probed.values():
            self._remove(handle)
        self._code = {**self._code, "probe": function}
        self._probed = dict.fromkeys(addresses, 0)
        self.on_code(self.breakpoints, every_instruction=self.has_every_instruction)

    def probe_data(self, ranges: Iterable[tuple[int, int]], function: int) -> None:
        """Call a C function for loads and stores in some physical ranges, (first, last), in place of earlier ones."""
        for handle in self._probed_data:
            self._remove(handle)
        self._code = {**self._code, "probe_data": function}
        kinds = uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE
        self._probed_data = [self._add("probe_data", kinds, first, last) for first, last in ranges]

    def watch(self, addresses: list[int]) -> bool:
        """Call `watch` before the instructions at some addresses. False if it was so before."""
        new = [va for va in addresses if va not in self._watched]
        self._watched |= {va: self._on_instruction("watch", va) for va in new}
        return bool(new)

    def _on_instruction(self, name: str, va: int) -> int:
        return self._add(name, uc_const.UC_HOOK_CODE, va, va)

    def _add(self, name: str, kind: int, begin: int = 1, end: int = 0, *extra: int) -> int:
        """Install a function of `callbacks.py` for a kind of hook, from one address to another (1, 0: everywhere)."""
        return add_hook(self._handle, self._code[name], kind, ctypes.addressof(self._state), begin, end, *extra)

    def _remove(self, handle: int) -> None:
        """Take a hook out; 0 is none."""
        if handle:
            uclib.uc_hook_del(self._handle, ctypes.c_size_t(handle))
