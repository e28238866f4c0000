"""What is counted is exact: instructions, loads and stores, the instruction budget, breakpoints and the clock.

Blocks are counted when they begin, so everything that leaves one in its middle must be taken back. The oracles are
two that know nothing of blocks: the single-step trap, and events for every instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from bare import STACK_TOP, USER_CODE, Bare, Frame
from hypothesis import given, settings
from hypothesis import strategies as st
from native import count_instructions, requires_native
from random_programs import random_program
from random_statements import VALUES, Grammar

from emu import Halt
from emu.assembler import assemble_source
from emu.instruction import MAX_SIZE, Instruction, decode
from emu.pte import PAGE_SIZE, Rflags

AREA, PAGES = 0x50_0000, 4
ENGINES = ("trap", "access")
DB, PF = 1, 14
Counts = tuple[int, int, int]
Registers = tuple[int, ...]


def random_code(seed: int, statements: int = 12) -> str:
    """A random program over AREA that ends, with calls, loops, strings and accesses across pages."""
    random, grammar = Random(seed), Grammar(PAGES)
    lines = [f"mov rbx, {AREA:#x}"]
    lines += [f"mov {name}, {random.getrandbits(64):#x}" for name in VALUES]
    lines += [f"xor {name}, {name}" for name in ("ecx", "esi", "edi", "ebp", "r11d", "r12d")]
    for _ in range(statements):
        lines += grammar.statement(random)
    lines.append("int 0x20")
    for function in grammar.functions:
        lines += function
    return "\n".join(line.split("#")[0].replace("syscall", "nop") for line in lines)


def prepared(code: str, *, lazy: bool = False, **options: object) -> Bare:
    """A machine about to execute `code`; `lazy` pages of data appear when they are touched."""
    bare = Bare(**options)  # type: ignore[arg-type]
    frames = {page: bare.map(page) for page in range(AREA, AREA + PAGES * PAGE_SIZE, PAGE_SIZE)}
    for page in range(2, 10):
        bare.map(STACK_TOP - page * PAGE_SIZE)
    if lazy:
        for page in frames:
            bare.unmap(page)
        bare.on[PF] = lambda frame: bare.map(frame.cr2 & ~0xFFF, frames[frame.cr2 & ~0xFFF])
    bare.user(code)
    return bare


def counted(bare: Bare) -> Counts:
    """Run to the end, and say what the user's mode retired."""
    assert bare.run().name == "int 0x20"
    return bare.machine.retired(3)


def instruction_at(bare: Bare, va: int) -> Instruction:
    """What is at an address now."""
    found = decode(bare.cpu.code_at(va, MAX_SIZE))
    assert found is not None
    return found


def registers(bare: Bare) -> Registers:
    """General registers and RIP."""
    return (*bare.cpu.gprs[:16], bare.cpu.rip)


# --- the oracles ----------------------------------------------------------------------------------------------


def single_stepped(bare: Bare) -> list[Registers]:
    """Run with TF set; the registers after each instruction (a REP is one, and INT ends the program)."""
    states: list[Registers] = []
    current, va, is_unfinished = instruction_at(bare, bare.cpu.rip), bare.cpu.rip, False

    def note(frame: Frame) -> None:
        nonlocal current, va, is_unfinished
        if is_unfinished:
            del states[-1]
        states.append((*bare.cpu.gprs[:4], frame.rsp, *bare.cpu.gprs[5:16], frame.rip))
        is_unfinished = current.rep and frame.rip == va
        current, va = instruction_at(bare, frame.rip), frame.rip

    bare.on[DB] = note
    bare.cpu.rflags |= Rflags.TF
    assert bare.run().name == "int 0x20"
    return states


def told(bare: Bare) -> Counts:
    """Run with a listener for every instruction, and add up what the manual says of each that did not fault."""
    executed: list[tuple[int, Instruction, int]] = []
    faults: list[int] = []

    @bare.machine.events.on("instruction")
    def note(event: object) -> None:
        if event.cpl == 3:  # type: ignore[attr-defined]
            va = event.va  # type: ignore[attr-defined]
            executed.append((va, instruction_at(bare, va), bare.cpu.gprs[1]))

    @bare.machine.events.on("exception")
    def fault(event: object) -> None:
        faults.append(len(executed) - 1)

    assert bare.run().name == "int 0x20"
    instructions = reads = writes = 0
    for number, (_, one, rcx) in enumerate(executed):
        again = number in faults
        instructions += not again
        times = 0 if again else 1
        if one.rep:
            after = executed[number + 1][2]
            times = rcx - after
        reads += times * one.reads
        writes += times * one.writes
    return instructions, reads, writes


