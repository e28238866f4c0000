# segv: an address that nobody promised
#
# What it teaches: a page fault is only a question to the kernel. If the address lies in one of the
# areas it promised to the process, the kernel maps a page; this one does not, so the kernel sends a
# signal, SIGSEGV.
#
# Try:  cr3 trace programs/segv.asm --events fault,signal
#       and read the error code: a write (bit 1) from user mode (bit 2) to a page that is not
#       present (bit 0 clear). The shell's exit status is 139 = 128 + 11, the number of SIGSEGV.
#
# expect: signal SIGSEGV
# expect stdout: writing to 0xdead0000

    .equ    BAD, 0xdead0000

    .section .rodata
text:
    .ascii  "writing to 0xdead0000\n"
    .equ    LENGTH, . - text

    .text
    .globl  _start
_start:
    mov     edi, 1
    lea     rsi, [rip + text]
    mov     edx, offset LENGTH
    mov     eax, 1                      # write(stdout, text, length)
    syscall

    mov     ebx, BAD
    mov     byte ptr [rbx], 1           # the end

    xor     edi, edi                    # never reached
    mov     eax, 60
    syscall
