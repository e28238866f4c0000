"""What a program sees under cr3 is what it sees under the real kernel, corner cases included.

Each case is one small program (see `small_programs`), run natively and under cr3: same output, same exit code or
signal. Cases that `NOT_MODELLED` lists are known to differ; a test tells when one of them no longer does.
"""

from __future__ import annotations

import pytest
from conftest import RunImage
from native import NativeResult, fault_of, requires_native, run_native
from small_programs import STDIN, small_program

from emu.assembler import assemble_source
from kernel import PageFaultEvent, SignalEvent

pytestmark = [pytest.mark.native, requires_native]

SAVED = ("rbx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r12", "r13", "r14", "r15")
_fill = "".join(f"mov {name}, {0x1111111111111111 * number:#x};" for number, name in enumerate(SAVED, 1))
_show = "".join(f"show {name};" for name in SAVED)

WRITE = {
    "answers the count": "lea rbx, [rip + text]; invoke WRITE, 1, rbx, 10; show rax",
    "nothing from nowhere": "invoke WRITE, 1, 0, 0; show rax",
    "to files that are not open": """
        lea rbx, [rip + text]
        invoke WRITE, 99, rbx, 10; show rax
        invoke WRITE, -1, rbx, 10; show rax
        invoke WRITE, 0, rbx, 10; show rax""",
    "a descriptor has 32 bits": "lea rbx, [rip + text]; mov r12, 0x100000001; invoke WRITE, r12, rbx, 10; show rax",
    "from an address that is not mapped": "invoke WRITE, 1, 0x1000, 10; show rax",
    "from addresses of the kernel": """
        mov rbx, 0xffffffff81000000; invoke WRITE, 1, rbx, 10; show rax
        mov rbx, 0x800000000000; invoke WRITE, 1, rbx, 10; show rax
        invoke WRITE, 1, -5, 10; show rax""",
    "more than there can be": """
        lea rbx, [rip + text]; mov r12, 0x7fffffffffffffff; invoke WRITE, 1, rbx, r12; show rax
        invoke WRITE, 1, rbx, -1; show rax
        mov r12, 0xffff888000000000; invoke WRITE, 1, r12, 0; show rax
        invoke WRITE, 99, r12, 0; show rax""",
    "pages that were never touched": "lea rbx, [rip + buffer]; invoke WRITE, 1, rbx, 8192; show rax",
    "a page without rights": "anonymous 4096, 0; mov rbx, rax; invoke WRITE, 1, rbx, 10; show rax",
    "two pages and then a hole": """
        anonymous 12288; mov rbx, rax
        lea r12, [rbx + 8192]; invoke MUNMAP, r12, 4096
        invoke WRITE, 1, rbx, 12288; show rax""",
}
READ = {
    "as much as there is, then the end": """
        lea rbx, [rip + buffer]
        invoke READ, 0, rbx, 4; show rax; show [rbx]
        invoke READ, 0, rbx, 100; show rax; show [rbx]
        invoke READ, 0, rbx, 100; show rax""",
    "nothing to nowhere": "invoke READ, 0, 0, 0; show rax",
    "from files that are not open": """
        lea rbx, [rip + buffer]
        invoke READ, 99, rbx, 4; show rax
        invoke READ, 1, rbx, 4; show rax""",
    "what could not be delivered is not lost": """
        invoke READ, 0, 0x1000, 4; show rax
        lea rbx, [rip + buffer]; invoke READ, 0, rbx, 4; show rax; show [rbx]""",
    "to a page that is read-only": """
        anonymous 4096, 1; mov rbx, rax; invoke READ, 0, rbx, 4; show rax
        lea rbx, [rip + _start]; invoke READ, 0, rbx, 4; show rax""",
    "to addresses of the kernel": """
        mov rbx, 0xffff888000000000; invoke READ, 0, rbx, 4; show rax
        invoke READ, 0, rbx, 0; show rax""",
    "more than there can be": """
        lea rbx, [rip + buffer]; mov r12, 0x7fffffffffffffff; invoke READ, 0, rbx, r12; show rax
        invoke READ, 0, rbx, -1; show rax""",
}
BRK = {
    "moves up and down, and what comes back is zero": """
        invoke BRK, 0; mov rbx, rax
        lea r12, [rbx + 10000]; invoke BRK, r12; sub rax, rbx; show rax
        show [rbx + 9000]; mov qword ptr [rbx + 9000], 5
        invoke BRK, rbx; sub rax, rbx; show rax
        invoke BRK, r12; show [rbx + 9000]""",
    "refuses by staying where it is": """
        invoke BRK, 0; mov rbx, rax
        invoke BRK, 4096; sub rax, rbx; show rax
        mov r12, 0x7fffffffe000; invoke BRK, r12; sub rax, rbx; show rax
        invoke BRK, -1; sub rax, rbx; show rax""",
    "what was given back is gone": """
        invoke BRK, 0; mov rbx, rax
        lea r12, [rbx + 10000]; invoke BRK, r12; mov byte ptr [rbx + 9000], 1
        invoke BRK, rbx; mov al, [rbx + 9000]""",
    "moves within a page": """
        invoke BRK, 0; mov rbx, rax
        lea r12, [rbx + 1]; invoke BRK, r12; sub rax, rbx; show rax
        mov byte ptr [rbx + 1], 3
        lea r12, [rbx + 4096]; invoke BRK, r12; show [rbx + 1]
        mov al, [rbx + 4096]""",
    "keeps a free page before the next mapping": """
        invoke BRK, 0; lea r13, [rax + 0x7fff]; and r13, -4096
        anonymous 4096, 3, 0x100022, r13; sub rax, r13; show rax
        lea r12, [r13 - 8192]; invoke BRK, r12; sub rax, r13; show rax
        lea r12, [r13 - 4096]; invoke BRK, r12; sub rax, r13; show rax
        lea r12, [r13 - 4095]; invoke BRK, r12; sub rax, r13; show rax
        invoke BRK, r13; sub rax, r13; show rax""",
}
MMAP = {
    "sizes that cannot be": """
        anonymous 0; show rax
        mov rbx, 0x7fffffffffff; anonymous rbx; show rax
        mov rbx, 0x800000000000; anonymous rbx; show rax
        anonymous -4096; show rax
        anonymous -1; show rax""",
    "flags and files that cannot be": """
        anonymous 4096, 3, 0x20; show rax
        anonymous 4096, 3, 0; show rax
        invoke MMAP, 0, 4096, 3, 2, 99, 0; show rax
        invoke MMAP, 0, 4096, 3, 2, -1, 0; show rax
        invoke MMAP, 0, 0, 3, 2, 99, 0; show rax""",
    "an offset is whole pages": """
        invoke MMAP, 0, 4096, 3, 0x22, -1, 1; show rax
        invoke MMAP, 0, 4096, 3, 0x22, -1, 0x800; show rax
        invoke MMAP, 0, 0, 3, 2, 99, 0x800; show rax
        invoke MMAP, 0, 4096, 3, 0x22, -1, 0x3000; shr rax, 63; show rax""",
    "anonymous memory needs no file": "invoke MMAP, 0, 4096, 3, 0x22, 99, 0; shr rax, 63; show rax",
    "fixed places that cannot be": """
        anonymous 4096, 3, 0x32, 0x10000001; show rax
        mov rbx, 0x7ffffffff000; anonymous 4096, 3, 0x32, rbx; show rax
        anonymous 8192, 3, 0x32, rbx; show rax
        anonymous 0, 3, 0x32, rbx; show rax
        mov rbx, 0xffff888000000000; anonymous 4096, 3, 0x32, rbx; show rax
        anonymous 0, 3, 0x32, 1; show rax""",
    "the lowest place": "anonymous 4096, 3, 0x32, 0x10000; show rax",
    "a hint is taken if it is free": """
        anonymous 4096, 3, 0x22, 0x10000000; show rax
        anonymous 4096, 3, 0x22, 0x20000123; show rax""",
    "a hint that is too low": """
        anonymous 4096, 3, 0x22, 0x1000; show rax
        anonymous 4096, 3, 0x22, 1; shr rax, 44; show rax""",
    "a hint in the kernel": "mov rbx, 0xffff888000000000; anonymous 4096, 3, 0x22, rbx; shr rax, 44; show rax",
    "a hint that is taken already": """
        anonymous 8192, 3, 0x22, 0x10000000; mov byte ptr [rax + 4096], 7
        anonymous 8192, 3, 0x22, 0x10001000; cmp rax, 0x10001000; sete al; movzx eax, al; show rax
        mov rbx, 0x10001000; show [rbx]""",
    "a fixed place replaces what was there": """
        anonymous 12288, 3, 0x22, 0x10000000; mov rbx, rax
        mov byte ptr [rbx], 1; mov byte ptr [rbx + 4096], 2; mov byte ptr [rbx + 8192], 3
        anonymous 4096, 3, 0x32, 0x10001000; show rax
        show [rbx]; show [rbx + 4096]; show [rbx + 8192]""",
    "a fixed place that must be free": """
        anonymous 4096, 3, 0x100022, 0x10000000; show rax
        anonymous 8192, 3, 0x100022, 0x0ffff000; show rax
        anonymous 4096, 3, 0x100022, 0x0ffff000; show rax""",
    "goes downwards and fills the highest gap": """
        anonymous 4096; mov rbx, rax
        anonymous 8192; mov r12, rax; sub rbx, rax; show rbx
        anonymous 4096; mov r13, rax
        invoke MUNMAP, r12, 4096; anonymous 4096; sub rax, r12; show rax
        invoke MUNMAP, r12, 4096; anonymous 8192; sub rax, r13; show rax""",
    "is whole pages, of zeros": "anonymous 1; show [rax]; mov byte ptr [rax + 4095], 1; show [rax + 4088]",
    "can be made present at once": "anonymous 65536, 3, 0x8022; show [rax + 0xfff8]",
    "no rights: no read": "anonymous 4096, 0; mov al, [rax]",
    "read only: no write": "anonymous 4096, 1; show [rax]; mov byte ptr [rax], 1",
    "write only is readable": "anonymous 4096, 2; show [rax]",
    "data is not executed": "anonymous 4096, 3; mov byte ptr [rax], 0xc3; call rax",
    "code can be written and called": "anonymous 4096, 7; mov byte ptr [rax], 0xc3; call rax; show 1",
    "rights that do not exist are ignored": "anonymous 4096, 0x103; shr rax, 63; show rax",
}
MUNMAP = {
    "ranges that cannot be": """
        anonymous 8192; mov rbx, rax
        invoke MUNMAP, rbx, 0; show rax
        lea r12, [rbx + 1]; invoke MUNMAP, r12, 4096; show rax
        mov r12, 0x7ffffffff000; invoke MUNMAP, r12, 4096; show rax
        invoke MUNMAP, rbx, -1; show rax
        mov r12, 0x800000000000; invoke MUNMAP, rbx, r12; show rax
        mov r12, 0xffff888000000000; invoke MUNMAP, r12, 4096; show rax""",
    "twice is no error": """
        anonymous 8192; mov rbx, rax
        invoke MUNMAP, rbx, 1; show rax
        invoke MUNMAP, rbx, 8192; show rax
        invoke MUNMAP, rbx, 8192; show rax""",
    "a hole in the middle": """
        anonymous 12288; mov rbx, rax
        mov byte ptr [rbx], 1; mov byte ptr [rbx + 4096], 2; mov byte ptr [rbx + 8192], 3
        lea r12, [rbx + 4096]; invoke MUNMAP, r12, 4096
        show [rbx]; show [rbx + 8192]; show [rbx + 4096]""",
    "rounds the size up": "anonymous 8192; mov rbx, rax; invoke MUNMAP, rbx, 4097; mov al, [rbx + 4096]",
    "of the code that is running": "lea rbx, [rip + _start]; and rbx, -4096; invoke MUNMAP, rbx, 4096",
}
STACK = {
    "grows down to its limit": """
        mov byte ptr [rsp - 0x100000], 1; mov byte ptr [rsp - 0x700000], 1; show 1
        mov byte ptr [rsp - 0x810000], 1""",
    "grows wherever rsp is": """
        mov rbx, rsp; lea rsp, [rip + buffer + 4096]; mov byte ptr [rbx - 0x300000], 1; show 1""",
    "keeps its distance from a mapping below": """
        mov rbx, rsp; and rbx, -4096; lea r12, [rbx - 0x400000]
        anonymous 4096, 3, 0x100022, r12; sub rax, r12; show rax
        mov byte ptr [r12 + 0x110000], 1; show 1
        mov byte ptr [r12 + 0x101000], 1; show 2
        mov byte ptr [r12 + 0x100fff], 1; show 3""",
    "keeps no distance from what cannot be accessed": """
        mov rbx, rsp; and rbx, -4096; lea r12, [rbx - 0x400000]
        anonymous 4096, 0, 0x100022, r12; sub rax, r12; show rax
        mov byte ptr [r12 + 0x1000], 1; show 1""",
    "grows over a hole in it": """
        mov byte ptr [rsp - 0x10000], 1; lea rbx, [rsp - 0x8000]; and rbx, -4096
        invoke MUNMAP, rbx, 4096; show [rbx]""",
    "does not grow upwards": "mov rbx, rsp; 1: mov al, [rbx]; add rbx, 4096; jmp 1b",
    "is not executable": "push 0x90; jmp rsp",
}
START = {
    "argc, alignment, the end of argv": "show [rsp]; mov rax, rsp; and eax, 15; show rax; show [rsp + 16]",
    "registers": "show rax; show rcx; show r11;" + _show + "pushfq; pop rax; show rax",
    "segments": "".join(f"mov eax, {name}; show rax;" for name in ("cs", "ss", "ds", "es", "fs", "gs")),
    "floating point": """
        lea rbx, [rip + buffer]
        stmxcsr [rbx]; show [rbx]; mov qword ptr [rbx], 0; fnstcw [rbx]; show [rbx]
        fnstsw ax; movzx eax, ax; show rax; movq rax, xmm0; show rax""",
    "page size and entry point in the auxiliary vector": """
        lea rbx, [rsp + 24]                     # the environment, which a null ends
    1:  add rbx, 8
        cmp qword ptr [rbx - 8], 0
        jne 1b
    2:  cmp qword ptr [rbx], 6                  # AT_PAGESZ
        jne 3f
        show [rbx + 8]
    3:  cmp qword ptr [rbx], 9                  # AT_ENTRY
        jne 4f
        lea rax, [rip + _start]; sub rax, [rbx + 8]; show rax
    4:  add rbx, 16
        cmp qword ptr [rbx - 16], 0
        jne 2b""",
}
SYSTEM_CALL = {
    "that does not exist": """
        mov eax, 9999; syscall; show rax
        mov eax, -1; syscall; show rax
        mov eax, 0x7fffffff; syscall; show rax""",
    "a number has 32 bits": """
        mov rax, 0x100000001; mov edi, 1; lea rsi, [rip + text]; mov edx, 10; syscall; show rax""",
    "changes rcx, r11 and rax, nothing else": f"""
        {_fill} mov eax, GETPID; syscall
    1:  lea rax, [rip + 1b]; sub rcx, rax; show rcx; show r11; {_show}""",
    "keeps the flags": """
        std; stc; mov eax, GETPID; syscall; pushfq; pop rax; cld; show rax; show r11
        clc; mov eax, GETPID; syscall; pushfq; pop rax; show rax""",
    "keeps the vector registers": """
        mov rax, 0x1122334455667788; movq xmm7, rax; lea rbx, [rip + buffer]; mov byte ptr [rbx], 1
        mov eax, GETPID; syscall; movq rax, xmm7; show rax""",
    "an exit code has 8 bits": "invoke EXIT, 0x1234507",
    "exit of the whole group": "invoke EXIT_GROUP, 9",
    "the thread is the process": "invoke GETPID; mov rbx, rax; invoke GETTID; sub rax, rbx; show rax",
    "on the last bytes before a hole": """
        anonymous 8192, 7, 0x22, 0x10000000; mov rbx, rax
        lea r12, [rbx + 4096]; invoke MUNMAP, r12, 4096
        lea rbx, [rbx + 4094]; mov word ptr [rbx], 0x050f; mov eax, GETPID; jmp rbx""",
}
FAULT = {
    "keeps registers and flags": f"""
        {_fill} std; stc; mov byte ptr [rip + buffer + 5000], 1; pushfq; cld; {_show} pop rax; show rax""",
    "a store over a border is all or nothing": """
        anonymous 8192; mov rbx, rax; lea r12, [rbx + 4096]; invoke MUNMAP, r12, 4096
        mov rax, -1; mov [rbx + 4092], rax""",
    "a copy runs into a hole": "lea rdi, [rip + buffer + 4096]; mov rsi, rdi; mov ecx, 100000; rep movsb",
    "an instruction reaches into a hole": """
        anonymous 8192, 7, 0x22, 0x10000000; mov rbx, rax
        lea r12, [rbx + 4096]; invoke MUNMAP, r12, 4096
        lea rbx, [rbx + 4095]; mov byte ptr [rbx], 0x0f; jmp rbx""",
    "read at null": "xor eax, eax; mov al, [rax]",
    "call of null": "xor eax, eax; call rax",
    "read of the kernel": "mov rax, 0xffff888000000000; mov al, [rax]",
    "write to the kernel": "mov rax, 0xffff888000000000; mov [rax], al",
    "jump into the kernel": "mov rax, 0xffffffff81000000; jmp rax",
    "write to code": "lea rax, [rip + _start]; mov [rax], al",
    "jump into data": "lea rax, [rip + text]; jmp rax",
    "end of the user half": "mov rax, 0x7fffffffefff; mov al, [rax + 1]",
    "not canonical: load": "mov rax, 0x800000000000; mov al, [rax]",
    "not canonical: store": "mov rax, 0x800000000000; mov [rax], al",
    "not canonical: jump": "mov rax, 0x800000000000; jmp rax",
    "not canonical: call": "mov rax, 0x800000000000; call rax",
    "not canonical: return": "mov rax, 0x800000000000; push rax; ret",
    "not canonical: push": "mov rsp, 0x800000000008; push rax",
    "not canonical: pop": "mov rsp, 0x800000000000; pop rax",
    "not canonical: through rbp": "mov rbp, 0x800000000000; mov al, [rbp]",
    "not canonical: call with such a stack": "mov rsp, 0x800000000008; call 1f; 1: nop",
    "last byte canonical, the next not": "mov rax, 0x7ffffffffffc; mov rax, [rax]",
    "around the end of the address space": "mov rax, -4; mov rax, [rax]",
}
_PRIVILEGED = (
    *("hlt", "cli", "sti", "clts", "invd", "wbinvd", "rdmsr", "wrmsr", "swapgs", "sysretq", "clac", "stac", "monitor"),
    *("mov rax, cr3", "mov cr0, rax", "mov rax, cr8", ".byte 0x0f, 0x20, 0xc8", "mov rax, dr0", "lmsw ax"),
    *("lgdt [rsp]", "lidt [rsp]", "ltr ax", "lldt ax", "invlpg [rsp]", "invpcid rax, [rsp]", "mov ecx, 0x55; rdpmc"),
    *("in al, 0x10", "out dx, al", "insb", ".byte 0x0f, 0xaa"),
)
INSTRUCTION = {
    **{f"privileged: {code}": code for code in _PRIVILEGED},
    **{f"int {vector:#x}": f"int {vector:#x}" for vector in (0, 4, 8, 14, 0x20, 0xEC)},
    "ud2": "ud2",
    "int3": "int3",
    "int3 in two bytes": ".byte 0xcd, 3",
    "int1": ".byte 0xf1",
    "divide by zero": "xor ecx, ecx; div ecx",
    "divide: too large": "mov edx, 5; mov ecx, 1; div ecx",
    "divide: the lowest number by -1": "mov rax, 0x8000000000000000; cqo; mov rcx, -1; idiv rcx",
    "x87 divide by zero": "push 0x37b; fldcw [rsp]; fld1; fldz; fdivp st(1), st; fwait; nop",
    "x87 divide by zero, masked": "fld1; fldz; fdivp st(1), st; fwait; show 1",
    "not in 64-bit mode": ".byte 0x06",
    "not in 64-bit mode: aaa": ".byte 0x37",
    "not in 64-bit mode: far call": ".byte 0x9a, 0, 0, 0, 0, 0, 0",
    "lock of what cannot be locked": ".byte 0xf0, 0x90",
    "lock of a load": ".byte 0xf0, 0x8b, 0x03",
    "lock of a bit test of a register": ".byte 0xf0, 0x0f, 0xab, 0xc1",
    "too long": ".fill 15, 1, 0x66; nop",
    "far jump through null": "push 0; push 0; .byte 0xff, 0x2c, 0x24",
    "far return to null": "push 0; push 0; retfq",
    "iretq to nowhere": "push 0; push 0; push 0; push 0; push 0; iretq",
    "mov to cs": ".byte 0x8e, 0xc8",
    "null in ss": "xor eax, eax; mov ss, eax",
    "null in ds": "xor eax, eax; mov ds, eax; show 1",
    "a selector that does not exist": "mov eax, 0x1234; mov ds, eax",
    "a selector of the kernel's": "mov eax, 0x18; mov ds, eax",
    "a selector of the user's": "mov eax, 0x2b; mov fs, eax; mov eax, fs; show rax",
    "cmpxchg16b of an odd address": "cmpxchg16b [rsp + 8]; cmpxchg16b [rsp + 16]",
    "movups of an odd address": "movups xmm0, [rsp + 1]; show 1",
    "alignment of fxsave": "fxsave [rsp - 511]; fxsave [rsp - 510]",
    "fxsave and fxrstor": "mov rbx, rsp; and rbx, -64; fxsave [rbx - 1024]; show 1; fxrstor [rbx - 1024]; show 2",
    "long mode in cpuid": "mov eax, 0x80000001; cpuid; bt edx, 29; setc al; movzx eax, al; show rax",
    "single step": "pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop",
    "popf leaves iopl": "pushfq; or dword ptr [rsp], 0x3000; popfq; pushfq; pop rax; show rax",
    "popf leaves if": "pushfq; and dword ptr [rsp], 0xfffffdff; popfq; pushfq; pop rax; show rax",
    "popf of everything else": "push 0x244ad5; popfq; pushfq; pop rax; show rax",
}
CASES = {
    f"{group}: {name}": code
    for group, cases in {
        **{"write": WRITE, "read": READ, "brk": BRK, "mmap": MMAP, "munmap": MUNMAP, "stack": STACK},
        **{"start": START, "system call": SYSTEM_CALL, "fault": FAULT, "instruction": INSTRUCTION},
    }.items()
    for name, code in cases.items()
}

