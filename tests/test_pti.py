"""Page-table isolation: what user mode can reach, what the kernel still can, and what it costs in writes of CR3.

Facts: arch/x86/mm/pti.c, arch/x86/entry/calling.h, Documentation/arch/x86/pti.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from conftest import Ended, MakeKernel, RunImage
from signal_programs import signal_program
from small_programs import small_program

from emu import Machine, TripleFault
from emu.assembler import assemble, assemble_source
from emu.image import Image
from emu.pte import ADDRESS_MASK, PAGE_SIZE, ErrorCode, Pte
from kernel import Kernel, KernelPanic, consistency
from kernel.events import PageFaultEvent
from kernel.layout import (
    CPU_ENTRY_AREA,
    DF_STACK_VA,
    DIRECT_MAP,
    ENTRY_STACK_VA,
    GDT_VA,
    IDT_VA,
    TSS_VA,
    VMEMMAP,
)
from kernel.pti import inconsistencies
from lab.session import Options, Session

PROGRAMS = Path(__file__).parent.parent / "programs"
SIGSEGV = 11


def small(body: str) -> Image:
    return assemble_source(small_program(body))


@pytest.mark.parametrize(("cpu", "pti"), [("skylake", True), ("broadwell", True), ("haswell", True), ("zen2", False)])
def test_by_default_a_processor_is_isolated_if_meltdown_works_on_it(cpu: str, pti: bool) -> None:
    session = Session(Options(programs=(str(PROGRAMS / "hello.asm"),), cpu=cpu))
    assert session.pti is session.kernel.manager.kernel_half.isolated is pti
    session.kernel.close()


# --- two writes of CR3 a system call ------------------------------------------------------------------------------

CALLS = """
_start: mov ebx, {count}
1:      mov eax, 39; syscall; dec ebx; jnz 1b
        xor edi, edi; mov eax, 60; syscall"""


def cr3_writes(make_kernel: MakeKernel, count: int, **options: Any) -> dict[str, int]:
    kernel = make_kernel(**options)
    kernel.spawn(assemble_source(CALLS.format(count=count)))
    writes: dict[str, int] = kernel.run().stats["cr3_writes"]
    return writes


def per_call(make_kernel: MakeKernel, **options: Any) -> dict[str, float]:
    few, many = cr3_writes(make_kernel, 100, **options), cr3_writes(make_kernel, 300, **options)
    return {kind: (many[kind] - few[kind]) / 200 for kind in many}


def test_without_isolation_a_system_call_leaves_cr3_alone(make_kernel: MakeKernel) -> None:
    assert per_call(make_kernel, pti=False) == {"flush": 0, "noflush": 0}


def test_with_pcids_a_system_call_writes_cr3_twice_and_flushes_nothing(make_kernel: MakeKernel) -> None:
    assert per_call(make_kernel, pti=True) == {"flush": 0, "noflush": 2}


def test_without_pcids_both_writes_flush(make_kernel: MakeKernel) -> None:
    assert per_call(make_kernel, pti=True, pcid=False) == {"flush": 2, "noflush": 0}


FAULTS = """
    .bss
    .balign 4096
memory: .zero 400 * 4096
    .text
