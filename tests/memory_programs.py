"""Small programs about memory and processes: what `small_programs` has, and more system calls and macros.

    in_child; ...; child_ends 3     a child does what is between and exits; its parent waits and shows its status
    wait_for pid                    wait4, and show the status
    limit resource, soft            lower a soft limit
    three                           three writable pages at 0x10000000, also in rbx; `sign` writes 1, 2, 3 to them
    three_signed, holed             both; and without the page in the middle
    faults                          the minor faults of this process so far, in rax
    faults_of code                  show how many faults one instruction takes
    residents address, size         mincore: show one byte a page, at most eight

A program begins by giving up the vdso that a real kernel maps, so that what it maps itself lies at the same addresses.
"""

from __future__ import annotations

import re

from small_programs import small_program

__all__ = ["memory_program"]

PAGE = 4096
_PAGES = re.compile(r"(?:(\d+) \* )?\bPAGE\b")
_NUMBERS = {
    **{"MPROTECT": 10, "RT_SIGACTION": 13, "MREMAP": 25, "MSYNC": 26, "MINCORE": 27, "MADVISE": 28, "GETPPID": 110},
    **{
        "CLONE": 56,
        "FORK": 57,
        "VFORK": 58,
        "WAIT4": 61,
        "KILL": 62,
        "GETRUSAGE": 98,
        "PRLIMIT": 302,
        "PIPE": 22,
        "SETPGID": 109,
        "GETPGRP": 111,
    },
    **{"MLOCK": 149, "MUNLOCK": 150, "MLOCKALL": 151, "MUNLOCKALL": 152, "WAITID": 247, "MLOCK2": 325, "CLOSE": 3},
    **{"DONTNEED": 4, "FREE": 8, "DONTFORK": 10, "DOFORK": 11, "WIPEONFORK": 18, "KEEPONFORK": 19},
    **{"POPULATE_READ": 22, "POPULATE_WRITE": 23, "MAYMOVE": 1, "MOVE_FIXED": 3, "DONTUNMAP": 5, "SCHED_YIELD": 24},
    **{"AT": 0x10_0022, "SHARED_AT": 0x10_0021, "FIXED": 0x32, "SHARED": 0x21, "PRIVATE": 0x22, "EXECVE": 59},
    **{"PRCTL": 157, "MEMFD_CREATE": 319, "FTRUNCATE": 77, "GETTIMEOFDAY": 96},
    **{"RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_NPROC": 6, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9},
}
_MORE = (
    "".join(f"\n    .equ    {name}, {number}" for name, number in _NUMBERS.items())
    + r"""
    .macro  in_child
    invoke  FORK
    test    rax, rax
    jnz     77f
    .endm

    .macro  child_ends code=0
    invoke  EXIT, \code
77: wait_for -1
    .endm

    .macro  wait_for pid
    mov     rdi, \pid
    lea     rsi, [rip + status_word]
    xor     edx, edx
    xor     r10d, r10d
    mov     eax, WAIT4
    syscall
    mov     eax, [rip + status_word]
    show    rax
    .endm

    .macro  faults
    lea     r12, [rip + usage_of_self]
    invoke  GETRUSAGE, 0, r12
    mov     rax, [rip + usage_of_self + 64]
    .endm

    .macro  faults_of code:vararg
    faults
    mov     r15, rax
    \code
    faults
    sub     rax, r15
    show    rax
    .endm

    .macro  residents address, size
    mov     qword ptr [rip + status_word], -1
    lea     r12, [rip + status_word]
    invoke  MINCORE, \address, \size, r12
    show    rax
    show    [rip + status_word]
    .endm

    .macro  three
    anonymous 3 * PAGE, 3, AT, 0x10000000
    mov     rbx, rax
    .endm

    .macro  sign
    mov     byte ptr [rbx], 1
    mov     byte ptr [rbx + PAGE], 2
    mov     byte ptr [rbx + 2 * PAGE], 3
    .endm

    .macro  three_signed
    three
    sign
    .endm

    .macro  holed
    three_signed
    lea     r12, [rbx + PAGE]
    invoke  MUNMAP, r12, PAGE
    .endm

    .macro  limit resource, soft
    mov     qword ptr [rip + usage_of_self], \soft
    mov     qword ptr [rip + usage_of_self + 8], -1
    lea     r12, [rip + usage_of_self + 16]
    invoke  PRLIMIT, 0, \resource, 0, r12
    mov     rax, [rip + usage_of_self + 24]
    mov     [rip + usage_of_self + 8], rax
    lea     r12, [rip + usage_of_self]
    invoke  PRLIMIT, 0, \resource, r12, 0
    show    rax
    .endm

    .data
    .balign 8
status_word:
    .quad   0
usage_of_self:
    .skip   256
    .text
    lea     rbx, [rsp + 24]
1:  add     rbx, 8                      # the environment, which a null ends
    cmp     qword ptr [rbx - 8], 0
    jne     1b
2:  cmp     qword ptr [rbx], 33         # AT_SYSINFO_EHDR
    je      3f
    add     rbx, 16
    cmp     qword ptr [rbx - 16], 0
    jne     2b
    jmp     4f
3:  mov     rbx, [rbx + 8]
    sub     rbx, 0x10000
    mov     r12, 0x7ffff7fff000
    sub     r12, rbx
    invoke  MUNMAP, rbx, r12
4:
"""
)


def memory_program(body: str) -> str:
    """The source of a program whose main part is `body`, in which `3 * PAGE` is a number."""
    return small_program(_PAGES.sub(lambda found: str(int(found[1] or 1) * PAGE), _MORE + body))