# --- instructions, loads and stores ---------------------------------------------------------------------------

PROGRAMS: dict[str, str] = {
    "straight": "mov eax, [rbx]; add [rbx], eax; push rax; pop rcx; nop",
    "loop": "mov ecx, 100; 1: add [rbx], rcx; dec ecx; jnz 1b",
    "calls": "mov ecx, 9; 1: call 2f; dec ecx; jnz 1b; jmp 3f; 2: push rbp; mov rbp, rsp; leave; ret; 3: nop",
    "crossing": "mov rax, [rbx + 4093]; mov [rbx + 8187], rax; add [rbx + 4095], rax",
    "rep of nothing": "xor ecx, ecx; rep movsb; rep stosq; repe cmpsb",
    "rep once": "mov rsi, rbx; mov rdi, rbx; mov ecx, 1; rep movsb",
    "rep": f"mov rsi, rbx; lea rdi, [rbx + {PAGE_SIZE}]; mov ecx, 600; rep movsq",
    "rep that ends early": "mov rdi, rbx; mov byte ptr [rbx + 50], 7; mov al, 7; mov ecx, 100; repne scasb",
    "rep in a loop": "mov edx, 5; 1: mov rdi, rbx; mov ecx, edx; rep stosd; dec edx; jnz 1b",
    "one rep after another": "mov rdi, rbx; mov ecx, 7; rep stosb; mov ecx, 3; rep stosd; xor ecx, ecx; rep stosb",
    "rep jumped to": "mov rdi, rbx; mov ecx, 3; jmp 1f; nop; 1: rep stosb; mov ecx, 2; dec edx; cmp edx, -3; jne 1b",
    "model's": "pushfq; popfq; mov eax, cs; pushfq; add rsp, 8; mov ecx, 3; 1: pushfq; pop rax; loop 1b",
    "vectors": "movups xmm0, [rbx + 1]; movups [rbx + 40], xmm0; fld qword ptr [rbx]; fstp qword ptr [rbx + 8]",
    "atomics": "lock add [rbx], rax; xchg [rbx], rax; lock cmpxchg [rbx], rcx; lock xadd [rbx], rdx",
    "system calls of a sort": "int 0x80; nop; int 0x80; mov eax, [rbx]",
    "cpuid and time": "cpuid; mov rbx, 0x500000; rdtsc; mov [rbx], eax; rdtscp; mov [rbx], edx",
}


def with_calls(bare: Bare) -> Bare:
    """Let `int 0x80` return."""
    bare.on[0x80] = lambda _: None
    return bare


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lazy", [False, True], ids=["mapped", "on demand"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_counts_are_what_the_manual_adds_up_to(name: str, lazy: bool, engine: str) -> None:
    code = f"mov rbx, {AREA:#x}; {PROGRAMS[name]}"
    expected = told(with_calls(prepared(code, lazy=lazy)))
    assert counted(with_calls(prepared(code, lazy=lazy, engine=engine))) == expected


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_many_instructions_retire_as_single_steps_are_made(name: str) -> None:
    code = f"mov rbx, {AREA:#x}; {PROGRAMS[name]}"
    steps = len(single_stepped(with_calls(prepared(code))))
    software = PROGRAMS[name].count("int 0x80")  # they clear TF on their way, and are seen after IRET only
    assert counted(with_calls(prepared(code)))[0] == steps + 1 + software


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_count_the_same_however_they_are_run(seed: int) -> None:
    code = random_code(seed)
    expected = told(prepared(code))
    assert expected[0] == len(single_stepped(prepared(code))) + 1
    for engine in ENGINES:
        for lazy in (False, True):
            assert counted(prepared(code, lazy=lazy, engine=engine)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 180))
