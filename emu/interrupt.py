"""Interrupts and exceptions: through the IDT in guest memory to a handler, and back with IRET (SDM Vol. 3A chapter 6).

The processor reads a gate, takes a stack from the TSS (always, if the gate names an IST entry; on a change of
privilege otherwise), and pushes

    SS  RSP  RFLAGS  CS  RIP  [error code]

*through the current page tables*, with supervisor rights. If that faults there is a double fault, and if that
cannot be delivered either, a triple fault. Nothing here knows what a handler does with it.
"""

from __future__ import annotations

import ctypes
from typing import Final

from .control import Control, DescriptorTable
from .cpu import Cpu
from .exceptions import ProcessorException, TripleFault

__all__ = ["VECTOR_NAMES", "Interrupts", "Vector"]


class Vector:
    """Exception numbers, SDM Table 6-1."""

    DE: Final = 0
    DB: Final = 1
    BP: Final = 3
    UD: Final = 6
    DF: Final = 8
    TS: Final = 10
    NP: Final = 11
    SS: Final = 12
    GP: Final = 13
    PF: Final = 14


VECTOR_NAMES: Final = {
    **{0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF"},
    **{10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM"},
}
_CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13})
"""SDM Table 6-5: two of these in a row, or one of these or #PF after a #PF, make a double fault."""

NO_ERROR_CODE: Final = -1
LOCAL: Final = 1 << 2
"""In a selector: of the local descriptor table, and there is none."""

EXTERNAL: Final = 1
"""In an error code that names a selector or a gate: it happened while something was delivered that no INT n asked
for (SDM Vol. 3A 6.13).
"""

TSS_DESCRIPTOR_SIZE: Final = 16
AVAILABLE_TSS: Final = 9
BUSY, PRESENT = 1 << 41, 1 << 47
"""Of a TSS descriptor: its type, and bits that say more."""

SWAPGS, SYSRETQ, IRETQ = 0, 1, 2
MASK32: Final = (1 << 32) - 1


