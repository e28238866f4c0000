"""The time line of a run: go to any position, forwards or backwards, and search in both directions.

The run is deterministic, so its past needs no record: it can be executed again. What makes that quick are snapshots
(replica.py), sleeping copies of the machine at chosen positions:

    0 ---- S ---- 2S ---- 3S ---- ... nS --- t -- P         S doubles when there are too many of them
    |      |      |       |           |      |    |
    kept replicas                             last tick     the replica that is looked at

To go to P is to copy the nearest one before it, and let the copy run the rest. To step back is to go to P - 1. To
continue backwards is to send scouts (scout.py) along earlier and earlier stretches until one holds a stop.

A change that somebody makes (a register, memory) belongs to the time line at its position; what came after it is
forgotten, since it will be another future.

>>> import tempfile
>>> from pathlib import Path
>>> from .stops import OnEvent
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "seven.asm"
...     _ = path.write_text("_start: mov edi, 7; mov eax, 60; syscall")
...     with Timeline(Options(programs=(str(path),))) as timeline:
...         hit = timeline.find_first([OnEvent("syscall")])
...         moment = timeline.go(hit.position)
...         print(hit.what, moment.position - timeline.go(hit.position - 1).position)
syscall exit(7) 1
"""

from __future__ import annotations

import bisect
import select
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

from .guest import TICK, Edit, Moment, Options
from .replica import Interrupted, Replica, can_fork
from .scout import Found, Happened, Hit
from .stops import Stop
from .streams import Input, Output

__all__ = ["Timeline"]

SPACING: Final = 4 * TICK
"""Instructions between kept snapshots, to begin with."""
MOST: Final = 32
"""Snapshots that are kept. Each is a process with what it alone has written."""
NEAR: Final = 4
"""Snapshots at the last ticks before positions that were looked at, beside those."""
FAR: Final = 1 << 62
"""Beyond the end of every run."""


