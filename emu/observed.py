"""What a machine offers to those who watch it: events, the guest as it is now, recordings."""

from __future__ import annotations

from typing import Any

from .guest import Guest
from .hub import Hub
from .notices import Notices
from .recording import Mode, Recording, Sink
from .state import State

__all__ = ["Observed"]


class Observed:
    """The watched side of a machine. `events` is where listeners subscribe."""

    state: State
    events: Hub
    notices: Notices

    @property
    def pid(self) -> int:
        """The process that runs (0: none), as the operating system has said. Events and recordings have it."""
        return int(self.state.pid)

    @pid.setter
    def pid(self, number: int) -> None:
        self.state.pid = number

    @property
    def guest(self) -> Guest:
        """Registers and memory, to look at without any effect, and to change."""
        return self.notices.guest

    def record(
        self,
        *names: str,
        last: int | None = None,
        limit: int | None = None,
        mode: Mode | None = None,
        sink: Sink | None = None,
    ) -> Recording:
        """Record kinds of events as columns, from now on (see `Recording`). Raises InputError."""
        machine: Any = self
        return Recording(machine, *names, last=last, limit=limit, mode=mode, sink=sink)

    def raise_from_hooks(self) -> None:
        """Raise what a hook raised while the machine did not run."""
        self.notices.raise_what_was_raised()
