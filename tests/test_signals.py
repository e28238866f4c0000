"""Signal frames as handlers see them: what the real kernel lays out, cr3 lays out.

Each case is a program and its handlers (see `signal_programs`), run natively and under cr3 with the same output and
end. Not compared, because it legitimately differs: uc_flags bit 0 and the size of the floating-point area (the real
processor has XSAVE, ours has FXSAVE only), and where the stack is.
"""

from __future__ import annotations

import pytest
from conftest import RunImage
from native import NativeResult, requires_native, run_native
from signal_programs import signal_program

from emu.assembler import assemble_source

pytestmark = [pytest.mark.native, requires_native]

GENERAL = ("rbx", "rdx", "rbp", "r8", "r9", "r10", "r12", "r13", "r14", "r15")
fill = "".join(f"mov {name}, {0x1111111111111111 * number:#x};" for number, name in enumerate(GENERAL, 1))
show = "".join(f"show {name};" for name in GENERAL)
context = "".join(f"show [rdx + {at}];" for at in (*range(40, 160, 8), 168, 176, 184))
fault = "".join(
    f"show {word};"
    for word in (
        *("[rsi]", "[rsi + SI_CODE]", "[rsi + SI_ADDR]", "[rdx + UC_ERR]", "[rdx + UC_TRAPNO]"),
        *("[rdx + UC_CR2]", "[rdx + UC_RIP]", "[rdx + UC_EFLAGS]"),
    )
)
_SKIP = "add qword ptr [rdx + UC_RIP], 2; ret"
_DIE = "invoke EXIT, 3"
INT1 = 0xF1

