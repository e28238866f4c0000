"""Which of the two engines a machine needs: the trap engine where it can do what is asked, else the access engine."""

from __future__ import annotations

from .exceptions import InputError
from .state import Engine

__all__ = ["ENGINES", "choose_engine"]

ENGINES = ("auto", "trap", "access")


def choose_engine(engine: str, tlb: bool, tlb_policy: str, caches: bool = False) -> Engine:
    """The trap engine sees no hits: policies that look at hits, no TLB at all, and caches need the access engine."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; there are {', '.join(ENGINES)}")
    needs_hits = not tlb or tlb_policy in ("lru", "plru") or caches
    if engine == "trap" and needs_hits:
        why = "a machine without TLB" if not tlb else "data caches" if caches else f"the {tlb_policy} policy"
        raise InputError(f"the trap engine sees no TLB hits and cannot model {why}; use --engine access")
    return Engine.ACCESS if engine == "access" or needs_hits else Engine.TRAP
