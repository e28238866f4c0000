"""Corner cases of transparent huge pages, one small program each (see `memory_programs`).

    area size               writable memory at 0x10000000, also in rbx, with MADV_HUGEPAGE; by default 4 MiB
    sweep first, size       write to every page of 4 KiB, each its own number; then show the page faults that it took
    sum first, size         show the sum of those numbers

`3 * MIB2` is a number, too.
"""

from __future__ import annotations

import re

from hugetlb_cases import HUGETLB_MACROS
from memory_programs import memory_program

__all__ = ["COLLAPSES", "FAULTS", "FORKS", "SPLITS", "huge_program"]

_SIZES = re.compile(r"(?:(\d+) \* )?\bMIB2\b")
_MACROS = r"""
    .equ    HUGEPAGE, 14
    .equ    NOHUGEPAGE, 15
    .equ    COLLAPSE, 25
    .equ    PAGEOUT, 21

    .macro  area size=0x400000
    anonymous \size, 3, AT, 0x10000000
    invoke  MADVISE, 0x10000000, \size, HUGEPAGE
    mov     rbx, 0x10000000
    .endm

    .macro  sweep first, size
    faults
    mov     r15, rax
    mov     rdi, \first
    mov     rsi, \size
    lea     rsi, [rdi + rsi]
71: mov     [rdi + 8], rdi
    add     rdi, PAGE
    cmp     rdi, rsi
    jb      71b
    faults
    sub     rax, r15
    show    rax
    .endm

    .macro  sum first, size
    mov     rdi, \first
    mov     rsi, \size
    lea     rsi, [rdi + rsi]
    xor     eax, eax
72: add     rax, [rdi + 8]
    add     rdi, PAGE
    cmp     rdi, rsi
    jb      72b
    show    rax
    .endm
"""

