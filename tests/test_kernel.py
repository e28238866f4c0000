"""Processes under the kernel: how their pages come and go, how they end, and what people can see of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeKernel, RunImage
from small_programs import small_program

from emu import PAGE_SIZE, Halt, HookError, InputError, event_names
from emu.assembler import assemble, assemble_source
from emu.image import Image
from kernel import Kernel, PageFaultEvent, Process, syscall
from kernel.exec import FIRST_STACK_PAGES
from kernel.layout import STACK_TOP

PROGRAMS = Path(__file__).parent.parent / "programs"
HELLO = assemble(PROGRAMS / "hello.asm")
SIGKILL, SIGSEGV = 9, 11


def small(body: str) -> Image:
    return assemble_source(small_program(body))


def user_memory(kernel: Kernel, process: Process, va: int, size: int) -> bytes:
    """Memory of a process, as its page tables have it; nobody notices."""
    walk = kernel.page_walk(process, va)
    assert walk.pa is not None, f"{va:#x} is not present"
    return kernel.machine.ram.read(walk.pa, size)


def collect(kernel: Kernel, *names: str) -> list[Any]:
    """A list that fills with the events of some kinds."""
    events: list[Any] = []
    for name in names:
        kernel.on(name, events.append)
    return events


# --- pages arrive when they are touched -----------------------------------------------------------


def test_hello_faults_once_for_its_code_and_once_for_its_text(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    faults = collect(kernel, "page_fault")
    process = kernel.spawn(HELLO)
    stats = kernel.run(before_exit=True).stats
    entry, text = HELLO.entry, HELLO.address_of("text")
    assert [(fault.address, fault.outcome) for fault in faults] == [(entry, "FILE"), (text, "FILE")]
    assert stats["faults"] == {
        "minor": 3,
        "major": 0,
        "cow": 0,
        "protection": 0,
        "spurious": 0,
    }  # with the page of the arguments
    assert process.minor_faults == 3
    assert process.mm.resident() == 3  # and the page with its arguments


def test_the_first_fault_is_the_users_fetch_and_the_second_the_kernels_read(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    faults = collect(kernel, "page_fault")
    kernel.spawn(HELLO)
    kernel.run()
    user, fetch = 4, 16
    assert [fault.error_code for fault in faults] == [user | fetch, 0]


def test_memory_that_is_not_touched_gets_no_frame(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "4M"})
    process = kernel.spawn(small("anonymous 0x10000000, 3, NORESERVE; mov byte ptr [rax + 0x8000000], 1"))  # 256 MiB
    assert kernel.run(before_exit=True).exit_code == 0
    assert process.mm.resident() == 3  # code, stack, and the one page


def test_bss_is_one_fault_a_page_and_reads_zero(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(
        small("lea rbx, [rip + buffer]; mov rax, [rbx]; or rax, [rbx + 4096]; mov edi, eax; mov eax, EXIT; syscall")
    )
    faults: list[PageFaultEvent] = collect(kernel, "page_fault")
    assert kernel.run().exit_code == 0
    assert Counter(fault.outcome for fault in faults) == {"FILE": 1, "ZERO_PAGE": 2}


def test_populate_delivers_everything_before_the_program_begins(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(populate=True)
    faults = collect(kernel, "page_fault")
    process = kernel.spawn(assemble(PROGRAMS / "sieve.asm"))
    promised = sum(vma.end - vma.start for vma in process.mm.vmas) // PAGE_SIZE
    assert process.mm.resident() == promised
    assert kernel.run().exit_code == 0
    assert faults == []


def test_populating_more_than_there_is_ends_where_memory_ends(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "1M"})
    kernel.spawn(small("anonymous 0x40000000, 3, NORESERVE | 0x8000"))  # 1 GiB, MAP_POPULATE
    assert kernel.run().exit_code == 0  # what the program needs to end was there already
    assert kernel.frames.total - kernel.frames.peak < kernel.reclaim.watermarks.min  # the reserve is not for wishes


def test_without_rights_there_is_nothing_to_populate(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(small("anonymous 0x400000000000, 0, 0x8022; shr rax, 63; mov edi, eax; mov eax, EXIT; syscall"))
    assert kernel.run().exit_code == 0


def test_a_stack_is_as_large_as_it_was_ever_deep(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(small("mov byte ptr [rsp - 0x2fffff], 1"))
    (before,) = [vma for vma in process.mm.vmas if process.mm.name_of(vma) == "[stack]"]
    kernel.run(before_exit=True)
    (after,) = [vma for vma in process.mm.vmas if process.mm.name_of(vma) == "[stack]"]
    assert (before.end, after.end) == (STACK_TOP, STACK_TOP)
    assert before.end - before.start == FIRST_STACK_PAGES * PAGE_SIZE
    assert 0x2FFFFF < after.end - after.start <= 0x301000
    assert process.mm.resident() == 3  # code, the top page, the one far below


def test_out_of_memory_kills(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "1M"})
    signals = collect(kernel, "signal")
    kernel.spawn(small("anonymous 0x40000000, 3, NORESERVE; 1: mov byte ptr [rax], 1; add rax, 4096; jmp 1b"))
    assert kernel.run().signal == SIGKILL
    assert [(event.signal, event.name) for event in signals] == [(SIGKILL, "SIGKILL")]


def test_the_next_process_gets_the_memory_of_one_that_was_killed(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "1M"})
    greedy = kernel.spawn(small("anonymous 0x40000000, 3, NORESERVE; 1: mov byte ptr [rax], 1; add rax, 4096; jmp 1b"))
    modest = kernel.spawn(small("anonymous 0x20000; mov byte ptr [rax + 0x10000], 1"))
    kernel.run()
    assert (greedy.signal, modest.exit_code) == (SIGKILL, 0)


# --- the TLB believes what it was told ------------------------------------------------------------

UNMAP_AND_READ = """
    anonymous 4096; mov rbx, rax; mov qword ptr [rbx], 42
    invoke MUNMAP, rbx, 4096
    mov rdi, [rbx]; mov eax, EXIT; syscall"""


def forget(_va: int) -> None:
    """In place of Machine.invlpg, for a kernel that forgets it."""


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize("pcid", [True, False])
def test_what_was_unmapped_is_gone_at_once(pcid: bool, engine: str, make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"engine": engine}, pcid=pcid)
    kernel.spawn(small(UNMAP_AND_READ))
    assert kernel.run().signal == SIGSEGV


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_without_invlpg_the_stale_page_is_still_there(engine: str, make_kernel: MakeKernel) -> None:
    """The bug that munmap must not have: the TLB is the machine's memory of page tables, and nobody told it."""
    kernel = make_kernel({"engine": engine})
    kernel.machine.invlpg = forget
    kernel.spawn(small(UNMAP_AND_READ))
    assert kernel.run().exit_code == 42


