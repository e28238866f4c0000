"""The same program on several machines: what does page-table isolation cost it?

Three machines are the standard: PTI off, PTI with PCIDs, PTI without. A matrix crosses anything else. The costs are
counted, not looked up: the entry code writes CR3 (or does not), the TLB loses what that flushes, and the walks
that follow take their time. A program must not notice: its exit and its output are the same in all runs.

>>> from lab.options import Options
>>> [label(options) for options in standard(Options(programs=("hello.asm",)))]
['PTI off', 'PTI, PCID', 'PTI, no PCID']
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import resources
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final

from emu import Halt, InputError
from emu.profile import load_profile

from .options import Options
from .parallel import in_parallel
from .session import Session
from .statistics import document as statistics_document

if TYPE_CHECKING:
    from .report import Observation
    from .report import Run as Observed

__all__ = [
    "Comparison",
    "Job",
    "Outcome",
    "Run",
    "compare",
    "crossed",
    "document",
    "label",
    "run_once",
    "schema",
    "standard",
]

SCHEMA: Final = "cr3.compare/1"
SWITCH: Final = {True: "on", False: "off"}


@dataclass(frozen=True, slots=True)
class Job:
    """One run to do: a machine with a program and its standard input.

    With `window` only what happens from the program's symbol `begin` to its symbol `end` is counted. With `recorded`
    the run is also watched for a report, in so many bytes.
    """

    options: Options
    stdin: bytes = b""
    window: bool = False
    recorded: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run that is over: what it counted (`cr3.stats/1`) and what the program did."""

    stats: Mapping[str, Any]
    stdout: bytes
    is_complete: bool
    """False: the instruction limit came first."""
    observed: Observed | None = None

    @property
    def cycles(self) -> int:
        """The model's clock."""
        return int(self.stats["cycles"]["total"])

    def behaviour(self) -> str:
        """What the program did, for people."""
        code, signal = self.stats["exit"]["code"], self.stats["exit"]["signal"]
        end = f"signal {signal}" if signal is not None else "stopped" if code is None else f"exit code {code}"
        return f"{end}, {len(self.stdout)} bytes of output"


@dataclass(frozen=True, slots=True)
class Run:
    """One machine: its name in tables, and an outcome for each seed."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def median(self) -> Outcome:
        """The outcome that stands for all."""
        middle = median_low(outcome.cycles for outcome in self.outcomes)
        return next(outcome for outcome in self.outcomes if outcome.cycles == middle)

    @property
    def stats(self) -> Mapping[str, Any]:
        """What the median outcome counted."""
        return self.median.stats

    @property
    def cycles(self) -> int:
        """Cycles of the median outcome."""
        return self.median.cycles

    def spread(self) -> dict[str, int]:
        """The fewest, middle and most cycles."""
        cycles = sorted(outcome.cycles for outcome in self.outcomes)
        return {"min": cycles[0], "median": self.cycles, "max": cycles[-1]}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of a program; the first one is the baseline."""

    program: tuple[str, ...]
    runs: tuple[Run, ...]

    def overhead(self, run: Run) -> float:
        """The fraction of the baseline's cycles that a run takes more."""
        return run.cycles / self.runs[0].cycles - 1

    @property
    def is_complete(self) -> bool:
        """Whether every run came to its end."""
        return all(outcome.is_complete for run in self.runs for outcome in run.outcomes)

    def difference(self) -> str | None:
        """What a program did otherwise than in the first run; None: it noticed nothing."""
        first = self.runs[0].outcomes[0]
        for run in self.runs:
            for outcome in run.outcomes:
                if (outcome.stats["exit"], outcome.stdout) != (first.stats["exit"], first.stdout):
                    return (
                        f"{' '.join(self.program)} does not do the same everywhere: {outcome.behaviour()} "
                        f"({run.name}), but {first.behaviour()} ({self.runs[0].name})"
                    )
        return None


# --- which machines ---------------------------------------------------------------------------------------------


def is_possible(options: Options) -> bool:
    """Whether there is such a machine: PCIDs on a processor that has them, and where they are asked for."""
    has_pcid = load_profile(options.cpu).features.pcid
    return (has_pcid or not options.pcid) and (options.asid != "stale" or options.pcid is not False)


def standard(options: Options) -> list[Options]:
    """PTI off, PTI with PCIDs, PTI without; as far as `options` leave it open, and the processor can."""
    able = load_profile(options.cpu).features.pcid if options.pcid is None else options.pcid
    wanted = [
        replace(options, pti=pti, pcid=pcid)
        for pti, pcid in ((False, able), (True, True), (True, False))
        if options.pti in (None, pti) and options.pcid in (None, pcid)
    ]
    return [choice for choice in wanted if is_possible(choice)]


