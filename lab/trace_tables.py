"""Traces as tables: rows of a recording, written to a Parquet or CSV file while the program runs.

One file holds all kinds of events: the column `event` says which, `seq` in which order they happened, and a column that
a kind does not have is empty in its rows. Addresses are numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from typing import IO, Any, Protocol

from emu import InputError
from emu.columns import arrow_columns, arrow_type, decoded, rows
from emu.recording import Mode

from .session import Session

__all__ = ["CsvTable", "ParquetTable", "TableFile", "TableTrace", "check_engine"]


class TableFile(Protocol):
    """A file that takes rows."""

    def write(self, name: str, some: Any) -> None:
        """Write rows of one kind of event."""

    def close(self) -> None:
        """Write what a file of this kind has at its end."""


def columns_of(names: Iterable[str]) -> dict[str, str]:
    """All columns of some kinds of events, with a kind that has it: what all have comes first."""
    found: dict[str, str] = {}
    for name in names:
        for column in ("seq", "cycle", "pid", *(rows(name).names or ())):
            found.setdefault(column, name)
    return found


class CsvTable:
    """Comma-separated values with a head line; a list is written with blanks between its numbers."""

    def __init__(self, file: IO[str], names: Collection[str]) -> None:
        self._columns = columns_of(names)
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(["event", *self._columns])

    def write(self, name: str, some: Any) -> None:
        """Write rows of one kind of event."""
        own = rows(name).names or ()
        nothing = [None] * len(some)
        values = [_plain(decoded(name, some, column)) if column in own else nothing for column in self._columns]
        self._writer.writerows(zip([name] * len(some), *values, strict=True))

    def close(self) -> None:
        """Nothing: the file is closed by whoever opened it."""


def _plain(values: list[Any]) -> list[Any]:
    return [" ".join(map(str, value)) if isinstance(value, (list, tuple)) else value for value in values]


class ParquetTable:
    """Apache Parquet, compressed; each write is a row group. Raises InputError without pyarrow."""

    def __init__(self, file: IO[bytes], names: Collection[str]) -> None:
        columns = {column: arrow_type(name, column) for column, name in columns_of(names).items()}
        import pyarrow as pa
        from pyarrow import parquet

        self._arrow = pa
        self._schema = pa.schema({"event": pa.dictionary(pa.int8(), pa.string()), **columns})
        counted = [field.name for field in self._schema if field.type in (pa.uint64(), pa.int64())]
        words = [field.name for field in self._schema if field.name not in counted]
        deltas = dict.fromkeys(counted, "DELTA_BINARY_PACKED")  # clocks and addresses go in small steps
        self._writer = parquet.ParquetWriter(
            file, self._schema, compression="zstd", use_dictionary=words, column_encoding=deltas
        )

    def write(self, name: str, some: Any) -> None:
        """Write rows of one kind of event."""
        pa, own = self._arrow, arrow_columns(name, some)
        own["event"] = pa.DictionaryArray.from_arrays(pa.array([0] * len(some), pa.int8()), [name])
        columns = [own[c.name] if c.name in own else pa.nulls(len(some), c.type) for c in self._schema]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """Write the footer, without which a Parquet file cannot be read."""
        self._writer.close()


def check_engine(session: Session, names: Collection[str]) -> None:
    """Raises InputError for events that a machine which looks at misses only does not have."""
    for name in ("access", "tlb_hit"):
        if name in names and session.options.engine == "trap":
            raise InputError(f"the trap engine does not see every {name}; leave out --engine trap")


class TableTrace:
    """Records a session into a table. With `last` only so many rows of each kind get there, the last ones."""

    def __init__(
        self,
        session: Session,
        names: Collection[str],
        table: TableFile,
        *,
        limit: int | None = None,
        last: int | None = None,
        mode: Mode | None = None,
    ) -> None:
        check_engine(session, names)
        self._table, self._limit = table, limit
        sink = table.write if last is None else None
        self._recording = session.machine.record(*names, last=last, limit=limit, mode=mode, sink=sink)
        self._is_kept = last is not None

    @property
    def count(self) -> int:
        """Events so far."""
        return self._recording.count

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self.count >= self._limit

    @property
    def dropped(self) -> int:
        """Events that were not kept."""
        return sum(self._recording.dropped.values())

    def end(self) -> None:
        """Write what is left."""
        self._recording.stop()
        if self._is_kept:
            for name, some in self._recording.items():
                self._table.write(name, some)
        self._table.close()
