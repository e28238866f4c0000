"""PCIDs and flushes: what the kernel makes the TLB forget, how, and when it need not.

Facts: arch/x86/mm/tlb.c. What goes wrong without a flush is in test_stale_translations.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conftest import MakeKernel
from small_programs import small_program

from emu.assembler import assemble_source
from emu.events import Cr3Write, TlbFlush
from emu.image import Image
from emu.pte import Pte
from emu.state import TlbKind
from kernel import Kernel
from kernel.asid import FLUSH_CEILING

SKYLAKE = (Path(__file__).parent.parent / "emu" / "profiles" / "skylake.toml").read_text()
EXIT = "xor edi, edi; mov eax, EXIT; syscall"
USER_PCID = 1 << 11


def small(body: str) -> Image:
    return assemble_source(small_program(f"{body}; {EXIT}"))


@pytest.fixture
def without_invpcid(tmp_path: Path) -> str:
    """A processor with PCIDs, but without INVPCID (Sandy Bridge was one)."""
    file = tmp_path / "no_invpcid.toml"
    file.write_text(SKYLAKE.replace("invpcid = true", "invpcid = false"))
    return str(file)


# --- a range of user pages ----------------------------------------------------------------------------------------

UNMAPPED = """
    anonymous 40 * 4096; mov rbx, rax
    mov rcx, rbx; mov edx, {pages}; 1: mov dword ptr [rcx], 7; add rcx, 4096; dec edx; jnz 1b
    invoke GETPID; invoke MUNMAP, rbx, {pages} * 4096; invoke GETPID"""


def flushes(kernel: Kernel, pages: int) -> tuple[Counter[str], list[Cr3Write]]:
    """What munmap of so many pages flushes, and the writes of CR3 from its start to the next call's."""
    kernel.spawn(small(UNMAPPED.format(pages=pages)))
    reasons: Counter[str] = Counter()
    writes: list[Cr3Write] = []
    calls: list[str] = []
    kernel.on("syscall", lambda event: calls.append(event.name))

    @kernel.on("tlb_flush")
    def flushed(event: TlbFlush) -> None:
        reasons[event.reason] += calls[-1:] == ["munmap"]

    @kernel.on("cr3_write")
    def written(event: Cr3Write) -> None:
        if calls[-1:] == ["munmap"]:
            writes.append(event)

    kernel.run()
    return reasons, writes


def test_up_to_33_pages_are_flushed_one_by_one(make_kernel: MakeKernel) -> None:
    reasons, _ = flushes(make_kernel(), FLUSH_CEILING)
    assert reasons == Counter(invlpg=33)


def test_for_more_pages_everything_is_flushed_at_once(make_kernel: MakeKernel) -> None:
    reasons, writes = flushes(make_kernel(), FLUSH_CEILING + 1)
    assert reasons["invlpg"] == 0
    assert [write.flush for write in writes] == [True]


