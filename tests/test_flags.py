"""Flags survive page faults, REP and whoever watches.

Unicorn keeps RFLAGS as operands of the last operation and computes them when they are asked for. It loses them where
that form changes inside an instruction that then asks the memory hardware.
"""

from __future__ import annotations

import pytest
from bare import USER, Bare

from emu.pte import Pte

CODE, CODE_PA, PAGE, PAGE_PA, STACK, STACK_PA = 0x40_0000, 0x10_0000, 0x60_0000, 0x20_0000, 0x50_0000, 0x30_0000
OPERATIONS = {
    "add": "add edx, edx",
    "add with overflow": "mov eax, 0x7fffffff\n add eax, 1",
    "add with carry": "mov eax, 0x80000000\n add eax, eax",
    "cmp": "cmp eax, 3",
    "shift": "mov eax, 0x80000001\n shl eax, 1",
}
USERS = ["sete [rbx]", "sets [rbx]", "setbe [rbx]", "setl [rbx]", "seto [rbx]", "setp [rbx]", "setc [rbx]"]
USERS += ["rcl dword ptr [rbx], 3", "rcr byte ptr [rbx], 1", "adc dword ptr [rbx], 0", "sbb [rbx], eax"]
USERS += ["cmovbe ecx, [rbx]", "rep stosb", "rep lodsb"]


def flags_and_memory(operation: str, use: str, *, page: int, engine: str, watched: bool = False) -> tuple[int, bytes]:
    bare = Bare(engine=engine)
    if watched:
        bare.machine.events.on("instruction", lambda _: None)
    bare.tables.map(CODE, CODE_PA)
    bare.tables.map(STACK, STACK_PA, USER | Pte.D)
    bare.tables.map(PAGE, PAGE_PA, page)
    bare.on[14] = lambda _: bare.tables.map(PAGE, PAGE_PA, USER | Pte.D)
    bare.execute(
        f"""
        mov rsp, {STACK + 0x800}
        mov rbx, {PAGE}
        mov rdi, rbx
        mov rsi, rbx
        mov ecx, 3
        xor eax, eax
        xor edx, edx
        {operation}
        {use}
        pushfq
        pop r8
        int 0x20
        """,
        CODE,
        CODE_PA,
    )
    return bare.machine.cpu.registers()["r8"], bare.machine.ram.read(PAGE_PA, 8)


@pytest.mark.parametrize("use", USERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_page_fault_between_the_operation_and_the_use_of_its_flags_changes_nothing(operation: str, use: str) -> None:
    expected = flags_and_memory(OPERATIONS[operation], use, page=USER | Pte.D, engine="trap")
    for page in (USER | Pte.D, USER, Pte.P | Pte.U, 0):
        for engine, watched in (("trap", False), ("access", False), ("trap", True)):
            found = flags_and_memory(OPERATIONS[operation], use, page=page, engine=engine, watched=watched)
            assert found == expected, (page, engine, watched)


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize("repeat", ["rep movsb", "rep stosb", "rep lodsb"])
def test_rep_leaves_the_flags_alone(engine: str, repeat: str) -> None:
    flags, _ = flags_and_memory("add edx, edx", repeat, page=USER | Pte.D, engine=engine)
    assert flags & 0x8D5 == 0x44  # ZF and PF of 0 + 0
