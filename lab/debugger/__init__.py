"""The debugger: a run as a time line that can be walked in both directions, and what stands on it.

`Timeline` is the engine: deterministic re-execution with snapshots. `Debugger` adds what a person calls a step.
"""

from __future__ import annotations

from .debugger import Debugger, Outcome, Why
from .guest import TICK, Edit, Moment
from .replica import Interrupted, ReplicaError
from .scout import Happened, Hit
from .stops import AtAddress, OnAccess, OnEntry, OnEvent, OnSignal, Stop
from .timeline import Timeline

__all__ = [
    "TICK",
    "AtAddress",
    "Debugger",
    "Edit",
    "Happened",
    "Hit",
    "Interrupted",
    "Moment",
    "OnAccess",
    "OnEntry",
    "OnEvent",
    "OnSignal",
    "Outcome",
    "ReplicaError",
    "Stop",
    "Timeline",
    "Why",
]
