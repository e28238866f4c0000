"""docs/limits.md, instruction by instruction: where cr3 is not a processor. A test that fails here is an improvement.

Whoever makes it fail takes the line out of the table.
"""

from __future__ import annotations

import pytest
from bare import KERNEL, RSP0, STACK_TOP, USER_CS, Bare, Frame

from emu.pte import PAGE_SIZE, Rflags

DATA = 0x50_0000
MISSING = 0xDEAD_B000


def ran(code: str | bytes, mode: str = "user", **registers: int) -> tuple[Frame, Bare]:
    """Run code with RBX at a page of data; how it ended, and the machine."""
    bare = Bare()
    bare.map(DATA)
    getattr(bare, mode)(code)
    bare["rbx"], bare["rsp"] = DATA, STACK_TOP - 64 if mode == "user" else RSP0
    for name, value in registers.items():
        bare[name] = value
    return bare.run(), bare


@pytest.mark.parametrize(
    "instruction",
    [
        *("vaddps ymm0, ymm1, ymm2", "vpaddd ymm0, ymm1, ymm2", "vfmadd132ps xmm0, xmm1, xmm2", "vcvtph2ps xmm0, xmm1"),
        *(
            "xsave [rbx]",
            "sha1nexte xmm0, xmm1",
            "adcx eax, ecx",
            "xtest",
            "rdpid rax",
        ),
        *("rdrand eax", "rdseed rax"),
    ],
)
def test_extensions_that_cpuid_does_not_report_are_undefined(instruction: str) -> None:
    assert ran(instruction)[0].name == "#UD"


@pytest.mark.parametrize("instruction", ["movaps xmm0, [rbx + 1]", "movdqa [rbx + 8], xmm0", "addps xmm0, [rbx + 4]"])
def test_alignment_is_not_checked(instruction: str) -> None:
    assert ran(instruction)[0].name == "int 0x20"


def test_sse_exceptions_are_not_raised() -> None:
    unmasked = "push 0x1d80; ldmxcsr [rsp]; xorps xmm0, xmm0; pcmpeqd xmm1, xmm1; cvtdq2ps xmm1, xmm1; divps xmm1, xmm0"
    assert ran(unmasked)[0].name == "int 0x20"


def test_alignment_checks_are_not_made() -> None:
    assert ran("push 0x40002; popfq; mov eax, [rbx + 1]")[0].name == "int 0x20"


@pytest.mark.parametrize("instruction", ["verr ax", "verw ax", "lar ecx, eax", "lsl ecx, eax"])
def test_nothing_looks_into_the_gdt_for_the_user(instruction: str) -> None:
    frame, bare = ran(f"cmp eax, eax; {instruction}", rax=USER_CS)
    assert (frame.rflags & Rflags.ZF, bare["rcx"]) == (0, 0)


@pytest.mark.parametrize(
    "instruction", ["retf", "lfs eax, [rbx]", "call fword ptr [rbx]", "jmp fword ptr [rbx]", "lss eax, [rbx]", "iretd"]
)
@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_far_transfers_are_refused(instruction: str, mode: str) -> None:
    assert ran(instruction, mode)[0].name == "#GP"


@pytest.mark.parametrize(
    "instruction", ["mov rax, dr0", "mov dr7, rax", "rdpmc", "sysenter", "lmsw ax", "insb", "outsb"]
)
def test_some_system_instructions_are_refused_in_the_kernel_too(instruction: str) -> None:
    assert ran(instruction, "kernel")[0].name == "#GP"


def test_there_are_no_devices() -> None:
    assert ran("in al, 0x60; out 0x80, al", "kernel")[1]["rax"] == 0xFF


def test_iopl_stays_0() -> None:
    assert not ran("push 0x3002; popfq; pushfq; pop rax", "kernel")[1]["rax"] & Rflags.IOPL


def test_lock_neg_has_wrong_flags() -> None:
    plain, locked = (ran(f"mov dword ptr [rbx], 5; {neg} dword ptr [rbx]")[0] for neg in ("neg", "lock neg"))
    assert plain.rflags & Rflags.SF
    assert not locked.rflags & Rflags.SF


def test_a_call_to_an_address_that_is_not_canonical_has_pushed() -> None:
    frame, bare = ran("call rdi", rdi=1 << 47)
    assert (frame.name, frame.rsp) == ("#GP", STACK_TOP - 64)
    assert bare.ram.load64(bare.physical(STACK_TOP - 72)) == 0x40_0002


def test_half_of_a_16_byte_store_is_seen() -> None:
    frame, bare = ran("pcmpeqd xmm0, xmm0; movups [rbx], xmm0", rbx=DATA + PAGE_SIZE - 8)
    assert (frame.name, frame.cr2) == ("#PF", DATA + PAGE_SIZE)
    assert bare.ram.load64(bare.physical(DATA + PAGE_SIZE - 8)) == 2**64 - 1


def test_part_of_an_fxsave_is_seen() -> None:
    frame, bare = ran("fxsave [rbx]", rbx=DATA + PAGE_SIZE - 256)
    assert frame.name == "#PF"
    assert any(bare.ram.read(bare.physical(DATA + PAGE_SIZE - 256), 256))


def test_a_timer_interrupt_is_late_by_what_walks_cost() -> None:
    """A program that does nothing but miss the TLBs."""
    bare = Bare()
    code = "mov rdx, rbx; 1: mov rax, [rdx]; add rdx, 4096; cmp rdx, rcx; cmovae rdx, rbx; jmp 1b"
    bare.user(code)
    bare["rbx"], bare["rcx"] = DATA, DATA + 2048 * PAGE_SIZE
    for page in range(DATA, DATA + 2048 * PAGE_SIZE, PAGE_SIZE):
        bare.map(page, bare.ram.size - PAGE_SIZE)
    bare.cpu.rflags = Rflags.IF
    due = bare.machine.clock.now + 100_000
    bare.machine.set_timer(100_000, 0x30)
    bare.run()
    late = bare.machine.clock.now - due
    assert 10_000 < late < 2_000_000
    assert KERNEL