_start: lea rbx, [rip + memory]; mov ecx, {count}
1:      mov byte ptr [rbx], 1; add rbx, 4096; dec ecx; jnz 1b
        xor edi, edi; mov eax, 60; syscall"""
TICKS = "_start: mov rcx, {count} * 6700000; 1: dec rcx; jnz 1b; xor edi, edi; mov eax, 60; syscall"


@pytest.mark.parametrize(("program", "some"), [(FAULTS, 10), (TICKS, 2)], ids=["exceptions", "interrupts"])
@pytest.mark.parametrize(
    ("options", "writes"),
    [
        ({"pti": False}, {"flush": 0, "noflush": 0}),
        ({"pti": True}, {"flush": 0, "noflush": 2}),
        ({"pti": True, "pcid": False}, {"flush": 2, "noflush": 0}),
    ],
    ids=["off", "PCID", "no PCID"],
)
def test_exceptions_and_interrupts_write_cr3_on_their_way_in_and_out_too(
    program: str, some: int, options: dict[str, Any], writes: dict[str, int], make_kernel: MakeKernel
) -> None:
    """A page fault for each new page; a timer interrupt after every 4 ms of arithmetic."""

    def counted(count: int) -> tuple[dict[str, int], int]:
        kernel = make_kernel(**options)
        entries = []
        kernel.on("mode_switch", lambda event: entries.append(event.cpl == 0))
        kernel.spawn(assemble_source(program.format(count=count)))
        return kernel.run().stats["cr3_writes"], sum(entries)

    (few, entered_few), (many, entered_many) = counted(some), counted(3 * some)
    entries = entered_many - entered_few
    assert entries >= 2 * (some // 2)
    assert {kind: many[kind] - few[kind] for kind in many} == {kind: entries * n for kind, n in writes.items()}


BAD_RETURN = "handle SIGSEGV, handler; handle SIGUSR1, spoil; raise SIGUSR1; show 1"
SPOIL = """
spoil:   mov rax, 0x8000000000000000; mov [rdx + UC_RIP], rax; ret     # no canonical address: IRET refuses it
handler: show [rsi + SI_CODE]; mov edi, 5; mov eax, EXIT; syscall"""


@pytest.mark.parametrize("options", [{"pti": False}, {"pti": True}, {"pti": True, "pcid": False}])
def test_a_return_that_the_processor_refuses_finds_the_kernels_page_tables_again(
    options: dict[str, Any], run_image: RunImage
) -> None:
    """The fault is the kernel's, at its last instruction, when CR3 and GS are the user's already (fixup_bad_iret)."""
    ended = run_image(assemble_source(signal_program(BAD_RETURN, SPOIL)), **options)
    assert (ended.stdout, ended.result.exit_code) == (b"0000000000000080\n", 5)


# --- what user mode can reach -------------------------------------------------------------------------------------


def test_without_isolation_kernel_pages_are_global_and_with_it_only_the_trampoline_is(make_kernel: MakeKernel) -> None:
    def is_global(kernel: Kernel, va: int) -> bool:
        leaf = kernel.page_walk(kernel.processes[0], va).steps[-1].entry
        return bool(leaf & Pte.G)

    for pti in (False, True):
        kernel = make_kernel(pti=pti)
        kernel.spawn(small("nop"))
        others = [DIRECT_MAP, VMEMMAP, kernel.processes[0].stack.bottom, min(kernel.text.functions)]
        assert [is_global(kernel, va) for va in others] == [not pti] * len(others)
        assert all(is_global(kernel, va) for va in (IDT_VA, ENTRY_STACK_VA, *kernel.text.entry))


def mapped(kernel: Kernel, table: int, level: int = 4, base: int = 0) -> Iterator[int]:
    """Every 4 KiB page of the kernel half that a PGD maps."""
    ram = kernel.machine.ram
    for index in range(256 if level == 4 else 0, 512):
        entry, va = ram.load64(table + 8 * index), base + (index << 3 + 9 * level)
        if not entry & 1:
            continue
        if level == 1 or (entry & 0x80 and level < 4):
            yield from range(va, va + (1 << 3 + 9 * level), PAGE_SIZE)
        else:
            yield from mapped(kernel, entry & ADDRESS_MASK, level - 1, va)


def kernel_pages(kernel: Kernel, pgd: int) -> set[int]:
    return {va | 0xFFFF_0000_0000_0000 for va in mapped(kernel, pgd)}


def test_user_mode_sees_nothing_of_the_kernel_but_the_trampoline(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(pti=True)
    process = kernel.spawn(small("nop"))
    seen = kernel_pages(kernel, process.mm.page_table.user_pgd)
    stacks = {va for va in seen if va >= CPU_ENTRY_AREA + 6 * PAGE_SIZE and va < CPU_ENTRY_AREA + 8 * PAGE_SIZE}
    assert seen - stacks == {IDT_VA, GDT_VA, ENTRY_STACK_VA, TSS_VA, kernel.percpu, *kernel.text.entry}
    everything = kernel_pages(kernel, process.mm.page_table.pgd)
    assert seen < everything
    assert len(everything) > kernel.frames.total  # the direct map, at least


LOADS = """
    handle SIGSEGV, handler
    lea rbx, [rip + table]; mov r12d, {count}; xor r13d, r13d
