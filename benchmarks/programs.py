"""What is measured: small guest programs that differ in where they touch memory.

Each is one *round* of work that leaves a checksum in RAX. R12 holds how many rounds are left, so that a bench can run
any number of them without changing a byte: set R12, go to `begin`, stop before `done`.

>>> [program.name for program in PROGRAMS][:2]
['registers', 'sequential 32']
>>> image = PROGRAMS[0].image()
>>> image.address_of("begin") < image.address_of("done")
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.assembler import assemble_source
from emu.image import Image

__all__ = ["NULL_SYSCALL", "PAGE_FAULT", "PROGRAMS", "TOUCHED_PAGES", "Program"]

ROUNDS: Final = """
    .text
_start:
    mov     r12d, 1
begin:
    {body}
    dec     r12
    jnz     begin
done:
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall
    {functions}
    .bss
    .balign 4096
data:
    .skip   {pages} * 4096 + 8
"""


@dataclass(frozen=True)
class Program:
    """One round of a program: `body`, the `functions` it calls, and `pages` of zeros at `data`."""

    name: str
    what: str
    body: str
    pages: int = 1
    functions: str = ""

    def image(self) -> Image:
        """The program, ready to be loaded."""
        source = ROUNDS.format(body=self.body, functions=self.functions, pages=self.pages)
        return assemble_source(source, name=self.name)


def _sequential(pages: int, stride: int) -> Program:
    """Add every `stride`-th byte's word to a sum, and store the sum there."""
    body = f"""
    lea     rsi, [rip + data]
    mov     ecx, {pages * 4096 // stride}
    xor     eax, eax
next:
    xor     rax, [rsi]
    mov     [rsi], rcx
    add     rsi, {stride}
    dec     ecx
    jnz     next"""
    return Program(f"sequential {pages}", f"load and store every {stride} bytes of {pages} pages", body, pages)


def _random(pages: int) -> Program:
    """Visit a page chosen by xorshift64 (Marsaglia 2003)."""
    body = f"""
    lea     rbx, [rip + data]
    mov     rdi, 0x9e3779b97f4a7c15
    mov     ecx, 20000
    xor     eax, eax
next:
    mov     rdx, rdi
    shl     rdx, 13
    xor     rdi, rdx
    mov     rdx, rdi
    shr     rdx, 7
    xor     rdi, rdx
    mov     rdx, rdi
    shl     rdx, 17
    xor     rdi, rdx
    mov     rsi, rdi
    and     rsi, {pages * 4096 - 8}
    mov     [rbx + rsi], rdi
    add     rax, [rbx + rsi]
    dec     ecx
    jnz     next"""
    return Program(f"random {pages}", f"load and store at random in {pages} pages", body, pages)


_REGISTERS: Final = """
    mov     ecx, 50000
    xor     eax, eax
next:
    add     rax, rcx
    imul    rdx, rax, 31
    xor     rax, rdx
    dec     ecx
    jnz     next"""

_MATMUL: Final = """
    .equ    N, 32
    lea     rsi, [rip + data]           # row i of A
    lea     rdi, [rip + data + 8 * N * N]
    xor     ecx, ecx
fill:
    mov     [rsi + 8 * rcx], rcx
    mov     [rdi + 8 * rcx], rcx
    inc     ecx
    cmp     ecx, N * N
    jb      fill
    lea     rbp, [rdi + 8 * N * N]      # row i of C
    xor     eax, eax                    # sum of all elements
    mov     r8d, N
row:
    xor     r9d, r9d
column:
    lea     rdx, [rdi + 8 * r9]         # down column j of B
    xor     ebx, ebx
    xor     ecx, ecx
product:
    mov     r10, [rsi + 8 * rcx]
    imul    r10, [rdx]
    add     rbx, r10
    add     rdx, 8 * N
    inc     ecx
    cmp     ecx, N
    jb      product
    mov     [rbp + 8 * r9], rbx
    add     rax, rbx
    inc     r9d
    cmp     r9d, N
    jb      column
    add     rsi, 8 * N
    add     rbp, 8 * N
    dec     r8d
    jnz     row"""

