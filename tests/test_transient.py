"""What a transient window leaves behind, and what it does not (Lipp et al., Meltdown, 2018; emu/window.py).

A user program loads a byte that only the supervisor may read, and uses it as an index before the fault arrives. The
page that it touched is in the DTLB afterwards, so the DTLB tells the byte. Nothing else does.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from bare import KERNEL, SKYLAKE, USER, Bare
from transient_programs import forbidden_program

from emu import Machine
from emu.assembler import assemble_source
from emu.cache_state import CacheLevel, CacheUse
from emu.events import CacheFill, TransientEvent
from emu.pte import ADDRESS_MASK, Pte
from emu.state import TlbKind
from kernel import Kernel
from lab.event_text import describe

SECRET_FRAME, SECRET = 0x20_0000, 0x2A
ARRAY, PAGES = 0x100_0000, 64
USED = USER | Pte.A | Pte.D
STEAL = f"mov rcx, {KERNEL + SECRET_FRAME:#x}; mov rbx, {ARRAY:#x}; xor eax, eax; mov al, [rcx]"
TOUCH = "shl rax, 12; mov rdx, [rbx + rax]"
FIXED = replace(SKYLAKE, vulnerabilities=replace(SKYLAKE.vulnerabilities, meltdown=False))


class Bench:
    """A machine with a secret in the kernel's memory and an array of pages."""

    def __init__(self, cpu: object = SKYLAKE, *, flags: Pte = USED, **options: object) -> None:
        self.bare = Bare(cpu, transient=True, **options)  # type: ignore[arg-type]
        self.bare.ram.write(SECRET_FRAME, bytes([SECRET]))
        self.frames = [self.bare.map(ARRAY + page * 4096, flags=flags) for page in range(PAGES)]
        self.address = KERNEL + SECRET_FRAME
        self.events: list[TransientEvent] = []
        self.bare.machine.events.on("transient", self.events.append)

    def run(self, code: str) -> set[int]:
        """Execute up to the fault; returns which pages of the array have a translation then."""
        self.bare.user(code.replace("; ", "\n"))
        frame = self.bare.run()
        assert (frame.name, frame.cr2) == ("#PF", self.address)
        held = {entry.va for entry in self.bare.machine.mmu.entries(TlbKind.DTLB)}
        return {page for page in range(PAGES) if ARRAY + page * 4096 in held}

    @property
    def end(self) -> str:
        """What closed the last window."""
        return self.events[-1].end


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_a_forbidden_byte_selects_the_page_that_is_touched_and_nothing_else_shows_it(engine: str) -> None:
    bench = Bench(engine=engine)
    assert bench.run(f"{STEAL}; {TOUCH}; mov qword ptr [rbx], 5; add rdx, [rbx]; fldpi; movq xmm0, rax") == {0, SECRET}
    bare = bench.bare
    assert (bare["rax"], bare["rdx"], bare["rbx"]) == (0, 0, ARRAY)
    assert bare.cpu.fpu.fxsave() == Bench().bare.cpu.fpu.fxsave()
    assert bare.ram.load64(bench.frames[0]) == 0
    assert bare.faults == [(KERNEL + SECRET_FRAME, 5)]
    assert bare.machine.retired(3) == (3, 0, 0)
    (event,) = bench.events
    assert (event.cause, event.rip, event.address) == ("fault", bare.last.rip, KERNEL + SECRET_FRAME)
    assert (event.instructions, event.loads, event.stores, event.end) == (8, 3, 1, "fault")  # INT is the fault
    assert describe(event).endswith(": 8 instructions, 3 loads, 1 stores, 0 fills, ended by fault")
    assert bare.machine.transient is not None
    statistics = bare.machine.transient.statistics()
    assert (statistics["windows"]["fault"], statistics["loads"], statistics["stores"]) == (1, 3, 1)


