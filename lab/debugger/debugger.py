"""What a person calls a step: the verbs of a debugger, forwards and backwards, on a time line.

There are two ways to look at a run. As *machine*, every instruction is a step, those of the kernel too. As *user*, the
kernel is passed over, as a debugger on Linux sees a program: a page fault, a system call or a timer interrupt is part
of the instruction that it came to.

    machine   mov [rbx], rax  --#PF-->  asm_exc_page_fault: clac; ...; iretq  --->  mov [rbx], rax  --->  dec ecx
    user      mov [rbx], rax  ------------------------------------------------------------------------->  dec ecx

>>> import tempfile
>>> from pathlib import Path
>>> from ..options import Options
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "push.asm"
...     _ = path.write_text("_start: mov edi, 7; push rdi; mov eax, 60; syscall")
...     with Debugger(Options(programs=(str(path),))) as debugger:
...         start = debugger.start().moment.rip
...         there = [debugger.step_user().moment.rip - start for _ in range(3)]
...         back = [debugger.reverse_step_user().moment.rip - start for _ in range(3)]
>>> there, back
([5, 6, 11], [6, 5, 0])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, BinaryIO, Final

from kernel.siginfo import SIGALRM, SIGCHLD, SIGCONT, SIGIO, SIGPROF, SIGURG, SIGVTALRM, SIGWINCH

from ..options import Options
from . import look
from .guest import Moment
from .scout import Hit
from .stops import AtAddress, OnSignal, Stop
from .timeline import Timeline

__all__ = ["QUIET_SIGNALS", "Debugger", "Outcome", "Why"]

USER: Final = 3
QUIET_SIGNALS: Final = frozenset({SIGALRM, SIGURG, SIGIO, SIGVTALRM, SIGPROF, SIGCHLD, SIGCONT, SIGWINCH})
"""Signals that are a part of business: nobody stops for them, as in GDB."""


class Why(Enum):
    """Why a debugger stopped where it is."""

    STEP = auto()  # it went as far as it was asked
    STOP = auto()  # one of the stops was met
    SIGNAL = auto()  # a signal is about to be delivered
    END = auto()  # nothing comes any more
    START = auto()  # nothing was before


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the debugger is now and why; `hit` is what it met."""

    why: Why
    moment: Moment
    hit: Hit | None = None


