"""How a run ended, and what it counted.

>>> from emu import Machine
>>> from emu.assembler import assemble_source
>>> from kernel import Kernel
>>> kernel = Kernel(Machine(ram="16M"))
>>> _ = kernel.spawn(assemble_source("_start: mov edi, 7; mov eax, 60; syscall"))
>>> print(kernel.run()._repr_html_()[:33])
<table><caption>exit code 7 after
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emu import Halt
from emu.html import table

from .process import Process

__all__ = ["Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: `exit_code` or `signal` of the first process (both None if it did not end), and statistics.

    `is_stuck` says that processes are left that all wait for something that cannot happen any more.
    """

    exit_code: int | None
    signal: int | None
    halt: Halt
    processes: tuple[Process, ...] = field(repr=False)
    stats: dict[str, Any] = field(repr=False)
    is_stuck: bool = False

    def _repr_html_(self) -> str:
        """Tables for notebooks: the cycles by cause, and what else was counted."""
        cycles, total = self.stats["cycles"]["by_cause"], self.stats["cycles"]["total"]
        causes = sorted(cycles.items(), key=lambda cause: -cause[1])
        rows = [(name.replace("_", " "), part, f"{part / total:.1%}") for name, part in causes]
        counted = [(name, count) for name, count in self._counts().items() if count]
        return table(f"{self._end()} after {total:,} cycles", ("cause", "cycles", "share"), rows) + table(
            "What was counted", ("", "count"), counted
        )

    def _end(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "stopped" if self.exit_code is None else f"exit code {self.exit_code}"

    def _counts(self) -> dict[str, int]:
        stats = self.stats
        return {
            "instructions": sum(stats["instructions"].values()),
            "ITLB misses": stats["tlb"]["itlb"]["misses"],
            "DTLB misses": stats["tlb"]["dtlb"]["misses"],
            "STLB misses": stats["tlb"]["stlb"]["misses"],
            "page walks": stats["walk"]["count"],
            **{f"page faults, {kind}": count for kind, count in stats["faults"].items()},
            "pages swapped in": stats["swap"]["in"],
            "pages swapped out": stats["swap"]["out"],
            "CR3 writes": sum(stats["cr3_writes"].values()),
            "system calls": sum(stats["syscalls"].values()),
            "context switches": stats["context_switches"],
        }
