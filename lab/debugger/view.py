"""One look at a position: everything that the full-screen debugger shows, gathered in the replica in one request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from unicorn import x86_const as x86

from emu import PAGE_SIZE, PageWalkReport, Pte
from emu.control import Msr
from emu.image import Image
from emu.instruction import MAX_SIZE, Instruction, decode, effective_address, text
from emu.mmu import Translation
from emu.state import TlbKind

from ..maps_view import vma_rows
from ..session import Session
from . import look

__all__ = ["Access", "CodeLine", "View", "view"]

BEFORE, AFTER = 24, 64
"""Instructions shown before RIP and after it."""
MEMORY: Final = 512
"""Bytes shown of memory."""
WORD: Final = 8
FILLING: Final = b"\xcc\xcc"
"""INT3 after INT3: what fills a page behind kernel code."""


@dataclass(frozen=True, slots=True)
class CodeLine:
    """An instruction, the label before it, and the source line that it comes from (where it is the first of it)."""

    va: int
    label: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Access:
    """An address that the instruction at RIP uses: how, its page walk, and the TLBs that hold it now."""

    kind: str
    walk: PageWalkReport
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A position as it is shown. `memory` is what is there from `memory_va` on, None for a page that is not."""

    program: str
    symbol: str
    cycle: int
    cpl: int
    registers: dict[str, int]
    code: tuple[CodeLine, ...]
    accesses: tuple[Access, ...]
    memory_va: int
    memory: tuple[bytes | None, ...]
    vmas: tuple[dict[str, Any], ...]
    translations: tuple[Translation, ...]


def view(session: Session, memory_va: int | None) -> View:
    """Look around; memory at an address, or at the stack pointer."""
    machine, kernel, cpu = session.machine, session.kernel, session.machine.cpu
    process = kernel.scheduler.current
    alive = process if process is not None and process.alive else None
    image = kernel.text.image if cpu.rip >> 63 or alive is None else alive.image
    held = tuple(look.translations(session))
    start = (cpu.registers()["rsp"] if memory_va is None else memory_va) & ~(WORD - 1)
    return View(
        program=alive.name if alive else "",
        symbol=kernel.symbolize(cpu.rip),
        cycle=machine.clock.now,
        cpl=machine.cpl,
        registers=_registers(session),
        code=tuple(_code(session, image)),
        accesses=tuple(_accesses(session, held)),
        memory_va=start,
        memory=tuple(look.read(session, start + at, WORD) or None for at in range(0, MEMORY, WORD)),
        vmas=tuple(vma_rows(kernel, alive)) if alive else (),
        translations=held,
    )


def _registers(session: Session) -> dict[str, int]:
    machine, control = session.machine, session.machine.control
    return {
        **machine.cpu.registers(),
        **{"cr0": int(control.cr0), "cr2": control.cr2, "cr3": control.cr3, "cr4": int(control.cr4)},
        "gs": machine.cpu.read_segment_base(x86.UC_X86_REG_GS_BASE),
        "kgs": control.read_msr(Msr.KERNEL_GS_BASE),
        "fs": machine.cpu.read_segment_base(x86.UC_X86_REG_FS_BASE),
        "pcid": int(machine.state.pcid),
    }


# --- code -------------------------------------------------------------------------------------------------------------


def _code(session: Session, image: Image) -> Iterator[CodeLine]:
    """Instructions around RIP. Where RIP is in the middle of what was assembled, they begin there."""
    rip = session.machine.cpu.rip
    lines = list(_disassembled(session, image, _anchor(image, rip), rip))
    if not any(line.va == rip for line in lines):
        lines = list(_disassembled(session, image, rip, rip))
    here = next((number for number, line in enumerate(lines) if line.va == rip), 0)
    yield from lines[max(here - BEFORE, 0) : here + AFTER]


def _anchor(image: Image, rip: int) -> int:
    """Where an instruction begins for sure, some way before RIP."""
    segment = image.segment_at(rip)
    if segment is None:
        return rip
    starts = [line.va for line in image.lines if line.size and segment.va <= line.va <= rip]
    starts += [va for va in image.symbols.values() if segment.va <= va <= rip]
    return min(sorted(set(starts))[-BEFORE:], default=rip)


