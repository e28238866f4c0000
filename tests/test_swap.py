"""Swap and reclaim: more memory is promised and used than there is, and nobody notices but by the time it takes."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import pytest
from command import PROGRAMS, cr3, source
from conftest import MakeKernel, RunImage
from small_programs import small_program

from emu import InputError, Machine
from emu.assembler import assemble_source
from emu.image import Image
from kernel import Kernel, SyscallEvent
from kernel.consistency import inconsistencies
from kernel.policies import policy_names
from kernel.pte import is_mapped, is_swap, pfn_of, swap_place
from kernel.vma import VmaFlag

PAGES = 2048
"""8 MiB: four times the RAM of `SMALL`."""
SMALL: dict[str, Any] = {"ram": "2M"}
SIGBUS, SIGKILL = 7, 9

SUM = f"""
    anonymous {PAGES * 4096}, 3, NORESERVE
    mov     rbx, rax
    mov     r14d, 2
again:
    xor     ecx, ecx
1:  mov     rdx, rcx
    shl     rdx, 12
    mov     rax, [rbx + rdx]
    lea     rax, [rax + rcx * 2 + 7]
    mov     [rbx + rdx], rax
    add     r15, rax
    inc     rcx
    cmp     rcx, {PAGES}
    jne     1b
    dec     r14d
    jnz     again
    show    r15
"""
CHECKSUM = b"%016x\n" % (3 * sum(2 * page + 7 for page in range(PAGES)))


def small(body: str) -> Image:
    return assemble_source(small_program(body))


def fill(pages: int, then: str) -> Image:
    """A program with so many pages of its own at rbx, each beginning with its number + 1."""
    return small(f"""
    anonymous {pages * 4096}
    mov     rbx, rax
    xor     ecx, ecx
1:  mov     rdx, rcx
    shl     rdx, 12
    lea     rax, [rcx + 1]
    mov     [rbx + rdx], rax
    inc     rcx
    cmp     rcx, {pages}
    jne     1b
    {then}
    """)


def check(pages: int) -> str:
    """Read all pages of `fill` and show the sum."""
    return f"""
    xor     ecx, ecx
    xor     r15d, r15d
2:  mov     rdx, rcx
    shl     rdx, 12
    add     r15, [rbx + rdx]
    inc     rcx
    cmp     rcx, {pages}
    jne     2b
    show    r15
    """


def total(pages: int) -> bytes:
    return b"%016x\n" % (pages * (pages + 1) // 2)


# --- more than there is ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [name for name in policy_names() if name != "opt"])
def test_a_program_of_four_times_the_ram_computes_the_right_sum(run_image: RunImage, policy: str) -> None:
    ended = run_image(small(SUM), SMALL, swap="16M", swap_policy=policy)
    assert (ended.stdout, ended.result.exit_code) == (CHECKSUM, 0)
    stats = ended.result.stats
    assert stats["faults"]["major"] == stats["swap"]["in"] > PAGES // 2
    assert stats["cycles"]["by_cause"]["swap_io"] > 0


def test_two_such_programs_share_the_machine(make_kernel: MakeKernel, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as stdout:
        kernel = make_kernel(SMALL, swap="32M", pti=True, stdout=stdout)
        for _ in range(2):
            kernel.spawn(small(SUM))
        result = kernel.run()
        assert result.stats["context_switches"] > PAGES  # while one waits for its page, the other runs
        stdout.seek(0)
        assert stdout.read() == 2 * CHECKSUM


def test_kswapd_reclaims_in_the_background_and_who_wants_much_at_once_reclaims_himself(run_image: RunImage) -> None:
    touched = run_image(fill(600, check(600)), SMALL, swap="16M")
    assert touched.kernel.reclaim.reclaimed_by["background"] > 100
    populated = run_image(small(f"anonymous {800 * 4096}, 3, 0x8022; show rcx"), SMALL, swap="16M")
    assert populated.kernel.reclaim.reclaimed_by["direct"] > 100


def test_without_swap_the_same_program_is_killed(run_image: RunImage) -> None:
    assert run_image(small(SUM), SMALL).result.signal == SIGKILL


def test_a_full_swap_area_ends_in_the_out_of_memory_killer(run_image: RunImage) -> None:
    ended = run_image(small(SUM), SMALL, swap="1M")
    assert ended.result.signal == SIGKILL
    assert ended.kernel.oom_kills == 1


# --- what is out is still there for everybody ------------------------------------------------------


def test_fork_shares_what_is_out(run_image: RunImage) -> None:
    body = f"""
    invoke  FORK
    mov     r12, rax
    mov     qword ptr [rbx], 1
    {check(600)}
    test    r12, r12
    jz      3f
    invoke  WAIT4, r12, 0, 0, 0
