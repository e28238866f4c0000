"""Files, as a program sees them: what cr3 answers is what the real kernel answers, call by call."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from file_cases import CASES, ROOT_ONLY
from file_programs import program, run_in
from hypothesis import given, settings
from hypothesis import strategies as st
from native import NativeResult, requires_native

from emu import Machine
from emu.assembler import assemble_source
from kernel import Kernel

pytestmark = [pytest.mark.native, requires_native]

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder of the host's: in a tmpfs, which is what the kernel's files are, where there is one."""
    place = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def under_cr3(text: str) -> NativeResult:
    """Run a program under cr3. Nothing may be left when it has ended."""
    stdout = io.BytesIO()
    kernel = Kernel(Machine(ram="16M"), stdout=stdout)
    kernel.spawn(assemble_source(text))
    result = kernel.run()
    kernel.close()
    assert kernel.frames.used == kernel.boot_frames, "frames leaked"
    assert kernel.page_cache.pages == kernel.page_cache.charged == 0
    return NativeResult(stdout.getvalue(), result.exit_code, result.signal)


def under_linux(text: str) -> NativeResult:
    with empty_folder() as folder:
        return run_in(folder, text)


@pytest.mark.parametrize("case", CASES)
def test_files_answer_as_under_the_real_kernel(case: str) -> None:
    if case in ROOT_ONLY and os.geteuid():
        pytest.skip("under cr3 everybody is root, so root has to ask the real kernel")
    text = program(CASES[case])
    assert under_cr3(text) == under_linux(text)


# --- any calls in any order ---------------------------------------------------------------------------------------

PATHS = ["a", "b", "c", "a/a", "a/b", "b/c", "a/a/b", "c/", "a/", "./a", "b/..", "a/../b", ".", "a/."]
FLAGS = [
    *("O_RDONLY", "O_WRONLY", "O_RDWR", "NEW", "NEW | O_TRUNC", "NEW | O_EXCL", "NEW | O_APPEND", "O_DIRECTORY"),
    *("O_NOFOLLOW", "O_PATH", "O_PATH | O_NOFOLLOW", "NEW | O_NOFOLLOW", "O_TMPFILE | O_RDWR", "O_TRUNC"),
]
path = st.sampled_from(PATHS).map(lambda name: f'"{name}"')
start = st.sampled_from(["AT_FDCWD", "AT_FDCWD", "3", "4", "5"])
fd = st.integers(3, 7).map(str)
flag = st.sampled_from(FLAGS).map(lambda flags: f"{flags} | O_NONBLOCK")
size = st.sampled_from(["0", "1", "10", "100", "4096", "5000", "9000"])
offset = st.sampled_from(["0", "1", "100", "4095", "4096", "4097", "8191", "20000", "-1"])
buffer = st.sampled_from(["BUFFER", "BUFFER + 1", "BUFFER + 4095", "BUFFER + 0xf000"])
table = st.tuples(buffer, size, buffer, size).map(lambda words: f"words({', '.join(words)})")


def call(name: str, *arguments: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    chosen = [st.just(argument) if isinstance(argument, str) else argument for argument in arguments]
    return st.tuples(*chosen).map(lambda values: f"{name}({', '.join(values)})")


def told(name: str, *arguments: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """A call that tells about a file; links and mode of its answer are shown."""
    return call(name, *arguments).map(lambda text: f"{text}; dump_at(0xe010, 12)")


ANY_CALL = st.one_of(
    call("open", path, flag, "0o644"),
    call("openat", start, path, flag, "0o600"),
    call("mkdir", path, "0o755"),
    call("rmdir", path),
    call("unlink", path),
    call("unlinkat", start, path, st.sampled_from(["0", "0x200"])),
    call("symlink", path, path),
    call("link", path, path),
    call("linkat", start, path, start, path, st.sampled_from(["0", "0x400", "AT_EMPTY_PATH"])),
    call("rename", path, path),
    call("renameat2", start, path, start, path, st.sampled_from(["0", "1", "2"])),
    call("chdir", path),
    call("fchdir", fd),
    call("access", path, st.sampled_from(["0", "1", "2", "4"])),
    call("close", fd),
    call("dup", fd),
    call("dup2", fd, fd),
    call("pipe2", "BUFFER + 0xe000", "O_NONBLOCK"),
    call("fcntl", fd, "3", "0"),
    call("lseek", fd, offset, st.sampled_from(["SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA", "SEEK_HOLE"])),
    call("truncate", path, offset),
    call("ftruncate", fd, offset),
    call("write", fd, buffer, size),
    call("pwrite64", fd, buffer, size, offset),
    call("writev", fd, table, "2"),
    call("sendfile", fd, fd, "0", size),
    call("copy_file_range", fd, "0", fd, "0", size, "0"),
    call("read", fd, buffer, size).map(lambda text: f"{text}; dump(60)"),
    call("pread64", fd, buffer, size, offset).map(lambda text: f"{text}; dump(60)"),
    call("readv", fd, table, "2").map(lambda text: f"{text}; dump_at(0xf000, 60)"),
    call("readlink", path, "BUFFER", "50").map(lambda text: f"{text}; dump(60)"),
    told("stat", path, "BUFFER + 0xe000"),
    told("lstat", path, "BUFFER + 0xe000"),
    told("fstat", fd, "BUFFER + 0xe000"),
    told("newfstatat", start, path, "BUFFER + 0xe000", st.sampled_from(["0", "AT_SYMLINK_NOFOLLOW", "AT_EMPTY_PATH"])),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(ANY_CALL, min_size=20, max_size=80))
def test_any_calls_in_any_order_answer_as_under_the_real_kernel(calls: list[str]) -> None:
    text = program("\n".join(["fill(0xff00)", *calls]))
    assert under_cr3(text) == under_linux(text)
