"""System calls about signals: answers, errnos, and the order of things, as the real kernel has them.

Process numbers differ from run to run; where a program shows one, it shows its distance from its own.
"""

from __future__ import annotations

import pytest
from conftest import RunImage
from native import requires_native
from test_signals import assert_alike

pytestmark = [pytest.mark.native, requires_native]

_SHOW_RAX = "show rax;"


def calls(*lines: str) -> str:
    """System calls, and the answer of each."""
    return "lea rbx, [rip + buffer];" + "".join(f"invoke {line}; show rax;" for line in lines)


QUIET = "handler: show rdi; ret"
ERRNOS = {
    "rt_sigaction": calls(
        "SIGACTION, SIGUSR1, 0, 0, 4",
        "SIGACTION, SIGUSR1, 0, 0, 16",
        "SIGACTION, 0, 0, rbx, 8",
        "SIGACTION, 65, 0, rbx, 8",
        "SIGACTION, -1, 0, rbx, 8",
        "SIGACTION, SIGKILL, rbx, 0, 8",
        "SIGACTION, SIGSTOP, rbx, 0, 8",
        "SIGACTION, SIGKILL, 0, rbx, 8",
        "SIGACTION, SIGUSR1, 0x5000, 0, 8",
        "SIGACTION, SIGUSR1, 0, 0x5000, 8",
        "SIGACTION, 64, rbx, 0, 8",
        "SIGACTION, 0, 0x5000, 0, 8",
    ),
    "rt_sigprocmask": calls(
        "SIGPROCMASK, 0, rbx, 0, 4",
        "SIGPROCMASK, 3, rbx, 0, 8",
        "SIGPROCMASK, -1, rbx, 0, 8",
        "SIGPROCMASK, 3, 0, rbx, 8",
        "SIGPROCMASK, 0, 0x5000, 0, 8",
        "SIGPROCMASK, 0, 0, 0x5000, 8",
        "SIGPROCMASK, 0, 0, 0, 8",
    ),
    "rt_sigpending": calls(
        "SIGPENDING, rbx, 9",
        "SIGPENDING, rbx, 8",
        "SIGPENDING, rbx, 3",
        "SIGPENDING, 0x5000, 0",
        "SIGPENDING, 0x5000, 8",
    ),
    "rt_sigsuspend": calls("SIGSUSPEND, rbx, 4", "SIGSUSPEND, 0x5000, 8"),
    "rt_sigtimedwait": "mov qword ptr [rip + buffer + 24], 1000000000; lea r13, [rip + buffer + 16];"
    + calls(
        "SIGTIMEDWAIT, rbx, 0, rbx, 4",
        "SIGTIMEDWAIT, rbx, 0, rbx, 8",
        "SIGTIMEDWAIT, 0x5000, 0, rbx, 8",
        "SIGTIMEDWAIT, rbx, 0, 0x5000, 8",
        "SIGTIMEDWAIT, rbx, 0, r13, 8",
    ),
    "sigaltstack": """
        lea rbx, [rip + buffer]
        mov qword ptr [rbx + 8], 4; invoke SIGALTSTACK, rbx, 0; show rax            # such flags do not exist
        mov qword ptr [rbx + 8], 0; invoke SIGALTSTACK, rbx, 0; show rax            # no size
        mov qword ptr [rbx + 16], 2047; invoke SIGALTSTACK, rbx, 0; show rax
        mov qword ptr [rbx + 16], 2048; invoke SIGALTSTACK, rbx, 0; show rax
        mov qword ptr [rbx + 8], 1; mov qword ptr [rbx], 0x7000; invoke SIGALTSTACK, rbx, 0; show rax
        lea r12, [rbx + 64]; invoke SIGALTSTACK, 0, r12; show rax; show [r12]; show [r12 + 8]; show [r12 + 16]
        mov qword ptr [rbx + 8], 2; invoke SIGALTSTACK, rbx, r12; show rax
        invoke SIGALTSTACK, 0, r12; show rax; show [r12]; show [r12 + 8]; show [r12 + 16]
        mov eax, 0x80000000; mov [rbx + 8], rax; invoke SIGALTSTACK, rbx, 0; show rax
        invoke SIGALTSTACK, 0, r12; show rax; show [r12]; show [r12 + 8]; show [r12 + 16]
        invoke SIGALTSTACK, 0x5000, 0; show rax; invoke SIGALTSTACK, 0, 0x5000; show rax
        invoke SIGALTSTACK, 0, 0; show rax""",
    "kill": calls(
        "KILL, 0x7fffffff, 0",
        "KILL, 0x7fffffff, 65",
        "KILL, 0x80000000, 0",
        "KILL, -0x7fffffff, 0",
        "KILL, -0x7fffffff, 65",
        "KILL, 0, 65",
        "KILL, 0, -1",
        "KILL, 0, 0",
    ),
    "kill of oneself": """
        invoke GETPID; mov rbx, rax
        invoke KILL, rbx, 0; show rax; invoke KILL, rbx, 65; show rax; invoke KILL, rbx, -1; show rax
        invoke KILL, rbx, SIGURG; show rax; mov r12, 0x100000000; or rbx, r12; invoke KILL, rbx, 0; show rax""",
    "tkill and tgkill": """
        invoke GETPID; mov rbx, rax
        invoke TKILL, 0, 0; show rax; invoke TKILL, -1, 0; show rax; invoke TKILL, 0x7fffffff, 0; show rax
        invoke TKILL, rbx, 0; show rax; invoke TKILL, rbx, 65; show rax
        invoke TGKILL, 0, rbx, 0; show rax; invoke TGKILL, rbx, 0, 0; show rax
        invoke TGKILL, 0x7ffffffe, rbx, 0; show rax
        invoke TGKILL, rbx, rbx, 0; show rax; invoke TGKILL, rbx, rbx, 65; show rax
        invoke TGKILL, rbx, 0x7fffffff, 0; show rax""",
    "rt_sigqueueinfo": """
        invoke GETPID; mov rbx, rax; lea r12, [rip + buffer]
        invoke SIGQUEUEINFO, rbx, 0, r12; show rax; invoke SIGQUEUEINFO, rbx, 0, 0x5000; show rax
        invoke SIGQUEUEINFO, rbx, 65, r12; show rax; invoke SIGQUEUEINFO, 0x7fffffff, 10, r12; show rax
        mov dword ptr [r12 + 8], -1; invoke SIGQUEUEINFO, 0x7fffffff, 10, r12; show rax
        mov dword ptr [r12 + 8], -6; invoke SIGQUEUEINFO, 0x7ffffffe, 0, r12; show rax
        invoke TGSIGQUEUEINFO, 0, rbx, 0, r12; show rax; invoke TGSIGQUEUEINFO, rbx, -1, 0, r12; show rax
        invoke TGSIGQUEUEINFO, rbx, 0x7ffffffe, 0, r12; show rax; invoke TGSIGQUEUEINFO, rbx, rbx, 0, r12; show rax
        invoke TGSIGQUEUEINFO, rbx, rbx, 0, 0x5000; show rax""",
    "setitimer": """
        lea rbx, [rip + buffer]
        invoke GETITIMER, 0, rbx; show rax; show [rbx]; show [rbx + 16]; show [rbx + 24]
        invoke GETITIMER, 3, rbx; show rax; invoke GETITIMER, 0, 0x5000; show rax
        invoke SETITIMER, 3, rbx, 0; show rax; invoke SETITIMER, 0, 0x5000, 0; show rax
        mov qword ptr [rbx + 24], 1000000; invoke SETITIMER, 0, rbx, 0; show rax
        mov qword ptr [rbx + 24], 0; mov qword ptr [rbx], -1; invoke SETITIMER, 0, rbx, 0; show rax
        mov qword ptr [rbx], 7; invoke SETITIMER, 0, rbx, 0; show rax
        invoke GETITIMER, 0, rbx; show rax; show [rbx]; show [rbx + 16]
        mov qword ptr [rbx], 7; mov qword ptr [rbx + 16], 100; invoke SETITIMER, 0, rbx, 0x5000; show rax
        invoke SETITIMER, 0, 0, rbx; show rax; show [rbx]
        mov rax, [rbx + 16]; add rax, 1; show rax""",
}
ACTIONS = {
    "what was set is told, without what does not exist": """
        handle SIGUSR1, handler, 0xf0fffff4, -1
        lea rbx, [rip + buffer]; invoke SIGACTION, SIGUSR1, 0, rbx, 8; show [rbx + 8]; show [rbx + 24]
        lea rax, [rip + handler]; sub rax, [rbx]; show rax; lea rax, [rip + restorer]; sub rax, [rbx + 16]; show rax""",
    "a handler for one time": "handle SIGUSR1, handler, SA_RESETHAND; raise SIGUSR1; raise SIGUSR1; show 1",
    "a handler for one time keeps its flags": """
        handle SIGUSR1, handler, SA_RESETHAND, 0x100; raise SIGUSR1
        lea rbx, [rip + buffer]; invoke SIGACTION, SIGUSR1, 0, rbx, 8
        show [rbx]; show [rbx + 8]; show [rbx + 24]""",
    "ignored, then not": "ignore SIGUSR1; raise SIGUSR1; show 1; ignore SIGUSR1, 0; raise SIGUSR1; show 2",
    "to ignore a signal forgets what is pending": """
        handle SIGUSR1, handler; mask 0, 0x200; raise SIGUSR1; ignore SIGUSR1
        handle SIGUSR1, handler; mask 1, 0x200; show 1""",
    "by default some mean nothing": "raise SIGCHLD; raise SIGURG; raise SIGCONT; raise 28; show 1",
    "by default others are the end": "raise 64; show 1",
    "SIGKILL": "mask 0, -1; raise SIGKILL; show 1",
    "a fault that is ignored": "ignore SIGSEGV; mov rbx, 0x5000; mov [rbx], al; show 1",
    "a fault that is blocked": "handle SIGSEGV, handler; mask 0, 0x400; mov rbx, 0x5000; mov [rbx], al; show 1",
    "a fault in the handler for it": "handle SIGSEGV, faulty; mov rbx, 0x5000; mov [rbx], al; show 1",
}
ORDER = {
    "lowest first, and the last handler to be entered runs first": """
        handle SIGUSR1, handler; handle SIGUSR2, handler; handle SIGTERM, handler
        mask 0, 0x4a00; raise SIGTERM; raise SIGUSR2; raise SIGUSR1; raise SIGUSR2; mask 1, 0x4a00; show 1""",
    "one after the other, where each blocks the others": """
        handle SIGUSR1, handler, 4, -1; handle SIGUSR2, handler, 4, -1; handle SIGTERM, handler, 4, -1
        mask 0, 0x4a00; raise SIGTERM; raise SIGUSR2; raise SIGUSR1; mask 1, 0x4a00; show 1""",
    "faults first": """
        handle SIGHUP, handler, 4, -1; handle SIGSEGV, handler, 4, -1; handle SIGUSR1, handler, 4, -1
        mask 0, 0x601; raise SIGUSR1; raise SIGHUP; raise SIGSEGV; mask 1, 0x601; show 1""",
    "what is sent to the thread comes first": """
        handle SIGUSR1, handler, 4, -1; handle SIGUSR2, handler, 4, -1
        mask 0, 0xa00; raise SIGUSR1; invoke GETPID; mov rbx, rax; invoke TKILL, rbx, SIGUSR2; mask 1, 0xa00; show 1""",
    "real-time signals queue up, with their values": """
        handle 40, valued, 4, -1; handle 41, valued, 4, -1
        mask 0, -1; invoke GETPID; mov r13, rax; lea r12, [rip + buffer]; mov dword ptr [r12 + 8], -1
        mov qword ptr [r12 + 24], 7; invoke SIGQUEUEINFO, r13, 41, r12
        mov qword ptr [r12 + 24], 5; invoke SIGQUEUEINFO, r13, 40, r12
        mov qword ptr [r12 + 24], 6; invoke SIGQUEUEINFO, r13, 40, r12
        mov qword ptr [r12 + 24], 8; invoke SIGQUEUEINFO, r13, 41, r12
        mov qword ptr [r12 + 24], 9; invoke SIGQUEUEINFO, r13, SIGUSR1, r12
        mov qword ptr [r12 + 24], 10; invoke SIGQUEUEINFO, r13, SIGUSR1, r12
        handle SIGUSR1, valued, 4, -1
        mask 2, 0; show 1""",
    "pending is what is blocked": """
        mask 0, 0x8000000200; raise SIGUSR1; raise 40; raise SIGURG
        lea rbx, [rip + buffer]; invoke SIGPENDING, rbx, 8; show [rbx]; mov qword ptr [rbx], -1
        invoke SIGPENDING, rbx, 2; show [rbx]""",
    "a handler within a handler": "handle SIGUSR1, nested; handle SIGUSR2, handler; raise SIGUSR1; show 1",
    "not within itself": "handle SIGUSR1, again; raise SIGUSR1; show 1",
    "but within itself with SA_NODEFER": "handle SIGUSR1, again, SA_NODEFER; raise SIGUSR1; show 1",
}
ORDER_HANDLERS = """
    handler: show rdi; show [rsi + SI_CODE]; ret
    valued: show rdi; show [rsi + SI_CODE]; show [rsi + SI_VALUE]; ret
    nested: show 100; raise SIGUSR2; show 101; ret
    again: inc r15; show r15; cmp r15, 3; jae 1f; raise SIGUSR1
    1: mov [rdx + UC_R8 + 56], r15; show -1; ret"""
