"""The real processor and the real kernel, as oracle.

A program in our dialect is also a program for GNU `as` and `ld`, so it runs on the machine that runs the
tests, and what it does there is right by definition.  Tests that ask the oracle are marked

    pytestmark = [pytest.mark.native, requires_native]

and are skipped, with the reason, where the tools or an x86-64 Linux are missing.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import platform
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

__all__ = [
    "FaultInfo",
    "NativeBuildError",
    "NativeResult",
    "build_native",
    "count_instructions",
    "fault_of",
    "requires_native",
    "run_native",
    "symbol_address",
]


def _missing() -> str:
    """Say what this machine lacks to be the oracle; the empty string if it lacks nothing."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"the oracle is an x86-64 Linux, this is {platform.system()} on {platform.machine()}"
    tools = [tool for tool in ("as", "ld") if shutil.which(tool) is None]
    return f"the oracle needs GNU {' and '.join(tools)}" if tools else ""


requires_native = pytest.mark.skipif(bool(_missing()), reason=_missing())
"""Mark for tests that run programs natively."""


class NativeBuildError(Exception):
    """`as` or `ld` refuses a program; the message is what the tool printed."""


@dataclass(frozen=True)
class NativeResult:
    """How a native process ended: `exit_code` is None when a signal (its number in `signal`) ended it."""

    stdout: bytes
    exit_code: int | None
    signal: int | None


def run_native(source: Path | str, stdin: bytes = b"", timeout: float = 10) -> NativeResult:
    """Assemble, link and run `source`: a Path is a file, a str is the program itself.

    Raises NativeBuildError if it does not assemble, subprocess.TimeoutExpired after `timeout` seconds.
    """
    text = source.read_text() if isinstance(source, Path) else source
    process = subprocess.run([build_native(text)], input=stdin, stdout=subprocess.PIPE, timeout=timeout)
    status = process.returncode
    return NativeResult(process.stdout, status if status >= 0 else None, -status if status < 0 else None)


@functools.cache
def build_native(text: str) -> Path:
    """Return a static executable made of `text`.  The same text is built once a session."""
    folder = Path(tempfile.mkdtemp(dir=_session_folder()))
    # The two options are the directive `.intel_syntax noprefix`, without moving the line numbers by one.
    _tool(folder, "as", "-msyntax=intel", "-mnaked-reg", "-o", "program.o", "-", stdin=text)
    _tool(folder, "ld", "-o", "program", "program.o")
    return folder / "program"


@functools.cache
def _session_folder() -> str:
    folder = tempfile.mkdtemp(prefix="cr3-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _tool(folder: Path, *command: str, stdin: str = "") -> None:
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, env=english)
    if done.returncode:
        raise NativeBuildError(done.stderr.strip())


def symbol_address(executable: Path, name: str) -> int:
    """Return the address of a label; KeyError if there is no such label."""
    with executable.open("rb") as file:
        symtab = ELFFile(file).get_section_by_name(".symtab")
        symbols = symtab.get_symbol_by_name(name) if isinstance(symtab, SymbolTableSection) else None
    if not symbols:
        raise KeyError(name)
    return int(symbols[0]["st_value"])


# <sys/ptrace.h>, and the place of rip in struct user_regs_struct (<sys/user.h>)
_TRACEME, _PEEKUSER, _CONT, _SINGLESTEP, _GETSIGINFO = 0, 3, 7, 9, 0x4202
_RIP = 16 * 8


def count_instructions(source: Path | str, until: str | None = None) -> int:
    """Count the instructions that `source` executes, up to the label `until` or to its end.

    The processor itself single-steps (RFLAGS.TF: Intel SDM Vol. 3B, Single-Step Exception Condition).  As in
    cr3 a REP instruction counts as one, and an instruction whose fault ends the program does not count.
    An instruction that jumps to itself is counted once.  About ten thousand steps a second.
    """
    executable = build_native(source.read_text() if isinstance(source, Path) else source)
    end = symbol_address(executable, until) if until else None
    with _traced(executable) as pid:
        return _step_through(pid, end)


@dataclass(frozen=True)
class FaultInfo:
    """What a process is told about its fault (siginfo_t, see sigaction(2))."""

    signal: int
    code: int
    address: int


def fault_of(source: str) -> FaultInfo:
    """Return the first signal of a program; ValueError if it exits without one."""
    with _traced(build_native(source)) as pid:
        os.waitpid(pid, 0)  # the stop at exec
        ptrace(_CONT, pid)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            raise ValueError("the program ended without a signal")
        info = ctypes.create_string_buffer(128)
        ptrace(_GETSIGINFO, pid, 0, ctypes.addressof(info))
        number, _, code, address = struct.unpack_from("=iiixxxxQ", info)
        return FaultInfo(number, code, address)


@contextmanager
def _traced(executable: Path) -> Iterator[int]:
    """Start a process that is stopped at its first instruction; it ends with the block."""
    process = subprocess.Popen(
        [executable],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: ptrace(_TRACEME),
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _step_through(pid: int, end: int | None) -> int:
    count, before, pending = 0, None, 0
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return count + os.WIFEXITED(status)  # the system call that does not return is an instruction too
        rip = ptrace(_PEEKUSER, pid, _RIP)
        count += before not in (None, rip)  # where rip stays, REP is not at its end
        if rip == end:
            return count
        before = rip
        pending = 0 if os.WSTOPSIG(status) == signal.SIGTRAP else os.WSTOPSIG(status)
        ptrace(_SINGLESTEP, pid, 0, pending)


def ptrace(request: int, pid: int = 0, address: int = 0, data: int = 0) -> int:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype, call.argtypes = ctypes.c_long, [ctypes.c_long] * 4
    ctypes.set_errno(0)
    result: int = call(request, pid, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), "ptrace")
    return result
