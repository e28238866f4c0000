"""`cr3 tlb` and `cr3 maps --follow`: what the TLBs remember, and faults while they happen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from command import ROOT, compile_once, cr3, cr3_process, program
from test_cli_walk import walk

HELLO = program("hello")


def tlbs(*arguments: object) -> dict[str, list[dict[str, Any]]]:
    """What `cr3 tlb --json` says each TLB holds."""
    report = json.loads(cr3("tlb", *arguments, "--json").stdout)
    assert all(len(tlb["held"]) <= tlb["entries"] for tlb in report["tlbs"])
    return {tlb["kind"]: tlb["held"] for tlb in report["tlbs"]}


def test_a_translation_leads_where_the_page_walk_leads_and_allows_the_same() -> None:
    held = [one for one in tlbs(HELLO, "--pti", "off")["stlb"] if one["pcid"]]
    assert len(held) > 5
    for one in held:
        report = walk(HELLO, hex(one["va"]), "--pti", "off")
        assert (report["pa"], report["page_size"]) == (one["pa"], one["page_size"])
        assert all(report[right] == one[right] for right in ("user", "writable", "executable"))


def test_under_isolation_both_halves_of_a_process_have_a_pcid() -> None:
    held = tlbs(HELLO, "--pti", "on")["stlb"]
    code = next(one for one in held if one["va"] == 0x401000)
    assert (code["pcid"], code["global"]) == (2049, False)
    assert code["what"].startswith("pid 1: ") and code["what"].endswith("/programs/hello.asm")
    assert {one["pcid"] for one in held if one["what"] == "vmalloc"} <= {0, 1}
    assert {one["pcid"] for one in tlbs(HELLO, "--pti", "on", "--pcid", "off")["stlb"]} == {0}


def test_the_tables_have_a_line_for_each_translation() -> None:
    lines = cr3("tlb", HELLO, "--at", "_start").stdout.splitlines()
    assert lines[0].endswith("before _start executes")
    dtlb = next(number for number, line in enumerate(lines) if line.startswith("DTLB: "))
    assert lines[dtlb].endswith(" of 100 entries")
    assert len(lines[dtlb + 2 : lines.index("", dtlb)]) == int(lines[dtlb].split()[1])
    assert cr3("tlb", HELLO, "--at", "nowhere").exit_code == 2


def test_faults_are_shown_before_the_map_of_the_end() -> None:
    lines = cr3("maps", program("brk_heap"), "--follow").stdout.splitlines()
    end = lines.index("")
    assert end > 5 and all(" page_fault " in line for line in lines[:end])
    assert lines[end:] == ["", *cr3("maps", program("brk_heap")).stdout.splitlines()]


def test_a_fault_is_shown_before_the_program_goes_on() -> None:
    compile_once()
    command = [sys.executable, "-m", "lab", "maps", "--follow", str(program("echo"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as running:  # type: ignore[call-overload]
        assert b" page_fault " in running.stdout.readline()  # it waits for input, and its first fault is here
        rest, _ = running.communicate(b"end", timeout=60)
        assert b"[stack]" in rest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str) -> None:
    done = cr3("completion", shell)
    assert done.exit_code == 0 and f"_CR3_COMPLETE={shell}_complete" in done.stdout


def test_the_shell_is_told_commands_values_and_files() -> None:
    def complete(line: str) -> list[str]:
        asked = {"_CR3_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return cr3_process(env={**os.environ, **asked}).stdout.split()

    assert complete("cr3 t") == ["plain,tlb", "plain,trace"]
    assert complete("cr3 run --cpu sky") == ["plain,skylake"]
    assert complete("cr3 run pro") == ["file,pro"]