INFO = {
    "kill": "handle SIGUSR1, told; raise SIGUSR1",
    "tkill": "handle SIGUSR1, told; invoke GETPID; mov rbx, rax; invoke TKILL, rbx, SIGUSR1",
    "a writer without readers": """
        handle SIGPIPE, told; lea rbx, [rip + buffer]; invoke PIPE, rbx
        mov r12d, [rbx]; mov r13d, [rbx + 4]; invoke 3, r12; invoke WRITE, r13, rbx, 1; show rax""",
    "an alarm": """
        handle SIGALRM, alarmed; lea rbx, [rip + buffer]; mov qword ptr [rbx + 24], 20000
        invoke SETITIMER, 0, rbx, 0; invoke PAUSE; show rax""",
    "all that sigqueue says": """
        handle SIGUSR1, all; lea rdi, [rip + buffer]; mov ecx, 128; mov al, 0x5a; cld; rep stosb
        lea r12, [rip + buffer]; mov qword ptr [r12 + 8], -3; mov qword ptr [r12 + 48], 0
        lea rdi, [r12 + 48]; mov ecx, 80; xor eax, eax; rep stosb
        invoke GETPID; mov rbx, rax; invoke SIGQUEUEINFO, rbx, SIGUSR1, r12; show rax""",
}
INFO_HANDLERS = """
    told: show [rsi]; show [rsi + SI_CODE]; mov ebx, [rsi + SI_PID]; show [rsi + SI_PID + 8]; show [rsi + 120]
    invoke GETPID; sub rax, rbx; show rax; ret
    alarmed: show [rsi]; show [rsi + SI_CODE]; show [rsi + SI_PID]; ret
    all: show [rsi]; show [rsi + 8]; show [rsi + 16]; show [rsi + 24]; show [rsi + 40]; show [rsi + 48]; ret"""
