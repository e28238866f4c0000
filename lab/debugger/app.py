"""The full-screen debugger: `cr3 debug`, on Textual.

Everything is a function of the position, so the screen is drawn anew from one `View` after every step, in whatever
direction. Going takes milliseconds, or a long time; it is done in a thread, one thing at a time, and Esc interrupts it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, Final

from textual import events, on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from emu import InputError

from ..options import Options
from . import look, panels
from .commands import Bench, toggle
from .guest import TICK
from .replica import Interrupted
from .scout import Happened
from .stops import AtAddress
from .view import View, view

__all__ = ["DebuggerApp"]

LOGGED: Final = (
    "exec",
    "fork",
    "exit",
    "page_fault",
    "cow",
    "syscall",
    "syscall_exit",
    "signal",
    "context_switch",
    "cr3_write",
)
"""Events in the log."""
LOG_SPAN: Final = 2 * TICK
"""Instructions before a position whose events are in the log."""
PATIENCE: Final = 0.7
"""Seconds after which a person wants to know that something is being done."""
CHOICES: Final = ("walk", "memory", "tlb", "vmas", "log", "output")
"""Panels that share a place on a small screen, in the order of their keys."""


class Panel(VerticalScroll):
    """One panel. A click on a line is told to the app with what the line is about."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self.border_title = panels.DRAWN[name][0]
        self._text = Static()
        self._lines: list[panels.Line] = []

    def compose(self) -> ComposeResult:
        """One text."""
        yield self._text

    def draw(self, scene: panels.Scene, follow: int | None = None) -> None:
        """Show a scene; the line about address `follow` is kept in sight."""
        draw = panels.DRAWN[self.id or ""][1]
        self._lines = list(draw(scene, self.scrollable_content_region.width))
        self._text.update(Content("\n").join(line.content for line in self._lines))
        at = next((number for number, line in enumerate(self._lines) if follow is not None and line.va == follow), None)
        if at is not None:
            height = self.scrollable_content_region.height
            self.scroll_to_region(Region(0, max(at - height // 3, 0), 1, height), animate=False, force=True)

    def on_click(self, event: events.Click) -> None:
        """Tell which line it was."""
        number = event.screen_y - self._text.region.y
        if 0 <= number < len(self._lines) and (va := self._lines[number].va) is not None:
            self.app.clicked(self.id or "", va)  # type: ignore[attr-defined]


class HelpScreen(ModalScreen[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        """The lines in a box."""
        with VerticalScroll(id="help") as box:
            box.border_title = "cr3 debug"
            box.border_subtitle = "Esc"
            yield Static(Content("\n").join(line.content for line in panels.help_lines()))


class DebuggerApp(App[None]):
    """The debugger. Raises InputError for programs or options that cannot be."""

    TITLE = "cr3 debug"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - Textual's way to say it
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "run('step')", "Step"),
        Binding("S", "run('rstep')", "◀", key_display="S"),
        Binding("i", "run('stepi')", "Insn"),
        Binding("I", "run('rstepi')", "◀", key_display="I"),
        Binding("n", "run('next')", "Over"),
        Binding("N", "run('rnext')", "◀", key_display="N"),
        Binding("c", "run('continue')", "Cont"),
        Binding("C", "run('rcontinue')", "◀", key_display="C"),
        Binding("u", "type('until ')", "Until"),
        Binding("B", "type('back ')", show=False),
        Binding("b", "break_here", "Break"),
        Binding("w", "type('watch ')", show=False),
        Binding("p", "type('pte ')", show=False),
        Binding("m", "type('memory ')", show=False),
        Binding("g", "run('go start')", show=False),
        Binding("G", "run('go end')", show=False),
        Binding("colon", "type('')", "Cmd", key_display=":"),
        Binding("escape", "interrupt", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        *(Binding(str(number), f"choose('{name}')", show=False) for number, name in enumerate(CHOICES, 1)),
    ]

    def __init__(self, options: Options, stdin: BinaryIO | None = None) -> None:
        super().__init__()
        self._wants_interrupt = threading.Event()
        self.bench = Bench(options, stdin, is_interrupted=self._wants_interrupt.is_set)
        self._wanted: deque[Callable[[], str]] = deque()
        self._is_busy = self._is_going = False
        self._view: View | None = None
        self._before: View | None = None
        self._events: tuple[Happened, ...] = ()
        self._chosen = CHOICES[0]

    def close(self) -> None:
        """End the guest."""
        self._wants_interrupt.set()
        self.bench.debugger.timeline.close()

    # --- the screen -------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Status, panels, message, prompt, keys."""
        yield Static(id="status")
        with Container(id="panels"):
            for name in panels.DRAWN:
                yield Panel(name)
        yield Static(id="tabs")
        yield Static(id="message")
        yield Input(id="prompt", compact=True, select_on_focus=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show where we are."""
        self.theme = "textual-dark"
        self.query_one("#prompt").display = False
        self.action_choose(self._chosen)
        self._do(lambda: self.bench.said)

    def on_resize(self) -> None:
        """Other widths, other lines."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        now, moment = self._view, self.bench.debugger.moment
        if now is None:
            return
        out, err = self.bench.debugger.timeline.output()
        addresses = frozenset(named.stop.va for named in self.bench.stops if isinstance(named.stop, AtAddress))
        labels = tuple(named.label for named in self.bench.stops)
        text = (out + err).decode(errors="replace")
        scene = panels.Scene(now, self._before, addresses, self._events, text, labels)
        for name in panels.DRAWN:
            self.query_one(f"#{name}", Panel).draw(scene, now.registers["rip"] if name == "code" else None)
        self.query_one("#panels").set_class(now.cpl == 0, "-kernel")
        self.query_one("#status", Static).update(self._status(now, moment))

    def _status(self, now: View, moment: Any) -> Content:
        """Mode, process, place, CR3, position."""
        mode = (" KERNEL ", "bold $text on $error") if now.cpl == 0 else ("  USER  ", "bold $text on $success")
        parts: list[str | tuple[str, str]] = [
            mode,
            f" {now.program or 'no process'} ",
            (f"pid {moment.pid}", panels.DIM),
            f"  {now.symbol}  ",
        ]
        cr3 = f"cr3 {now.registers['cr3'] & ~0xFFF:x} pcid {now.registers['pcid']}"
        parts += [(cr3, panels.NAME), (f"  #{moment.position:,}", "bold"), (f"  cycle {now.cycle:,}", panels.DIM)]
        return Content.assemble(*parts)

    def _say(self, text: str, *, wrong: bool = False) -> None:
        style = "bold $error" if wrong else "$text"
        self.query_one("#message", Static).update(Content.styled(text, style))

    # --- going ------------------------------------------------------------------------------------------------------

    def _do(self, verb: Callable[[], str]) -> None:
        """Do something with the run, after what is being done."""
        self._wanted.append(verb)
        if not self._is_busy:
            self._is_busy = True
            self.set_timer(PATIENCE, self._tell_what_takes_long)
            self._working()

    def _tell_what_takes_long(self) -> None:
        if self._wanted or self._is_going:
            self._say("running; Esc interrupts")

    @work(thread=True)
    def _working(self) -> None:
        """In a thread: do what is wanted, show it, and when there is nothing more, find the events for the log."""
        while True:
            while self._wanted:
                self._is_going = True
                said, wrong = self._done(self._wanted.popleft())
                self._is_going = False
                self.call_from_thread(self._show, self.bench.debugger.ask(view, self.bench.memory_va), said, wrong)
            self._find_events()
            if self.call_from_thread(self._is_all_done):
                return

    def _done(self, verb: Callable[[], str]) -> tuple[str, bool]:
        """Do one thing. Returns what there is to say, and whether something was wrong."""
        timeline = self.bench.debugger.timeline
        self._wants_interrupt.clear()
        try:
            return verb(), False
        except InputError as error:
            return str(error), True
        except Interrupted as interruption:
            self._wanted.clear()
            self._wants_interrupt.clear()  # to go there must not be interrupted
            self.bench.debugger.go(max(interruption.position, timeline.position))
            return "interrupted", False

    def _find_events(self) -> None:
        timeline = self.bench.debugger.timeline
        try:
            self._events = timeline.events(LOGGED, max(timeline.position - LOG_SPAN, 0))
        except Interrupted:
            self._wants_interrupt.clear()
        self.call_from_thread(self._draw)

    def _is_all_done(self) -> bool:
        """In the thread of the screen, so that nothing is wanted between the look and the answer."""
        self._is_busy = bool(self._wanted)
        return not self._is_busy

    def _show(self, seen: View, said: str, wrong: bool) -> None:
        if self._view is not None and seen.cycle != self._view.cycle:
            self._before, self._events = self._view, ()
        self._view = seen
        self._say(said, wrong=wrong)
        self._draw()

    # --- keys and mouse ---------------------------------------------------------------------------------------------

    def action_run(self, line: str) -> None:
        """A command without arguments."""
        self._do(lambda: self.bench.run(line))

    def action_break_here(self) -> None:
        """A breakpoint here."""
        self._do(lambda: self._toggle(self.bench.debugger.moment.rip))

    def _toggle(self, va: int) -> str:
        """A breakpoint at an address, under the name that a person calls it."""
        return toggle(self.bench, va, self.bench.debugger.ask(look.symbolize, va))

    def clicked(self, panel: str, va: int) -> None:
        """A line was clicked: of code, a breakpoint; of anything else, its memory."""
        if panel == "code":
            self._do(lambda: self._toggle(va))
        else:
            self.action_run(f"memory {va:#x}")

    def action_type(self, start: str) -> None:
        """Open the prompt."""
        prompt = self.query_one("#prompt", Input)
        prompt.value, prompt.display = start, True
        prompt.focus()
        prompt.cursor_position = len(start)

    @on(Input.Submitted)
    def typed(self, event: Input.Submitted) -> None:
        """A command was typed."""
        self._close_prompt()
        if event.value.strip():
            self.action_run(event.value)

    def _close_prompt(self) -> None:
        self.query_one("#prompt").display = False
        self.set_focus(None)

    def action_interrupt(self) -> None:
        """Esc: close the prompt, or stop what takes long."""
        if self.query_one("#prompt").display:
            self._close_prompt()
        elif self._is_busy:
            self._wants_interrupt.set()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen())

    def action_choose(self, name: str) -> None:
        """On a small screen: the panel that is shown."""
        self._chosen = name
        for choice in CHOICES:
            self.query_one(f"#{choice}").set_class(choice == name, "-chosen")
        parts: list[tuple[str, str]] = []
        for number, choice in enumerate(CHOICES, 1):
            style = "bold reverse" if choice == name else panels.DIM
            parts += [(f" {number} {panels.DRAWN[choice][0]} ", f"{style}"), (" ", "")]
        self.query_one("#tabs", Static).update(Content.assemble(*parts))
        self.call_after_refresh(self._draw)

    @on(events.Click, "#tabs")
    def tab_clicked(self, event: events.Click) -> None:
        """The name of a panel was clicked."""
        at = 0
        for number, choice in enumerate(CHOICES, 1):
            at += len(f" {number} {panels.DRAWN[choice][0]} ") + 1
            if event.x < at:
                self.action_choose(choice)
                return