def test_many_random_programs_count_the_same_however_they_are_run(seed: int) -> None:
    test_random_programs_count_the_same_however_they_are_run(seed)


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("seed", range(4))
def test_the_processor_itself_counts_the_same(seed: int, make_kernel: Callable[..., object]) -> None:
    source = random_program(seed, pages=4, size=15)
    kernel = make_kernel()
    process = kernel.spawn(assemble_source(source))  # type: ignore[attr-defined]
    kernel.run(until="memory")  # type: ignore[attr-defined]
    assert process.instructions == count_instructions(source, until="memory")


# --- code that writes code ------------------------------------------------------------------------------------

SELF_MODIFYING = {
    "itself": "lea rdi, [rip + 1f]; mov rax, [rdi]; 1: mov [rdi], rax; nop; mov ecx, 3; 2: mov [rdi], rax; loop 2b",
    "itself, before a jump": "lea rdi, [rip + 1f]; mov rax, [rdi]; 1: mov [rdi], rax; jmp 2f; nop; 2: nop",
    "itself, and what it reads": "lea rdi, [rip + 1f]; xor eax, eax; mov ecx, 4; 1: add [rdi], eax; dec ecx; jnz 1b",
    "itself again": "lea rdi, [rip + 1f]; mov rax, [rdi]; mov ecx, 5; jmp 1f; 1: mov [rdi], rax; dec ecx; jnz 1b",
    "the stack on the code": "lea rsp, [rip + 2f]; call 1f; 1: push rax; pop rax; add rsp, 8; jmp 2f; .skip 64; 2: nop",
    "the next instruction": "mov byte ptr [rip + 1f + 1], 5; 1: mov al, 1; nop",
    "later in the block": "mov byte ptr [rip + 1f + 1], 5; nop; nop; 1: mov al, 1; mov ecx, eax",
    "with another size": "mov byte ptr [rip + 1f + 4], 0x90; mov dword ptr [rip + 1f], 0x909005b0; 1: mov eax, 1",
    "before itself": "xor edx, edx; 1: mov al, 1; inc edx; mov byte ptr [rip + 1b + 1], 7; cmp edx, 3; jne 1b",
    "a rep": "mov ecx, 3; mov rdi, rsp; sub rdi, 64; mov word ptr [rip + 1f], 0xaaf3; 1: nop; nop; nop",
    "by a rep": "lea rdi, [rip + 1f]; mov al, 0x90; mov ecx, 4; rep stosb; 1: inc ebx; inc ebx; nop",
    "by a call": "lea rdi, [rip + 1f]; call 2f; 1: inc ebx; jmp 3f; 2: mov word ptr [rdi], 0x9090; ret; 3: nop",
    "a loop": "mov ecx, 20; lea rdi, [rip + 1f + 1]; 1: mov al, 0; inc byte ptr [rdi]; add edx, eax; loop 1b",
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SELF_MODIFYING)
def test_code_that_writes_itself_counts_what_it_executes(name: str, engine: str) -> None:
    code = SELF_MODIFYING[name]
    states = single_stepped(prepared(code))
    bare = prepared(code, engine=engine)
    assert counted(bare)[0] == len(states) + 1
    assert (bare["rax"], bare["rbx"], bare["rcx"], bare["rdx"]) == (states[-1][0], states[-1][3], *states[-1][1:3])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", [1, 2, 5, 50])
def test_a_rep_that_writes_over_itself_counts_its_iterations_once(number: int, engine: str) -> None:
    """It writes what is there already."""
    bare = prepared("rep movsb; nop", engine=engine)
    bare["rsi"], bare["rdi"], bare["rcx"] = USER_CODE, USER_CODE, number
    assert counted(bare) == (3, number, number)


@pytest.mark.parametrize("engine", ENGINES)
def test_code_can_be_written_through_another_page(engine: str) -> None:
    bare = prepared("1: mov al, 1; inc ecx; mov byte ptr [rbx], 9; cmp ecx, 3; jne 1b; nop", engine=engine)
    bare.map(0x60_0000, bare.physical(USER_CODE))
    bare["rbx"] = 0x60_0000 + USER_CODE % PAGE_SIZE + 1
    assert counted(bare) == (3 * 5 + 2, 0, 3)
    assert bare["rax"] & 0xFF == 9


# --- the instruction budget -----------------------------------------------------------------------------------