ALTSTACK = {
    "a handler runs on it, and knows": "handle SIGUSR1, there, SA_SIGINFO + SA_ONSTACK; raise SIGUSR1",
    "not without SA_ONSTACK": "handle SIGUSR1, there; raise SIGUSR1",
    "a second handler goes on there": """
        handle SIGUSR1, twice, SA_SIGINFO + SA_ONSTACK; handle SIGUSR2, there, SA_SIGINFO + SA_ONSTACK
        raise SIGUSR1""",
    "it saves who has no stack left": """
        handle SIGSEGV, saved, SA_SIGINFO + SA_ONSTACK; mov r14, rsp; mov rsp, 0x5000; push rax; show 1""",
    "nobody else": "handle SIGSEGV, saved; mov r14, rsp; mov rsp, 0x5000; push rax; show 1",
    "it overflows": """
        lea rbx, [rip + buffer]; mov qword ptr [rbx + 16], 10000; invoke SIGALTSTACK, rbx, 0
        handle SIGUSR1, endless, SA_SIGINFO + SA_ONSTACK + SA_NODEFER; raise SIGUSR1; show 1""",
    "it is not there": """
        lea rbx, [rip + buffer]; mov qword ptr [rbx], 0x5000; invoke SIGALTSTACK, rbx, 0
        handle SIGUSR1, there, SA_SIGINFO + SA_ONSTACK; raise SIGUSR1; show 1""",
    "taken away while it is in use": """
        lea rbx, [rip + buffer]; mov eax, 0x80000000; mov [rbx + 8], rax; invoke SIGALTSTACK, rbx, 0; show rax
        handle SIGUSR1, disarmed, SA_SIGINFO + SA_ONSTACK; raise SIGUSR1
        lea r12, [rip + buffer + 64]; invoke SIGALTSTACK, 0, r12
        mov rax, [r12]; sub rax, [rip + buffer]; show rax; show [r12 + 8]; show [r12 + 16]""",
    "a handler sets one, and its frame takes it back": """
        handle SIGUSR1, changer; raise SIGUSR1
        lea r12, [rip + buffer + 64]; invoke SIGALTSTACK, 0, r12
        mov rax, [r12]; sub rax, [rip + buffer]; show rax; show [r12 + 8]; show [r12 + 16]""",
}
_ALTSTACK = """
    anonymous 65536; lea rbx, [rip + buffer]; mov [rbx], rax; mov qword ptr [rbx + 16], 65536
    invoke SIGALTSTACK, rbx, 0; show rax;"""
