"""How much memory is promised: the three modes of vm.overcommit_memory, set by guests through /proc/sys.

Facts: mm/util.c (__vm_enough_memory), Documentation/mm/overcommit-accounting.rst. The real kernel is not asked: its
knobs are the whole machine's.
"""

from __future__ import annotations

import errno

import pytest
from conftest import MakeKernel
from small_programs import small_program

from emu.assembler import assemble_source
from kernel import Kernel

WRITE_KNOB = """
    lea rdi, [rip + 7f]; mov esi, 1; xor edx, edx; mov eax, 2; syscall       # open(path, O_WRONLY)
    mov edi, eax; lea rsi, [rip + 8f]; mov edx, {size}; mov eax, 1; syscall  # write
    jmp 9f
7:  .asciz "/proc/sys/{name}"
8:  .ascii "{value}"
9:"""


def knob(name: str, value: int) -> str:
    """Code that writes a knob."""
    return WRITE_KNOB.format(name=name, value=value, size=len(str(value)))


def answers(make_kernel: MakeKernel, body: str, call: str, **options: str) -> tuple[Kernel, list[int]]:
    """What all calls of one kind answer in a machine of 16 MiB; negative results are errnos."""
    kernel = make_kernel({"ram": "16M"}, **options)
    results: list[int] = []
    kernel.on("syscall_exit", lambda event: results.append(event.result) if event.name == call else None)
    kernel.spawn(assemble_source(small_program(body)))
    kernel.run()
    return kernel, results


FITS, TOO_MUCH = "anonymous 0x800000", "anonymous 0x2000000"  # 8 and 32 MiB
NO_RESERVE = "anonymous 0x2000000, 3, NORESERVE"
READ_ONLY = "anonymous 0x2000000, 1"


def refused(results: list[int]) -> list[bool]:
    assert all(result > 0 or result == -errno.ENOMEM for result in results)
    return [result < 0 for result in results]


def test_by_default_only_what_is_obviously_too_much_is_refused(make_kernel: MakeKernel) -> None:
    _, results = answers(make_kernel, f"{TOO_MUCH}; {FITS}; {FITS}; {FITS}; {NO_RESERVE}; {READ_ONLY}", "mmap")
    assert refused(results) == [True, False, False, False, False, False]


def test_swap_counts_as_memory_that_can_be_promised(make_kernel: MakeKernel) -> None:
    _, results = answers(make_kernel, TOO_MUCH, "mmap", swap="32M")
    assert refused(results) == [False]


def test_mode_1_promises_everything(make_kernel: MakeKernel) -> None:
    _, results = answers(make_kernel, f"{knob('vm/overcommit_memory', 1)} {TOO_MUCH}; {TOO_MUCH}", "mmap")
    assert refused(results) == [False, False]


def test_mode_2_promises_what_can_be_kept(make_kernel: MakeKernel) -> None:
    """Half of RAM, without swap; MAP_NORESERVE does not help, and what is given back can be promised again."""
    small = "anonymous 0x400000"
    body = f"{small}; mov r15, rax; {small}; {NO_RESERVE}; invoke MUNMAP, r15, 0x400000; {small}; {READ_ONLY}"
    kernel, results = answers(make_kernel, f"{knob('vm/overcommit_memory', 2)} {body}", "mmap")
    assert refused(results) == [False, True, True, False, False]
    assert kernel.manager.overcommit.limit == kernel.frames.total // 2


def test_the_ratio_of_mode_2_can_be_set(make_kernel: MakeKernel) -> None:
    body = f"{knob('vm/overcommit_memory', 2)} {knob('vm/overcommit_ratio', 90)} {FITS}; {FITS}"
    _, results = answers(make_kernel, body, "mmap")
    assert refused(results) == [False, True]


# --- the other limits that are knobs ------------------------------------------------------------------------------


def test_the_lowest_address_of_a_mapping_can_be_set(make_kernel: MakeKernel) -> None:
    fixed = "anonymous 4096, 3, 0x32, 0x10000"
    _, results = answers(make_kernel, f"{fixed}; {knob('vm/mmap_min_addr', 0x20000)} {fixed}", "mmap")
    assert results == [0x10000, -errno.EPERM]


def test_the_number_of_mappings_can_be_set(make_kernel: MakeKernel) -> None:
    apart = "anonymous 4096, 1; anonymous 4096, 3;"
    _, results = answers(make_kernel, f"{knob('vm/max_map_count', 6)} {apart * 4}", "mmap")
    assert refused(results)[-1] and not refused(results)[0]


def test_process_numbers_begin_again_below_pid_max(make_kernel: MakeKernel) -> None:
    child = "invoke FORK; test eax, eax; jz 5f; mov r12, rax; invoke WAIT4, r12, rsp, 0, 0"
    loop = f"mov r14d, 305; 4: {child}; dec r14d; jnz 4b; 5: xor edi, edi; mov eax, EXIT; syscall"
    body = f"{knob('kernel/pid_max', 301)} {loop}"
    _, results = answers(make_kernel, body, "fork")
    pids = [pid for pid in results if pid]
    assert len(pids) == 305
    assert max(pids) == 300
    assert pids.count(2) == 2  # 1 is still there


@pytest.mark.parametrize("value", [3, -1, "x"])
def test_what_is_no_mode_is_refused(value: int | str, make_kernel: MakeKernel) -> None:
    kernel, results = answers(make_kernel, knob("vm/overcommit_memory", value), "write")  # type: ignore[arg-type]
    assert results == [-errno.EINVAL]
    assert kernel.manager.overcommit.mode == 0
