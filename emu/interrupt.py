"""Interrupts and exceptions: through the IDT in guest memory to a handler, and back with IRET (SDM Vol. 3A chapter 6).

The processor reads a gate, takes a stack from the TSS (always, if the gate names an IST entry; on a change of
privilege otherwise), and pushes

    SS  RSP  RFLAGS  CS  RIP  [error code]

*through the current page tables*, with supervisor rights. If that faults there is a double fault, and if that
cannot be delivered either, a triple fault. Nothing here knows what a handler does with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .control import Control, is_canonical
from .cpu import Cpu
from .exceptions import ProcessorException, TripleFault
from .pte import Rflags

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
_PUSHES_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
_CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13})
"""SDM Table 6-5: two of these in a row, or one of these or #PF after a #PF, make a double fault."""

GATE_SIZE: Final = 16
INTERRUPT_GATE, TRAP_GATE = 0xE, 0xF
PRESENT: Final = 1 << 47
TSS_RSP0: Final = 4
TSS_IST1: Final = 0x24
MASK64: Final = (1 << 64) - 1
IF: Final = int(Rflags.IF)
CLEARED: Final = int(Rflags.TF | Rflags.NT | Rflags.RF)


@dataclass(frozen=True, slots=True)
class Gate:
    """A 64-bit interrupt or trap gate, SDM Figure 6-8."""

    offset: int
    selector: int
    ist: int
    kind: int
    dpl: int
    present: bool

    @classmethod
    def decode(cls, low: int, high: int) -> Gate:
        """Read a gate from its two 8-byte words."""
        offset = (low & 0xFFFF) | ((low >> 32) & 0xFFFF_0000) | (high & 0xFFFF_FFFF) << 32
        return cls(
            offset=offset,
            selector=(low >> 16) & 0xFFFF,
            ist=(low >> 32) & 7,
            kind=(low >> 40) & 0xF,
            dpl=(low >> 45) & 3,
            present=bool(low & PRESENT),
        )


