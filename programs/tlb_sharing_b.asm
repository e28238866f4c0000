# tlb_sharing_b: reads a page that it never wrote
#
# What it teaches: with tlb_sharing_a, why a process switch must flush the TLB or tag its entries. This
# program asks for a new page at 0x10000000 and reads it, so it must find zeros. The read is its first
# touch: there is no entry for it in its page table, and so a walk would end in a page fault. But if
# the TLB still has an entry of tlb_sharing_a's for this address, there is no walk.
#
# Try:  cr3 run programs/tlb_sharing_a.asm programs/tlb_sharing_b.asm --asid stale
#       then with --asid flush and with --asid pcid.
#
# Stale translations are treacherous: even the stack and the code of the two would be mixed up. So this
# program does without a stack, and begins a page above the other one's code.
#
# expect: exit 0
# expect stdout: b reads:  ...........

    .equ    PAGE, 0x10000000
    .equ    LENGTH, 11

    .text
    .skip   4096                        # where the other one has its code
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

    lea     rdi, [rip + shown]
    xor     ecx, ecx
next:                                   # copy what is there, with a dot for each zero
    mov     al, [rcx + PAGE]
    test    al, al
    jz      zero
    mov     [rdi + rcx], al
zero:
    inc     ecx
    cmp     ecx, LENGTH
    jb      next

    mov     edi, 1
    lea     rsi, [rip + text]
    mov     edx, 22
    mov     eax, 1                      # write(stdout, text, 22)
    syscall
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

    .data
text:
    .ascii  "b reads:  "
shown:
    .ascii  "...........\n"
