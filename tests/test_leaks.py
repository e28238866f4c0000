"""Whenever a process dies, and however: what it had comes back, and all books agree.

The fixture `make_kernel` looks for both when a test ends (`inconsistencies`, then `Kernel.leaks` after `close`).
"""

from __future__ import annotations

import random

import pytest
from conftest import MakeKernel
from memory_programs import memory_program

from emu.assembler import assemble_source
from kernel import Kernel
from kernel.consistency import inconsistencies

BUSY = memory_program("""
    mov     ebp, 6
1:  anonymous 8 * PAGE, 3, FIXED, 0x10000000
    anonymous 4 * PAGE, 3, 0x31, 0x10010000
    mov     rbx, 0x10000000
    mov     [rbx], rbp
    mov     [rbx + 3 * PAGE], rbp
    mov     [rbx + 0x10000], rbp
    invoke  MPROTECT, 0x10002000, 2 * PAGE, 0
    invoke  FORK
    test    rax, rax
    jz      2f
    invoke  MREMAP, 0x10000000, 2 * PAGE, 2 * PAGE, 3, 0x20000000
    mov     rbx, 0x20000000
    mov     [rbx], rbp
    invoke  BRK, 0
    lea     r12, [rax + 2 * PAGE]
    invoke  BRK, r12
    invoke  MADVISE, 0x10004000, 2 * PAGE, POPULATE_WRITE
    invoke  PIPE, 0x20000000
    mov     edi, [rbx]
    mov     edx, [rbx + 4]
    mov     rsi, rbx
    mov     rdi, rdx
    mov     edx, 3000
    mov     eax, WRITE
    syscall
    invoke  WAIT4, -1, 0, 0, 0
    dec     ebp
    jnz     1b
    invoke  EXIT, 0
2:  mov     [rbx + PAGE], rbp
    mov     [rbx + 0x11000], rbp
    invoke  MADVISE, 0x10000000, 8 * PAGE, DONTNEED
    mov     [rbx], rbp
    invoke  VFORK
    test    rax, rax
    jnz     3f
    mov     [rbx + 0x12000], rbp
    invoke  EXIT, 1
3:  test    ebp, 1
    jz      4f
    mov     al, [8]
4:  nop
""")
"""Maps, shares, protects, moves, forks, and dies now and then."""

HOG = memory_program("""
    anonymous 0x4000000, 3, NORESERVE
    mov     rbx, rax
1:  mov     [rbx], rbx
    add     rbx, PAGE
    jmp     1b
""")
FORK_BOMB = memory_program("""
1:  invoke  FORK
    test    rax, rax
    jz      2f
    jns     1b
    neg     rax
    invoke  EXIT, rax
2:  mov     eax, 34                         # pause
    syscall
    jmp     1b
""")
KILLER = memory_program("""
    three_signed
    invoke  FORK
    test    rax, rax
    jnz     1f
2:  anonymous 2 * PAGE
    mov     [rax], rbx
    inc     qword ptr [rbx]
    jmp     2b
1:  mov     rbp, rax
    mov     ecx, 30000
3:  dec     ecx
    jnz     3b
    invoke  KILL, rbp, 9
    wait_for rbp
""")


def run_for(kernel: Kernel, instructions: int) -> None:
    """Run on for so many instructions, or to the end."""
    kernel.machine.max_instructions = kernel.machine.state.instructions + instructions
    kernel.run()


@pytest.mark.parametrize("seed", range(12))
def test_processes_may_be_stopped_and_killed_at_any_instruction(seed: int, make_kernel: MakeKernel) -> None:
    chance = random.Random(seed)
    kernel = make_kernel({"ram": "32M"})
    for _ in range(3):
        kernel.spawn(assemble_source(BUSY))
    for _ in range(chance.randrange(1, 8)):
        run_for(kernel, chance.randrange(1, 1500))
        assert inconsistencies(kernel) == []


def test_programs_that_end_leave_nothing_while_others_go_on(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "32M"})
    for _ in range(3):
        kernel.spawn(assemble_source(BUSY))
    result = kernel.run()
    assert [process.exit_code for process in result.processes[:3]] == [0, 0, 0]
    assert kernel.pids == (1, 2, 3), "the zombies that nobody waits for"


def test_a_process_that_somebody_kills_leaves_nothing(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "32M"})
    kernel.spawn(assemble_source(KILLER))
    result = kernel.run()
    assert (result.exit_code, result.processes[1].signal) == (0, 9)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_memory_hog_is_killed_and_the_others_go_on(others: int, make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "16M"})
    hog = kernel.spawn(assemble_source(HOG))
    innocent = [kernel.spawn(assemble_source(BUSY)) for _ in range(others)]
    kernel.run()
    assert hog.signal == 9
    assert kernel.oom_kills == 1
    assert [process.exit_code for process in innocent] == [0] * others


def test_two_memory_hogs_are_both_killed(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "16M"})
    hogs = [kernel.spawn(assemble_source(HOG)) for _ in range(2)]
    kernel.run()
    assert [hog.signal for hog in hogs] == [9, 9]


@pytest.mark.parametrize("ram", ["4M", "5M", "64M"])
def test_a_fork_bomb_ends_with_an_error(ram: str, make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": ram})
    bomb = kernel.spawn(assemble_source(FORK_BOMB))
    result = kernel.run()
    assert bomb.exit_code in (11, 12) or bomb.signal == 9
    assert result.is_stuck, "its children sleep for ever"


@pytest.mark.parametrize("frames", range(0, 40, 3))
def test_a_fork_that_fails_half_way_leaves_nothing(frames: int, make_kernel: MakeKernel) -> None:
    """So many frames are left when the first fork begins."""
    kernel = make_kernel({"ram": "8M"})
    process = kernel.spawn(assemble_source(BUSY))
    taken: list[int] = []

    def squeeze(event: object) -> None:
        if getattr(event, "name", "") == "fork" and not taken:
            taken.extend(kernel.frames.allocate() for _ in range(kernel.frames.free_frames - frames))

    kernel.on("syscall", squeeze)
    kernel.machine.max_instructions = 200_000
    kernel.run()
    for pfn in taken:
        kernel.frames.free(pfn)
    assert taken
    assert inconsistencies(kernel) == []
    assert not process.alive or process.children == []