def crossed(options: Options, axes: Mapping[str, Sequence[Any]]) -> list[tuple[str, Options]]:
    """Every combination of the axes (fields of `Options`, with their values) that there can be, with its name.

    >>> axes = {"pti": [False, True], "cpu": ["haswell", "zen2"], "pcid": [True]}
    >>> [name for name, _ in crossed(Options(programs=("hello.asm",)), axes)]
    ['pti=off cpu=haswell pcid=on', 'pti=on cpu=haswell pcid=on']
    """
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    named = [(_matrix_label(chosen), replace(options, **chosen)) for chosen in combinations]
    return [(name, choice) for name, choice in named if is_possible(choice)]


def _matrix_label(chosen: Mapping[str, Any]) -> str:
    """The combination as it would be typed; a seed of 1 is no switch that is on."""
    words = {key: SWITCH[value] if isinstance(value, bool) else value for key, value in chosen.items()}
    return " ".join(f"{key.replace('_', '-')}={word}" for key, word in words.items())


def label(options: Options) -> str:
    """What one of the three standard machines is called."""
    if not options.pti:
        return "PTI off"
    return "PTI, PCID" if options.pcid else "PTI, no PCID"


# --- running ----------------------------------------------------------------------------------------------------


def run_once(job: Job) -> Outcome:
    """Run one machine to its end, or count a window of it."""
    stdout = io.BytesIO()
    options = replace(job.options, until="begin") if job.window else job.options
    with closing(Session(options, io.BytesIO(job.stdin), stdout)) as session:
        observation = _observation(session, job.recorded)
        result = session.run()
        before = result.stats
        if job.window:
            result = session.kernel.run(until="end")
        stats = statistics_document(session, result)
        if job.window:
            stats |= _since(before, {key: stats[key] for key in _COUNTED if key in stats})
            result = session.kernel.run()
            stats["exit"] = result.stats["exit"]
        printed = stdout.getvalue()
        observed = observation.finish(result, "", printed) if observation is not None else None
    return Outcome(stats, printed, result.halt is not Halt.INSTRUCTION_LIMIT, observed)


def _observation(session: Session, size: int) -> Observation | None:
    if not size:
        return None
    from .report import Observation

    return Observation(session, size)


_COUNTED: Final = (
    *("instructions", "accesses", "cycles", "tlb", "caches", "transient", "walk", "faults", "swap"),
    *("cr3_writes", "syscalls", "context_switches"),
)
"""The parts of the statistics that only ever grow."""


def _since(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What was counted between two moments."""
    return {
        key: _since(before.get(key, {}), value) if isinstance(value, Mapping) else value - before.get(key, 0)
        for key, value in after.items()
    }


def compare(
    machines: Sequence[tuple[str, Options]],
    *,
    stdin: bytes = b"",
    repeat: int = 1,
    jobs: int | None = None,
    window: bool = False,
    recorded: int = 0,
) -> Comparison:
    """Run every machine, with `repeat` seeds each; `recorded` are the bytes that all together may add to a report.

    Raises InputError if there is no machine, and what a run raises.
    """
    if not machines:
        raise InputError("there is no such machine: this processor has no PCIDs, or the options exclude each other")
    todo = [
        Job(replace(options, seed=options.seed + extra), stdin, window, recorded // len(machines))
        for _name, options in machines
        for extra in range(repeat)
    ]
    outcomes = in_parallel(run_once, todo, jobs=jobs)
    runs = tuple(
        Run(name, tuple(outcomes[number * repeat : (number + 1) * repeat])) for number, (name, _) in enumerate(machines)
    )
    return Comparison(machines[0][1].programs, runs)


# --- for machines -----------------------------------------------------------------------------------------------


def document(comparison: Comparison) -> dict[str, Any]:
    """A comparison in the schema `cr3.compare/1`."""
    return {
        "schema": SCHEMA,
        "program": list(comparison.program),
        "runs": [_run_document(comparison, run) for run in comparison.runs],
    }


def _run_document(comparison: Comparison, run: Run) -> dict[str, Any]:
    config = run.stats["config"]
    entry = {
        **{key: config[key] for key in ("pti", "pcid", "cpu")},
        "stats": dict(run.stats),
        "overhead": comparison.overhead(run),
    }
    if len(run.outcomes) > 1:
        entry["spread"] = {"seeds": [outcome.stats["config"]["seed"] for outcome in run.outcomes], **run.spread()}
    return entry


def schema() -> dict[str, Any]:
    """The JSON Schema of the document; `stats` in it is described by a schema of its own."""
    text = resources.files(__package__).joinpath("schemas", "compare-1.json").read_text("utf-8")
    return dict(json.loads(text))