_SIEVE: Final = """
    .equ    LIMIT, 10 * 4096
    lea     rbx, [rip + data]           # a byte a number: 0 means that it may still be prime
    xor     eax, eax
    mov     ecx, 2
candidate:
    cmp     byte ptr [rbx + rcx], 0
    jne     composite
    inc     eax
    mov     rdx, rcx
    imul    rdx, rcx
    jmp     test
cross:
    mov     byte ptr [rbx + rdx], 1
    add     rdx, rcx
test:
    cmp     rdx, LIMIT
    jb      cross
composite:
    inc     ecx
    cmp     ecx, LIMIT
    jb      candidate"""

_SORT: Final = """
    .equ    COUNT, 4096
    lea     rbx, [rip + data]
    mov     rax, 1
    xor     ecx, ecx
fill:
    imul    rax, rax, 69069             # a linear congruential generator
    inc     rax
    movzx   edx, ax
    mov     [rbx + 8 * rcx], rdx
    inc     ecx
    cmp     ecx, COUNT
    jb      fill
    mov     rdi, rbx
    lea     rsi, [rbx + 8 * COUNT - 8]
    call    quicksort
    mov     rax, [rbx + 4 * COUNT]      # the median"""

_QUICKSORT: Final = """
quicksort:                              # [rdi] to [rsi]
    cmp     rdi, rsi
    jae     sorted
    mov     rax, [rsi]                  # the pivot
    mov     r8, rdi
    mov     r9, rdi
compare:
    mov     rcx, [r9]
    cmp     rcx, rax
    jae     not_smaller
    mov     rdx, [r8]
    mov     [r8], rcx
    mov     [r9], rdx
    add     r8, 8
not_smaller:
    add     r9, 8
    cmp     r9, rsi
    jb      compare
    mov     rdx, [r8]
    mov     [r8], rax
    mov     [rsi], rdx
    push    rsi
    push    r8
    lea     rsi, [r8 - 8]
    call    quicksort
    pop     rdi
    pop     rsi
    add     rdi, 8
    jmp     quicksort
sorted:
    ret"""

_FIB: Final = """
fib:                                    # rax = fib(rdi)
    mov     rax, rdi
    cmp     rdi, 2
    jb      known
    push    rdi
    dec     rdi
    call    fib
    pop     rdi
    push    rax
    sub     rdi, 2
    call    fib
    pop     rdx
    add     rax, rdx
known:
    ret"""

PROGRAMS: Final = (
    Program("registers", "arithmetic in registers", _REGISTERS),
    _sequential(32, 8),
    _sequential(256, 16),
    _sequential(1024, 64),
    Program("matmul", "two matrices of 32 x 32", _MATMUL, 6),
    Program("quicksort", "4096 numbers", _SORT, 8, _QUICKSORT),
    Program("sieve", "primes below 40960", _SIEVE, 10),
    Program("fib", "recursive fib(18)", "mov edi, 18\n    call fib", 1, _FIB),
    _random(16),
    _random(2048),
    _sequential(4096, 4096),
)
"""What the engines are compared on."""

NULL_SYSCALL: Final = Program("getpid", "a system call that does nothing", "mov eax, 39\n    syscall")

TOUCHED_PAGES: Final = 2048
PAGE_FAULT: Final = assemble_source(
    f"""
_start:
    xor     edi, edi
    mov     esi, {TOUCHED_PAGES} * 4096
    mov     edx, 3                      # PROT_READ | PROT_WRITE
    mov     r10d, 0x22                  # MAP_PRIVATE | MAP_ANONYMOUS
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9                      # mmap
    syscall
    mov     rbx, rax
    mov     ecx, {TOUCHED_PAGES}
begin:
    mov     [rax], rcx                  # each of these stores is a page fault
    add     rax, 4096
    dec     ecx
    jnz     begin
done:
    mov     rdi, rbx
    mov     esi, {TOUCHED_PAGES} * 4096
    mov     eax, 11                     # munmap
    syscall
    jmp     _start
""",
    name="page faults",
)
"""Touch fresh anonymous pages, give them back, and begin again."""
