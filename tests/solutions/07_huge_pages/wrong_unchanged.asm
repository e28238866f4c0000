# says: had the program asked before
        .equ    SIZE, 32 << 20
        .equ    PAGE, 4096
        .equ    HUGE, 2 << 20
        .equ    PROT_READ_WRITE, 3
        .equ    MAP_PRIVATE_ANONYMOUS, 0x22

        .text
        .globl  _start
_start:
        xor     edi, edi                        # mmap(0, SIZE + HUGE, ...)
        mov     esi, SIZE + HUGE
        mov     edx, PROT_READ_WRITE
        mov     r10d, MAP_PRIVATE_ANONYMOUS
        mov     r8, -1
        xor     r9d, r9d
        mov     eax, 9
        syscall
        lea     rbx, [rax + HUGE - 1]
        and     rbx, -HUGE

        xor     ecx, ecx
store:
        mov     [rbx + rcx], rcx
        add     rcx, PAGE
        cmp     rcx, SIZE
        jb      store

        xor     edi, edi
end:    mov     eax, 60
        syscall
