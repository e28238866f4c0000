"""Who waits for a page sleeps, and others run; whatever happens meanwhile, nothing is lost or left over."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeKernel, RunImage
from small_programs import small_program

from emu.assembler import assemble_source
from emu.image import Image
from kernel import Kernel

DISK: dict[str, Any] = {"swap": "1M", "swap_device": "disk"}
OUT = "invoke MADVISE, rbx, 8192, 21"
"""Both pages go to swap."""
SIGKILL = 9
SLOT_READ = 8_000_000 * 3 // 2
"""Cycles for a page from the disk are at least so many."""


def image(body: str) -> Image:
    """A program with two pages at rbx, which hold 5 and 6."""
    pages = "anonymous 8192; mov rbx, rax; mov qword ptr [rbx], 5; mov qword ptr [rbx + 4096], 6"
    return assemble_source(small_program(f"{pages}; {body}"))


WAITER = image(f"{OUT}; mov rax, [rbx]; show rax")
SPINNER = image("mov ecx, 20000000; 1: dec ecx; jnz 1b; show 1")


def time_of(make_kernel: MakeKernel, *images: Image) -> tuple[int, Kernel]:
    """Cycles that the model's clock shows when all have ended."""
    kernel = make_kernel(**DISK)
    for one in images:
        kernel.spawn(one)
    assert kernel.run().exit_code == 0
    return kernel.now, kernel


def test_others_run_while_one_waits_for_its_page(make_kernel: MakeKernel) -> None:
    alone, waiting = time_of(make_kernel, WAITER)
    together, kernel = time_of(make_kernel, WAITER, SPINNER)
    spinning, _ = time_of(make_kernel, SPINNER)
    assert together < alone + spinning - SLOT_READ
    assert waiting.machine.clock.by_cause()["swap_io"] > kernel.machine.clock.by_cause()["swap_io"] + SLOT_READ


def test_who_waits_for_a_page_is_in_uninterruptible_sleep(make_kernel: MakeKernel) -> None:
    states: list[bool] = []
    kernel = make_kernel(**DISK)
    waiter, _ = kernel.spawn(WAITER), kernel.spawn(SPINNER)
    kernel.on("context_switch", lambda _: states.append(waiter.waits_for_io))
    kernel.run()
    assert any(states)
    assert (waiter.major_faults, kernel.manager.swap.reads) == (1, 1)


FORKED = f"{OUT}; invoke FORK; mov r12, rax; "


def test_a_page_that_two_processes_wait_for_is_read_once(run_image: RunImage) -> None:
    ended = run_image(image(FORKED + "mov r13, [rbx]; show r13; invoke WAIT4, -1, 0, 0, 0"), **DISK)
    assert ended.stdout == b"%016x\n" % 5 * 2
    assert ended.result.stats["swap"]["in"] == 1


@pytest.mark.parametrize("reads_on", ["show [rbx]", "nop"])
def test_a_process_that_is_killed_while_it_waits_leaves_nothing_behind(run_image: RunImage, reads_on: str) -> None:
    """Its page is on the way then: it is the parent's, too, who wants it or ends without it."""
    parent = (
        f"invoke SCHED_YIELD; invoke 62, r12, 9; invoke WAIT4, r12, rsp, 0, 0; mov eax, [rsp]; show rax; {reads_on}"
    )
    ended = run_image(
        image(FORKED + f"test eax, eax; jz 1f; {parent}; jmp 2f; 1: mov rax, [rbx]; show rax; 2:"), **DISK
    )
    assert ended.stdout == b"%016x\n" % SIGKILL + (b"%016x\n" % 5 if reads_on != "nop" else b"")
    assert ended.result.stats["swap"]["in"] == 1


