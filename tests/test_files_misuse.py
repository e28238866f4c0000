"""Nonsense in file system calls: it ends in an errno, or in a signal; never in a traceback, and nothing leaks."""

from __future__ import annotations

import io
import random

import pytest
from conftest import MakeKernel
from file_programs import NUMBERS, program

from emu.assembler import assemble_source

FILE_CALLS = [
    *("open", "openat", "creat", "close", "close_range", "read", "write", "pread64", "pwrite64", "readv"),
    *("writev", "preadv", "pwritev", "lseek", "ftruncate", "truncate", "stat", "lstat", "fstat", "newfstatat"),
    *("statx", "access", "readlink", "readlinkat", "unlink", "unlinkat", "link", "linkat", "symlink"),
    *("symlinkat", "mkdir", "mkdirat", "rmdir", "rename", "renameat2", "getdents64", "dup", "dup2", "dup3"),
    *("pipe2", "fcntl", "ioctl", "getcwd", "chdir", "fchdir", "umask", "fsync", "sendfile", "copy_file_range"),
    *("chmod", "fchmod", "poll", "ppoll", "statfs", "memfd_create", "mknod", "mknodat", "utimensat"),
]
PATHS = [
    *("/", "..", "a", "b", "a/b", "", "/dev/null", "/dev/zero", "/dev/tty", "/dev/stdin", "/dev/fd/1", "/proc/self"),
    *("/proc/self/fd/3", "/proc/self/fd", "/proc/1", "/proc/self/exe", "/proc/meminfo", "/proc/sys/vm/swappiness"),
    *("/sys", "/proc/self/cwd", "/proc/mounts", "/proc/thread-self"),
]
NUMBERS_OF_INTEREST = [0, 1, 2, 3, 4, 5, 8, -1, -100, 1024, 4096, 0o102, 0o4102, 0o200000, 0o10000000, 0o20200002]
EXTREMES = [0x7FFFFFFF, 0x80000000, 1 << 62, (1 << 63) - 1, 1 << 63, -4096, 0x1000, 0xFFFF888000000000]
ADDRESSES = ["BUFFER", "BUFFER + 4095", "BUFFER + 0xfff0", "words(3, 5, 1 << 62, -1, 0, 4096)", "words(0, 0, 0, 0)"]


def nonsense(generator: random.Random) -> str:
    """One call with arguments of all kinds in any place."""

    def argument() -> str:
        kind = generator.randrange(4)
        if kind == 0:
            return f'"{generator.choice(PATHS)}"'
        return str(generator.choice((NUMBERS_OF_INTEREST, EXTREMES, ADDRESSES)[kind - 1]))

    name = generator.choice(FILE_CALLS)
    return f"{name}({', '.join(argument() for _ in range(6))})"


@pytest.mark.parametrize("seed", range(8))
def test_nonsense_is_answered(seed: int, make_kernel: MakeKernel) -> None:
    assert set(FILE_CALLS) <= NUMBERS.keys()
    generator = random.Random(seed)
    calls = [nonsense(generator) for _ in range(150)]
    calls[::5] = [f'open("{generator.choice(PATHS)}", {generator.choice([0, 1, 2, 0o102])} | O_NONBLOCK, 0o600)'] * 30
    kernel = make_kernel({"ram": "8M"}, stdin=io.BytesIO(b"input"), stdout=io.BytesIO())
    process = kernel.spawn(assemble_source(program("\n".join(calls))))
    kernel.run()
    assert sum(process.syscalls.values()) > 20