FRAME = {
    "the handler gets its arguments, clean flags, and a stack aligned as after a call": (
        "handle SIGUSR1, handler; std; raise SIGUSR1; pushfq; pop rax; cld; show rax",
        "handler: pushfq; pop rbx; show rbx; show rax; show rdi; show [rsi]; mov rax, rsp; and eax, 15; show rax; ret",
    ),
    "all registers of a system call are in the frame, and back after it": (
        f"""
        handle SIGUSR1, handler
        {fill} mov edi, 0; mov esi, 0; mov eax, GETPID; syscall
        mov edi, eax; mov esi, SIGUSR1; mov eax, KILL; syscall
        {show} show rax; show rsi""",
        """
        handler:
        mov rbx, rdx; mov qword ptr [rdx + UC_RDI], 5           # the process's number
        """
        + context
        + "xor ebx, ebx; xor ebp, ebp; mov r8, 5; mov r15, 7; mov r11, 9; ret",
    ),
    "all registers of a fault are in the frame": (
        f"handle SIGSEGV, handler; {fill} mov rax, 0x5000; mov rcx, 3; mov rdi, 4; mov rsi, 6; stc; mov [rax], al",
        f"handler: {context} {_DIE}",
    ),
    "where the parts are": (
        "handle SIGUSR1, handler; mov r14, rsp; raise SIGUSR1",
        """
        handler:
        mov rax, rdx; sub rax, rsp; show rax                    # the ucontext
        mov rax, rsi; sub rax, rsp; show rax                    # siginfo
        mov rax, [rsp]; lea rbx, [rip + restorer]; sub rax, rbx; show rax
        mov rax, [rdx + UC_RSP]; sub rax, r14; show rax
        mov rax, [rdx + UC_FPSTATE]; mov rbx, rax; and ebx, 63; show rbx
        mov rbx, rax; sub rbx, rsp; cmp rbx, 440; setae cl; movzx ecx, cl; show rcx
        lea rax, [rax + 512 + 128]; cmp rax, r14; setbe cl; movzx ecx, cl; show rcx
        mov rax, [rdx + UC_FLAGS]; and eax, -2; show rax; show [rdx + UC_LINK]
        ret""",
    ),
    "the red zone is not touched": (
        """
        handle SIGSEGV, handler
        mov rcx, -128
    1:  mov [rsp + rcx], rcx; add rcx, 8; jnz 1b
        mov rbx, 0x5000; mov [rbx], al
        mov rcx, -128; xor eax, eax
    2:  add rax, [rsp + rcx]; add rcx, 8; jnz 2b
        show rax""",
        f"handler: {_SKIP}",
    ),
    "what was blocked is in the frame twice, and the handler may change it": (
        """
        handle SIGUSR1, handler, SA_SIGINFO, 0x7fff0000
        mask 0, 0x1000
        raise SIGUSR1
        lea rbx, [rip + buffer]; invoke SIGPROCMASK, 0, 0, rbx, 8; show [rbx]""",
        """
        handler:
        show [rdx + UC_OLDMASK]; show [rdx + UC_SIGMASK]; mov rbx, rdx
        lea r12, [rip + buffer]; invoke SIGPROCMASK, 0, 0, r12, 8; show [r12]
        mov qword ptr [rbx + UC_SIGMASK], -1; ret""",
    ),
    "a handler without SA_SIGINFO has the same frame": (
        "handle SIGUSR1, handler, 0; mask 0, 0x8000; raise SIGUSR1",
        "handler: show rdi; show [rdx + UC_SIGMASK]; mov rax, rsi; sub rax, rdx; show rax; ret",
    ),
    "without a restorer there is no way back": (
        """
        push 0; push 0; push SA_SIGINFO; lea rax, [rip + handler]; push rax
        invoke SIGACTION, SIGUSR1, rsp, 0, 8; show rax
        raise SIGUSR1; show 1""",
        "handler: ret",
    ),
    "a handler can change any register": (
        """
        handle SIGUSR1, handler; raise SIGUSR1; nop; nop
        show rax; show rbx; show r8; show r15; sub rsp, r14; show rsp; mov rsp, r14; show 1""",
        """
        handler:
        mov qword ptr [rdx + UC_RAX], 77; mov qword ptr [rdx + UC_RBX], 78; mov qword ptr [rdx + UC_R8], 79
        mov qword ptr [rdx + UC_R8 + 56], 80; mov rax, [rdx + UC_RSP]; mov [rdx + UC_R8 + 48], rax
        sub rax, 64; mov [rdx + UC_RSP], rax; add qword ptr [rdx + UC_RIP], 2; ret""",
    ),
    "but not all flags": (
        "handle SIGUSR1, handler; raise SIGUSR1; pushfq; pop rax; cld; show rax",
        "handler: mov rax, 0xfffbfeff; mov [rdx + UC_EFLAGS], rax; ret",
    ),
    "and no interrupts off": (
        "handle SIGUSR1, handler; stc; raise SIGUSR1; pushfq; pop rax; show rax",
        "handler: mov qword ptr [rdx + UC_EFLAGS], 0; ret",
    ),
}
FLOATING = {
    "a handler starts with new registers, and the program has its own back": (
        """
        handle SIGUSR1, handler
        mov rax, 0x1122334455667788; movq xmm0, rax; movq xmm15, rax; pslldq xmm15, 8
        push 0x5f80; ldmxcsr [rsp]; pop rax
        push 0x27f; fldcw [rsp]; pop rax
        fld1; fldpi; fldl2e
        raise SIGUSR1
        movq rax, xmm0; show rax; psrldq xmm15, 8; movq rax, xmm15; show rax
        push 0; stmxcsr [rsp]; pop rax; show rax
        push 0; fnstcw [rsp]; pop rax; show rax; fnstsw ax; movzx eax, ax; show rax
        sub rsp, 8; fstp qword ptr [rsp]; pop rax; show rax
        sub rsp, 8; fstp qword ptr [rsp]; pop rax; show rax
        sub rsp, 8; fstp qword ptr [rsp]; pop rax; show rax""",
        """
        handler:
        movq rax, xmm0; show rax; movq rax, xmm15; show rax
        push 0; stmxcsr [rsp]; pop rax; show rax
        push 0; fnstcw [rsp]; pop rax; show rax; fnstsw ax; movzx eax, ax; show rax
        mov rbx, [rdx + UC_FPSTATE]
        mov rax, [rbx]; mov rcx, 0xffffffffff; and rax, rcx; show rax          # FCW, FSW, FTW
        mov eax, [rbx + 24]; show rax                                           # MXCSR
        show [rbx + 32]; movzx eax, word ptr [rbx + 40]; show rax
        show [rbx + 48]; movzx eax, word ptr [rbx + 56]; show rax
        show [rbx + 64]; movzx eax, word ptr [rbx + 72]; show rax
        show [rbx + 160]; show [rbx + 168]; show [rbx + 400]; show [rbx + 408]
        mov eax, [rbx + 464]; show rax                                          # FP_XSTATE_MAGIC1
        fldz; fldz; fldz; fldz; pcmpeqd xmm0, xmm0; pcmpeqd xmm15, xmm15
        ret""",
    ),
    "a handler can change them": (
        """
        handle SIGUSR1, handler; raise SIGUSR1; movq rax, xmm3; show rax
        push 0; stmxcsr [rsp]; pop rax; show rax; push 0; fnstcw [rsp]; pop rax; show rax
        sub rsp, 8; fstp qword ptr [rsp]; pop rax; show rax; fnstsw ax; movzx eax, ax; show rax""",
        """
        handler:
        mov rbx, [rdx + UC_FPSTATE]
        mov qword ptr [rbx + 160 + 48], 1234; mov dword ptr [rbx + 24], 0x3f80; mov word ptr [rbx], 0x47f
        mov word ptr [rbx + 2], 0x3800; mov byte ptr [rbx + 4], 0x80
        mov rax, 0x8000000000000000; mov [rbx + 32], rax; mov word ptr [rbx + 40], 0x4000
        ret""",
    ),
    "without an area they are new": (
        """
        pcmpeqd xmm0, xmm0; fld1; handle SIGUSR1, handler; raise SIGUSR1
        movq rax, xmm0; show rax; fnstsw ax; movzx eax, ax; show rax""",
        "handler: mov qword ptr [rdx + UC_FPSTATE], 0; ret",
    ),
    "an area that is not there": (
        "handle SIGUSR1, handler; raise SIGUSR1; show 1",
        "handler: mov qword ptr [rdx + UC_FPSTATE], 0x5000; ret",
    ),
    "bits of mxcsr that do not exist": (
        "handle SIGUSR1, handler; raise SIGUSR1; show 1",
        "handler: mov rbx, [rdx + UC_FPSTATE]; mov dword ptr [rbx + 24], -1; ret",
    ),
}
FAULT = {
    "a load from nowhere": "mov rbx, 0x12345678; mov eax, [rbx]",
    "a store to nowhere": "mov rbx, 0x12345678; mov [rbx], eax",
    "an addition in memory": "mov rbx, 0x12345678; add [rbx], eax",
    "read-only memory": "anonymous 4096, 1, 0x32, 0x10000000; mov rbx, rax; mov al, [rbx]; mov [rbx], eax",
    "memory without rights": "anonymous 4096, 0, 0x32, 0x10000000; mov rbx, rax; mov eax, [rbx]",
    "the kernel": "mov rbx, 0xffff888000000123; mov eax, [rbx]",
    "a store to the kernel": "mov rbx, 0xffffffff81000000; mov [rbx], eax",
    "an address that is not canonical": "mov rbx, 0x800000000000; mov [rbx], eax",
    "a stack that is not canonical": "mov r14, rsp; mov rbp, 0x800000000000; mov eax, [rbp]",
    "a privileged instruction": "cli; nop",
    "a selector that does not exist": "mov eax, 0x1234; mov ds, eax",
    "an instruction that does not exist": "ud2",
    "a division by zero": "xor ecx, ecx; div ecx",
    "a breakpoint, which is behind it": "int3; nop; nop",
    "int 4": "int 4",
    "int 14": "int 14",
    "a single step": "pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop; nop",
    "an x87 division by zero": "push 0x37b; fldcw [rsp]; pop rax; fld1; fldz; fdivp st(1), st; fwait; nop",
    "int1": ".byte 0xf1; nop; nop",
    "a second fault has its own story": """
        mov rbx, 0x12345678; mov [rbx], eax
        mov rbx, 0x800000000000; mov [rbx], eax
        xor ecx, ecx; div ecx
        mov rbx, 0xffff888000000123; mov eax, [rbx]""",
    "a signal that is no fault keeps the last one's": """
        handle SIGUSR1, other; mov rbx, 0x12345678; mov [rbx], eax; raise SIGUSR1""",
}
STRING = {
    "a copy stops at a hole": """
        anonymous 8192, 3, 0x32, 0x10000000; lea rdi, [rax + 4000]; lea rsi, [rip + buffer]
        mov ecx, 9000; rep movsb""",
    "a copy by words stops at a hole": """
        anonymous 8192, 3, 0x32, 0x10000000; lea rdi, [rax + 4001]; lea rsi, [rip + buffer]; mov ecx, 900; rep movsq""",
    "backwards": """
        anonymous 8192, 3, 0x32, 0x10000000; lea rdi, [rax + 100]; lea rsi, [rip + buffer + 8000]
        std; mov ecx, 500; rep movsb""",
    "a fill": "anonymous 4096, 3, 0x32, 0x10000000; mov rdi, rax; mov ecx, 5000; mov al, 7; rep stosb",
    "a search": "anonymous 4096, 3, 0x32, 0x10000000; mov rdi, rax; mov ecx, 5000; mov al, 7; repne scasb",
    "the source": """
        anonymous 4096, 3, 0x32, 0x10000000; lea rsi, [rax + 4000]; lea rdi, [rip + buffer]; mov ecx, 100; rep movsb""",
}
_STRING = """
    handler: show [rdx + UC_RCX]; show [rdx + UC_RSI]; show [rdx + UC_RDI]; show [rdx + UC_CR2]; show [rdx + UC_EFLAGS]
    show [rdx + UC_ERR]; show [rdx + UC_RIP]; invoke EXIT, 0"""
