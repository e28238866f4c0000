# says: on one page
# Exercise 08: be kind to the TLB.
#
# Adds up a matrix of 512 rows of 512 numbers, one row a page. Check it with: cr3 check 08 08_locality.asm

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
        xor     ecx, ecx                        # column: offset in a row
next_column:
        xor     edx, edx                        # row: offset in the matrix
next_row:
        lea     rax, [rbx + rdx]
        add     rdi, [rax + rcx]
        add     rdx, ROW_SIZE
        cmp     rdx, ROWS * ROW_SIZE
        jb      next_row
        add     rcx, NUMBER_SIZE
        cmp     rcx, ROW_SIZE
        jb      next_column

        and     edi, 255
        mov     eax, 60                         # exit(sum)
        syscall
