"""Operands of the instructions that the model executes: registers of any width, and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from unicorn import x86_const as x86

from .cache_state import CacheUse
from .exceptions import ProcessorException
from .instruction import Instruction, effective_address
from .pte import PAGE_SIZE, Access
from .softcore import GPR_NAMES

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["address", "load", "physical", "pop", "push", "register", "set_register", "store"]

RSP: Final = 4
MASK64: Final = (1 << 64) - 1
GENERAL_PROTECTION, STACK_FAULT = 13, 12


def _place(name: str) -> tuple[int, int]:
    """Number and bytes of a general register: (0, 4) for "eax", (8, 2) for "r8w", (0, 1) for "al"."""
    if name in GPR_NAMES:
        return GPR_NAMES.index(name), 8
    if name[1].isdigit():
        return int(name[1:-1]), {"d": 4, "w": 2, "b": 1}[name[-1]]
    size = 4 if name[0] == "e" else 1 if name[-1] == "l" else 2
    stem = name.removeprefix("e").removesuffix("l")
    return next(i for i, whole in enumerate(GPR_NAMES) if whole[1:].startswith(stem)), size


def register(machine: Machine, name: str) -> int:
    """Value of a general register by any of its names."""
    number, size = _place(name)
    return int(machine.cpu.gprs[number]) & ((1 << 8 * size) - 1)


def set_register(machine: Machine, name: str, value: int) -> None:
    """Set a general register; 4 bytes clear the upper half, 2 and 1 leave the rest (SDM Vol. 1 3.4.1.1)."""
    number, size = _place(name)
    gprs, mask = machine.cpu.gprs, (1 << 8 * size) - 1
    gprs[number] = value & mask if size >= 4 else (gprs[number] & ~mask) | (value & mask)


def address(machine: Machine, one: Instruction) -> int:
    """Linear address of the memory operand."""
    cpu = machine.cpu
    return effective_address(
        one,
        lambda name: cpu.gprs[GPR_NAMES.index(name)],
        cpu.rip + one.size,
        cpu.read_segment_base(x86.UC_X86_REG_FS_BASE),
        cpu.read_segment_base(x86.UC_X86_REG_GS_BASE),
    )


def load(machine: Machine, va: int, size: int, *, stack: bool = False) -> bytes:
    """One load. Raises #PF, and #SS or #GP for an address that is not canonical."""
    pieces = _translate(machine, va, size, Access.READ, stack)
    machine.state.reads += 1
    machine.notices.accessed(Access.READ, va, size, pieces[0][0])
    for pa, n in pieces:
        machine.caches.touch(pa, n, CacheUse.READ)
    return b"".join(machine.ram.read(pa, n) for pa, n in pieces)


def store(machine: Machine, va: int, data: bytes, *, stack: bool = False) -> None:
    """One store; nothing is written if any of it is refused. Raises what `load` raises."""
    pieces = _translate(machine, va, len(data), Access.WRITE, stack)
    machine.state.writes += 1
    machine.notices.accessed(Access.WRITE, va, len(data), pieces[0][0])
    for pa, n in pieces:
        machine.caches.touch(pa, n, CacheUse.WRITE)
        machine.ram.write(pa, data[:n])
        data = data[n:]


def physical(machine: Machine, va: int, access: Access, *, stack: bool = False) -> int:
    """Physical address of one byte, checked for an access that is not made. Raises what `load` raises."""
    return _translate(machine, va, 1, access, stack)[0][0]


def push(machine: Machine, data: bytes) -> None:
    """Push onto the stack."""
    rsp = (machine.cpu.gprs[RSP] - len(data)) & MASK64
    store(machine, rsp, data, stack=True)
    machine.cpu.gprs[RSP] = rsp


def pop(machine: Machine, size: int) -> bytes:
    """Pop `size` bytes."""
    rsp = machine.cpu.gprs[RSP]
    data = load(machine, rsp, size, stack=True)
    machine.cpu.gprs[RSP] = (rsp + size) & MASK64
    return data


def _translate(machine: Machine, va: int, size: int, access: Access, stack: bool) -> list[tuple[int, int]]:
    """Physical ranges (address, size) of an operand; all of it is translated before any is touched."""
    first = min(size, PAGE_SIZE - va % PAGE_SIZE)
    ranges = [(va, first), ((va + first) & MASK64, size - first)]
    try:
        return [(machine.mmu.translate(at, access), n) for at, n in ranges if n]
    except ProcessorException as fault:
        if stack and fault.vector == GENERAL_PROTECTION:
            raise ProcessorException(STACK_FAULT, 0) from None
        raise