def budgeted(bare: Bare, number: int) -> Halt:
    """Run until `number` instructions have retired since power-on."""
    bare.machine.max_instructions = number
    return bare.machine.run()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_stopping_after_every_number_of_instructions_is_single_stepping(seed: int, engine: str) -> None:
    code = random_code(seed, 6)
    states = single_stepped(prepared(code))
    bare = prepared(code, engine=engine)
    for number, state in enumerate(states, start=1):
        assert budgeted(bare, number) is Halt.INSTRUCTION_LIMIT
        assert (bare.machine.state.instructions, registers(bare)) == (number, state)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 20), first=st.integers(1, 400), second=st.integers(1, 400))
def test_a_budget_stops_exactly_wherever_it_ends(seed: int, first: int, second: int) -> None:
    code = random_code(seed, 6)
    states = single_stepped(prepared(code))
    bare = prepared(code)
    for number in sorted((first, second)):
        if number <= len(states):
            assert budgeted(bare, number) is Halt.INSTRUCTION_LIMIT
            assert registers(bare) == states[number - 1]


def test_a_spent_budget_executes_nothing() -> None:
    bare = prepared("inc eax; inc eax")
    budgeted(bare, 1)
    assert budgeted(bare, 1) is Halt.INSTRUCTION_LIMIT
    assert (bare["rax"], bare.cpu.rip) == (1, USER_CODE + 2)


def test_a_budget_may_end_among_the_kernels_instructions() -> None:
    bare = with_calls(prepared("nop; int 0x80; nop"))
    seen = []
    for number in range(1, 7):
        budgeted(bare, number)
        seen.append((bare.machine.cpl, bare.machine.state.instructions))
    assert seen == [(3, 1), (0, 2), (0, 3), (3, 4), (3, 5), (0, 6)]


