"""Privileged and system instructions, executed by the model (Intel SDM Vol. 2 and Vol. 3A 5.9).

Inside Unicorn the guest is always in ring 3, so each of these traps. At CPL 3 the processor raises #GP(0) (or #UD where
the manual says so); at CPL 0 the function here does what the manual's operation section does. A new instruction
is one function with the `@instruction` decorator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .control import DescriptorTable
from .exceptions import GuestHalted, ProcessorException
from .instruction import Instruction
from .interrupt import IRETQ, SWAPGS, SYSRETQ, Vector
from .operands import address, load, register, set_register
from .pte import Cr4, Efer

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["execute", "instruction", "is_models"]

MASK32: Final = (1 << 32) - 1
MASK64: Final = (1 << 64) - 1
SCE: Final = int(Efer.SCE)
RAX, RCX, RDX = 0, 1, 2

Handler = Callable[["Machine", Instruction], bool | None]
"""Executes one instruction; returns True if it set RIP itself."""

_HANDLERS: dict[str, tuple[Handler, bool]] = {}
_SILENT: set[str] = set()


def instruction(*names: str, privileged: bool = True, silent: bool = False) -> Callable[[Handler], Handler]:
    """Register the handler of the instructions with these names.

    A privileged one is #GP(0) at CPL 3. A silent one does not trap: Unicorn would execute it in its own way.
    """

    def decorate(handler: Handler) -> Handler:
        for name in names:
            _HANDLERS[name] = (handler, privileged)
            if silent:
                _SILENT.add(name)
        return handler

    return decorate


def is_models(one: Instruction) -> bool:
    """Whether the machine must stop before this instruction: silent, or nothing that a processor would execute."""
    return one.name in _SILENT or not one.known


def execute(machine: Machine, one: Instruction | None, vector: int) -> None:
    """Execute the instruction at RIP; one that has no handler ends in the exception that Unicorn gave it.

    Raises ProcessorException where the manual says so.
    """
    if one is None:
        raise ProcessorException(Vector.UD)
    if one.name not in _HANDLERS:
        raise ProcessorException(vector, 0 if vector == Vector.GP else None)
    handler, privileged = _HANDLERS[one.name]
    if privileged and machine.cpl:
        raise ProcessorException(Vector.GP, 0)
    if not handler(machine, one):
        machine.cpu.rip = (machine.cpu.rip + one.size) & MASK64


# --- control registers ---------------------------------------------------------------------------------------


CONTROL_REGISTERS: Final = frozenset({"cr0", "cr2", "cr3", "cr4", "cr8"})


def _check_control_register(machine: Machine, name: str) -> None:
    """A register that does not exist is #UD at any CPL, one that does is #GP at CPL 3 (SDM Vol. 2B, MOV)."""
    if name not in CONTROL_REGISTERS:
        raise ProcessorException(Vector.UD)
    if machine.cpl:
        raise ProcessorException(Vector.GP, 0)


@instruction("mov_to_cr", privileged=False)
def mov_to_cr(machine: Machine, one: Instruction) -> None:
    """MOV CRn, r64."""
    target, source = one.registers
    _check_control_register(machine, target)
    write = {
        **{"cr0": machine.write_cr0, "cr2": machine.write_cr2, "cr3": machine.write_cr3, "cr4": machine.write_cr4},
        "cr8": machine.control.write_cr8,
    }
    write[target](register(machine, source))


@instruction("mov_from_cr", privileged=False)
def mov_from_cr(machine: Machine, one: Instruction) -> None:
    """MOV r64, CRn."""
    target, source = one.registers
    _check_control_register(machine, source)
    control = machine.control
    values = {"cr0": control.cr0, "cr2": control.cr2, "cr3": control.cr3, "cr4": control.cr4, "cr8": control.cr8}
    set_register(machine, target, values[source])
    machine.charge("control_registers", machine.costs.mov_from_cr)


@instruction("clts")
def clts(machine: Machine, one: Instruction) -> None:
    """CLTS: the task-switched flag does not exist here."""


# --- translations ----------------------------------------------------------------------------------------------


@instruction("invlpg")
def invlpg(machine: Machine, one: Instruction) -> None:
    """INVLPG m: drop one page of the current PCID, also if it is global (SDM Vol. 3A 4.10.4.1)."""
    machine.invlpg(address(machine, one))


@instruction("invpcid", privileged=False)
def invpcid(machine: Machine, one: Instruction) -> None:
    """INVPCID r64, m128: the register holds the type, memory the PCID and the address (SDM Vol. 2A)."""
    if not machine.profile.features.invpcid:
        raise ProcessorException(Vector.UD)
    if machine.cpl:
        raise ProcessorException(Vector.GP, 0)
    kind = register(machine, one.registers[0])
    descriptor = load(machine, address(machine, one), 16, stack=_through_stack(one))
    machine.invpcid(kind, int.from_bytes(descriptor[:8], "little"), int.from_bytes(descriptor[8:], "little"))


# --- model-specific registers ----------------------------------------------------------------------------------


@instruction("wrmsr")
def wrmsr(machine: Machine, one: Instruction) -> None:
    """WRMSR: ECX names the register, EDX:EAX is the value."""
    gprs = machine.cpu.gprs
    machine.write_msr(gprs[RCX] & MASK32, (gprs[RDX] & MASK32) << 32 | gprs[RAX] & MASK32)
    machine.charge("control_registers", machine.costs.wrmsr)