ALTSTACK_HANDLERS = """
    place:                                                      # whether rax is on the alternate stack
    sub rax, [rip + buffer]; cmp rax, 65536; setbe al; movzx eax, al; show rax; ret
    there:
    mov rax, [rdx + UC_STACK]; sub rax, [rip + buffer]; show rax; show [rdx + UC_STACK + 8]; show [rdx + UC_STACK + 16]
    mov rax, rsp; call place
    lea r12, [rip + buffer + 64]; invoke SIGALTSTACK, 0, r12; show rax; show [r12 + 8]; show [r12 + 16]
    lea r12, [rip + buffer]; invoke SIGALTSTACK, r12, 0; show rax; ret
    twice: mov rax, rsp; call place; raise SIGUSR2; ret
    saved: mov [rdx + UC_RSP], r14; mov rax, rsp; call place; ret
    endless: raise SIGUSR1; ret
    disarmed:
    mov rax, rsp; call place; mov eax, [rdx + UC_STACK + 8]; show rax
    lea r12, [rip + buffer + 64]; invoke SIGALTSTACK, 0, r12; show [r12]; show [r12 + 8]; show [r12 + 16]; ret
    changer:
    lea r12, [rip + buffer + 128]; mov qword ptr [r12], 0x7000; mov qword ptr [r12 + 16], 8192
    invoke SIGALTSTACK, r12, 0; show rax
    lea r12, [rip + buffer + 64]; invoke SIGALTSTACK, 0, r12; show [r12]; show [r12 + 16]; ret"""


