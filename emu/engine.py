"""Which of the two engines a machine needs: the trap engine where it can do what is asked, else the access engine."""

from __future__ import annotations

from .exceptions import InputError
from .state import Engine

__all__ = ["ENGINES", "choose_engine"]

ENGINES = ("auto", "trap", "access")


def choose_engine(engine: str, tlb: bool, tlb_policy: str) -> Engine:
    """The trap engine sees no hits, so policies that look at hits, and no TLB at all, need the access engine."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; there are {', '.join(ENGINES)}")
    needs_hits = not tlb or tlb_policy in ("lru", "plru")
    if engine == "trap" and needs_hits:
        why = f"the {tlb_policy} policy" if tlb else "a machine without TLB"
        raise InputError(f"the trap engine sees no TLB hits and cannot model {why}; use --engine access")
    return Engine.ACCESS if engine == "access" or needs_hits else Engine.TRAP
