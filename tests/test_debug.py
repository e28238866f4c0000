"""`cr3 debug`: keys and mouse drive a run in both directions, and every panel shows where it is."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest
from command import cr3, cr3_process, program, source

pytest.importorskip("textual", reason="needs Textual (pip install 'cr3-lab[debug]')")

from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, Static

from lab.cli import cli
from lab.debugger.app import DebuggerApp
from lab.options import Options

CHOICES = ("walk", "memory", "tlb", "vmas", "log", "output")
SMALL, LARGE = (80, 24), (140, 40)

CALLS = """
_start: lea rbx, [rip + cell]
        call touch                      # the first time
        call touch
        mov edi, 3
        mov eax, 60
        syscall
touch:  add qword ptr [rbx], 7
        ret
        .bss
cell:   .skip 8
"""


class Driver:
    """A debugger on a screen that is only imagined."""

    def __init__(self, app: DebuggerApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        """Press keys, and wait after each until everything is shown."""
        for key in keys:
            await self.pilot.press(key)
            await self.settled()

    async def settled(self) -> None:
        """Nothing moves any more."""
        await self.pilot.pause()
        await self.app.workers.wait_for_complete()
        await self.pilot.pause()

    async def type(self, line: str) -> None:
        """Give a command at the prompt."""
        await self.pilot.press("colon")
        self.app.query_one(Input).value = line
        await self.press("enter")

    def content(self, panel: str) -> Content:
        """What a panel shows, with its styles."""
        widget = self.app.query_one(f"#{panel}")
        shown = widget if isinstance(widget, Static) else widget.query_one(Static)
        return cast(Content, shown.visual)

    def text(self, panel: str) -> str:
        """What a panel shows."""
        return self.content(panel).plain

    def shown(self) -> list[str]:
        """The panels that share a place on a small screen, as far as they are there."""
        return [name for name in CHOICES if self.app.query_one(f"#{name}").display]

    @property
    def rip(self) -> int:
        return self.app.bench.debugger.moment.rip

    @property
    def position(self) -> int:
        return self.app.bench.debugger.moment.position


@contextlib.asynccontextmanager
async def debugging(*programs: object, size: tuple[int, int] = LARGE, **options: Any) -> AsyncIterator[Driver]:
    """A debugger at the first instruction."""
    stdin = io.BytesIO(options.pop("stdin", b""))
    app = DebuggerApp(Options(programs=tuple(map(str, programs)), ram="8M", **options), stdin)
    try:
        async with app.run_test(size=size) as pilot:
            driver = Driver(app, pilot)
            await driver.settled()
            yield driver
    finally:
        app.close()


def screen_test(function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs an event loop of its own."""

    def test() -> None:
        asyncio.run(function())

    test.__name__, test.__doc__ = function.__name__, function.__doc__
    return test


@screen_test
async def test_keys_go_forwards_and_backwards() -> None:
    async with debugging(source(CALLS)) as driver:
        start, at = driver.rip, driver.position
        await driver.press("s")
        assert (driver.rip - start, "USER" in driver.text("status")) == (7, True)
        await driver.press("n")
        assert driver.rip - start == 12, "the call is passed over, and so is the page fault in it"
        assert "7" in driver.text("memory") or "page_fault" in driver.text("log")
        await driver.press("N", "S")
        assert (driver.rip, driver.position) == (start, at)
        await driver.press("s", "i", "i", "i")
        assert "KERNEL" in driver.text("status") and "asm_exc_page_fault" in driver.text("status")
        await driver.press("I", "I", "I", "S", "S")
        assert "first instruction" in driver.text("message")
        await driver.press("c")
        assert "exit code 3" in driver.text("message")
        await driver.press("C")
        assert (driver.rip, driver.position) == (start, at)


@screen_test
async def test_every_panel_shows_the_position() -> None:
    async with debugging(source(CALLS)) as driver:
        await driver.press("s")
        assert "▶ 401007  call   touch" in driver.text("code") and "# the first time" in driver.text("code")
        walk = driver.text("walk")
        assert walk.startswith("fetch 401007  itlb stlb") and "write 7ff" in walk
        assert [line.split()[0] for line in walk.splitlines() if line.startswith("  P")] == [
            "PML4",
            "PDPT",
            "PD",
            "PT",
        ] * 2
        assert "itlb        401000" in driver.text("tlb") and "2049" in driver.text("tlb")
        assert "[stack]" in driver.text("vmas") and "r-xp" in driver.text("vmas")
        assert f"{driver.app.bench.debugger.moment.rsp:x} 01000000 00000000" in driver.text("memory"), "argc"
        assert "page_fault 0x401000 not-present fetch user: file" in driver.text("log")
        assert "rbx           402000" in driver.text("registers")
        changed = [
            span
            for span in driver.app.query_one("#registers").query_one(Static).visual.spans
            if "warning" in str(span.style)
        ]
        assert len(changed) >= 2, "RBX and RIP are not what they were"
        await driver.type("memory cell")
        assert driver.text("memory").startswith("      402000 no page")