FAULTS = {
    "64 MiB are 32 faults": "area 32 * MIB2; sweep 0x10000000, 32 * MIB2; sum 0x10000000, 32 * MIB2",
    "pagemap tells of every small page": """
        .section .rodata
    pagemap: .asciz "/proc/self/pagemap"
        .text
        area; mov [rbx], bl
        lea r12, [rip + pagemap]; invoke 2, r12, 0; mov r13, rax
        lea r12, [rip + buffer]
        invoke 17, r13, r12, 32, 0x10000000 >> 9                    # pread64: pages 0 to 3
        show rax
        mov rax, [rip + buffer]; shr rax, 56; show rax              # present, exclusive
        mov rax, [rip + buffer + 24]; shr rax, 56; show rax
        invoke 17, r13, r12, 8, 0x10200000 >> 9                     # nobody touched the second one
        mov rax, [rip + buffer]; shr rax, 56; show rax""",
    "without advice": "anonymous 2 * MIB2, 3, AT, 0x10000000; sweep 0x10000000, 2 * MIB2",
    "only what covers 2 MiB is huge": """
        anonymous 3 * MIB2, 3, AT, 0x10100000; invoke MADVISE, 0x10100000, 3 * MIB2, HUGEPAGE
        sweep 0x10100000, 3 * MIB2; sum 0x10100000, 3 * MIB2""",
    "read first": """
        area; faults_of mov rax, [rbx]; faults_of mov rax, [rbx + 5 * PAGE]; faults_of mov [rbx], bl
        faults_of mov [rbx + 7 * PAGE], bl; sweep 0x10000000, MIB2""",
    "no more advice": "area; mov [rbx], bl; invoke MADVISE, rbx, 2 * MIB2, NOHUGEPAGE; sweep 0x10000000, 2 * MIB2",
    "advice after the first page": """
        anonymous 2 * MIB2, 3, AT, 0x10000000; mov byte ptr [rax], 1
        invoke MADVISE, 0x10000000, 2 * MIB2, HUGEPAGE; sweep 0x10000000, 2 * MIB2""",
    "advice on a part": """
        anonymous 3 * MIB2, 3, AT, 0x10000000; invoke MADVISE, 0x10200000, MIB2, HUGEPAGE
        sweep 0x10000000, 3 * MIB2""",
    "populate": "area; faults_of invoke MADVISE, 0x10000000, 2 * MIB2, POPULATE_WRITE; sweep 0x10000000, 2 * MIB2",
    "populate for reading": """
        area; faults_of invoke MADVISE, 0x10000000, 2 * MIB2, POPULATE_READ; sweep 0x10000000, 2 * MIB2""",
    "a process that wants none": """
        area; invoke PRCTL, 41, 1, 0, 0, 0; show rax; invoke PRCTL, 42, 0, 0, 0, 0; show rax
        sweep 0x10000000, MIB2; invoke PRCTL, 41, 0, 0, 0, 0; sweep 0x10200000, MIB2; invoke PRCTL, 42, 0, 0, 0, 0
        show rax; invoke PRCTL, 41, 1, 1, 0, 0; show rax; invoke PRCTL, 42, 1, 0, 0, 0; show rax""",
    "a process that wants those it asks for": """
        area; invoke PRCTL, 41, 1, 2, 0, 0; show rax; invoke PRCTL, 42, 0, 0, 0, 0; show rax
        sweep 0x10000000, MIB2""",
    "nor does its child": """
        invoke PRCTL, 41, 1, 0, 0, 0; in_child; area; sweep 0x10000000, MIB2; child_ends; area
        sweep 0x10000000, MIB2""",
    "shared memory has none": """
        anonymous MIB2, 3, SHARED_AT, 0x10000000; invoke MADVISE, 0x10000000, MIB2, HUGEPAGE; show rax
        sweep 0x10000000, MIB2""",
    "the stack may have some": """
        mov rbx, rsp; and rbx, -MIB2; sub rbx, 4 * MIB2; mov [rbx], bl; invoke MADVISE, rbx, 2 * MIB2, HUGEPAGE
        sweep rbx, 2 * MIB2""",
    "the heap may have some": """
        invoke BRK, 0; lea rbx, [rax + 2 * MIB2]; and rbx, -MIB2; lea r12, [rbx + 2 * MIB2]; invoke BRK, r12
        invoke MADVISE, rbx, 2 * MIB2, HUGEPAGE; sweep rbx, 2 * MIB2""",
    "mincore": "area; mov [rbx], bl; lea r12, [rbx + 2 * MIB2 - PAGE]; mov rax, [r12]; residents 0x101fe000, 4 * PAGE",
}
SPLITS = {
    "a page is unmapped": """
        area; sweep 0x10000000, MIB2; invoke MUNMAP, 0x10005000, PAGE; sum 0x10006000, 506 * PAGE
        sweep 0x10006000, 506 * PAGE; mov rax, [rbx + 5 * PAGE]""",
    "a page is unmapped and comes back": """
        area; sweep 0x10000000, 2 * MIB2; invoke MUNMAP, 0x10005000, 3 * PAGE; anonymous 3 * PAGE, 3, AT, 0x10005000
        sum 0x10000000, 2 * MIB2; sweep 0x10000000, 2 * MIB2; sum 0x10000000, 2 * MIB2""",
    "the border between two is unmapped": """
        area; sweep 0x10000000, 2 * MIB2; invoke MUNMAP, 0x101ff000, 2 * PAGE; sum 0x10000000, 511 * PAGE
        sum 0x10201000, 511 * PAGE""",
    "all is unmapped": """
        area; sweep 0x10000000, 2 * MIB2; invoke MUNMAP, rbx, 2 * MIB2; area; sum rbx, 2 * MIB2
        sweep 0x10000000, 2 * MIB2""",
    "the huge page of zeros is cut": """
        area; mov rax, [rbx]; invoke MUNMAP, 0x10005000, PAGE; mov rax, [rbx + PAGE]; faults_of mov [rbx], bl
        sweep 0x10006000, 5 * PAGE""",
    "a page is read only": """
        area; sweep 0x10000000, MIB2; invoke MPROTECT, 0x10003000, PAGE, 1; sum 0x10000000, MIB2
        sweep 0x10004000, 508 * PAGE; mov [rbx + 3 * PAGE], bl""",
    "all is read only, and writable again": """
        area; sweep 0x10000000, 2 * MIB2; invoke MPROTECT, rbx, 2 * MIB2, 1; sum 0x10000000, 2 * MIB2
        invoke MPROTECT, rbx, 2 * MIB2, 3; sweep 0x10000000, 2 * MIB2""",
    "none, and back": """
        area; sweep 0x10000000, 2 * MIB2; invoke MPROTECT, 0x10000000, 2 * MIB2, 0
        invoke MPROTECT, 0x10000000, 2 * MIB2, 3; sum 0x10000000, 2 * MIB2; sweep 0x10000000, 2 * MIB2""",
    "none for a part, and back": """
        area; sweep 0x10000000, 2 * MIB2; invoke MPROTECT, 0x10100000, MIB2, 0
        invoke MPROTECT, 0x10100000, MIB2, 3; sum 0x10000000, 2 * MIB2; sweep 0x10000000, 2 * MIB2""",
    "a page is not needed": """
        area; sweep 0x10000000, MIB2; invoke MADVISE, 0x10003000, 2 * PAGE, DONTNEED; sum 0x10000000, MIB2
        sweep 0x10000000, MIB2; sum 0x10000000, MIB2""",
    "nothing is needed": """
        area; sweep 0x10000000, 2 * MIB2; invoke MADVISE, 0x10000000, 2 * MIB2, DONTNEED; sum 0x10000000, 2 * MIB2
        sweep 0x10000000, 2 * MIB2""",
    "moved as it is": """
        area 3 * MIB2; sweep 0x10000000, 3 * MIB2; invoke MREMAP, rbx, 3 * MIB2, 3 * MIB2, 3, 0x20000000; show rax
        sum 0x20000000, 3 * MIB2; sweep 0x20000000, 3 * MIB2""",
    "moved to an odd place": """
        area 3 * MIB2; sweep 0x10000000, 3 * MIB2; invoke MREMAP, rbx, 3 * MIB2, 3 * MIB2, 3, 0x20001000; show rax
        sum 0x20001000, 3 * MIB2; sweep 0x20001000, 3 * MIB2""",
    "a part is moved": """
        area 3 * MIB2; sweep 0x10000000, 3 * MIB2; invoke MREMAP, 0x10100000, MIB2, MIB2, 3, 0x20100000; show rax
        sum 0x20100000, MIB2; sum 0x10000000, 256 * PAGE; sum 0x10300000, 768 * PAGE""",
    "moved to where tables are": """
        anonymous MIB2, 3, AT, 0x20000000; mov [rax], al; area; sweep 0x10000000, 2 * MIB2
        invoke MREMAP, 0x10000000, MIB2, MIB2, 3, 0x20000000; show rax; sum 0x20000000, MIB2
        sweep 0x20000000, MIB2""",
    "left behind empty": """
        area; sweep 0x10000000, 2 * MIB2; invoke MREMAP, 0x10000000, 2 * MIB2, 2 * MIB2, 7, 0x20000000
        sum 0x10000000, 2 * MIB2; sum 0x20000000, 2 * MIB2; sweep 0x10000000, 2 * MIB2""",
    "free, and written again": """
        area; sweep 0x10000000, 2 * MIB2; invoke MADVISE, 0x10000000, 2 * MIB2, FREE; show rax
        sweep 0x10000000, 2 * MIB2; sum 0x10000000, 2 * MIB2""",
    "free in part": """
        area; sweep 0x10000000, 2 * MIB2; invoke MADVISE, 0x10001000, 9 * PAGE, FREE; show rax
        sweep 0x10000000, 2 * MIB2; sum 0x10000000, 2 * MIB2""",
    "paged out without swap": """
        area; mov [rbx + 8], rbx; invoke MADVISE, 0x10000000, PAGE, PAGEOUT; show rax; sum 0x10000000, MIB2""",
}
FORKS = {
    "the child reads": """
        area; sweep 0x10000000, 2 * MIB2; in_child; sum 0x10000000, 2 * MIB2; faults_of mov rax, [rbx]; child_ends
        sweep 0x10000000, 2 * MIB2""",
    "the child writes": """
        area; sweep 0x10000000, 2 * MIB2; in_child; sweep 0x10000000, 8 * PAGE; child_ends
        sweep 0x10000000, 2 * MIB2; sum 0x10000000, 2 * MIB2""",
    "the child lives while its parent writes": """
        area; sweep 0x10000000, 2 * MIB2; invoke PIPE, 0x10200008; in_child; lea r12, [rip + status_word]
        mov edi, [rbx + MIB2 + 8]; invoke READ, rdi, r12, 1; sum 0x10000000, MIB2; sweep 0x10000000, 16 * PAGE
        invoke EXIT, 3; 77: sweep 0x10000000, 16 * PAGE; sweep 0x10100000, 8 * PAGE
        mov edi, [rbx + MIB2 + 12]; mov rsi, rbx; invoke WRITE, rdi, rsi, 1; wait_for -1
        sweep 0x10000000, 2 * MIB2""",
    "after a child that ended": """
        area; sweep 0x10000000, 2 * MIB2; in_child; child_ends; faults_of mov [rbx], bl
        faults_of mov [rbx + PAGE], bl; sweep 0x10000000, 2 * MIB2""",
    "of the huge page of zeros": """
        area; mov rax, [rbx]; mov rax, [rbx + MIB2]; in_child; faults_of mov rax, [rbx]; faults_of mov [rbx], bl
        child_ends; faults_of mov [rbx], bl; sweep 0x10000000, MIB2""",
    "of a page that was cut": """
        area; sweep 0x10000000, MIB2; invoke MUNMAP, 0x10005000, PAGE; in_child; sweep 0x10006000, 8 * PAGE
        child_ends; sweep 0x10006000, 16 * PAGE; sum 0x10006000, 16 * PAGE""",
    "the child keeps one page": """
        area; sweep 0x10000000, MIB2; in_child; invoke MUNMAP, 0x10001000, 511 * PAGE; faults_of mov [rbx], bl
        child_ends; sweep 0x10000000, MIB2""",
    "wiped": """
        area; sweep 0x10000000, 2 * MIB2; invoke MADVISE, 0x10000000, MIB2, WIPEONFORK; in_child
        sum 0x10000000, 2 * MIB2; sweep 0x10000000, 2 * MIB2; child_ends; sum 0x10000000, 2 * MIB2""",
    "a child of a child": """
        area; sweep 0x10000000, MIB2; in_child; in_child; sweep 0x10000000, 4 * PAGE; child_ends
        sweep 0x10001000, 4 * PAGE; child_ends; sweep 0x10000000, MIB2; sum 0x10000000, MIB2""",
}
SMALL = "anonymous 2 * MIB2, 3, AT, 0x10000000; mov rbx, 0x10000000;"
COLLAPSES = {
    "full of small pages": f"""{SMALL} sweep 0x10000000, 2 * MIB2; invoke MADVISE, rbx, 2 * MIB2, COLLAPSE; show rax
        sum 0x10000000, 2 * MIB2; sweep 0x10000000, 2 * MIB2""",
    "one page is enough": f"""{SMALL} mov [rbx + 5 * PAGE + 8], rbx; invoke MADVISE, rbx, MIB2, COLLAPSE; show rax
        sum 0x10000000, MIB2; sweep 0x10000000, MIB2""",
    "nothing is there": f"{SMALL} invoke MADVISE, rbx, 2 * MIB2, COLLAPSE; show rax; sweep 0x10000000, MIB2",
    "one of two": f"""{SMALL} mov [rbx + MIB2], bl; invoke MADVISE, rbx, 2 * MIB2, COLLAPSE; show rax
        sweep 0x10200000, MIB2""",
    "pages of zeros": f"{SMALL} sum 0x10000000, MIB2; invoke MADVISE, rbx, MIB2, COLLAPSE; show rax; mov [rbx], bl",
    "read only": f"""{SMALL} sweep 0x10000000, MIB2; invoke MPROTECT, rbx, MIB2, 1; invoke MADVISE, rbx, MIB2, COLLAPSE
        show rax; sum 0x10000000, MIB2; mov [rbx], bl""",
    "no rights": f"""{SMALL} sweep 0x10000000, MIB2; invoke MPROTECT, rbx, MIB2, 0; invoke MADVISE, rbx, MIB2, COLLAPSE
        show rax; invoke MPROTECT, rbx, MIB2, 3; sum 0x10000000, MIB2; sweep 0x10000000, MIB2""",
    "it is huge already": "area; sweep 0x10000000, MIB2; invoke MADVISE, rbx, MIB2, COLLAPSE; show rax",
    "it was cut": """
        area; sweep 0x10000000, MIB2; invoke MPROTECT, rbx, PAGE, 1; invoke MPROTECT, rbx, PAGE, 3
        invoke MADVISE, rbx, MIB2, COLLAPSE; show rax; sum 0x10000000, MIB2; sweep 0x10000000, MIB2""",
    "not those who want none": f"""{SMALL} sweep 0x10000000, MIB2; invoke MADVISE, rbx, MIB2, NOHUGEPAGE
        invoke MADVISE, rbx, MIB2, COLLAPSE; show rax; invoke MADVISE, 0x10200000, PAGE, COLLAPSE; show rax
        invoke PRCTL, 41, 1, 0, 0, 0; mov [rbx + MIB2], bl; invoke MADVISE, 0x10200000, MIB2, COLLAPSE; show rax""",
    "less than it takes": f"""{SMALL} sweep 0x10000000, MIB2; invoke MADVISE, 0x10001000, MIB2, COLLAPSE; show rax
        invoke MADVISE, 0x10000000, PAGE, COLLAPSE; show rax; anonymous PAGE, 3, AT, 0x20000000; mov [rax], al
        invoke MADVISE, 0x20000000, PAGE, COLLAPSE; show rax""",
    "a child's": f"""{SMALL} sweep 0x10000000, MIB2; in_child; sweep 0x10000000, 8 * PAGE
        invoke MADVISE, rbx, MIB2, COLLAPSE; show rax; sweep 0x10000000, MIB2; child_ends; sweep 0x10000000, MIB2
        sum 0x10000000, MIB2""",
    "its own child's": """
        area; sweep 0x10000000, MIB2; in_child; mov [rbx], bl; invoke MADVISE, rbx, MIB2, COLLAPSE; show rax
        sweep 0x10000000, MIB2; child_ends; sweep 0x10000000, MIB2; sum 0x10000000, MIB2""",
}


def huge_program(body: str, *, tell_faults: bool = True) -> str:
    """The source of a program whose main part is `body`; it may keep its page faults to itself."""
    source = memory_program(_SIZES.sub(lambda found: str(int(found[1] or 1) << 21), _MACROS + HUGETLB_MACROS + body))
    return source if tell_faults else re.sub(r"(sub     rax, r15\n) +show    rax\n", r"\1", source)