def test_a_machine_that_is_switched_off_in_the_middle_leaves_nothing_behind(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(**DISK)
    waiter = kernel.spawn(WAITER)
    kernel.spawn(image("1: invoke SCHED_YIELD; jmp 1b"))
    kernel.on("context_switch", lambda _: kernel.machine.stop() if waiter.waits_for_io else None)
    kernel.run()
    assert waiter.waits_for_io and waiter.alive
    assert kernel.manager.swap.unmapped == 1


def test_pages_that_a_program_says_it_will_need_come_without_its_waiting(run_image: RunImage) -> None:
    spin = "mov ecx, 60000000; 1: dec ecx; jnz 1b"
    ended = run_image(image(f"{OUT}; invoke MADVISE, rbx, 8192, 3; {spin}; mov rax, [rbx]; show rax"), **DISK)
    assert ended.stdout == b"%016x\n" % 5
    assert ended.result.stats["swap"]["in"] == 2
    assert ended.result.stats["faults"]["major"] == 0
    assert ended.kernel.machine.clock.by_cause().keys().isdisjoint({"idle"})


def test_neighbours_come_along_if_the_knob_says_so(run_image: RunImage) -> None:
    knob = """
    lea     rdi, [rip + path]
    invoke  2, rdi, 1                   # open
    lea     rsi, [rip + digit]
    invoke  WRITE, rax, rsi, 1
    """
    text = '.data; path: .asciz "/proc/sys/vm/page-cluster"; digit: .ascii "3"; .text'
    touch = f"{OUT}; mov rax, [rbx]; add rax, [rbx + 4096]; show rax"
    ended = run_image(image(f"{knob}; {touch}; mov eax, 60; syscall; {text}"), **DISK)
    assert ended.stdout == b"%016x\n" % 11
    assert ended.result.stats["swap"] == {"in": 2, "out": 2}
    assert ended.result.stats["faults"]["major"] == 1


# --- a file that fails ----------------------------------------------------------------------------

SIGBUS = 7
FILLED = f"{OUT}; invoke GETPID"


def interfered(make_kernel: MakeKernel, body: str, path: Path, interfere: Callable[[], object]) -> tuple[Kernel, bytes]:
    """Run a program, and do something to its swap file when it asks for its pid: its pages are out then."""
    stdout = io.BytesIO()
    kernel = make_kernel(swap="64k", swap_file=path, stdout=stdout)
    kernel.spawn(image(f"{FILLED}; {body}"))
    kernel.on("syscall", lambda event: interfere() if event.name == "getpid" else None)
    kernel.run()
    return kernel, stdout.getvalue()


def test_a_swap_file_that_is_cut_off_ends_who_needs_it_and_nobody_else(make_kernel: MakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "swap"
    body = """
    invoke  FORK
    test    eax, eax
    jnz     1f
    mov     rax, [rbx]                  # cannot be had any more
    show    rax
1:  show    8                           # what is in memory goes on
    invoke  WAIT4, -1, rsp, 0, 0
    mov     eax, [rsp]
    show    rax
    """
    kernel, stdout = interfered(make_kernel, body, path, lambda: os.truncate(path, 4096))
    assert stdout == b"%016x\n" % 8 + b"%016x\n" % SIGBUS
    assert kernel.manager.swap.error == f"cannot read from {path}: Input/output error"


def test_a_system_call_that_needs_what_is_lost_fails(make_kernel: MakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "swap"
    body = "invoke WRITE, 1, rbx, 8; show rax"
    _, stdout = interfered(make_kernel, body, path, lambda: os.truncate(path, 4096))
    assert stdout == b"%016x\n" % (-14 & 2**64 - 1)  # EFAULT


def test_a_swap_file_that_is_deleted_is_still_there_for_who_has_it_open(
    make_kernel: MakeKernel, tmp_path: Path
) -> None:
    path = tmp_path / "swap"
    kernel, stdout = interfered(make_kernel, "mov rax, [rbx]; show rax", path, path.unlink)
    assert stdout == b"%016x\n" % 5
    assert kernel.manager.swap.error is None
