"""Instructions that need no privilege, but show or change what the model keeps.

Unicorn would execute each of these without telling anyone, with its own flags, tables and random numbers. So the
machine stops before them (`blocks.py` finds them before they execute) and executes them here, as SDM Vol. 2 says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from unicorn import x86_const as x86

from .control import DescriptorTable, is_canonical
from .exceptions import ProcessorException
from .instruction import Instruction
from .interrupt import Vector
from .operands import address, load, pop, push, register, set_register, store
from .privileged import instruction
from .pte import Cr4, Rflags

if TYPE_CHECKING:
    from .machine import Machine

__all__: list[str] = []

IF: Final = int(Rflags.IF)
RSP: Final = 4
MASK64: Final = (1 << 64) - 1
OPERAND_SIZE: Final = 0x66
POPPED: Final = int(
    (Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF)
    | (Rflags.TF | Rflags.DF | Rflags.NT | Rflags.AC | Rflags.ID)
)
"""What POPF changes at every CPL."""

DESCRIPTOR_S, DESCRIPTOR_CODE, DESCRIPTOR_RW, DESCRIPTOR_P = 1 << 44, 1 << 43, 1 << 41, 1 << 47
CONFORMING: Final = 1 << 42


# --- flags -----------------------------------------------------------------------------------------------------


@instruction("pushfq", "pushf", privileged=False, silent=True)
def pushf(machine: Machine, one: Instruction) -> None:
    """PUSHF: RFLAGS; RF and VM are never seen."""
    push(machine, machine.cpu.rflags.to_bytes(8, "little")[: 8 if one.name == "pushfq" else 2])


@instruction("popfq", "popf", privileged=False, silent=True)
def popf(machine: Machine, one: Instruction) -> None:
    """POPF. IF changes only at CPL 0, because IOPL is 0; at CPL 3 it silently stays."""
    size = 8 if one.name == "popfq" else 2
    value = int.from_bytes(pop(machine, size), "little")
    changed = POPPED | (0 if machine.cpl else IF)
    if size == 2:
        changed &= 0xFFFF
    machine.cpu.rflags = (machine.cpu.rflags & ~changed) | (value & changed)
    machine.cpu.flush_soft_tlb()  # AC lifts SMAP


# --- segments ---------------------------------------------------------------------------------------------------


@instruction("mov_from_segment", privileged=False, silent=True)
def mov_from_segment(machine: Machine, one: Instruction) -> None:
    """MOV from a segment register: its selector, zero-extended to a register."""
    _show(machine, one, machine.interrupts.selector(one.registers[-1]), 2)


@instruction("mov_to_segment", privileged=False, silent=True)
def mov_to_segment(machine: Machine, one: Instruction) -> None:
    """MOV to a segment register; its descriptor must be there and suit (SDM Vol. 2B, MOV)."""
    name = one.registers[0]
    if name == "cs":
        raise ProcessorException(Vector.UD)
    _load_segment(machine, name, _selector(machine, one))


@instruction("push_segment", privileged=False, silent=True)
def push_segment(machine: Machine, one: Instruction) -> None:
    """PUSH FS, PUSH GS: the selector, zero-extended."""
    selector = machine.interrupts.selector(one.registers[0])
    push(machine, selector.to_bytes(_stack_size(machine, one), "little"))


@instruction("pop_segment", privileged=False, silent=True)
def pop_segment(machine: Machine, one: Instruction) -> None:
    """POP FS, POP GS."""
    size, rsp = _stack_size(machine, one), machine.cpu.gprs[RSP]
    selector = int.from_bytes(load(machine, rsp, size, stack=True)[:2], "little")
    _load_segment(machine, one.registers[0], selector)
    machine.cpu.gprs[RSP] = (rsp + size) & MASK64


def _stack_size(machine: Machine, one: Instruction) -> int:
    """8 bytes, or 2 with an operand-size prefix."""
    return 2 if OPERAND_SIZE in machine.cpu.code_at(machine.cpu.rip, one.size)[:-2] else 8


def _load_segment(machine: Machine, name: str, selector: int) -> None:
    """Load a segment register; FS and GS take their base from the descriptor."""
    descriptor = _stack_segment(machine, selector) if name == "ss" else _data_segment(machine, selector)
    machine.interrupts.set_selector(name, selector)
    if name in _BASES:
        machine.cpu.write_segment_base(_BASES[name], (descriptor >> 16 & 0xFF_FFFF) | (descriptor >> 32 & 0xFF00_0000))


_BASES: Final = {"fs": x86.UC_X86_REG_FS_BASE, "gs": x86.UC_X86_REG_GS_BASE}


def _selector(machine: Machine, one: Instruction) -> int:
    """The 16-bit source operand."""
    if one.memory is None:
        return register(machine, one.registers[-1]) & 0xFFFF
    return int.from_bytes(load(machine, address(machine, one), 2, stack=one.memory.stack), "little")


def _data_segment(machine: Machine, selector: int) -> int:
    """The descriptor of a segment that can be read with these rights; 0 for the null selector."""
    if not selector & ~3:
        return 0
    descriptor = machine.interrupts.descriptor(selector)
    is_code = descriptor & DESCRIPTOR_CODE
    readable = descriptor & DESCRIPTOR_S and (not is_code or descriptor & DESCRIPTOR_RW)
    free_for_all = is_code and descriptor & CONFORMING
    if not readable or (not free_for_all and descriptor >> 45 & 3 < max(selector & 3, machine.cpl)):
        raise ProcessorException(Vector.GP, selector & ~3)
    if not descriptor & DESCRIPTOR_P:
        raise ProcessorException(Vector.NP, selector & ~3)
    return descriptor


def _stack_segment(machine: Machine, selector: int) -> int:
    """The descriptor of a stack segment of this very privilege; 0 for the null selector, good for the kernel."""
    cpl = machine.cpl
    if not selector & ~3:
        if cpl == 3 or selector & 3 != cpl:
            raise ProcessorException(Vector.GP, 0)
        return 0
    descriptor = machine.interrupts.descriptor(selector)
    writable = descriptor & DESCRIPTOR_S and not descriptor & DESCRIPTOR_CODE and descriptor & DESCRIPTOR_RW
    if not writable or selector & 3 != cpl or descriptor >> 45 & 3 != cpl:
        raise ProcessorException(Vector.GP, selector & ~3)
    if not descriptor & DESCRIPTOR_P:
        raise ProcessorException(Vector.SS, selector & ~3)
    return descriptor


@instruction("rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase", privileged=False, silent=True)
def fsgsbase(machine: Machine, one: Instruction) -> None:
    """RDFSBASE and its family: #UD unless the kernel allows them with CR4.FSGSBASE."""
    if not machine.control.cr4 & Cr4.FSGSBASE:
        raise ProcessorException(Vector.UD)
    base, name = _BASES[one.name[2:4]], one.registers[0]
    if one.name.startswith("rd"):
        set_register(machine, name, machine.cpu.read_segment_base(base))
        return
    value = register(machine, name)
    if not is_canonical(value, machine.control.levels):
        raise ProcessorException(Vector.GP, 0)
    machine.cpu.write_segment_base(base, value)


