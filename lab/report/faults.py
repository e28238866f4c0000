"""Every page fault of a run, by the source line that made it.

How often a line faulted, and how its faults ended, is counted exactly. Single faults are listed up to a number: nobody
reads a million of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from emu.pte import describe_error_code
from kernel import PageFaultEvent

from ..places import Locator
from ..session import Session

__all__ = ["MOST_FAULTS", "Fault", "FaultLog", "FaultPlace"]

MOST_FAULTS: Final = 2000
"""Single faults that are listed."""


@dataclass(slots=True)
class FaultPlace:
    """An instruction that faulted, and how its faults ended: counts by FaultResult. `file` and `line` are None where no
    source is known.
    """

    program: str
    in_kernel: bool
    symbol: str
    file: str | None
    line: int | None
    instruction: str
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """All faults of it."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `place` is an index into the places; `code` is the error code in words."""

    cycle: int
    pid: int
    address: int
    code: str
    outcome: str
    place: int


class FaultLog:
    """Listens to the page faults of a session."""

    def __init__(self, session: Session) -> None:
        self._kernel, self._locator = session.kernel, Locator(session.kernel)
        self._numbers: dict[tuple[str, int], int] = {}
        self.places: list[FaultPlace] = []
        self.faults: list[Fault] = []
        self.total = 0
        self._subscription = session.kernel.on("page_fault", self._happened)

    def close(self) -> None:
        """Listen no more."""
        self._subscription.off()

    def _happened(self, event: PageFaultEvent) -> None:
        outcome, number = event.outcome.lower().replace("_", " "), self._place(event)
        self.total += 1
        outcomes = self.places[number].outcomes
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if len(self.faults) < MOST_FAULTS:
            code = describe_error_code(event.error_code)
            self.faults.append(Fault(event.cycle, event.pid, event.address, code, outcome, number))

    def _place(self, event: PageFaultEvent) -> int:
        """The number of the faulting instruction; a new one is looked up."""
        program, in_kernel = self._kernel.process(event.pid).image.path, event.rip >> 63 != 0
        key = ("" if in_kernel else program, event.rip)
        if key not in self._numbers:
            place = self._locator.instruction_at(event.rip, event.pid)
            self._numbers[key] = len(self.places)
            instruction = "" if in_kernel else place.instruction  # the kernel's functions are Python
            self.places.append(FaultPlace(program, in_kernel, place.symbol, place.file, place.line, instruction))
        return self._numbers[key]