@instruction("rdmsr")
def rdmsr(machine: Machine, one: Instruction) -> None:
    """RDMSR: ECX names the register, the value comes in EDX:EAX."""
    gprs = machine.cpu.gprs
    value = machine.read_msr(gprs[RCX] & MASK32)
    gprs[RAX], gprs[RDX] = value & MASK32, value >> 32
    machine.charge("control_registers", machine.costs.rdmsr)


# --- into the kernel and back ----------------------------------------------------------------------------------


# Unicorn's hooks execute these natively wherever they can; here is the way for the rest: faults, odd encodings.


@instruction("swapgs")
def swapgs(machine: Machine, one: Instruction) -> None:
    """SWAPGS: exchange the GS base with IA32_KERNEL_GS_BASE."""
    machine.interrupts.transfer(SWAPGS)


@instruction("sysretq", "sysret")
def sysret(machine: Machine, one: Instruction) -> bool:
    """SYSRETQ: to RCX with R11 as flags. A non-canonical RCX is #GP in the kernel, as on Intel parts."""
    if not machine.control.efer & SCE:
        raise ProcessorException(Vector.UD)
    machine.interrupts.transfer(SYSRETQ)
    return True


@instruction("iretq", privileged=False)
def iretq(machine: Machine, one: Instruction) -> bool:
    """IRETQ, at any CPL."""
    machine.interrupts.transfer(IRETQ)
    return True


# --- flags -----------------------------------------------------------------------------------------------------


@instruction("cli")
def cli(machine: Machine, one: Instruction) -> None:
    """CLI: no interrupts."""
    machine.cpu.interrupt_flag = False
    machine.charge("entry_exit", machine.costs.cli_sti)


@instruction("sti")
def sti(machine: Machine, one: Instruction) -> None:
    """STI: interrupts again."""
    machine.allow_interrupts()
    machine.charge("entry_exit", machine.costs.cli_sti)


def _smap_window(machine: Machine, allowed: bool) -> None:
    if machine.cpl or not machine.profile.features.smap:
        raise ProcessorException(Vector.UD)
    machine.set_alignment_check(allowed)
    machine.charge("entry_exit", machine.costs.stac_clac)


@instruction("stac", privileged=False)
def stac(machine: Machine, one: Instruction) -> None:
    """STAC: the kernel may touch user pages (#UD at CPL 3 or without SMAP)."""
    _smap_window(machine, True)


@instruction("clac", privileged=False)
def clac(machine: Machine, one: Instruction) -> None:
    """CLAC: it may not."""
    _smap_window(machine, False)


@instruction("hlt")
def hlt(machine: Machine, one: Instruction) -> None:
    """HLT: wait for an interrupt; time passes until the timer fires. Without one nothing ever happens again."""
    machine.charge("idle", machine.costs.hlt)
    if not machine.cpu.interrupt_flag or not machine.wait_for_timer():
        raise GuestHalted(f"hlt at {machine.cpu.rip:#x} and no interrupt can come")


# --- descriptor tables -------------------------------------------------------------------------------------------


def _through_stack(one: Instruction) -> bool:
    return one.memory is not None and one.memory.stack


def _table(machine: Machine, one: Instruction) -> DescriptorTable:
    operand = load(machine, address(machine, one), 10, stack=_through_stack(one))
    return DescriptorTable(base=int.from_bytes(operand[2:], "little"), limit=int.from_bytes(operand[:2], "little"))


@instruction("lgdt")
def lgdt(machine: Machine, one: Instruction) -> None:
    """LGDT m80."""
    machine.control.gdtr = _table(machine, one)


@instruction("lidt")
def lidt(machine: Machine, one: Instruction) -> None:
    """LIDT m80."""
    machine.control.idtr = _table(machine, one)


def _selector(machine: Machine, one: Instruction) -> int:
    if one.memory is None:
        return register(machine, one.registers[0]) & 0xFFFF
    return int.from_bytes(load(machine, address(machine, one), 2, stack=_through_stack(one)), "little")


@instruction("ltr")
def ltr(machine: Machine, one: Instruction) -> None:
    """LTR r/m16: the selector's TSS descriptor in the GDT (SDM Figure 8-4)."""
    machine.interrupts.load_task_register(_selector(machine, one))


@instruction("lldt")
def lldt(machine: Machine, one: Instruction) -> None:
    """LLDT r/m16: only the null selector, for there is never a local descriptor table."""
    selector = _selector(machine, one)
    if selector & ~3:
        raise ProcessorException(Vector.GP, selector & ~3)


@instruction("rdpmc", "mov_to_dr", "mov_from_dr", privileged=False)
def refused(machine: Machine, one: Instruction) -> None:
    """RDPMC, MOV with a debug register: there are no performance counters and no breakpoint registers."""
    raise ProcessorException(Vector.GP, 0)


@instruction("wbinvd", "invd")
def wbinvd(machine: Machine, one: Instruction) -> None:
    """WBINVD, INVD: drop every line. Memory is always up to date, so there is nothing to write back or to lose."""
    machine.caches.flush()


@instruction("int1", privileged=False)
def int1(machine: Machine, one: Instruction) -> None:
    """INT1: a #DB after it, whatever the gate's DPL (SDM Vol. 2A, INT n)."""
    machine.cpu.rip = (machine.cpu.rip + one.size) & MASK64
    raise ProcessorException(Vector.DB)


# --- reading what the processor is ----------------------------------------------------------------------------


@instruction("rdtsc", "rdtscp", privileged=False)
def rdtsc(machine: Machine, one: Instruction) -> None:
    """RDTSC(P) with CR4.TSD set: only the kernel may."""
    if machine.cpl and machine.control.cr4 & Cr4.TSD:
        raise ProcessorException(Vector.GP, 0)
    machine.read_time_stamp(auxiliary=one.name == "rdtscp")
