"""Programs on anonymous memory fault where they fault under the real kernel: at the same addresses, in the same order.

`perf record -e page-faults` tells every address. What `perf` is not needed for, the number of faults of single
instructions, is in `test_memory_like_linux` and `test_random_memory`.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import MakeKernel
from memory_programs import memory_program
from native import build_native, requires_native

from emu.elf import load_elf
from kernel import PageFaultEvent

PERF = ("setarch", "-R", "perf", "record", "-q", "-e", "page-faults", "-c", "1", "-d")
STACK = 0x7FFF_FF00_0000
"""Above it are addresses that depend on the environment."""


@functools.cache
def _cannot_record() -> str:
    if shutil.which("perf") is None:
        return "perf is not installed: addresses of page faults cannot be compared"
    tried = subprocess.run([*PERF, "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"perf cannot record page faults here: {tried.stderr.strip()[:100]}" if tried.returncode else ""


pytestmark = [pytest.mark.native, requires_native]


@pytest.fixture(autouse=True)
def _needs_perf() -> None:
    if _cannot_record():
        pytest.skip(_cannot_record())


PROGRAMS = {
    "upwards": """
        anonymous 40 * PAGE; mov rbx, rax; mov ecx, 40
    1:  mov [rbx + 24], rcx; add rbx, PAGE; dec ecx; jnz 1b""",
    "downwards, every other page": """
        anonymous 40 * PAGE; lea rbx, [rax + 39 * PAGE]; mov ecx, 20
    1:  mov rax, [rbx + 8]; sub rbx, 2 * PAGE; dec ecx; jnz 1b""",
    "reading, then writing": """
        anonymous 9 * PAGE; mov rbx, rax; mov ecx, 9
    1:  inc qword ptr [rbx]; mov rax, [rbx + 100]; add rbx, PAGE; dec ecx; jnz 1b""",
    "over borders": "three; mov [rbx + 4092], rax; mov rax, [rbx + 8190]",
    "a copy": "three; lea rdi, [rbx + 100]; lea rsi, [rip + buffer]; mov ecx, 8192; rep movsb",
    "a copy, backwards": """
        three; lea rdi, [rbx + 8191]; lea rsi, [rip + buffer + 8191]; mov ecx, 8192; std; rep movsb; cld""",
    "populated": "anonymous 9 * PAGE, 3, 0x108022, 0x10000000; mov [rax], al; mov [rax + PAGE], al",
    "the heap": """
        invoke BRK, 0; mov rbx, rax; lea r12, [rbx + 5 * PAGE]; invoke BRK, r12; mov [rbx + 50], al
        mov [rbx + 4 * PAGE + 5], al; invoke BRK, rbx; invoke BRK, r12; mov [rbx + 51], al""",
    "after mprotect": """
        three_signed; invoke MPROTECT, rbx, PAGE, 1; invoke MPROTECT, rbx, PAGE, 3; mov [rbx + 1], al
        mov rax, [rbx + PAGE]""",
    "after madvise": """
        three_signed; invoke MADVISE, rbx, 2 * PAGE, DONTNEED; mov rax, [rbx + 9]; mov [rbx + PAGE + 9], al""",
    "after mremap": """
        three_signed; invoke MREMAP, rbx, 3 * PAGE, 5 * PAGE, 3, 0x20000000; mov rbx, rax; mov rax, [rbx + 7]
        mov [rbx + 3 * PAGE + 7], al""",
    "of a parent whose child is gone": """
        three_signed; in_child; mov al, [rbx]; child_ends; mov [rbx + 3], al; mov [rbx + PAGE + 3], al
        mov [rbx + 4], al""",
    "one that is refused": "three_signed; mov al, [rbx + 3 * PAGE + 77]",
}


def faults_natively(source: str, folder: Path) -> list[int]:
    """Addresses of the faults of user code in the first process."""
    program, data = build_native(source), folder / "perf.data"
    subprocess.run([*PERF, "-o", data, "env", "-i", program], capture_output=True, check=False)
    script = ("perf", "script", "-i", data, "--comm", "program", "-F", "pid,addr,ip")
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    rows = [(int(pid), int(address, 16), int(ip, 16)) for pid, address, ip in map(str.split, told.splitlines())]
    return [address for pid, address, ip in rows if pid == rows[0][0] and ip < STACK and address < STACK]


def faults_under_cr3(source: str, make_kernel: MakeKernel) -> list[int]:
    """The same of the model."""
    faults: list[PageFaultEvent] = []
    kernel = make_kernel()
    kernel.on("page_fault", faults.append)
    process = kernel.spawn(load_elf(build_native(source)))
    kernel.run()
    mine = [event for event in faults if event.pid == process.pid and event.rip < STACK]
    return [event.address for event in mine if event.address < STACK]


@pytest.mark.parametrize("case", PROGRAMS)
def test_page_faults_have_the_addresses_that_perf_records(case: str, make_kernel: MakeKernel, tmp_path: Path) -> None:
    source = memory_program(PROGRAMS[case])
    assert faults_under_cr3(source, make_kernel) == faults_natively(source, tmp_path)
