# Exercise 07: ask for huge pages.
#
# Stores a number into each page of 32 MiB. Check it with: cr3 check 07 07_huge_pages.asm

        .equ    SIZE, 32 << 20
        .equ    PAGE, 4096
        .equ    PROT_READ_WRITE, 3
        .equ    MAP_PRIVATE_ANONYMOUS, 0x22

        .text
        .globl  _start
_start:
        xor     edi, edi                        # mmap(0, SIZE, ...)
        mov     esi, SIZE
        mov     edx, PROT_READ_WRITE
        mov     r10d, MAP_PRIVATE_ANONYMOUS
        mov     r8, -1
        xor     r9d, r9d
        mov     eax, 9
        syscall
        mov     rbx, rax

        xor     ecx, ecx
store:
        mov     [rbx + rcx], rcx
        add     rcx, PAGE
        cmp     rcx, SIZE
        jb      store

        xor     edi, edi                        # exit(0)
        mov     eax, 60
        syscall
