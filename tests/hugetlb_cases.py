"""Corner cases of pools of huge pages, one small program each (see `huge_cases`).

pool n                  write one digit to /proc/sys/vm/nr_hugepages, and show the answer
overcommit n            the same for nr_overcommit_hugepages
counts                  show nr_, free_, resv_ and surplus_hugepages of 2 MiB, each as its first digit
pages size, flags       memory with MAP_HUGETLB at 0x10000000, private by default; the address in rbx, shown
"""

from __future__ import annotations

__all__ = ["HUGETLB_CASES", "HUGETLB_MACROS"]

HUGETLB_MACROS = r"""
    .equ    HUGETLB_AT, 0x40032
    .equ    HUGETLB_SHARED, 0x40031

    .macro  set_digit path, digit
    mov     byte ptr [rip + buffer], 0x30 + \digit
    mov     byte ptr [rip + buffer + 1], 10
    lea     r12, [rip + \path]
    invoke  2, r12, 1                       # open
    mov     r12, rax
    lea     r13, [rip + buffer]
    invoke  WRITE, r12, r13, 2
    show    rax
    invoke  CLOSE, r12
    .endm

    .macro  pool digit
    set_digit nr_hugepages, \digit
    .endm

    .macro  overcommit digit
    set_digit nr_overcommit_hugepages, \digit
    .endm

    .macro  count_of path
    lea     r12, [rip + \path]
    invoke  2, r12, 0
    mov     r12, rax
    lea     r13, [rip + buffer]
    invoke  READ, r12, r13, 8
    invoke  CLOSE, r12
    movzx   r12d, byte ptr [rip + buffer]
    show    r12
    .endm

    .macro  counts
    count_of total_of_pool
    count_of free_of_pool
    count_of reserved_of_pool
    count_of surplus_of_pool
    .endm

    .macro  pages size, flags=HUGETLB_AT
    anonymous \size, 3, \flags, 0x10000000
    mov     rbx, rax
    show    rbx
    .endm

    .section .rodata
nr_hugepages:
    .asciz  "/proc/sys/vm/nr_hugepages"
nr_overcommit_hugepages:
    .asciz  "/proc/sys/vm/nr_overcommit_hugepages"
total_of_pool:
    .asciz  "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
free_of_pool:
    .asciz  "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
reserved_of_pool:
    .asciz  "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages"
surplus_of_pool:
    .asciz  "/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages"
    .text
"""

