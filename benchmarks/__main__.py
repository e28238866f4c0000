"""How fast is cr3? Run: python -m benchmarks

Every program is executed by six engines (see `engines.py`), on the same bytes and to the same checksum, or the
bench ends with an error. Each engine first runs a round to warm up, then as many rounds as fit a time slice,
several times; the engines take turns, so that a slow moment of the machine meets all of them. Speeds are medians,
in millions of guest instructions a second of processor time. Compare the ratios of one run; the speeds are those
of the machine it ran on. The geometric mean leaves out programs that miss the TLB all the time: more than ten of
a thousand accesses.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, Final

import click

from emu import InputError, Machine
from kernel import Kernel
from lab.files import whole_file

from .engines import ENGINES, Cr3, Engine
from .programs import NULL_SYSCALL, PAGE_FAULT, PROGRAMS, TOUCHED_PAGES, Program

ROOT: Final = Path(__file__).resolve().parent.parent
HELLO: Final = [sys.executable, "-m", "lab", "run", "programs/hello.asm"]
COMPILE: Final = [sys.executable, "-c", "from emu.compiled import addresses; addresses()"]
LOCALITY: Final = 10
"""DTLB misses in a thousand accesses up to which a program counts as one with locality."""


@dataclass(frozen=True)
class Effort:
    """`repetitions` of `seconds` each for every number."""

    repetitions: int
    seconds: float


QUICK: Final = Effort(1, 0.02)
FULL: Final = Effort(5, 0.2)


@dataclass(frozen=True)
class Speed:
    """One program: a round's `instructions` and `accesses`, DTLB misses in 1000 accesses, and each engine's MIPS."""

    program: str
    what: str
    instructions: int
    accesses: int
    misses: float
    mips: dict[str, float]

    @property
    def has_locality(self) -> bool:
        """Whether TLBs are of use to it."""
        return self.misses <= LOCALITY

    def ratio(self, to: str) -> float:
        """How fast the trap engine is, compared to another."""
        return self.mips["trap"] / self.mips[to]


# --- measuring ---------------------------------------------------------------------------------------------------


def seconds_of(work: Callable[[], object]) -> float:
    """Processor time of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def count_round(engines: dict[str, Engine], program: Program) -> tuple[int, int, float]:
    """One round everywhere: its instructions, accesses, and DTLB misses in 1000 accesses. Nobody may disagree."""
    trap = engines["trap"]
    assert isinstance(trap, Cr3)
    accesses, misses = trap.accesses, trap.dtlb_misses
    checksums, counts = set(), set()
    for engine in engines.values():
        before = engine.instructions
        checksums.add(engine.run(1))
        if before is not None:
            counts.add((engine.instructions or 0) - before)
    if len(checksums) > 1 or len(counts) > 1:
        raise click.ClickException(
            f"{program.name}: the engines disagree: checksums {checksums}, instructions {counts}"
        )
    accesses, misses = trap.accesses - accesses, trap.dtlb_misses - misses
    return counts.pop(), accesses, 1000 * misses / accesses if accesses else 0.0


def measure(program: Program, effort: Effort) -> Speed:
    """All engines on one program."""
    image = program.image()
    engines = {name: build(image) for name, build in ENGINES.items()}
    instructions, accesses, misses = count_round(engines, program)
    rounds = {}
    for name, engine in engines.items():
        once = seconds_of(lambda engine=engine: engine.run(1))  # type: ignore[misc]
        rounds[name] = max(round(effort.seconds / once), 1)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(effort.repetitions):
        for name, engine in engines.items():
            times[name].append(seconds_of(lambda e=engine, n=rounds[name]: e.run(n)))  # type: ignore[misc]
    mips = {name: instructions * rounds[name] / median(times[name]) / 1e6 for name in engines}
    return Speed(program.name, program.what, instructions, accesses, misses, mips)


def syscalls_per_second(effort: Effort, *, pti: bool = False) -> float:
    """getpid() in a loop."""
    engine = Cr3(NULL_SYSCALL.image(), "trap", pti=pti)
    rounds = max(round(effort.seconds / (seconds_of(lambda: engine.run(100)) / 100)), 1)
    return rounds / median([seconds_of(lambda: engine.run(rounds)) for _ in range(effort.repetitions)])


