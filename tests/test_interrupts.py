"""Delivery of exceptions and interrupts, as Intel SDM Vol. 3A chapter 6 promises it."""

from __future__ import annotations

import pytest
from bare import (
    END,
    IDT,
    INTERRUPT_GATE,
    ISTS,
    KERNEL,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_SS,
    RSP0,
    STACK_TOP,
    TRAP_GATE,
    TSS,
    USER_CODE,
    USER_CS,
    USER_SS,
    Bare,
)

from emu import TripleFault
from emu.control import DescriptorTable
from emu.pte import PAGE_SIZE, Pte, Rflags

DE, DB, BP, UD, DF, TS, NP, SS, GP, PF = 0, 1, 3, 6, 8, 10, 11, 12, 13, 14
IF, TF, RF, NT, AC, ZF = (int(getattr(Rflags, name)) for name in ("IF", "TF", "RF", "NT", "AC", "ZF"))
MISSING = 0xDEAD_B000


# --- the frame ------------------------------------------------------------------------------------------------


def test_from_user_mode_the_frame_is_on_the_stack_that_the_tss_names() -> None:
    bare = Bare()
    bare.user("xor eax, eax; ud2")
    frame = bare.run()
    assert frame.stack == RSP0 - 5 * 8
    assert (frame.ss, frame.rsp, frame.cs, frame.rip) == (USER_SS, STACK_TOP, USER_CS, USER_CODE + 2)


def test_an_error_code_lies_below_the_frame() -> None:
    bare = Bare()
    bare.user(f"mov eax, [{MISSING}]")
    frame = bare.run()
    assert (frame.stack, frame.error_code, frame.cr2) == (RSP0 - 6 * 8, 4, MISSING)


@pytest.mark.parametrize("rsp", range(RSP0 - 0x100, RSP0 - 0xF0))
def test_in_the_kernel_the_frame_goes_below_the_current_stack_aligned_to_16_bytes(rsp: int) -> None:
    bare = Bare()
    bare.kernel("ud2")
    bare["rsp"] = rsp
    frame = bare.run()
    assert (frame.stack, frame.rsp) == ((rsp & ~15) - 5 * 8, rsp)
    assert (frame.ss, frame.cs, frame.rip) == (KERNEL_SS, KERNEL_CS, KERNEL_CODE)


@pytest.mark.parametrize("ist", [1, 2, 3])
@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_a_gate_can_name_a_stack_of_its_own(ist: int, mode: str) -> None:
    bare = Bare()
    bare.gate(UD, ist=ist)
    getattr(bare, mode)("ud2")
    frame = bare.run()
    assert frame.stack == ISTS[ist] - 5 * 8


def test_coming_from_user_mode_ss_is_the_null_selector() -> None:
    bare = Bare()
    bare.user("ud2")
    bare.run()
    assert (bare.machine.interrupts.ss, bare.machine.interrupts.cs, bare.machine.cpl) == (0, KERNEL_CS, 0)


def test_in_the_kernel_ss_stays() -> None:
    bare = Bare()
    bare.kernel("ud2")
    bare.run()
    assert bare.machine.interrupts.ss == KERNEL_SS


@pytest.mark.parametrize(("kind", "stays"), [(INTERRUPT_GATE, 0), (TRAP_GATE, IF)])
def test_an_interrupt_gate_clears_if_and_a_trap_gate_does_not(kind: int, stays: int) -> None:
    bare = Bare()
    bare.gate(UD, kind=kind)
    bare.user("ud2")
    bare.cpu.rflags = IF | NT | ZF | AC
    frame = bare.run()
    assert frame.rflags == IF | NT | ZF | AC | RF | 2
    assert frame.inside == ZF | AC | 2 | stays