1:  mov rax, [rbx]
    mov al, [rax]                               # two bytes of code, which the handler skips
    add rbx, 8; dec r12d; jnz 1b
    mov rdi, r13; sub rdi, {count}; mov eax, EXIT; syscall
    .data
table: .quad {pages}
    .text"""
SKIP = "handler: inc r13; mov [rdx + UC_R8 + 40], r13; add qword ptr [rdx + UC_RIP], 2; ret"


@pytest.mark.parametrize("pti", [False, True])
def test_a_load_from_any_kernel_page_is_refused_and_with_isolation_there_is_next_to_nothing_to_refuse(
    pti: bool, make_kernel: MakeKernel
) -> None:
    """A program tries every page that the kernel maps. The error code says what the processor found there."""
    first = make_kernel({"ram": "2M"}, pti=pti)
    pages = sorted(kernel_pages(first, first.spawn(small("nop")).mm.page_table.pgd))
    source = LOADS.format(count=len(pages), pages=", ".join(f"{va:#x}" for va in pages))
    kernel = make_kernel({"ram": "2M"}, pti=pti)
    kernel.spawn(assemble_source(signal_program(source, SKIP)))
    present = {}

    @kernel.on("page_fault")
    def refused(event: PageFaultEvent) -> None:
        if event.address in pages:
            assert event.outcome == "BAD_ADDRESS"
            present[event.address] = bool(event.error_code & ErrorCode.P)

    assert kernel.run().exit_code == 0
    assert sorted(present) == pages
    mapped = {va for va, is_there in present.items() if is_there}
    stacks = {DF_STACK_VA, DF_STACK_VA + PAGE_SIZE}
    trampoline = {IDT_VA, GDT_VA, ENTRY_STACK_VA, TSS_VA, kernel.percpu, *kernel.text.entry} | stacks
    assert mapped == (trampoline if pti else set(pages))


def test_the_kernel_sees_user_memory_and_may_not_execute_it(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(pti=True)
    process = kernel.spawn(assemble_source("_start: jmp _start"))
    kernel.machine.max_instructions = 100
    kernel.run()
    assert kernel.page_walk(process, 0x401000, user=True).executable
    assert not kernel.page_walk(process, 0x401000).executable


def unmapped(kernel: Kernel, va: int) -> None:
    """Take one page out of the user's PGD."""
    table = kernel.processes[0].mm.page_table.user_pgd
    pa, level = kernel.manager.early.descend(table, va, 4, 1)
    assert level == 1
    kernel.manager.early.store64(pa, 0)
    kernel.machine.mmu.invalidate_all(global_too=True)


TOUCHES = "_start: mov rbx, rsp; sub rbx, 65536; mov dword ptr [rbx], 1; jmp _start"


@pytest.mark.parametrize(
    ("page", "ending", "story"),
    [
        pytest.param(ENTRY_STACK_VA, KernelPanic, r"double fault at rip _start\+0xa, rsp 0x7ff", id="entry stack"),
        pytest.param(GDT_VA, TripleFault, "triple fault", id="GDT"),
        pytest.param(IDT_VA, TripleFault, "triple fault", id="IDT"),
        pytest.param(TSS_VA, TripleFault, "triple fault", id="TSS"),
    ],
)
def test_what_the_processor_needs_to_deliver_a_fault_must_be_in_the_trampoline(
    page: int, ending: type[Exception], story: str
) -> None:
    """Without a stack there is another one for the double fault (IST); without the tables that lead there is none."""
    kernel = Kernel(Machine(), pti=True)  # nobody can clean up behind a triple fault
    kernel.spawn(assemble_source(TOUCHES))
    kernel.run(until="_start")
    unmapped(kernel, page)
    with pytest.raises(ending, match=story):
        kernel.run()


def test_an_entry_without_its_scratch_space_is_a_double_fault(make_kernel: MakeKernel) -> None:
    """SYSCALL's entry code stores RSP before it switches CR3; the fault that this makes has no stack to go to."""
    kernel = make_kernel(pti=True)
    kernel.spawn(assemble_source("_start: mov eax, 39; syscall; jmp _start"))
    kernel.run(until="_start")
    unmapped(kernel, kernel.percpu)
    with pytest.raises(KernelPanic, match=r"double fault at rip entry_SYSCALL_64\+0x3, rsp 0x7ff"):
        kernel.run()


