"""Random programs with loads that the kernel's memory refuses, and code behind them that must never have happened.

A SIGSEGV handler goes on at the address in RDI. What stands between the load and that address is only ever executed
in a transient window: statements of random programs, and whatever is worst for a window that has to leave no trace.
"""

from __future__ import annotations

from random import Random

from random_programs import program_of
from random_statements import Grammar, Lines, code

__all__ = ["forbidden_program"]

PAGES = 4
DIRECT_MAP = 0xFFFF_8880_0000_0000
LOADS = (
    *("mov rax, [rcx]", "movzx r8d, byte ptr [rcx]", "movups xmm1, [rcx]", "add r9, [rcx]", "cmp byte ptr [rcx], 7"),
    *("push qword ptr [rcx]", "fld tbyte ptr [rcx]", "add qword ptr [rcx], 1", "test [rcx], rdx", "call [rcx]"),
    *("xchg [rcx], r10", "lock inc dword ptr [rcx]", "mov rsi, rcx; lodsq", "pop [rsp - 8]; mov rdx, [rcx]"),
)
WORST = (
    *("mov rsp, [rcx]; push rax; ret", "syscall", "xor edx, edx; div edx", "ud2", "hlt", "jmp rax", "call rdx"),
    *("1: jmp 1b", "1: push rax; jmp 1b", "mov edi, 1; mov eax, 60; syscall", "int3", "pushfq; popfq; std"),
    *("fninit; fldpi; fldpi", "mov [rbx], rsp; mov rax, [rbx]", "lea rdi, [rip - 64]; mov ecx, 64; rep stosb"),
    *("mov qword ptr [rcx], 5", "mov ecx, -1; mov rdi, rbx; rep stosq", "cpuid", "rdtsc", "lfence; mov [rbx], rbx"),
    *("xor ebx, ebx; mov rax, [rbx]", "mov rdi, rsp; mov rsi, rbx; mov ecx, 4096; rep movsb", "ldmxcsr [rbx]"),
    *("movaps xmm0, xmm3; movups [rbx], xmm0", "lock add [rbx], rax", "leave", "mov r15, cr3", "prefetcht0 [rbx]"),
)
HANDLER = """
segv:
    mov     rax, [rdx + 104]            # go on at the address in RDI
    mov     [rdx + 168], rax
    ret
segv_return:
    mov     eax, 15
    syscall
    .data
segv_action:
    .quad   segv, 0x04000004, segv_return, 0
    .text
"""
INSTALL = code(
    "mov edi, 11; lea rsi, [rip + segv_action]; xor edx, edx; mov r10d, 8; mov eax, 13; syscall",
    "xor eax, eax; xor ecx, ecx; xor esi, esi; xor edi, edi; xor r11d, r11d",
)


def _forbidden(random: Random, grammar: Grammar, number: int) -> Lines:
    """A load of the kernel's memory, and what is behind it."""
    address = DIRECT_MAP + random.randrange(0x100_0000)
    behind = [line for _ in range(random.randrange(3)) for line in grammar.statement(random)]
    return [
        *code(f"mov rcx, {address:#x}", f"lea rdi, [rip + refused_{number}]", random.choice(LOADS)),
        *code(random.choice(WORST) if random.random() < 0.6 else "mov rcx, [rbx]"),
        *behind,
        *code(random.choice(WORST)),
        *(f"refused_{number}:", *code("xor ecx, ecx; xor esi, esi; xor edi, edi")),
    ]


def forbidden_program(seed: int, loads: int = 16) -> str:
    """The source of the program number `seed`, with so many forbidden loads."""
    random, grammar = Random(seed), Grammar(PAGES)
    grammar.functions.append(HANDLER.splitlines())
    statements = [INSTALL]
    for number in range(loads):
        statements += [grammar.statement(random), _forbidden(random, grammar, number)]
    return program_of(grammar, "bss", statements)