def on_altstack(case: str) -> str:
    """The program of a case, with an alternate stack of 64 KiB."""
    return _ALTSTACK + ALTSTACK[case]


WAITING = {
    "pause ends by a handler": "handle SIGALRM, handler; soon; invoke PAUSE; show rax",
    "pause is not made again": "handle SIGALRM, handler, SA_RESTART; soon; invoke PAUSE; show rax",
    "pause ends the program": "soon; invoke PAUSE; show rax",
    "rt_sigsuspend has its own mask, and the old one is in the frame": """
        handle SIGALRM, masked; mask 0, 0x2200; soon
        push 0x400; invoke SIGSUSPEND, rsp, 8; pop rbx; show rax
        lea rbx, [rip + buffer]; invoke SIGPROCMASK, 0, 0, rbx, 8; show [rbx]""",
    "rt_sigsuspend takes what is pending at once": """
        handle SIGUSR1, masked; mask 0, 0x200; raise SIGUSR1; push 0; invoke SIGSUSPEND, rsp, 8; show rax""",
    "rt_sigtimedwait takes what is pending": """
        mask 0, 0x200; raise SIGUSR1; push 0x600; mov rbx, rsp; lea r12, [rip + buffer]
        invoke SIGTIMEDWAIT, rbx, r12, 0, 8; show rax; show [r12]; show [r12 + 8]
        invoke SIGPENDING, r12, 8; show [r12]""",
    "rt_sigtimedwait waits, though the signal is blocked": """
        mask 0, 0x2000; soon; push 0x2000; mov rbx, rsp; lea r12, [rip + buffer + 64]
        invoke SIGTIMEDWAIT, rbx, r12, 0, 8; show rax; show [r12]; show [r12 + 8]""",
    "rt_sigtimedwait gives up": """
        push 0x200; mov rbx, rsp; push 1000000; push 0; mov r12, rsp
        invoke SIGTIMEDWAIT, rbx, 0, r12, 8; show rax; mov qword ptr [r12 + 8], 0
        invoke SIGTIMEDWAIT, rbx, 0, r12, 8; show rax""",
    "rt_sigtimedwait is interrupted by others": """
        handle SIGALRM, handler, SA_RESTART; soon; push 0x200; mov rbx, rsp
        invoke SIGTIMEDWAIT, rbx, 0, 0, 8; show rax""",
    "rt_sigtimedwait cannot tell": """
        mask 0, 0x200; raise SIGUSR1; push 0x200; mov rbx, rsp; invoke SIGTIMEDWAIT, rbx, 0x5000, 0, 8; show rax""",
    "a read is interrupted": """
        handle SIGALRM, handler; lea rbx, [rip + buffer]; invoke PIPE, rbx; mov r14d, [rbx + 4]; mov r13d, [rbx]
        soon; lea rbx, [rip + buffer]; invoke READ, r13, rbx, 8; show rax""",
    "a read goes on": """
        handle SIGALRM, writer, SA_RESTART; lea rbx, [rip + buffer]; invoke PIPE, rbx
        mov r14d, [rbx + 4]; mov r13d, [rbx]
        soon; lea rbx, [rip + buffer]; invoke READ, r13, rbx, 8; show rax; show [rbx]""",
    "an ignored signal interrupts nothing": """
        ignore SIGALRM; soon; push 60000000; push 0; mov rbx, rsp; invoke NANOSLEEP, rbx, 0; show rax""",
    "a blocked signal interrupts nothing": """
        mask 0, 0x2000; soon; push 60000000; push 0; mov rbx, rsp; invoke NANOSLEEP, rbx, 0; show rax""",
    "a sleep is never made again, but tells what was left": """
        handle SIGALRM, handler, SA_RESTART; soon; push 0; push 100; mov rbx, rsp; lea r12, [rip + buffer]
        invoke NANOSLEEP, rbx, r12; show rax; show [r12]""",
    "what interrupts a sleep without a handler lets it go on": """
        handle SIGUSR1, handler; fork_child child
        sleep 3000000; invoke KILL, r15, SIGSTOP; invoke WAIT4, r15, 0, 2, 0; invoke KILL, r15, SIGCONT
        lea rbx, [rip + buffer]; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: push 20000000; push 0; mov rbx, rsp; invoke NANOSLEEP, rbx, 0; show rax; invoke EXIT, 6""",
    "poll is never made again": """
        handle SIGALRM, handler, SA_RESTART; soon; invoke 7, 0, 0, 10000; show rax""",
    "an alarm that repeats": """
        handle SIGALRM, count; lea rbx, [rip + buffer]; mov qword ptr [rbx + 8], 1000; mov qword ptr [rbx + 24], 2000
        invoke SETITIMER, 0, rbx, 0; show rax
    1:  invoke PAUSE; cmp qword ptr [rip + buffer + 64], 3; jb 1b
        invoke SETITIMER, 0, 0, rbx; show [rbx]; show [rbx + 8]; show [rbx + 16]
        show [rip + buffer + 64]""",
    "alarm": """
        invoke ALARM, 0; show rax; invoke ALARM, 100; show rax; invoke ALARM, 7; show rax
        lea rbx, [rip + buffer]; invoke GETITIMER, 0, rbx; show [rbx]; show [rbx + 16]
        invoke ALARM, 0; show rax; invoke ALARM, 0; show rax""",
    "there is nothing to restart": "invoke 219; show rax",
}
WAITING_HANDLERS = """
    handler: show rdi; ret
    masked: show rdi; show [rdx + UC_SIGMASK]; mov rbx, rdx
    lea r12, [rip + buffer]; invoke SIGPROCMASK, 0, 0, r12, 8; show [r12]; ret
    writer: show rdi; lea rbx, [rip + text]; invoke WRITE, r14, rbx, 4; ret
    count: inc qword ptr [rip + buffer + 64]; ret
    .macro soon                                                 # SIGALRM in 20 milliseconds
    push 20000; push 0; push 0; push 0
    invoke SETITIMER, 0, rsp, 0
    lea rsp, [rsp + 32]
    .endm
"""


