"""What a report is made of, as typed values: one run, or several of the same program side by side.

`as_dict` is what the page embeds (schema `cr3.report/1`): everything that one sees in it can be read from there by a
script, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from emu.image import Image
from emu.pte import ADDRESS_MASK, Pte
from kernel import ExitEvent, Result
from kernel.pte import PROTNONE, SPECIAL, SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, SWAP_TYPE_SHIFT

from ..page_states import STATES
from ..session import Session
from ..statistics import cause_name
from ..statistics import document as statistics_document
from .faults import Fault, FaultLog, FaultPlace
from .latencies import latencies
from .recorder import Recorder
from .recording import MOST_BYTES, Recording, record

__all__ = ["MOST_OUTPUT", "Observation", "Report", "Run"]

SCHEMA: Final = "cr3.report/1"
MOST_OUTPUT: Final = 20_000
"""Characters of what a program printed that a report shows."""
MOST_LINES: Final = 5_000
"""Lines of a source file that a report shows."""
MOST_SYMBOLS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Run:
    """One machine that ran the program: what it counted, and what it looked like over time."""

    name: str
    stats: Mapping[str, Any]
    recording: Recording
    places: list[FaultPlace]
    faults: list[Fault]
    total_faults: int
    output: str
    symbols: dict[str, str]
    """Symbols of the program and of the kernel, and their addresses in hexadecimal."""
    latencies: list[int]
    """Cycles of the loads of an attack by Flush+Reload; empty where there was none."""


class Observation:
    """Watches a session from before its start to its end, and tells it as a `Run` of at most so many bytes."""

    def __init__(self, session: Session, most_bytes: int = MOST_BYTES) -> None:
        self._session, self._recorder, self._faults = session, Recorder(session), FaultLog(session)
        self._most_bytes = most_bytes
        self._latencies: list[int] = []
        self._ended = session.kernel.on("exit", self._first_ended, pid=1)

    def _first_ended(self, _event: ExitEvent) -> None:
        """The memory of the first process is still there."""
        self._latencies = latencies(self._session.kernel, self._session.kernel.processes[0])

    def finish(self, result: Result, name: str, output: bytes, end: str = "the run was stopped") -> Run:
        """The run is over. `end` says how, where it was not the program's own doing."""
        session, watcher = self._session, self._recorder.watcher
        snapshots = self._recorder.finish(end)
        self._faults.close()
        self._ended.off()
        if session.kernel.processes[0].alive:
            self._latencies = latencies(session.kernel, session.kernel.processes[0])
        return Run(
            name,
            statistics_document(session, result),
            record(session.machine, snapshots, watcher.spaces, len(watcher.too_many), self._most_bytes),
            self._faults.places,
            self._faults.faults,
            self._faults.total,
            _printed(output),
            _symbols(session.images[0]) | _kernel_symbols(session),
            self._latencies,
        )


def _printed(output: bytes) -> str:
    text = output.decode("utf-8", "replace")
    return text if len(text) <= MOST_OUTPUT else text[:MOST_OUTPUT] + "\n[and more]"


def _symbols(image: Image) -> dict[str, str]:
    names = sorted(image.symbols, key=lambda name: (image.symbols[name], name))
    return {name: f"{image.symbols[name]:x}" for name in names[:MOST_SYMBOLS]}


def _kernel_symbols(session: Session) -> dict[str, str]:
    own = session.images[0].symbols
    return {name: f"{va:x}" for name, va in sorted(session.kernel.text.symbols.items()) if name not in own}


@dataclass(frozen=True, slots=True)
class Report:
    """A page: one or more runs of the same programs."""

    programs: tuple[str, ...]
    runs: tuple[Run, ...]
    sources: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, programs: Iterable[str], runs: Iterable[Run]) -> Report:
        """A report with the sources of everything that faulted, as far as they can be read."""
        runs = tuple(runs)
        files = {place.file for run in runs for place in run.places if place.file}
        texts = {file: lines for file in sorted(files) if (lines := _lines(Path(file)))}
        return cls(tuple(programs), runs, texts)

    @property
    def title(self) -> str:
        """The names of the programs."""
        return ", ".join(Path(program).name for program in self.programs)

    @property
    def has_latencies(self) -> bool:
        """Whether an attack ran on any machine."""
        return any(run.latencies for run in self.runs)

    def causes(self) -> list[str]:
        """The causes that cost any run anything, the largest part first."""
        total: dict[str, int] = {}
        for run in self.runs:
            for cause, cycles in run.stats["cycles"]["by_cause"].items():
                total[cause] = total.get(cause, 0) + cycles
        return sorted((cause for cause, cycles in total.items() if cycles), key=lambda cause: -total[cause])

    def as_dict(self) -> dict[str, Any]:
        """The report in the schema `cr3.report/1`, with what its reader must know to understand entries."""
        return {
            "schema": SCHEMA,
            "programs": list(self.programs),
            "causes": {cause: cause_name(cause) for cause in self.causes()},
            "states": {letter: {"name": state.name, "meaning": state.meaning} for letter, state in STATES.items()},
            "layout": LAYOUT,
            "has_latencies": self.has_latencies,
            "runs": [asdict(run) for run in self.runs],
        }


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines if len(lines) <= MOST_LINES else []


LAYOUT: Final = {
    "flags": {flag.name: flag.bit_length() - 1 for flag in Pte},
    "address_mask": f"{ADDRESS_MASK:x}",
    "protnone": f"{PROTNONE:x}",
    "special": f"{SPECIAL:x}",
    "swap_type_shift": SWAP_TYPE_SHIFT,
    "swap_offset_shift": SWAP_OFFSET_SHIFT,
    "swap_offset_mask": f"{SWAP_OFFSET_MASK:x}",
}
"""Where the bits of an entry are, for the page's own decoder: they are drawn once, in `emu/pte.py` and
`kernel/pte.py`."""
