"""How a program ends and what its address space looks like then, natively and under cr3.

The native one is a child of this process that ptrace stops right before it exits, when its memory is still there. It
runs without randomised addresses, so both kernels put every mapping at the same place, and without capabilities: then
root is bound by the limits that cr3 knows. What cr3 does not have, the vdso, is left out.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from native import build_native, ptrace

from emu.elf import load_elf
from kernel import ExitEvent, Kernel, Process, SignalEvent
from kernel.pagewalk import resident_set

__all__ = ["Ending", "Mapped", "run_natively", "run_under_cr3", "space_of"]

Mapped = tuple[str, str, str]
"""Start, end, rights as in /proc/PID/maps."""

FAULTS = (4, 7, 8, 11)
"""Signals that have an address: SIGILL, SIGBUS, SIGFPE, SIGSEGV."""
TRACEME, CONT, SETOPTIONS, GETSIGINFO = 0, 7, 0x4200, 0x4202
TRACEEXIT, EXITKILL = 0x40, 0x10_0000
EXIT_STOP = 5 | 6 << 8
ADDR_NO_RANDOMIZE = 0x40000
CAPBSET_DROP = 24
_MAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (....) .{8} \S+ \d+ *(.*)$", re.MULTILINE)

_HUGE = re.compile(r"^AnonHugePages: +(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Ending:
    """`address` is the si_addr of the signal that ended it; `minor_faults` are those after exec. `huge` are the kB that
    lie in transparent huge pages.
    """

    stdout: str
    exit_code: int | None
    signal: int | None
    address: int | None
    space: tuple[Mapped, ...]
    huge: int
    minor_faults: int = field(compare=False)


def run_natively(source: str, stdin: bytes = b"") -> Ending:
    """Run a program under the real kernel. Raises NativeBuildError."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            [build_native(source)], stdin=given, stdout=stdout, env={}, preexec_fn=_become_traced
        )
        try:
            return _follow(process.pid, stdout)
        finally:
            process.returncode = 0  # it was waited for


def _become_traced() -> None:
    libc = ctypes.CDLL(None)
    libc.personality(ADDR_NO_RANDOMIZE)
    for capability in range(64):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    ptrace(TRACEME)


def _follow(pid: int, stdout: BinaryIO) -> Ending:
    os.waitpid(pid, 0)  # the stop at exec
    ptrace(SETOPTIONS, pid, 0, TRACEEXIT | EXITKILL)
    before = faults = _minor_faults(pid)
    pending, address, space, huge = 0, None, (), 0
    while True:
        ptrace(CONT, pid, 0, pending)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            break
        pending = 0 if status >> 8 == EXIT_STOP else os.WSTOPSIG(status)
        if pending:
            address = _signal_address(pid, pending)
        else:
            space, faults = space_of(Path(f"/proc/{pid}/maps").read_text()), _minor_faults(pid)
            huge = sum(map(int, _HUGE.findall(Path(f"/proc/{pid}/smaps").read_text())))
    stdout.seek(0)
    signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if signal is None else None
    address, faults = address if signal else None, faults - before
    return Ending(stdout.read().decode("latin-1"), code, signal, address, space, huge, faults)


def _minor_faults(pid: int) -> int:
    """min_flt of /proc/PID/stat: it goes on counting over exec, so the one before it has faults of ours."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[7])


def _signal_address(pid: int, number: int) -> int | None:
    info = ctypes.create_string_buffer(128)
    ptrace(GETSIGINFO, pid, 0, ctypes.addressof(info))
    return int(struct.unpack_from("=16xQ", info)[0]) if number in FAULTS else None


def space_of(maps: str) -> tuple[Mapped, ...]:
    """The mappings of a program in the text of /proc/PID/maps."""
    ours = (found.groups() for found in _MAP.finditer(maps))
    return tuple((start, end, rights) for start, end, rights, name in ours if not name.startswith(("[v", "[uprobes")))


def run_under_cr3(source: str, kernel: Kernel) -> Ending:
    """Run a program, linked for the real kernel, under cr3. What the kernel's stdout is gets what it prints."""
    process = kernel.spawn(load_elf(build_native(source)))
    exec_faults = process.mm.faults_of_exec
    addresses: list[int | None] = [None]
    huge: list[int] = []

    def note(event: SignalEvent) -> None:
        if event.pid == process.pid and event.signal in FAULTS:
            addresses.append(event.address)

    def look(event: ExitEvent) -> None:
        if event.pid == process.pid:
            huge.append(resident_set(kernel, process.mm).anonymous_huge >> 10)

    kernel.on("signal", note)
    kernel.on("exit", look)
    kernel.run()
    kernel.stdout.seek(0)
    address = addresses[-1] if process.signal in FAULTS else None
    faults = process.minor_faults - exec_faults
    text = kernel.stdout.read().decode("latin-1")
    return Ending(text, process.exit_code, process.signal, address, _space(process), huge[0], faults)


def _space(process: Process) -> tuple[Mapped, ...]:
    space = []
    for vma in process.mm.maps():
        rights = "".join(letter if vma.prot & right else "-" for letter, right in zip("rwx", (1, 2, 4), strict=True))
        space.append((f"{vma.start:08x}", f"{vma.end:08x}", rights + ("s" if vma.is_shared else "p")))
    return tuple(space)
