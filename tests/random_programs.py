"""Random programs: whole, valid, and the same on every correct machine.

A program is a list of statements (see `random_statements`) over one area of memory.  It always ends
(loops only count down), never leaves its area and its stack, and depends on nothing that machines may do
differently: no undefined flags, no addresses in data, no LOCK across a cache line.  Its last statement
prints a checksum of the registers and one of the area, so two machines agree when they print the same.

    random_program(seed)    the same program for the same seed: for runs by number
    programs()              a hypothesis strategy: for properties, and for shrinking what breaks them

Both grow the program by `Grammar.statement`, which takes its choices from any `random.Random`.

>>> random_program(1) == random_program(1) != random_program(2)
True
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st
from random_statements import KINDS, VALUES, Grammar, Lines, code

__all__ = ["KINDS", "PLACES", "program_of", "programs", "random_program"]

PLACES: tuple[str | int, ...] = ("bss", "data", "stack", "brk", 0x13FFFE000, 0x7FFFFFE000, 0x180000000)
"""Where the area may be: a section, the stack, the heap, or a fixed address for mmap.

The first two addresses lie two pages below a border of 1 GiB and one of 512 GiB, so that an area of more than
two pages needs two entries in every level of the page table up to the PUD, or up to the PGD.
"""

# What declares the area, and what makes rbx point at its first byte.
_AREAS = {
    "bss": ("    .bss\n    .balign 4096\narea:\n    .skip {size}\n", "lea rbx, [rip + area]"),
    "data": ("    .data\n    .balign 4096\narea:\n    .skip {size}, 0x5a\n", "lea rbx, [rip + area]"),
    "stack": ("", "and rsp, -4096; sub rsp, {size}; mov rbx, rsp"),
    "brk": (
        "",
        "xor edi, edi; mov eax, 12; syscall; lea rbx, [rax + 4095]; and rbx, -4096; "
        "lea rdi, [rbx + {size}]; mov eax, 12; syscall",
    ),
    "mmap": (
        "",
        "mov rdi, {address:#x}; mov esi, {size}; mov edx, 3; mov r10d, 0x32; mov r8, -1; xor r9d, r9d; "
        "mov eax, 9; syscall; mov rbx, rax",
    ),
}

_MAIN = """\
{area}
    .macro  mix register                # into the checksum r15: FNV (Fowler, Noll, Vo 1991), rotated
    xor     r15, \\register
    imul    r15, rbp
    rol     r15, 29
    .endm

    .text
    .globl  _start
_start:
{start}

{statements}

    # the checksums
    mov     r15, rbp
    mov     rbp, 0x100000001b3          # the prime of FNV
{mix_registers}
    mov     r14, r15
    xor     ecx, ecx
memory:
    mov     rax, [rbx + 8*rcx]
    mix     rax
    inc     ecx
    cmp     ecx, {size} / 8
    jb      memory

    sub     rsp, 64                     # the line: registers, blank, registers and memory, newline
    mov     rax, r14
    lea     rdi, [rsp + 15]
    call    write_hex
    mov     byte ptr [rsp + 16], 32
    mov     rax, r15
    lea     rdi, [rsp + 32]
    call    write_hex
    mov     byte ptr [rsp + 33], 10
    mov     edi, 1
    mov     rsi, rsp
    mov     edx, 34
    mov     eax, 1                      # write(stdout, line, 34)
    syscall
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

write_hex:                              # rax as sixteen digits, the last one at rdi
    mov     ecx, 16
hex_digit:
    mov     edx, eax
    and     edx, 15
    lea     esi, [rdx + 87]             # 97 is "a"
    cmp     edx, 10
    lea     edx, [rdx + 48]             # 48 is "0"
    cmovae  edx, esi
    mov     [rdi], dl
    dec     rdi
    shr     rax, 4
    dec     ecx
    jnz     hex_digit
    ret

{functions}
"""


def program_of(grammar: Grammar, place: str | int, statements: Sequence[Lines]) -> str:
    """Return the source of the program with these statements, whose area is at `place`."""
    area, find_area = _AREAS["mmap" if isinstance(place, int) else place]
    golden = 0x9E3779B97F4A7C15
    values = [f"mov {name}, {golden * i % 2**64:#x}" for i, name in enumerate(VALUES, start=1)]
    zeros = [f"xor {name}, {name}" for name in ("ecx", "esi", "edi", "ebp", "r11d", "r12d")]
    vectors = [f"xmm{i}" for i in range(4)]
    mixes = [f"mix {name}" for name in (*VALUES, "rcx", "rsi", "rdi", "r11", "r12")]
    mixes += [f"movq rax, {x}; mix rax; psrldq {x}, 8; movq rax, {x}; mix rax" for x in vectors]
    return _MAIN.format(
        size=grammar.bytes,
        area=area.format(size=grammar.bytes),
        start=_text(
            code(find_area.format(size=grammar.bytes, address=place), *values, *zeros),
            code(*(f"pxor {x}, {x}" for x in vectors)),
        ),
        statements=_text(*statements),
        mix_registers=_text(code(*mixes)),
        functions=_text(*grammar.functions),
    )


def _text(*blocks: Lines) -> str:
    return "\n".join(line for block in blocks for line in block)


def random_program(seed: int, pages: int = 16, size: int = 40, place: str | int = "bss") -> str:
    """Return the source of the program number `seed`: `size` statements over `pages` pages at `place`."""
    rng, grammar = Random(seed), Grammar(pages)
    return program_of(grammar, place, [grammar.statement(rng) for _ in range(size)])


@st.composite
def programs(draw: st.DrawFn, max_pages: int = 64, max_size: int = 40) -> str:
    """Strategy for programs of up to `max_size` statements over up to `max_pages` pages, in any place."""
    grammar = Grammar(draw(st.integers(1, max_pages)))
    place: str | int = draw(st.sampled_from(PLACES))
    statement = st.randoms(use_true_random=False).map(grammar.statement)
    return program_of(grammar, place, draw(st.lists(statement, min_size=1, max_size=max_size)))
