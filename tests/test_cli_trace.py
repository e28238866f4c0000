"""`cr3 trace`: which events there are, what a line says, where it goes, and that watching changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import cr3, program, source, stats

from emu import event_names
from emu.events import TlbMiss
from kernel import FaultResult
from lab.trace import DEFAULT, SHORT_NAMES, TextLines, expand

HELLO = program("hello")
LOOP = program("sum_loop")

JUMP_ON = """
_start:
    jmp     here
    nop
here:
    mov     edi, 3
    mov     eax, 60
    syscall
"""


def trace(*arguments: object, stdin: bytes = b"") -> list[dict[str, Any]]:
    """The events of a trace."""
    return [json.loads(line) for line in cr3("trace", "--json", *arguments, stdin=stdin).stdout.splitlines()]


# --- which events -------------------------------------------------------------------------------


def test_by_default_it_shows_what_program_and_kernel_want_of_each_other() -> None:
    names = [event["event"] for event in trace(HELLO)]
    assert names == ["exec", "page_fault", "syscall", "page_fault", "syscall_exit", "syscall", "exit"]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("insn", {"instruction"}),
        ("access", {"access"}),
        ("tlb", {"tlb_miss", "tlb_flush"}),
        ("walk", {"page_walk"}),
        ("fault", {"page_fault"}),
        ("syscall", {"syscall", "syscall_exit"}),
        ("cr3", {"cr3_write"}),
        ("tlb_miss,exit", {"tlb_miss", "exit"}),
    ],
)
def test_events_have_short_names_and_their_own(short: str, long: set[str]) -> None:
    assert {event["event"] for event in trace(HELLO, "--events", short)} == long


def test_all_means_every_kind_of_event() -> None:
    assert set(expand("all")) == set(event_names())
    assert set(expand(DEFAULT)) <= {*expand(",".join(SHORT_NAMES)), "exec", "signal", "exit"}


def test_user_leaves_out_what_the_processor_does_in_the_kernel() -> None:
    everything, user, kernel = (
        trace(LOOP, "--events", "insn,access", *option) for option in ([], ["--user"], ["--kernel"])
    )
    assert user == [event for event in everything if event["cpl"] == 3]
    assert len([event for event in user if event["event"] == "instruction"]) == 68
    assert kernel == [event for event in everything if event["cpl"] == 0]


def test_what_python_does_for_the_kernel_is_traced_as_what_the_entry_code_does() -> None:
    """Registers on the stack, page tables and frames in the direct map, struct pages, and the text of the function."""
    accesses = trace(program("kernel_tour"), "--events", "access", "--kernel", "--pti", "on")
    by_rip = [access for access in accesses if access.get("symbol", "").startswith(("do_syscall_64", "exc_page_fault"))]
    starts = {"0xffffc9": "stack", "0xffff88": "direct map", "0xffffea": "struct page", "0xffffff": "text"}
    seen = {(starts.get(hex(access["va"])[:8], "user"), access["kind"]) for access in by_rip}
    assert seen >= {(place, kind) for place in ("stack", "direct map", "struct page") for kind in ("read", "write")}
    assert ("text", "fetch") in seen and ("user", "write") in seen
    assert {access["size"] for access in by_rip} >= {8, 4096}


# --- what a line says ---------------------------------------------------------------------------


def test_a_json_line_has_the_values_and_the_place() -> None:
    fault = trace(HELLO, "--events", "fault")[0]
    assert fault.pop("cycle") > 0
    assert fault == {
        "pid": 1,
        "event": "page_fault",
        "address": 0x401000,
        "error_code": 0b10100,  # user, fetch
        "outcome": FaultResult.FILE.name,
        "rip": 0x401000,
        "symbol": "_start",
        "file": str(HELLO),
        "line": 21,
        "instruction": "mov edi, 1",
    }


def test_a_text_line_has_clock_process_event_place_and_values() -> None:
    lines = cr3("trace", HELLO).stdout.splitlines()
    assert lines[2].split() == [
        *(lines[2].split()[0], "1", "syscall", "_start+0x16", "hello.asm:25", "syscall"),
        *("write(1,", "0x402000,", "14)"),
    ]
    assert lines[4].endswith("write = 14")
    assert lines[6].split()[1:] == ["1", "exit", "code", "0"]


def test_an_instruction_trace_is_the_program_as_it_ran() -> None:
    steps = trace(source(JUMP_ON), "--events", "insn", "--user")
    assert [(step["symbol"], step["line"], step["instruction"]) for step in steps] == [
        ("_start", 3, "jmp 0x401003"),
        ("here", 6, "mov edi, 3"),
        ("here+0x5", 7, "mov eax, 0x3c"),
        ("here+0xa", 8, "syscall"),
    ]


def test_the_lectures_loop_is_65_lines() -> None:
    assert len(trace(LOOP, "--events", "insn", "--user", "--until", "done")) == 65


def test_the_kernels_entry_code_is_in_the_trace_with_its_symbols() -> None:
    symbols = {event["symbol"] for event in trace(HELLO, "--events", "insn") if event["cpl"] == 0}
    assert {"entry_SYSCALL_64", "asm_exc_page_fault"} <= symbols


def test_a_failing_system_call_shows_its_errno() -> None:
    text = "_start: mov edi, 77; mov eax, 1; syscall; xor edi, edi; mov eax, 60; syscall"
    lines = cr3("trace", source(text), "--events", "syscall_exit").stdout.splitlines()
    assert [line.split(maxsplit=6)[-1] for line in lines] == ["write = -9 EBADF"]


def test_arguments_of_a_system_call_read_as_they_were_meant() -> None:
    calls = [line for line in cr3("trace", program("lecture_walk")).stdout.splitlines() if "mmap(" in line]
    assert calls[0].endswith("mmap(0x180001000, 0x1000, 3, 50, -1, 0)")


def test_a_signal_shows_the_instruction_that_earned_it() -> None:
    (death,) = trace(program("segv"), "--events", "signal")
    assert (death["name"], death["address"], death["instruction"]) == ("SIGSEGV", 0xDEAD0000, "mov byte ptr [rbx], 1")


def test_a_page_walk_shows_every_entry_it_read() -> None:
    walks = [event for event in trace(LOOP, "--events", "walk", "--tlb", "none", "--user") if event["ok"]]
    in_program = [walk for walk in walks if walk["va"] < 1 << 47]
    assert in_program and all(len(walk["steps"]) == 4 for walk in in_program)
    assert all(step["entry"] & 1 for walk in in_program for step in walk["steps"])


def test_on_a_terminal_a_line_fits() -> None:
    event = TlbMiss(cycle=1, pid=1, tlb="dtlb", va=0xFFFF_8880_0000_0000, access="write", cpl=0)
    for width in (40, 80, 100, 200):
        assert len(TextLines(width).line("tlb_miss", event, None)) <= width
    assert TextLines().line("tlb_miss", event, None).endswith("dtlb write 0xffff888000000000")


# --- where it goes ------------------------------------------------------------------------------


def test_the_trace_has_standard_output_and_the_program_standard_error() -> None:
    outcome = cr3("trace", HELLO, "--events", "exit")
    assert (outcome.stdout.count("\n"), outcome.stderr) == (1, "Hello, world!\n")


def test_with_a_file_the_program_has_standard_output_back(tmp_path: Path) -> None:
    text, lines = tmp_path / "trace.txt", tmp_path / "trace.jsonl"
    assert cr3("trace", HELLO, "--out", text) == cr3("run", HELLO)
    cr3("trace", HELLO, "--out", lines)
    assert text.read_text() == cr3("trace", HELLO).stdout
    assert [json.loads(line) for line in lines.read_text().splitlines()] == trace(HELLO)
    assert sorted(tmp_path.iterdir()) == [lines, text]


def test_the_exit_code_is_the_programs() -> None:
    assert cr3("trace", LOOP, "--events", "exit").exit_code == 45
    assert cr3("trace", program("segv")).exit_code == 139
    assert cr3("trace", LOOP, "--max-instructions", "30").exit_code == 124


def test_json_is_an_option_only_before_two_dashes() -> None:
    text = "_start: mov rsi, [rsp + 16]; mov edx, 6; mov edi, 1; mov eax, 1; syscall; mov eax, 60; syscall"
    outcome = cr3("trace", source(text), "--events", "exit", "--", "--json")
    assert (outcome.stdout.split()[1:], outcome.stderr) == (["1", "exit", "code", "1"], "--json")


def test_limit_stops_after_so_many_events() -> None:
    outcome = cr3("trace", LOOP, "--events", "all", "--limit", "7")
    assert (outcome.exit_code, outcome.stdout.count("\n")) == (0, 7)
    assert outcome.stderr == "cr3: stopped after 7 events (--limit)\n"


def test_limit_also_stops_what_has_not_begun() -> None:
    outcome = cr3("trace", source("_start: jmp _start"), "--events", "exec", "--limit", "1")
    assert (outcome.exit_code, outcome.stdout.count("\n")) == (0, 1)


def test_several_programs_are_told_apart_by_their_process() -> None:
    ends = trace(LOOP, HELLO, "--events", "exit")
    assert [(end["pid"], end["exit_code"]) for end in ends] == [(1, 45), (2, 0)]


# --- watching changes nothing -------------------------------------------------------------------


@pytest.mark.parametrize("events", ["all", "insn,walk", DEFAULT])
@pytest.mark.parametrize("name", ["sum_loop", "page_cross", "echo"])
def test_a_traced_run_counts_what_any_run_counts(name: str, events: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    options = [program(name), "--tlb-policy", "fifo", "--engine", "access"]
    cr3("trace", *options, "--events", events, "--json", path, "--out", tmp_path / "events", stdin=b"hello\n")
    assert json.loads(path.read_text()) == stats(*options, stdin=b"hello\n")
