"""What caches and TLBs tell one program about another, and about the kernel; and what keeps them from telling."""

from __future__ import annotations

from random import Random

import pytest
from command import cr3, program

from emu import load_profile
from lab.options import Options
from lab.session import Session

LETTERS = bytes(range(33, 127)).replace(b"-", b"").decode()


def drawn(seed: int, size: int) -> str:
    """A secret that nobody knows before."""
    return "".join(Random(seed).choices(LETTERS, k=size))


# --- Flush+Reload ---------------------------------------------------------------------------------------------


def heard(text: str, *options: str) -> str:
    return cr3("run", program("flush_reload"), *options, "--", text).stdout.removeprefix("heard: ").rstrip("\n")


@pytest.mark.parametrize("cpu", ["skylake", "zen2"])
def test_flush_reload_hears_another_process_through_a_shared_page(cpu):
    for seed in range(5):
        text = drawn(seed, 16)
        assert heard(text, "--caches", "--cpu", cpu) == text


def test_flush_reload_hears_nothing_from_caches_that_the_kernel_empties_or_that_are_not_there():
    for options in (("--caches", "flush"), ("--caches", "off")):
        assert set(heard(drawn(1, 16), *options)) == {"?"}


# --- Spectre --------------------------------------------------------------------------------------------------


def read(text: str, *arguments: str, cpu: str = "skylake", caches: str = "on") -> str:
    options = ("--caches", caches, "--cpu", cpu)
    printed = cr3("run", program("spectre_v1"), *options, "--", text, *arguments).stdout
    return printed.removeprefix("read: ").rstrip("\n")


def test_a_bounds_check_that_is_guessed_lets_a_text_be_read():
    for seed in range(3):
        assert read(drawn(seed, 8)) == drawn(seed, 8)
    for cpu in ("haswell", "broadwell", "zen2"):
        assert read(drawn(9, 4), cpu=cpu) == drawn(9, 4)


def test_nothing_is_read_where_the_victim_computes_or_waits_or_the_part_keeps_its_guesses(tmp_path):
    fixed = tmp_path / "fixed.toml"
    fixed.write_text(load_profile("skylake").path.read_text().replace("spectre_v1 = true", "spectre_v1 = false"))
    text = drawn(1, 4)
    found = {read(text, "mask"), read(text, "lfence"), read(text, caches="off"), read(text, cpu=str(fixed))}
    assert found == {"????"}


# --- L1 terminal fault ------------------------------------------------------------------------------------------


def fetched(text: str, *options: str) -> str:
    printed = cr3("run", program("l1tf"), *options, "--", text).stdout
    return printed.removeprefix("read: ").rstrip("\n")


def test_an_entry_that_is_not_present_gives_its_page_away_unless_linux_inverts_it():
    for cpu in ("skylake", "haswell", "broadwell"):
        text = drawn(1, 4)
        assert fetched(text, "--caches", "--cpu", cpu, "--pte-inversion", "off") == text
    for options in (
        ("--caches",),
        ("--caches", "--pte-inversion", "off", "--cpu", "zen2"),
        ("--caches", "flush", "--pte-inversion", "off"),
        ("--pte-inversion", "off"),
    ):
        assert fetched(text, *options) == "????"


# --- which pages of the kernel are mapped -----------------------------------------------------------------------

TEXT, CPU_ENTRY_AREA, DIRECT_MAP = 0xFFFF_FFFF_8100_0000, 0xFFFF_FE00_0000_0000, 0xFFFF_8880_0000_0000


def visible(pti: str, address: int, step: int, count: int) -> set[int]:
    arguments = [f"{number:x}" for number in (address, step, count)]
    printed = cr3("run", program("kaslr_timing"), "--caches", "--pti", pti, "--", *arguments).stdout
    return {int(line.removesuffix(" is mapped"), 16) for line in printed.splitlines()}


@pytest.mark.parametrize("pti", ["off", "on"])
def test_the_time_of_prefetches_tells_which_kernel_pages_user_mode_has_in_its_page_table(pti):
    """All there are without page-table isolation; with it the trampoline, and nothing else of the kernel."""
    session = Session(Options(programs=(program("hello"),), pti=pti == "on"))
    process = session.run(before_exit=True).processes[0]
    found = set()
    for address, step, count in ((TEXT, 4096, 288), (CPU_ENTRY_AREA, 4096, 16), (DIRECT_MAP, 1 << 16, 16)):
        pages = range(address, address + step * count, step)
        mapped = {va for va in pages if session.kernel.page_walk(process, va, user=True).pa is not None}
        assert visible(pti, address, step, count) == mapped
        found |= mapped
    entry = session.kernel.text.entry
    if pti == "on":
        assert {va for va in found if va < DIRECT_MAP + (1 << 40) or va >= TEXT} == set(entry)
    else:
        assert len(found) > len(entry) + 20
