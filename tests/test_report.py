"""`cr3 report`: one page that tells a run, true to the run, alone in its file, and usable by everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, Browser, chromium
from command import cr3, program, source, stats
from test_cli_maps import PAGES, maps
from test_cli_walk import walk

from lab.report.recorder import MOMENTS

HELLO, LECTURE = program("hello"), program("lecture_walk")
MACHINE = ("--pti", "on")


def report_of(folder: Path, *arguments: object) -> Path:
    """A page made by the command."""
    page = folder / "report.html"
    assert cr3("report", *arguments, "-o", page).exit_code == 0
    return page


def data_of(page: Path) -> dict[str, Any]:
    """What a page embeds."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    return data


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a program with every kind of page, two processes, and a child that never ends."""
    return report_of(tmp_path_factory.mktemp("pages"), PAGES, "--until", "forked", *MACHINE)


@pytest.fixture(scope="module")
def lecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(tmp_path_factory.mktemp("lecture"), LECTURE, *MACHINE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


# --- the file ---------------------------------------------------------------------------------------------------------


def test_watching_changes_nothing(lecture: Path) -> None:
    assert data_of(lecture)["runs"][0]["stats"] == stats(LECTURE, *MACHINE)


def test_the_page_needs_nothing_else(pages: Path) -> None:
    text = pages.read_text()
    markup = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    links = re.findall(r'(?:href|src|action)="([^"]*)"', markup)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)


def test_the_last_moment_has_the_pages_that_maps_shows(pages: Path) -> None:
    [run] = data_of(pages)["runs"]
    there: dict[int, str] = {}
    for moment in run["recording"]["moments"]:
        for first, letters in moment["pages"].get("1", []):
            there |= {first + number: letter for number, letter in enumerate(letters)}
    for row in maps(PAGES, "--at", "forked", *MACHINE)["vmas"]:
        letters = "".join(there.get(page, ".") for page in range(row["start"] >> 12, row["end"] >> 12))
        counted = {name: row[name] for name in ("zero", "file", "shared", "private", "cow", "swapped")}
        assert {name: letters.count(letter) for name, letter in zip(counted, "zfspcw", strict=True)} == counted


def test_a_long_run_is_some_hundred_moments_and_every_fault_is_counted(tmp_path: Path) -> None:
    [run] = data_of(report_of(tmp_path, program("stride")))["runs"]
    assert MOMENTS <= len(run["recording"]["moments"]) <= 2 * MOMENTS + 1
    outcomes = [count for place in run["places"] for count in place["outcomes"].values()]
    assert sum(outcomes) == run["total_faults"] == len(run["faults"]) > 1000
    assert {place["line"] for place in run["places"] if place["file"]} <= set(range(1, 90))


def test_an_address_space_is_there_from_the_first_to_the_last_of_its_process(tmp_path: Path) -> None:
    [run] = data_of(report_of(tmp_path, program("sigchld")))["runs"]
    spaces = {space["id"]: space["pid"] for space in run["recording"]["spaces"]}
    assert list(spaces.values()) == [1, 2, 3, 4]
    there = [moment["there"] for moment in run["recording"]["moments"] if moment["there"] is not None]
    assert [spaces[one] for one in there[0]] == [spaces[one] for one in there[-1]] == [1]
    assert {spaces[one] for ids in there for one in ids} == {1, 2, 3, 4}


def test_what_the_program_prints_cannot_become_markup(tmp_path: Path) -> None:
    evil = source(
        """
        _start: mov edi, 1
        lea rsi, [rip + text]
        mov edx, 31
        mov eax, 1
        syscall
        mov edi, 0
        mov eax, 60
        syscall
        .data
        text: .ascii "</script><script>alert(1)</script>"
        """
    )
    page = report_of(tmp_path, evil)
    assert data_of(page)["runs"][0]["output"].startswith("</script><script>alert")
    assert "<script>alert" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.asm",), "nowhere.asm: No such file"),
        ((HELLO, "--until", "nowhere"), "no symbol 'nowhere'"),
        ((HELLO, "-o", "missing/report.html"), "missing/report.html: cannot write this file"),
    ],
)
def test_what_cannot_be_is_one_message_and_no_file(
    arguments: tuple[object, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cr3("report", *arguments)
    assert done.exit_code == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_named_after_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cr3("report", HELLO)
    assert done.stdout == "Hello, world!\n" and "wrote hello.html" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["hello.html"]
    assert cr3("report", HELLO, "-o", "-").stdout.startswith("<!doctype html>")


@pytest.mark.slow
def test_ten_million_accesses_are_a_file_that_a_browser_can_take(browser: Browser, tmp_path: Path) -> None:
    walker = source(
        """
        _start: mov ecx, 10000000
        lea rbx, [rip + area]
        1: imul eax, eax, 1103515245
        add eax, 12345
        mov edi, eax
        shr edi, 8
        and edi, 4096 * 4096 - 8
        add [rbx + rdi], rcx
        dec ecx
        jnz 1b
        xor edi, edi
        mov eax, 60
        syscall
        .bss
        area: .skip 4096 * 4096
        """
    )
    page = report_of(tmp_path, walker, "--ram", "64M")
    assert page.stat().st_size < 15_000_000
    browser.open(page)
    assert browser.errors == []
    assert "private" in browser.text("#memory .states")


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dark"), [((1280, 900), False), ((1280, 900), True), (PHONE, False), (PHONE, True)])
def test_the_page_opens_everywhere_without_errors(
    size: tuple[int, int], dark: bool, browser: Browser, pages: Path
) -> None:
    browser.open(pages, size, dark=dark)
    assert browser.errors == []
    assert browser.js("return document.documentElement.scrollWidth") == size[0]
    assert [browser.js(CONTRAST, name) >= 4.5 for name in ("ink", "soft", "accent")] == [True] * 3


CONTRAST = """
const light = (name) => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
};
const [a, b] = [light(arguments[0]), light("paper")];
return Math.max(a, b) / Math.min(a, b);
"""
"""The contrast of a colour to the page (WCAG 2.1): 4.5 is what small text needs."""


def legend(browser: Browser) -> str:
    """The states of pages with their counts."""
    return browser.text("#memory .states")


def test_the_slider_goes_through_time_with_the_keyboard_and_back(browser: Browser, pages: Path) -> None:
    browser.open(pages)
    end = legend(browser)
    counted = dict(re.findall(r"(zero|private|cow|shared)\s+(\d+)", end))
    assert counted == {"private": "1", "cow": "2", "zero": "1", "shared": "1"}
    browser.press("#moment", "\ue011")  # Home
    assert "private 1" in " ".join(legend(browser).split()) and browser.text("#moment-text").startswith("1 of")
    browser.press("#moment", *["\ue014"] * 3)  # to the right
    assert browser.text("#moment-text").startswith("4 of")
    browser.press("#moment", "\ue010")  # End
    assert legend(browser) == end


def test_the_box_walks_any_address_as_cr3_walk_does(browser: Browser, lecture: Path) -> None:
    browser.open(lecture)
    for address in ("0x180001008", "_start+2", "0x7f0000000000"):
        browser.press("#address", "\ue009a\ue000" + address + "\ue007")  # over what was there, and Enter
        expected = walk(LECTURE, address, *MACHINE)
        entries = browser.js("return [...document.querySelectorAll('.steps .entry')].map((one) => one.innerText)")
        assert [int(entry, 16) for entry in entries[: len(expected["levels"])]] == [
            level["entry"] for level in expected["levels"]
        ]
        said = browser.text(".verdict")
        assert f"physical address {expected['pa']:#x}" in said if expected["pa"] else "page fault" in said
    browser.press("#address", "\ue009a\ue000nonsense\ue007")
    assert "nonsense is no canonical address and no symbol" in browser.text("#walk-help")


def test_the_map_is_moved_in_with_arrow_keys_and_leads_to_the_walk(browser: Browser, pages: Path) -> None:
    browser.open(pages)
    browser.press("#memory .map", "\ue014", "\ue014")
    assert browser.text(".page-readout").startswith("0x10000000 anonymous · private")
    browser.press("#memory .map", "\ue007")
    assert browser.js("return document.getElementById('address').value") == "0x10000000"
    assert "0x10000000 is physical address" in browser.text(".verdict")


def test_the_tree_opens_down_to_every_entry(browser: Browser, lecture: Path) -> None:
    browser.open(lecture)
    count = "return document.querySelectorAll('.tree details').length"
    closed = (
        "return [...document.querySelectorAll('.tree details:not([open]) > summary')].map((one) => one.click()).length"
    )
    before = browser.js(count)
    for _ in range(4):
        browser.js(closed)
        browser.js("return new Promise((done) => setTimeout(done, 0))")
    assert browser.js(count) > before
    assert browser.js("return [...document.querySelectorAll('.tree .leaf')].length") > 5


def test_pictures_have_words(browser: Browser, pages: Path) -> None:
    browser.open(pages)
    assert browser.js("return [...document.querySelectorAll('main svg')].every((one) => one.ariaLabel)") is True
    browser.js("document.querySelectorAll('details.as-table').forEach((one) => { one.open = true; })")
    browser.js("return new Promise((done) => setTimeout(done, 0))")
    assert "000010004000" in browser.text("#memory .map-table")
    moments = len(data_of(pages)["runs"][0]["recording"]["moments"])
    over_time = "return [...document.querySelectorAll('.chart table')].map((one) => one.tBodies[0].rows.length)"
    assert browser.js(over_time) == [moments] * 5
    held = re.findall(r"(\d+) of [\d,]+ entries", browser.text("#tlbs"))
    rows = (
        "return [...document.querySelectorAll('.tlb > div > details table')].map((one) => one.tBodies[0].rows.length)"
    )
    assert browser.js(rows) == [int(count) for count in held] and sum(browser.js(rows)) > 10
    unnamed = "return [...document.querySelectorAll('button, input, select')].filter((one) => !one.innerText.trim()"
    assert browser.js(f"{unnamed} && !one.ariaLabel && !one.labels?.length).length") == 0


def test_a_fault_leads_to_its_moment_its_page_and_its_line(browser: Browser, pages: Path) -> None:
    browser.open(pages)
    browser.js("[...document.querySelectorAll('[data-address]')].find((one) => one.innerText === '0x10001000').click()")
    assert "page fault: 0x10001000" in browser.text("#moment-text")
    assert browser.text(".verdict").startswith("0x10001000 is physical address")
    link = browser.js("return document.querySelector('.fault-places a').getAttribute('href').slice(1)")
    assert "mov" in browser.js("return document.getElementById(arguments[0]).innerText", link)


def test_an_attack_has_its_reload_latencies(browser: Browser, tmp_path: Path) -> None:
    attacker = source(
        """
        _start: lea rbx, [rip + latencies]
        mov ecx, 255
        1: mov dword ptr [rbx + 4 * rcx], 231
        dec ecx
        jns 1b
        mov dword ptr [rbx + 4 * 'T'], 43
        xor edi, edi
        mov eax, 60
        syscall
        .bss
        latencies: .skip 4 * 256
        """
    )
    page = report_of(tmp_path, attacker)
    latencies = data_of(page)["runs"][0]["latencies"]
    assert latencies == [43 if value == ord("T") else 231 for value in range(256)]
    browser.open(page, PHONE, dark=True)
    assert browser.errors == []
    picture = browser.js("return document.querySelector('.reload svg').ariaLabel")
    assert picture == "Reload latencies: the load of value 84 = 'T' took 43 cycles, the others more"
    assert (
        len(browser.js("return [...document.querySelectorAll('#latencies tbody tr')].map((one) => one.innerText)"))
        == 256
    )


def test_a_machine_without_a_tlb_has_none_to_show(browser: Browser, tmp_path: Path) -> None:
    browser.open(report_of(tmp_path, HELLO, "--tlb", "none"))
    assert browser.errors == []
    assert "This machine has none" in browser.text("#tlbs .pane")
    browser.press("#moment", "\ue011", "\ue014")
    assert browser.errors == []


# --- several machines -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("comparison") / "report.html"
    assert cr3("compare", LECTURE, "--report", page).exit_code == 0
    return page


def test_machines_stand_side_by_side_at_the_same_place_of_the_program(browser: Browser, comparison: Path) -> None:
    data = data_of(comparison)
    assert [run["name"] for run in data["runs"]] == ["PTI off", "PTI, PCID", "PTI, no PCID"]
    assert [run["stats"]["config"]["pti"] for run in data["runs"]] == ["off", "on", "on"]
    browser.open(comparison)
    assert browser.errors == []
    moments = data["runs"][0]["recording"]["moments"]
    faults = [number for number, moment in enumerate(moments) if moment["what"].startswith("page fault")]
    for number in faults:
        browser.js(
            "const slider = document.getElementById('moment');"
            "slider.value = arguments[0]; slider.dispatchEvent(new Event('input'))",
            number,
        )
        legends = browser.js("return [...document.querySelectorAll('.states')].map((one) => one.innerText)")
        assert len(legends) == 3 and len(set(legends)) == 1
    assert len(faults) > 1
    pcids = browser.js("return [...document.querySelectorAll('.pcids')].map((one) => one.innerText)")
    assert ["2049" in names for names in pcids] == [False, True, False]
    browser.open(comparison, PHONE)
    assert browser.js("return document.documentElement.scrollWidth") == PHONE[0]


def test_meltdown_with_and_without_isolation_is_one_page(tmp_path: Path) -> None:
    page = tmp_path / "meltdown.html"
    assert cr3("meltdown", "--secret", "T", "--report", page).exit_code == 0
    off, on = data_of(page)["runs"]
    assert (off["name"], on["name"]) == ("PTI off", "PTI on")
    hits = [value for value, cycles in enumerate(off["latencies"]) if cycles < max(off["latencies"]) / 2]
    assert hits == [ord("T")]
    assert min(on["latencies"]) > max(on["latencies"]) / 2


def test_machines_may_differ_in_what_they_count(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cr3("compare", HELLO, "--matrix", "caches=on,off", "--report", page).exit_code == 0
    browser.open(page)
    assert browser.errors == []
    bars = (
        "return [...document.querySelectorAll('.bar')].map((bar) => bar.firstElementChild.offsetLeft - bar.offsetLeft)"
    )
    assert browser.js(bars) == [0, 0]


def test_a_comparison_without_a_program_has_no_report(tmp_path: Path) -> None:
    done = cr3("compare", "--report", tmp_path / "report.html")
    assert done.exit_code == 2 and "give a PROGRAM" in done.stderr and not list(tmp_path.iterdir())
