"""Signals between processes, and what the processor keeps for each of them; as the real kernel does it."""

from __future__ import annotations

import io

import pytest
from conftest import MakeKernel, RunImage
from native import requires_native
from signal_programs import signal_program
from small_programs import small_program
from test_signals import FLOATING, FRAME, REPAIR, assert_alike
from test_signals_calls import ALTSTACK_HANDLERS, WAITING, WAITING_HANDLERS, on_altstack

from emu.assembler import assemble_source

SIGKILL, SIGUSR1, SIGALRM = 9, 10, 14

CHILDREN = {
    "a child that ends": """
        handle SIGCHLD, told; mask 0, 0x10000; fork_child child
        push 0; invoke SIGSUSPEND, rsp, 8; show rax; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: invoke EXIT, 7""",
    "a child that is killed": """
        handle SIGCHLD, told; mask 0, 0x10000; fork_child child
        push 0; invoke SIGSUSPEND, rsp, 8; show rax; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: mov rbx, 0x5000; mov [rbx], al""",
    "stopped, continued, killed": """
        mask 0, 0x10000; fork_child child
        invoke KILL, r15, SIGSTOP; hear; invoke WAIT4, r15, rbx, 2, 0; show [rbx]
        invoke WAIT4, r15, rbx, 3, 0; show rax                                  # told only once
        invoke KILL, r15, SIGCONT; hear; invoke WAIT4, r15, rbx, 8, 0; show [rbx]
        invoke WAIT4, r15, rbx, 9, 0; show rax
        invoke KILL, r15, SIGUSR1; hear; invoke WAIT4, r15, rbx, 10, 0; show [rbx]; invoke EXIT, 0
        child: invoke PAUSE; jmp child""",
    "not told of stops": """
        handle SIGCHLD, told, SA_SIGINFO + SA_NOCLDSTOP; fork_child child
        invoke KILL, r15, SIGSTOP; invoke WAIT4, r15, rbx, 2, 0; show [rbx]
        invoke KILL, r15, SIGKILL; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: invoke PAUSE; jmp child""",
    "waitid tells of stops": """
        fork_child child
        invoke KILL, r15, SIGSTOP; invoke WAITID, 1, r15, rbx, 2, 0; show rax
        show [rbx]; show [rbx + 8]; show [rbx + 24]
        invoke KILL, r15, SIGCONT; invoke WAITID, 1, r15, rbx, 8, 0; show [rbx]; show [rbx + 8]; show [rbx + 24]
        invoke KILL, r15, SIGTERM; invoke WAITID, 1, r15, rbx, 4, 0; show [rbx]; show [rbx + 8]; show [rbx + 24]
        invoke EXIT, 0
        child: invoke PAUSE; jmp child""",
    "a stop cannot be blocked or ignored": """
        fork_child child
        invoke READ, r13, rbx, 1; invoke KILL, r15, SIGSTOP; invoke WAIT4, r15, rbx, 2, 0; show [rbx]
        invoke KILL, r15, SIGKILL; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: mask 0, -1; invoke WRITE, r14, rbx, 1
    1:  invoke PAUSE; jmp 1b""",
    "SIGCONT takes stops away that wait": """
        mask 0, 0x80000; raise SIGTSTP; invoke SIGPENDING, rbx, 8; show [rbx]
        raise SIGCONT; invoke SIGPENDING, rbx, 8; show [rbx]; mask 1, 0x80000; show 1""",
    "and a stop takes SIGCONT away": """
        handle SIGCONT, plain; mask 0, 0xa0000; raise SIGCONT; invoke SIGPENDING, rbx, 8; show [rbx]
        raise SIGTSTP; invoke SIGPENDING, rbx, 8; show [rbx]""",
    "a handler for SIGCONT runs after it": """
        fork_child child
        invoke READ, r13, rbx, 1; invoke KILL, r15, SIGSTOP; invoke WAIT4, r15, rbx, 2, 0; show [rbx]
        invoke KILL, r15, SIGCONT; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: handle SIGCONT, plain; mask 0, 0x20000; invoke WRITE, r14, rbx, 1
        push 0; invoke SIGSUSPEND, rsp, 8; show rax; invoke EXIT, 5""",
    "children that nobody asks for": """
        ignore SIGCHLD; fork_child child; invoke WAIT4, -1, rbx, 0, 0; show rax; invoke EXIT, 0
        child: invoke EXIT, 7""",
    "children that nobody asks for, but is told of": """
        handle SIGCHLD, plain, SA_SIGINFO + SA_NOCLDWAIT + SA_RESTART; fork_child child
        invoke WAIT4, -1, rbx, 0, 0; show rax; invoke EXIT, 0
        child: invoke EXIT, 7""",
    "a wait is interrupted": """
        handle SIGUSR1, plain; fork_child child
        invoke WAIT4, -1, rbx, 0, 0; show rax; invoke KILL, r15, SIGKILL; invoke WAIT4, -1, rbx, 0, 0; show [rbx]
        invoke EXIT, 0
        child: sleep 50000000; invoke GETPPID; mov r12, rax; invoke KILL, r12, SIGUSR1
    1:  invoke PAUSE; jmp 1b""",
    "a wait goes on": """
        handle SIGUSR1, plain, SA_RESTART; fork_child child
        invoke WAIT4, -1, rbx, 0, 0; sub rax, r15; show rax; show [rbx]; invoke EXIT, 0
        child: sleep 50000000; invoke GETPPID; mov r12, rax; invoke KILL, r12, SIGUSR1
        sleep 50000000; invoke EXIT, 4""",
    "a child has the handlers and the mask, but nothing pending": """
        handle SIGUSR1, plain; mask 0, 0xa00; raise SIGUSR2; fork_child child
        invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke SIGPENDING, rbx, 8; show [rbx]; invoke EXIT, 0
        child: invoke SIGPENDING, rbx, 8; show [rbx]; invoke SIGPROCMASK, 0, 0, rbx, 8; show [rbx]
        raise SIGUSR1; mask 1, 0x200; invoke EXIT, 0""",
    "a child has no alarm": """
        invoke ALARM, 100; fork_child child; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: invoke ALARM, 0; show rax; invoke EXIT, 0""",
    "the group is told, and the sender": """
        invoke SETPGID, 0, 0; handle SIGUSR1, plain; fork_child child
        invoke READ, r13, rbx, 1; invoke KILL, 0, SIGUSR1; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: handle SIGUSR1, 1f; mask 0, 0x200; invoke WRITE, r14, rbx, 1; push 0; invoke SIGSUSPEND, rsp, 8
    1:  invoke EXIT, 9""",
    "another group": """
        fork_child child
        invoke READ, r13, rbx, 1; mov r12, r15; neg r12; invoke KILL, r12, SIGTERM; show rax
        invoke WAIT4, r12, rbx, 0, 0; sub rax, r15; show rax; show [rbx]
        invoke KILL, r12, SIGTERM; show rax; invoke WAIT4, 0, rbx, 0, 0; show rax; invoke EXIT, 0
        child: invoke SETPGID, 0, 0; invoke WRITE, r14, rbx, 1
    1:  invoke PAUSE; jmp 1b""",
    "a zombie can be told anything": """
        fork_child child
        invoke WAITID, 1, r15, rbx, 0x1000004, 0; invoke KILL, r15, SIGKILL; show rax
        invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke KILL, r15, 0; show rax; invoke EXIT, 0
        child: invoke EXIT, 7""",
    "a message from a child": """
        mask 0, -1; fork_child child
        push -1; mov r12, rsp; lea rbx, [rip + buffer]; invoke SIGTIMEDWAIT, r12, rbx, 0, 8; show rax
        show [rbx]; show [rbx + 8]; show [rbx + 24]; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: invoke GETPPID; mov r12, rax; mov dword ptr [rbx + 8], -1; mov qword ptr [rbx + 24], 1234
        invoke SIGQUEUEINFO, r12, 50, rbx; sleep 20000000; invoke EXIT, 0""",
    "all threads stop and go on": """
        mask 0, 0x10000; fork_child child
        invoke READ, r13, rbx, 1; invoke KILL, r15, SIGSTOP; hear; invoke WAIT4, r15, rbx, 2, 0; show [rbx]
        invoke KILL, r15, SIGCONT; invoke WAIT4, r15, rbx, 8, 0; show [rbx]
        invoke KILL, r15, SIGTERM; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: lea r12, [rip + buffer + 8192]; invoke 56, 0x10900, r12; test rax, rax; jnz 1f
        invoke WRITE, r14, rbx, 1
    1:  invoke PAUSE; jmp 1b""",
    "a thread takes what the first one blocks": """
        handle SIGUSR1, writer; lea r12, [rip + buffer + 8192]; invoke 56, 0x10900, r12; test rax, rax; jz 1f
        mask 0, 0x200; raise SIGUSR1; invoke READ, r13, rbx, 1; show rax; invoke EXIT_GROUP, 0
        writer: show rdi; invoke WRITE, r14, rbx, 1; ret
    1:  invoke PAUSE; jmp 1b""",
    "after exec handlers are gone, what is ignored stays so": """
        cmp qword ptr [rsp], 2; je second
        handle SIGUSR1, plain; ignore SIGUSR2; mask 0, 0x400; raise SIGSEGV
        lea rbx, [rip + program]; push 0; push rbx; push rbx; mov r12, rsp; invoke 59, rbx, r12, 0; invoke EXIT, 1
        program: .asciz "/proc/self/exe"
        second: invoke SIGACTION, SIGUSR1, 0, rbx, 8; show [rbx]; show [rbx + 8]
        invoke SIGACTION, SIGUSR2, 0, rbx, 8; show [rbx]; show [rbx + 8]
        invoke SIGPROCMASK, 0, 0, rbx, 8; show [rbx]; invoke SIGPENDING, rbx, 8; show [rbx]""",
}
_CHILDREN = """
    lea rbx, [rip + buffer]; invoke PIPE, rbx; mov r13d, [rbx]; mov r14d, [rbx + 4]; mov qword ptr [rbx], 0;"""