NOT_MODELLED = {
    "alignment check: cr0.am": "pushfq; or dword ptr [rsp], 0x40000; popfq; mov eax, [rsp + 1]",
    "alignment of movaps": "movaps xmm0, [rsp + 1]",
    "alignment of movdqa": "movdqa [rsp + 8], xmm0; movdqa [rsp + 16], xmm0",
    "reserved bits of mxcsr": "push -1; ldmxcsr [rsp]",
    "unmasked sse exceptions": """
        push 0x1d80; ldmxcsr [rsp]; mov eax, 0x3f800000; movd xmm0, eax; xorps xmm1, xmm1; divss xmm0, xmm1""",
}
"""Unicorn executes these as if nothing were wrong."""


def ending_under_cr3(body: str, run_image: RunImage) -> NativeResult:
    ended = run_image(assemble_source(small_program(body)), stdin=STDIN)
    return NativeResult(ended.stdout, ended.result.exit_code, ended.result.signal)


@pytest.mark.parametrize("case", CASES)
def test_a_program_sees_what_it_sees_under_the_real_kernel(case: str, run_image: RunImage) -> None:
    assert ending_under_cr3(CASES[case], run_image) == run_native(small_program(CASES[case]), STDIN)


@pytest.mark.xfail(strict=True, reason="Unicorn does not check it")
@pytest.mark.parametrize("case", NOT_MODELLED)
def test_some_faults_do_not_happen(case: str, run_image: RunImage) -> None:
    assert ending_under_cr3(NOT_MODELLED[case], run_image) == run_native(small_program(NOT_MODELLED[case]), STDIN)