REPAIR = {
    "mmap in the handler": (
        """
        handle SIGSEGV, handler
        mov rbx, 0x10000000; mov qword ptr [rbx + 24], 5; add qword ptr [rbx + 0x5010], 3
        show [rbx + 24]; show [rbx + 0x5010]""",
        """
        handler: show [rsi + SI_ADDR]; mov r12, [rsi + SI_ADDR]; and r12, -4096
        anonymous 4096, 3, 0x32, r12; ret""",
    ),
    "mprotect in the handler": (
        """
        handle SIGSEGV, handler
        anonymous 4096, 1, 0x32, 0x10000000; mov rbx, rax; show [rbx]
        mov qword ptr [rbx], 9; show [rbx]""",
        "handler: show [rsi + SI_CODE]; invoke MPROTECT, 0x10000000, 4096, 3; ret",
    ),
    "code that may not be executed": (
        """
        handle SIGSEGV, handler
        anonymous 4096, 3, 0x32, 0x10000000; mov byte ptr [rax], 0xc3; call rax; show 1""",
        """
        handler: show [rsi + SI_CODE]; show [rdx + UC_ERR]; show [rdx + UC_RIP]
        invoke MPROTECT, 0x10000000, 4096, 5; ret""",
    ),
    "a store over a border": (
        """
        handle SIGSEGV, handler
        anonymous 4096, 3, 0x32, 0x10000000; mov rbx, rax; mov rax, 0x1122334455667788; mov [rbx + 4093], rax
        show [rbx + 4088]; show [rbx + 4096]""",
        """
        handler: show [rsi + SI_ADDR]; mov rbx, 0x10000ff8; show [rbx]
        anonymous 4096, 3, 0x32, 0x10001000; ret""",
    ),
    "a copy goes on where it stopped": (
        """
        handle SIGSEGV, handler
        anonymous 4096, 3, 0x32, 0x10000000; lea rdi, [rax + 4000]; lea rsi, [rip + text]; mov ecx, 10; rep movsb
        lea rdi, [rax + 4090]; lea rsi, [rip + text]; mov ecx, 10; rep movsb
        show rcx; show [rax + 4090]; show [rax + 4098]""",
        "handler: show [rdx + UC_RCX]; anonymous 4096, 3, 0x32, 0x10001000; ret",
    ),
    "pages on demand, fifty of them": (
        """
        handle SIGSEGV, handler
        mov rbx, 0x10000000; mov ecx, 50
    1:  add [rbx], rbx; add rbx, 4096; dec ecx; jnz 1b
        show r13; mov rbx, 0x10031000; show [rbx]""",
        """
        handler: inc qword ptr [rdx + UC_R8 + 40]                                # r13
        mov r12, [rsi + SI_ADDR]; anonymous 4096, 3, 0x32, r12; ret""",
    ),
}
RETURN = {
    "rt_sigreturn with a stack that is not there": "mov rsp, 0x5000; mov eax, 15; syscall",
    "rt_sigreturn with a stack in the kernel": "mov rsp, 0xffff888000000008; mov eax, 15; syscall",
    "rt_sigreturn of zeros": "lea rsp, [rip + buffer + 8]; mov eax, 15; syscall",
    "a handler that is not there": "handle SIGUSR1, 0x5000; raise SIGUSR1",
}
SELECTORS = {
    "cs": "mov word ptr [rdx + UC_CS], 0x1234",
    "cs of the kernel": "mov word ptr [rdx + UC_CS], 0x10",
    "cs without its privilege": "mov word ptr [rdx + UC_CS], 0x30",
    "ss": "mov word ptr [rdx + UC_CS + 6], 0x1230",
    "ss null": "mov word ptr [rdx + UC_CS + 6], 0",
    "ss of the kernel": "mov word ptr [rdx + UC_CS + 6], 0x18",
    "ss null, not strict": "mov word ptr [rdx + UC_CS + 6], 0; and qword ptr [rdx], -5",
    "rip not canonical": "mov rax, 0x800000000000; mov [rdx + UC_RIP], rax",
    "rip in the kernel": "mov rax, 0xffffffff81000000; mov [rdx + UC_RIP], rax",
}


