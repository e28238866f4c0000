"""What people are told on standard error about how a run ended, when it is not its own doing.

A program that dies, an instruction limit, a symbol that was never reached: one line each, with the place.
"""

from __future__ import annotations

from collections.abc import Callable

from emu import Halt
from kernel import ExitEvent, OomKill, Result, SignalEvent

from .event_text import describe
from .places import Locator, Place
from .session import Session

__all__ = ["Notices"]


class Notices:
    """Listens to a session and says what people should know."""

    def __init__(self, session: Session, say: Callable[[str], None]) -> None:
        self._session, self._say, self._locator = session, say, Locator(session.kernel)
        self._last: dict[int, str] = {}  # the last signal of each process, which may be its last indeed
        session.kernel.on("signal", self._noted)
        session.kernel.on("exit", self._ended)
        session.kernel.on("oom_kill", self._killed)

    def _noted(self, event: SignalEvent) -> None:
        self._last[event.pid] = f"{describe(event)}{_at(self._locator.place(event))}"

    def _ended(self, event: ExitEvent) -> None:
        said = self._last.pop(event.pid, None)
        if event.signal is not None and said is not None:
            program = self._session.kernel.process(event.pid).image.path
            self._say(f"{program} (pid {event.pid}) was ended by {said}")

    def _killed(self, event: OomKill) -> None:
        self._say(
            f"out of memory: killed {event.name} (pid {event.victim}), which had {event.resident} pages in memory, "
            f"{event.swapped} in swap and {event.tables} of page tables"
        )

    def ended(self, result: Result) -> None:
        """Explain the end of the run, where it needs that."""
        until, swap = self._session.options.until, self._session.kernel.manager.swap
        if swap.error:
            self._say(f"swap: {swap.error}")
        if result.halt is Halt.INSTRUCTION_LIMIT:
            limit = self._session.options.max_instructions
            place = self._locator.instruction_at(self._session.machine.cpu.rip, self._session.machine.pid)
            self._say(f"stopped after {limit:,} instructions (--max-instructions){_at(place)}")
        elif result.is_stuck:
            self._say("stopped: every process that is left waits for something that cannot happen any more")
        elif until is not None and (result.exit_code, result.signal) != (None, None):
            self._say(f"the program ended before it reached {until}")


def _at(place: Place | None) -> str:
    if place is None:
        return ""
    source = f" ({place.file}:{place.line})" if place.file else ""
    return f", at {place.symbol}{source}: {place.instruction}"
