"""The suite: six kinds of work, from nothing but system calls to hardly any.

What page-table isolation costs is a question about the program: how often does it enter the kernel, and how much of
the TLB does it need when it comes back?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Final

from .compare import Comparison, Job, Outcome, Run, document, run_once
from .compare_view import TRANSLATION, new_table, print_table, seeds_cell, seeds_head, write_csv
from .options import Options
from .parallel import in_parallel
from .workloads import (
    Workload,
    computing,
    forks,
    null_system_calls,
    page_faults,
    pipe_tokens,
    source_files,
    working_set,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SUITE", "Suite", "measure_suite", "outcomes_of"]

SCHEMA: Final = "cr3.suite/1"
SUITE: Final = (
    null_system_calls(1000),
    page_faults(500),
    forks(40),
    pipe_tokens(200),
    computing(20, 300_000, "rare system calls"),
    working_set(20, 3000, 240_000, 4096),
)


@dataclass(frozen=True, slots=True)
class Suite:
    """A comparison of every workload, in all the forms that people may ask for."""

    workloads: tuple[Workload, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every run came to its end."""
        return all(comparison.is_complete for comparison in self.comparisons)

    def difference(self) -> str | None:
        """What a workload did otherwise on one of the machines."""
        return next(filter(None, (comparison.difference() for comparison in self.comparisons)), None)

    def as_dict(self) -> dict[str, Any]:
        """A document `cr3.compare/1` for each workload."""
        return {"schema": SCHEMA, "workloads": [document(comparison) for comparison in self.comparisons]}

    def render(self, console: Console) -> None:
        """Print a line for each workload and machine."""
        table = new_table()
        heads = ("cycles each", "overhead", "CR3 writes", "TLB, walks", *seeds_head(self.comparisons[0]))
        table.add_column("", no_wrap=True)
        table.add_column("machine", no_wrap=True)
        for head in heads:
            table.add_column(head, justify="right")
        for workload, comparison in zip(self.workloads, self.comparisons, strict=True):
            for run in comparison.runs:
                first = run is comparison.runs[0]
                cells = (*_cells(workload, comparison, run), *seeds_cell(run, workload.count))
                table.add_row(workload.name if first else "", run.name, *cells)
        print_table(table, console)
        console.print()
        for workload in self.workloads:
            console.print(f"{workload.name}: {workload.what} (each: a {workload.operation})", soft_wrap=True)

    def write_csv(self, file: IO[str]) -> None:
        """Write a row for each workload, run and seed."""
        write_csv(list(self.comparisons), file)

    def draw(self, suffix: str) -> bytes:
        """Draw the bars of every workload."""
        from .compare_plot import draw_suite

        return draw_suite(self, suffix)


def _cells(workload: Workload, comparison: Comparison, run: Run) -> list[str]:
    causes = run.stats["cycles"]["by_cause"]
    translation = sum(causes.get(cause, 0) for cause in TRANSLATION)
    parts = (run.cycles, None, causes.get("cr3_writes", 0), translation)
    overhead = "" if run is comparison.runs[0] else f"{comparison.overhead(run):+.2%}"
    return [overhead if part is None else f"{part / workload.count:,.1f}" for part in parts]


def outcomes_of(
    jobs_to_do: Sequence[tuple[Workload, Options]], *, jobs: int | None = None, what: str = "runs"
) -> list[Outcome]:
    """What each workload's window counts on a machine; the options' programs and memory are the workload's."""
    workloads = list({workload.name: workload for workload, _options in jobs_to_do}.values())
    with source_files(workloads) as files:
        todo = [
            Job(replace(options, programs=(files[workload.name],), ram=workload.ram), window=True)
            for workload, options in jobs_to_do
        ]
        return in_parallel(run_once, todo, jobs=jobs, what=what)


def measure_suite(
    machines: Sequence[tuple[str, Options]],
    *,
    repeat: int = 1,
    jobs: int | None = None,
    workloads: Sequence[Workload] = SUITE,
) -> Suite:
    """Run every workload on every machine, with `repeat` seeds each."""
    todo = [
        (workload, replace(options, seed=options.seed + extra))
        for workload in workloads
        for _name, options in machines
        for extra in range(repeat)
    ]
    outcomes = iter(outcomes_of(todo, jobs=jobs))
    comparisons = tuple(
        Comparison(
            (workload.name,),
            tuple(Run(name, tuple(next(outcomes) for _ in range(repeat))) for name, _options in machines),
        )
        for workload in workloads
    )
    return Suite(tuple(workloads), comparisons)
