"""Corner cases of mappings, one small program each (see `memory_programs`).

At 0x10000000 nothing is mapped to begin with.
"""

from __future__ import annotations

__all__ = ["MEMORY_CASES"]

MMAP = {
    "top down, flush with each other": """
        anonymous PAGE; show rax; anonymous PAGE, 1; show rax; anonymous 9000; show rax""",
    "a gap is used again": """
        anonymous 4 * PAGE; mov rbx, rax; anonymous PAGE, 1; show rax; lea r12, [rbx + PAGE]
        invoke MUNMAP, r12, 2 * PAGE; anonymous PAGE, 1; show rax; anonymous 2 * PAGE, 1; show rax
        anonymous PAGE, 1; show rax""",
    "a free hint is taken": "anonymous PAGE, 3, PRIVATE, 0x20000000; show rax",
    "an odd hint is rounded": """
        anonymous PAGE, 3, PRIVATE, 0x20000fff; show rax; anonymous PAGE, 3, PRIVATE, 1; show rax""",
    "a hint that is taken already is ignored": "three; anonymous PAGE, 1, PRIVATE, rbx; show rax",
    "a hint that is too small below a mapping": """
        three; lea r12, [rbx - PAGE]; anonymous 8192, 1, PRIVATE, r12; show rax""",
    "a hint beyond the end": "mov r12, 0x7fffffffe000; anonymous 8192, 3, PRIVATE, r12; show rax",
    "a hint in the kernel": "mov r12, 0xffff888000000000; anonymous 8192, 3, PRIVATE, r12; show rax",
    "a hint below mmap_min_addr": """
        anonymous PAGE, 3, PRIVATE, 0x800; show rax; anonymous PAGE, 3, PRIVATE, 0x1000; show rax""",
    "fixed below mmap_min_addr": """
        anonymous PAGE, 3, FIXED, 0; show rax; anonymous PAGE, 3, AT, 0; show rax
        anonymous PAGE, 3, FIXED, 0x1000; show rax""",
    "fixed at no page": "anonymous PAGE, 3, FIXED, 0x10000001; show rax; anonymous PAGE, 3, AT, 0x10000800; show rax",
    "fixed over three mappings": """
        three_signed; lea r12, [rbx + PAGE]; invoke MPROTECT, r12, PAGE, 1; anonymous 2 * PAGE, 3, FIXED, r12
        show rax; show [rbx + PAGE]; show [rbx]""",
    "fixed, and not over another": """
        three; anonymous PAGE, 3, AT, rbx; show rax; lea r12, [rbx + 3 * PAGE]; anonymous PAGE, 3, AT, r12
        show rax; lea r12, [rbx - PAGE]; anonymous 2 * PAGE, 3, AT, r12; show rax""",
    "at the end of the user half": """
        mov r12, 0x7fffffffe000; anonymous PAGE, 3, FIXED, r12; show rax; mov r12, 0x7ffffffff000
        anonymous PAGE, 3, FIXED, r12; show rax""",
    "neither shared nor private": """
        anonymous PAGE, 3, 0x20; show rax; anonymous PAGE, 3, 0x24; show rax; anonymous PAGE, 3, 0x23; show rax
        anonymous PAGE, 3, 0x2f; show rax""",
    "without a file": "invoke MMAP, 0, PAGE, 3, 2, -1, 0; show rax; invoke MMAP, 0, PAGE, 3, 2, 77, 0; show rax",
    "anonymous memory ignores the file": """
        invoke MMAP, 0, PAGE, 3, 0x22, 77, 0; show rax; invoke MMAP, 0, PAGE, 3, 0x21, 1, 0; show rax""",
    "an odd offset": """
        invoke MMAP, 0, PAGE, 3, 0x22, -1, 1; show rax; invoke MMAP, 0, PAGE, 3, 0x22, -1, 0x3000; show rax""",
    "errors in order": """
        invoke MMAP, 0, 0, 3, 2, -1, 0; show rax; invoke MMAP, 0, 0, 3, 0, -1, 1; show rax
        invoke MMAP, 0, 0, 3, 0, 1, 0; show rax; invoke MMAP, 1, -PAGE, 3, 0x30, 1, 0; show rax
        invoke MMAP, 1, PAGE, 3, 0x30, 1, 0; show rax; mov r12, 0x7ffffffff000
        invoke MMAP, r12, PAGE, 3, 0x30, 1, 0; show rax""",
    "an offset with the sign bit": """
        mov r12, 0xfffffffffffff000; invoke MMAP, 0, PAGE, 3, 0x22, -1, r12; show rax
        invoke MMAP, 0, 2 * PAGE, 3, 0x22, -1, r12; show rax""",
    "huge pages from an empty pool": """
        anonymous 0x200000, 3, 0x40022; show rax; anonymous 0x200000, 3, 0x54040022; show rax
        anonymous 0x40000000, 3, 0x78040022; show rax; anonymous PAGE, 3, 0x40022; show rax
        anonymous 0x200000, 3, 0x40021; show rax""",
    "huge pages of a size that there is not": """
        anonymous 0x200000, 3, 0x40040022; show rax; anonymous 0, 3, 0x40022; show rax
        invoke MMAP, 0, PAGE, 3, 0x40002, 0, 0; show rax""",
    "neighbours become one": """
        anonymous PAGE, 3, AT, 0x10000000; anonymous PAGE, 3, AT, 0x10002000; anonymous PAGE, 3, AT, 0x10001000
        show rax; anonymous PAGE, 1, AT, 0x10003000; anonymous PAGE, 3, AT, 0x10004000""",
    "neighbours with pages of their own stay two": """
        anonymous PAGE, 3, AT, 0x10000000; mov byte ptr [rax], 1; anonymous PAGE, 3, AT, 0x10002000
        mov byte ptr [rax], 1; anonymous PAGE, 3, AT, 0x10001000; mov byte ptr [rax], 1""",
    "neighbours of which one was touched": """
        anonymous PAGE, 3, AT, 0x10000000; mov byte ptr [rax], 1; anonymous PAGE, 3, AT, 0x10001000
        anonymous PAGE, 3, AT, 0x10003000; mov byte ptr [rax], 1; anonymous PAGE, 3, AT, 0x10002000""",
    "noreserve does not merge with others": """
        anonymous PAGE, 3, 0x104022, 0x10000000; anonymous PAGE, 3, AT, 0x10001000; show rax""",
    "shared anonymous mappings are files of their own": """
        anonymous PAGE, 3, SHARED_AT, 0x10000000; anonymous PAGE, 3, SHARED_AT, 0x10001000; show rax
        mov byte ptr [rax], 1; show [rax]""",
    "populate": """
        faults_of anonymous 4 * PAGE, 3, 0x108022, 0x10000000; mov rbx, 0x10000000; faults_of mov [rbx], al
        residents 0x10000000, 4 * PAGE""",
    "populate for reading": """
        faults_of anonymous 4 * PAGE, 1, 0x108022, 0x10000000; residents 0x10000000, 4 * PAGE
        invoke MPROTECT, 0x10000000, 4 * PAGE, 3; mov rbx, 0x10000000; faults_of mov [rbx], al""",
    "populate without rights": "faults_of anonymous 4 * PAGE, 0, 0x108022, 0x10000000; residents 0x10000000, 4 * PAGE",
    "locked": "faults_of anonymous 4 * PAGE, 3, 0x102022, 0x10000000; residents 0x10000000, 4 * PAGE",
    "grows down on a fault below it": """
        anonymous PAGE, 3, 0x100122, 0x10100000; mov byte ptr [rax - 1], 1; mov byte ptr [rax - 0x10000], 1
        show [rax - 0x10000]""",
    "grows down to the guard gap": """
        anonymous PAGE, 3, AT, 0x10000000; anonymous PAGE, 3, 0x100122, 0x10200000
        mov byte ptr [rax - 0xff000], 1; show 1; mov byte ptr [rax - 0xff001], 1""",
    "the guard gap is kept by hints, too": """
        anonymous PAGE, 3, 0x100122, 0x10200000; anonymous PAGE, 3, PRIVATE, 0x101ff000; show rax
        anonymous PAGE, 3, AT, 0x101ff000; show rax""",
    "grows down and shared": "anonymous PAGE, 3, 0x121; show rax",
    "stack and other flags without effect": "anonymous PAGE, 3, 0x20022; show rax; anonymous PAGE, 3, 0x1822; show rax",
    "huge pages that are not in the pool": "anonymous 0x200000, 3, 0x40022; show rax",
    "more than all memory": "mov r12, 0x100000000000; anonymous r12; show rax; anonymous r12, 3, NORESERVE; show rax",
    "more than all memory, read only": """
        mov r12, 0x100000000000; anonymous r12, 1; show rax; invoke MPROTECT, rax, r12, 3; show rax""",
    "more than the address space": """
        mov r12, 0x7fffffffe000; anonymous r12, 0; show rax; mov r12, 0x7fff00000000; anonymous r12, 0; show rax""",
}
MUNMAP = {
    "a hole, then the rest": """
        holed; show [rbx]; show [rbx + 2 * PAGE]; invoke MUNMAP, rbx, 3 * PAGE; show rax; show [rbx]""",
    "arguments": """
        three; invoke MUNMAP, rbx, 0; show rax; lea r12, [rbx + 8]; invoke MUNMAP, r12, PAGE; show rax
        invoke MUNMAP, 0, PAGE; show rax; invoke MUNMAP, -PAGE, PAGE; show rax; invoke MUNMAP, rbx, -1; show rax
        mov r12, 0x7ffffffff000; invoke MUNMAP, 0x20000000, r12; show rax""",
    "several mappings at once": """
        three; anonymous PAGE, 1, AT, 0x10004000; anonymous PAGE, 3, SHARED_AT, 0x10006000
        invoke MUNMAP, 0x10001000, 0x5800; show rax; show [rbx]; show [0x10006000]""",
    "an unmapped page comes back empty": """
        holed; anonymous PAGE, 3, AT, 0x10001000; mov rbx, rax; show [rbx]; faults_of mov [rbx], al""",
    "part of the stack": """
        mov rbx, rsp; and rbx, -PAGE; lea r12, [rbx - 0x8000]; invoke MUNMAP, r12, PAGE; show rax
        show [rbx - 0x7ff8]""",
}
MPROTECT = {
    "arguments": """
        three; invoke MPROTECT, rbx, 0, 1; show rax; lea r12, [rbx + 1]; invoke MPROTECT, r12, PAGE, 1; show rax
        invoke MPROTECT, r12, 0, 1; show rax; invoke MPROTECT, rbx, PAGE, 0x10; show rax
        invoke MPROTECT, rbx, PAGE, 8; show rax; invoke MPROTECT, 0x30000000, 0, 1; show rax
        invoke MPROTECT, 0x30000000, PAGE, 1; show rax""",
    "lengths that wrap": """
        three; invoke MPROTECT, rbx, -1, 1; show rax; invoke MPROTECT, rbx, -PAGE, 1; show rax
        mov r12, 0x7ffffffff000; invoke MPROTECT, r12, PAGE, 1; show rax; invoke MPROTECT, -PAGE, PAGE, 1
        show rax""",
    "over a hole changes what is before it": """
        holed; invoke MPROTECT, rbx, 3 * PAGE, 1; show rax; mov byte ptr [rbx + 2 * PAGE], 9
        mov byte ptr [rbx], 9""",
    "from a hole changes nothing": """
        holed; lea r12, [rbx + PAGE]; invoke MPROTECT, r12, 2 * PAGE, 1; show rax
        mov byte ptr [rbx + 2 * PAGE], 9""",
    "to read only and back": """
        three_signed; invoke MPROTECT, rbx, 3 * PAGE, 1; show [rbx]; invoke MPROTECT, rbx, 3 * PAGE, 3
        faults_of mov byte ptr [rbx], 5; show [rbx]""",
    "none, and back": """
        three_signed; invoke MPROTECT, rbx, 3 * PAGE, 0; residents 0x10000000, 3 * PAGE
        invoke MPROTECT, rbx, 3 * PAGE, 3; faults_of mov byte ptr [rbx], 5; show [rbx + PAGE]""",
    "none is not readable": """
        three_signed; invoke MPROTECT, rbx, PAGE, 0; show rax; show [rbx + PAGE]; mov al, [rbx + 5]""",
    "write alone is readable": """
        three_signed; invoke MPROTECT, rbx, PAGE, 2; show [rbx]; mov byte ptr [rbx], 7; show [rbx]""",
    "execute alone is not writable": "three_signed; invoke MPROTECT, rbx, PAGE, 4; show rax; mov byte ptr [rbx], 7",
    "splits and joins": """
        three; lea r12, [rbx + PAGE]; invoke MPROTECT, r12, PAGE, 1; invoke MPROTECT, rbx, PAGE, 5
        invoke MPROTECT, rbx, 2 * PAGE, 1""",
    "joins what has pages": """
        three_signed; lea r12, [rbx + PAGE]; invoke MPROTECT, r12, PAGE, 1; invoke MPROTECT, r12, PAGE, 3
        show [r12]""",
    "joins two that were always two": """
        anonymous PAGE, 1, AT, 0x10000000; anonymous PAGE, 3, AT, 0x10001000; mov byte ptr [rax], 1
        invoke MPROTECT, 0x10000000, PAGE, 3; mov rbx, 0x10000000; mov byte ptr [rbx], 1""",
    "two that had pages before they were alike": """
        anonymous PAGE, 7, AT, 0x10000000; mov byte ptr [rax], 1; anonymous PAGE, 3, AT, 0x10001000
        mov byte ptr [rax], 1; invoke MPROTECT, 0x10000000, PAGE, 3""",
    "code that was written": """
        anonymous PAGE; mov rbx, rax; mov byte ptr [rbx], 0xc3; invoke MPROTECT, rbx, PAGE, 5; call rbx; show 1
        invoke MPROTECT, rbx, PAGE, 1; call rbx""",
    "of the stack, downwards": """
        mov rbx, rsp; and rbx, -PAGE; invoke MPROTECT, rbx, PAGE, 0x1000003; show rax; show [rsp]""",
    "downwards of what does not grow": """
        three; invoke MPROTECT, rbx, PAGE, 0x1000001; show rax; invoke MPROTECT, rbx, PAGE, 0x3000001; show rax""",
    "downwards of what grows": """
        anonymous 2 * PAGE, 3, 0x100122, 0x10100000; lea r12, [rax + PAGE]; mov rbx, rax
        invoke MPROTECT, r12, PAGE, 0x1000001; show rax; mov byte ptr [rbx], 1""",
    "a read-only page of zeros stays": """
        three; show [rbx]; invoke MPROTECT, rbx, PAGE, 1; invoke MPROTECT, rbx, PAGE, 3; faults_of mov [rbx], al""",
    "one fault for a page made writable": """
        three_signed; invoke MPROTECT, rbx, 3 * PAGE, 1; in_child; child_ends; invoke MPROTECT, rbx, 3 * PAGE, 3
        faults_of mov [rbx], al; faults_of mov [rbx], al""",
}
BRK = {
    "gives zeros, shrinks and grows": """
        invoke BRK, 0; mov rbx, rax; show rbx; lea r12, [rbx + 3 * PAGE]; invoke BRK, r12; show rax
        mov byte ptr [rbx + PAGE], 7; invoke BRK, rbx; show rax; invoke BRK, r12; show [rbx + PAGE]""",
    "not below where it began": "invoke BRK, 0; lea r12, [rax - 1]; invoke BRK, r12; show rax; invoke BRK, 1; show rax",
    "not into what is mapped": """
        invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 4 * PAGE]; anonymous PAGE, 1, AT, r12
        lea r12, [rbx + 4 * PAGE]; invoke BRK, r12; show rax; lea r12, [rbx + 3 * PAGE + 1]; invoke BRK, r12
        show rax; lea r12, [rbx + 3 * PAGE]; invoke BRK, r12; show rax""",
    "within RLIMIT_DATA": """
        limit RLIMIT_DATA, 0x10000; invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 0x4000]; invoke BRK, r12
        show rax; lea r12, [rbx + 0x10000]; invoke BRK, r12; show rax; lea r12, [rbx + 0xd000]; invoke BRK, r12
        show rax; anonymous 0x8000; show rax; anonymous 0x8000, 1; show rax""",
    "unmapped in the middle": """
        invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 3 * PAGE]; invoke BRK, r12; lea r12, [rbx + PAGE]
        invoke MUNMAP, r12, PAGE; invoke BRK, rbx; show rax; lea r12, [rbx + 4 * PAGE]; invoke BRK, r12; show rax""",
    "grows over a hole": """
        invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 3 * PAGE]; invoke BRK, r12; invoke MUNMAP, rbx, 3 * PAGE
        lea r12, [rbx + 4 * PAGE]; invoke BRK, r12; show rax; mov byte ptr [rbx + 3 * PAGE], 1
        mov byte ptr [rbx], 1""",
    "with other rights": """
        invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 2 * PAGE]; invoke BRK, r12; invoke MPROTECT, rbx, 2 * PAGE, 1
        lea r12, [rbx + 3 * PAGE]; invoke BRK, r12; show rax""",
    "a mapping flush above the heap": """
        invoke BRK, 0; mov rbx, rax; anonymous PAGE, 3, AT, rbx; show rax; lea r12, [rbx + 100]; invoke BRK, r12
        show rax""",
}
MREMAP = {
    "arguments": """
        three; invoke MREMAP, rbx, PAGE, 0, 1; show rax; invoke MREMAP, rbx, PAGE, PAGE, 8; show rax
        invoke MREMAP, rbx, PAGE, PAGE, 2; show rax; lea r12, [rbx + 1]; invoke MREMAP, r12, PAGE, PAGE, 1
        show rax; invoke MREMAP, rbx, PAGE, PAGE, 3, 0x20000001; show rax; invoke MREMAP, rbx, PAGE, 2 * PAGE, 5
        show rax; invoke MREMAP, rbx, PAGE, PAGE, 4; show rax; invoke MREMAP, rbx, PAGE, PAGE, 3, rbx; show rax
        invoke MREMAP, rbx, 0, PAGE, 1; show rax; invoke MREMAP, 0x30000000, PAGE, PAGE, 1; show rax
        invoke MREMAP, 0x30000000, PAGE, 2 * PAGE, 1; show rax; invoke MREMAP, rbx, PAGE, -1, 1; show rax
        mov r12, 0x800000000000; invoke MREMAP, rbx, PAGE, r12, 1; show rax
        invoke MREMAP, -PAGE, PAGE, 2 * PAGE, 1; show rax; invoke MREMAP, rbx, -PAGE, PAGE, 1; show rax""",
    "beyond the end of a mapping": """
        three; invoke MREMAP, rbx, 4 * PAGE, 5 * PAGE, 1; show rax; invoke MREMAP, rbx, 4 * PAGE, PAGE, 1
        show rax""",
    "grows in place": """
        three_signed; invoke MREMAP, rbx, 3 * PAGE, 5 * PAGE, 0; show rax; mov byte ptr [rbx + 4 * PAGE], 1
        show [rbx]""",
    "cannot grow in place": """
        three; anonymous PAGE, 1, AT, 0x10003000; invoke MREMAP, rbx, 3 * PAGE, 4 * PAGE, 0; show rax""",
    "moves to grow": """
        three_signed; anonymous PAGE, 1, AT, 0x10003000; invoke MREMAP, rbx, 3 * PAGE, 4 * PAGE, 1; show rax
        mov r13, rax; faults_of mov al, [r13 + PAGE]; show [r13 + PAGE]; mov al, [rbx]""",
    "grows from its middle only by moving": """
        three_signed; invoke MREMAP, rbx, PAGE, 2 * PAGE, 0; show rax; invoke MREMAP, rbx, PAGE, 2 * PAGE, 1
        show rax; show [rax]; show [rbx + PAGE]; show [rbx]""",
    "shrinks": "three_signed; invoke MREMAP, rbx, 3 * PAGE, PAGE, 0; show rax; show [rbx]; show [rbx + PAGE]",
    "same size": "three; invoke MREMAP, rbx, 2 * PAGE, 2 * PAGE, 0; show rax; invoke MREMAP, rbx, 10, 100, 0; show rax",
    "to a fixed place over others": """
        three_signed; anonymous 4 * PAGE, 1, AT, 0x20000000; invoke MREMAP, rbx, 2 * PAGE, 2 * PAGE, 3, 0x20001000
        show rax; show [rax]; show [rax + PAGE]; show [rbx + 2 * PAGE]; show [rbx]""",
    "to a fixed place, smaller": """
        three_signed; invoke MREMAP, rbx, 3 * PAGE, PAGE, 3, 0x20000000; show rax; show [rax]; show [rbx + PAGE]""",
    "to a fixed place, larger": """
        three_signed; invoke MREMAP, rbx, 3 * PAGE, 5 * PAGE, 3, 0x20000000; show rax; show [rax + 2 * PAGE]
        show [rax + 4 * PAGE]""",
    "to a place that overlaps": """
        three; invoke MREMAP, rbx, 2 * PAGE, 2 * PAGE, 3, 0x10001000; show rax
        invoke MREMAP, rbx, PAGE, 2 * PAGE, 3, 0x0ffff000; show rax""",
    "to a place that cannot be": """
        three; invoke MREMAP, rbx, PAGE, PAGE, 3, 0; show rax; mov r13, 0x7ffffffff000
        invoke MREMAP, rbx, PAGE, PAGE, 3, r13; show rax""",
    "a failing fixed move has unmapped the target": """
        three_signed; invoke MREMAP, 0x30000000, PAGE, PAGE, 3, rbx; show rax; show [rbx + PAGE]; show [rbx]""",
    "dontunmap leaves an empty mapping": """
        three_signed; invoke MREMAP, rbx, 3 * PAGE, 3 * PAGE, 5; show rax; show [rax]; faults_of mov r14, [rbx]
        show r14""",
    "dontunmap with a hint": """
        three_signed; invoke MREMAP, rbx, PAGE, PAGE, 5, 0x20000000; show rax; show [rax]; show [rbx]
        show [rbx + PAGE]""",
    "dontunmap of a shared mapping": """
        anonymous PAGE, 3, SHARED_AT, 0x10000000; mov byte ptr [rax], 4; mov rbx, rax
        invoke MREMAP, rbx, PAGE, PAGE, 5; show rax""",
    "dontunmap, fixed": """
        three_signed; invoke MREMAP, rbx, 3 * PAGE, 3 * PAGE, 7, 0x20000000; show rax; show [rax + PAGE]
        show [rbx + PAGE]""",
    "a shared mapping a second time": """
        anonymous 2 * PAGE, 3, SHARED_AT, 0x10000000; mov rbx, rax; mov byte ptr [rbx + PAGE], 6
        invoke MREMAP, rbx, 0, 2 * PAGE, 1; show rax; show [rax + PAGE]; mov byte ptr [rax], 8; show [rbx]""",
    "over two mappings": """
        three; invoke MPROTECT, rbx, PAGE, 1; invoke MREMAP, rbx, 2 * PAGE, 3 * PAGE, 1; show rax
        invoke MREMAP, rbx, 2 * PAGE, PAGE, 1; show rax""",
    "moved next to its kin": """
        anonymous PAGE, 3, AT, 0x10000000; mov byte ptr [rax], 1; anonymous PAGE, 3, AT, 0x20000000
        mov byte ptr [rax], 2; mov rbx, rax; invoke MREMAP, rbx, PAGE, PAGE, 3, 0x10001000; show [rax]""",
    "moved away and back": """
        three_signed; invoke MREMAP, 0x10001000, PAGE, PAGE, 3, 0x20000000; show [rax]
        invoke MREMAP, 0x20000000, PAGE, PAGE, 3, 0x10001000; show [rax]""",
    "an untouched mapping moves next to its kin": """
        anonymous PAGE, 3, AT, 0x10000000; anonymous PAGE, 3, AT, 0x20000000
        invoke MREMAP, 0x20000000, PAGE, PAGE, 3, 0x10001000; show rax""",
    "within RLIMIT_AS": """
        three; limit RLIMIT_AS, 0x100000; invoke MREMAP, rbx, 3 * PAGE, 0x200000, 1; show rax
        invoke MREMAP, rbx, 3 * PAGE, 4 * PAGE, 1; show rax""",
    "of the stack": "mov rbx, rsp; and rbx, -PAGE; invoke MREMAP, rbx, PAGE, 2 * PAGE, 0; show rax",
    "of locked memory": """
        anonymous PAGE, 3, 0x102022, 0x10000000; invoke MREMAP, 0x10000000, PAGE, 3 * PAGE, 0; show rax
        residents 0x10000000, 3 * PAGE""",
}
MADVISE = {
    "arguments": """
        three; invoke MADVISE, rbx, PAGE, 99; show rax; lea r12, [rbx + 1]; invoke MADVISE, r12, PAGE, DONTNEED
        show rax; invoke MADVISE, rbx, 0, DONTNEED; show rax; invoke MADVISE, rbx, 0, 99; show rax
        invoke MADVISE, rbx, -1, DONTNEED; show rax; invoke MADVISE, rbx, -PAGE, DONTNEED; show rax
        invoke MADVISE, 0x30000000, PAGE, DONTNEED; show rax; mov r12, 0x7ffffffff000
        invoke MADVISE, r12, PAGE, DONTNEED; show rax; invoke MADVISE, rbx, PAGE, 0x100000004; show rax""",
    "each advice on private memory": """
        three_signed; .irp number, 0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 26
        invoke MADVISE, rbx, PAGE, \\number; show rax; .endr""",
    "each advice on shared memory": """
        anonymous PAGE, 3, SHARED_AT, 0x10000000; mov rbx, rax; mov byte ptr [rbx], 1
        .irp number, 0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 20, 22, 23
        invoke MADVISE, rbx, PAGE, \\number; show rax; .endr""",
    "each advice on locked memory": """
        anonymous PAGE, 3, 0x102022, 0x10000000; mov rbx, rax; .irp number, 0, 3, 4, 8, 9, 18, 20, 22, 23, 24
        invoke MADVISE, rbx, PAGE, \\number; show rax; .endr""",
    "dontneed": """
        three_signed; invoke MADVISE, rbx, 2 * PAGE, DONTNEED; show rax; faults_of mov r14, [rbx]; show r14
        show [rbx + 2 * PAGE]""",
    "dontneed over a hole": """
        holed; invoke MADVISE, rbx, 3 * PAGE, DONTNEED; show rax; show [rbx]; show [rbx + 2 * PAGE]""",
    "dontneed of shared memory": """
        anonymous PAGE, 3, SHARED_AT, 0x10000000; mov byte ptr [rax], 5; mov rbx, rax
        invoke MADVISE, rbx, PAGE, DONTNEED; show rax; show [rbx]""",
    "dontneed of initialised data": """
        mov byte ptr [rip + text], 0x41; lea rbx, [rip + text]; and rbx, -PAGE
        invoke MADVISE, rbx, PAGE, DONTNEED; show rax; show [rip + text]""",
    "dontneed without rights": """
        three_signed; invoke MPROTECT, rbx, PAGE, 0; invoke MADVISE, rbx, PAGE, DONTNEED; show rax
        invoke MPROTECT, rbx, PAGE, 3; show [rbx]""",
    "free keeps what is written afterwards": """
        three_signed; invoke MADVISE, rbx, PAGE, FREE; show rax; mov byte ptr [rbx], 9; show [rbx]""",
    "free over a hole": "holed; invoke MADVISE, rbx, 3 * PAGE, FREE; show rax",
    "dontfork": """
        three_signed; invoke MADVISE, 0x10001000, PAGE, DONTFORK; show rax; in_child; show [rbx]
        show [rbx + PAGE]; child_ends; show [rbx + PAGE]""",
    "dofork": """
        three_signed; invoke MADVISE, rbx, PAGE, DONTFORK; invoke MADVISE, rbx, PAGE, DOFORK; in_child; show [rbx]
        child_ends""",
    "wipeonfork": """
        three_signed; invoke MADVISE, 0x10001000, PAGE, WIPEONFORK; show rax; in_child; show [rbx + PAGE]
        show [rbx]; child_ends; show [rbx + PAGE]""",
    "wipeonfork is inherited": """
        three_signed; invoke MADVISE, rbx, PAGE, WIPEONFORK; in_child; mov byte ptr [rbx], 7; invoke FORK
        test rax, rax; jnz 1f; show [rbx]; invoke EXIT, 0
        1:  wait_for -1; show [rbx]; child_ends""",
    "populate_write": """
        three; faults_of invoke MADVISE, rbx, 2 * PAGE, POPULATE_WRITE; residents rbx, 3 * PAGE
        faults_of mov [rbx], al""",
    "populate_read": """
        three; faults_of invoke MADVISE, rbx, 2 * PAGE, POPULATE_READ; residents rbx, 3 * PAGE
        faults_of mov [rbx], al""",
    "populate over a hole": """
        holed; invoke MADVISE, rbx, 3 * PAGE, POPULATE_WRITE; show rax
        invoke MADVISE, rbx, 3 * PAGE, POPULATE_READ; show rax""",
    "populate without rights": """
        three; invoke MPROTECT, rbx, PAGE, 1; invoke MADVISE, rbx, PAGE, POPULATE_WRITE; show rax
        invoke MPROTECT, rbx, PAGE, 0; invoke MADVISE, rbx, PAGE, POPULATE_READ; show rax
        invoke MPROTECT, rbx, PAGE, 2; invoke MADVISE, rbx, PAGE, POPULATE_READ; show rax""",
    "flags split and join": """
        three; invoke MADVISE, 0x10001000, PAGE, DONTFORK; in_child; child_ends
        invoke MADVISE, 0x10001000, PAGE, DOFORK""",
    "a flag splits": "three; invoke MADVISE, 0x10001000, PAGE, WIPEONFORK; invoke MADVISE, 0x10002000, PAGE, 16",
}
MEMORY_CASES = {
    f"{group}: {name}": code
    for group, cases in {
        "mmap": MMAP,
        "munmap": MUNMAP,
        "mprotect": MPROTECT,
        "brk": BRK,
        "mremap": MREMAP,
        "madvise": MADVISE,
    }.items()
    for name, code in cases.items()
}
