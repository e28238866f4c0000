"""Small programs with signal handlers.

    signal_program("raise SIGUSR1; show 2", "handler: show 1; ret")

`main` is what the program does; `handlers` is code that it jumps over. Beside the macros of `small_programs` there are

    handle number, handler, flags, mask     rt_sigaction; SA_SIGINFO by default, SA_RESTORER always
    raise number                            kill(getpid(), number)
    mask how, bits                          rt_sigprocmask
    fork_child label                        fork; the child goes on at the label, the parent has its number in r15

and names for offsets into the ucontext that a handler has in rdx (UC_...) and the siginfo in rsi (SI_...).
"""

from __future__ import annotations

from small_programs import small_program

__all__ = ["signal_program"]

_MACROS = r"""
    .equ    SIGHUP, 1
    .equ    SIGINT, 2
    .equ    SIGILL, 4
    .equ    SIGTRAP, 5
    .equ    SIGBUS, 7
    .equ    SIGFPE, 8
    .equ    SIGKILL, 9
    .equ    SIGUSR1, 10
    .equ    SIGSEGV, 11
    .equ    SIGUSR2, 12
    .equ    SIGPIPE, 13
    .equ    SIGALRM, 14
    .equ    SIGTERM, 15
    .equ    SIGCHLD, 17
    .equ    SIGCONT, 18
    .equ    SIGSTOP, 19
    .equ    SIGTSTP, 20
    .equ    SIGURG, 23

    .equ    SA_NOCLDSTOP, 1
    .equ    SA_NOCLDWAIT, 2
    .equ    SA_SIGINFO, 4
    .equ    SA_RESTORER, 0x04000000
    .equ    SA_ONSTACK, 0x08000000
    .equ    SA_RESTART, 0x10000000
    .equ    SA_NODEFER, 0x40000000
    .equ    SA_RESETHAND, 0x80000000

    .equ    MPROTECT, 10
    .equ    SIGACTION, 13
    .equ    SIGPROCMASK, 14
    .equ    PIPE, 22
    .equ    SCHED_YIELD, 24
    .equ    PAUSE, 34
    .equ    NANOSLEEP, 35
    .equ    GETITIMER, 36
    .equ    ALARM, 37
    .equ    SETITIMER, 38
    .equ    FORK, 57
    .equ    WAIT4, 61
    .equ    KILL, 62
    .equ    SETPGID, 109
    .equ    GETPPID, 110
    .equ    SIGPENDING, 127
    .equ    SIGTIMEDWAIT, 128
    .equ    SIGQUEUEINFO, 129
    .equ    SIGSUSPEND, 130
    .equ    SIGALTSTACK, 131
    .equ    TKILL, 200
    .equ    TGKILL, 234
    .equ    WAITID, 247
    .equ    TGSIGQUEUEINFO, 297

    .equ    UC_FLAGS, 0
    .equ    UC_LINK, 8
    .equ    UC_STACK, 16
    .equ    UC_R8, 40
    .equ    UC_RDI, 104
    .equ    UC_RSI, 112
    .equ    UC_RBX, 128
    .equ    UC_RDX, 136
    .equ    UC_RAX, 144
    .equ    UC_RCX, 152
    .equ    UC_RSP, 160
    .equ    UC_RIP, 168
    .equ    UC_EFLAGS, 176
    .equ    UC_CS, 184
    .equ    UC_ERR, 192
    .equ    UC_TRAPNO, 200
    .equ    UC_OLDMASK, 208
    .equ    UC_CR2, 216
    .equ    UC_FPSTATE, 224
    .equ    UC_SIGMASK, 296
    .equ    SI_SIGNO, 0
    .equ    SI_CODE, 8
    .equ    SI_ADDR, 16
    .equ    SI_PID, 16
    .equ    SI_STATUS, 24
    .equ    SI_VALUE, 24

    .macro  handle number, handler, flags=SA_SIGINFO, mask=0
    mov     rax, \mask
    push    rax
    lea     rax, [rip + restorer]
    push    rax
    mov     eax, \flags + SA_RESTORER
    push    rax
    lea     rax, [rip + \handler]
    push    rax
    invoke  SIGACTION, \number, rsp, 0, 8
    lea     rsp, [rsp + 32]
    .endm

    .macro  ignore number, handler=1
    push    0
    push    0
    push    0
    push    \handler
    invoke  SIGACTION, \number, rsp, 0, 8
    lea     rsp, [rsp + 32]
    .endm

    .macro  raise number
    mov     eax, GETPID
    syscall
    mov     rdi, rax
    mov     esi, \number
    mov     eax, KILL
    syscall
    .endm

    .macro  mask how, bits
    mov     rax, \bits
    push    rax
    invoke  SIGPROCMASK, \how, rsp, 0, 8
    lea     rsp, [rsp + 8]
    .endm

    .macro  fork_child label
    mov     eax, FORK
    syscall
    test    rax, rax
    jz      \label
    mov     r15, rax
    .endm

    .macro  sleep nanoseconds
    push    \nanoseconds
    push    0
    invoke  NANOSLEEP, rsp, 0
    lea     rsp, [rsp + 16]
    .endm

    jmp     main
restorer:
    mov     eax, 15
    syscall
"""


def signal_program(main: str, handlers: str = "") -> str:
    """The source of a program that does `main`, with handlers."""
    return small_program(f"{_MACROS}{handlers}\nmain:\n{main}")
