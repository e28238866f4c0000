"""What Python asks of the native code: translate, load and store, invalidate, enter and leave the kernel (native).

Each function gets the address of the shared state first. A refused access or a failed transfer leaves its reason there.
"""

from __future__ import annotations

from typing import Any, Final

from numba import types

from .counting import find_place
from .native import entry, native, words
from .records import state_at
from .soft_tlb import flush_soft_tlb
from .state import FETCHED, Fault
from .tlb import invalidate
from .transfer import account, deliver, iretq, physical, read_flags, swapgs, switch_mode, sysretq, write_flags
from .translate import translate
from .walk import WRITE

__all__ = ["invalidate_entry", "load_entry", "store_entry", "translate_entry"]

word, void = types.int64, types.void
BAD_PHYSICAL: Final = int(Fault.BAD_PHYSICAL)


@entry(word(word, word, word))
def translate_entry(state: Any, va: Any, access: Any) -> Any:
    """Translate one access of the machine itself; returns the physical address, or -1 with the fault in the state."""
    s = state_at(state, 0)
    leaf = translate(s, va, access)
    if not leaf:
        s.fault_page = va
        s.fault_access = access & 3
        return -1
    return physical(leaf, va)


@native
def _word_address(s: Any, va: Any, access: Any) -> Any:
    """Host address of an aligned word for an access of the machine itself; 0 with the fault in the state."""
    leaf = translate(s, va, access)
    if not leaf:
        s.fault_page = va
        s.fault_access = access & 3
        return 0
    pa = physical(leaf, va)
    if pa >= s.ram_size:
        s.fault = BAD_PHYSICAL
        s.fault_code = pa
        return 0
    if access & 3 == WRITE and words(s.frame_flags)[pa >> 12] & FETCHED:
        s.code_written = 1
    return s.ram + pa


@entry(word(word, word, word))
def load_entry(state: Any, va: Any, access: Any) -> Any:
    """Load an aligned word; 0 with `fault` set in the state if it is refused."""
    s = state_at(state, 0)
    s.reads += 1
    address = _word_address(s, va, access)
    return words(address)[0] if address else 0


@entry(void(word, word, word, word))
def store_entry(state: Any, va: Any, value: Any, access: Any) -> None:
    """Store an aligned word; `fault` is set in the state if it is refused."""
    s = state_at(state, 0)
    s.writes += 1
    address = _word_address(s, va, access)
    if address:
        words(address)[0] = value


@entry(void(word, word, word, word))
def invalidate_entry(state: Any, va: Any, pcid: Any, globals_too: Any) -> None:
    """Invalidate TLB entries (SDM 4.10.4.1) and, since Unicorn's must stay a subset, all of its own."""
    s = state_at(state, 0)
    invalidate(s, va, pcid, globals_too != 0)
    s.fetch_page = 0
    flush_soft_tlb(s)


@entry(word(word, word, word, word))
def deliver_entry(state: Any, vector: Any, error_code: Any, is_software: Any) -> Any:
    """Deliver an interrupt or exception (error code -1: none). 0 with the second exception pending."""
    return 1 if deliver(state_at(state, 0), vector, error_code, is_software) else 0


@entry(word(word, word))
def transfer_entry(state: Any, kind: Any) -> Any:
    """Execute SWAPGS (0), SYSRETQ (1) or IRETQ (2). 0 with the exception pending; RIP moves only where they set it."""
    s = state_at(state, 0)
    if kind == 0:
        return 1 if swapgs(s) else 0
    if kind == 1:
        return 1 if sysretq(s) else 0
    return 1 if iretq(s) else 0


@entry(void(word, word))
def switch_mode_entry(state: Any, cpl: Any) -> None:
    """Change the privilege level."""
    switch_mode(state_at(state, 0), cpl)


@entry(void(word, word))
def account_entry(state: Any, counted_as: Any) -> None:
    """Close the account of the current mode, and count as another one from now on."""
    s = state_at(state, 0)
    account(s)
    s.counted_as = counted_as


@entry(word(word))
def read_flags_entry(state: Any) -> Any:
    """RFLAGS."""
    return read_flags(state_at(state, 0))


@entry(void(word, word))
def write_flags_entry(state: Any, flags: Any) -> None:
    """Set RFLAGS."""
    write_flags(state_at(state, 0), flags)


@entry(word(word, word))
def find_block(state: Any, key: Any) -> Any:
    """Where a block stands, or belongs, in the table."""
    return find_place(state_at(state, 0), key)
