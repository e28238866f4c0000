
.equ ROWS, 500
.equ ROW_SIZE, 4096
.equ NUMBER_SIZE, 8

.bss
.balign 4096
matrix: .skip ROWS * ROW_SIZE

.text
.globl _start
_start:
        lea     rbx, [rip + matrix]

        # every row gets its number in every 64th place, from the one that is its number
        xor     ecx, ecx                        # row
fill:
        mov     rdx, rcx
        shl     rdx, 12
        mov     eax, ecx
        and     eax, 63
        lea     rdx, [rdx + rax * NUMBER_SIZE]
        mov     [rbx + rdx], rcx
        inc     ecx
        cmp     ecx, ROWS
        jb      fill

        xor     edi, edi                        # the sum
        xor     ecx, ecx
next:
        add     rdi, [rbx + rcx]
        add     rcx, NUMBER_SIZE
        cmp     rcx, ROWS * ROW_SIZE
        jb      next

        and     edi, 255
        mov     eax, 60                         # exit(sum)
        syscall