_TOLD = """
    plain: show rdi; ret
    told: show [rsi]; mov eax, [rsi + SI_CODE]; show rax; mov eax, [rsi + SI_PID]; sub rax, r15; show rax
    mov eax, [rsi + SI_STATUS]; show rax; ret
    .macro hear                                                 # wait for SIGCHLD, and show what it says
    push 0x10000; mov r12, rsp; lea rsi, [rip + buffer + 64]; invoke SIGTIMEDWAIT, r12, rsi, 0, 8; pop rax
    lea rsi, [rip + buffer + 64]; call told
    .endm"""


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("case", CHILDREN)
def test_parents_and_children_tell_each_other_what_they_tell_under_the_real_kernel(
    case: str, run_image: RunImage
) -> None:
    assert_alike(_CHILDREN + CHILDREN[case], _TOLD, run_image)


# --- in every configuration -------------------------------------------------------------------------------------------

PROGRAMS = {
    "all registers": FRAME["all registers of a system call are in the frame, and back after it"],
    "floating point": FLOATING["a handler starts with new registers, and the program has its own back"],
    "pages on demand": REPAIR["pages on demand, fifty of them"],
    "alternate stack": (on_altstack("a second handler goes on there"), ALTSTACK_HANDLERS),
    "interrupted read": (WAITING["a read goes on"], WAITING_HANDLERS),
    "repeated alarm": (WAITING["an alarm that repeats"], WAITING_HANDLERS),
    "children": (_CHILDREN + CHILDREN["stopped, continued, killed"], _TOLD),
}
CONFIGURATIONS = {
    "access engine": ({"engine": "access"}, {}),
    "no tlb": ({"tlb": False}, {}),
    "no pcid": ({"cpu": "haswell"}, {"pcid": False}),
    "zen2": ({"cpu": "zen2"}, {}),
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_signals_are_the_same_in_every_configuration(program: str, configuration: str, run_image: RunImage) -> None:
    image = assemble_source(signal_program(*PROGRAMS[program]))
    machine, options = CONFIGURATIONS[configuration]
    usual, other = run_image(image), run_image(image, machine, **options)
    assert usual.stdout == other.stdout != b""
    assert usual.result.exit_code == other.result.exit_code == 0


# --- what the processor keeps for each process ------------------------------------------------------------------------


def _own_registers(number: int) -> str:
    """Fills all floating-point registers with its own values, lets others run many times, and looks again."""
    fill = "".join(f"mov rax, {number * 1000 + n}; movq xmm{n}, rax;" for n in range(16))
    add = "".join(f"movq rax, xmm{n}; add rbx, rax;" for n in range(16))
    return small_program(f"""
        {fill} push {0x1F80 | number << 13}; ldmxcsr [rsp]; push {0x37F | number << 10}; fldcw [rsp]
        push {number}; fild qword ptr [rsp]; fld1; fadd st, st(1); mov ebp, 100
    1:  mov eax, 24; syscall; mov ecx, 3000
    2:  dec ecx; jnz 2b
        dec ebp; jnz 1b
        xor ebx, ebx; {add} show rbx
        stmxcsr [rsp]; mov eax, [rsp]; show rax; push 0; fnstcw [rsp]; pop rax; show rax
        fistp qword ptr [rsp]; show [rsp]; fistp qword ptr [rsp]; show [rsp]; fnstsw ax; movzx eax, ax; show rax""")


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_processes_do_not_see_each_others_floating_point_registers(engine: str, make_kernel: MakeKernel) -> None:
    """Each prints alone what it prints with two others; a switch after each system call, and by the timer."""
    images = [assemble_source(_own_registers(number)) for number in (1, 2, 3)]
    alone = []
    for image in images:
        stdout = io.BytesIO()
        make_kernel({"engine": engine}, stdout=stdout).spawn(image)
        kernel = make_kernel({"engine": engine}, stdout=stdout)
        kernel.spawn(image)
        kernel.run()
        alone += stdout.getvalue().split()
    stdout = io.BytesIO()
    kernel = make_kernel({"engine": engine}, stdout=stdout)
    for image in images:
        kernel.spawn(image)
    stats = kernel.run().stats
    assert stats["context_switches"] > 300
    assert sorted(stdout.getvalue().split()) == sorted(alone)
    assert len(set(alone)) > 12


def test_a_fork_has_the_floating_point_registers_and_a_new_program_has_not(make_kernel: MakeKernel) -> None:
    stdout = io.BytesIO()
    kernel = make_kernel(stdout=stdout)
    kernel.spawn(
        assemble_source(
            signal_program("""
        mov eax, 1234; movq xmm5, rax; fldpi; fork_child child
        pcmpeqd xmm5, xmm5; invoke WAIT4, -1, 0, 0, 0; invoke EXIT, 0
        child: movq rax, xmm5; show rax; fnstsw ax; movzx eax, ax; show rax""")
        )
    )
    kernel.run()
    assert stdout.getvalue().split() == [b"00000000000004d2", b"0000000000003800"]


# --- from outside -----------------------------------------------------------------------------------------------------


def test_an_alarm_that_nobody_hears_does_not_keep_the_machine_busy(make_kernel: MakeKernel) -> None:
    """It rings once; not taken, it is not set again, and then nothing can happen any more."""
    kernel = make_kernel()
    main = "mask 0, -1; push 10; push 0; push 10; push 0; invoke SETITIMER, 0, rsp, 0; invoke PAUSE"
    kernel.spawn(assemble_source(signal_program(main)))
    assert kernel.run().is_stuck


def test_an_alarm_ends_with_its_process(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(assemble_source(signal_program("invoke ALARM, 1000000")))
    kernel.run()
    assert kernel.nanoseconds() < 1_000_000_000
    assert kernel.scheduler.timers.next_deadline is None


def test_real_time_signals_do_not_pile_up_without_end(run_image: RunImage) -> None:
    ended = run_image(
        assemble_source(
            signal_program("""
        push 10; push 10; mov r12, rsp; invoke 160, 11, r12; show rax               # setrlimit(RLIMIT_SIGPENDING)
        mask 0, -1; invoke GETPID; mov r13, rax; lea rbx, [rip + buffer]; mov dword ptr [rbx + 8], -1
    1:  invoke SIGQUEUEINFO, r13, 40, rbx; inc ebp; test rax, rax; jz 1b
        show rax; show rbp""")
        )
    )
    assert ended.stdout.split() == [b"0" * 16, b"fffffffffffffff5", b"000000000000000b"]


def test_a_killed_thread_ends_its_process(run_image: RunImage) -> None:
    """A fault in a thread: the parent of the process learns of the signal, not of an exit code."""
    ended = run_image(
        assemble_source(
            signal_program("""
        fork_child child
        lea rbx, [rip + buffer]; invoke WAIT4, r15, rbx, 0, 0; show [rbx]; invoke EXIT, 0
        child: lea rbx, [rip + buffer + 8192]; invoke 56, 0x10900, rbx                # a thread, by clone
        test rax, rax; jz thread
    1:  invoke PAUSE; jmp 1b
        thread: mov rbx, 0x5000; mov [rbx], al""")
        )
    )
    assert ended.stdout == b"000000000000000b\n"