@pytest.mark.slow
@screen_test
async def test_it_runs_to_symbols_events_data_and_entries_and_back() -> None:
    async with debugging(source(CALLS)) as driver:
        start = driver.rip
        await driver.press("u", *"touch", "enter")
        assert driver.text("status").count("touch") == 1
        first = driver.position
        await driver.type("until page_fault")
        assert "page_fault 0x402000 not-present write user" in driver.text("message")
        await driver.type("back touch")
        assert driver.position == first
        await driver.type("watch cell")
        await driver.type("pte cell")
        await driver.press("c")
        assert driver.text("message").startswith("pte cell: PT entry") and "stop 2  pte cell" in driver.text("output")
        await driver.type("delete 2")
        await driver.press("c")
        assert driver.text("message").startswith("watch cell: write 0x402000 8 bytes")
        await driver.press("c", "C")
        assert driver.text("message").startswith("watch cell")
        await driver.type("delete")
        await driver.type("break touch")
        await driver.press("g", "c", "c", "C")
        assert (driver.position, driver.text("message")) == (first, "break touch")
        await driver.type("set rip _start")
        assert driver.rip == start


@screen_test
async def test_the_mouse_sets_breakpoints_and_looks_at_memory() -> None:
    async with debugging(source(CALLS)) as driver:
        await driver.pilot.click("#code", offset=(10, 4))
        await driver.settled()
        assert driver.text("message") == "breakpoint at _start+0xc" and "●" in driver.text("code")
        await driver.pilot.click("#vmas", offset=(10, 2))
        await driver.settled()
        assert driver.text("message") == "memory at 0x401000"
        await driver.press("c")
        assert driver.rip == 0x40100C
        await driver.press("b")
        assert "any more" in driver.text("message")


@pytest.mark.slow
@screen_test
async def test_a_small_screen_shows_one_panel_after_the_other() -> None:
    async with debugging(program("hello"), size=SMALL) as driver:
        for key, name in zip("123456", CHOICES, strict=True):
            await driver.press(key)
            assert driver.shown() == [name]
        await driver.press("G")
        assert "Hello, world!" in driver.text("output")
        await driver.pilot.click("#tabs", offset=(2, 0))
        await driver.settled()
        assert driver.shown() == ["walk"]
        await driver.press("question_mark")
        assert "step, and back" in str(driver.app.screen.query_one(Static).visual)
        await driver.press("escape")
        assert driver.app.screen.query("#code")


NONSENSE = ("jump", "until", "until nowhere", "until 0xzz", "watch rsp 0", "go home", "step x", "delete 4", "set cr3 0")


@pytest.mark.slow
@screen_test
async def test_nonsense_a_crash_and_an_interrupt_are_told() -> None:
    async with debugging(program("segv")) as driver:
        for line in (
            "jump",
            "until",
            "until nowhere",
            "until 0xzz",
            "watch",
            "watch rsp 0",
            "go home",
            "step x",
            "delete 4",
            "set rax",
        ):
            await driver.type(line)
            assert driver.text("message"), line
        assert driver.position == driver.app.bench.debugger.origin
        await driver.press("c")
        assert driver.text("message") == "SIGSEGV address 0xdead0000 comes to this instruction"
        assert "mov    byte [rbx], 1" in driver.text("code").partition("▶")[2].splitlines()[0]
        await driver.press("c")
        assert "ended by signal 11" in driver.text("message")
    async with debugging(source("_start: jmp _start")) as driver:
        await driver.pilot.press("c")
        await driver.pilot.pause(0.3)
        await driver.pilot.press("escape")
        await driver.settled()
        assert driver.text("message") == "interrupted" and driver.rip == 0x401000


def test_without_a_terminal_it_says_so_in_one_message() -> None:
    outcome = cr3_process("debug", program("hello"))
    assert (outcome.exit_code, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1)
    assert "needs a terminal" in outcome.stderr


def test_the_examples_of_help_have_options_that_exist() -> None:
    for line, _meaning in cast(Any, cli.commands["debug"]).examples:
        assert cr3(*line.split()[1:]).stderr.startswith("cr3: cr3 debug needs a terminal")
