"""The debugger's commands: what its keys do, and what can be typed after `:`.

A command is a function with the decorator; its usage and its docstring are the help. It returns what there is to say.

>>> sorted(COMMANDS)[:4]
['back', 'break', 'continue', 'delete']
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NamedTuple

from emu import InputError, event_names
from emu.softcore import GPR_NAMES

from ..options import Options
from ..trace import SHORT_NAMES
from . import look
from .debugger import Debugger, Outcome, Why
from .stops import AtAddress, OnAccess, OnEntry, OnEvent, Stop

__all__ = ["COMMANDS", "Bench", "Command"]

Verb = Callable[["Bench", list[str]], str]


class Command(NamedTuple):
    """A command: how it is typed, what it does."""

    usage: str
    verb: Verb

    @property
    def help(self) -> str:
        """What it does."""
        return self.verb.__doc__ or ""


COMMANDS: Final[dict[str, Command]] = {}


def command(usage: str) -> Callable[[Verb], Verb]:
    """Register a command under the first word of its usage."""

    def register(verb: Verb) -> Verb:
        COMMANDS[usage.split()[0]] = Command(usage, verb)
        return verb

    return register


@dataclass
class Named:
    """A stop that a person set, with what they called it."""

    label: str
    stop: Stop


class Bench:
    """A debugger with what a person has set: stops, and the memory they look at."""

    def __init__(
        self, options: Options, stdin: BinaryIO | None = None, *, is_interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self.debugger = Debugger(options, stdin, is_interrupted=is_interrupted)
        self.stops: list[Named] = []
        self.memory_va: int | None = None
        self.said = self.tell(self.debugger.start())

    def run(self, line: str) -> str:
        """Do what a line says. Raises InputError for one that cannot be done, Interrupted."""
        name, *words = line.split() or [""]
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise InputError(f"there is no command {name!r}: " + (f"did you mean {near[0]}?" if near else "try ?"))
        self.said = COMMANDS[name].verb(self, words)
        return self.said

    def address(self, words: list[str]) -> int:
        """The address or symbol that was typed. Raises InputError."""
        if len(words) != 1:
            raise InputError("expected an address: 0x401000, a symbol, symbol+0x10, or a register such as rsp")
        if words[0] in GPR_NAMES:
            registers: dict[str, int] = self.debugger.ask(look.registers)
            return registers[words[0]]
        va: int = self.debugger.ask(look.address, words[0])
        return va

    def what(self, words: list[str]) -> list[Stop]:
        """Something to run to: an event by its name or short name, or an address. Raises InputError."""
        if len(words) == 1 and words[0] in event_names():
            return [OnEvent(words[0])]
        if len(words) == 1 and words[0] in SHORT_NAMES:
            return [OnEvent(name) for name in SHORT_NAMES[words[0]]]
        if len(words) != 1:
            raise InputError("expected a symbol, an address or an event, such as page_fault")
        return [AtAddress(self.address(words))]

    def pid(self) -> int:
        """Whose memory is watched. Raises InputError if nobody runs."""
        if not self.debugger.moment.pid:
            raise InputError("no process is running here")
        return self.debugger.moment.pid

    @property
    def _stops(self) -> list[Stop]:
        return [named.stop for named in self.stops]

    def move(self, verb: Callable[..., Outcome], stops: list[Stop] | None = None, **settings: Any) -> str:
        """Go somewhere; `stops` come before those that were set."""
        if stops is None:
            return self.tell(verb())
        return self.tell(verb([*stops, *self._stops], **settings), len(stops))

    def tell(self, outcome: Outcome, before: int = 0) -> str:
        """Why the debugger stopped, in words."""
        moment, hit = outcome.moment, outcome.hit
        if moment.ended:
            if moment.trouble:
                return f"the machine cannot go on: {moment.trouble}"
            if moment.signal is not None:
                return f"the program was ended by signal {moment.signal}"
            return "the end" if moment.exit_code is None else f"the program ended with exit code {moment.exit_code}"
        if outcome.why is Why.START:
            return "this is the first instruction of the program"
        if outcome.why is Why.SIGNAL and hit is not None:
            return f"{hit.what.partition(' ')[2]} comes to this instruction"
        if outcome.why is Why.STOP and hit is not None:
            own = hit.number - before
            label = self.stops[own].label if 0 <= own < len(self.stops) else ""
            return ": ".join(filter(None, (label, hit.what))) or "reached"
        return ""


def _times(words: list[str]) -> int:
    """How often; once if nothing is said. Raises InputError."""
    if not words:
        return 1
    if len(words) > 1 or not words[0].isdecimal():
        raise InputError("expected a number of times")
    return int(words[0])


def _repeated(bench: Bench, verb: Callable[[], Outcome], words: list[str]) -> str:
    """Take so many steps, unless something comes up."""
    outcome = None
    for _ in range(_times(words)):
        outcome = verb()
        if outcome.why is not Why.STEP:
            break
    return bench.tell(outcome) if outcome else ""


# --- going ------------------------------------------------------------------------------------------------------------


@command("step [N]")
def step(bench: Bench, words: list[str]) -> str:
    """N instructions of the program; the kernel is passed over."""
    return _repeated(bench, bench.debugger.step_user, words)


@command("rstep [N]")
def rstep(bench: Bench, words: list[str]) -> str:
    """N instructions of the program back."""
    return _repeated(bench, bench.debugger.reverse_step_user, words)


@command("stepi [N]")
def stepi(bench: Bench, words: list[str]) -> str:
    """N instructions of the machine, into the kernel too."""
    return bench.tell(bench.debugger.go(bench.debugger.moment.position + _times(words)))


@command("rstepi [N]")
def rstepi(bench: Bench, words: list[str]) -> str:
    """N instructions of the machine back."""
    times, position = _times(words), bench.debugger.moment.position
    back = bench.debugger.timeline.before(max(position - times + 1, 0))
    return bench.tell(bench.debugger.go(back))


@command("next")
def next_(bench: Bench, _words: list[str]) -> str:
    """Like step, but a call is one step."""
    return bench.tell(bench.debugger.step_over([named.stop for named in bench.stops]))


@command("rnext")
def rnext(bench: Bench, _words: list[str]) -> str:
    """Like rstep, but a call is one step."""
    return bench.tell(bench.debugger.reverse_step_over([named.stop for named in bench.stops]))


@command("continue")
def continue_(bench: Bench, _words: list[str]) -> str:
    """To the next stop, signal, or the end."""
    return bench.move(bench.debugger.forward, [])


@command("rcontinue")
def rcontinue(bench: Bench, _words: list[str]) -> str:
    """Back to the last stop, or the start of the program."""
    return bench.move(bench.debugger.backward, [])


@command("until WHAT")
def until(bench: Bench, words: list[str]) -> str:
    """To a symbol, an address, or an event such as page_fault, syscall, cr3_write, signal."""
    return bench.move(bench.debugger.forward, bench.what(words))


@command("back WHAT")
def back(bench: Bench, words: list[str]) -> str:
    """Back to the last time that this was so."""
    return bench.move(bench.debugger.backward, bench.what(words))


@command("go POSITION")
def go(bench: Bench, words: list[str]) -> str:
    """To the machine when so many instructions have retired; start and end are positions too."""
    places = {"start": bench.debugger.origin, "end": None}
    if len(words) != 1 or not (words[0].isdecimal() or words[0] in places):
        raise InputError("expected a number of instructions, start or end")
    position = places[words[0]] if words[0] in places else int(words[0])
    return bench.tell(bench.debugger.go(bench.debugger.timeline.end() if position is None else position))


# --- what to stop at, what to look at ---------------------------------------------------------------------------------


@command("break ADDRESS")
def break_(bench: Bench, words: list[str]) -> str:
    """Stop before the instruction there; once more, and it is taken away."""
    return toggle(bench, bench.address(words), words[0])


def toggle(bench: Bench, va: int, label: str) -> str:
    """Set a breakpoint, or take it away."""
    for named in bench.stops:
        if named.stop == AtAddress(va):
            bench.stops.remove(named)
            return f"no breakpoint at {named.label.removeprefix('break ')} any more"
    bench.stops.append(Named(f"break {label}", AtAddress(va)))
    return f"breakpoint at {label}"


@command("watch ADDRESS [SIZE]")
def watch(bench: Bench, words: list[str]) -> str:
    """Stop when these bytes (8 unless SIZE is given) are written."""
    size = int(words[1]) if len(words) == 2 and words[1].isdecimal() else 8
    if not 1 <= size <= 4096:
        raise InputError("expected a size from 1 to 4096 bytes")
    va = bench.address(words[:1])
    bench.stops.append(Named(f"watch {words[0]}", OnAccess(bench.pid(), va, size)))
    return f"watching {size} bytes at {va:#x}"


@command("pte ADDRESS")
def pte(bench: Bench, words: list[str]) -> str:
    """Stop when the page-table entry of an address changes, be it by the kernel or by the page walker."""
    va = bench.address(words)
    bench.stops.append(Named(f"pte {words[0]}", OnEntry(bench.pid(), va)))
    return f"watching the page-table entry of {va:#x}"


@command("delete [N]")
def delete(bench: Bench, words: list[str]) -> str:
    """Take away stop number N, or all."""
    if not words:
        bench.stops.clear()
        return "no stops any more"
    if not (words[0].isdecimal() and 1 <= int(words[0]) <= len(bench.stops)):
        raise InputError(f"expected the number of a stop; there are {len(bench.stops)}")
    return f"{bench.stops.pop(int(words[0]) - 1).label}: taken away"


@command("memory ADDRESS")
def memory(bench: Bench, words: list[str]) -> str:
    """Look at memory there; without an address, at the stack again."""
    bench.memory_va = bench.address(words) if words else None
    return f"memory at {bench.memory_va:#x}" if words else "memory at rsp"


@command("set REGISTER VALUE")
def set_(bench: Bench, words: list[str]) -> str:
    """Change a register here; the run goes on from that."""
    if len(words) != 2 or words[0] not in (*GPR_NAMES, "rip"):
        raise InputError("expected a register and a value: set rax 5")
    value = bench.address(words[1:])
    bench.debugger.timeline.edit(look.set_register, words[0], value)
    return f"{words[0]} = {value:#x}: what comes now is another future"