REP_FOREVER = "mov rdx, rdi; 1: mov rdi, rdx; mov ecx, 4096; rep stosb; mov rdi, rdx; mov ecx, 4096; rep stosb; jmp 1b"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("limit", [100_000, 1 << 20, 3_000_000])
def test_a_budget_of_instructions_is_also_one_of_iterations(limit: int, engine: str) -> None:
    """A REP is one instruction, and may have 2 ** 64 iterations. It is stopped between two of them."""
    bare = prepared(REP_FOREVER, engine=engine)
    bare["rdi"] = AREA
    assert budgeted(bare, limit) is Halt.INSTRUCTION_LIMIT
    allowed = max(limit, 1 << 20)
    instructions, _, stores = bare.machine.retired(3)
    assert stores == allowed
    done = (stores - 1) % 4096 + 1
    assert (bare["rcx"], bare["rdi"]) == (4096 - done, AREA + done)
    assert instructions < 7 * (stores // 8192 + 1)


def test_a_rep_that_was_stopped_goes_on_and_counts_once() -> None:
    bare = prepared(f"mov ecx, {3 << 20}; std; rep lodsb; nop")
    bare["rsi"] = (16 << 20) - 1
    for page in range(13 << 20, 16 << 20, PAGE_SIZE):
        bare.map(page, bare.physical(AREA))
    assert budgeted(bare, 1000) is Halt.INSTRUCTION_LIMIT
    assert (bare.machine.retired(3)[0], bare["rcx"]) == (2, 2 << 20)
    bare.machine.max_instructions = 1 << 30
    assert counted(bare) == (5, 3 << 20, 0)


# --- breakpoints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(4))
def test_a_breakpoint_before_every_instruction_changes_nothing(seed: int, engine: str) -> None:
    code = random_code(seed, 4)
    states = single_stepped(prepared(code))
    expected = counted(prepared(code))
    bare = prepared(code, engine=engine)
    addresses = {state[-1] for state in states}
    bare.machine.stop_before(*addresses)
    seen = []
    while bare.machine.run() is Halt.BREAKPOINT:
        seen.append(registers(bare))
        assert bare.machine.retired(3)[0] == len(seen)
    assert seen == states
    assert bare.machine.retired(3) == expected


def test_a_breakpoint_stops_each_time_around() -> None:
    bare = prepared("mov ecx, 3; 1: dec ecx; jnz 1b")
    bare.machine.stop_before(USER_CODE + 5)
    seen = []
    while bare.machine.run() is Halt.BREAKPOINT:
        seen.append(bare["rcx"])
    assert seen == [3, 2, 1]


def test_a_breakpoint_at_a_rep_stops_once() -> None:
    bare = prepared(f"mov rdi, {AREA}; mov ecx, 5; rep stosb; nop")
    bare.machine.stop_before(USER_CODE + 12)
    assert bare.machine.run() is Halt.BREAKPOINT
    assert bare["rcx"] == 5
    assert bare.machine.run() is Halt.STOPPED
    assert bare.machine.retired(3) == (5, 0, 5)


def test_breakpoints_are_invisible_to_the_tlbs_wherever_they_are() -> None:
    code = random_code(3)
    plain, watched = prepared(code), prepared(code)
    watched.machine.stop_before(0x1234_5000, AREA, USER_CODE + 0x9000)
    assert counted(plain) == counted(watched)
    for name in ("misses", "walks_by", "entry_reads", "evictions"):
        assert list(getattr(plain.machine.state, name)) == list(getattr(watched.machine.state, name))


def test_a_listener_hears_of_an_instruction_at_a_breakpoint_once() -> None:
    bare = prepared("nop; nop; nop")
    seen: list[int] = []
    bare.machine.events.on("instruction", lambda event: seen.append(event.va))
    bare.machine.stop_before(USER_CODE + 1)
    bare.machine.run()
    assert seen == [USER_CODE]
    bare.machine.run()
    assert seen[:4] == [USER_CODE + n for n in range(4)]


def test_a_breakpoint_may_lie_where_nothing_is_mapped_yet() -> None:
    bare = prepared("mov rbx, 0x600000; jmp rbx")
    bare.machine.stop_before(0x60_0000)
    bare.on[PF] = lambda _: bare.put("int 0x20", 0x60_0000)
    assert bare.machine.run() is Halt.BREAKPOINT
    assert (bare.cpu.rip, len(bare.frames), bare.machine.retired(3)[0]) == (0x60_0000, 1, 2)


# --- time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_the_clock_sum_to_the_total(seed: int, engine: str) -> None:
    bare = prepared(random_code(seed), lazy=True, engine=engine)
    counted(bare)
    assert sum(bare.machine.clock.by_cause().values()) == bare.machine.clock.now


@pytest.mark.parametrize("seed", range(5))
def test_time_is_the_same_in_both_engines(seed: int) -> None:
    code = random_code(seed)
    clocks = []
    for engine in ENGINES:
        bare = prepared(code, lazy=True, engine=engine)
        counted(bare)
        clocks.append(bare.machine.clock.by_cause())
    assert clocks[0] == clocks[1]


@pytest.mark.parametrize("before", [0, 1, 2, 3, 17])
@pytest.mark.parametrize("after", [0, 1, 40])
def test_a_time_stamp_in_the_middle_of_a_block_knows_nothing_of_the_rest(before: int, after: int) -> None:
    code = "nop; " * before + "rdtsc; " + "nop; " * after + "mov ecx, eax"
    bare = prepared(code)
    budgeted(bare, before + 1)
    stopped = bare["rax"]
    assert stopped == bare.machine.clock.now
    whole = prepared(code)
    counted(whole)
    assert whole["rcx"] == stopped


def test_an_access_across_pages_counts_once() -> None:
    for offset in range(PAGE_SIZE - 9, PAGE_SIZE + 1):
        bare = prepared("mov rax, [rbx]; mov [rbx], rax")
        bare["rbx"] = AREA + offset
        assert counted(bare) == (3, 1, 1)


@dataclass(frozen=True)
class Seen:
    """An access event, as far as it matters here."""

    kind: str
    va: int
    size: int


def test_access_events_are_the_accesses() -> None:
    """One event for 8 bytes or less; a 16-byte operand is two."""
    bare = prepared("mov rax, [rbx]; add [rbx + 8], al; push rax; pop rcx; movups xmm0, [rbx + 1]; rep stosb")
    bare["rbx"], bare["rdi"] = AREA, AREA + 100
    seen: list[Seen] = []
    bare.machine.events.on(
        "access", lambda event: event.cpl == 3 and seen.append(Seen(event.kind, event.va, event.size))
    )
    counted(bare)
    assert seen == [
        Seen("read", AREA, 8),
        Seen("read", AREA + 8, 1),
        Seen("write", AREA + 8, 1),
        Seen("write", STACK_TOP - 8, 8),
        Seen("read", STACK_TOP - 8, 8),
        Seen("read", AREA + 1, 8),
        Seen("read", AREA + 9, 8),
    ]