class Debugger:
    """The verbs on the time line of one run. `quiet` are the signals for which it does not stop.

    Everything may raise Interrupted, which leaves it where it was. See Timeline for the rest.
    """

    def __init__(
        self,
        options: Options,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
        *,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.timeline = Timeline(options, stdin, stdout, stderr, is_interrupted=is_interrupted)
        self.options = options
        entries, exits = self.timeline.ask(look.borders)
        self._entries, self._exits = entries, exits
        self.quiet = QUIET_SIGNALS
        self._told: tuple[int, int] | None = None  # where a signal was told, and where it is delivered
        self.origin = 0

    def __enter__(self) -> Debugger:
        return self

    def __exit__(self, *_error: object) -> None:
        self.timeline.close()

    @property
    def moment(self) -> Moment:
        """Where it is."""
        return self.timeline.moment

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(session, *arguments)` here, without a trace."""
        return self.timeline.ask(function, *arguments)

    def go(self, position: int) -> Outcome:
        """To a position."""
        moment = self.timeline.go(position)
        self._told = self._told if self._told and self._told[0] == position else None
        return Outcome(Why.END if moment.ended else Why.STEP, moment)

    def start(self) -> Outcome:
        """To the first instruction of user mode; with `until` in the options, to that symbol."""
        self.origin = self._next_user(0)
        outcome = self.go(self.origin)
        if self.options.until is not None:
            outcome = self.forward([AtAddress(self.ask(look.symbol, self.options.until))])
        return outcome

    # --- the machine ------------------------------------------------------------------------------------------------

    def step(self) -> Outcome:
        """One instruction, whosever it is."""
        return self.go(self.moment.position + 1)

    def reverse_step(self) -> Outcome:
        """One instruction back."""
        if self.moment.position == 0:
            return Outcome(Why.START, self.moment)
        return self.go(self.timeline.before(self.moment.position))

    # --- the user's program -----------------------------------------------------------------------------------------

    def step_user(self) -> Outcome:
        """One instruction of the process; in the kernel, one of the kernel's."""
        start, told = self.moment, self._told
        outcome = self.step()
        if start.cpl != USER:
            return outcome
        while not self.moment.ended and not self._is_next_of(start):
            if self.moment.cpl == USER and self.moment.pid == start.pid:
                self.step()
                continue
            back = self._next_user(self.moment.position, start.pid)
            hit = self._first([OnSignal(self.quiet, start.pid)], start.position, back, told)
            if hit is not None:
                return self._tell(hit)
            self.go(back)
        return self._ended() if self.moment.ended else Outcome(Why.STEP, self.moment)

    def _is_next_of(self, start: Moment) -> bool:
        """Whether the process of `start` is in user mode and has got on."""
        now = self.moment
        return (now.cpl, now.pid) == (USER, start.pid) and (now.user != start.user or now.rip != start.rip)

    def reverse_step_user(self) -> Outcome:
        """One instruction of the process back; in the kernel, one of the kernel's."""
        start = self.moment
        outcome = self.reverse_step()
        if start.cpl != USER or outcome.why is Why.START:
            return outcome
        if (self.moment.cpl, self.moment.pid) != (USER, start.pid):
            self.go(self._last_user(self.moment.position, start.pid))
        self._go_to_first_try()
        if self.moment.position < self.origin:
            self.go(self.origin)
            return Outcome(Why.START, self.moment)
        return Outcome(Why.STEP, self.moment)

    def _go_to_first_try(self) -> Moment:
        """An instruction that faulted was tried before: on the way back, that is where it is."""
        while self.moment.cpl == USER and (earlier := self._first_try(self.moment)) is not None:
            self.go(earlier)
        return self.moment

    def _first_try(self, moment: Moment) -> int | None:
        """Where the instruction was tried before, if it faulted there."""
        if moment.position <= self.origin or self.timeline.glance(moment.position - 1).cpl == USER:
            return None
        before = self._last_user(moment.position, moment.pid)
        earlier = self.timeline.glance(before)
        is_same = (earlier.user, earlier.rip, earlier.pid) == (moment.user, moment.rip, moment.pid)
        return before if is_same else None

    def _next_user(self, after: int, pid: int | None = None) -> int:
        """Position at which a process is in user mode again, or the end."""
        exits = [AtAddress(va, pid=pid) for va in self._exits]
        while (hit := self.timeline.find_first(exits, after=after)) is not None:
            moment = self.timeline.glance(hit.position + 1)
            if moment.cpl == USER:
                return moment.position
            after = hit.position
        return self.timeline.end()

    def _last_user(self, before: int, pid: int | None = None) -> int:
        """The last position before another at which a process was in user mode, or 0."""
        entries = [AtAddress(va, pid=pid) for va in self._entries]
        while (hit := self.timeline.find_last(entries, before=before)) is not None:
            for position in (hit.position, hit.position - 1):  # a fault, or an instruction that is done: SYSCALL
                if self.timeline.glance(position).cpl == USER:
                    return position
            before = hit.position
        return 0

    # --- over calls -------------------------------------------------------------------------------------------------

    def step_over(self, stops: Sequence[Stop] = ()) -> Outcome:
        """Like `step_user`, but a call is one step, unless a stop comes first."""
        start = self.moment
        behind = self.ask(look.behind_call)
        if behind is None:
            return self.step_user()
        return self.forward([AtAddress(behind, rsp=start.rsp, pid=start.pid), *stops], steps=1)

    def reverse_step_over(self, stops: Sequence[Stop] = ()) -> Outcome:
        """Like `reverse_step_user`, but a call that came back here is one step, unless a stop comes first."""
        start = self.moment
        outcome = self.reverse_step_user()
        if outcome.why is Why.START or not self.ask(look.is_return):
            return outcome
        calls = [AtAddress(va, rsp=start.rsp, pid=start.pid) for va in self.ask(look.calls_before, start.rip)]
        return self.backward([*calls, *stops], steps=len(calls)) if calls else outcome

    # --- until something --------------------------------------------------------------------------------------------

    def forward(self, stops: Sequence[Stop], *, steps: int = 0) -> Outcome:
        """To the first stop or signal that is met, or to the end; the first `steps` of the stops count as steps."""
        here = self.moment.position
        hit = self._first([*stops, OnSignal(self.quiet)], here, None, self._told)
        if hit is None:
            return self._ended()
        if hit.number == len(stops):
            return self._tell(hit)
        moment = self.go(hit.position).moment
        return Outcome(Why.STEP if hit.number < steps else Why.STOP, moment, _counted_from(hit, steps))

    def backward(self, stops: Sequence[Stop], *, steps: int = 0) -> Outcome:
        """To the last stop that was met before, or to the start of the program."""
        hit = self.timeline.find_last(stops)
        if hit is None or hit.back < self.origin <= self.moment.position:
            return Outcome(Why.START, self.go(min(self.origin, self.moment.position)).moment)
        self.go(hit.back)
        moment = self._go_to_first_try()
        return Outcome(Why.STEP if hit.number < steps else Why.STOP, moment, _counted_from(hit, steps))

    def _first(self, stops: Sequence[Stop], after: int, end: int | None, told: tuple[int, int] | None) -> Hit | None:
        """The first hit; the signal that was told here is told no more."""
        hit = self.timeline.find_first(stops, after=after, end=end)
        if hit is not None and (after, hit.back) == told and isinstance(stops[hit.number], OnSignal):
            hit = self.timeline.find_first(stops, after=hit.position, end=end)
        return hit

    def _tell(self, hit: Hit) -> Outcome:
        """Stop for a signal, at the instruction of the user's that it came to."""
        moment = self.go(self._last_user(hit.back + 1)).moment
        self._told = moment.position, hit.back
        return Outcome(Why.SIGNAL, moment, hit)

    def _ended(self) -> Outcome:
        """The end; those who want to look at the program look at its last instruction."""
        return Outcome(Why.END, self.go(self.timeline.end()).moment)

    def last_of_user(self) -> int:
        """Position of the last instruction in user mode before this one."""
        return self._last_user(self.moment.position)


def _counted_from(hit: Hit, steps: int) -> Hit:
    """A hit with the number that the caller's stops have."""
    return Hit(hit.number - steps, hit.position, hit.back, hit.what)