def test_a_part_that_checks_in_time_gives_nothing() -> None:
    for cpu in (FIXED, "zen2"):
        bench = Bench(cpu)
        assert bench.run(f"{STEAL}; {TOUCH}") == set()
        assert bench.events == []


def test_a_page_that_is_not_present_gives_nothing() -> None:
    bench = Bench()
    bench.bare.unmap(KERNEL + SECRET_FRAME)
    assert bench.run(f"{STEAL}; {TOUCH}") == set()
    assert bench.events == []


def test_instructions_that_wait_for_all_earlier_ones_end_the_window() -> None:
    for barrier in ("lfence", "mfence", "cpuid", "rdtscp", "lock inc qword ptr [rsp]", "xchg [rsp], rdx", "syscall"):
        bench = Bench()
        assert bench.run(f"{STEAL}; {barrier}; {TOUCH}") == set(), barrier
        assert bench.end == "serializing", barrier
    for other in ("sfence", "nop", "pause", "rdtsc; xor eax, eax; mov al, [rcx]", "clflush [rsp]"):
        assert Bench().run(f"{STEAL}; {other}; {TOUCH}") == {SECRET}, other


def test_a_fault_inside_ends_the_window_and_is_never_delivered() -> None:
    for fault in ("ud2", "xor edx, edx; div edx", "int3", "hlt", "mov rdx, [0]", "jmp rax", "mov [rcx], al"):
        bench = Bench()
        assert bench.run(f"{STEAL}; {fault}; {TOUCH}") == set(), fault
        assert bench.end == "fault", fault
        assert len(bench.bare.frames) == 1


def test_the_window_is_as_long_as_the_reorder_buffer() -> None:
    size = SKYLAKE.out_of_order.reorder_buffer
    for fits in (True, False):
        bench = Bench()
        fillers = size - 3 + (not fits)  # besides the load that faults, the shift and the load that tells
        assert bench.run(f"{STEAL}; .rept {fillers}; nop; .endr; {TOUCH}; 1: jmp 1b") == ({SECRET} if fits else set())
        assert (bench.end, bench.events[0].instructions) == ("capacity", size)


def test_stores_stay_in_the_store_buffer_where_later_loads_find_them() -> None:
    size = SKYLAKE.out_of_order.store_buffer
    again = "shl rax, 12; mov [rbx + 8], rax; mov rdx, [rbx + 8]; mov rdx, [rbx + rdx]"
    assert Bench().run(f"{STEAL}; {again}") == {0, SECRET}
    for fits in (True, False):
        bench = Bench()
        stores = f"mov edx, {size + (not fits)}; 1: mov [rbx], rax; dec edx; jnz 1b"
        assert bench.run(f"{STEAL}; {stores}; {TOUCH}") == ({0, SECRET} if fits else {0})
        assert bench.end == ("fault" if fits else "store_buffer")


def test_a_store_is_seen_under_every_name_of_its_frame() -> None:
    bench = Bench()
    bench.bare.map(0x200_0000, bench.frames[0], USED)
    code = f"{STEAL}; mov rdx, [rbx]; mov esi, 0x2000000; mov rdx, [rsi]; shl rax, 12; mov [rsi], rax; mov rdx, [rbx]"
    assert bench.run(f"{code}; mov rdx, [rbx + rdx]") == {0, SECRET}


def test_accessed_and_dirty_bits_are_set_only_by_what_retires() -> None:
    bench = Bench(flags=USER)
    assert bench.run(f"{STEAL}; {TOUCH}") == set()
    assert bench.end == "fault"
    assert not any(bench.bare.ram.load64(bench.bare.entry(ARRAY + page * 4096)) & Pte.A for page in range(PAGES))
    clean = Bench(flags=USER | Pte.A)
    assert clean.run(f"{STEAL}; shl rax, 12; mov [rbx + rax], rdx") == {SECRET}
    assert not clean.bare.ram.load64(clean.bare.entry(ARRAY + SECRET * 4096)) & Pte.D


