"""Corner cases of what is in memory, limits and processes, one small program each (see `memory_programs`).

At 0x10000000 nothing is mapped to begin with.
"""

from __future__ import annotations

__all__ = ["PROCESS_CASES"]

RESIDENCY = {
    "mincore": """
        three; mov byte ptr [rbx + PAGE], 1; mov al, [rbx + 2 * PAGE]; residents rbx, 3 * PAGE; residents rbx, 1
        residents rbx, 4097; residents rbx, 0""",
    "mincore: arguments": """
        three; lea r13, [rbx + 1]; residents r13, PAGE; residents 0x30000000, PAGE; residents rbx, 4 * PAGE
        residents -PAGE, PAGE; invoke MINCORE, rbx, PAGE, 0; show rax; invoke MINCORE, rbx, PAGE, 0x30000000
        show rax; mov r12, 0xffff888000000000; invoke MINCORE, rbx, PAGE, r12; show rax
        invoke MINCORE, 0x30000000, PAGE, 0; show rax; invoke MINCORE, rbx, 0, 0; show rax
        invoke MINCORE, rbx, -1, rsp; show rax""",
    "mincore of shared memory": """
        anonymous 3 * PAGE, 3, SHARED_AT, 0x10000000; mov rbx, rax; mov byte ptr [rbx + PAGE], 1
        residents rbx, 3 * PAGE; in_child; mov byte ptr [rbx], 1; child_ends; residents rbx, 3 * PAGE""",
    "mlock": """
        three; faults_of invoke MLOCK, rbx, 2 * PAGE; residents rbx, 3 * PAGE; invoke MUNLOCK, rbx, PAGE; show rax""",
    "mlock: arguments": """
        three; invoke MLOCK, 0x30000000, PAGE; show rax; invoke MLOCK, rbx, 4 * PAGE; show rax
        invoke MLOCK, rbx, 0; show rax; invoke MLOCK, 0x30000000, 0; show rax; invoke MLOCK, rbx, -1; show rax
        lea r12, [rbx + 5]; invoke MLOCK, r12, 1; show rax; invoke MLOCK, -PAGE, PAGE; show rax
        invoke MUNLOCK, 0x30000000, PAGE; show rax; invoke MUNLOCK, rbx, 9 * PAGE; show rax
        invoke MLOCK2, rbx, PAGE, 2; show rax""",
    "mlock without rights": """
        three; invoke MPROTECT, rbx, PAGE, 0; invoke MLOCK, rbx, 2 * PAGE; show rax; residents rbx, 3 * PAGE""",
    "mlock of what can only be read": """
        three; invoke MPROTECT, rbx, PAGE, 1; invoke MLOCK, rbx, 2 * PAGE; show rax; invoke MPROTECT, rbx, PAGE, 3
        faults_of mov [rbx], al""",
    "mlock2 on fault": """
        three; faults_of invoke MLOCK2, rbx, 3 * PAGE, 1; residents rbx, 3 * PAGE; faults_of mov [rbx], al""",
    "mlock of pages of zeros": "three; mov al, [rbx]; faults_of invoke MLOCK, rbx, PAGE; faults_of mov [rbx], al",
    "RLIMIT_MEMLOCK": """
        three; limit RLIMIT_MEMLOCK, 2 * PAGE; invoke MLOCK, rbx, 3 * PAGE; show rax; invoke MLOCK, rbx, 2 * PAGE
        show rax; invoke MLOCK, rbx, 2 * PAGE; show rax; invoke MLOCK, rbx, 3 * PAGE; show rax
        anonymous PAGE, 3, 0x2022; show rax; invoke MLOCKALL, 1; show rax; invoke MUNLOCK, rbx, PAGE; show rax
        anonymous PAGE, 3, 0x2022; show rax""",
    "RLIMIT_MEMLOCK of nothing": """
        limit RLIMIT_MEMLOCK, 0; anonymous PAGE, 3, 0x2022; show rax; invoke MLOCK, rsp, PAGE; show rax
        invoke MLOCKALL, 2; show rax; invoke MUNLOCKALL; show rax""",
    "mlockall": """
        three; invoke MLOCKALL, 0; show rax; invoke MLOCKALL, 8; show rax; invoke MLOCKALL, 4; show rax
        invoke MLOCKALL, 3; show rax; residents rbx, 3 * PAGE; anonymous 2 * PAGE, 3, AT, 0x20000000
        residents 0x20000000, 2 * PAGE; invoke MUNLOCKALL; show rax""",
    "mlockall on fault": """
        three; invoke MLOCKALL, 7; show rax; residents rbx, 3 * PAGE; anonymous 2 * PAGE, 3, AT, 0x20000000
        residents 0x20000000, 2 * PAGE""",
    "mlockall and brk": """
        invoke MLOCKALL, 2; invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 2 * PAGE]; invoke BRK, r12
        residents rbx, 2 * PAGE""",
    "what is locked is not inherited": """
        three; invoke MLOCK, rbx, PAGE; in_child; invoke MADVISE, rbx, PAGE, DONTNEED; show rax; child_ends""",
    "msync": """
        three; invoke MSYNC, rbx, PAGE, 4; show rax; invoke MSYNC, rbx, PAGE, 5; show rax
        invoke MSYNC, rbx, PAGE, 8; show rax; invoke MSYNC, rbx, 4 * PAGE, 4; show rax; lea r12, [rbx + 1]
        invoke MSYNC, r12, PAGE, 4; show rax; invoke MSYNC, rbx, 0, 4; show rax; invoke MSYNC, 0x30000000, PAGE, 1
        show rax; invoke MSYNC, rbx, -1, 4; show rax; invoke MSYNC, rbx, -PAGE, 4; show rax
        invoke MSYNC, 0x30000000, PAGE, 99; show rax""",
    "msync of locked memory": """
        three; invoke MLOCK, rbx, PAGE; invoke MSYNC, rbx, PAGE, 2; show rax; invoke MSYNC, rbx, PAGE, 4; show rax""",
}
LIMITS = {
    "RLIMIT_AS": """
        limit RLIMIT_AS, 0x200000; anonymous 0x300000; show rax; anonymous 0x100000; show rax; anonymous 0x100000
        show rax""",
    "RLIMIT_AS and mappings that are replaced": """
        anonymous 0x100000, 3, AT, 0x10000000; limit RLIMIT_AS, 0x150000; anonymous 0x100000, 3, FIXED, 0x10000000
        show rax; anonymous 0x100000, 3, AT, 0x20000000; show rax""",
    "RLIMIT_AS and the stack": """
        limit RLIMIT_AS, 0x50000; mov rbx, rsp; and rbx, -PAGE; mov byte ptr [rbx - 0x20000], 1; show 1
        mov byte ptr [rbx - 0x60000], 1""",
    "RLIMIT_DATA": """
        limit RLIMIT_DATA, 0x100000; anonymous 0x200000; show rax; anonymous 0x200000, 1; show rax
        invoke MPROTECT, rax, 0x200000, 3; show rax; anonymous 0x200000, 3, SHARED; show rax""",
    "RLIMIT_STACK": """
        limit RLIMIT_STACK, 0x40000; mov rbx, rsp; and rbx, -PAGE; mov byte ptr [rbx - 0x30000], 1; show 1
        mov byte ptr [rbx - 0x41000], 1""",
    "prlimit: arguments": """
        lea r12, [rip + buffer]; invoke PRLIMIT, 0, 16, 0, r12; show rax; invoke PRLIMIT, 0, -1, 0, r12; show rax
        invoke PRLIMIT, 0, 3, 0, r12; show rax; show [r12]; invoke PRLIMIT, 0, 3, 0, 8; show rax
        invoke PRLIMIT, 0, 3, 8, 0; show rax; invoke PRLIMIT, 0x7fffffff, 3, 0, r12; show rax
        mov qword ptr [r12], 2; mov qword ptr [r12 + 8], 1; invoke PRLIMIT, 0, 3, r12, 0; show rax
        invoke PRLIMIT, 0, 3, 0, 0; show rax""",
    "prlimit: a hard limit does not come back": """
        lea r12, [rip + buffer]; mov qword ptr [r12], 0x100000; mov qword ptr [r12 + 8], 0x200000
        invoke PRLIMIT, 0, 9, r12, 0; show rax; mov qword ptr [r12 + 8], 0x300000; invoke PRLIMIT, 0, 9, r12, 0
        show rax; invoke PRLIMIT, 0, 9, 0, r12; show [r12]; show [r12 + 8]""",
    "limits are inherited": "limit RLIMIT_AS, 0x200000; in_child; anonymous 0x300000; show rax; child_ends",
}
FORK = {
    "a child has a copy": """
        three_signed; in_child; show [rbx]; mov byte ptr [rbx], 9; show [rbx]; child_ends 7; show [rbx]""",
    "a child and its parent share": """
        anonymous PAGE, 3, SHARED; mov rbx, rax; mov byte ptr [rbx], 1; in_child; show [rbx]
        mov byte ptr [rbx], 9; child_ends 7; show [rbx]""",
    "faults of a child": """
        three_signed; in_child; faults_of mov r14, [rbx]; faults_of mov [rbx], al; faults_of mov [rbx], al
        child_ends""",
    "faults of a parent whose child is gone": """
        three_signed; in_child; child_ends; faults_of mov r14, [rbx]; faults_of mov [rbx], al
        faults_of mov [rbx], al; faults_of mov [rbx + PAGE], al""",
    "faults of a parent whose child wrote": """
        three_signed; in_child; mov [rbx], al; child_ends; faults_of mov [rbx], al""",
    "pages of zeros": """
        three; mov al, [rbx]; in_child; faults_of mov r14, [rbx]; faults_of mov [rbx], al; child_ends
        faults_of mov [rbx], al""",
    "of shared memory": """
        anonymous PAGE, 3, SHARED_AT, 0x10000000; mov rbx, rax; mov [rbx], al; in_child; faults_of mov r14, [rbx]
        faults_of mov [rbx], al; child_ends; faults_of mov [rbx], al""",
    "what the child maps is the child's": """
        in_child; anonymous PAGE, 3, AT, 0x10000000; show rax; child_ends; show [0x10000000]""",
    "what the child unmaps is the child's": "three_signed; in_child; invoke MUNMAP, rbx, PAGE; child_ends; show [rbx]",
    "read-only in the parent, writable in the child": """
        three_signed; invoke MPROTECT, rbx, PAGE, 1; in_child; invoke MPROTECT, rbx, PAGE, 3
        faults_of mov byte ptr [rbx], 8; child_ends; show [rbx]""",
    "no rights": """
        three_signed; invoke MPROTECT, rbx, PAGE, 0; in_child; invoke MPROTECT, rbx, PAGE, 3; show [rbx]
        faults_of mov byte ptr [rbx], 8; child_ends; invoke MPROTECT, rbx, PAGE, 3; show [rbx]""",
    "a grandchild": """
        three_signed; in_child; mov byte ptr [rbx], 4; invoke FORK; test rax, rax; jnz 1f; mov byte ptr [rbx], 5
        show [rbx]; invoke EXIT, 2
        1:  wait_for -1; show [rbx]; child_ends 3; show [rbx]""",
    "neighbours in a child": """
        three; mov byte ptr [rbx], 1; in_child; anonymous PAGE, 3, AT, 0x10003000; mov byte ptr [rax], 1
        child_ends; anonymous PAGE, 3, AT, 0x10003000; mov byte ptr [rax], 1""",
    "neighbours after a fork": """
        three; mov byte ptr [rbx], 1; in_child; child_ends; invoke MPROTECT, 0x10001000, PAGE, 1
        invoke MPROTECT, 0x10001000, PAGE, 3; mov [rbx + PAGE], al""",
    "the heap of a child": """
        invoke BRK, 0; mov rbx, rax; lea r12, [rbx + PAGE]; invoke BRK, r12; mov byte ptr [rbx], 3; in_child
        lea r12, [rbx + 2 * PAGE]; invoke BRK, r12; show rax; show [rbx]; child_ends; invoke BRK, 0; show rax""",
    "vfork lends the memory": """
        three; invoke VFORK; test rax, rax; jnz 1f; mov byte ptr [rbx], 6; invoke EXIT, 5
        1: show [rbx]; wait_for -1; faults_of mov [rbx], al""",
    "vfork lends the address space": """
        invoke VFORK; test rax, rax; jnz 1f; anonymous PAGE, 3, AT, 0x10000000; mov byte ptr [rax], 2
        invoke EXIT, 5
        1: wait_for -1; show [0x10000000]""",
    "a child that is killed": "in_child; mov al, [8]; child_ends; show 1",
    "faults of children": """
        three; in_child; mov byte ptr [rbx], 1; mov byte ptr [rbx + PAGE], 1; child_ends; lea r12, [rip + buffer]
        invoke GETRUSAGE, -1, r12; show rax; mov rax, [rip + buffer + 64]; cmp rax, 0; setne al; movzx eax, al
        show rax""",
    "clone with memory and a stack": """
        anonymous 4 * PAGE; lea r12, [rax + 4 * PAGE]; invoke CLONE, 0x111, r12; test rax, rax; jnz 1f
        mov byte ptr [rip + buffer], 7; invoke EXIT, 4
        1: mov rbx, rax; wait_for rbx; show [rip + buffer]""",
    "clone: flags that cannot be": """
        invoke CLONE, 0x10011, 0; show rax; invoke CLONE, 0x811, 0; show rax; invoke CLONE, 0x10911, 0; cmp rax, 0
        jne 1f; invoke EXIT, 0
        1: nop""",
}
WAIT = {
    "without children": """
        lea r12, [rip + buffer]; invoke WAIT4, -1, r12, 0, 0; show rax; invoke WAIT4, 12345678, r12, 0, 0
        show rax; invoke WAIT4, -1, r12, 1, 0; show rax; invoke WAITID, 0, 0, r12, 4; show rax""",
    "arguments": """
        invoke WAIT4, -1, 0, 0x100, 0; show rax; invoke WAITID, 0, 0, 0, 0; show rax; invoke WAITID, 9, 0, 0, 4
        show rax; invoke WAITID, 1, 0, 0, 4; show rax; invoke WAITID, 1, -5, 0, 4; show rax""",
    "a status that cannot be written": """
        invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 0
        1: invoke WAIT4, -1, 8, 0, 0; show rax; invoke WAIT4, -1, 0, 0, 0; show rax""",
    "waitid": """
        invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 300
        1: mov rbx, rax; lea r12, [rip + buffer]; invoke WAITID, 1, rbx, r12, 4; show rax; show [r12]
        mov eax, [r12 + 8]; show rax; mov eax, [r12 + 16]; sub rax, rbx; show rax; mov eax, [r12 + 24]; show rax
        invoke WAITID, 1, rbx, r12, 4; show rax""",
    "waitid leaves it there if asked": """
        invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 6
        1: mov rbx, rax; lea r12, [rip + buffer]; invoke WAITID, 0, 0, r12, 0x1000004; show rax
        mov eax, [r12 + 24]; show rax; wait_for rbx""",
    "not of a child that is somebody else's": """
        in_child; invoke GETPPID; mov rbx, rax; invoke WAIT4, rbx, 0, 0, 0; show rax; child_ends""",
    "of one child among several": """
        invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 1
        1: mov rbx, rax; invoke FORK; test rax, rax; jnz 2f; invoke EXIT, 2
        2:  mov r13, rax; wait_for r13; wait_for rbx; invoke WAIT4, -1, 0, 0, 0; show rax""",
    "with usage": """
        invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 1
        1: lea r12, [rip + buffer]; invoke WAIT4, -1, 0, 0, r12; mov rax, [r12 + 72]; show rax
        invoke WAIT4, -1, 0, 0, 8; show rax""",
    "of groups": """
        in_child; invoke SETPGID, 0, 0; invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 3
        1: wait_for 0; child_ends; invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 1
        1: invoke GETPGRP; neg rax; wait_for rax; show [rip + status_word]""",
    "of a group": """
        invoke FORK; test rax, rax; jnz 1f; invoke EXIT, 1
        1: wait_for 0; invoke WAIT4, 0, 0, 0, 0; show rax; invoke WAIT4, -77777, 0, 0, 0; show rax""",
}
USAGE = {
    "arguments": """
        lea r12, [rip + buffer]; invoke GETRUSAGE, 2, r12; show rax; invoke GETRUSAGE, 0, 8; show rax
        invoke GETRUSAGE, 5, 8; show rax; invoke GETRUSAGE, -1, r12; show rax; invoke GETRUSAGE, 1, r12; show rax""",
    "one fault a page": "three; faults_of mov [rbx], al; faults_of mov [rbx + 8], al; faults_of mov [rbx + PAGE], al",
    "reading first costs one more": "three; faults_of mov r14, [rbx]; faults_of mov [rbx], al; faults_of mov [rbx], al",
    "a system call faults for the program": """
        three; faults_of invoke GETTIMEOFDAY, rbx, 0; faults_of mov [rbx], al; faults_of invoke WRITE, 99, rbx, 10""",
    "over a border": "three; faults_of mov [rbx + PAGE - 4], rax; faults_of mov r14, [rbx + 2 * PAGE - 4]",
    "read, modify, write": "three; faults_of inc qword ptr [rbx]; faults_of inc qword ptr [rbx + PAGE - 4]",
    "the stack": """
        faults_of mov [rsp - 0x3000], al; faults_of mov [rsp - 0x50000], al; faults_of mov r14, [rsp - 0x60000]""",
    "shared memory": """
        anonymous 3 * PAGE, 3, SHARED_AT, 0x10000000; mov rbx, rax; faults_of mov [rbx], al
        faults_of mov [rbx + PAGE], al; faults_of mov [rbx + PAGE], al""",
    "shared memory, read and then written": """
        anonymous 3 * PAGE, 3, SHARED_AT, 0x10000000; mov rbx, rax; faults_of mov r14, [rbx]
        faults_of mov [rbx], al""",
    "a fault that is refused counts, too": "faults_of nop; in_child; mov al, [8]; child_ends",
}
PROCESS_CASES = {
    f"{group}: {name}": code
    for group, cases in {
        "residency": RESIDENCY,
        "limits": LIMITS,
        "fork": FORK,
        "wait": WAIT,
        "usage": USAGE,
    }.items()
    for name, code in cases.items()
}