# --- both PGDs say the same ---------------------------------------------------------------------------------------

FAR = """
    anonymous 4096, 3, 0x100022, 0x600000000000; mov byte ptr [rax], 42   # a PGD entry of its own
    invoke FORK; test eax, eax; jz 1f
    mov r12, rax; invoke WAIT4, r12, rsp, 0, 0; mov edi, [rsp]; shr edi, 8; jmp 2f
1:  anonymous 4096, 3, 0x100022, 0x500000000000; mov byte ptr [rax], 1
    mov rbx, 0x600000000000; movzx edi, byte ptr [rbx]
2:  mov r13, rdi; mov rbx, 0x600000000000; invoke MUNMAP, rbx, 4096; mov edi, r13d; mov eax, EXIT; syscall"""


@pytest.mark.parametrize("pcid", [False, True])
def test_what_fork_mmap_and_munmap_change_is_in_both(pcid: bool, make_kernel: MakeKernel) -> None:
    kernel = make_kernel(pti=True, pcid=pcid)
    kernel.spawn(small(FAR))
    seen = 0

    @kernel.on("syscall_exit")
    def check(_event: object) -> None:
        nonlocal seen
        seen += 1
        assert list(inconsistencies(kernel.current.mm)) == []

    assert kernel.run().exit_code == 42
    assert seen >= 6


def test_a_forgotten_entry_in_the_users_pgd_is_found_and_the_program_faults_for_ever() -> None:
    kernel = Kernel(Machine(), pti=True)  # a fixture's would be checked, and would fail
    process = kernel.spawn(small(FAR))
    process.mm.page_table._set_user_entry = lambda _pa, _entry: None  # type: ignore[method-assign]
    kernel.machine.max_instructions = 20_000
    result = kernel.run()
    assert (result.exit_code, result.signal) == (None, None)
    assert result.stats["faults"]["spurious"] > 10
    assert any("PGD entry 0:" in text for text in consistency.inconsistencies(kernel))
    kernel.close()


def test_an_entry_that_only_one_pgd_lost_is_found() -> None:
    kernel = Kernel(Machine(), pti=True)
    process = kernel.spawn(assemble_source("_start: jmp _start"))
    assert consistency.inconsistencies(kernel) == []
    early, table = kernel.manager.early, process.mm.page_table
    shared = table.user_pgd + 8 * (CPU_ENTRY_AREA >> 39 & 511)
    for place, said in ((table.pgd + 8 * 255, "PGD entry 255:"), (shared, "PGD entry 508 of the user's")):
        entry = early.load64(place)
        early.store64(place, 0)
        assert [text for text in consistency.inconsistencies(kernel) if said in text]
        early.store64(place, entry)
    assert consistency.inconsistencies(kernel) == []
    kernel.close()


# --- the same program is the same program ---------------------------------------------------------------------------

SAMPLE = sorted(path for path in PROGRAMS.glob("*.asm") if path.stem not in ("spin", "forever"))
MEANINGFUL = ("instructions", "accesses", "tlb", "walk", "faults", "cr3_writes", "syscalls", "cycles")


MACHINES: Final[tuple[dict[str, Any], ...]] = ({"pti": False}, {"pti": True}, {"pti": True, "pcid": False})
TWELVE = [
    ({"engine": engine, "tlb_policy": "fifo"}, machine | {"thp": thp})
    for machine in MACHINES
    for thp in ("never", "always")
    for engine in ("trap", "access")
]
"""Every combination of isolation, PCIDs, huge pages and engine; the two engines of a machine are neighbours."""


def under_all_twelve(image: Image, run_image: RunImage) -> list[Ended]:
    """Run a program everywhere: it does the same, and both engines of a machine count the same."""
    runs = [run_image(image, machine, **options) for machine, options in TWELVE]
    assert len({(run.result.exit_code, run.result.signal, run.stdout) for run in runs}) == 1
    assert len({run.result.stats["instructions"]["user"] for run in runs}) == 1
    for trap, access in zip(runs[::2], runs[1::2], strict=True):
        assert {name: trap.result.stats[name] for name in MEANINGFUL} == {
            name: access.result.stats[name] for name in MEANINGFUL
        }
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.stem)
def test_neither_isolation_nor_pcids_huge_pages_and_engine_change_a_result(path: Path, run_image: RunImage) -> None:
    under_all_twelve(assemble(path), run_image)


