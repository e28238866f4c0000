# divide_error: not every exception is a page fault
#
# What it teaches: an exception takes the way a page fault takes (gate, kernel stack, handler), but
# this one says nothing about memory. Vector 0, the divide error, has no error code; Linux answers
# with SIGFPE, even for whole numbers.
#
# Try:  cr3 trace programs/divide_error.asm --events fault,signal
#       and find a signal that no page fault leads to. The shell's exit status is 136 = 128 + 8, the
#       number of SIGFPE.
#
# expect: signal SIGFPE

    .text
    .globl  _start
_start:
    mov     eax, 42
    xor     edx, edx
    xor     ecx, ecx
    div     ecx                         # 42 / 0

    xor     edi, edi                    # never reached
    mov     eax, 60
    syscall
