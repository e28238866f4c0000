"""`cr3 walk`: the page walk of one address, as the processor would make it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from command import cr3, program

LECTURE = program("lecture_walk")
HELLO = program("hello")
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, NX = (1 << bit for bit in (0, 1, 2, 5, 6, 63))


def walk(*arguments: object) -> dict[str, Any]:
    """What `cr3 walk --json` says."""
    report: dict[str, Any] = json.loads(cr3("walk", *arguments, "--json").stdout)
    return report


def test_the_lectures_address_is_taken_apart_as_on_the_slide() -> None:
    report = walk(LECTURE, "0x180001008")
    assert [level["index"] for level in report["levels"]] == [0, 6, 0, 1]
    assert (report["offset"], report["page_size"]) == (8, 4096)
    lines = cr3("walk", LECTURE, "0x180001008").stdout.splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["bits", "47-39", "38-30", "29-21", "20-12", "11-0"],
        ["PGD", "PUD", "PMD", "PTE", "offset"],
        ["0", "6", "0", "1", "0x8"],
    ]


@pytest.mark.parametrize("address", ["0x180001008", "_start", "0xffffffff81000000"])
def test_each_entry_leads_to_the_next_table(address: str) -> None:
    report = walk(LECTURE, address)
    table = report["cr3"] & ~0xFFF
    for level in report["levels"]:
        assert level["pa"] == table + 8 * level["index"]
        assert level["entry"] & PRESENT
        table = level["pfn"] << 12
    assert report["pa"] == table + report["offset"]


def test_the_bits_say_what_the_program_may_do_and_has_done() -> None:
    written = walk(LECTURE, "0x180001008")
    assert written["levels"][-1]["entry"] & (ACCESSED | DIRTY | WRITABLE | USER | NX)
    assert written["levels"][-1]["flags"] == ["P", "W", "U", "A", "D", "NX"]
    code = walk(LECTURE, "_start")
    assert code["levels"][-1]["flags"] == ["P", "U", "A"]
    assert (code["user"], code["writable"], code["executable"]) == (True, False, True)


def test_an_address_is_a_number_or_a_symbol() -> None:
    by_symbol = walk(HELLO, "_start+0x5")
    assert by_symbol["symbol"] == "_start+0x5"
    assert by_symbol == walk(HELLO, "0x401005") == walk(HELLO, str(0x401005)) == walk(HELLO, "_start+5")


def test_a_page_that_nobody_touched_is_not_present() -> None:
    before = walk(HELLO, "text", "--at", "_start")
    assert (before["pa"], before["user"]) == (None, None)
    assert [level["present"] for level in before["levels"]] == [True, True, True, False]
    assert walk(HELLO, "text")["pa"] is not None
    shown = cr3("walk", HELLO, "text", "--at", "_start").stdout
    assert "before _start executes" in shown
    assert shown.endswith("not present: the walk ends in the PT, and an access is a page fault\n")


def test_the_direct_map_is_made_of_large_pages() -> None:
    report = walk(HELLO, "0xffff888000123456")
    assert (report["page_size"], report["offset"], report["pa"]) == (2 << 20, 0x123456, 0x123456)
    assert (report["user"], report["writable"], report["executable"]) == (False, True, False)
    assert "in a page of 2 MiB: kernel only" in cr3("walk", HELLO, "0xffff888000123456").stdout


def test_kernel_functions_have_addresses_too() -> None:
    assert walk(HELLO, "entry_SYSCALL_64")["symbol"] == "entry_SYSCALL_64"


def test_a_program_that_died_still_shows_its_page_tables() -> None:
    outcome = cr3("walk", program("segv"), "0xdead0000")
    assert outcome.exit_code == 0
    assert "not present" in outcome.stdout
    assert "SIGSEGV" in outcome.stderr


def test_only_the_walk_is_on_standard_output() -> None:
    outcome = cr3("walk", HELLO, "text")
    assert outcome.stdout.startswith("0x402000 (text), when the program ends\n")
    assert outcome.stderr == "Hello, world!\n"


def test_it_takes_the_options_of_run() -> None:
    outcome = cr3("walk", program("fib"), "0x7fffffffe000", "--cpu", "zen2", "--populate", "--", "a", "b")
    assert "physical address" in outcome.stdout
