# belady: more memory, more faults
#
# What it teaches: the anomaly that Belady found in 1969. Under FIFO replacement these twelve uses of
# five pages, 0 1 2 3 0 1 4 0 1 2 3 4, fault 9 times with three frames and 10 times with four. LRU and
# OPT never do that. The pages are code that jumps from one to the other; where to go next is kept in
# a register, so that no other page is ever used.
#
# Try:  cr3 policies programs/belady.asm --frames 3..5
#
# expect: exit 0

        .equ    PAGE, 4096
        .equ    END, 15

        .macro  go_on                           # to the page whose number is the lowest digit of rax
        mov     rcx, rax
        and     ecx, 15
        cmp     ecx, END
        je      1f
        shr     rax, 4
        shl     ecx, 12
        add     rcx, rbx
        jmp     rcx
1:      mov     edi, 0
        mov     eax, 60
        syscall
        .endm

        .text
        .balign PAGE
page0:  go_on

        .globl  _start
_start: lea     rbx, [rip + page0]
        mov     rax, 0xF43210410321             # page 0 is the first; then from the right to the left
        jmp     page0

        .rept   4                               # pages 1 to 4
        .balign PAGE
        go_on
        .endr
