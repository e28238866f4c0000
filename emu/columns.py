"""What the tables of a recording look like: the row of every kind of event, for numpy and for Arrow.

Kinds that native code records (`recorder.py`) have rows of fixed size; words such as "write" or "dtlb" are numbers
there, and `CODES` says which. The others are recorded from the events that Python builds: text, and what may be
missing, is then a Python object.

>>> rows("access").names
('seq', 'cycle', 'va', 'pid', 'size', 'cpl', 'kind', 'pa')
>>> rows("access").itemsize, rows("tlb_miss").itemsize
(40, 32)
>>> rows("syscall_exit")["result"], rows("syscall_exit")["name"]
(dtype('int64'), dtype('O'))
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import numpy as np
import numpy.typing as npt

from .events import event_class
from .exceptions import InputError

if TYPE_CHECKING:
    import pyarrow

__all__ = ["CODES", "NATIVE", "arrow_columns", "arrow_table", "arrow_type", "decoded", "rows"]

_COMMON: Final = {"seq": ("<u8", 0), "cycle": ("<u8", 8), "va": ("<u8", 16), "pid": ("<u4", 24)}
_CPL: Final = {"cpl": ("<u1", 30)}
_LOOKUP: Final = {**_COMMON, "tlb": ("<u2", 28), **_CPL, "access": ("<u1", 31)}
_LAYOUTS: Final[dict[str, dict[str, tuple[Any, int]]]] = {
    "access": {**_COMMON, "size": ("<u2", 28), **_CPL, "kind": ("<u1", 31), "pa": ("<u8", 32)},
    "instruction": {**_COMMON, "size": ("<u2", 28), **_CPL},
    "tlb_hit": _LOOKUP,
    "tlb_miss": _LOOKUP,
    "page_walk": {
        **_COMMON,
        "reads": ("<u2", 28),
        **_CPL,
        "access": ("<u1", 31),
        "leaf": ("<u8", 32),
        "step_pa": (("<u8", (5,)), 40),
        "step_entry": (("<u8", (5,)), 80),
    },
    "cr3_write": {
        **{"seq": ("<u8", 0), "cycle": ("<u8", 8), "value": ("<u8", 16), "pid": ("<u4", 24)},
        **{"pcid": ("<u2", 28), "flush": ("?", 31)},
    },
    "mode_switch": {**_COMMON, **_CPL},
}
"""Name, type and offset of every column: the words of `recorder.record`."""

_SIZES: Final = {"access": 40, "page_walk": 120}
"""Bytes of a row that has more than the four common words."""

NATIVE: Final = frozenset(_LAYOUTS)
"""Kinds that native code records."""

CODES: Final = {
    "kind": ("read", "write", "fetch"),
    "access": ("read", "write", "fetch"),
    "tlb": ("itlb", "dtlb", "stlb"),
}
"""What the numbers in a column of a native table mean."""

_SIGNED: Final = ("result",)
_SMALL: Final = {"pid": "uint32", "cpl": "uint8", "size": "uint32", "pcid": "uint16", "reads": "uint16"}
"""Columns of Arrow tables that are not 64 bits wide; the same in every kind, so that kinds fit into one table."""


@cache
def rows(name: str) -> np.dtype[Any]:
    """The numpy type of a row. Raises InputError for an unknown kind of event."""
    if name in _LAYOUTS:
        layout = _LAYOUTS[name]
        return np.dtype(
            {
                "names": list(layout),
                "formats": [kind for kind, _ in layout.values()],
                "offsets": [offset for _, offset in layout.values()],
                "itemsize": _SIZES.get(name, 32),
            }
        )
    hints = get_type_hints(event_class(name))
    columns = [(field.name, _numpy_type(field.name, hints[field.name])) for field in fields(event_class(name))]
    return np.dtype([("seq", np.uint64), *columns])


def _numpy_type(name: str, hint: Any) -> Any:
    if hint is bool:
        return np.bool_
    if hint is int:
        return np.int64 if name in _SIGNED else np.uint64
    return object


def decoded(name: str, table: npt.NDArray[Any], column: str) -> list[Any]:
    """A column as Python values, with words for codes."""
    values: list[Any] = table[column].tolist()
    if name in NATIVE and column in CODES:
        words = CODES[column]
        return [words[value] for value in values]
    return values


# --- Arrow --------------------------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise InputError("tables for Arrow need pyarrow: pip install 'cr3-lab[trace]'") from None
    return pyarrow


def arrow_type(name: str, column: str) -> pyarrow.DataType:
    """The Arrow type of a column: the same wherever a column of this name occurs. Raises InputError without pyarrow."""
    pa = _pyarrow()
    if column in _SMALL:
        return getattr(pa, _SMALL[column])()
    if name in NATIVE:
        if column in CODES:
            return pa.dictionary(pa.int8(), pa.string())
        kind = rows(name)[column]
        return pa.list_(pa.uint64(), kind.shape[0]) if kind.shape else pa.from_numpy_dtype(kind)
    hint = {"seq": int, **get_type_hints(event_class(name))}[column]
    return _arrow_type(pa, column, hint)


def _arrow_type(pa: Any, column: str, hint: Any) -> Any:
    """Of a field of an event that Python builds."""
    text = str(hint)
    if text.startswith("tuple["):
        return pa.list_(pa.uint64())
    if hint is bool:
        return pa.bool_()
    if hint is int or text == "int | None":
        return pa.int64() if column in _SIGNED else pa.uint64()
    return pa.dictionary(pa.int8(), pa.string()) if column in CODES else pa.string()


def arrow_columns(name: str, table: npt.NDArray[Any]) -> dict[str, Any]:
    """The columns of some rows as Arrow arrays. Raises InputError without pyarrow."""
    pa = _pyarrow()
    return {column: _arrow_array(pa, name, table, column) for column in rows(name).names or ()}


def _arrow_array(pa: Any, name: str, table: npt.NDArray[Any], column: str) -> Any:
    values, kind = table[column], arrow_type(name, column)
    if pa.types.is_dictionary(kind):
        if name in NATIVE:
            return pa.DictionaryArray.from_arrays(np.ascontiguousarray(values, dtype=np.int8), list(CODES[column]))
        return pa.array(values.tolist(), pa.string()).dictionary_encode().cast(kind)
    if values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(values).ravel(), values.shape[1])
    if values.dtype == object:
        return pa.array(values.tolist(), kind)
    return pa.array(np.ascontiguousarray(values)).cast(kind)


def arrow_table(name: str, table: npt.NDArray[Any]) -> pyarrow.Table:
    """Some rows as an Arrow table. Raises InputError without pyarrow."""
    return _pyarrow().table(arrow_columns(name, table))