@pytest.mark.parametrize(
    ("code", "name", "resume"),
    [
        ("ud2", "#UD", RF),
        ("div ecx", "#DE", RF),
        ("hlt", "#GP", RF),
        (f"mov eax, [{MISSING}]", "#PF", RF),
        ("int3", "#BP", 0),
        ("int 0x80", "int 0x80", 0),
    ],
)
def test_faults_push_rf_and_software_interrupts_do_not(code: str, name: str, resume: int) -> None:
    """SDM Vol. 3B 17.3.1.1: the instruction will be executed again."""
    bare = Bare()
    bare.user(code)
    frame = bare.run()
    assert (frame.name, frame.rflags & RF) == (name, resume)


# --- and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_iretq_goes_back_to_exactly_what_was_interrupted(mode: str) -> None:
    bare = Bare()
    getattr(bare, mode)("cmp eax, eax; stc; int 0x80; mov ebx, 5")
    bare["rsp"] = STACK_TOP - 24 if mode == "user" else RSP0 - 0x108
    bare.on[0x80] = lambda _: None
    before = bare["rsp"]
    bare.run()
    entered, ended = bare.frames
    assert (ended.rsp, ended.cs, ended.ss) == (before, entered.cs, entered.ss)
    assert (bare["rbx"], ended.rflags) == (5, entered.rflags)
    assert ended.rflags & (Rflags.ZF | Rflags.CF) == Rflags.ZF | Rflags.CF


def frame_of(*values: int) -> str:
    """Assembly that pushes a frame and returns with it."""
    return "".join(f"mov rax, {value:#x}; push rax; " for value in values) + "iretq"


def test_iretq_enters_user_mode() -> None:
    bare = Bare()
    bare.put("xor ecx, ecx; int 0x20", USER_CODE)
    bare.kernel(frame_of(USER_SS, STACK_TOP, IF | ZF, USER_CS, USER_CODE))
    bare["rsp"] = RSP0
    frame = bare.run()
    assert (frame.name, frame.cs, frame.ss, frame.rsp) == ("int 0x20", USER_CS, USER_SS, STACK_TOP)
    assert frame.rflags & IF


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((USER_SS, STACK_TOP, 2, 0, USER_CODE), ("#GP", 0)),  # no code segment
        ((USER_SS, STACK_TOP, 2, 0x28, USER_CODE), ("#GP", 0x28)),  # a data segment as code
        ((USER_SS, STACK_TOP, 2, 0x33 & ~3, USER_CODE), ("#GP", 0x30)),  # RPL 0, DPL 3
        ((USER_SS, STACK_TOP, 2, 0x78, USER_CODE), ("#GP", 0x78)),  # beyond the table
        ((USER_SS, STACK_TOP, 2, 0x37, USER_CODE), ("#GP", 0x34)),  # in a local table
        ((USER_SS, STACK_TOP, 2, USER_CS, 1 << 62), ("#GP", 0)),  # RIP is not canonical
        ((0, STACK_TOP, 2, USER_CS, USER_CODE), ("#GP", 0)),  # no stack segment for the user
        ((KERNEL_SS, STACK_TOP, 2, USER_CS, USER_CODE), ("#GP", KERNEL_SS)),
        ((USER_CS, STACK_TOP, 2, USER_CS, USER_CODE), ("#GP", USER_CS & ~3)),
    ],
)
def test_a_frame_that_makes_no_sense_is_a_general_protection_fault(
    values: tuple[int, ...], expected: tuple[str, int]
) -> None:
    bare = Bare()
    bare.put("int 0x20", USER_CODE)
    bare.kernel(frame_of(*values))
    bare["rsp"] = RSP0
    frame = bare.run()
    assert (frame.name, frame.error_code) == expected
    assert (frame.cs, frame.rsp) == (KERNEL_CS, RSP0 - 40)  # nothing changed


def test_the_kernel_may_return_to_itself_with_a_null_stack_segment() -> None:
    bare = Bare()
    bare.put("int 0x20", KERNEL_CODE + 0x800)
    bare.kernel(frame_of(0, RSP0 - 0x80, 2, KERNEL_CS, KERNEL_CODE + 0x800))
    bare["rsp"] = RSP0
    assert (bare.run().name, bare.last.rsp, bare.last.ss) == ("int 0x20", RSP0 - 0x80, 0)


