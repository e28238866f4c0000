"""Files, as a program sees them: what cr3 answers is what the real kernel answers, call by call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import RunImage
from file_programs import BUFFER, program, run_in
from native import NativeResult, requires_native

from emu.assembler import assemble_source

pytestmark = [pytest.mark.native, requires_native]

Steps = list[tuple[Any, ...]]

O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NONBLOCK = 1, 2, 0o100, 0o200, 0o1000, 0o2000, 0o4000
O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_PATH = 0o200000, 0o400000, 0o2000000, 0o10000000
NEW = O_RDWR | O_CREAT
AT_FDCWD = -100
SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE = range(5)

CASES: dict[str, Steps] = {
    "what was written is read": [
        ("open", "f", NEW, 0o644),
        ("fill", 9000),
        ("write", 3, BUFFER, 9000),
        ("lseek", 3, 0, SEEK_SET),
        ("read", 3, BUFFER + 1, 9000),
        ("dump", 9001),
        ("read", 3, BUFFER, 10),
        ("close", 3),
        ("close", 3),
        ("open", "g", 0),
        ("open", "f", 0),
        ("write", 3, BUFFER, 1),
    ],
    "a dup shares the offset": [
        ("open", "f", NEW, 0o644),
        ("write", 3, "some text", 9),
        ("dup", 3),
        ("dup2", 4, 9),
        ("lseek", 9, 3, SEEK_SET),
        ("read", 3, BUFFER, 3),
        ("dump", 3),
        ("lseek", 4, 0, SEEK_CUR),
    ],
    "a pipe ends when its writer goes": [
        ("pipe", BUFFER),
        ("dump", 8),
        ("write", 4, "some text", 9),
        ("read", 3, BUFFER, 100),
        ("dump", 9),
        ("close", 4),
        ("read", 3, BUFFER, 1),
    ],
}


def under_cr3(text: str, run_image: RunImage) -> NativeResult:
    ended = run_image(assemble_source(text))
    return NativeResult(ended.stdout, ended.result.exit_code, ended.result.signal)


@pytest.mark.parametrize("case", CASES)
def test_files_answer_as_under_the_real_kernel(case: str, run_image: RunImage, tmp_path: Path) -> None:
    text = program(CASES[case])
    assert under_cr3(text, run_image) == run_in(tmp_path, text)
