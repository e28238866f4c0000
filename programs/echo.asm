# echo: copy standard input to standard output
#
# What it teaches: the kernel writes into our memory. read(2) puts bytes at an address that we name;
# the page behind it may not exist yet, and then the kernel itself takes the page fault, in the
# middle of its copy.
#
# Try:  echo hello | cr3 trace programs/echo.asm --events syscall,fault
#       and find the fault between `read` and its return, at the address of `buffer`.
#
# given stdin: What goes in
# given stdin: comes out.
# expect: exit 0
# expect stdout: What goes in
# expect stdout: comes out.

    .equ    SIZE, 4096

    .bss
    .balign 4096
buffer:
    .skip   SIZE

    .text
    .globl  _start
_start:
    xor     edi, edi
    lea     rsi, [rip + buffer]
    mov     edx, SIZE
    xor     eax, eax                    # read(stdin, buffer, size)
    syscall
    test    rax, rax
    jz      end                         # end of file
    js      failed
    mov     rbx, rax                    # bytes still to be written

    lea     rsi, [rip + buffer]
write:
    mov     edi, 1
    mov     rdx, rbx
    mov     eax, 1                      # write(stdout, what is left, its length)
    syscall
    test    rax, rax
    js      failed
    add     rsi, rax                    # a pipe may take less than all of it
    sub     rbx, rax
    jnz     write
    jmp     _start

failed:
    mov     edi, 1
    mov     eax, 60                     # exit(1)
    syscall
end:
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall
