"""The shared state as native code sees it: the records of `state.py`, by name (native)."""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np

from .cache_state import CacheInstruction
from .native import call, native, reference, words
from .state import Block, State, Tail, TlbEntry
from .window_state import Predictor, Window, WindowBlock, WindowFrame

__all__ = [
    "block_at",
    "cache_instruction_at",
    "entry_at",
    "leave",
    "notify",
    "predictor_at",
    "state_at",
    "tail_at",
    "window_at",
    "window_block_at",
    "window_frame_at",
]


def _signed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same layout with signed words, as native code wants it."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((_signed(base), shape))
    if dtype.names is None:
        return np.dtype(np.int64)
    assert dtype.fields is not None
    fields = [dtype.fields[name] for name in dtype.names]
    return np.dtype(
        {
            "names": list(dtype.names),
            "formats": [_signed(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
    )


def record_type(structure: type[ctypes.Structure]) -> Any:
    """The numba record with the layout of a ctypes structure of 64-bit words."""
    return numba.from_dtype(_signed(np.dtype(structure)))


state_at = reference(record_type(State))
entry_at = reference(record_type(TlbEntry))
block_at = reference(record_type(Block))
predictor_at = reference(record_type(Predictor))
tail_at = reference(record_type(Tail))
cache_instruction_at = reference(record_type(CacheInstruction))
window_at = reference(record_type(Window))
window_block_at = reference(record_type(WindowBlock))
window_frame_at = reference(record_type(WindowFrame))


@native
def notify(s: Any, event: Any, a: Any, b: Any, c: Any) -> None:
    """Tell Python about an event, now."""
    call(s.notify, (event, a, b, c))


@native
def leave(s: Any, reason: Any, detail: Any) -> None:
    """Leave Unicorn after this hook, for a `Stop` reason."""
    s.stop = reason
    s.stop_detail = detail
    if s.unsynced:
        words(s.unsynced)[0] &= ~s.unsynced_bit
    call(s.uc_emu_stop, (s.uc,))
