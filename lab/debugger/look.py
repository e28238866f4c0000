"""What there is to see at a position. Functions of a session; they travel to its replica by name.

Looking has no effect on the machine, and changing is done at physical addresses, past the TLBs: nothing is counted.
"""

from __future__ import annotations

from typing import Final

from emu import InputError, PageWalkReport, page_walk
from emu.instruction import MAX_SIZE, decode
from emu.mmu import Translation
from emu.pte import PAGE_SIZE
from emu.softcore import GPR_NAMES
from kernel.layout import TASK_SIZE

from ..session import Session
from ..walk_view import parse_address

__all__ = [
    "address",
    "behind_call",
    "borders",
    "calls_before",
    "is_return",
    "read",
    "read_promised",
    "registers",
    "set_register",
    "symbol",
    "symbolize",
    "translations",
    "walk",
    "write",
]

MASK64: Final = (1 << 64) - 1
SHORTEST_CALL: Final = 2


def symbol(session: Session, name: str) -> int:
    """Address of a symbol of the first program. Raises InputError."""
    return session.images[0].address_of(name)


def address(session: Session, text: str) -> int:
    """An address from a number, a symbol of the current program or of the kernel, or symbol+0x10. Raises InputError."""
    process = session.kernel.scheduler.current
    return parse_address(text, session.kernel, process.image if process else session.images[0])


def registers(session: Session) -> dict[str, int]:
    """General registers, RIP and RFLAGS by name."""
    return session.machine.cpu.registers()


def set_register(session: Session, name: str, value: int) -> None:
    """Change a general register or RIP."""
    if name == "rip":
        session.machine.cpu.rip = value
    else:
        session.machine.cpu.gprs[GPR_NAMES.index(name)] = value


def symbolize(session: Session, va: int) -> str:
    """An address as symbol+offset."""
    return session.kernel.symbolize(va)


def borders(session: Session) -> tuple[list[int], list[int]]:
    """Where the kernel is entered, and the instructions that may lead back to user mode: IRETQ and SYSRETQ."""
    text = session.kernel.text
    entries = [va for name, va in text.symbols.items() if name.startswith(("asm_exc_", "asm_sysvec_", "entry_SYSCALL"))]
    exits = []
    for segment in text.image.segments:
        at = 0
        while at < len(segment.data):
            one = decode(segment.data[at : at + MAX_SIZE])
            if one is not None and one.name in ("iretq", "sysretq", "sysret"):
                exits.append(segment.va + at)
            at += one.size if one else 1
    return entries, exits


# --- memory -----------------------------------------------------------------------------------------------------------


def read(session: Session, va: int, size: int) -> bytes:
    """Memory as the current page tables have it, from `va` to the first page that is not there."""
    machine, content = session.machine, b""
    while len(content) < size:
        at = (va + len(content)) & MASK64
        pa = machine.mmu.peek(at)
        length = min(size - len(content), PAGE_SIZE - at % PAGE_SIZE)
        if pa is None or pa + length > machine.ram.size:
            break
        content += machine.ram.read(pa, length)
    return content


def read_promised(session: Session, va: int, size: int) -> bytes:
    """Memory as the current process would read it: what was only promised, or swapped out, comes. For a copy only."""
    process = session.kernel.scheduler.current
    if process is None or va >= TASK_SIZE:
        return read(session, va, size)
    session.machine.write_cr3(process.mm.page_table.pgd)
    with session.kernel.kernel_mode():
        return session.kernel.user.read(va, size)


def write(session: Session, va: int, data: bytes) -> None:
    """Change memory, whatever its rights. Raises InputError where there is none."""
    if len(read(session, va, len(data))) < len(data):
        raise InputError(f"no page is present at {va:#x}, or behind it")
    done = 0
    while done < len(data):
        at = (va + done) & MASK64
        pa = session.machine.mmu.peek(at)
        length = min(len(data) - done, PAGE_SIZE - at % PAGE_SIZE)
        assert pa is not None
        session.machine.ram.write(pa, data[done : done + length])
        done += length


# --- code -------------------------------------------------------------------------------------------------------------


def behind_call(session: Session) -> int | None:
    """Where the call at RIP comes back to; None where there is none. Of the kernel's, too."""
    cpu = session.machine.cpu
    one = decode(cpu.code_at(cpu.rip, MAX_SIZE))
    return cpu.rip + one.size if one is not None and one.name == "call" else None


def is_return(session: Session) -> bool:
    """Whether RET is at RIP."""
    cpu = session.machine.cpu
    one = decode(cpu.code_at(cpu.rip, MAX_SIZE))
    return one is not None and one.name == "ret"


def calls_before(session: Session, va: int) -> list[int]:
    """Addresses at which a call may be that comes back to `va`."""
    found = []
    for size in range(SHORTEST_CALL, MAX_SIZE + 1):
        one = decode(session.machine.cpu.code_at(va - size, size))
        if one is not None and one.name == "call" and one.size == size:
            found.append(va - size)
    return found


# --- translation ------------------------------------------------------------------------------------------------------


def walk(session: Session, va: int) -> PageWalkReport:
    """The page walk of an address in the page tables of CR3."""
    machine = session.machine
    return page_walk(machine.ram, machine.control.cr3 & ~0xFFF, va, machine.state.levels)


def translations(session: Session) -> list[Translation]:
    """What the TLBs and paging-structure caches hold; entries of user pages first, each by address."""
    held = session.machine.mmu.entries()
    return sorted(held, key=lambda one: (one.kind, one.va >> 63, one.va, one.pcid))
