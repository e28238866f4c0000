"""Small programs that ask an operating system one question each, and print the answer.

    small_program("invoke GETPID; show rax")        a whole program, for cr3 and for GNU as alike

Macros that every program has:

    invoke number, a, b ...     a system call; arguments are numbers, registers or memory, result in rax
    anonymous size, prot, flags, address            mmap of anonymous memory, by default private and writable
    show value                  a line of sixteen hexadecimal digits; changes nothing, not even flags

`buffer` is two pages of zeros, `text` ten bytes of text. A program that gets to its end exits with 0. What it prints
must not depend on where the system puts stack, heap and mappings: a real kernel puts them elsewhere every time.
"""

from __future__ import annotations

__all__ = ["STDIN", "small_program"]

STDIN = b"abcdefghijklmno"
"""What all of them find on standard input."""

_BEGIN = r"""
    .equ    READ, 0
    .equ    WRITE, 1
    .equ    MMAP, 9
    .equ    NORESERVE, 0x4022
    .equ    MUNMAP, 11
    .equ    MPROTECT, 10
    .equ    BRK, 12
    .equ    MREMAP, 25
    .equ    MADVISE, 28
    .equ    SCHED_YIELD, 24
    .equ    FORK, 57
    .equ    WAIT4, 61
    .equ    GETPID, 39
    .equ    EXIT, 60
    .equ    GETTID, 186
    .equ    EXIT_GROUP, 231

    .macro  invoke number, a=0, b=0, c=0, d=0, e=0, f=0
    mov     rdi, \a
    mov     rsi, \b
    mov     rdx, \c
    mov     r10, \d
    mov     r8, \e
    mov     r9, \f
    mov     eax, \number
    syscall
    .endm

    .macro  anonymous size, prot=3, flags=0x22, address=0
    invoke  MMAP, \address, \size, \prot, \flags, -1, 0
    .endm

    .macro  show value
    push    \value
    call    show_word
    .endm

    .bss
    .balign 4096
buffer:
    .skip   8192

    .data
text:
    .ascii  "some text\n"

    .text
show_word:
    push    rax
    push    rcx
    push    rdx
    push    rsi
    push    rdi
    push    r11
    pushfq
    cld
    mov     rax, [rsp + 64]
    sub     rsp, 24
    mov     byte ptr [rsp + 16], 10
    mov     ecx, 16
1:  mov     edx, eax
    and     edx, 15
    add     edx, 48                     # "0"
    cmp     edx, 58
    jb      2f
    add     edx, 39                     # "a" to "f"
2:  mov     [rsp + rcx - 1], dl
    shr     rax, 4
    dec     ecx
    jnz     1b
    mov     edi, 1
    mov     rsi, rsp
    mov     edx, 17
    mov     eax, WRITE
    syscall
    add     rsp, 24
    popfq
    pop     r11
    pop     rdi
    pop     rsi
    pop     rdx
    pop     rcx
    pop     rax
    ret     8

    .globl  _start
_start:
"""
_END = """
    invoke  EXIT, 0
"""


def small_program(body: str) -> str:
    """The source of a program whose main part is `body`."""
    return f"{_BEGIN}{body}{_END}"
