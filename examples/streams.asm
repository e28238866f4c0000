# streams: ten million accesses in three phases, for `cr3 trace --out` and examples/analyse_trace.py
#
# Five million loads in order over 16 pages, 1.5 million read-modify-writes all over 256 pages, a million pushes and pops
# on one page.

    .equ    PAGE, 4096

    .bss
    .balign PAGE
small:
    .skip   16 * PAGE
large:
    .skip   256 * PAGE

    .text
    .globl  _start
_start:
    lea     rsi, [rip + small]
    mov     ecx, 5000000
    xor     edx, edx
in_order:
    mov     rax, [rsi + rdx]
    add     edx, 8
    and     edx, 16 * PAGE - 1
    dec     ecx
    jnz     in_order

    lea     rsi, [rip + large]
    mov     ecx, 1500000
    mov     r9d, 1
anywhere:
    imul    r9d, r9d, 1664525           # the generator of Numerical Recipes; its upper bits are good
    add     r9d, 1013904223
    mov     eax, r9d
    shr     eax, 15
    and     eax, 256 * PAGE / 8 - 1
    inc     qword ptr [rsi + 8 * rax]
    dec     ecx
    jnz     anywhere

    mov     ecx, 1000000
on_the_stack:
    push    rcx
    pop     rcx
    dec     ecx
    jnz     on_the_stack

    mov     eax, 60
    xor     edi, edi
    syscall
