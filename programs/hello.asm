# hello: a program is a few instructions and two system calls
#
# What it teaches: the text lies in our memory, yet write(2) hands the kernel only an address. The
# kernel reads the text through our page table, so the first touch of that page is a page fault made
# by the kernel.
#
# Try:  cr3 trace programs/hello.asm --events syscall,fault
#       and find the fault between the system call `write` and its return.
#
# expect: exit 0
# expect stdout: Hello, world!

    .section .rodata
text:
    .ascii  "Hello, world!\n"
    .equ    LENGTH, . - text

    .text
    .globl  _start
_start:
    mov     edi, 1                      # file descriptor 1: standard output
    lea     rsi, [rip + text]
    mov     edx, offset LENGTH          # `offset`: the number itself, not what memory holds at it
    mov     eax, 1                      # write(fd, address, length)
    syscall

    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall
