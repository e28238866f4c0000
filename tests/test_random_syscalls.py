"""A program that makes system calls at random, with arguments at random, does no harm to anybody.

Numbers, pointers and sizes are drawn so that many calls do something: addresses of mappings and of holes, file
descriptors that are open, small sizes and absurd ones. Whatever comes: no traceback, no panic, no leak.
"""

from __future__ import annotations

import random

import pytest
from conftest import MakeKernel
from small_programs import small_program

from emu.assembler import assemble_source
from kernel.consistency import inconsistencies

CALLS_OF_A_PROGRAM = 250
NEVER = frozenset({60, 231})
"""exit and exit_group: programs shall go on."""
NUMBERS = [number for number in (*range(336), *range(424, 462)) if number not in NEVER]
OFTEN = (9, 9, 10, 11, 12, 25, 26, 27, 28, 28, 56, 57, 58, 61, 149, 150, 151, 22, 32, 33, 13, 14, 62, 202)
"""Memory, processes, pipes, signals: what the kernel keeps books about."""
INTERESTING = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 0x10, 0x20, 0x22, 0x32, 0x21, 0x31, 0x122, 0x8022, 0x2022, 0x4022),
    *(4095, 4096, 4097, 8192, 65536, 0x200000, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 47, 1 << 63),
    *(-1 % (1 << 64), -100 % (1 << 64), -4096 % (1 << 64), 0x7FFFFFFFF000, 0xFFFF888000000000, 0xFFFFFFFF81000000),
)
PLACES = (0x10000000, 0x10001000, 0x10008000, 0x10010000, 0x20000000, 0x10000FFF, 0x7FFFFFFDE000)


def argument(chance: random.Random) -> str:
    """A register's worth of something."""
    kind = chance.randrange(6)
    if kind == 0:
        return "offset buffer"
    if kind == 1:
        return f"offset text + {chance.randrange(64)}"
    if kind == 2:
        return hex(chance.choice(PLACES))
    if kind == 3:
        return hex(chance.getrandbits(64))
    return hex(chance.choice(INTERESTING) if kind == 4 else chance.randrange(8))


def program(seed: int) -> str:
    """A program of random calls. What a call writes to memory is what the next one may read."""
    chance = random.Random(seed)
    lines = ["anonymous 16 * 4096, 3, 0x32, 0x10000000", "anonymous 4096, 3, 0x31, 0x20000000"]
    for _ in range(CALLS_OF_A_PROGRAM):
        number = chance.choice(OFTEN) if chance.random() < 0.4 else chance.choice(NUMBERS)
        lines += [f"movabs {name}, {argument(chance)}" for name in ("rdi", "rsi", "rdx", "r10", "r8", "r9")]
        lines += [f"mov eax, {number}", "syscall"]
    return small_program("\n".join(lines).replace("16 * 4096", "65536"))


def misuse(make_kernel: MakeKernel, seeds: range) -> int:
    """Run programs side by side in a small machine; returns how many system calls were made."""
    kernel = make_kernel({"ram": "16M"})
    for seed in seeds:
        kernel.spawn(assemble_source(program(seed)))
    for _ in range(8):
        kernel.machine.max_instructions = kernel.machine.state.instructions + 40_000
        kernel.run()
        assert inconsistencies(kernel) == []
    return sum(sum(process.syscalls.values()) for process in kernel.processes)


def test_random_system_calls_harm_nobody(make_kernel: MakeKernel) -> None:
    assert misuse(make_kernel, range(4)) > CALLS_OF_A_PROGRAM


@pytest.mark.slow
def test_twenty_thousand_random_system_calls_harm_nobody(make_kernel: MakeKernel) -> None:
    made = 0
    for first in range(100, 1000, 4):
        made += misuse(make_kernel, range(first, first + 4))
        if made >= 20_000:
            break
    assert made >= 20_000