def test_under_isolation_each_page_is_flushed_for_the_users_pcid_too(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(pti=True)
    reasons, writes = flushes(kernel, 3)
    assert reasons == Counter(invlpg=3, invpcid_0=3)
    assert not any(write.flush for write in writes)


def test_a_full_flush_of_the_users_pcid_waits_for_the_way_back(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(pti=True)
    _, writes = flushes(kernel, FLUSH_CEILING + 1)
    assert [(write.flush, bool(write.pcid & USER_PCID)) for write in writes] == [
        (True, False),  # in the kernel, at once
        (True, True),  # on the way to user mode: the debt is paid
        (False, False),  # into the next system call
    ]


def test_where_there_is_no_invpcid_the_way_back_flushes_the_users_pcid(
    make_kernel: MakeKernel, without_invpcid: str
) -> None:
    kernel = make_kernel({"cpu": without_invpcid}, pti=True)
    reasons, writes = flushes(kernel, 2)
    assert (reasons["invlpg"], reasons["invpcid_0"]) == (2, 0)
    assert [write.flush for write in writes if write.pcid & USER_PCID] == [True]


@pytest.mark.parametrize("has_invpcid", [True, False])
def test_without_the_flush_of_the_users_pcid_the_program_reads_what_is_not_there_any_more(
    has_invpcid: bool, make_kernel: MakeKernel, without_invpcid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 40 pages only the bit in user_pcid_flush_mask stands between the program and old memory."""
    body = """
        anonymous 40 * 4096; mov rbx, rax
        mov rcx, rbx; mov edx, 40; 1: mov dword ptr [rcx], 7; add rcx, 4096; dec edx; jnz 1b
        mov eax, [rbx]; invoke MADVISE, rbx, 40 * 4096, 4
        mov edi, [rbx]; mov eax, EXIT; syscall"""
    machine = {} if has_invpcid else {"cpu": without_invpcid}
    assert run(make_kernel(machine, pti=True), body) == 0
    kernel = make_kernel(machine, pti=True)
    monkeypatch.setattr(kernel.manager.tlb, "_invalidate_user_asid", lambda: None)
    assert run(kernel, body) == 7


def run(kernel: Kernel, body: str) -> int | None:
    kernel.spawn(assemble_source(small_program(body)))
    return kernel.run().exit_code


# --- pages of the kernel's ------------------------------------------------------------------------------------------

TWO_CALLS = "invoke GETPID; invoke SCHED_YIELD; invoke GETPID; invoke SCHED_YIELD"


def remapped(kernel: Kernel) -> int:
    """Two processes see a kernel page; while one runs it gets another frame. What the other reads there afterwards."""
    for _ in range(2):
        kernel.spawn(small(TWO_CALLS))
    vmalloc, memory = kernel.manager.vmalloc, kernel.memory
    areas: list[int] = []
    seen: list[int] = []

    @kernel.on("syscall")
    def use(event: object) -> None:
        if event.name != "getpid":  # type: ignore[attr-defined]
            return
        if not areas:
            areas.append(vmalloc.allocate(1))
            memory.store_va(areas[0], 1)
        seen.append(memory.load_va(areas[0]))
        if len(seen) == 2:  # the second process
            vmalloc.free(areas[0])
            held = kernel.frames.allocate()  # so that it is another frame
            assert vmalloc.allocate(1) == areas[0]
            kernel.frames.free(held)
            memory.store_va(areas[0], 2)

    kernel.run()
    vmalloc.free(areas[0])
    assert seen[:2] == [1, 1]
    return seen[2]


@pytest.mark.parametrize("pti", [False, True])
def test_a_kernel_page_that_one_process_changed_is_new_for_the_others(pti: bool, make_kernel: MakeKernel) -> None:
    assert remapped(make_kernel(pti=pti)) == 2


def test_under_isolation_the_others_are_marked_or_they_would_read_the_old_page(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = make_kernel(pti=True)
    monkeypatch.setattr(kernel.manager.tlb, "_invalidate_other", lambda: None)
    assert remapped(kernel) == 1


def kernel_flushes(kernel: Kernel, pages: int) -> dict[str, int]:
    area = kernel.manager.vmalloc.allocate(pages)
    before = Counter(kernel.machine.flushes)
    kernel.manager.vmalloc.free(area)
    return dict(Counter(kernel.machine.flushes) - before)


def test_a_large_range_of_the_kernels_is_flushed_with_everything_else(
    make_kernel: MakeKernel, without_invpcid: str
) -> None:
    assert kernel_flushes(make_kernel(), FLUSH_CEILING) == {"invlpg": 33}
    assert kernel_flushes(make_kernel(), FLUSH_CEILING + 1) == {"invpcid_2": 1}
    assert kernel_flushes(make_kernel({"cpu": without_invpcid}), FLUSH_CEILING + 1) == {"mov_cr4": 2}


# --- lazy TLB -------------------------------------------------------------------------------------------------------


def cr3_writes(kernel: Kernel, body: str) -> int:
    kernel.spawn(small(body))
    return sum(kernel.run().stats["cr3_writes"].values())


SLEEP = "push 1000; push 0; mov rbx, rsp; mov r12d, {n}; 1: invoke 35, rbx, 0; dec r12d; jnz 1b"
VFORK = "mov r12d, {n}; 1: invoke 58; test eax, eax; jnz 2f; invoke EXIT; 2: dec r12d; jnz 1b"
FORK_AND_WAIT = (
    "mov r12d, {n}; 1: invoke FORK; test eax, eax; jnz 2f; invoke EXIT; 2: invoke WAIT4, rax; dec r12d; jnz 1b"
)


@pytest.mark.parametrize(
    ("body", "each"),
    [
        pytest.param(SLEEP, 0, id="idle, and the same process again"),
        pytest.param(VFORK, 0, id="the child that ended ran on the same memory"),
        pytest.param(FORK_AND_WAIT, 4, id="fork's flush, to the child, off its tables before they go, to the parent"),
    ],
)
def test_the_kernel_goes_on_with_the_page_tables_that_are_loaded(body: str, each: int, make_kernel: MakeKernel) -> None:
    few, many = (cr3_writes(make_kernel(), body.format(n=n)) for n in (2, 7))
    assert many - few == 5 * each


def test_kswapd_works_on_whatever_page_tables_are_loaded(make_kernel: MakeKernel) -> None:
    fill = "anonymous 600 * 4096; mov edx, 600; 1: mov dword ptr [rax], 7; add rax, 4096; dec edx; jnz 1b"
    kernel = make_kernel({"ram": "2M"}, swap="4M")
    kernel.spawn(small(fill))
    result = kernel.run()
    assert result.stats["swap"]["out"] > 100
    assert sum(result.stats["cr3_writes"].values()) <= 4  # boot, to the process, off it


def test_a_change_of_page_tables_that_are_loaded_for_nobody_takes_them_off(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(small("anonymous 4096; mov rbx, rax; mov dword ptr [rbx], 7; 1: jmp 1b"))
    kernel.machine.max_instructions = 2000
    kernel.run()
    tlb = kernel.manager.tlb
    assert tlb.loaded is process.mm
    tlb.enter_lazy()
    tlb.flush_all(process.mm, "test")
    assert tlb.loaded is None
    assert kernel.machine.control.cr3 & ~0xFFF == kernel.manager.kernel_half.pgd
    tlb.switch(process.mm)
    assert kernel.machine.cr3_writes["flush"] >= 2  # its PCID is older than the change


# --- what a process finds when it comes back ----------------------------------------------------------------------

PAGES = 24
ROUNDS = f"""
    anonymous {PAGES * 4096}; mov rbx, rax; mov r13d, 6
1:  mov rcx, rbx; mov edx, {PAGES}
2:  add dword ptr [rcx], 1; add rcx, 4096; dec edx; jnz 2b
    invoke SCHED_YIELD; dec r13d; jnz 1b"""


def found(kernel: Kernel, processes: int) -> list[int]:
    """How many pages of its own the STLB has for a process each time that it is switched to."""
    for _ in range(processes):
        kernel.spawn(small(ROUNDS))
    is_switch, counts, isolated = False, [], kernel.manager.kernel_half.isolated

    @kernel.on("context_switch")
    def switched(_event: object) -> None:
        nonlocal is_switch
        is_switch = True

    @kernel.on("cr3_write")
    def loaded(event: Cr3Write) -> None:
        nonlocal is_switch
        if is_switch and (not isolated or event.value & 1 << 12):  # the user's page tables
            entries = kernel.machine.mmu.entries(TlbKind.STLB)
            counts.append(sum(entry.pcid == event.pcid and bool(entry.flags & Pte.U) for entry in entries))
            is_switch = False

    kernel.run()
    return counts


@pytest.mark.parametrize("pti", [False, True])
def test_one_of_the_last_six_finds_its_translations_in_the_tlb(pti: bool, make_kernel: MakeKernel) -> None:
    six = found(make_kernel(pti=pti), 6)
    assert six[:6] == [0] * 6
    assert all(count >= PAGES for count in six[6:30])
    assert set(found(make_kernel(pti=pti), 7)) == {0}  # the seventh takes the PCID of the first
    assert set(found(make_kernel(pti=pti, pcid=False), 2)) == {0}
