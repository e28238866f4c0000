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

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from emu import InputError
from emu.columns import CODES
from emu.pte import PAGE_SHIFT
from kernel.policies import Optimal, find_policy, next_uses

from .parallel import in_parallel
from .session import Session

__all__ = ["FORMATS", "Recording", "ReplayBits", "as_dict", "compare", "frame_counts", "plot", "record", "replay"]

Rows = npt.NDArray[Any]
_USE: Final = np.dtype([("seq", "<u8"), ("page", "<u8"), ("write", "?")])
_NOTHING: Final[Rows] = np.empty(0, _USE)
END: Final = 1 << 63
"""Later than everything."""
TICK: Final = 1000
"""References between two ticks of a policy's clock."""
FORMATS: Final = (".svg", ".png", ".pdf")
"""Of plots."""
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


@contextmanager
def record(session: Session) -> Iterator[Recording]:
    """What a session does while the block lasts: afterwards it can be replayed. Pages of different processes are
    different pages.
    """
    recording = Recording()
    order = _Order(recording)
    with session.kernel.record("instruction", "access", mode="user", sink=order.take):
        yield recording
    order.settle(END)


class _Order:
    """Brings rows into the order in which things happened: they come table by table."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._waiting: dict[str, list[Rows]] = {"instruction": [], "access": []}
        self._seen = dict.fromkeys(self._waiting, 0)

    def take(self, name: str, rows: Rows) -> None:
        """Rows of one table. They can be ordered as far as the other table has come."""
        self._waiting[name].append(_uses(rows))
        self._seen[name] = int(rows["seq"][-1])
        self.settle(min(self._seen.values()))

    def settle(self, last: int) -> None:
        """Note the pages of what happened up to a number."""
        uses = np.concatenate([_NOTHING, *(some for table in self._waiting.values() for some in table)])
        uses = uses[np.argsort(uses["seq"], kind="stable")]
        now = int(np.searchsorted(uses["seq"], last, side="right"))
        self._note(uses[:now])
        # What is left is in order already, whichever table it is from.
        self._waiting = {"instruction": [uses[now:]], "access": []}

    def _note(self, uses: Rows) -> None:
        """A page that is used many times in a row counts once."""
        if not len(uses):
            return
        first = np.flatnonzero(np.append(True, uses["page"][1:] != uses["page"][:-1]))
        pages, writes = uses["page"][first].tolist(), np.logical_or.reduceat(uses["write"], first)
        self._recording.use(pages[0], bool(writes[0]))
        self._recording.pages += pages[1:]
        self._recording.writes += writes[1:].tobytes()


def _uses(rows: Rows) -> Rows:
    """When, which page, and whether it was written; twice for what crosses into the next page."""
    uses = np.empty(len(rows), _USE)
    uses["seq"], uses["write"] = rows["seq"], False
    if "kind" in (rows.dtype.names or ()):
        uses["write"] = rows["kind"] == CODES["kind"].index("write")
    space = rows["pid"].astype(np.uint64) << np.uint64(52)
    uses["page"] = space | rows["va"] >> np.uint64(PAGE_SHIFT)
    beyond = uses.copy()
    beyond["page"] = space | (rows["va"] + np.maximum(rows["size"], 1) - np.uint64(1)) >> np.uint64(PAGE_SHIFT)
    crossing = beyond["page"] != uses["page"]
    return np.insert(uses, np.flatnonzero(crossing) + 1, beyond[crossing])


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

FEW_REFERENCES: Final = 2_000_000
"""With fewer in all replays together it takes longer to start processes than to replay."""


@dataclass(frozen=True)
class Curve:
    """What one process does: a policy, with each number of frames."""

    policy: str
    recording: Recording
    frames: Sequence[int]

    def faults(self) -> list[int]:
        """More frames than pages make no difference."""
        distinct = self.recording.distinct
        counted = {
            count: replay(self.policy, self.recording, count) for count in {min(n, distinct) for n in self.frames}
        }
        return [counted[min(count, distinct)] for count in self.frames]


def compare(
    recording: Recording, policies: Sequence[str], frames: Sequence[int], jobs: int | None = None
) -> dict[str, list[int]]:
    """Faults by policy, one for each number of frames; `jobs` processes at a time, by default one for each core.

    Raises InputError for a policy that there is not.
    """
    for name in policies:
        find_policy(name)
    if len(recording.pages) * len(policies) * len(frames) < FEW_REFERENCES:
        jobs = 1
    curves = [Curve(name, recording, frames) for name in policies]
    return dict(zip(policies, in_parallel(Curve.faults, curves, jobs=jobs, what="policies"), strict=True))


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


def plot(file: IO[bytes], suffix: str, title: str, frames: list[int], faults: dict[str, list[int]]) -> None:
    """Draw faults against frames."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for index, (name, counts) in enumerate(faults.items()):
        axes.plot(frames, counts, marker="osv^D<>pPX*h"[index % 12], markersize=4, linewidth=1.2, label=name)
    axes.set(title=title, xlabel="frames", ylabel="page faults")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, format=suffix[1:])
