# says: the matrix alone has
.equ ROWS, 500
.equ ROW_SIZE, 512

.bss
.balign 4096
matrix: .skip ROWS * ROW_SIZE

.text
.globl _start
_start:
        lea     rbx, [rip + matrix]
        xor     ecx, ecx
        xor     edi, edi
fill:
        mov     rdx, rcx
        shl     rdx, 9
        mov     [rbx + rdx], rcx
        add     rdi, [rbx + rdx]
        inc     ecx
        cmp     ecx, ROWS
        jb      fill
        mov     ecx, ROWS * 511
again:  mov     rax, [rbx]
        dec     ecx
        jnz     again
        and     edi, 255
        mov     eax, 60
        syscall
