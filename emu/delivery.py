"""Execute, and deliver page faults on the way (native).

A page that arrives on demand costs two departures from Unicorn: the refused access, and the VMCALL with which the
handler asks the kernel for the page. The first needs no Python where nobody listens: what the block counted beyond
the fault is known since it faulted there first (`Tail`), and the rest is `transfer.deliver`. Everything that is
less simple is left to `Cpu` and `Machine`, which do the same in Python.
"""

from __future__ import annotations

from typing import Any, Final

from numba import types

from .counting import NOWHERE, block_size
from .fetch import ENV_RIP
from .native import call, entry, native, words
from .pte import Access, ErrorCode
from .records import block_at, state_at, tail_at
from .state import Fault, Stop
from .transfer import PF, account, deliver
from .walk import FETCH
from .window import forwards

__all__ = ["run"]

word = types.int64
STOP_FAULT, STOP_REFETCH, STOP_UNDELIVERED = int(Stop.FAULT), int(Stop.REFETCH), int(Stop.UNDELIVERED)
READ: Final = int(Access.READ)
PAGE_FAULT: Final = int(Fault.PAGE)
ERROR_W: Final = int(ErrorCode.W)
NO_END: Final = -1
"""In place of the address at which Unicorn stops."""


@native
def _is_simple(s: Any, rip: Any) -> Any:
    """Whether page tables refused a load or store, and it is known what the block counted from it on.

    Where Unicorn called a hook before the instruction, its flags are to be mended (`_keep_flags` in callbacks.py).
    """
    if s.fault != PAGE_FAULT or s.fault_access == FETCH or s.listeners or s.block_key == 0 or s.hooked_va == rip:
        return False
    if s.fault_access == READ and forwards(s, words(s.invalid_address)[0]):  # it opens a transient window first
        return False
    current, offset = block_at(s.blocks, s.block_index), rip - s.block_va
    if current.key != s.block_key or current.tails == 0 or offset < 0 or offset >= block_size(s):
        return False
    return tail_at(current.tails, offset).instructions != 0


@native
def _take_back(s: Any, tail: Any) -> None:
    """What the block counted for the instruction that faults, and for those after it, did not happen."""
    s.instructions -= tail.instructions
    s.reads -= tail.reads
    s.writes -= tail.writes


@native
def _deliver_fault(s: Any) -> Any:
    """Deliver the page fault for which Unicorn stopped. False if Python must see to the reason."""
    rip = words(s.env)[ENV_RIP]
    if not _is_simple(s, rip):
        return False
    tail = tail_at(block_at(s.blocks, s.block_index).tails, rip - s.block_va)
    code = s.fault_code | (ERROR_W if tail.modifies else 0)
    _take_back(s, tail)
    s.passed_va = NOWHERE
    s.cr2 = words(s.invalid_address)[0]
    s.exception_cycles += s.cost_page_fault
    account(s)
    s.counted_as = 0
    if not deliver(s, PF, code, 0):
        s.stop = STOP_UNDELIVERED
        s.stop_detail = code
        return False
    if s.code_written:
        s.stop = STOP_REFETCH
        return False
    return True


@entry(word(word))
def run(state: Any) -> Any:
    """Execute from RIP on until Python is needed, for the reason that is then in `stop`. Returns Unicorn's error."""
    s = state_at(state, 0)
    while True:
        s.stop = 0
        error = call(s.uc_emu_start, (s.uc, words(s.env)[ENV_RIP], NO_END, 0, 0))
        if s.stop != STOP_FAULT or not _deliver_fault(s):
            return error & 0xFFFFFFFF
