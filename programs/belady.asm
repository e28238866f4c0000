# More memory, more faults: Belady's anomaly (1969), with twelve references to five pages.
#
#   cr3 policies programs/belady.asm --frames 3..5        FIFO: 9 faults with 3 frames, 10 with 4
#
# The program is five pages of code that jump from one to the other, in the order 0 1 2 3 0 1 4 0 1 2 3 4. Where to go
# next is kept in a register, so that nothing but these pages is ever used.

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
        .balign PAGE
        .endm

        .text
        .balign PAGE
page0:  go_on
        go_on                                   # pages 1 to 4
        go_on
        go_on
page4:
        .globl  _start
_start: lea     rbx, [rip + page0]
        mov     rax, 0xF432104103210            # read from its end
        go_on