HUGETLB_CASES = {
    "promised by mmap, delivered by the fault": """
        counts; pool 4; counts; pages 2 * MIB2; counts; faults_of mov [rbx], bl; counts
        faults_of mov [rbx + PAGE], bl; invoke MUNMAP, rbx, 2 * MIB2; counts; pool 0; counts""",
    "more than there are": "pool 2; pages 3 * MIB2; counts; pages 2 * MIB2; counts",
    "not promised": """
        pool 1; pages 2 * MIB2, 0x44032; counts; mov [rbx], bl; counts; show 1; mov [rbx + MIB2 + 8], bl""",
    "the system call has the error": """
        pool 1; pages 2 * MIB2, 0x44032; mov [rbx], bl; lea r12, [rbx + MIB2]; invoke PIPE, r12; show rax""",
    "a part of a page is a page": "pool 2; pages PAGE; counts; faults_of mov [rbx + 511 * PAGE], bl; counts",
    "read first": """
        pool 2; pages 2 * MIB2; faults_of mov rax, [rbx]; counts; faults_of mov [rbx], bl; counts
        faults_of mov [rbx + PAGE], bl; faults_of mov [rbx + MIB2], bl""",
    "where it is placed": """
        pool 2; anonymous PAGE, 3, 0x40022; mov rbx, rax; and eax, MIB2 - 1; show rax; mov [rbx], bl
        anonymous PAGE, 3, 0x40022, 0x20001000; show rax; anonymous PAGE, 3, 0x40032, 0x20001000; show rax
        anonymous PAGE, 3, 0x140022, 0x20200000; show rax; anonymous PAGE, 3, 0x140022, 0x20300000; show rax""",
    "sizes": """
        pool 1; anonymous PAGE, 3, 0x54040022; sar rax, 63; show rax; anonymous PAGE, 3, 0x78040022; show rax
        anonymous PAGE, 3, 0x58040022; show rax""",
    "neither shared nor private": "pool 1; pages PAGE, 0x40030; pages PAGE, 0x40033; pages PAGE, 0x40132",
    "cut": """
        pool 3; pages 3 * MIB2; sweep 0x10000000, 3 * MIB2; invoke MUNMAP, 0x10000000, PAGE; show rax
        invoke MUNMAP, 0x10001000, MIB2; show rax; invoke MPROTECT, 0x10100000, MIB2, 1; show rax
        invoke MPROTECT, 0x10200000, PAGE, 1; show rax; anonymous PAGE, 3, FIXED, 0x10201000; show rax
        invoke MPROTECT, 0x10200000, MIB2, 1; show rax; invoke MUNMAP, 0x10200000, MIB2; show rax; counts
        sum 0x10000000, MIB2; sum 0x10400000, MIB2""",
    "moved": """
        pool 3; pages 2 * MIB2; mov [rbx + 8], rbx; invoke MREMAP, rbx, 2 * MIB2, 2 * MIB2, 3, 0x20000000; show rax
        counts; mov rbx, 0x20000000; show [rbx + 8]; faults_of mov [rbx + MIB2], bl; counts
        invoke MREMAP, 0x20000000, 2 * MIB2, 3 * MIB2, 1; show rax
        invoke MREMAP, 0x20000000, 2 * MIB2, 2 * MIB2, 3, 0x10001000; show rax
        invoke MREMAP, 0x20001000, PAGE, PAGE, 3, 0x10000000; show rax
        invoke MREMAP, 0x20000000, 2 * MIB2, PAGE, 0; show rax; counts""",
    "rights": """
        pool 2; pages 2 * MIB2; sweep 0x10000000, 2 * MIB2; invoke MPROTECT, rbx, 2 * MIB2, 1; sum 0x10000000, 2 * MIB2
        invoke MPROTECT, rbx, 2 * MIB2, 0; invoke MPROTECT, rbx, 2 * MIB2, 3; faults_of mov [rbx], bl
        sum 0x10000000, 2 * MIB2; invoke MPROTECT, rbx, MIB2, 1; mov [rbx], bl""",
    "advice": """
        pool 3; pages 2 * MIB2; sweep 0x10000000, 2 * MIB2; invoke MADVISE, rbx, PAGE, DONTNEED; show rax; counts
        lea r12, [rbx + PAGE]; invoke MADVISE, r12, MIB2, DONTNEED; show rax; invoke MADVISE, rbx, MIB2, DONTNEED
        show rax; counts; sum 0x10000000, MIB2; counts; invoke MADVISE, rbx, MIB2, FREE; show rax
        invoke MADVISE, rbx, MIB2, HUGEPAGE; show rax; invoke MADVISE, rbx, MIB2, COLLAPSE; show rax
        invoke MADVISE, rbx, MIB2, PAGEOUT; show rax; invoke MADVISE, rbx, MIB2, DONTFORK; show rax
        invoke MADVISE, rbx, PAGE, 24; show rax; invoke MADVISE, rbx, MIB2, 24; show rax; counts""",
    "locked": """
        pool 2; pages 2 * MIB2; invoke MLOCK, rbx, MIB2; show rax; counts; invoke MUNLOCK, rbx, MIB2; show rax
        invoke MADVISE, rbx, MIB2, DONTNEED; show rax; counts""",
    "populated": """
        pool 3; faults_of pages 2 * MIB2, 0x48032; counts; residents 0x101fe000, 4 * PAGE; faults_of mov [rbx], bl
        anonymous MIB2, 3, 0x42032, 0x20000000; counts""",
    "shared": """
        pool 3; pages 2 * MIB2, HUGETLB_SHARED; counts; mov [rbx + 8], rbx; counts; in_child; show [rbx + 8]
        mov qword ptr [rbx + 16], 5; mov [rbx + MIB2], rbx; counts; child_ends; show [rbx + 16]; show [rbx + MIB2]
        counts; invoke MUNMAP, rbx, MIB2; counts; invoke MUNMAP, 0x10200000, MIB2; counts""",
    "private, and a child": """
        pool 3; pages 2 * MIB2; mov [rbx + 8], rbx; in_child; show [rbx + 8]; faults_of mov [rbx + 8], bl; counts
        child_ends; counts; faults_of mov [rbx + 16], rbx; faults_of mov [rbx + MIB2], rbx; counts""",
    "a child is promised nothing": """
        pool 2; pages 2 * MIB2; mov [rbx + 8], rbx; in_child; show [rbx + 8]; mov [rbx + 8], bl; child_ends; counts
        in_child; mov al, [rbx + MIB2]; child_ends; counts; mov [rbx + MIB2], bl; counts""",
    "its parent takes it back": """
        pool 1; pages MIB2; mov [rbx + 8], rbx; lea r14, [rip + buffer + PAGE]; invoke PIPE, r14; in_child
        mov edi, [r14]; lea rsi, [r14 + 8]; invoke READ, rdi, rsi, 1; show 1; show [rbx + 8]; invoke EXIT, 0
        77: faults_of mov [rbx + 8], bl; mov edi, [r14 + 4]; invoke WRITE, rdi, rbx, 1; wait_for -1
        show [rbx + 8]; counts""",
    "surplus pages": """
        pool 1; overcommit 2; pages 3 * MIB2; counts; mov [rbx], bl; counts; invoke MUNMAP, 0x10200000, 2 * MIB2
        counts; invoke MUNMAP, 0x10000000, MIB2; counts; pages 4 * MIB2; counts; overcommit 0; counts""",
    "a pool that shrinks while it is used": """
        pool 3; pages 2 * MIB2; mov [rbx], bl; pool 0; counts; mov [rbx + MIB2], bl; counts; pool 1; counts
        invoke MUNMAP, rbx, 2 * MIB2; counts""",
    "what is left when a process ends": """
        pool 3; in_child; pages 2 * MIB2; mov [rbx], bl; counts; child_ends; counts; in_child
        pages 2 * MIB2, HUGETLB_SHARED; mov [rbx], bl; counts; child_ends; counts""",
    "the same in its place": """
        pool 2; pages 2 * MIB2; mov [rbx], bl; counts; pages 2 * MIB2; counts; show [rbx]; pages 3 * MIB2; counts""",
    "a mapping over it": """
        pool 2; pages 2 * MIB2; mov [rbx], bl; anonymous 2 * MIB2, 3, FIXED, 0x10000000; counts; mov [rbx], bl
        sweep 0x10000000, MIB2""",
    "transparent ones in its place": "pool 1; pages MIB2; mov [rbx], bl; area; sweep 0x10000000, 2 * MIB2; counts",
}
