"""Python that becomes machine code: numba, and two small bridges to C.

Unicorn calls the memory hardware millions of times a second. A Python callback costs about a
microsecond; a function compiled by numba and handed over as a C function pointer costs twenty
nanoseconds. Three rules keep such code readable:

- All integers are signed 64-bit. `(va << 16) >> 16 == va` is then the canonical check, and no mixture of
  signed and unsigned values ever becomes a float.
- State lives in records drawn once in `state.py`; a record is passed by reference and its fields are
  read and written by name.
- Nothing here is imported in an ordinary run: `compiled.py` keeps the machine code on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["ENTRIES", "RARE", "call", "entry", "native", "rare", "reference", "words"]

native: Callable[..., Any] = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of a function that only other native code calls; compiled together with its caller."""

RARE: list[str] = []
"""Names of functions that shall not be put into their callers."""


def rare(function: Callable[..., Any]) -> Any:
    """Decorator of a native function for what seldom happens: its callers stay short, and so do their prologues."""
    RARE.append(function.__name__)
    return native(function)


ENTRIES: dict[str, Any] = {}
"""Every function that C or Python may call, by name, as numba compiled it."""


def entry(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a native function that C or Python calls through its address."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.cfunc(signature, nopython=True, error_model="numpy")(function)
        ENTRIES[function.__name__] = compiled
        return compiled

    return decorate


@intrinsic
def words(typing_context: Any, address: Any) -> Any:
    """The 64-bit words at a host address, as something to index: `words(ram)[pa >> 3]`."""
    signature = types.CPointer(types.int64)(types.int64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return signature, generate


def reference(record_type: Any) -> Any:
    """Make a native function `at(address, index)`: the record number `index` of an array at a host address."""
    size = record_type.size

    @intrinsic
    def at(typing_context: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            offset = builder.mul(args[1], args[1].type(size))
            return builder.inttoptr(builder.add(args[0], offset), context.get_value_type(sig.return_type))

        return record_type(types.int64, types.int64), generate

    return at


@intrinsic
def call(typing_context: Any, function: Any, arguments: Any) -> Any:
    """Call the C function at address `function` with a tuple of integers; gives its 64-bit result.

    The address comes from the state block, not from a global: a global would keep numba from caching.
    """
    signature = types.int64(types.int64, arguments)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        from llvmlite import ir

        word = ir.IntType(64)
        values = cgutils.unpack_tuple(builder, args[1])
        pointer = builder.inttoptr(args[0], ir.FunctionType(word, [word] * len(values)).as_pointer())
        return builder.call(pointer, [builder.sext(v, word) if v.type.width < 64 else v for v in values])

    return signature, generate
