"""Events as lines: for people, one readable line each; for machines, one JSON object each.

A line begins with the model's clock in cycles and the process. Then it says what happened, at which
instruction (symbol, source line, disassembly), and with which values:

      2331   1  page_fault    _start  hello.asm:24  mov edi, 1  0x401000 not-present fetch user: file

>>> expand("insn,fault")
('instruction', 'page_fault')
>>> expand("fault,walks")
Traceback (most recent call last):
    ...
emu.exceptions.InputError: unknown event 'walks': did you mean walk?
"""

from __future__ import annotations

import difflib
import json
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import cache, partial
from pathlib import PurePath
from typing import Any, Final, Protocol

import click

from emu import Event, InputError, event_names
from emu.events import InstructionEvent
from emu.recording import LEVELS, Mode

from .event_text import describe
from .places import Locator, Place
from .session import Session
from .trace_tables import check_engine

__all__ = ["DEFAULT", "SHORT_NAMES", "JsonLines", "TextLines", "Trace", "Tracer", "expand"]

SHORT_NAMES: Final = {
    "insn": ("instruction",),
    "tlb": ("tlb_miss", "tlb_flush"),
    "mode": ("mode_switch",),
    "walk": ("page_walk",),
    "cache": ("cache_fill",),
    "fault": ("page_fault",),
    "syscall": ("syscall", "syscall_exit"),
    "cr3": ("cr3_write",),
    "switch": ("context_switch",),
    "swap": ("swap_in", "swap_out", "reclaim"),
}
"""What people call the events that they ask for most."""

DEFAULT: Final = "exec,syscall,fault,signal,exit"
"""The events of a trace when nobody says which: what the program and the kernel want of each other."""

COLOURS: Final = {
    "page_fault": "yellow",
    "signal": "red",
    "exception": "red",
    "syscall": "cyan",
    "syscall_exit": "cyan",
    "cr3_write": "magenta",
    "tlb_flush": "magenta",
    "tlb_miss": "blue",
    "tlb_hit": "blue",
    "mode_switch": "magenta",
    "page_walk": "blue",
    "transient": "red",
    "cache_fill": "blue",
    "context_switch": "magenta",
    "cow": "yellow",
    "huge_page": "yellow",
    "fork": "green",
    "exec": "green",
    "exit": "green",
}
"""How the kinds of events look on a terminal; the others are plain."""

NARROW, NARROWEST = 140, 90
"""Terminals below these widths get no disassembly, and no source lines."""


def expand(names: str) -> tuple[str, ...]:
    """The kinds of events that a list such as `insn,fault` or `all` means. Raises InputError."""
    meanings = {name: (name,) for name in event_names()} | SHORT_NAMES | {"all": tuple(event_names())}
    chosen: dict[str, None] = {}
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in meanings:
            near = difflib.get_close_matches(name, meanings, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(meanings))}"
            raise InputError(f"unknown event {name!r}: {hint}")
        chosen |= dict.fromkeys(meanings[name])
    if not chosen:
        raise InputError(f"no events to trace: there are {', '.join(sorted(meanings))}")
    return tuple(chosen)


class JsonLines:
    """One JSON object a line: the event's fields by their names, and the place. All numbers are whole."""

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(default=_record).encode

    def line(self, name: str, event: Event, place: Place | None) -> str:
        """An event as JSON."""
        what = {"cycle": event.cycle, "pid": event.pid, "event": name} | _record(event)
        return self._encode(what | _record(place) if place else what)


def _record(value: Any) -> dict[str, Any]:
    """A dataclass as its fields; dataclasses.asdict would copy every value, again and again."""
    kind: Any = type(value)
    return {name: getattr(value, name) for name in _field_names(kind)}


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


class TextLines:
    """Aligned columns. For a terminal's `width` columns are left out and lines cut; None: no limit."""

    def __init__(self, width: int | None = None, *, colour: bool = False) -> None:
        self._width, self._colour = width, colour

    def line(self, name: str, event: Event, place: Place | None) -> str:
        """An event as text."""
        said = " ".join(filter(None, [*self._columns(event, place), describe(event)]))
        line = f"{event.cycle:>10} {event.pid:>3}  {name:<12}  {said}".rstrip()
        if self._width is not None and len(line) > self._width:
            line = line[: self._width - 1] + "…"
        return click.style(line, fg=COLOURS.get(name)) if self._colour else line

    def _columns(self, event: Event, place: Place | None) -> list[str]:
        """The place, as far as there is room for it."""
        width = self._width or NARROW
        where = f"{PurePath(place.file).name}:{place.line}" if place and place.file else ""
        columns = [f"{place.symbol if place else '':<22} "]
        if width >= NARROWEST:
            columns.append(f"{where:<18} ")
        if width >= NARROW or isinstance(event, InstructionEvent):
            columns.append(f"{place.instruction if place else '':<32} ")
        return columns


class Trace(Protocol):
    """What watches a session and writes what it sees."""

    @property
    def count(self) -> int:
        """Events so far."""

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""

    @property
    def dropped(self) -> int:
        """Events that were not kept, because only the last ones were wanted."""

    def end(self) -> None:
        """The run is over: write what is left."""


class Tracer:
    """Writes a line for each event of some kinds, and stops the machine after `limit` of them.

    With `last` only so many lines are written, the last ones, at the end. With a `mode` what the processor does in the
    other one is left out, but nothing that the kernel itself tells. Raises InputError for accesses on a machine that
    was asked to look at misses only.
    """

    def __init__(
        self,
        session: Session,
        names: Collection[str],
        lines: JsonLines | TextLines,
        write: Callable[[str], object],
        *,
        limit: int | None = None,
        last: int | None = None,
        mode: Mode | None = None,
    ) -> None:
        check_engine(session, names)
        self._kernel, self._locator = session.kernel, Locator(session.kernel)
        self._lines, self._write, self._limit = lines, write, limit
        self._cpl = LEVELS[mode] if mode else None
        self._kept: deque[str] = deque(maxlen=last or 0)
        self._take = write if last is None else self._kept.append
        self._last = last
        self.count = 0
        for name in names:
            session.kernel.on(name, partial(self._happened, name))

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self.count >= self._limit

    @property
    def dropped(self) -> int:
        """Lines that are not written."""
        return 0 if self._last is None else max(self.count - self._last, 0)

    def _happened(self, name: str, event: Event) -> None:
        if self.is_full:
            return  # the machine stops where it can, not in the middle of an instruction
        if self._cpl is not None and getattr(event, "cpl", self._cpl) != self._cpl:
            return
        self._take(self._lines.line(name, event, self._locator.place(event)) + "\n")
        self.count += 1
        if self.is_full:
            self._kernel.machine.stop()

    def end(self) -> None:
        """Write the last lines."""
        while self._kept:
            self._write(self._kept.popleft())