def _disassembled(session: Session, image: Image, start: int, rip: int) -> Iterator[CodeLine]:
    labels = {va: name for name, va in reversed(list(_symbols(session, image)))}
    sources = {line.va: line.text.strip() for line in image.lines if line.size}
    segment, va, left = image.segment_at(start), start, AFTER
    while left and (segment is None or va < segment.end):
        code = _code_bytes(session, image, va)
        one = decode(code)
        if va != rip and (one is None or code[:2] == FILLING):
            return
        yield CodeLine(va, labels.get(va, ""), _named(text(code, va), labels) if one else "(bad)", sources.get(va, ""))
        va += one.size if one else 1
        left -= va > rip


def _named(instruction: str, labels: dict[int, str]) -> str:
    """A branch with the name of its target."""
    name, _, target = instruction.partition(" ")
    is_branch = name == "call" or name.startswith(("j", "loop"))
    label = labels.get(int(target, 16)) if is_branch and target.startswith("0x") else None
    return f"{name} {label.removesuffix(' (Python)')}" if label else instruction


def _symbols(session: Session, image: Image) -> Iterator[tuple[str, int]]:
    yield from image.symbols.items()
    if image is session.kernel.text.image:
        yield from ((f"{function.name} (Python)", va) for va, function in session.kernel.text.functions.items())


def _code_bytes(session: Session, image: Image, va: int) -> bytes:
    """As the processor would fetch them; of a page that is only promised, as they are in the program."""
    code = session.machine.cpu.code_at(va, MAX_SIZE)
    segment = image.segment_at(va)
    if code or segment is None:
        return code
    return segment.data[va - segment.va : va - segment.va + MAX_SIZE]


# --- addresses --------------------------------------------------------------------------------------------------------


def _accesses(session: Session, held: tuple[Translation, ...]) -> Iterator[Access]:
    """Fetch, memory operand, stack and strings of the instruction at RIP."""
    cpu = session.machine.cpu
    one = decode(cpu.code_at(cpu.rip, MAX_SIZE))
    seen: set[tuple[str, int]] = set()
    for kind, va in (("fetch", cpu.rip), *(_data(session, one) if one else ())):
        if (kind, va // PAGE_SIZE) not in seen:
            seen.add((kind, va // PAGE_SIZE))
            yield Access(kind, look.walk(session, va), _held(session, held, va, is_fetch=kind == "fetch"))


def _data(session: Session, one: Instruction) -> Iterator[tuple[str, int]]:
    """(kind, address) of each access to data, as far as it is known beforehand."""
    registers = session.machine.cpu.registers()
    rip, rsp = registers["rip"], registers["rsp"]
    bases = (session.machine.cpu.read_segment_base(base) for base in (x86.UC_X86_REG_FS_BASE, x86.UC_X86_REG_GS_BASE))
    if one.memory is not None and (one.reads or one.writes):
        kind = "write" if one.writes and not one.name.startswith(("push", "call")) else "read"
        yield kind, effective_address(one, registers.__getitem__, rip + one.size, *bases)
    if one.name.startswith(("push", "call")):
        yield "write", (rsp - WORD) & look.MASK64
    if one.name.startswith(("pop", "ret", "leave", "iret")):
        yield "read", registers["rbp"] if one.name.startswith("leave") else rsp
    if one.name.startswith(("movs", "lods", "cmps")) and one.memory is None and one.reads:
        yield "read", registers["rsi"]
    if one.name.startswith(("movs", "stos")) and one.memory is None and one.writes:
        yield "write", registers["rdi"]


def _held(session: Session, held: tuple[Translation, ...], va: int, *, is_fetch: bool) -> tuple[str, ...]:
    """TLBs in which the processor would find an address now."""
    pcid = int(session.machine.state.pcid)
    kinds = (TlbKind.ITLB if is_fetch else TlbKind.DTLB, TlbKind.STLB)
    found = {
        one.kind
        for one in held
        if one.kind in kinds and one.va == va & ~(one.page_size - 1) and (one.pcid == pcid or one.flags & Pte.G)
    }
    return tuple(kind.name for kind in kinds if kind in found)