def test_iretq_at_cpl_3_can_return_to_cpl_3_only() -> None:
    bare = Bare()
    bare.user(frame_of(KERNEL_SS, RSP0, 2, KERNEL_CS, KERNEL_CODE))
    assert (bare.run().name, bare.last.error_code) == ("#GP", KERNEL_CS)
    bare = Bare()
    bare.put("int 0x20", USER_CODE + 0x800)
    bare.user(frame_of(USER_SS, STACK_TOP - 800, IF | ZF, USER_CS, USER_CODE + 0x800))
    assert (bare.run().name, bare.last.rsp) == ("int 0x20", STACK_TOP - 800)
    assert bare.last.rflags & (IF | ZF) == ZF  # IF is not the user's to change


def test_iretq_with_nt_set_is_a_general_protection_fault() -> None:
    bare = Bare()
    bare.kernel(frame_of(USER_SS, STACK_TOP, 2, USER_CS, USER_CODE))
    bare["rsp"] = RSP0
    bare.cpu.rflags = NT
    assert (bare.run().name, bare.last.error_code) == ("#GP", 0)


def test_flags_that_do_not_exist_are_not_restored() -> None:
    bare = Bare()
    bare.put("int 0x20", USER_CODE)
    bare.kernel(frame_of(USER_SS, STACK_TOP, 0xFFFF_FFFF & ~TF, USER_CS, USER_CODE))
    bare["rsp"] = RSP0
    bare.run()
    assert not bare.last.rflags & (Rflags.VM | RF | 1 << 15 | 1 << 3)


@pytest.mark.parametrize("rsp", [RSP0 - 0x7B, RSP0 - PAGE_SIZE - 20])
def test_the_frame_that_iretq_pops_may_lie_anywhere(rsp: int) -> None:
    """Unaligned, and across pages."""
    bare = Bare()
    bare.put("int 0x20", USER_CODE)
    bare.kernel("iretq")
    bare["rsp"] = rsp
    for number, value in enumerate((USER_CODE, USER_CS, 2, STACK_TOP, USER_SS)):
        bare.machine.mmu.write(rsp + 8 * number, value.to_bytes(8, "little"))
    assert (bare.run().name, bare.last.rsp) == ("int 0x20", STACK_TOP)


# --- INT n ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "size", "vector"), [("int3", 1, 3), ("int 0x80", 2, 0x80), ("int 14", 2, 14)])
def test_int_n_pushes_the_address_after_it_and_never_an_error_code(code: str, size: int, vector: int) -> None:
    bare = Bare()
    bare.user(code)
    bare.machine.run()
    top = [bare.ram.load64(bare.physical(RSP0 - 8 * i)) for i in range(1, 6)]
    assert top == [USER_SS, STACK_TOP, bare.frames[0].rflags if vector != 14 else top[2], USER_CS, USER_CODE + size]
    assert bare["rsp"] == RSP0 - 40


@pytest.mark.parametrize("code", [b"\xcc", b"\xcd\x03", b"\xcd\x80", b"\x66\xcd\x80", b"\xcd\x0d"])
def test_a_gate_may_be_closed_to_the_user(code: bytes) -> None:
    bare = Bare()
    vector = 3 if code == b"\xcc" else code[-1]
    bare.gate(vector, dpl=0)
    bare.user(b"\x90" + code)
    frame = bare.run()
    assert (frame.name, frame.rip, frame.error_code) == ("#GP", USER_CODE + 1, vector * 8 + 2)
    assert bare.machine.retired(3)[0] == 1


