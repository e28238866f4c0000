"""`cr3 maps`: what a program was promised, and what is there of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import cr3, program, source

from kernel.pagewalk import MappedPage, mapped_pages
from kernel.vma import Vma
from lab.options import Options
from lab.page_states import PageReader
from lab.session import Session

PAGES = source(
    """
    .macro  map address, prot, flags
    mov     edi, \\address
    mov     esi, 4 * 4096
    mov     edx, \\prot
    mov     r10d, \\flags
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9
    syscall
    .endm
_start:
    map     0x10000000, 3, 0x32
    mov     byte ptr [rax], 1               # two pages that are written before the fork
    mov     byte ptr [rax + 4096], 1
    mov     cl, [rax + 2 * 4096]            # one that is only read
    mov     rbx, rax
    map     0x20000000, 3, 0x31
    mov     byte ptr [rax], 1
    mov     eax, 57                         # fork
    syscall
    test    eax, eax
    jz      child
    mov     byte ptr [rbx], 2
forked:
    xor     edi, edi
    mov     eax, 60
    syscall
child:
    mov     eax, 34                         # pause
    syscall
    """
)


def maps(*arguments: object) -> dict[str, Any]:
    """What `cr3 maps --json -` says."""
    report: dict[str, Any] = json.loads(cr3("maps", *arguments, "--json", "-").stdout)
    return report


def vma(report: dict[str, Any], start: int) -> dict[str, Any]:
    """One VMA of a report."""
    return next(row for row in report["vmas"] if row["start"] == start)


def test_pages_are_counted_by_kind() -> None:
    private = vma(maps(PAGES), 0x1000_0000)
    assert (private["pages"], private["rights"], private["resident"]) == (4, "rw-p", 2)
    assert {name: private[name] for name in ("private", "cow", "zero", "file")} == {
        **{"private": 1, "cow": 1, "zero": 1, "file": 0},
    }
    shared = vma(maps(PAGES), 0x2000_0000)
    assert (shared["rights"], shared["resident"], shared["shared"]) == ("rw-s", 1, 1)


def test_a_program_that_has_not_begun_has_its_arguments_and_promises() -> None:
    report = maps(PAGES, "--at", "_start")
    assert report["moment"] == "before _start executes"
    resident = {row["name"]: row["resident"] for row in report["vmas"] if row["resident"]}
    assert resident.pop("[stack]") == 1
    assert list(resident.values()) == [1]  # the instruction that comes next was fetched


def test_the_table_has_a_line_for_each_vma_and_the_sum() -> None:
    lines = cr3("maps", PAGES).stdout.splitlines()
    report = maps(PAGES)
    assert len(lines) == 2 + 1 + len(report["vmas"]) + 1
    assert lines[-1].split()[2:4] == [str(sum(row[key] for row in report["vmas"])) for key in ("pages", "resident")]


def test_every_page_is_a_character() -> None:
    lines = cr3("maps", PAGES, "--pages").stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("10000000-10004000 rw-p"))
    assert lines[place + 1].split() == ["000010000000", "pcz."]
    assert lines[place + 3].split() == ["000020000000", "s..."]
    legend = {line[0] for line in lines[lines.index("", 2) + 1 :]}
    assert legend == set(".zfspc")


def test_lines_of_pages_that_are_only_promised_are_one_line() -> None:
    lines = cr3("maps", program("lecture_walk"), "--pages").stdout
    assert "pages that are promised only" not in lines
    big = source("_start: mov edi, 60\n xchg eax, edi\n syscall\n .bss\n .skip 4096 * 1000")
    assert "  ...           1,000 pages that are promised only" in cr3("maps", big, "--pages").stdout


def test_with_page_table_isolation_user_mode_knows_little_of_the_kernel() -> None:
    report = maps(program("hello"), "--pti", "on")["kernel"]
    sizes = {name: sum(part["end"] - part["start"] for part in parts) for name, parts in report.items()}
    assert sizes["user_pgd"] < 16 * 4096 < sizes["kernel_pgd"]
    lines = cr3("maps", program("hello"), "--kernel", "--pti", "on").stdout
    assert "direct map: all RAM" in lines and "maps it" in lines and " -" in lines


def test_without_isolation_both_are_the_same() -> None:
    report = maps(program("hello"), "--pti", "off")["kernel"]
    assert report["user_pgd"] == report["kernel_pgd"]
    assert "one PGD for both" in cr3("maps", program("hello"), "--kernel", "--pti", "off").stdout


def test_json_goes_into_a_file_beside_the_table(tmp_path: Path) -> None:
    file = tmp_path / "maps.json"
    done = cr3("maps", PAGES, "--json", file)
    assert json.loads(file.read_text())["schema"] == "cr3.maps/1" and "[stack]" in done.stdout


def test_a_symbol_that_is_not_there_is_told() -> None:
    done = cr3("maps", PAGES, "--at", "nowhere")
    assert done.exit_code == 2 and "no symbol 'nowhere'" in done.stderr


SPLIT = source(
    """
_start:
    mov     eax, 9                          # mmap of 4 MiB
    xor     edi, edi
    mov     esi, 4 << 20
    mov     edx, 3
    mov     r10d, 0x22
    mov     r8, -1
    xor     r9d, r9d
    syscall
    mov     rbx, rax
    mov     [rbx], rbx                      # two huge pages
    mov     [rbx + (2 << 20)], rbx
    mov     eax, 57                         # fork
    syscall
    mov     [rbx + 5 * 4096], rbx           # splits the first
forked:
    ud2
    """
)


def letter(page: MappedPage, vma: Vma) -> str:
    """The state of a page, from what the walk says of it."""
    if page.pfn is None:
        return "w"
    if page.is_zero_page:
        return "z"
    if page.is_huge:
        return "h"
    if page.is_anonymous:
        return "p" if page.is_exclusive else "c"
    return "s" if vma.backing is not None and vma.backing.is_shmem else "f"


@pytest.mark.parametrize("path", [PAGES, SPLIT], ids=["pages", "split"])
def test_whole_tables_say_the_same_as_one_entry_after_the_other(path: Path) -> None:
    session = Session(Options(programs=(str(path),), thp="always", until="forked"))
    process = session.run().processes[0]
    pages = PageReader(session.kernel).states(process.mm)
    seen = set()
    for vma in process.mm.vmas:
        walked = mapped_pages(session.kernel, process.mm, vma.start, vma.end)
        expected = {(page.va - vma.start) >> 12: letter(page, vma) for page in walked}
        assert pages.within(vma.start, vma.end) == expected
        seen |= set(expected.values())
    assert seen >= set("pczfs" if path is PAGES else "pchf")
    session.close()