3:
    """
    assert run_image(fill(600, body), SMALL, swap="16M").stdout == 2 * total(600)


def test_a_moved_mapping_takes_what_is_out_along(run_image: RunImage) -> None:
    body = f"invoke MREMAP, rbx, {600 * 4096}, {1200 * 4096}, 1, 0; mov rbx, rax; {check(600)}"
    assert run_image(fill(600, body), SMALL, swap="16M").stdout == total(600)


def test_rights_change_for_what_is_out(run_image: RunImage) -> None:
    body = f"invoke MPROTECT, rbx, {600 * 4096}, 1; {check(600)} mov qword ptr [rbx], 5"
    ended = run_image(fill(600, body), SMALL, swap="16M")
    assert (ended.stdout, ended.result.signal) == (total(600), 11)


def test_shared_memory_goes_out_and_comes_back(run_image: RunImage) -> None:
    program = small_program(f"""
    anonymous {100 * 4096}, 3, 0x21
    mov     rbx, rax
    invoke  FORK
    test    rax, rax
    jnz     parent
    xor     ecx, ecx
1:  mov     rdx, rcx
    shl     rdx, 12
    lea     rax, [rcx + 1]
    mov     [rbx + rdx], rax
    inc     rcx
    cmp     rcx, 100
    jne     1b
    invoke  EXIT, 0