def test_a_gate_that_is_closed_to_the_user_is_open_to_exceptions_and_to_the_kernel() -> None:
    bare = Bare()
    bare.gate(UD, dpl=0)
    bare.user("ud2")
    assert bare.run().name == "#UD"
    bare.kernel("int 6")
    assert bare.run().name == "#UD"


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"present": False}, ("#NP", 0x80 * 8 + 2)),
        ({"kind": 0xC}, ("#GP", 0x80 * 8 + 2)),  # a call gate
        ({"kind": 0}, ("#GP", 0x80 * 8 + 2)),
        ({"selector": 0}, ("#GP", 0)),
        ({"selector": KERNEL_SS}, ("#GP", KERNEL_SS)),
        ({"selector": 0x90}, ("#GP", 0x90)),  # beyond the GDT
        ({"offset": 1 << 60}, ("#GP", 0)),
        ({"ist": 7}, ("#PF", 2)),  # an empty entry: the frame goes below address 0
    ],
)
def test_a_broken_gate_is_a_fault_of_int_n(gate: dict[str, int], expected: tuple[str, int]) -> None:
    bare = Bare()
    bare.gate(0x80, **gate)  # type: ignore[arg-type]
    bare.user("int 0x80")
    if "ist" in gate:
        bare.map(0xFFFF_FFFF_FFFF_F000, flags=Pte(0))
    frame = bare.run()
    assert (frame.name, frame.error_code, frame.rip) == (*expected, USER_CODE)


def test_a_vector_beyond_the_idt_is_a_fault_of_int_n() -> None:
    bare = Bare()
    bare.machine.control.idtr = DescriptorTable(KERNEL + IDT, 16 * 0x80 + 14)
    bare.user("int 0x80")
    assert (bare.run().name, bare.last.error_code) == ("#GP", 0x80 * 8 + 2)


# --- faults while delivering ----------------------------------------------------------------------------------


def broken(bare: Bare, *vectors: int) -> None:
    """Make gates not present."""
    for vector in vectors:
        bare.gate(vector, present=False)


def test_an_error_code_tells_that_no_int_n_asked_for_it() -> None:
    """The EXT bit (SDM Vol. 3A 6.13)."""
    bare = Bare()
    broken(bare, UD)
    bare.user("ud2")
    assert (bare.run().name, bare.last.error_code) == ("#NP", UD * 8 + 2 | 1)


@pytest.mark.parametrize(
    ("code", "gates", "expected"),
    [
        ("ud2", [UD], "#NP"),  # benign, then contributory: one after the other
        ("div ecx", [DE], "#DF"),  # contributory twice
        ("hlt", [GP], "#DF"),
        (f"mov eax, [{MISSING}]", [PF], "#DF"),  # a page fault, then contributory
        ("int 0x80", [0x80], "#NP"),
        ("int 0x80", [0x80, NP], "#DF"),
        ("ud2", [UD, NP], "#DF"),
    ],
)
def test_two_faults_in_a_row_are_handled_in_turn_or_a_double_fault(code: str, gates: list[int], expected: str) -> None:
    """SDM Table 6-5."""
    bare = Bare()
    bare.gate(DF, ist=1)
    broken(bare, *gates)
    bare.user(code)
    frame = bare.run()
    assert frame.name == expected
    if expected == "#DF":
        assert (frame.error_code, frame.stack) == (0, ISTS[1] - 48)


def test_a_contributory_exception_then_a_page_fault_is_the_page_fault() -> None:
    bare = Bare()
    bare.gate(GP, ist=7)
    bare.ram.write(TSS + 0x1C + 8 * 7, (0x7000_0000_0000).to_bytes(8, "little"))
    bare.user("hlt")
    frame = bare.run()
    assert (frame.name, frame.cr2, frame.error_code) == ("#PF", 0x7000_0000_0000 - 8, 2)


def test_a_push_that_faults_is_a_double_fault_of_a_page_fault() -> None:
    bare = Bare()
    bare.gate(DF, ist=2)
    bare.ram.write(TSS + 4, (0x7000_0000_0000).to_bytes(8, "little"))
    bare.user(f"mov eax, [{MISSING}]")
    frame = bare.run()
    assert (frame.name, frame.stack, frame.rip, frame.cs) == ("#DF", ISTS[2] - 48, USER_CODE, USER_CS)
    assert frame.cr2 == 0x7000_0000_0000 - 8


