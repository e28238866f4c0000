"""Recordings: what happened as columns, instead of a Python call for each event.

>>> from emu import Machine
>>> machine = Machine(ram="1M")
>>> with machine.record("cr3_write", "tlb_flush") as recording:
...     machine.write_cr3(0x1000)
...     machine.write_cr3(0x2000)
...     machine.invlpg(0x5000)
>>> [hex(value) for value in recording["cr3_write"]["value"]]
['0x1000', '0x2000']
>>> list(recording["tlb_flush"]["reason"]), recording.dropped
(['mov_cr3', 'mov_cr3', 'invlpg'], {'cr3_write': 0, 'tlb_flush': 0})

Accesses, instructions, TLB hits and misses, page walks, CR3 writes and changes of mode are written by native code; the
other kinds are seldom, and recorded from their events. `seq` counts the rows of all tables together, so it is the order
in which things happened; `cycle` is the model's clock.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .columns import NATIVE, arrow_table, rows
from .events import Event, event_class
from .exceptions import InputError
from .state import Event as NativeEvent
from .state import RecordTable

if TYPE_CHECKING:
    import pyarrow

    from .machine import Machine

__all__ = ["LEVELS", "Mode", "Recording", "Sink"]

CHUNK: Final = 1 << 16
"""Rows of a table before they are handed on: a few megabytes, which fit into a host's cache."""

NO_LIMIT: Final = (1 << 64) - 1
Mode = Literal["user", "kernel"]
LEVELS: Final[dict[Mode, int]] = {"user": 3, "kernel": 0}
"""Privilege levels."""

NOWHERE: Final = 63
"""In place of the level of an event that has none: the kernel tells of it in any mode."""

Rows = npt.NDArray[Any]
Sink = Callable[[str, Rows], object]
"""Gets the kind of event and some rows, which are its own only until it returns."""


