"""What a kernel offers to those who watch it: its events and the machine's, recordings, page walks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from emu.hub import Choice, Hub
from emu.machine import Machine
from emu.recording import Recording
from emu.walk_report import PageWalkReport, page_walk

from .process import Process

__all__ = ["Observed"]


class Observed:
    """The watched side of a kernel."""

    machine: Machine
    events: Hub

    def on(self, name: str, callback: Callable[[Any], object] | None = None, **choice: Unpack[Choice]) -> Any:
        """Subscribe to an event, as a decorator or with a callback: `once`, or only some by `pid`, `range` and `kind`.

        Returns a subscription with `off()`. Raises InputError for an unknown event, or a choice that it does not offer.
        """
        if callback is None:
            return self.events.on(name, **choice)
        return self.events.on(name, callback, **choice)

    def record(self, *names: str, **options: Any) -> Recording:
        """Record kinds of events as columns, from now on. Options and errors are those of `Recording`."""
        return self.machine.record(*names, **options)

    def page_walk(self, process: Process, va: int, *, user: bool = False) -> PageWalkReport:
        """The page walk of an address in a process, without any effect: from the kernel's PGD, or from the user's."""
        table = process.mm.page_table
        return page_walk(self.machine.ram, table.user_pgd if user else table.pgd, va, self.machine.state.levels)