def test_a_stack_that_is_not_canonical_is_a_stack_fault() -> None:
    bare = Bare()
    bare.gate(SS, ist=1)
    bare.ram.write(TSS + 4, (1 << 60).to_bytes(8, "little"))
    bare.user("ud2")
    assert (bare.run().name, bare.last.error_code) == ("#SS", 1)


def test_a_kernel_stack_overflow_ends_on_the_stack_of_the_double_fault() -> None:
    bare = Bare()
    bare.gate(DF, ist=3)
    bare.kernel("1: push rax; jmp 1b")
    stack = KERNEL + 0x3F_0000
    bare.unmap(stack - PAGE_SIZE)
    bare["rsp"] = stack + 64
    frame = bare.run()
    assert (frame.name, frame.rsp, frame.stack) == ("#DF", stack, ISTS[3] - 48)


def test_when_even_the_double_fault_fails_the_machine_tells_the_story() -> None:
    bare = Bare()
    broken(bare, PF, DF)
    bare.user(f"mov eax, [{MISSING}]")
    with pytest.raises(TripleFault, match=r"triple fault at rip 0x400000.*#PF for 0xdeadb000.*#NP"):
        bare.run()


def test_a_segment_that_is_not_present() -> None:
    bare = Bare()
    bare.ram.store64(0x9000 + KERNEL_CS, 0x00AF_1A00_0000_FFFF)
    bare.user("int 0x80")
    with pytest.raises(TripleFault):
        bare.run()


# --- single step ----------------------------------------------------------------------------------------------


def stepped(code: str, mode: str = "user", **registers: int) -> list[int]:
    """Offsets of the instructions before which a single-stepped program was interrupted."""
    bare = Bare()
    getattr(bare, mode)(code)
    if mode == "kernel":
        bare["rsp"] = RSP0
    for name, value in registers.items():
        bare[name] = value
    seen: list[int] = []
    start = bare.cpu.rip
    bare.on[DB] = lambda frame: seen.append(frame.rip - start)
    bare.cpu.rflags = bare.cpu.rflags | TF
    assert bare.run().name == "int 0x20"
    return seen


def test_tf_interrupts_after_every_instruction() -> None:
    assert stepped("nop; inc eax; jmp 1f; nop; 1: nop") == [1, 3, 6, 7]


def test_tf_interrupts_after_every_iteration() -> None:
    assert stepped("rep stosb; nop", rdi=STACK_TOP - 64, rcx=3) == [0, 0, 2, 3]


def test_tf_interrupts_after_a_loop_branch() -> None:
    assert stepped("1: dec ecx; jnz 1b; nop", rcx=2) == [2, 0, 2, 4, 5]


@pytest.mark.parametrize("code", ["pushfq; nop", "cpuid; nop", "rdtsc; nop", "mov eax, cs; nop"])
def test_tf_interrupts_after_instructions_that_the_model_executes(code: str) -> None:
    first, second = stepped(code)
    assert second == first + 1


def test_tf_interrupts_after_privileged_instructions() -> None:
    assert stepped("cli; mov rax, cr3; nop", "kernel") == [1, 4, 5]


def test_tf_set_by_popf_interrupts_after_the_next_instruction() -> None:
    bare = Bare()
    bare.user("pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop; pushfq; and dword ptr [rsp], ~0x100; popfq; nop")
    seen: list[int] = []
    bare.on[DB] = lambda frame: seen.append(frame.rip - USER_CODE)
    assert bare.run().name == "int 0x20"
    assert seen == [10, 11, 12, 19, 20]