def faults_per_second(effort: Effort) -> float:
    """Stores to fresh anonymous pages; mapping them is not part of it."""
    kernel = Kernel(Machine(engine="trap"))
    kernel.spawn(PAGE_FAULT)
    times = []
    for _ in range(1 + effort.repetitions):
        kernel.run(until="begin")
        times.append(seconds_of(lambda: kernel.run(until="done")))
    return TOUCHED_PAGES / median(times[1:])


def wall_clock(command: list[str], folder: Path) -> float:
    """Seconds from start to end of a command that may keep its bytecode, as it may by default."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begin


def start_up(effort: Effort) -> float:
    """`cr3 run programs/hello.asm`, with everything compiled before."""
    wall_clock(HELLO, ROOT)
    return median([wall_clock(HELLO, ROOT) for _ in range(effort.repetitions)])


def compile_time() -> float:
    """What the very first run has to wait for, in a copy that has never run."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "emu", Path(folder) / "emu", ignore=shutil.ignore_patterns("__pycache__"))
        return wall_clock(COMPILE, Path(folder))


# --- telling -----------------------------------------------------------------------------------------------------


def heading() -> str:
    """Over the lines of the table."""
    names = "".join(f"{name:>9}" for name in ENGINES)
    return f"{'MIPS':18}{names}{'trap/raw':>10}{'trap/virtual':>14}{'trap/naive':>12}{'misses/1000':>13}"


def line(speed: Speed) -> str:
    """A program in the table."""
    cells = "".join(f"{mips:9.1f}" for mips in speed.mips.values())
    ratios = f"{speed.ratio('raw'):10.2f}{speed.ratio('virtual'):14.2f}{speed.ratio('naive'):12.0f}"
    return f"{speed.program:18}{cells}{ratios}{speed.misses:13.2f}"


def means(speeds: list[Speed]) -> dict[str, float]:
    """Geometric means over the programs with locality; of the access engine's speeds, over those with accesses."""
    local = [speed for speed in speeds if speed.has_locality]
    ratios = {f"trap/{to}": geometric_mean(speed.ratio(to) for speed in local) for to in ("raw", "virtual", "naive")}
    looking = {
        f"{name} MIPS": geometric_mean(speed.mips[name] for speed in local if speed.accesses)
        for name in ("access", "caches")
    }
    return ratios | looking


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="One short repetition, without the compiler: whether it works, no more.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers here too.")
def main(quick: bool, file: Path | None) -> None:
    try:
        with whole_file(file) if file else nullcontext() as output:
            numbers = bench(QUICK if quick else FULL)
            if output:
                json.dump(numbers, output, indent=2)
    except InputError as error:
        raise click.ClickException(str(error)) from None


def bench(effort: Effort) -> dict[str, Any]:
    """Measure and tell everything; returns the numbers."""
    begin, used = time.perf_counter(), time.process_time()
    speeds = compare_engines(effort)
    single = {
        "system calls/s": syscalls_per_second(effort),
        "system calls/s, PTI": syscalls_per_second(effort, pti=True),
        "minor page faults/s": faults_per_second(effort),
    }
    share = (time.process_time() - used) / (time.perf_counter() - begin)
    single["cr3 run programs/hello.asm, seconds"] = start_up(effort)
    if effort is not QUICK:
        single["native code, compiled once, seconds"] = compile_time()
    tell("Geometric means over programs with locality:", means(speeds))
    tell("Kernel and start-up:", single)
    click.echo(f"\nThe bench had {share:.0%} of a processor; far below 100 % other work disturbed it.")
    programs = [asdict(speed) for speed in speeds]
    return {"programs": programs, "means": means(speeds), "single": single, "share": share}


def compare_engines(effort: Effort) -> list[Speed]:
    """The table, a line at a time."""
    click.echo(heading())
    speeds = []
    for program in PROGRAMS:
        speeds.append(measure(program, effort))
        click.echo(line(speeds[-1]))
    return speeds


def tell(title: str, numbers: dict[str, float]) -> None:
    """A few numbers under a title."""
    click.echo(f"\n{title}")
    for name, value in numbers.items():
        click.echo(f"  {name:36}{value:12,.{2 if value < 1000 else 0}f}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
