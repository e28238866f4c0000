"""A comparison as tables for people, and as rows for spreadsheets.

Few machines stand side by side, with every cause; many are a line each, with what matters most.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Final

from .compare import Comparison, Outcome, Run, document
from .statistics import CAUSES, cause_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "TRANSLATION",
    "ProgramReport",
    "causes",
    "faults",
    "new_table",
    "print_table",
    "seeds_cell",
    "seeds_head",
    "write_csv",
]

SIDE_BY_SIDE: Final = 5
"""Machines up to which every one has a column."""

WIDEST: Final = 250
"""Columns of a table that nobody looks at on a terminal."""

OFTEN: Final = 100
"""Operations from which on it says something what one of them takes."""

TRANSLATION: Final = ("itlb_misses", "dtlb_misses", "page_walks", "ad_assists")
"""Those that are the price of an address."""

EVENTS: Final[dict[str, Callable[[Mapping[str, Any]], int]]] = {
    "instructions of the user": lambda s: s["instructions"]["user"],
    "instructions of the kernel": lambda s: s["instructions"]["kernel"],
    "ITLB misses": lambda s: s["tlb"]["itlb"]["misses"],
    "DTLB misses": lambda s: s["tlb"]["dtlb"]["misses"],
    "STLB misses": lambda s: s["tlb"]["stlb"]["misses"],
    "page walks of the user": lambda s: sum(s["walk"]["by"]["user"].values()),
    "page walks of the kernel": lambda s: sum(s["walk"]["by"]["kernel"].values()),
    "CR3 writes that flush": lambda s: s["cr3_writes"]["flush"],
    "CR3 writes that do not": lambda s: s["cr3_writes"]["noflush"],
    "other TLB flushes": lambda s: sum(n for kind, n in s["tlb"]["flushes"].items() if "cr3" not in kind),
    "page faults": lambda s: faults(s),
    "system calls": lambda s: sum(s["syscalls"].values()),
    "context switches": lambda s: s["context_switches"],
}


def faults(stats: Mapping[str, Any]) -> int:
    """Page faults that the kernel handled; copy-on-write and spurious ones are minor ones, too."""
    return int(stats["faults"]["minor"] + stats["faults"]["major"] + stats["faults"]["protection"])


def causes(comparison: Comparison) -> list[str]:
    """The causes that cost any run anything."""
    found = {cause for run in comparison.runs for cause, cycles in run.stats["cycles"]["by_cause"].items() if cycles}
    return [cause for cause in CAUSES if cause in found] + sorted(found - CAUSES.keys())


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """A comparison of one program, in all the forms that people may ask for."""

    comparison: Comparison

    @property
    def is_complete(self) -> bool:
        """Whether every run came to its end."""
        return self.comparison.is_complete

    def difference(self) -> str | None:
        """What the program did otherwise on one of the machines."""
        return self.comparison.difference()

    def as_dict(self) -> dict[str, Any]:
        """The document `cr3.compare/1`."""
        return document(self.comparison)

    def render(self, console: Console) -> None:
        """Print the table."""
        first = self.comparison.runs[0].outcomes[0]
        console.print(f"{' '.join(self.comparison.program)}: {first.behaviour()}\n", soft_wrap=True)
        few = len(self.comparison.runs) <= SIDE_BY_SIDE
        print_table((_side_by_side if few else _one_a_line)(self.comparison), console)

    def write_csv(self, file: IO[str]) -> None:
        """Write a row for each run and seed."""
        write_csv([self.comparison], file)

    def page(self) -> str:
        """Return a report of all runs side by side; they must have been recorded."""
        from .report import Report, render

        runs = [replace(observed, name=run.name) for run in self.comparison.runs if (observed := run.median.observed)]
        return render(Report.of(self.comparison.program, runs))

    def draw(self, suffix: str) -> bytes:
        """Draw a bar for each run."""
        from .compare_plot import draw_bars

        return draw_bars(self.comparison, suffix)


def print_table(table: Table, console: Console) -> None:
    """Print a table, in a pipe or a file as wide as it wants to be."""
    if not console.is_terminal:
        console.width = max(console.width, WIDEST)
    console.print(table)


def new_table() -> Table:
    """Return an empty table in the style of all of them."""
    from rich.table import Table

    return Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def _side_by_side(comparison: Comparison) -> Table:
    table = new_table()
    table.add_column("", no_wrap=True)
    for run in comparison.runs:
        table.add_column(run.name.replace(" ", "\n") if "=" in run.name else run.name, justify="right")
    for name, cells in _rows(comparison):
        table.add_row(name, *cells)
    return table


def _rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """The lines of the table: the sum, what one operation takes, the causes, the events."""
    runs = comparison.runs
    yield "cycles", [f"{run.cycles:,}" for run in runs]
    if len(runs[0].outcomes) > 1:
        for which in ("min", "max"):
            yield f"  {which} of {len(runs[0].outcomes)} seeds", [f"{run.spread()[which]:,}" for run in runs]
    yield "overhead", [_overhead(comparison, run) for run in runs]
    for operation, count in (("system call", EVENTS["system calls"]), ("page fault", faults)):
        if all(count(run.stats) >= OFTEN for run in runs):
            yield f"cycles each {operation}", [f"{run.cycles / count(run.stats):,.1f}" for run in runs]
            added = ((run.cycles - runs[0].cycles) / count(run.stats) for run in runs)
            yield "  more than the first", [f"{more:+,.1f}" if more else "" for more in added]
    yield "cycles by cause", [""] * len(runs)
    for cause in causes(comparison):
        yield f"  {cause_name(cause)}", [_number(run.stats["cycles"]["by_cause"].get(cause, 0)) for run in runs]
    yield "what happened", [""] * len(runs)
    for name, count in EVENTS.items():
        counts = [count(run.stats) for run in runs]
        if any(counts):
            yield f"  {name}", [_number(number) for number in counts]


def _one_a_line(comparison: Comparison) -> Table:
    table = new_table()
    heads = ("cycles", "overhead", "each call", "CR3 writes", "TLB, walks", "the rest", *seeds_head(comparison))
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    for run in comparison.runs:
        by_cause = run.stats["cycles"]["by_cause"]
        translation = sum(by_cause.get(cause, 0) for cause in TRANSLATION)
        writes = by_cause.get("cr3_writes", 0)
        table.add_row(
            run.name,
            f"{run.cycles:,}",
            _overhead(comparison, run),
            f"{run.cycles / max(EVENTS['system calls'](run.stats), 1):,.1f}",
            *(_number(cycles) for cycles in (writes, translation, run.cycles - writes - translation)),
            *seeds_cell(run),
        )
    return table


def seeds_head(comparison: Comparison) -> list[str]:
    """The head of a column for the spread, if there are several seeds."""
    seeds = len(comparison.runs[0].outcomes)
    return [f"fewest and most of {seeds} seeds"] if seeds > 1 else []


def seeds_cell(run: Run, count: int = 1) -> list[str]:
    """The fewest and most cycles of an operation, of which there are so many in a run; nothing for a single seed."""
    spread = run.spread()
    return [f"{spread['min'] / count:,.1f} {spread['max'] / count:,.1f}"] if len(run.outcomes) > 1 else []


def _overhead(comparison: Comparison, run: Run) -> str:
    return f"{comparison.overhead(run):+.2%}" if run is not comparison.runs[0] else ""


def _number(count: int) -> str:
    return f"{count:,}" if count else "0"


# --- for spreadsheets -------------------------------------------------------------------------------------------


def write_csv(comparisons: list[Comparison], file: IO[str]) -> None:
    """Write one row a run and seed: the machine, the overhead of the run, and every counter."""
    rows = [
        _csv_row(comparison, run, outcome)
        for comparison in comparisons
        for run in comparison.runs
        for outcome in run.outcomes
    ]
    columns = dict.fromkeys(column for row in rows for column in row)
    writer = csv.DictWriter(file, list(columns), restval=0, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _csv_row(comparison: Comparison, run: Run, outcome: Outcome) -> dict[str, Any]:
    stats = outcome.stats
    config = stats["config"]
    machine = {key: config[key] for key in ("pti", "pcid", "cpu", "thp", "tlb_policy", "engine", "asid", "seed")}
    counted = {key: value for key, value in stats.items() if key not in ("schema", "program", "config", "processes")}
    return {
        "program": " ".join(comparison.program),
        "machine": run.name,
        **machine,
        "overhead": comparison.overhead(run),
        **dict(_flat(counted)),
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with names such as cycles.by_cause.page_walks."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
