"""Signals, as far as they end a process: which fault makes which (arch/x86/kernel/traps.c). Handlers come later."""

from __future__ import annotations

from typing import Final

__all__ = ["FAULT_SIGNALS", "SIGKILL", "SIGSEGV", "signal_name"]

SIGKILL: Final = 9
SIGSEGV: Final = 11

FAULT_SIGNALS: Final = {
    "exc_divide_error": 8,
    "exc_debug": 5,
    "exc_int3": 5,
    "exc_overflow": 11,
    "exc_bounds": 11,
    "exc_invalid_op": 4,
    "exc_invalid_tss": 11,
    "exc_segment_not_present": 7,
    "exc_stack_segment": 7,
    "exc_general_protection": 11,
    "exc_coprocessor_error": 8,
    "exc_alignment_check": 7,
    "exc_simd_coprocessor_error": 8,
}
"""Handler to signal number on Linux x86-64: SIGILL 4, SIGTRAP 5, SIGBUS 7, SIGFPE 8, SIGSEGV 11."""

_NAMES: Final = {
    **{4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"},
    **{13: "SIGPIPE", 15: "SIGTERM"},
}


def signal_name(number: int) -> str:
    """The name of a signal on Linux x86-64.

    >>> signal_name(11)
    'SIGSEGV'
    """
    return _NAMES.get(number, f"signal {number}")
