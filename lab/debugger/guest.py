"""A run as a function of its position: what the machine is like when so many instructions have retired.

A *position* is a number of retired instructions, user's and kernel's, since boot. At a position the next instruction
has not been tried. A function of the kernel's that is Python is one step, however many instructions it stands for: who
wants to go to a position in its midst comes out behind it.

Stopping is not free of consequences (see emu/probes.py), so a run always stops at the same places on its way, at every
`TICK` instructions and nowhere else, before it stops where somebody wants to look. Then whoever asks for one gets
the same machine, to the last TLB entry and cycle, however often and from wherever it is asked for.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "seven.asm"
...     _ = path.write_text("_start: mov edi, 7; mov eax, 60; syscall")
...     guest = Guest(Session(Options(programs=(str(path),))))
>>> moment = guest.advance(10)
>>> moment.position, moment.cpl, moment.ended
(10, 0, False)
>>> guest.advance(1000).exit_code
7
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emu import Halt, MachineError
from kernel import KernelPanic

from ..options import Options
from ..session import Session
from .streams import RecordedInput, ReportedOutput

__all__ = ["TICK", "Edit", "Guest", "Moment", "Options", "Session"]

TICK: Final = 1 << 16
"""Instructions between two places where every run stops. It takes about a millisecond from one to the next."""

RSP: Final = 4


@dataclass(frozen=True, slots=True)
class Edit:
    """Somebody changed the machine when the run was at a position: `change(session, *arguments)`."""

    position: int
    change: Callable[..., object]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run is, in short. `ended` is set when nothing comes any more; `trouble` says why if it was a bug.

    `user` counts the instructions of user mode. `written` are the bytes that went to standard output and error.
    `exit_code` and `signal` are the first process's.
    """

    position: int
    rip: int
    rsp: int
    cpl: int
    pid: int
    user: int
    ended: bool
    trouble: str
    exit_code: int | None
    signal: int | None
    written: tuple[int, int]


class Guest:
    """A session that is driven by position. Raises InputError for a program that cannot be loaded."""

    def __init__(self, session: Session) -> None:
        self.session, self.machine, self.kernel = session, session.machine, session.kernel
        self.limit = session.options.max_instructions
        self.ended, self.trouble = False, ""
        self._applied = 0
        self._started = False
        self.kernel.leave_host()
        for image in session.images:
            self.kernel.spawn(image, [image.path, *session.options.arguments])
        self.run_to(0)

    @property
    def position(self) -> int:
        """Instructions that have retired."""
        return int(self.machine.state.instructions)

    def run_to(self, position: int) -> None:
        """Go on, and stop at a position or at the end. What cannot go on has ended."""
        self.machine.max_instructions = position
        try:
            halt = self.machine.run() if self._started else self.kernel.run().halt
            self._started = True
        except (KernelPanic, MachineError) as error:
            self.ended, self.trouble = True, str(error)
        else:
            self.ended = halt is not Halt.INSTRUCTION_LIMIT or self.position < position or position == self.limit

    def next_stop(self, target: int, edits: Sequence[Edit]) -> int:
        """Where a run to a target stops first."""
        tick = (self.position // TICK + 1) * TICK
        edit = edits[self._applied].position if self._applied < len(edits) else target
        return min(tick, edit, target, self.limit)

    def apply(self, edits: Sequence[Edit]) -> None:
        """Change what was changed when the run was here first."""
        while self._applied < len(edits) and edits[self._applied].position == self.position:
            edit = edits[self._applied]
            edit.change(self.session, *edit.arguments)
            self._applied += 1

    def advance(self, target: int, edits: Sequence[Edit] = ()) -> Moment:
        """Go to a position, or to the end if that comes first; changes of the past happen on the way."""
        self.apply(edits)
        while self.position < target and not self.ended:
            self.run_to(self.next_stop(target, edits))
            self.apply(edits)
        return self.moment()

    def moment(self) -> Moment:
        """Where the run is."""
        s, cpu, first = self.machine.state, self.machine.cpu, self.kernel.processes[0]
        user = int(s.mode_totals[0]) + (int(s.instructions - s.mode_start[0]) if s.counted_as == 3 else 0)
        place = self.position, cpu.rip, int(cpu.gprs[RSP]), self.machine.cpl, self.machine.pid, user
        outcome = self.ended, self.trouble, first.exit_code, first.signal
        return Moment(*place, *outcome, self._written())

    def _written(self) -> tuple[int, int]:
        streams = self.kernel.stdout, self.kernel.stderr
        out, err = (stream.offset if isinstance(stream, ReportedOutput) else 0 for stream in streams)
        return out, err

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(session, *arguments)`."""
        return function(self.session, *arguments)


def guest_of(options: Options, ask: Callable[..., bytes], tell: Callable[..., None]) -> Guest:
    """A guest whose streams are somebody else's: `ask(number, size)` and `tell(stream, offset, data)`."""
    streams = [ReportedOutput(lambda offset, data, n=n: tell(n, offset, data)) for n in range(2)]  # type: ignore[misc]
    return Guest(Session(options, RecordedInput(ask), *streams))  # type: ignore[arg-type]