def int1_is_reported_before_it() -> bool:
    """Some hypervisors intercept INT1, and deliver its trap as if it were a fault."""
    found = "handler: mov rax, [rdx + UC_RIP]; movzx edi, byte ptr [rax]; mov eax, 60; syscall"
    return run_native(signal_program("handle SIGTRAP, handler; .byte 0xf1; nop", found)).exit_code == INT1


def assert_alike(main: str, handlers: str, run_image: RunImage) -> None:
    source = signal_program(main, handlers)
    ended = run_image(assemble_source(source))
    assert NativeResult(ended.stdout, ended.result.exit_code, ended.result.signal) == run_native(source)


@pytest.mark.parametrize("case", FRAME)
def test_a_handler_finds_what_the_real_kernel_lays_out(case: str, run_image: RunImage) -> None:
    assert_alike(*FRAME[case], run_image)


@pytest.mark.parametrize("case", FLOATING)
def test_floating_point_registers_go_to_the_frame_and_back(case: str, run_image: RunImage) -> None:
    assert_alike(*FLOATING[case], run_image)


@pytest.mark.parametrize("case", FAULT)
def test_a_fault_is_told_as_the_real_kernel_tells_it_and_can_be_skipped(case: str, run_image: RunImage) -> None:
    handle = "".join(f"handle SIG{name}, handler;" for name in ("SEGV", "BUS", "ILL", "FPE", "TRAP"))
    other = "other: show [rdx + UC_TRAPNO]; show [rdx + UC_ERR]; show [rdx + UC_CR2]; ret"
    leave_step = "and qword ptr [rdx + UC_EFLAGS], -257;"
    if case == "int1" and int1_is_reported_before_it():
        pytest.skip("this machine reports INT1 at the instruction; the manual has it behind (SDM Vol. 2A, INT1)")
    assert_alike(handle + FAULT[case] + "; show 1", f"handler: {fault} {leave_step} {_SKIP}; {other}", run_image)


@pytest.mark.parametrize("case", STRING)
def test_a_repeated_instruction_shows_how_far_it_came(case: str, run_image: RunImage) -> None:
    assert_alike("handle SIGSEGV, handler;" + STRING[case], _STRING, run_image)


@pytest.mark.parametrize("case", REPAIR)
def test_a_handler_can_repair_the_mapping_and_go_on(case: str, run_image: RunImage) -> None:
    assert_alike(*REPAIR[case], run_image)


@pytest.mark.parametrize("case", RETURN)
def test_a_return_that_cannot_be_ends_the_program(case: str, run_image: RunImage) -> None:
    assert_alike(RETURN[case] + "; show 1", "", run_image)


@pytest.mark.parametrize("case", SELECTORS)
def test_a_frame_that_the_processor_would_refuse_is_a_fault_of_the_program(case: str, run_image: RunImage) -> None:
    main = "handle SIGSEGV, segv; handle SIGUSR1, handler; raise SIGUSR1; show 1"
    told = fault.replace("show [rdx + UC_EFLAGS];", "show [rdx + UC_CS];")
    assert_alike(main, f"handler: {SELECTORS[case]}; ret; segv: {told} {_DIE}", run_image)