class Recording(Mapping[str, Rows]):
    """Tables of some kinds of events, from now until `stop`, or to the end of a `with` block.

    `recording["access"]` is a numpy structured array, `recording.to_arrow("access")` an Arrow table. With `last` only
    so many rows of each kind are kept, the last ones; `dropped` says how many were not. With `limit` the machine stops
    after so many rows. With a `mode` ("user", "kernel") what the processor does in the other one is left out. With a
    `sink` rows go there, chunk by chunk, and none are kept. Raises InputError for a kind that does not exist or is
    already being recorded.
    """

    def __init__(
        self,
        machine: Machine,
        *names: str,
        last: int | None = None,
        limit: int | None = None,
        mode: Mode | None = None,
        sink: Sink | None = None,
    ) -> None:
        self._state = machine.state
        if not names:
            raise InputError("nothing to record: name some kinds of events")
        if last is not None and (last < 1 or sink is not None):
            raise InputError("a recording keeps at least one row, and none that it hands on")
        for name in names:
            event_class(name)
            if name in machine.notices.recorded:
                raise InputError(f"{name!r} is being recorded already")
        self._state.records_not = sum(1 << level for name, level in LEVELS.items() if mode and name != mode)
        self._state.last_sequence = NO_LIMIT if limit is None else self._state.sequence + limit
        self._chunks: dict[str, list[Rows]] = {name: [] for name in names}
        self._sink = sink or self._keep
        self._tables: dict[str, NativeTable | PythonTable] = {
            name: (NativeTable if name in NATIVE else PythonTable)(self, machine, name, last) for name in names
        }
        self._is_on = True

    def _keep(self, name: str, some: Rows) -> None:
        self._chunks[name].append(some.copy())

    def hand_on(self, name: str, some: Rows) -> None:
        """Rows that a table has no more room for."""
        self._sink(name, some)

    # --- what was recorded --------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Rows:
        """All rows of one kind, in order. Raises InputError for a kind that was not recorded."""
        if name not in self._tables:
            raise InputError(f"{name!r} was not recorded; there are {', '.join(self._tables)}")
        self._tables[name].flush()
        chunks = self._chunks[name]
        if len(chunks) != 1:
            chunks[:] = [np.concatenate(chunks) if chunks else np.empty(0, rows(name))]
        return chunks[0]

    def __iter__(self) -> Any:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def count(self) -> int:
        """How many rows there were, of all kinds, with those that were dropped."""
        return sum(table.count for table in self._tables.values())

    @property
    def dropped(self) -> dict[str, int]:
        """How many rows of each kind were not kept, because `last` kept only younger ones."""
        return {name: table.dropped for name, table in self._tables.items()}

    def to_arrow(self, name: str) -> pyarrow.Table:
        """All rows of one kind as an Arrow table. Raises InputError, also without pyarrow."""
        return arrow_table(name, self[name])

    # --- ending it ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand on what the tables hold now."""
        for table in self._tables.values():
            table.flush()

    def stop(self) -> None:
        """Record no more. What was recorded stays; stopping twice does no harm."""
        if self._is_on:
            self._is_on = False
            for table in self._tables.values():
                table.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class NativeTable:
    """A table that native code fills. A ring of `last` rows, or chunks that are handed on."""

    def __init__(self, recording: Recording, machine: Machine, name: str, last: int | None) -> None:
        self._recording, self._machine, self._name, self._last = recording, machine, name, last
        self._kind = NativeEvent[name.upper()]
        self._rows = np.empty(last or CHUNK, rows(name))
        self._table: Any = machine.state.tables[self._kind]
        self._handed_on = 0
        ctypes.memset(ctypes.addressof(self._table), 0, ctypes.sizeof(RecordTable))
        self._table.rows, self._table.capacity = self._rows.ctypes.data, len(self._rows)
        self._table.row_size, self._table.is_ring = self._rows.itemsize, last is not None
        machine.notices.recorded[name] = self.flush
        machine.notices.record(name, True)

    @property
    def count(self) -> int:
        """Rows that there were."""
        return int(self._handed_on + self._table.laps * self._table.capacity + self._table.used)

    @property
    def dropped(self) -> int:
        """Rows that were overwritten."""
        table = self._table
        return int(table.used + (table.laps - 1) * table.capacity) if table.laps else 0

    def flush(self) -> None:
        """Hand on what is there. A ring is emptied only by `close`, so that it always has the last rows."""
        used = int(self._table.used)
        if self._last is not None:
            chunks = self._recording._chunks[self._name]
            chunks[:] = [self._ring(used)]
        elif used:
            self._table.used = 0
            self._handed_on += used
            self._recording.hand_on(self._name, self._rows[:used])

    def _ring(self, used: int) -> Rows:
        if not self._table.laps:
            return self._rows[:used].copy()
        return np.concatenate([self._rows[used:], self._rows[:used]])

    def close(self) -> None:
        """Record no more."""
        self._machine.notices.record(self._name, False)
        del self._machine.notices.recorded[self._name]
        self.flush()


class PythonTable:
    """A table that a listener fills."""

    def __init__(self, recording: Recording, machine: Machine, name: str, last: int | None) -> None:
        self._recording, self._state, self._name = recording, machine.state, name
        self._machine = machine
        self._fields = [field.name for field in fields(event_class(name))]
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=last)
        self.count = self._kept = 0
        self._last = last
        machine.notices.recorded[name] = self.flush
        self._subscription = machine.events.on(name, self._happened)

    def _happened(self, event: Event) -> None:
        state = self._state
        if state.sequence == state.last_sequence:
            return
        if state.records_not and state.records_not >> getattr(event, "cpl", NOWHERE) & 1:
            return
        state.sequence += 1
        self.count += 1
        self._rows.append((state.sequence, *(getattr(event, name) for name in self._fields)))
        if self._last is None and len(self._rows) == CHUNK:
            self.flush()
        if state.sequence == state.last_sequence:
            self._machine.stop()

    @property
    def dropped(self) -> int:
        """Rows that are not kept."""
        return self.count - len(self._rows) if self._last is not None else 0

    def flush(self) -> None:
        """Hand on what is there; with `last`, show it."""
        some = np.array(list(self._rows), rows(self._name))
        if self._last is not None:
            self._recording._chunks[self._name][:] = [some]
        elif len(some):
            self._rows.clear()
            self._recording.hand_on(self._name, some)

    def close(self) -> None:
        """Record no more."""
        self._subscription.off()
        del self._machine.notices.recorded[self._name]
        self.flush()