class Interrupts:
    """Delivery and return for one processor. `cs` and `ss` are the model's selectors."""

    def __init__(self, cpu: Cpu, control: Control, set_cpl: Callable[[int], None]) -> None:
        self._cpu, self._mmu, self._control, self._set_cpl = cpu, cpu.mmu, control, set_cpl
        self.cs, self.ss = 0x10, 0x18

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self._mmu.state.cpl

    # --- delivery ---------------------------------------------------------------------------------------------

    def deliver(self, exception: ProcessorException) -> None:
        """Deliver an exception, or the double fault that delivering it makes. Raises TripleFault."""
        first = exception
        while True:
            try:
                if exception.address is not None:
                    self._control.cr2 = exception.address
                self._enter(exception.vector, exception.error_code)
                return
            except ProcessorException as second:
                exception = self._combine(exception, second, first)

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
        escalates = second.vector in _CONTRIBUTORY or second.vector == Vector.PF
        if first.vector in _CONTRIBUTORY and second.vector in _CONTRIBUTORY:
            return ProcessorException(Vector.DF, 0)
        if first.vector == Vector.PF and escalates:
            return ProcessorException(Vector.DF, 0)
        return second

    def interrupt(self, vector: int) -> None:
        """Deliver an external interrupt. Raises TripleFault."""
        try:
            self._enter(vector, None)
        except ProcessorException as fault:
            self.deliver(fault)

    def software(self, vector: int, size: int) -> None:
        """INT n of `size` bytes: RIP is already after it. The gate's DPL must allow it, else #GP at the instruction."""
        try:
            self._enter(vector, None, software=True)
        except ProcessorException as fault:
            self._cpu.rip -= size
            self.deliver(fault)

    def _gate(self, vector: int, *, software: bool) -> Gate:
        table, at = self._control.idtr, vector * GATE_SIZE
        code = vector * 8 + 2
        if at + GATE_SIZE - 1 > table.limit:
            raise ProcessorException(Vector.GP, code)
        low = self._mmu.load64(table.base + at, implicit=True)
        high = self._mmu.load64(table.base + at + 8, implicit=True)
        gate = Gate.decode(low, high)
        if gate.kind not in (INTERRUPT_GATE, TRAP_GATE) or (software and gate.dpl < self.cpl):
            raise ProcessorException(Vector.GP, code)
        if not gate.present:
            raise ProcessorException(Vector.NP, code)
        return gate

    def _enter(self, vector: int, error_code: int | None, *, software: bool = False) -> None:
        """Everything up to the first instruction of the handler; state changes only when all of it succeeded."""
        cpu, gate = self._cpu, self._gate(vector, software=software)
        self._check_code_segment(gate.selector)
        flags = cpu.rflags
        rsp = self._stack(gate) & ~0xF
        if not is_canonical(gate.offset, self._control.levels):
            raise ProcessorException(Vector.GP, 0)
        frame = [self.ss, cpu.gprs[4], flags, self.cs, cpu.rip]
        if error_code is not None and vector in _PUSHES_ERROR_CODE:
            frame.append(error_code)
        for value in frame:
            rsp = (rsp - 8) & MASK64
            if not is_canonical(rsp, self._control.levels):
                raise ProcessorException(Vector.SS, 0)
            self._mmu.store64(rsp, value, implicit=True)
        cpu.gprs[4] = rsp
        cpu.rip = gate.offset
        cpu.rflags = flags & ~(CLEARED | (IF if gate.kind == INTERRUPT_GATE else 0))
        if self.cpl:
            self.ss = 0
        self.cs = gate.selector & ~3
        self._set_cpl(0)

    def _stack(self, gate: Gate) -> int:
        """Stack pointer of the handler: from the TSS, or the current one when the kernel itself is interrupted."""
        if gate.ist:
            return self._tss(TSS_IST1 + 8 * (gate.ist - 1))
        return self._tss(TSS_RSP0) if self.cpl else self._cpu.gprs[4]

    def _tss(self, offset: int) -> int:
        """An 8-byte field of the TSS (they are not aligned)."""
        if offset + 7 > self._control.task.limit:
            raise ProcessorException(Vector.TS, 0)
        return int.from_bytes(self._mmu.read(self._control.task.base + offset, 8, implicit=True), "little")

    def _check_code_segment(self, selector: int) -> int:
        """Read a code segment's descriptor from the GDT: must be present, 64-bit. Returns its DPL."""
        descriptor = self.descriptor(selector)
        is_code, is_long = descriptor >> 43 & 3 == 3, descriptor >> 53 & 1
        if not is_code or not is_long:
            raise ProcessorException(Vector.GP, selector & ~3)
        if not descriptor & PRESENT:
            raise ProcessorException(Vector.NP, selector & ~3)
        return descriptor >> 45 & 3

    def descriptor(self, selector: int) -> int:
        """The 8 bytes of a segment descriptor. Raises #GP for a null selector or one beyond the table."""
        at, table = selector & ~7, self._control.gdtr
        if not at or at + 7 > table.limit:
            raise ProcessorException(Vector.GP, selector & ~3)
        return self._mmu.load64(table.base + at, implicit=True)

    # --- return -----------------------------------------------------------------------------------------------

    def iret(self) -> None:
        """IRETQ (SDM Vol. 2A): pop RIP, CS, RFLAGS, RSP, SS. Raises ProcessorException with nothing changed."""
        cpu = self._cpu
        rsp = cpu.gprs[4]
        rip, cs, flags, new_rsp, ss = (self._mmu.load64(rsp + 8 * i) for i in range(5))
        dpl = self._check_code_segment(cs)
        if cs & 3 < self.cpl or dpl != cs & 3:
            raise ProcessorException(Vector.GP, cs & 0xFFFC)
        if not is_canonical(rip, self._control.levels):
            raise ProcessorException(Vector.GP, 0)
        cpu.rip, cpu.gprs[4] = rip, new_rsp
        cpu.rflags = flags
        self.cs, self.ss = cs & 0xFFFF, ss & 0xFFFF
        self._set_cpl(cs & 3)


def _name(exception: ProcessorException) -> str:
    where = f" for {exception.address:#x}" if exception.address is not None else ""
    return VECTOR_NAMES.get(exception.vector, str(exception.vector)) + where
