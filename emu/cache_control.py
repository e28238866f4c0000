"""Instructions that act on caches: CLFLUSH, PREFETCHh, PREFETCHW, and the fences that wait for loads (native).

Unicorn executes each of them as if it were not there. So there is a hook before it (`blocks.py` finds them), which does
what the manual says, and Unicorn goes on. Only what is refused needs the machine.

- CLFLUSH is checked like a load of one byte, and faults like one (SDM Vol. 2A, CLFLUSH).
- A prefetch never faults. It walks the page tables if it must, and fills TLBs and caches; where the page is not
  there, or not the program's, no line is brought (SDM Vol. 2B, PREFETCHh). But the translation of a page that is
  there stays in the TLB, whoever may use it, and so a second prefetch tells by its time which pages of the kernel
  are mapped (Gruss et al., Prefetch Side-Channel Attacks, CCS 2016).
- LFENCE and MFENCE wait until earlier loads have their data.
"""

from __future__ import annotations

from typing import Any, Final

from .cache import cache_access, flush_line, prefetch_beyond, wait_for_loads
from .cache_state import CacheAction, CacheUse
from .native import native, words
from .pte import ANY_RIGHTS, Access
from .records import cache_instruction_at, leave
from .state import Stop
from .transfer import physical
from .translate import look_up, translate
from .walk import permitted

__all__ = ["act_on_caches", "prefetch_ahead"]

READ: Final = int(Access.READ)
PREFETCH: Final = int(CacheUse.PREFETCH)
END, FLUSH, WAIT = int(CacheAction.END), int(CacheAction.FLUSH), int(CacheAction.WAIT)
PREFETCH_L1, PREFETCH_L2 = int(CacheAction.PREFETCH), int(CacheAction.PREFETCH_L2)
STOP_MODEL: Final = int(Stop.MODEL)
RIP, NONE = 16, 17


@native
def _address(env: Any, one: Any) -> Any:
    """Linear address of the operand, from Unicorn's registers."""
    registers = words(env)
    address = one.displacement
    if one.base == RIP:
        address += one.next_va
    elif one.base != NONE:
        address += registers[one.base]
    if one.index != NONE:
        address += registers[one.index] * one.scale
    address &= one.mask
    return address + words(one.segment)[0] if one.segment else address


@native
def _flush(s: Any, va: Any) -> None:
    """CLFLUSH. What is refused is left to the machine, which finds the reason in the state."""
    leaf = translate(s, va, READ)
    if not leaf:
        leave(s, STOP_MODEL, va)
    elif s.caches:
        flush_line(s, physical(leaf, va))


@native
def _prefetch(s: Any, va: Any, action: Any) -> None:
    leaf = look_up(s, va, READ | ANY_RIGHTS)
    pa = physical(leaf, va)
    s.fault = 0
    if not leaf or not permitted(s, leaf, READ) or not s.caches or pa >= s.ram_size:
        return
    if action == PREFETCH_L2:
        prefetch_beyond(s, pa)
    else:
        cache_access(s, pa, PREFETCH)


@native
def _find(instructions: Any, va: Any) -> Any:
    """The instruction at `va` in a block's list, or the end of the list."""
    number = 0
    while True:
        one = cache_instruction_at(instructions, number)
        if one.action == END or one.va == va:
            return one
        number += 1


@native
def act_on_caches(s: Any, instructions: Any, va: Any) -> None:
    """Do what the instruction at `va` does, if it is in a block's list of those that act on caches."""
    one = _find(instructions, va)
    if one.action == WAIT:
        wait_for_loads(s)
    elif one.action != END:
        s.other_lookups += 1
        if one.action == FLUSH:
            _flush(s, _address(s.env, one))
        else:
            _prefetch(s, _address(s.env, one), one.action)


@native
def prefetch_ahead(s: Any, env: Any, instructions: Any, va: Any) -> None:
    """The same in a transient window, with its registers: only a prefetch does not wait until it retires."""
    one = _find(instructions, va)
    if one.action == PREFETCH_L1 or one.action == PREFETCH_L2:
        _prefetch(s, _address(env, one), one.action)
