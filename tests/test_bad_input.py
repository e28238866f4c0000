"""What people get for input that is wrong: one clear message, exit code 2, and nothing else.

Nothing on standard output, no traceback, and no file that was there before is touched.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import ROOT, Outcome, cr3, cr3_process, program, source
from hypothesis import given, settings
from hypothesis import strategies as st

HELLO = program("hello")
LOOP = program("sum_loop")


def assert_refused(outcome: Outcome, *said: str) -> None:
    """Exit code 2, and a short message that says all of this."""
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "Traceback" not in outcome.stderr
    assert len(outcome.stderr.splitlines()) <= 3
    for words in said:
        assert words in outcome.stderr


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'PROGRAM...'"),
        (["walk", HELLO], "Missing argument 'ADDRESS'"),
        (["rum", HELLO], "No such command 'rum'"),
        (["run", HELLO, "--populat"], "--populate"),
        (["run", HELLO, "--cache", "on"], "No such option '--cache'"),
        (["run", HELLO, "--swap"], "Try 'cr3 run --help'"),
        (["rnu", HELLO], "Did you mean 'cr3 run'?"),
        ([HELLO], "hello.asm'. Did you mean 'cr3 run "),
        (["run", HELLO.with_suffix("")], "hello: No such file or directory; did you mean "),
        (["run", HELLO, "--seed", "x"], "'x' is not a valid whole number"),
        (["trace", HELLO, "--events", "cache"], "there are no caches to watch; add --caches"),
        (["check", "1", "--json"], "name one"),
        (["check", "--start", "mine.py"], "which EXERCISE"),
        (["check", "1", ROOT], "it is no regular file"),
        (["run", HELLO, "--swap", "4K"], "too small; give it two pages or more"),
        (["run", HELLO, "--cpu", "skylak"], "did you mean skylake?"),
        (["run", HELLO, "--cpu", "pentium"], "there are broadwell, haswell, skylake, zen2"),
        (["run", HELLO, "--cpu", "nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["run", HELLO, "--cpu", "zen2", "--pcid", "on"], "zen2 has no PCIDs"),
        (["run", HELLO, "--ram", "1K"], "at least 64K"),
        (["run", HELLO, "--ram", "64K"], "too small for the kernel"),
        (["run", HELLO, "--ram", "much"], "'much' is not a size; write it as 64M"),
        (["run", HELLO, "--ram", "1000000G"], "does not have so much memory"),
        (["run", HELLO, "--engine", "trap", "--tlb", "none"], "use --engine access"),
        (["run", HELLO, "--engine", "fast"], "'auto', 'trap', 'access'"),
        (["run", HELLO, "--tlb-policy", "mru"], "'fifo', 'random', 'lru', 'plru'"),
        (["run", HELLO, "--max-instructions", "0"], "write it as 5000, 20M or 10G"),
        (["run", HELLO, "--max-instructions", "lots"], "write it as 5000, 20M or 10G"),
        (["run", HELLO, "--seed", "-1"], "--seed"),
        (["run", LOOP, "--until", "don"], "has no symbol 'don'; did you mean 'done'?"),
        (["trace", HELLO, "--events", "fault,sycall"], "unknown event 'sycall': did you mean syscall?"),
        (["trace", HELLO, "--events", "sleep"], "there are access, all, cache, cache_fill, context_switch"),
        (["trace", HELLO, "--events", ","], "no events to trace"),
        (["trace", HELLO, "--limit", "0"], "--limit"),
        (["trace", HELLO, "--events", "access", "--engine", "trap"], "leave out --engine trap"),
        (["walk", HELLO, "nothing"], "has no symbol 'nothing'"),
        (["walk", HELLO, "_start+x"], "'x' is not a number"),
        (["walk", HELLO, "0x800000000000"], "0x800000000000 is not canonical"),
        (["walk", HELLO, hex(1 << 64)], "more than 64 bits"),
        (["profiles", "skylak"], "did you mean skylake?"),
    ],
    ids=lambda value: " ".join(map(str, value[2:])) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_refused_with_what_was_expected(arguments: list[str], said: str) -> None:
    assert_refused(cr3(*arguments), said)


# --- programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["run"], ["trace"], ["asm"], ["walk"]], ids=" ".join)
def test_a_program_that_is_no_program(command: list[str], tmp_path: Path) -> None:
    rest = ["0x1000"] if command == ["walk"] else []
    empty = tmp_path / "empty.asm"
    empty.touch()
    assert_refused(cr3(*command, tmp_path / "nowhere.asm", *rest), "nowhere.asm: No such file", "expected assembly")
    assert_refused(cr3(*command, tmp_path, *rest), "this is a directory", "expected assembly")
    assert_refused(cr3(*command, empty, *rest), "this file is empty", "expected assembly")


def test_an_error_in_the_source_begins_with_file_line_and_column() -> None:
    path = source("_start:\n    mov rax, rbx, rcx\n")
    outcome = cr3("run", path)
    assert_refused(outcome, "invalid operand", "mov rax, rbx, rcx")
    assert re.match(rf"{re.escape(str(path))}:2:\d+: ", outcome.stderr)
    assert_refused(cr3("run", source("_start: jmp nowhere")), ":1:13: undefined symbol 'nowhere'")


def test_an_elf_file_that_is_not_for_us(tmp_path: Path) -> None:
    elf = tmp_path / "hello"
    cr3("asm", HELLO, "-o", elf)
    whole = elf.read_bytes()
    elf.write_bytes(whole[:200])
    assert_refused(cr3("run", elf), "truncated")
    elf.write_bytes(whole[:18] + b"\xb7" + whole[19:])  # e_machine
    assert_refused(cr3("run", elf), "AArch64", "expected 64-bit little-endian x86-64")


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_refused_or_run_but_never_a_traceback(data: bytes) -> None:
    path = source("").parent / "bytes.asm"
    path.write_bytes(data)
    outcome = cr3("run", path, "--max-instructions", "1000")
    assert "Traceback" not in outcome.stderr
    assert outcome.exit_code in (0, 2, 124) or outcome.exit_code >= 128


# --- files to write -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["run", HELLO, "--json"], ["trace", HELLO, "--out"], ["asm", HELLO, "-o"]], ids=lambda a: a[0]
)
def test_a_file_that_cannot_be_written(arguments: list[str], tmp_path: Path) -> None:
    assert_refused(cr3(*arguments, tmp_path / "no" / "folder.json"), "cannot write this file: No such file")
    assert_refused(cr3(*arguments, tmp_path), "cannot write this file: Is a directory")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_run_leaves_old_results_as_they_were(tmp_path: Path) -> None:
    old = tmp_path / "stats.json"
    old.write_text("old")
    for arguments in (["nowhere.asm"], [HELLO, "--ram", "64K"], [HELLO, "--until", "nowhere"]):
        assert_refused(cr3("run", *arguments, "--json", old))
    assert_refused(cr3("trace", HELLO, "--cpu", "pentium", "--out", old))
    assert_refused(cr3("asm", source("frobnicate"), "-o", old))
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(old, "old")]


@pytest.mark.parametrize(
    "arguments", [["run", "--json"], ["trace", "--out"], ["asm", "-o"], ["report", "-o"]], ids=lambda a: a[0]
)
def test_nobody_loses_a_source_by_naming_it_as_the_result(arguments: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.asm"
    mine.write_bytes(text := HELLO.read_bytes())
    command, option = arguments
    assert_refused(cr3(command, mine, option, mine), "mine.asm: this is a source, and is left as it is")
    assert mine.read_bytes() == text


def test_as_a_process_it_is_the_same() -> None:
    assert_refused(cr3_process("run", "nowhere.asm"), "cr3: nowhere.asm: No such file")
    assert_refused(cr3_process("run", "programs/hello.asm", "--cache", "on"), "Try 'cr3 run --help'.")
    assert (ROOT / "programs" / "hello.asm").exists()