def test_code_that_changed_between_two_windows_is_executed_as_it_is_now() -> None:
    bench = Bench()
    for shift, page in ((12, SECRET), (13, 0), (12, SECRET)):
        bench.bare.machine.mmu.invalidate_all(global_too=True)
        bench.bare.cpu.gprs[0] = 0
        assert bench.run(f"{STEAL}; and eax, 31; shl rax, {shift}; mov rdx, [rbx + rax]") == {
            SECRET & 31 if shift == 12 else 2 * (SECRET & 31)
        }, page


def test_data_that_is_not_in_the_l1_data_cache_is_not_forwarded_but_comes_there() -> None:
    bench = Bench(caches=True)
    caches = bench.bare.machine.caches
    assert not caches.holds(CacheLevel.L1D, SECRET_FRAME)
    assert bench.run(f"{STEAL}; {TOUCH}") == {0}
    assert caches.holds(CacheLevel.L1D, SECRET_FRAME)
    assert bench.run(f"{STEAL}; {TOUCH}") == {0, SECRET}
    lines = caches.lines(CacheLevel.L1D)
    assert [page for page, frame in enumerate(bench.frames) if frame in lines] == [0, SECRET]
    careless = replace(SKYLAKE, vulnerabilities=replace(SKYLAKE.vulnerabilities, meltdown_needs_l1d=False))
    assert Bench(careless, caches=True).run(f"{STEAL}; {TOUCH}") == {SECRET}


def test_a_store_that_never_retires_brings_no_line() -> None:
    bench = Bench(caches=True)
    bench.bare.machine.caches.access(SECRET_FRAME, CacheUse.READ)
    assert bench.run(f"{STEAL}; shl rax, 12; mov [rbx + rax], rdx") == {SECRET}  # its translation is there
    assert not bench.bare.machine.caches.lines(CacheLevel.L1D) & set(bench.frames)


def test_a_prefetch_does_not_wait_until_it_retires_and_a_flush_does() -> None:
    bench = Bench(caches=True)
    caches = bench.bare.machine.caches
    other = bench.frames[9] + 0x140  # in another set of the cache
    for pa in (SECRET_FRAME, other):
        caches.access(pa, CacheUse.READ)
    assert bench.run(f"{STEAL}; clflush [rbx + 9 * 4096 + 0x140]; shl rax, 12; prefetcht0 [rbx + rax]") == {SECRET}
    assert caches.lines(CacheLevel.LLC) & {*bench.frames, other} == {bench.frames[SECRET], other}


def test_a_page_that_is_not_present_gives_what_the_l1_data_cache_has_at_its_address() -> None:
    """L1 terminal fault; what Linux does against it is to keep an address that names no memory (kernel/pte.py)."""
    invulnerable = replace(SKYLAKE, vulnerabilities=replace(SKYLAKE.vulnerabilities, l1tf=False))
    absent, inverted = SECRET_FRAME | Pte.U, (SECRET_FRAME ^ ADDRESS_MASK) | Pte.U
    reserved = SECRET_FRAME | USED | 1 << 51
    for cpu, entry, cached, leaks in (
        (SKYLAKE, absent, True, True),
        (SKYLAKE, absent, False, False),
        (SKYLAKE, inverted, True, False),
        (SKYLAKE, reserved, True, False),  # its address is outside memory
        (invulnerable, absent, True, False),
    ):
        bench = Bench(cpu, caches=True)
        bench.address = 0x300_0000
        bench.bare.ram.store64(bench.bare.entry(bench.address), int(entry))
        if cached:
            bench.bare.machine.caches.access(SECRET_FRAME, CacheUse.READ)
        held = bench.run(f"mov ecx, {bench.address}; mov ebx, {ARRAY}; xor eax, eax; mov al, [rcx]; {TOUCH}")
        assert held == ({SECRET} if leaks else set())
        assert len(bench.events) == leaks
        assert bench.bare.machine.caches.holds(CacheLevel.LLC, SECRET_FRAME) == cached