def test_handlers_are_not_stepped() -> None:
    bare = Bare()
    bare.user("nop; int 0x80; nop")
    bare.on[0x80] = lambda _: None
    bare.on[DB] = lambda _: None
    bare.cpu.rflags |= TF
    bare.run()
    assert [(frame.name, frame.rip - USER_CODE) for frame in bare.frames] == [
        ("#DB", 1),
        ("int 0x80", 3),
        ("#DB", 4),
        ("int 0x20", 6),
    ]


def test_int1_is_not_stepped_beside_its_own_trap() -> None:
    bare = Bare()
    bare.user(b"\x90\xf1\x90")
    bare.on[DB] = lambda _: None
    bare.cpu.rflags |= TF
    assert bare.run().name == "int 0x20"
    assert [frame.rip - USER_CODE for frame in bare.frames] == [1, 2, 3, 5]
    assert bare.machine.retired(3)[0] == 4


def test_a_stepped_instruction_counts_once() -> None:
    bare = Bare()
    bare.user("1: inc eax; rep stosb; dec ebx; jnz 1b")
    bare["rdi"], bare["rcx"], bare["rbx"] = STACK_TOP - 64, 5, 3
    bare.on[DB] = lambda _: None
    bare.cpu.rflags |= TF
    bare.run()
    assert bare.machine.retired(3) == (3 * 4 + 1, 0, 5)


# --- external interrupts --------------------------------------------------------------------------------------

TIMER = 0x30


def test_the_timer_interrupts_between_instructions() -> None:
    bare = Bare()
    bare.user("1: inc rax; jmp 1b")
    bare.cpu.rflags |= IF
    bare.machine.set_timer(10_000, TIMER)
    frame = bare.run()
    assert (frame.name, frame.cs) == (f"int {TIMER:#x}", USER_CS)
    assert frame.rip in (USER_CODE, USER_CODE + 3)
    assert not frame.rflags & RF


def test_the_timer_waits_for_if() -> None:
    bare = Bare()
    bare.user("mov ecx, 100000; 1: dec ecx; jnz 1b")
    bare.machine.set_timer(1000, TIMER)
    assert bare.run().name == "int 0x20"


@pytest.mark.parametrize("opening", ["sti; nop", "pushfq; or dword ptr [rsp], 0x200; popfq"])
def test_the_timer_fires_as_soon_as_the_kernel_allows_it(opening: str) -> None:
    bare = Bare()
    bare.kernel(f"mov ecx, 100000; 1: dec ecx; jnz 1b; {opening}; mov ebx, 1; mov ebx, 2")
    bare["rsp"] = RSP0
    bare.machine.set_timer(1000, TIMER)
    assert bare.run().name == f"int {TIMER:#x}"
    assert bare["rbx"] == 0


def test_the_instruction_after_sti_is_still_protected() -> None:
    """SDM Vol. 2B, STI: so that `sti; ret` cannot overflow the stack."""
    bare = Bare()
    bare.kernel("mov ecx, 100000; 1: dec ecx; jnz 1b; sti; inc ebx; inc ebx")
    bare["rsp"] = RSP0
    bare.machine.set_timer(1000, TIMER)
    assert bare.run().name == f"int {TIMER:#x}"
    assert bare["rbx"] == 1


def test_hlt_waits_for_the_timer() -> None:
    bare = Bare()
    bare.kernel("sti; hlt; mov ebx, 1")
    bare["rsp"] = RSP0
    bare.machine.set_timer(1_000_000, TIMER)
    before = bare.machine.clock.now
    frame = bare.run()
    assert (frame.name, frame.rip, bare["rbx"]) == (f"int {TIMER:#x}", KERNEL_CODE + 2, 0)
    assert bare.machine.clock.now - before >= 1_000_000


def test_every_vector_has_its_own_gate() -> None:
    bare = Bare()
    vectors = [vector for vector in range(32, 256) if vector != END]
    bare.on = dict.fromkeys(vectors, lambda _: None)
    bare.user("; ".join(f"int {vector}" for vector in vectors))
    bare.run()
    assert [frame.vector for frame in bare.frames] == [*vectors, END]