HUGE = """
    anonymous 8 << 20; lea rbx, [rax + 0x1fffff]; and rbx, -0x200000    # three aligned pieces of 2 MiB, at least
    mov ecx, 1536; mov rdi, rbx
1:  mov [rdi], ecx; add rdi, 4096; dec ecx; jnz 1b
    invoke MPROTECT, rbx, 8192, 1                                       # splits the first
    lea r14, [rbx + 0x300000]; invoke MADVISE, r14, 4096, 4             # a hole in the second
    invoke FORK; test eax, eax; jnz 2f
    mov dword ptr [rbx + 0x400000], 7                                   # a copy of the third, or of a page of it
    mov edi, [rbx + 0x400000]; add edi, [rbx + 0x400000 + 4096]; mov eax, EXIT; syscall
2:  invoke WAIT4, rax, rsp, 0, 0; movzx r13d, byte ptr [rsp + 1]
    mov ecx, 1536; mov rdi, rbx; xor esi, esi
3:  add esi, [rdi]; add rdi, 4096; dec ecx; jnz 3b
    show rsi; mov edi, r13d; mov eax, EXIT; syscall"""


def test_a_program_with_huge_pages_in_all_their_states_does_the_same_under_all_twelve(run_image: RunImage) -> None:
    runs = under_all_twelve(small(HUGE), run_image)
    total = 1536 * 1537 // 2 - (1536 - 0x300)
    assert int(runs[0].stdout, 16) == total
    small_pages, huge_pages = (run.result.stats["faults"]["minor"] for run in (runs[0], runs[2]))
    assert small_pages > 1536 > 600 > huge_pages


# --- PCIDs keep what a process had ----------------------------------------------------------------------------------

PAGES = 24
ROUNDS = f"""
    anonymous {PAGES * 4096}; mov rbx, rax; mov r13d, 40
1:  mov rcx, rbx; mov edx, {PAGES}
2:  add dword ptr [rcx], 1; add rcx, 4096; dec edx; jnz 2b
    invoke SCHED_YIELD; dec r13d; jnz 1b"""


def walks(make_kernel: MakeKernel, processes: int, **options: Any) -> int:
    kernel = make_kernel(**options)
    for _ in range(processes):
        kernel.spawn(small(ROUNDS))
    result = kernel.run()
    assert {process.exit_code for process in result.processes} == {0}
    count: int = result.stats["walk"]["by"]["user"]["data"]
    return count // processes


@pytest.mark.parametrize("pti", [False, True])
def test_a_process_that_comes_back_within_six_switches_finds_its_translations(
    pti: bool, make_kernel: MakeKernel
) -> None:
    alone = walks(make_kernel, 1, pti=pti)
    assert walks(make_kernel, 6, pti=pti) < alone + PAGES
    assert walks(make_kernel, 7, pti=pti) > alone + 30 * PAGES  # one more than there are PCIDs: nobody finds any
    assert walks(make_kernel, 2, pti=pti, pcid=False) > alone + 30 * PAGES


def test_without_flush_and_tags_a_process_reads_anothers_memory(make_kernel: MakeKernel) -> None:
    """The lecture's question, and its three answers."""
    page = "anonymous 4096, 3, 0x100022, 0x10000000"
    secret = small(f"{page}; mov dword ptr [rax], 77; invoke SCHED_YIELD")
    # At an address of its own: it would run the other's code as well.
    spy_code = small_program(f"{page}; mov edi, dword ptr [rax]; mov eax, EXIT; syscall")
    spy = assemble_source(spy_code, addresses={".text": 0x900000})

    def read(asid: str) -> int | None:
        kernel = make_kernel(asid=asid)
        kernel.spawn(secret)
        process = kernel.spawn(spy)
        kernel.run()
        return process.exit_code

    assert {asid: read(asid) for asid in ("pcid", "flush", "stale")} == {"pcid": 0, "flush": 0, "stale": 77}