ENDS = f"mov rcx, {KERNEL + SECRET_FRAME:#x}; mov al, [rcx]"
"""The bench waits for this fault; on a part that checks in time it opens no window."""


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_branch_that_waits_for_memory_is_guessed_and_the_wrong_path_leaves_its_translations(is_slow: bool) -> None:
    bench = Bench(FIXED, caches=True)
    flush = "clflush [rbx]; mfence" if is_slow else "nop"
    guessed = f"mov ebx, {ARRAY}; mov byte ptr [rbx], 1; {flush}; cmp byte ptr [rbx], 0; jne 1f"
    assert bench.run(f"{guessed}; mov rdx, [rbx + 7 * 4096]; ud2; 1: {ENDS}") == ({0, 7} if is_slow else {0})
    assert [(event.cause, event.end) for event in bench.events] == ([("branch", "fault")] if is_slow else [])
    assert bench.bare["rdx"] == 0


def test_a_return_is_guessed_to_lead_behind_its_call() -> None:
    bench = Bench(FIXED, caches=True)
    code = "call 1f; mov rdx, [rbx + 5 * 4096]; ud2; 1: lea rdx, [rip + 2f]; mov [rsp], rdx; clflush [rsp]; mfence; ret"
    assert bench.run(f"mov ebx, {ARRAY}; {code}; 2: {ENDS}") == {5}
    assert [(event.cause, event.loads) for event in bench.events] == [("return", 1)]


def test_the_lines_that_a_window_brings_are_told_and_take_no_time() -> None:
    bench = Bench(caches=True)
    bench.bare.machine.caches.access(SECRET_FRAME, CacheUse.READ)
    fills: list[CacheFill] = []
    bench.bare.machine.events.on("cache_fill", fills.append)
    assert bench.run(f"{STEAL}; {TOUCH}") == {SECRET}
    (event,) = bench.events
    (line,) = (fill for fill in fills if fill.pa == bench.frames[SECRET])
    assert (line.cache, line.use, line.cycle) == ("l1d", "read", event.cycle)
    assert event.fills == sum(fill.cycle == event.cycle for fill in fills)
    assert [happened.cycle for happened in fills] == sorted(happened.cycle for happened in fills)


def assert_windows_change_nothing(seed: int, **machine: object) -> int:
    """Run a program with windows and without: output, counts and all of memory are equal. Returns how many opened."""
    image = assemble_source(forbidden_program(seed))
    seen, windows = [], 0
    for transient in (False, True):
        stdout = io.BytesIO()
        ours = Machine(ram="16M", transient=transient, **machine)  # type: ignore[arg-type]
        kernel = Kernel(ours, pti=False, stdout=stdout)
        kernel.spawn(image)
        result = kernel.run()
        memory = ours.ram.words.copy()
        faults = result.stats["faults"]
        seen.append((stdout.getvalue(), result.exit_code, ours.retired(3), ours.retired(0), faults, memory))
        windows = result.stats["transient"]["windows"]["fault"] if transient else 0
        kernel.close()
    (*without, memory), (*with_windows, memory_after) = seen
    assert with_windows == without
    assert np.array_equal(memory, memory_after)
    return windows


@pytest.mark.parametrize("machine", [{"engine": "trap"}, {"engine": "access"}, {"caches": True}])
def test_programs_are_the_same_with_windows_and_without(machine: dict[str, object]) -> None:
    opened = [assert_windows_change_nothing(seed, **machine) for seed in range(8)]
    assert min(opened) >= 16  # each of the forbidden loads


@pytest.mark.slow
@pytest.mark.parametrize("machine", [{"tlb_policy": "lru"}, {"tlb": False}, {"tlb_policy": "fifo"}])
def test_more_programs_are_too(machine: dict[str, object]) -> None:
    for seed in range(100, 140):
        assert_windows_change_nothing(seed, **machine)
