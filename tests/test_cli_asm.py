"""`cr3 asm`: the listing, and ELF files that run here and on Linux."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from command import cr3, program, source
from expectations import PROGRAMS, expectation
from native import requires_native


def test_the_listing_has_address_bytes_and_source() -> None:
    lines = cr3("asm", source("_start: mov edi, 7\n  mov eax, 60 # exit\n  syscall")).stdout.splitlines()
    assert lines[0].endswith("program.asm: entry 0x401000 (_start)")
    assert [line.split(maxsplit=1)[0] for line in lines[3:]] == ["401000", "401005", "40100a"]
    assert "bf 07 00 00 00" in lines[3]
    assert lines[4].endswith("mov eax, 60 # exit")


def test_an_elf_file_is_disassembled(tmp_path: Path) -> None:
    elf = tmp_path / "program"
    cr3("asm", source("_start: mov edi, 7; mov eax, 60; syscall"), "-o", elf)
    assert "mov eax, 0x3c" in cr3("asm", elf).stdout


def test_writing_a_file_prints_nothing_and_makes_it_executable(tmp_path: Path) -> None:
    elf = tmp_path / "hello"
    outcome = cr3("asm", program("hello"), "-o", elf)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert elf.read_bytes().startswith(b"\x7fELF") and os.access(elf, os.X_OK)
    assert list(tmp_path.iterdir()) == [elf]


def test_att_syntax_is_an_option() -> None:
    assert "bf 07 00 00 00" in cr3("asm", "--syntax", "att", source("_start: movl $7, %edi")).stdout


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_what_it_writes_runs_on_linux_as_promised(path: Path, tmp_path: Path) -> None:
    promise = expectation(path.read_text())
    cr3("asm", path, "-o", tmp_path / "program")
    done = subprocess.run([tmp_path / "program"], input=promise.stdin, stdout=subprocess.PIPE, timeout=30)
    assert done.stdout == promise.stdout
    assert done.returncode == (promise.exit_code if promise.signal is None else -promise.signal)
