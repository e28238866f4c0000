# sigchld: a parent that is told when its children end
#
# What it teaches: a signal below 32 is a flag, not a queue: three children that end make at least
# one SIGCHLD, not always three. So the handler asks (wait4) until nobody is left to ask for. And a
# check followed by a sleep has a gap in which the signal may come: SIGCHLD stays blocked, and only
# rt_sigsuspend lets it in, in one step with going to sleep.
#
# Try:  cr3 trace programs/sigchld.asm --events fork,signal,context_switch,exit
#       and count the signals.
#
# expect: exit 0
# expect stdout: children that ended: 3
# expect stdout: sum of their exit codes: 60

    .equ    SIGCHLD, 17
    .equ    CHILDREN, 3

    .section .rodata
count:
    .ascii  "children that ended: "
    .equ    COUNT, . - count
codes:
    .ascii  "sum of their exit codes: "
    .equ    CODES, . - codes

    .data
action:                                 # struct sigaction, as the kernel wants it
    .quad   handler
    .quad   0x04000000                  # SA_RESTORER
    .quad   restorer
    .quad   0
only_sigchld:
    .quad   1 << 16                     # bit n - 1 for signal n
nothing:
    .quad   0
ended:
    .quad   0
sum:
    .quad   0
status:
    .quad   0

    .text
handler:
    mov     rdi, -1                     # any child
    lea     rsi, [rip + status]
    mov     edx, 1                      # WNOHANG
    xor     r10d, r10d
    mov     eax, 61                     # wait4
    syscall
    test    rax, rax
    jle     all                         # 0: the others still run; ECHILD: there are no others
    inc     qword ptr [rip + ended]
    movzx   eax, byte ptr [rip + status + 1]
    add     [rip + sum], rax
    jmp     handler
all:
    ret
restorer:
    mov     eax, 15                     # rt_sigreturn
    syscall

    .globl  _start
_start:
    mov     edi, SIGCHLD
    lea     rsi, [rip + action]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 13                     # rt_sigaction
    syscall
    xor     edi, edi                    # SIG_BLOCK
    lea     rsi, [rip + only_sigchld]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 14                     # rt_sigprocmask
    syscall

    mov     ebx, CHILDREN
another:
    mov     eax, 57                     # fork
    syscall
    test    eax, eax
    jz      child
    dec     ebx
    jnz     another

sleep:
    cmp     qword ptr [rip + ended], CHILDREN
    je      done
    lea     rdi, [rip + nothing]        # sleep, with nothing blocked
    mov     esi, 8
    mov     eax, 130                    # rt_sigsuspend
    syscall
    jmp     sleep

child:
    imul    edi, ebx, 10
    mov     eax, 60                     # exit(10, 20 or 30)
    syscall

done:
    lea     rsi, [rip + count]
    mov     edx, offset COUNT
    mov     rax, [rip + ended]
    call    print
    lea     rsi, [rip + codes]
    mov     edx, offset CODES
    mov     rax, [rip + sum]
    call    print
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

# print: write the text at rsi (rdx bytes), then rax in decimal, then a newline.
# Changes rax, rcx, rdx, rsi, rdi, r11. (The 128 bytes below rsp are ours: the red zone of the ABI.)
print:
    push    rax
    mov     edi, 1
    mov     eax, 1                      # write(stdout, text, length)
    syscall                             # (syscall itself overwrites rcx and r11)
    pop     rax
    lea     rsi, [rsp - 1]              # digits go below rsp, the last one first: in the red zone
    mov     byte ptr [rsi], 10          # newline
    mov     ecx, 10
digit:
    xor     edx, edx
    div     rcx                         # rax = what is left, rdx = the last digit
    add     dl, 48                      # its ASCII code: 48 is the digit zero
    dec     rsi
    mov     [rsi], dl
    test    rax, rax
    jnz     digit
    mov     rdx, rsp
    sub     rdx, rsi
    mov     eax, 1                      # write(stdout, digits, length); rdi is still 1
    syscall
    ret