parent:
    invoke  WAIT4, rax, 0, 0, 0
    {check(100)}
    invoke  MADVISE, rbx, {100 * 4096}, 21
    {check(100)}
    """)
    ended = run_image(assemble_source(program), swap="16M")
    assert ended.stdout == 2 * total(100)
    assert ended.result.stats["swap"] == {"in": 100, "out": 100}


def test_what_is_given_up_leaves_no_slot_behind(run_image: RunImage) -> None:
    kernel = run_image(fill(600, f"invoke MUNMAP, rbx, {600 * 4096}; show rax"), SMALL, swap="16M").kernel
    assert kernel.manager.swap.writes > 0
    assert kernel.manager.swap.used == 0


# --- the entry, and the TLB -----------------------------------------------------------------------


def stopped(make_kernel: MakeKernel, body: str, **options: Any) -> tuple[Kernel, int]:
    """A kernel at the end of a program, and where the pages of `fill` begin: they were mapped first, so on top."""
    kernel = make_kernel(SMALL, swap="16M", **options)
    kernel.spawn(fill(600, body))
    kernel.run(before_exit=True)
    return kernel, top(kernel) - 600 * 4096


def top(kernel: Kernel) -> int:
    """The end of the mapping that was made first."""
    return max(vma.end for vma in kernel.processes[0].mm.vmas if not vma.flags & VmaFlag.GROWS_DOWN)


def test_the_entry_of_a_page_that_is_out_has_linux_format(make_kernel: MakeKernel) -> None:
    kernel, start = stopped(make_kernel, "nop")
    mm = kernel.processes[0].mm
    entries = [mm.page_table.lookup(va) for va in range(start, start + 600 * 4096, 4096)]
    out = [entry for entry in entries if is_swap(entry)]
    assert out
    for entry in out:
        area, slot = swap_place(entry)
        assert area == entry >> 59 == 0
        assert slot == ~(entry >> 9) & (1 << 50) - 1
        assert entry & 0x1F7 == 0  # neither P nor PROT_NONE; bit 3 says that the page is one process's alone
        assert kernel.manager.swap.entries(slot) == 1
    assert len(out) + sum(map(is_mapped, entries)) == 600


def test_a_slot_that_does_not_count_its_entries_is_found_out(make_kernel: MakeKernel) -> None:
    kernel, start = stopped(make_kernel, "nop")
    lookup = kernel.processes[0].mm.page_table.lookup
    slot = next(swap_place(lookup(va))[1] for va in range(start, start + 600 * 4096, 4096) if is_swap(lookup(va)))
    kernel.manager.swap.duplicate(slot)
    assert inconsistencies(kernel) == []  # a file may have it
    for _ in range(2):
        kernel.manager.swap.drop(slot)
    assert inconsistencies(kernel) == [f"swap slot {slot} is in 1 entries, 0 are counted"]
    kernel.manager.swap._entries[slot] = 1


def test_without_the_flush_a_process_goes_on_in_a_frame_that_is_no_longer_its_own(make_kernel: MakeKernel) -> None:
    touch = "invoke MADVISE, rbx, 4096, 21; mov qword ptr [rbx], 77; mov r12, [rbx]"
    results = []
    for skip in (False, True):
        kernel = make_kernel({"ram": "16M"}, swap="16M")
        kernel.spawn(fill(2, touch))
        if skip:
            kernel.manager.tlb.skip.add("reclaim")
        kernel.run(before_exit=True)
        faults = kernel.faults.counts["major"]
        results.append((faults, is_swap(kernel.processes[0].mm.page_table.lookup(top(kernel) - 8192))))
    assert results == [(1, False), (0, True)]  # with the flush it faults; without, it wrote into a free frame


# --- what programs say ----------------------------------------------------------------------------


def test_pageout_writes_pages_out_and_mincore_says_so(run_image: RunImage) -> None:
    body = f"""
    invoke  MADVISE, rbx, 8192, 21
    show    rax
    lea     rcx, [rip + buffer]
    invoke  27, rbx, 12288, rcx
    movzx   eax, word ptr [buffer]
    movzx   ecx, byte ptr [buffer + 2]
    show    rax
    show    rcx
    {check(3)}
    """
    ended = run_image(fill(3, body), swap="1M")
    assert ended.stdout == b"%016x\n" % 0 * 2 + b"%016x\n" % 1 + total(3)
    assert ended.result.stats["swap"] == {"in": 2, "out": 2}


def test_a_page_that_was_not_written_since_goes_without_being_written_out(run_image: RunImage) -> None:
    out = "invoke MADVISE, rbx, 4096, 21; "
    ended = run_image(fill(1, out + "mov rax, [rbx]; " + out + "mov rax, [rbx]; " + out), swap="1M")
    assert ended.result.stats["swap"] == {"in": 2, "out": 1}


def test_locked_pages_stay(make_kernel: MakeKernel) -> None:
    kernel, start = stopped(make_kernel, "invoke 149, rbx, 40960; anonymous 2457600, 3, 0x8022")
    lookup = kernel.processes[0].mm.page_table.lookup
    assert all(is_mapped(lookup(start + page * 4096)) for page in range(10))
    assert kernel.manager.swap.writes > 0


def test_pages_that_are_freed_lazily_are_dropped_unwritten(run_image: RunImage) -> None:
    body = f"""
    invoke  MADVISE, rbx, {300 * 4096}, 8
    mov     qword ptr [rbx], 42                 # this one is wanted after all
    anonymous {400 * 4096}, 3, 0x8022
    mov     rax, [rbx]
    show    rax
    """
    machine = {"ram": "2600k"}
    ended = run_image(fill(300, body), machine, swap="16M")
    assert ended.stdout == b"%016x\n" % 42
    assert sum(ended.kernel.reclaim.reclaimed_by.values()) > ended.result.stats["swap"]["out"]


# --- the device ------------------------------------------------------------------------------------


def test_a_device_that_cannot_be_written_loses_nothing_that_is_in_memory(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = make_kernel(SMALL, swap="16M")
    assert kernel.manager.swap.device is not None

    def full(slot: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel.manager.swap.device.file, "write", full)
    process = kernel.spawn(fill(20, "invoke MADVISE, rbx, 81920, 21; show rax"))
    assert kernel.run().exit_code == 0
    assert process.major_faults == 0
    assert kernel.manager.swap.error == "cannot write to /swapfile: No space left on device"


def test_a_page_that_cannot_be_read_back_is_a_bus_error(
    make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = make_kernel(swap="1M")
    assert kernel.manager.swap.device is not None

    def unreadable(slot: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(kernel.manager.swap.device.file, "read", unreadable)
    kernel.spawn(fill(1, "invoke MADVISE, rbx, 4096, 21; mov rax, [rbx]"))
    assert kernel.run().signal == SIGBUS
    assert kernel.manager.swap.error == "cannot read from /swapfile: Input/output error"


def test_a_swap_file_with_a_name_stays_and_looks_like_one_of_mkswap(make_kernel: MakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "swap"
    make_kernel(swap="64k", swap_file=path).close()
    data = path.read_bytes()
    assert (len(data), data[4086:4096]) == (65536, b"SWAPSPACE2")
    make_kernel(swap="64k", swap_file=path)  # may be used again


def test_a_file_that_holds_something_else_is_not_overwritten(make_kernel: MakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("Dear reader")
    with pytest.raises(InputError, match="is no swap file"):
        make_kernel(swap="64k", swap_file=path)
    assert path.read_text() == "Dear reader"


@pytest.mark.parametrize("options", [{"swap": "4k"}, {"swap": "1M", "swap_device": "tape"}, {"swap_policy": "opt"}])
def test_swap_that_cannot_be_is_refused(make_kernel: MakeKernel, options: dict[str, str]) -> None:
    with pytest.raises(InputError):
        make_kernel(**options)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux tells them")
def test_a_command_closes_the_swap_file_when_it_ends() -> None:
    def open_areas() -> int:
        files = [file for file in Path("/proc/self/fd").iterdir() if file.exists()]
        return sum(file.stat().st_size == 1236 << 10 for file in files)

    gc.disable()  # what is collected is closed then, too
    try:
        kernel = Kernel(Machine(ram="2M"), swap="1236k")
        assert open_areas() == 1
        kernel.close()
        assert cr3("run", PROGRAMS / "hello.asm", "--swap", "1236k").exit_code == 0
        assert open_areas() == 0
    finally:
        gc.enable()


def test_the_out_of_memory_killer_names_its_victim() -> None:
    outcome = cr3("run", source(small_program(SUM)), "--ram", "2M", "--swap", "1M")
    assert outcome.exit_code == 128 + SIGKILL
    killed = re.search(
        r"^cr3: out of memory: killed program.asm \(pid 1\), which had (\d+) pages .* 255 in swap", outcome.stderr, re.M
    )
    assert killed is not None and 100 < int(killed[1]) < 512


# --- reference bits, dirty bits, and the TLB ------------------------------------------------------


@pytest.mark.parametrize(("skip", "seen"), [(set(), [True, True]), ({"young"}, [True, False])])
def test_a_use_is_seen_again_only_if_the_tlb_forgot_the_page(
    make_kernel: MakeKernel, skip: set[str], seen: list[bool]
) -> None:
    """The processor sets A when it walks. Where the translation is still in the TLB, it does not walk."""
    kernel = make_kernel(swap="1M")
    kernel.manager.tlb.skip |= skip
    process = kernel.spawn(fill(1, "invoke GETPID; mov rax, [rbx]; invoke GETPID"))
    asked: list[bool] = []

    @kernel.on("syscall")
    def ask(event: SyscallEvent) -> None:
        if event.name == "getpid":
            asked.append(kernel.reclaim.referenced(pfn_of(process.mm.page_table.lookup(top(kernel) - 4096))))

    kernel.run()
    assert asked == seen


@pytest.mark.parametrize(("skip", "kept"), [(set(), b"b"), ({"clean"}, b"a")])
def test_a_write_after_writeback_is_lost_if_the_tlb_still_holds_the_page_as_dirty(
    make_kernel: MakeKernel, tmp_path: Path, skip: set[str], kept: bytes
) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(4096))
    kernel = make_kernel(files={"/data:rw": path})
    kernel.manager.tlb.skip |= skip
    kernel.spawn(
        small("""
        lea     rdi, [rip + path]
        invoke  2, rdi, 2                           # open
        mov     r12, rax
        invoke  MMAP, 0, 4096, 3, 1, r12, 0
        mov     rbx, rax
        mov     byte ptr [rbx], 0x61
        invoke  74, r12                             # fsync
        mov     byte ptr [rbx], 0x62
        invoke  EXIT, 0
        .data
    path:
        .asciz  "/data"
        .text
        """)
    )
    assert kernel.run().exit_code == 0
    kernel.close()
    assert path.read_bytes()[:1] == kept


def test_swappiness_weighs_anonymous_pages_against_those_of_files(make_kernel: MakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(160 * 4096))
    swapped = []
    for value in (0, 60, 200):
        kernel = make_kernel(SMALL, swap="16M", files={"/data": path})
        kernel.knobs["/proc/sys/vm/swappiness"] = value
        kernel.spawn(
            fill(
                160,
                f"""
                lea     rdi, [rip + path]
                invoke  2, rdi, 0
                invoke  MMAP, 0, {160 * 4096}, 1, 2, rax, 0
                mov     rbx, rax
                {check(160)}
                anonymous {200 * 4096}, 3, 0x8022   # MAP_POPULATE: so much memory is wanted now
                invoke  EXIT, 0
                .data
            path:
                .asciz  "/data"
                .text
                """,
            )
        )
        assert kernel.run().exit_code == 0
        swapped.append(kernel.manager.swap.writes)
    assert swapped[0] == 0 < swapped[1] < swapped[2]