def test_without_a_tlb_nothing_can_be_stale(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"tlb": False})
    kernel.machine.invlpg = forget
    kernel.spawn(small(UNMAP_AND_READ))
    assert kernel.run().signal == SIGSEGV


def test_munmap_flushes_from_the_first_page_that_was_present_to_the_last(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    flushes = collect(kernel, "tlb_flush")
    kernel.spawn(
        small("""
        anonymous 0x10000, 3, 0x32, 0x10000000; mov rbx, rax
        mov byte ptr [rbx + 0x2000], 1; mov byte ptr [rbx + 0x5000], 1
        invoke MUNMAP, rbx, 0x10000""")
    )
    kernel.run(before_exit=True)
    assert [event.va for event in flushes if event.reason == "invlpg"] == [
        0x10002000,
        0x10003000,
        0x10004000,
        0x10005000,
    ]


# --- several processes ----------------------------------------------------------------------------

LEAVE_A_MARK = """
    lea rbx, [rip + buffer]; mov edi, [rbx]; mov dword ptr [rbx], 77
    mov eax, EXIT; syscall"""


@pytest.mark.parametrize("cpu", ["skylake", "zen2"])
@pytest.mark.parametrize("pcid", [True, False])
def test_processes_do_not_see_each_others_memory(pcid: bool, cpu: str, make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"cpu": cpu}, pcid=pcid)
    image = small(LEAVE_A_MARK)
    processes = [kernel.spawn(image) for _ in range(4)]
    result = kernel.run()
    assert [process.exit_code for process in processes] == [0, 0, 0, 0]
    assert result.processes == tuple(processes)
    assert result.stats["context_switches"] == 4


