"""Overhead by rate of system calls and by working set, in the manner of Gregg (2018), with the published points.

Two things make page-table isolation dear: how often a program enters the kernel, and how much of the TLB it needs
when it comes back. Each curve is one machine and one working set; the rate is that of the run without isolation, at
3 GHz. Between two system calls a program computes, and loads from random pages of its working set, one load every
200 cycles: what a load from memory takes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Final

from .compare import label, standard
from .compare_suite import outcomes_of
from .compare_view import new_table, print_table
from .options import Options
from .workloads import Workload, computing, working_set

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PUBLISHED", "Curves", "Point", "Published", "measure_curves"]

SCHEMA: Final = "cr3.curve/1"
HERTZ: Final = 3e9
RATES: Final = (1_000, 5_000, 20_000, 100_000, 500_000)
WORKING_SETS: Final = (0, 1, 16, 100)
"""In MB. The STLB of most processors reaches 6 MB."""
CYCLES_A_LOAD: Final = 200
COMPUTED_A_LOAD: Final = 170
"""What is left of them to compute in: the loop around a load, and its walk, take some 30."""
MOST_LOADS: Final = 3000
CYCLES: Final = 4_000_000
"""About what every point runs."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published point: a rate in system calls a second, and the overhead as a fraction."""

    name: str
    rate: float
    overhead: float
    marker: str


PUBLISHED: Final = (
    Published("Gregg: about 2 %, PCID not known", 50_000, 0.02, "s"),
    Published("Gregg: less than 0.5 %", 10_000, 0.005, "v"),
    Published("Gregg: 100 MB, no PCID, 2.1 %", 5_000, 0.021, "^"),
    Published("Gregg: 100 MB, PCID, 0.5 %", 5_000, 0.005, "o"),
)
"""Brendan Gregg, KPTI/KAISER Meltdown Initial Performance Regressions, 2018-02-09; Linux 4.14 on EC2."""


@dataclass(frozen=True, slots=True)
class Point:
    """One machine, one working set, one rate; `overhead` is a fraction of the cycles without isolation."""

    working_set: int
    machine: str
    rate: float
    overhead: float


@dataclass(frozen=True, slots=True)
class Curves:
    """All points, in all the forms that people may ask for."""

    points: tuple[Point, ...]
    published: tuple[Published, ...] = PUBLISHED
    is_complete: bool = True

    def difference(self) -> str | None:
        """Nothing: these programs print nothing."""
        return None

    def by_working_set(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """For each working set, and then each machine: pairs of rate and overhead."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for point in self.points:
            size = f"{point.working_set} MB" if point.working_set else "no memory"
            found.setdefault(size, {}).setdefault(point.machine, []).append((point.rate, point.overhead))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Our points and the published ones."""
        ours = [
            {"working_set_mb": p.working_set, "machine": p.machine, "rate": p.rate, "overhead": p.overhead}
            for p in self.points
        ]
        published = [{"name": p.name, "rate": p.rate, "overhead": p.overhead} for p in self.published]
        return {"schema": SCHEMA, "points": ours, "published": published}

    def render(self, console: Console) -> None:
        """Print a line for each machine and working set, and the published points."""
        table = new_table()
        table.add_column("system calls a second")
        table.add_column("")
        for rate in RATES:
            table.add_column(f"{rate:,}", justify="right")
        for size, machines in self.by_working_set().items():
            for machine, line in machines.items():
                table.add_row(size, machine, *(f"{overhead:.3%}" for _rate, overhead in line))
                size = ""
        print_table(table, console)
        console.print()
        for point in self.published:
            console.print(f"published at {point.rate:,.0f} a second: {point.name}")

    def write_csv(self, file: IO[str]) -> None:
        """Write a row for each point."""
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("working_set_mb", "machine", "rate", "overhead"))
        writer.writerows((p.working_set, p.machine, p.rate, p.overhead) for p in self.points)

    def draw(self, suffix: str) -> bytes:
        """Draw the curves."""
        from .compare_plot import draw_curves

        return draw_curves(self, suffix)


def workload_at(rate: int, megabytes: int) -> Workload:
    """Return a program that makes so many system calls a second, and uses so much memory in between."""
    cycles = round(HERTZ / rate)
    count = min(max(CYCLES // cycles, 6), 400)
    name = f"{rate} a second with {megabytes} MB"
    if not megabytes:
        return computing(count, max(cycles - 140, 1), name)
    loads = min(cycles // CYCLES_A_LOAD, MOST_LOADS)
    rest = cycles - loads * (CYCLES_A_LOAD - COMPUTED_A_LOAD) - 140
    return working_set(count, loads, max(rest, 1), megabytes << 8, name)


def measure_curves(
    options: Options, *, rates: Sequence[int] = RATES, sizes: Sequence[int] = WORKING_SETS, jobs: int | None = None
) -> Curves:
    """Measure every rate and working set on the standard machines."""
    machines = standard(replace(options, programs=("",), populate=True))
    places = [(size, rate) for size in sizes for rate in rates]
    todo = [(workload_at(rate, size), machine) for size, rate in places for machine in machines]
    outcomes = iter(outcomes_of(todo, jobs=jobs, what="points"))
    points = []
    for size, rate in places:
        base, *others = (next(outcomes).cycles for _ in machines)
        actual = HERTZ / (base / workload_at(rate, size).count)
        for machine, cycles in zip(machines[1:], others, strict=True):
            points.append(Point(size, label(machine), actual, cycles / base - 1))
    return Curves(tuple(points))