@pytest.mark.parametrize("case", ERRNOS)
def test_what_cannot_be_is_refused_with_the_same_errno(case: str, run_image: RunImage) -> None:
    assert_alike(ERRNOS[case], QUIET, run_image)


@pytest.mark.parametrize("case", ACTIONS)
def test_a_signal_does_what_was_asked_for(case: str, run_image: RunImage) -> None:
    assert_alike(ACTIONS[case], QUIET + "; faulty: show 5; mov rbx, 0x6000; mov [rbx], al", run_image)


@pytest.mark.parametrize("case", ORDER)
def test_signals_are_taken_in_the_same_order(case: str, run_image: RunImage) -> None:
    assert_alike(ORDER[case], ORDER_HANDLERS, run_image)


@pytest.mark.parametrize("case", INFO)
def test_siginfo_says_who_sent_it(case: str, run_image: RunImage) -> None:
    assert_alike(INFO[case], INFO_HANDLERS, run_image)


@pytest.mark.parametrize("case", ALTSTACK)
def test_the_alternate_stack_is_used_as_the_real_kernel_uses_it(case: str, run_image: RunImage) -> None:
    assert_alike(on_altstack(case), ALTSTACK_HANDLERS, run_image)


@pytest.mark.parametrize("case", WAITING)
def test_a_call_that_waits_is_interrupted_alike(case: str, run_image: RunImage) -> None:
    assert_alike(WAITING[case], WAITING_HANDLERS, run_image)