# --- what a signal says: siginfo --------------------------------------------------------------------------------

SEGV_MAPERR, SEGV_ACCERR, SI_KERNEL = 1, 2, 128
_CODES = {"BAD_ADDRESS": SEGV_MAPERR, "BAD_ACCESS": SEGV_ACCERR}

FAULT_ADDRESSES = {
    "nothing there": "mov rbx, 0x12345678; mov [rbx + 1], al",
    "second page of a store": """
        anonymous 4096, 3, 0x32, 0x10000000; mov rbx, rax; mov [rbx + 4090], rax""",
    "second page of a load": """
        anonymous 4096, 3, 0x32, 0x10000000; mov rbx, rax; mov rax, [rbx + 4089]""",
    "read only": "anonymous 4096, 1, 0x32, 0x10000000; mov rbx, rax; inc qword ptr [rbx + 24]",
    "no rights": "anonymous 4096, 0, 0x32, 0x10000000; mov al, [rax + 77]",
    "not executable": "anonymous 4096, 3, 0x32, 0x10000000; lea rbx, [rax + 9]; jmp rbx",
    "code on two pages": """
        anonymous 4096, 7, 0x32, 0x10000000; lea rbx, [rax + 4095]; mov byte ptr [rbx], 0x48; jmp rbx""",
    "a copy stops": """
        anonymous 8192, 3, 0x32, 0x10000000; lea rdi, [rax + 4000]; lea rsi, [rip + buffer]
        mov ecx, 6000; rep movsb""",
    "a copy stops, backwards": """
        anonymous 8192, 3, 0x32, 0x10000000; lea rdi, [rax + 4000]; lea rsi, [rip + buffer + 8000]
        mov ecx, 6000; std; rep movsb""",
    "the kernel": "mov rbx, 0xffff888000000123; mov al, [rbx]",
    "cmpxchg of the kernel": "mov rbx, 0xffff888000000123; lock cmpxchg [rbx], rax",
    "jump to nowhere": "mov rbx, 0x77777777; jmp rbx",
    "call through nowhere": "mov rbx, 0x77777777; call [rbx]",
}


@pytest.mark.parametrize("case", FAULT_ADDRESSES)
def test_a_fault_has_the_address_and_the_code_that_the_real_kernel_tells(case: str, make_kernel) -> None:
    faults: list[PageFaultEvent] = []
    signals: list[SignalEvent] = []
    kernel = make_kernel()
    kernel.on("page_fault", faults.append)
    kernel.on("signal", signals.append)
    source = small_program(FAULT_ADDRESSES[case])
    kernel.spawn(assemble_source(source))
    kernel.run()
    native = fault_of(source)
    assert (signals[0].signal, signals[0].address) == (native.signal, native.address)
    assert (faults[-1].address, _CODES[faults[-1].outcome]) == (native.address, native.code)