def test_processes_have_numbers_and_counters_of_their_own(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    exits = collect(kernel, "exit")
    for code in (5, 6):
        kernel.spawn(
            small(f"invoke GETPID; mov rbx, rax; lea rdi, [rbx + 8*rbx]; add rdi, {code}; mov eax, EXIT; syscall")
        )
    kernel.spawn(small("xor eax, eax; mov al, [rax]"))
    stats = kernel.run().stats
    assert [(event.pid, event.exit_code, event.signal) for event in exits] == [
        (1, 14, None),
        (2, 24, None),
        (3, None, 11),
    ]
    assert [process["pid"] for process in stats["processes"]] == [1, 2, 3]
    assert sum(process["instructions"] for process in stats["processes"]) == stats["instructions"]["user"]
    assert stats["syscalls"] == {"getpid": 2, "exit": 2}


def test_many_processes_one_after_the_other(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    processes = [kernel.spawn(HELLO) for _ in range(60)]
    kernel.run()
    assert {process.exit_code for process in processes} == {0}


def test_arguments_are_on_the_stack(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(
        small("mov rbx, [rsp + 16]; movzx edi, byte ptr [rbx]; mov eax, EXIT; syscall"), ["name", "Z"]
    )
    assert kernel.run().exit_code == ord("Z")
    assert process.arguments == ("name", "Z")


def test_arguments_may_fill_many_pages(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(small("mov edi, [rsp]; mov eax, EXIT; syscall"), ["name", *["x" * 1000] * 30])
    assert kernel.run().exit_code == 31


def test_a_process_can_be_added_where_a_run_has_stopped(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    first = kernel.spawn(small("nop; middle: nop"))
    assert kernel.run(until="middle").halt is Halt.BREAKPOINT
    second = kernel.spawn(small("invoke EXIT, 3"))
    kernel.machine.stop_before()
    kernel.run()
    assert (first.exit_code, second.exit_code) == (0, 3)


# --- stopping -------------------------------------------------------------------------------------


def test_until_stops_before_the_symbol_executes(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(small("mov rbx, 1; middle: mov rbx, 2; show rbx"))
    result = kernel.run(until="middle")
    assert (result.halt, result.exit_code, result.signal) == (Halt.BREAKPOINT, None, None)
    assert kernel.symbolize(kernel.machine.cpu.rip) == "middle"
    assert kernel.machine.cpu.registers()["rbx"] == 1
    assert kernel.run().exit_code == 0


def test_until_wants_a_symbol_that_exists(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(HELLO)
    with pytest.raises(InputError, match="has no symbol 'txt'; did you mean 'text'"):
        kernel.run(until="txt")


def test_there_must_be_something_to_run(make_kernel: MakeKernel) -> None:
    with pytest.raises(InputError, match="there is no process to run"):
        make_kernel().run()


def test_there_must_be_such_a_process(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(HELLO)
    assert kernel.process(1).image is HELLO
    with pytest.raises(InputError, match="there is no process 2"):
        kernel.process(2)


def test_before_exit_the_memory_is_still_there_to_look_at(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(small("mov dword ptr [rip + buffer], 0x11223344"))
    result = kernel.run(before_exit=True)
    assert result.exit_code == 0
    assert result.stats["frames"]["leaked"] == 0
    assert user_memory(kernel, process, process.image.address_of("buffer"), 4) == bytes.fromhex("44332211")
    kernel.close()
    assert kernel.frames.used == kernel.boot_frames


@pytest.mark.parametrize("limit", [1, 10, 57, 58, 100, 139, 1000])
@pytest.mark.parametrize("engine", ["trap", "access"])
def test_the_instruction_limit_is_exact_and_the_run_can_go_on(limit: int, engine: str, make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"engine": engine})
    kernel.spawn(assemble(PROGRAMS / "page_cross.asm"))
    kernel.machine.max_instructions = limit
    result = kernel.run()
    assert (result.halt, result.exit_code) == (Halt.INSTRUCTION_LIMIT, None)
    assert sum(result.stats["instructions"].values()) == limit
    kernel.machine.max_instructions = 1 << 62
    assert kernel.run().exit_code == 0


def test_a_run_in_pieces_counts_what_a_run_in_one_piece_counts(make_kernel: MakeKernel, run_image: RunImage) -> None:
    image = assemble(PROGRAMS / "string_ops.asm")
    whole = run_image(image).result.stats
    kernel = make_kernel()
    kernel.spawn(image)
    for limit in range(100, 1200, 100):
        kernel.machine.max_instructions = limit
        kernel.run()
    kernel.machine.max_instructions = 1 << 62
    pieces = kernel.run().stats
    for key in ("instructions", "accesses", "faults", "walk", "syscalls", "exit"):
        assert pieces[key] == whole[key]


def test_a_kernel_can_be_closed_at_any_moment(make_kernel: MakeKernel) -> None:
    """In user mode, in the entry code, in the middle of anything: nothing is left behind (the fixture looks)."""
    for limit in range(1, 200, 7):
        kernel = make_kernel({"ram": "2M"})
        kernel.spawn(HELLO)
        kernel.machine.max_instructions = limit
        kernel.run()
        kernel.close()


# --- the timer ------------------------------------------------------------------------------------

COUNT = 30_000_000
LOOP = f"""
_start: mov ecx, {COUNT}; xor eax, eax; mov ebx, 5; movq xmm1, rbx; stc
1:      lea rax, [rax + 3]; dec ecx; jnz 1b
        adc rax, 0; movq rdx, xmm1; sub rax, {3 * COUNT}; lea rdi, [rax + rdx]; mov eax, 60; syscall"""


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_the_timer_interrupts_and_does_no_harm(engine: str, make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"engine": engine})
    interrupts = collect(kernel, "interrupt")
    kernel.spawn(assemble_source(LOOP))
    result = kernel.run()
    assert result.exit_code == 1 + 5  # the carry and the vector register came through
    assert result.stats["instructions"]["user"] == 5 + 3 * COUNT + 6
    ticks = kernel.now * 250 // (kernel.machine.profile.cpu.frequency_mhz * 1_000_000)
    assert kernel.scheduler.jiffies == len(interrupts) == ticks >= 1
    assert {event.cpl for event in interrupts} == {3}


# --- events ---------------------------------------------------------------------------------------

ALL_SORTS = "invoke GETPID; mov dword ptr [rip + buffer], 1; anonymous 4096; mov byte ptr [rax], 1; mov rbx, rax; "
ALL_SORTS += "invoke MUNMAP, rbx, 4096; show 1; xor eax, eax; mov al, [rax]"


@pytest.fixture
def everything(make_kernel: MakeKernel) -> tuple[Kernel, dict[str, list[Any]]]:
    """A kernel that has run a program, and all its events by name."""
    kernel = make_kernel()
    events: dict[str, list[Any]] = {name: [] for name in event_names()}
    for name, happened in events.items():
        kernel.on(name, happened.append)
    kernel.spawn(small(ALL_SORTS))
    assert kernel.run().signal == SIGSEGV
    return kernel, events


def test_every_kind_of_event_happens_but_the_timers(everything: tuple[Kernel, dict[str, list[Any]]]) -> None:
    _, events = everything
    rare = {"swap_in", "swap_io", "swap_out", "reclaim", "oom_kill", "huge_page"}
    unseen = {"interrupt", "fork", "cow", "transient", "cache_fill", *rare}
    assert {name for name, happened in events.items() if not happened} == unseen


def test_events_are_frozen_have_a_cycle_and_a_pid_and_come_in_order(
    everything: tuple[Kernel, dict[str, list[Any]]],
) -> None:
    _, events = everything
    for name, happened in events.items():
        if name not in ("access", "tlb_hit"):  # in the middle of a block, of which the clock has the end already
            assert [event.cycle for event in happened] == sorted(event.cycle for event in happened)
        assert {event.pid for event in happened} <= {0, 1}
        for event in happened[:1]:
            with pytest.raises(dataclasses.FrozenInstanceError):
                event.cycle = 0


def test_system_calls_are_told_with_arguments_and_results(everything: tuple[Kernel, dict[str, list[Any]]]) -> None:
    kernel, events = everything
    calls = [(event.name, event.number) for event in events["syscall"]]
    assert calls == [("getpid", 39), ("mmap", 9), ("munmap", 11), ("write", 1)]
    results = {event.name: event.result for event in events["syscall_exit"]}
    assert (results["getpid"], results["munmap"], results["write"]) == (1, 0, 17)
    (munmap,) = [event for event in events["syscall"] if event.name == "munmap"]
    assert munmap.arguments == (results["mmap"], 4096)
    assert kernel.processes[0].syscalls == {"getpid": 1, "mmap": 1, "munmap": 1, "write": 1}


def test_faults_signals_and_the_exit_are_told(everything: tuple[Kernel, dict[str, list[Any]]]) -> None:
    kernel, events = everything
    image = kernel.processes[0].image
    outcomes = [fault.outcome for fault in events["page_fault"]]
    assert outcomes == ["FILE", "DEMAND_ZERO", "DEMAND_ZERO", "BAD_ADDRESS"]
    last = events["page_fault"][-1]
    assert (last.address, last.error_code, image.line_of(last.rip) is not None) == (0, 4, True)
    (signal,) = events["signal"]
    assert (signal.signal, signal.name, signal.address) == (SIGSEGV, "SIGSEGV", 0)
    (program,), (end,) = events["exec"], events["exit"]
    assert (program.path, program.entry) == (image.path, image.entry)
    assert (end.exit_code, end.signal) == (None, SIGSEGV)
    assert [event.name for event in events["exception"]] == ["#PF"] * 4


def test_the_entry_code_really_executes(everything: tuple[Kernel, dict[str, list[Any]]]) -> None:
    kernel, events = everything
    visited = {kernel.symbolize(event.va).partition("+")[0] for event in events["instruction"] if event.cpl == 0}
    assert visited == {
        *("ret_from_fork", "swapgs_restore_regs_and_return_to_usermode", "native_irq_return_iret", "error_return"),
        *("entry_SYSCALL_64", "do_syscall_64", "asm_exc_page_fault", "error_entry", "exc_page_fault"),
    }


def test_a_system_call_is_a_path_through_named_code(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(assemble_source("_start: mov eax, 39; syscall; after: mov eax, 60; syscall"))
    kernel.run(until="after")
    symbols: list[str] = []
    kernel.on("instruction", lambda event: symbols.append(kernel.symbolize(event.va)))
    kernel.machine.stop_before()
    kernel.run()
    assert symbols[:3] == ["after", "after+0x5", "entry_SYSCALL_64"]
    assert symbols[-1] == "do_syscall_64"  # from an exit nobody returns


def test_nobody_listens_any_more_after_off(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    seen: list[Any] = []
    subscription = kernel.on("syscall", seen.append)
    kernel.on("syscall", lambda _: subscription.off(), once=True)
    kernel.spawn(HELLO)
    kernel.run()
    assert [event.name for event in seen] == ["write"]


def test_an_unknown_event_is_refused(make_kernel: MakeKernel) -> None:
    with pytest.raises(InputError, match="unknown event 'page_falt': did you mean page_fault"):
        make_kernel().on("page_falt", print)


def test_what_a_listener_raises_comes_out_of_run(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()

    @kernel.on("instruction")
    def refuse(event: Any) -> None:
        raise RuntimeError("enough")

    kernel.spawn(HELLO)
    with pytest.raises(HookError, match="enough"):
        kernel.run()


def test_a_listener_can_stop_the_run(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.on("syscall", lambda _: kernel.machine.stop(), once=True)
    kernel.spawn(HELLO)
    assert kernel.run().exit_code is None
    assert kernel.run().exit_code == 0


# --- extending ------------------------------------------------------------------------------------


@syscall(1000)
def add(kernel: Kernel, a: int, b: int) -> int:
    """A system call that only these tests have."""
    return a + b


def test_a_system_call_is_added_by_a_decorator(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    calls = collect(kernel, "syscall")
    kernel.spawn(small("invoke 1000, 30, 12; mov rdi, rax; mov eax, EXIT; syscall"))
    assert kernel.run().exit_code == 42
    assert (calls[0].name, calls[0].arguments) == ("add", (30, 12))


def test_who_sleeps_longer_than_the_clock_can_show_sleeps_for_ever(run_image: RunImage) -> None:
    sleep = "_start: mov rax, 0x7fffffffffffffff; push 0; push rax; mov rdi, rsp; xor esi, esi; mov eax, 35; syscall"
    result = run_image(assemble_source(sleep)).result
    assert (result.is_stuck, result.exit_code) == (True, None)
