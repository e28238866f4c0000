"""Replacement policies compared: one run is recorded, then replayed under every policy with every number of frames.

What is recorded is the order in which a program uses its pages of 4 KiB, code and data; a page that is used many times
in a row counts once, since no policy can tell. The replay is the textbook's: a number of frames, all empty at first,
and nobody else who wants them.

>>> replay("fifo", Recording.of([0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3, 4]), 3)
9
>>> replay("fifo", Recording.of([0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3, 4]), 4)
10
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emu import InputError
from emu.events import AccessEvent, InstructionEvent
from emu.pte import PAGE_SHIFT
from kernel.policies import Optimal, find_policy, next_uses

from .session import Session

__all__ = ["Recording", "ReplayBits", "as_dict", "compare", "frame_counts", "plot", "record", "replay"]

USER: Final = 3
TICK: Final = 1000
"""References between two ticks of a policy's clock."""
FEW: Final = 16
"""So many numbers of frames are tried one by one; of a wider range each is twice the one before."""


@dataclass(slots=True)
class Recording:
    """The pages that a run used, in order, and whether each time some byte was written."""

    pages: list[int] = field(default_factory=list)
    writes: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, pages: Sequence[int]) -> Recording:
        """A run that only reads."""
        return cls(list(pages), bytearray(len(pages)))

    def use(self, page: int, write: bool = False) -> None:
        """The next access."""
        if not self.pages or self.pages[-1] != page:
            self.pages.append(page)
            self.writes.append(write)
        elif write:
            self.writes[-1] = True

    @property
    def distinct(self) -> int:
        """How many different pages there are: with as many frames, each faults once."""
        return len(set(self.pages))


def record(session: Session) -> Recording:
    """Listen to a session, before it runs. Pages of different processes are different pages."""
    recording = Recording()

    def use(pid: int, va: int, size: int, write: bool) -> None:
        space = pid << 52
        recording.use(space | va >> PAGE_SHIFT, write)
        last = va + max(size, 1) - 1 >> PAGE_SHIFT
        if last != va >> PAGE_SHIFT:
            recording.use(space | last, write)

    def instruction(event: InstructionEvent) -> None:
        if event.cpl == USER:
            use(event.pid, event.va, event.size, False)

    def access(event: AccessEvent) -> None:
        if event.cpl == USER:
            use(event.pid, event.va, event.size, event.kind == "write")

    session.kernel.on("instruction", instruction)
    session.kernel.on("access", access)
    return recording


class ReplayBits:
    """The A and D bits of the replayed pages."""

    def __init__(self) -> None:
        self.young: set[int] = set()
        self.written: set[int] = set()

    def referenced(self, page: int) -> bool:
        """Read and clear A."""
        if page in self.young:
            self.young.discard(page)
            return True
        return False

    def used(self, pages: Collection[int]) -> set[int]:
        """Read and clear A of many."""
        found = self.young.intersection(pages)
        self.young -= found
        return found

    def dirty(self, page: int) -> bool:
        """Read D."""
        return page in self.written


def replay(name: str, recording: Recording, frames: int, seed: int = 1) -> int:
    """The faults of a recorded run under a policy with so many frames. Raises InputError for an unknown policy."""
    bits = ReplayBits()
    policy = find_policy(name)(bits, seed)
    if isinstance(policy, Optimal):
        policy.future(next_uses(recording.pages))
    resident: set[int] = set()
    faults, sees, used, writes = 0, policy.sees_accesses, bits.young, recording.writes
    for place, page in enumerate(recording.pages):
        if page not in resident:
            faults += 1
            if len(resident) == frames:
                _evict(policy.victim(), policy.removed, resident, bits)
            resident.add(page)
            policy.added(page)
        elif sees:
            policy.accessed(page)
        if not sees:
            used.add(page)
        if writes[place]:
            bits.written.add(page)
        if place % TICK == TICK - 1:
            policy.tick()
    return faults


def _evict(victim: int, removed: Callable[[int], None], resident: set[int], bits: ReplayBits) -> None:
    if not isinstance(victim, int) or victim not in resident:
        raise InputError(f"the policy's victim {victim!r} is no page that is in memory")
    removed(victim)
    resident.discard(victim)
    bits.young.discard(victim)
    bits.written.discard(victim)


# --- policies x frames ----------------------------------------------------------------------------------------------

_recording = Recording()
"""What a worker process replays: it is sent once, not with every task."""


def _start_worker(recording: Recording) -> None:
    global _recording
    _recording = recording


def _task(name: str, frames: int) -> int:
    return replay(name, _recording, frames)


def compare(
    recording: Recording, policies: Sequence[str], frames: Sequence[int], progress: Callable[[int, int], object]
) -> dict[str, list[int]]:
    """Faults by policy, one for each number of frames. `progress` hears how many replays of how many are done.

    Raises InputError for a policy that there is not.
    """
    for name in policies:
        find_policy(name)
    total = len(policies) * len(frames)
    with ProcessPoolExecutor(initializer=_start_worker, initargs=(recording,)) as pool:
        tasks = {pool.submit(_task, name, count): (name, count) for name in policies for count in frames}
        faults = {}
        for done, task in enumerate(as_completed(tasks), 1):
            faults[tasks[task]] = task.result()
            progress(done, total)
    return {name: [faults[name, count] for count in frames] for name in policies}


def frame_counts(text: str) -> list[int]:
    """Numbers of frames as typed. Raises InputError.

    >>> frame_counts("3..5"), frame_counts("16..200"), frame_counts("8,12")
    ([3, 4, 5], [16, 32, 64, 128, 200], [8, 12])
    """
    low, dots, high = text.partition("..")
    try:
        if not dots:
            counts = sorted({int(part) for part in text.split(",")})
        elif int(high) - int(low) < FEW:
            counts = list(range(int(low), int(high) + 1))
        else:
            first, last = max(int(low), 1), int(high)
            counts = [first << power for power in range(last.bit_length()) if first << power < last] + [last]
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise InputError(f"--frames {text}: expected a range such as 16..256, or numbers such as 8,12,16")
    return counts


def as_dict(programs: Sequence[str], recording: Recording, frames: list[int], faults: dict[str, Any]) -> dict[str, Any]:
    """The result for machines, schema `cr3.policies/1`."""
    return {
        "schema": "cr3.policies/1",
        "program": list(programs),
        "references": len(recording.pages),
        "pages": recording.distinct,
        "frames": frames,
        "faults": faults,
    }


def plot(path: str, title: str, frames: list[int], faults: dict[str, list[int]]) -> None:
    """Draw faults against frames into an SVG, PNG or PDF file. Raises InputError if that cannot be."""
    if Path(path).suffix not in (".svg", ".png", ".pdf"):
        raise InputError(f"--plot {path}: the name must end in .svg, .png or .pdf")
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise InputError('--plot needs matplotlib: pip install "cr3-lab[plot]"') from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for index, (name, counts) in enumerate(faults.items()):
        axes.plot(frames, counts, marker="osv^D<>pPX*h"[index % 12], markersize=4, linewidth=1.2, label=name)
    axes.set(title=title, xlabel="frames", ylabel="page faults")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"--plot {path}: {error.strerror}") from None