# --- system registers that anyone may read -------------------------------------------------------------------------


def _show(machine: Machine, one: Instruction, value: int, size: int) -> None:
    """Store `size` bytes to memory, or all to a register."""
    if one.memory is None:
        set_register(machine, one.registers[0], value)
    else:
        data = value.to_bytes(8, "little")[:size]
        store(machine, address(machine, one), data, stack=one.memory.stack)


def _store_table(machine: Machine, one: Instruction, table: DescriptorTable) -> None:
    assert one.memory is not None
    data = table.limit.to_bytes(2, "little") + table.base.to_bytes(8, "little")
    store(machine, address(machine, one), data, stack=one.memory.stack)


@instruction("sgdt", privileged=False, silent=True)
def sgdt(machine: Machine, one: Instruction) -> None:
    """SGDT m80: also at CPL 3, for there is no CR4.UMIP."""
    _store_table(machine, one, machine.control.gdtr)


@instruction("sidt", privileged=False, silent=True)
def sidt(machine: Machine, one: Instruction) -> None:
    """SIDT m80."""
    _store_table(machine, one, machine.control.idtr)


@instruction("str", privileged=False, silent=True)
def store_task_register(machine: Machine, one: Instruction) -> None:
    """STR: the selector of the TSS."""
    _show(machine, one, machine.interrupts.task_selector, 2)


@instruction("sldt", privileged=False, silent=True)
def sldt(machine: Machine, one: Instruction) -> None:
    """SLDT: there is never a local descriptor table."""
    _show(machine, one, 0, 2)


@instruction("smsw", privileged=False, silent=True)
def smsw(machine: Machine, one: Instruction) -> None:
    """SMSW: the lower part of CR0."""
    _show(machine, one, machine.control.cr0, 2)


# --- what this processor does not have ---------------------------------------------------------------------------


@instruction("in", privileged=False, silent=True)
def port_in(machine: Machine, one: Instruction) -> None:
    """IN: there are no devices, so the kernel reads all ones; for the user IOPL and the TSS allow no port."""
    if machine.cpl:
        raise ProcessorException(Vector.GP, 0)
    set_register(machine, one.registers[0], -1)


@instruction("out", privileged=False, silent=True)
def port_out(machine: Machine, one: Instruction) -> None:
    """OUT: nobody listens."""
    if machine.cpl:
        raise ProcessorException(Vector.GP, 0)


@instruction("retf", "retfq", "lret", "lcall", "ljmp", "lss", "lfs", "lgs", privileged=False, silent=True)
@instruction("insb", "insw", "insd", "outsb", "outsw", "outsd", "sysenter", privileged=False, silent=True)
@instruction("iret", "iretd", privileged=False, silent=True)
def refused(machine: Machine, one: Instruction) -> None:
    """What this machine does not do: far transfers and pointers, string input and output, SYSENTER, and IRET to a
    frame of 4-byte or 2-byte values. Always #GP.
    """
    raise ProcessorException(Vector.GP, 0)


@instruction("rdrand", "rdseed", "xgetbv", privileged=False, silent=True)
@instruction("xsave", "xsave64", "xsaveopt", "xsaveopt64", "xsavec", "xsavec64", privileged=False, silent=True)
@instruction("xsaves", "xsaves64", "xrstor", "xrstor64", "xrstors", "xrstors64", privileged=False, silent=True)
@instruction("vzeroupper", "vzeroall", "xbegin", "xabort", privileged=False, silent=True)
@instruction("extrq", "insertq", "movntss", "movntsd", privileged=False, silent=True)
def absent(machine: Machine, one: Instruction) -> None:
    """What CPUID does not report: random numbers (a run must be repeatable), XSAVE, AVX, RTM, SSE4a."""
    raise ProcessorException(Vector.UD)
