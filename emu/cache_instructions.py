"""CLFLUSH, CLFLUSHOPT and CLWB, where the machine must execute them (SDM Vol. 2A).

Unicorn executes CLFLUSH, prefetches and fences, and `cache_control.py` does their work before it does; only a CLFLUSH
that is refused comes here. It does not know CLFLUSHOPT and CLWB at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exceptions import ProcessorException
from .instruction import Instruction
from .interrupt import Vector
from .operands import address, physical
from .privileged import instruction
from .pte import Access

if TYPE_CHECKING:
    from .machine import Machine

__all__: list[str] = []


def _check(one: Instruction) -> None:
    """A prefix such as LOCK is refused."""
    if one.mnemonic != one.name or one.memory is None:
        raise ProcessorException(Vector.UD)


@instruction("clflush", privileged=False)
def clflush(machine: Machine, one: Instruction) -> None:
    """CLFLUSH of a line that may not be loaded: the refusal is in the state."""
    _check(one)
    raise machine.mmu.exception(address(machine, one), stack=one.memory is not None and one.memory.stack)


@instruction("clflushopt", "clwb", privileged=False)
def write_back(machine: Machine, one: Instruction) -> None:
    """CLFLUSHOPT drops a line, CLWB leaves it: memory is up to date already. Both are checked like a load."""
    if not getattr(machine.profile.features, one.name):
        raise ProcessorException(Vector.UD)
    _check(one)
    machine.state.other_lookups += 1
    stack = one.memory is not None and one.memory.stack
    pa = physical(machine, address(machine, one), Access.READ, stack=stack)
    if one.name == "clflushopt":
        machine.caches.flush_line(pa)
