"""`cr3 run`: what a program's author, a shell script and a reader of the statistics are promised."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import ROOT, compile_once, cr3, cr3_process, program, source, stats
from expectations import PROGRAMS, expectation

from emu import GuestHalted
from kernel import KernelPanic
from kernel.fault import FaultHandler
from lab.statistics import schema
from lab.terminal import Status

COMMANDS = ["run", "trace", "walk", "maps", "asm", "profiles", "compare", "validate"]
LOOP_FOREVER = "_start: jmp _start"
EXIT_WITH_ARGC = "_start: mov rdi, [rsp]; mov eax, 60; syscall"
PRINT_SECOND_ARGUMENT = """
_start:
    mov     rsi, [rsp + 16]             # argv[1]
    mov     rdx, [rsp + 24]             # argv[2] begins where it ends
    sub     rdx, rsi
    mov     edi, 1
    mov     eax, 1
    syscall
    xor     edi, edi
    mov     eax, 60
    syscall
"""
SAY_SOMETHING = """
    .section .rodata
text: .ascii "here\\n"
    .text
_start:
    mov     edi, 1
    lea     rsi, [rip + text]
    mov     edx, 5
    mov     eax, 1
    syscall
"""
SAY_IT_FOREVER = f"{SAY_SOMETHING} jmp _start"
SAY_IT_AND_LOOP = f"{SAY_SOMETHING} loop: jmp loop"


# --- the program's world ------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_shipped_program_ends_as_its_header_promises(path: Path) -> None:
    promise = expectation(path.read_text())
    outcome = cr3("run", path, stdin=promise.stdin)
    assert outcome.stdout.encode() == promise.stdout
    assert outcome.exit_code == (promise.exit_code if promise.signal is None else 128 + promise.signal)


def test_as_a_process_it_has_the_same_streams_and_exit_code() -> None:
    assert cr3_process("run", program("echo"), stdin=b"one\ntwo").stdout == "one\ntwo"
    outcome = cr3_process("run", program("sum_loop"))
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (45, "", "")


def test_what_follows_two_dashes_is_the_programs() -> None:
    assert cr3("run", source(EXIT_WITH_ARGC)).exit_code == 1
    assert cr3("run", source(EXIT_WITH_ARGC), "--", "a", "--stats", "--", "b").exit_code == 5
    assert cr3("run", source(PRINT_SECOND_ARGUMENT), "--", "--until", "x").stdout == "--until\0"


def test_several_programs_are_several_processes_and_the_first_gives_the_exit_code() -> None:
    outcome = cr3("run", program("sum_loop"), program("hello"), source(EXIT_WITH_ARGC))
    assert (outcome.exit_code, outcome.stdout) == (45, "Hello, world!\n")
    ends = [process["exit"]["code"] for process in stats(program("sum_loop"), program("hello"))["processes"]]
    assert ends == [45, 0]


def test_an_elf_file_runs_like_its_source(tmp_path: Path) -> None:
    elf = tmp_path / "sum_loop"
    assert cr3("asm", program("sum_loop"), "-o", elf).exit_code == 0
    from_elf, from_source = stats(elf), stats(program("sum_loop"))
    assert from_elf["exit"] == from_source["exit"] == {"code": 45, "signal": None}
    assert from_elf["instructions"]["user"] == from_source["instructions"]["user"] == 68


def test_att_syntax_is_an_option() -> None:
    text = "_start: movl $7, %edi; movl $60, %eax; syscall"
    assert cr3("run", "--syntax", "att", source(text)).exit_code == 7


# --- how it ends --------------------------------------------------------------------------------


def test_a_signal_is_128_plus_its_number_and_one_line_says_where() -> None:
    outcome = cr3("run", program("segv"))
    assert outcome.exit_code == 128 + 11
    (line,) = outcome.stderr.splitlines()
    assert "SIGSEGV address 0xdead0000, at _start+0x1d" in line
    assert "segv.asm:31): mov byte ptr [rbx], 1" in line


def test_the_instruction_limit_is_exit_code_124_and_says_where() -> None:
    outcome = cr3("run", source(LOOP_FOREVER), "--max-instructions", "20k")
    assert outcome.exit_code == 124
    assert "stopped after 20,000 instructions (--max-instructions), at _start" in outcome.stderr


def test_until_stops_before_the_symbol_executes_and_is_no_failure() -> None:
    outcome = cr3("run", program("sum_loop"), "--until", "done")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    document = stats(program("sum_loop"), "--until", "done")
    assert document["exit"] == {"code": None, "signal": None}
    assert document["instructions"]["user"] == 65


def test_a_symbol_that_is_never_reached_is_told() -> None:
    text = "_start: mov edi, 7; mov eax, 60; syscall; never: nop"
    outcome = cr3("run", source(text), "--until", "never")
    assert (outcome.exit_code, outcome.stderr) == (7, "cr3: the program ended before it reached never\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KernelPanic("no frame is free twice"), "cr3: kernel panic: no frame is free twice\n"),
        (GuestHalted("HLT at 0x401000"), "cr3: the machine cannot go on: HLT at 0x401000\n"),
        (IndexError("list index out of range"), "cr3: this is a bug of cr3, please report it:\nTraceback"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_the_programs_fault_is_exit_code_70(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(FaultHandler, "handle", fail)
    outcome = cr3("run", program("hello"), "--json", tmp_path / "stats.json")
    assert (outcome.exit_code, outcome.stdout) == (70, "")
    assert outcome.stderr.startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("engine", ["trap", "access"])
def test_control_c_ends_even_a_loop_without_system_calls_quietly(engine: str) -> None:
    compile_once()
    command = [sys.executable, "-m", "lab", "run", "--engine", engine, str(source(SAY_IT_AND_LOOP))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, b"", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("command", [["run"], ["trace", "--events", "insn"]], ids=" ".join)
def test_a_reader_that_leaves_ends_it_quietly(command: list[str]) -> None:
    compile_once()
    whole = [sys.executable, "-m", "lab", *command, str(source(SAY_IT_FOREVER))]
    with subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        complaints = [line for line in process.stderr.read().splitlines() if line != b"here"]
    assert (process.returncode, complaints) == (141, [])


# --- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--tlb", "none", "--populate"],
        ["--engine", "access", "--tlb-policy", "plru", "--cpu", "zen2"],
        ["--engine", "trap", "--tlb-policy", "fifo", "--pcid", "off", "--ram", "8M", "--seed", "7"],
        ["--max-instructions", "20"],
        ["--until", "_start", "--cpu", "haswell"],
    ],
    ids=" ".join,
)
def test_the_json_document_fits_its_schema(options: list[str]) -> None:
    document = stats(program("hello"), *options)
    jsonschema.validate(document, schema())
    assert sum(document["cycles"]["by_cause"].values()) == document["cycles"]["total"]


def test_the_json_file_is_the_only_thing_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    with_file, without = cr3("run", program("hello"), "--json", path), cr3("run", program("hello"))
    assert with_file == without
    assert json.loads(path.read_text()) == stats(program("hello"))
    assert list(tmp_path.iterdir()) == [path]


def test_the_configuration_says_how_every_option_was_resolved() -> None:
    config = stats(program("sum_loop"), "--ram", "8M", "--tlb", "none", "--cpu", "zen2", "--", "a")["config"]
    assert config == {
        "arguments": ["a"],
        "syntax": "intel",
        "cpu": "zen2",
        "ram": 8 << 20,
        "engine": "access",
        "tlb_policy": "none",
        "caches": "off",
        "pte_inversion": "on",
        "secret": None,
        "thp": "madvise",
        "pti": "off",
        "pcid": "off",
        "asid": "pcid",
        "swap": 0,
        "swap_file": None,
        "swap_device": "nvme",
        "swap_policy": "active_inactive",
        "aslr": False,
        "populate": False,
        "root": None,
        "files": [],
        "seed": 1,
        "until": None,
        "max_instructions": 10_000_000_000,
    }


def entry_reads(document: dict[str, Any]) -> dict[str, int]:
    reads: dict[str, int] = document["walk"]["entry_reads"]["user"]
    return reads


def test_the_lectures_loop_reads_260_and_44_entries_without_a_tlb() -> None:
    document = stats(program("sum_loop"), "--until", "done", "--populate", "--tlb", "none")
    assert document["accesses"]["user"] == {"fetch": 65, "read": 0, "write": 11}
    assert entry_reads(document) == {"fetch": 65 * 4, "data": 11 * 4}


def test_with_a_tlb_two_walks_are_left() -> None:
    document = stats(program("sum_loop"), "--until", "done", "--populate")
    assert document["walk"]["by"]["user"] == {"fetch": 1, "data": 1}


def test_random_bytes_follow_the_seed() -> None:
    show = source(
        """
    _start:
        lea     rdi, [rsp - 64]
        mov     esi, 16
        xor     edx, edx
        mov     eax, 318                # getrandom
        syscall
        mov     edi, 1
        lea     rsi, [rsp - 64]
        mov     edx, 16
        mov     eax, 1
        syscall
        xor     edi, edi
        mov     eax, 60
        syscall
    """
    )
    first, again, other = (cr3("run", show, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other


def test_the_same_seed_gives_the_same_numbers() -> None:
    options = [program("random_walk"), "--max-instructions", "300k"]
    assert stats(*options, "--seed", 5) == stats(*options, "--seed", 5)
    assert stats(*options, "--seed", 5)["tlb"] != stats(*options, "--seed", 6)["tlb"]


def test_the_table_for_people_is_on_standard_error() -> None:
    outcome = cr3("run", program("sum_loop"), "--stats", "--until", "done", "--populate", "--tlb", "none")
    assert outcome.stdout == ""
    lines = [line.split() for line in outcome.stderr.splitlines()]
    assert ["instructions", "65"] in [line[:2] for line in lines]
    assert ["entry", "reads", "for", "fetches", "260"] in [line[:5] for line in lines]
    assert ["entry", "reads", "for", "data", "44"] in [line[:5] for line in lines]


# --- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_page_and_ends_with_examples(command: str) -> None:
    outcome = cr3(command, "--help")
    assert outcome.exit_code == 0
    page = outcome.stdout
    assert max(map(len, page.splitlines())) <= 100
    examples = re.findall(r"^  (?! )(.*)$", page.split("Examples:")[1], re.MULTILINE)
    assert examples and all(f"cr3 {command}" in line for line in examples)


def test_without_a_command_it_shows_all_commands() -> None:
    page = cr3().stdout
    assert all(f"\n  {command} " in page for command in COMMANDS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_are_for_terminals_and_not_for_those_who_want_none(no_colour: bool) -> None:
    command = [sys.executable, "-m", "lab", "trace", "--stats", "programs/hello.asm"]
    shown = in_terminal(command, {"NO_COLOR": "1"} if no_colour else {})
    assert b"page_fault" in shown
    assert (b"\x1b[" in shown) != no_colour
    assert "\x1b" not in cr3_process("trace", "--stats", "programs/hello.asm").stderr


class Screen(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        return True


def test_a_program_that_waits_for_the_keyboard_has_the_terminal_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No status line gets between its prompt and what is typed: the status comes only while something moves."""
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    monkeypatch.setattr("lab.terminal.PATIENCE", 1.0)
    instructions = 0
    with Status(lambda: str(instructions)).running():
        time.sleep(0.1)
        instructions = 169
        time.sleep(1.5)
        assert screen.getvalue() == ""
        while not screen.getvalue():
            instructions += 1


def in_terminal(command: list[str], environment: dict[str, str]) -> bytes:
    """What a command shows on a terminal."""
    import pty  # POSIX only

    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**clean, "TERM": "xterm", **environment},
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                data = os.read(controller, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not data:
                break
            shown += data
    os.close(controller)
    return shown


def test_it_starts_without_what_only_others_need() -> None:
    compile_once()
    script = (
        "import sys\nfrom lab.cli import cli\n"
        "try: cli(['run', 'programs/hello.asm'])\n"
        "except SystemExit: print(sorted({'numba', 'rich', 'jsonschema'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=120)
    assert (done.stdout, done.stderr.strip()) == (b"Hello, world!\n", b"[]")
