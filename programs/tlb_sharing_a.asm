# tlb_sharing_a: leaves a translation behind for tlb_sharing_b
#
# What it teaches: a TLB remembers addresses, not processes. This program and tlb_sharing_b use the same
# address, each for a page of its own. If a switch from one process to the other neither empties the
# TLB nor tags its entries (PCID), the other one reads this one's page. No kernel does that; here it
# can be seen.
#
# Try:  cr3 run programs/tlb_sharing_a.asm programs/tlb_sharing_b.asm --asid stale
#       then with --asid flush and with --asid pcid, and compare what b reads.
#
# The page is at 0x10000000. The program writes to it, so that the TLB has it, and lets the other one run.
#
# expect: exit 0
# expect stdout: a writes: secret of a

    .equ    PAGE, 0x10000000

    .text
    .globl  _start
_start:
    mov     edi, PAGE
    mov     esi, 4096
    mov     edx, 3                      # PROT_READ | PROT_WRITE
    mov     r10d, 0x32                  # MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9                      # mmap
    syscall

    mov     dword ptr [rax], 0x72636573         # "secr": the lowest byte is the first letter
    mov     dword ptr [rax + 4], 0x6f207465     # "et o"
    mov     dword ptr [rax + 8], 0x0a612066     # "f a", and a newline

    mov     edi, 1
    lea     rsi, [rip + text]
    mov     edx, 10
    mov     eax, 1                      # write(stdout, "a writes: ", 10)
    syscall
    mov     edi, 1
    mov     esi, PAGE
    mov     edx, 12
    mov     eax, 1                      # write(stdout, the page, 12)
    syscall

    mov     al, [PAGE]                  # now the TLB has it for sure
    mov     eax, 24                     # sched_yield: the other one's turn
    syscall
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

text:                                   # in the page of the code: b's pages are all at other addresses
    .ascii  "a writes: "
