"""Probes: hear what a run does at some places, without a trace of it in the run itself.

A breakpoint stops the machine, and a machine that is stopped and started again is not quite the one that ran through:
a timer is looked at once more, a block of code is fetched in two pieces. A probe only tells. The run under it has
every cycle, TLB entry and page walk that it has without, so what a probe sees at instruction number N is what happens
at instruction number N (a debugger that goes backwards lives on that).

>>> from emu import Machine
>>> machine = Machine(ram="1M")
>>> for table, below in {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4028: 0x6007}.items():
...     machine.ram.store64(table, below)
>>> machine.ram.write(0x6000, bytes.fromhex("48 ff c0 48 ff c0 0f 01 c1"))       # inc rax; inc rax; vmcall
>>> machine.write_cr3(0x1000)
>>> machine.cpu.rip, machine.monitor = 0x5000, lambda rip: machine.stop()
>>> probes = Probes(machine)
>>> probes.before([0x5003], lambda va: print(f"{va:#x} after", probes.retired(va), "instructions"))
>>> _ = machine.run()
0x5003 after 1 instructions
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any, Final

from .machine import Machine
from .state import Stop

__all__ = ["Probes"]

USER: Final = 3
UC_MEM_WRITE: Final = 17
LISTENING: Final = 1 << 62
"""A bit of `State.listeners` that no event has: while it is set, RIP is exact at every access (counting.py)."""

_INSTRUCTION: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_ACCESS: Final = ctypes.CFUNCTYPE(
    *(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p)
)


class Probes:
    """The probes of one machine. What a callback raises comes out of `settle`, to be called when the run is left."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._state, self._cpu = machine, machine.state, machine.cpu
        self._before: Callable[[int], object] = lambda _va: None
        self._accessed: Callable[[bool, int, int], object] = lambda _write, _pa, _size: None
        self._raised: BaseException | None = None
        self._functions = _INSTRUCTION(self._on_instruction), _ACCESS(self._on_access)
        self._addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in self._functions]

    def before(self, addresses: Iterable[int], callback: Callable[[int], object]) -> None:
        """Call `callback(va)` before an instruction at one of these addresses is tried; replaces earlier ones.

        An instruction that faults is tried again when the fault is mended. A REP is one instruction.
        """
        self._before = callback
        self._cpu.hooks.probe(addresses, self._addresses[0])
        self._cpu.retranslate()

    def accesses(self, ranges: Iterable[tuple[int, int]], callback: Callable[[bool, int, int], object]) -> None:
        """Call `callback(is_write, pa, size)` for loads and stores of the guest's code in physical ranges.

        A range is (first, last). Replaces earlier ones, also during a run. Everything runs as slowly as with the
        access engine from now on.
        """
        self._accessed = callback
        self._cpu.see_every_access()
        self._state.listeners |= LISTENING
        self._cpu.hooks.probe_data(ranges, self._addresses[1])

    def retired(self, va: int) -> int:
        """Instructions that have retired before the one at `va`, which is being tried."""
        return int(self._state.instructions) - self._cpu.blocks.tail(va, inclusive=True).instructions

    def retired_with(self, va: int) -> int:
        """The same, with the one at `va`."""
        return int(self._state.instructions) - self._cpu.blocks.tail(va, inclusive=False).instructions

    def user_part(self, retired: int) -> int:
        """How many of so many instructions, counted up to now, were in user mode."""
        s = self._state
        return int(s.mode_totals[0]) + (retired - int(s.mode_start[0]) if s.counted_as == USER else 0)

    def stop(self) -> None:
        """End the run. Where it stops is not exact: a probe has said what there was to say."""
        self._machine.stop()
        self._state.stop = Stop.REQUESTED
        self._cpu.uc.emu_stop()

    def settle(self) -> None:
        """Raise what a callback raised."""
        if self._raised is not None:
            error, self._raised = self._raised, None
            raise error

    def _call(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Nothing may be raised into Unicorn."""
        try:
            callback(*arguments)
        except BaseException as error:  # handed on by `settle`
            self._raised = self._raised or error
            self.stop()

    def _on_instruction(self, _uc: int, va: int, _size: int, _data: int) -> None:
        self._state.hooked_va = va
        if not self._state.repeats:
            self._call(self._before, va)

    def _on_access(self, _uc: int, kind: int, pa: int, size: int, _value: int, _data: int) -> None:
        self._call(self._accessed, kind == UC_MEM_WRITE, pa, size)