class Interrupts:
    """Delivery and return for one processor; the work itself is native (`transfer.py`)."""

    def __init__(self, cpu: Cpu, control: Control, code: dict[str, int]) -> None:
        self._cpu, self._state, self._control = cpu, cpu.state, control
        self._address = ctypes.addressof(cpu.state)
        self.cs, self.ss = 0x10, 0x18
        self.task_selector = 0
        self._data_selectors = dict.fromkeys(("ds", "es", "fs", "gs"), 0)
        word = ctypes.c_int64
        self._deliver = ctypes.CFUNCTYPE(word, word, word, word, word)(code["deliver_entry"])
        self._transfer = ctypes.CFUNCTYPE(word, word, word)(code["transfer_entry"])

    @property
    def cs(self) -> int:
        """The code-segment selector in the model (Unicorn's own is always 0x33)."""
        return int(self._state.cs)

    @cs.setter
    def cs(self, selector: int) -> None:
        self._state.cs = selector

    @property
    def ss(self) -> int:
        """The stack-segment selector in the model."""
        return int(self._state.ss)

    @ss.setter
    def ss(self, selector: int) -> None:
        self._state.ss = selector

    def selector(self, segment: str) -> int:
        """The selector in a segment register ("cs", "ss", "ds", "es", "fs", "gs")."""
        return {"cs": self.cs, "ss": self.ss, **self._data_selectors}[segment]

    def set_selector(self, segment: str, selector: int) -> None:
        """Set a segment register other than CS. Only SS means anything in 64-bit mode."""
        if segment == "ss":
            self.ss = selector
        else:
            self._data_selectors[segment] = selector

    def descriptor(self, selector: int, size: int = 8) -> int:
        """Load a descriptor of `size` bytes from the GDT. Raises #GP for the null selector, one beyond the table or
        in a local table.
        """
        at, table = selector & ~7, self._control.gdtr
        if not at or selector & LOCAL or at + size - 1 > table.limit:
            raise ProcessorException(Vector.GP, selector & ~3)
        return int.from_bytes(self._cpu.mmu.read(table.base + at, size, implicit=True), "little")

    def load_task_register(self, selector: int) -> None:
        """LTR: find the TSS through its descriptor in the GDT, and mark it busy there (SDM Figure 8-4)."""
        descriptor = self.descriptor(selector, TSS_DESCRIPTOR_SIZE)
        if descriptor >> 40 & 0x1F != AVAILABLE_TSS:
            raise ProcessorException(Vector.GP, selector & ~3)
        if not descriptor & PRESENT:
            raise ProcessorException(Vector.NP, selector & ~3)
        busy = (descriptor | BUSY).to_bytes(TSS_DESCRIPTOR_SIZE, "little")[:8]
        self._cpu.mmu.write(self._control.gdtr.base + (selector & ~7), busy, implicit=True)
        base = (descriptor >> 16 & 0xFF_FFFF) | (descriptor >> 32 & 0xFF00_0000) | (descriptor >> 64 & MASK32) << 32
        self._control.task = DescriptorTable(base, (descriptor & 0xFFFF) | (descriptor >> 32 & 0xF_0000))
        self.task_selector = selector

    def _pending(self) -> ProcessorException:
        """The exception that a delivery or a return met."""
        s = self._state
        is_fault = s.pending_vector == Vector.PF
        return ProcessorException(s.pending_vector, s.pending_code, s.pending_address if is_fault else None)

    def _enter(self, vector: int, error_code: int | None, *, software: bool = False) -> None:
        """Everything up to the first instruction of the handler. Raises ProcessorException with nothing changed."""
        code = NO_ERROR_CODE if error_code is None else error_code
        if not self._deliver(self._address, vector, code, software):
            raise self._pending()
        if self._state.code_written:
            self._state.code_written = 0
            self._cpu.ram.on_code_write(0)

    def deliver(self, exception: ProcessorException, *, was_tried: bool = False) -> None:
        """Deliver an exception, or the double fault that delivering it makes. Raises TripleFault.

        With `was_tried` native code has just tried it, and met a second exception.
        """
        original = exception
        if exception.address is not None:
            self._control.cr2 = exception.address
        second = self._pending() if was_tried else self._try(exception)
        while second is not None:
            if second.address is not None:
                self._control.cr2 = second.address
            exception = self._combine(exception, _external(second), original)
            second = self._try(exception)

    def _try(self, exception: ProcessorException) -> ProcessorException | None:
        """Deliver an exception; returns the one that this met."""
        try:
            self._enter(exception.vector, exception.error_code)
        except ProcessorException as second:
            return second
        return None

    def _combine(
        self, first: ProcessorException, second: ProcessorException, original: ProcessorException
    ) -> ProcessorException:
        """What a fault during the delivery of `first` becomes (SDM Table 6-5)."""
        if first.vector == Vector.DF:
            rip, rsp = self._cpu.rip, self._cpu.gprs[4]
            raise TripleFault(
                f"triple fault at rip {rip:#x}, rsp {rsp:#x}: {_name(original)} could not be delivered, "
                f"and neither could a double fault ({_name(second)})"
            )
        contributory = second.vector in _CONTRIBUTORY
        if first.vector in _CONTRIBUTORY and contributory:
            return ProcessorException(Vector.DF, 0)
        if first.vector == Vector.PF and (contributory or second.vector == Vector.PF):
            return ProcessorException(Vector.DF, 0)
        return second

    def interrupt(self, vector: int) -> None:
        """Deliver an external interrupt. Raises TripleFault."""
        try:
            self._enter(vector, None)
        except ProcessorException as fault:
            self.deliver(_external(fault))

    def software(self, vector: int) -> None:
        """INT n; RIP is already after it. Raises ProcessorException if there is no gate or its DPL forbids it."""
        self._enter(vector, None, software=True)

    def transfer(self, kind: int) -> None:
        """Execute SWAPGS, SYSRETQ or IRETQ. Raises ProcessorException with nothing changed."""
        if not self._transfer(self._address, kind):
            raise self._pending()


def _external(fault: ProcessorException) -> ProcessorException:
    """A fault during the delivery of something else than INT n."""
    if fault.error_code is not None and fault.vector in _CONTRIBUTORY:
        fault.error_code |= EXTERNAL
    return fault


def _name(exception: ProcessorException) -> str:
    where = f" for {exception.address:#x}" if exception.address is not None else ""
    return VECTOR_NAMES.get(exception.vector, str(exception.vector)) + where