class Timeline:
    """A run of the programs in `options`, now at position 0. The guest's streams are as in `Session`.

    `is_interrupted` is asked while something takes long; when it says yes, `Interrupted` is raised and the time line
    stays where it was. Raises InputError for programs or options that cannot be.
    """

    def __init__(
        self,
        options: Options,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
        *,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_interrupted = is_interrupted
        self._input = Input(stdin, self._wait_for)
        self._outputs = Output(stdout), Output(stderr)
        self._edits: list[Edit] = []
        self._spacing = SPACING
        self._kept = [Replica.first(options, self)]
        self._near: list[Replica] = []
        self._present = self._kept[0].fork(self._edits)
        self._end: int | None = None
        """Where the run ends, once it was asked for."""
        self.moment = self._present.advance(0, [])

    def __enter__(self) -> Timeline:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for replica in (self._present, *self._near, *self._kept):
            replica.end()

    # --- what replicas ask for --------------------------------------------------------------------------------------

    def portion(self, number: int, size: int) -> bytes:
        """The guest reads its input."""
        return self._input.portion(number, size)

    def take(self, stream: int, offset: int, data: bytes) -> None:
        """The guest wrote to standard output (0) or error (1)."""
        self._outputs[stream].take(offset, data)

    def is_interrupted(self) -> bool:
        """Whether a person has lost patience."""
        return self._is_interrupted()

    def _wait_for(self, stream: BinaryIO) -> None:
        """Return when there is input, and meanwhile look whether somebody interrupts."""
        try:
            descriptor = stream.fileno()
        except (OSError, AttributeError, ValueError):
            return
        while not select.select([descriptor], [], [], 0.05)[0]:
            if self._is_interrupted():
                raise Interrupted(self.position)

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Instructions that have retired."""
        return self.moment.position

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(session, *arguments)` at this position; it must leave the session as it is."""
        return self._present.call(function, *arguments)

    def suppose(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The same in a copy, so `function` may do to its session what it likes."""
        copy = self._present.fork(self._edits)
        try:
            return copy.call(function, *arguments)
        finally:
            copy.end()

    def output(self) -> tuple[bytes, bytes]:
        """What was written to standard output and error before this position."""
        out, err = (record.until(size) for record, size in zip(self._outputs, self.moment.written, strict=True))
        return out, err

    # --- going ------------------------------------------------------------------------------------------------------

    def go(self, position: int) -> Moment:
        """Go to a position, or to the first one behind it that there is; to the end of the run if that comes first.

        Raises Interrupted.
        """
        if position != self.position:
            replica = self._run_to(max(position, 0))
            self._present.end()
            self._present = replica
            self.moment = replica.advance(replica.position, self._edits)
        return self.moment

    def glance(self, position: int) -> Moment:
        """What is at another position; this one stays."""
        if position == self.position:
            return self.moment
        replica = self._run_to(max(position, 0))
        moment = replica.advance(replica.position, self._edits)
        replica.end()
        return moment

    def before(self, position: int) -> int:
        """The last position before another; 0 if there is none."""
        distance = 1
        while (low := self.glance(position - distance).position) >= position > distance:
            distance *= 2
        high = position - distance // 2
        while low + 1 < high:  # the midst of a kernel function leads behind it
            middle = self.glance((low + high) // 2).position
            low, high = (middle, high) if middle < position else (low, (low + high) // 2)
        return max(min(low, position - 1), 0)

    def end(self) -> int:
        """Position of the end."""
        if self._end is None:
            self._end = self.glance(FAR).position
        return self._end

    def _run_to(self, position: int) -> Replica:
        """A new replica at a position. It leaves snapshots on its way."""
        replica = self._before(position).fork(self._edits)
        with replica.ended_on_error():
            while replica.position < position:
                moment = replica.advance(self._next_snapshot(replica.position, position), self._edits)
                if moment.ended or replica.position >= position:
                    break
                self._keep(replica)
        return replica

    def _next_snapshot(self, start: int, position: int) -> int:
        """Where a replica from `start` to `position` stops next: to be copied, or to stay."""
        spaced = (start // self._spacing + 1) * self._spacing
        last = position // TICK * TICK
        return min(at for at in (spaced, last, position) if at > start)

    def _keep(self, replica: Replica) -> None:
        """A snapshot of a replica, if there is none at its position."""
        at = replica.position
        if not can_fork():
            return  # a snapshot could not be copied
        if self._is_spaced(at):
            if not any(kept.position == at for kept in self._kept):
                bisect.insort(self._kept, replica.fork(self._edits), key=lambda kept: kept.position)
                self._thin()
        elif not any(near.position == at for near in self._near):
            self._near.append(replica.fork(self._edits))
            if len(self._near) > NEAR:
                self._near.pop(0).end()

    def _thin(self) -> None:
        """Too many snapshots: from now on half as many."""
        if len(self._kept) > MOST:
            self._spacing *= 2
            self._drop(lambda position: not self._is_spaced(position))

    def _is_spaced(self, position: int) -> bool:
        """Whether a snapshot is kept there: at a tick, or where a run comes out that cannot stop at the tick."""
        return position // TICK * TICK % self._spacing == 0

    def _drop(self, is_meant: Callable[[int], bool]) -> None:
        for replicas in (self._kept, self._near):
            for replica in [replica for replica in replicas if is_meant(replica.position)]:
                replicas.remove(replica)
                replica.end()

    def _before(self, position: int) -> Replica:
        """The nearest snapshot at or before a position."""
        candidates = (replica for replica in (*self._kept, *self._near) if replica.position <= position)
        return max(candidates, key=lambda replica: replica.position)

    # --- searching --------------------------------------------------------------------------------------------------

    def find_first(self, stops: Sequence[Stop], after: int | None = None, end: int | None = None) -> Hit | None:
        """The first hit after a position (by default this one), and before `end`. Raises InputError, Interrupted."""
        after = self.position if after is None else after
        return self._send(stops, after // TICK * TICK, (after, None, end)).hit

    def find_last(self, stops: Sequence[Stop], before: int | None = None) -> Hit | None:
        """The last hit before a position (by default this one). Raises InputError, Interrupted."""
        before = self.position if before is None else before
        end, ticks = before, 1
        while end > 0:
            start = max((end - 1) // TICK - ticks + 1, 0) * TICK
            hit = self._send(stops, start, (start, before, end)).hit
            if hit is not None:
                return hit
            end, ticks = start, 4 * ticks
        return None

    def events(self, names: Sequence[str], since: int) -> tuple[Happened, ...]:
        """The last events of some kinds between two positions: `since` and this one."""
        start = since // TICK * TICK
        return self._send([], start, (since, self.position, self.position), names).events if names else ()

    def _send(self, stops: Sequence[Stop], start: int, span: tuple[int, int | None, int | None], *log: Any) -> Found:
        scout = self._run_to(start)
        try:
            found = scout.search(list(stops), span, self._edits, *log)
        finally:
            scout.end()
        if found.ended and found.hit is None:
            self._end = found.position
        return found

    # --- changing the past ------------------------------------------------------------------------------------------

    def edit(self, change: Callable[..., object], *arguments: Any) -> None:
        """`change(session, *arguments)` at this position, which makes another future. Raises what it raises."""
        self._present.call(change, *arguments)
        position = self.position
        self._edits = [edit for edit in self._edits if edit.position <= position]
        self._edits.append(Edit(position, change, arguments))
        self._drop(lambda at: at > position)
        self._end = None
        for record, written in zip(self._outputs, self.moment.written, strict=True):
            record.forget(written)
        replica = self._run_to(position)
        self._present.end()
        self._present = replica
        self.moment = replica.advance(position, self._edits)
