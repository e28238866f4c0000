# null_syscall: what does it cost to enter the kernel and leave again?
#
# What it teaches: getpid does next to nothing, so this loop measures the way in and out. With
# page-table isolation (PTI) every system call writes CR3 twice; without PCIDs each of these writes
# also empties the TLB.
#
# Try:  cr3 run programs/null_syscall.asm --stats
#       and divide the cycles by COUNT. Then with `--pti on` and with `--pti off`: compare the CR3
#       writes and the TLB misses.
#
# expect: exit 0

    .equ    COUNT, 10000

    .text
    .globl  _start
_start:
    mov     ebx, COUNT                  # not rcx: syscall overwrites it
again:
    mov     eax, 39                     # getpid()
    syscall
    dec     ebx
    jnz     again

    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall
