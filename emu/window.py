"""The transient window: what a core executes that will never retire (native).

An out-of-order core executes instructions as soon as their operands are there, and retires them in program order. A
fault is raised when its instruction retires. What stands behind it in the reorder buffer has been executed by then,
and is thrown away: no register, no byte of memory and no flag ever shows it. But the lines and translations that it
asked for are in the caches and TLBs, and stay there.

A second Unicorn plays that part. It gets the registers of the first one, executes what follows the load that
faults, and is then forgotten; so nothing has to be rolled back. Both use the same TLBs. What is different is here:

- A load by the user of a page that is present, but the supervisor's, is given its data on parts that check too late
  (`vulnerabilities.meltdown` of the profile). All other parts give nothing: the window ends there. Where the data
  has to be in the L1 data cache and is not, the load gets zeros; but it has asked for the line, and that comes.
- A load by the user of a page that is not present is given what the L1 data cache holds at the address that the
  page-table entry names, on parts that look there before they look at P (`vulnerabilities.l1tf`: L1 terminal fault). An
  operating system that keeps something else in such an entry chooses it so that it names no memory.
- A store goes to a copy of its frame, which later loads of the window find: the store buffer. It brings no line into
  a cache: a line is asked for ownership when the store has retired (SDM Vol. 3A 8.2.2: writes are not performed
  speculatively; Intel's optimization manual on the stores of the L1 data cache, from memory).
- A and D are not set in page tables: that is an assist, made when an instruction retires. A walk that needs it
  ends the window.
- The window holds as many instructions and stores as the reorder buffer and the store buffer of the part, and behind a
  branch only what is executed while that waits for its operands. It ends at an exception of its own and at an
  instruction that waits for all earlier ones (LFENCE: SDM Vol. 2A, LFENCE).
"""

from __future__ import annotations

from typing import Any, Final

from numba import types

from .cache import L1D, LINE_SHIFT, LINE_SIZE, cache_access, fetch_lines, is_cached
from .cache_control import prefetch_ahead
from .counting import NOWHERE, mix
from .fetch import PAGE, may_translate
from .native import call, entry, native, words
from .pte import IMPLICIT, Access
from .records import state_at, window_at, window_block_at, window_frame_at
from .state import DANGEROUS, FLUSH_COMMAND, Fault
from .transfer import physical
from .translate import drop, translate
from .walk import ERROR_P, ERROR_RSVD, FETCH, WRITE, permitted, terminal_fault
from .window_state import WindowEnd, WindowSource

__all__ = ["forwards"]

word, int32, boolean, void = types.int64, types.int32, types.boolean, types.void

READ: Final = int(Access.READ)
UC_MEM_READ: Final = 16
PERM_R, PERM_RW, PERM_X = 1, 3, 4
PAGE_FAULT: Final = int(Fault.PAGE)
UNKNOWN_BLOCK, CAPACITY = int(WindowEnd.UNKNOWN_BLOCK), int(WindowEnd.CAPACITY)
STORE_BUFFER, SERIALIZING, FAULT = int(WindowEnd.STORE_BUFFER), int(WindowEnd.SERIALIZING), int(WindowEnd.FAULT)
RAX, RDX = 0, 2
COPY, SUPERVISOR, TERMINAL = int(WindowSource.COPY), int(WindowSource.SUPERVISOR), int(WindowSource.TERMINAL)
USER: Final = 3


@native
def _terminal(s: Any, w: Any, va: Any) -> Any:
    """The translation of `va` was just refused: the physical address that its entry names all the same, or -1."""
    absent = s.fault_code & ERROR_P == 0 or s.fault_code & ERROR_RSVD != 0
    if not w.forwards_terminal or not absent or s.fault != PAGE_FAULT:
        return -1
    pa = terminal_fault(s, va)
    return pa if pa < s.ram_size else -1


@native
def forwards(s: Any, va: Any) -> Any:
    """Whether the translation of `va` that was just refused does not keep a user's load from getting data."""
    if s.window == 0 or s.cpl != USER or s.fault != PAGE_FAULT:
        return False
    w = window_at(s.window, 0)
    if s.fault_code & (ERROR_P | ERROR_RSVD) == ERROR_P:
        return w.forwards != 0
    pa = _terminal(s, w, va)
    return pa >= 0 and is_cached(s, L1D, pa)


@native
def _close(s: Any, w: Any, reason: Any) -> None:
    if w.end == 0:
        w.end = reason
    call(s.uc_emu_stop, (w.uc,))


@native
def _refuse(w: Any, reason: Any) -> Any:
    if w.end == 0:
        w.end = reason
    return False


# --- frames: stores and forwarded data stay aside --------------------------------------------------------------------


@native
def _find_aside(w: Any, pa: Any, source: Any) -> Any:
    """Where a frame is aside, as a physical address of the window's; or -1."""
    for number in range(w.frame_count):
        frame = window_frame_at(w.frames, number)
        if frame.pa == pa & PAGE and frame.source == source:
            return w.base + (number << 12)
    return -1


@native
def _put_aside(s: Any, w: Any, pa: Any, source: Any) -> Any:
    """Take a frame for the window: a copy, or zeros until it is decided what is forwarded. -1: there is none left."""
    found = _find_aside(w, pa, source)
    if found >= 0 or w.frame_count == w.frame_limit:
        return found
    number = w.frame_count
    w.frame_count += 1
    frame = window_frame_at(w.frames, number)
    frame.pa = pa & PAGE
    frame.source = source
    frame.settled = 0
    if source != COPY:
        call(s.memset, (w.memory + (number << 12), 0, 4096))
    else:
        call(s.memmove, (w.memory + (number << 12), s.ram + frame.pa, 4096))
    return w.base + (number << 12)


@native
def _settle(s: Any, w: Any, number: Any, offset: Any) -> None:
    """Decide, once in a window, what a line of a forwarded frame gives: its data, or zeros if that is not near."""
    frame = window_frame_at(w.frames, number)
    line = offset >> LINE_SHIFT
    if not (frame.settled >> line) & 1:
        frame.settled |= 1 << line
        at = line << LINE_SHIFT
        always = frame.source == SUPERVISOR and not w.needs_l1d
        if always or is_cached(s, L1D, frame.pa + at):
            call(s.memmove, (w.memory + (number << 12) + at, s.ram + frame.pa + at, LINE_SIZE))


@native
def _load(s: Any, w: Any, pa: Any) -> None:
    """A load of one line: it is brought into the caches, whether or not the load gets its data.

    The address of a page that is not there goes no further than the L1 data cache.
    """
    if pa >= w.base:
        number = (pa - w.base) >> 12
        frame = window_frame_at(w.frames, number)
        if frame.source != COPY:
            _settle(s, w, number, pa & 0xFFF)
        if frame.source == TERMINAL:
            return
        pa = frame.pa | (pa & 0xFFF)
    if s.caches:
        cache_access(s, pa, READ)


# --- translation -----------------------------------------------------------------------------------------------------


@native
def _load_page(s: Any, w: Any, va: Any) -> Any:
    """Physical address of the page that a load reads, in RAM or aside; or -1."""
    leaf = translate(s, va, READ)
    if leaf:
        pa = physical(leaf, va)
        aside = _find_aside(w, pa, COPY)
        return aside if aside >= 0 or pa >= s.ram_size else pa
    return _forwarded_page(s, w, va) if s.cpl == USER else -1


@native
def _forwarded_page(s: Any, w: Any, va: Any) -> Any:
    """Where a user's load that was refused finds its page all the same; or -1."""
    pa = _terminal(s, w, va)
    if pa >= 0:
        return _put_aside(s, w, pa, TERMINAL)
    if not w.forwards or s.fault != PAGE_FAULT:
        return -1
    leaf = translate(s, va, READ | IMPLICIT)
    pa = physical(leaf, va)
    return _put_aside(s, w, pa, SUPERVISOR) if leaf and pa < s.ram_size else -1


@native
def _store_page(s: Any, w: Any, va: Any) -> Any:
    """Physical address of the copy that a store goes to, or -1. D is not asked for: it is set when a store retires."""
    leaf = translate(s, va, READ)
    pa = physical(leaf, va)
    if not leaf or not permitted(s, leaf, WRITE) or pa >= s.ram_size:
        return -1
    call(s.uc_ctl, (w.uc, FLUSH_COMMAND))  # the frame may have other names
    return _put_aside(s, w, pa, COPY)


@native
def _code_page(s: Any, va: Any) -> Any:
    """Physical address of a page that is executed, or -1. Code that has to be guarded is not executed (guard.py)."""
    leaf = translate(s, va & PAGE, FETCH)
    pa = physical(leaf, va & PAGE)
    if not leaf or pa >= s.ram_size or not may_translate(s, va & PAGE, pa):
        return -1
    return pa if words(s.frame_flags)[pa >> 12] & DANGEROUS == 0 else -1


@entry(boolean(word, word, int32, word, word))
def window_fill(uc: Any, va: Any, uc_kind: Any, result: Any, user_data: Any) -> Any:
    """UC_HOOK_TLB_FILL."""
    s = state_at(user_data, 0)
    w = window_at(s.window, 0)
    kind = word(uc_kind) - UC_MEM_READ
    if w.end:  # Unicorn looks for what comes next
        return False
    if kind == FETCH:
        pa, rights = _code_page(s, va), PERM_X
    elif kind == WRITE:
        pa, rights = _store_page(s, w, va), PERM_RW
    else:
        pa, rights = _load_page(s, w, va), PERM_R
    if pa < 0:
        return _refuse(w, FAULT)
    words(result)[0] = pa
    words(result)[1] = rights
    return True


# --- what is executed ------------------------------------------------------------------------------------------------


@entry(void(word, int32, word, int32, word, word))
def window_access(uc: Any, uc_kind: Any, pa: Any, size32: Any, value: Any, user_data: Any) -> None:
    """UC_HOOK_MEM_READ and UC_HOOK_MEM_WRITE."""
    s = state_at(user_data, 0)
    w = window_at(s.window, 0)
    if word(uc_kind) - UC_MEM_READ == WRITE:
        w.stores += 1
        if w.stores > w.store_buffer:
            _close(s, w, STORE_BUFFER)
        return
    w.loads += 1
    last = min(pa + word(size32) - 1, pa | 0xFFF)
    _load(s, w, pa)
    if (last ^ pa) >> LINE_SHIFT:
        _load(s, w, last)


@native
def _checksum(s: Any, pa: Any, size: Any, start: Any) -> Any:
    total = start
    for at in range(pa, pa + size):
        total = mix(total, (words(s.ram)[at >> 3] >> ((at & 7) << 3)) & 0xFF)
    return total


@native
def _place(w: Any, key: Any) -> Any:
    """Index of a block in the open-addressing table, or of the free place where it belongs."""
    index = (key ^ (key >> 7) ^ (key >> 43)) & w.block_mask
    while True:
        found = window_block_at(w.blocks, index).key
        if found == key or found == 0:
            return index
        index = (index + 1) & w.block_mask


@entry(void(word, word, int32, word))
def window_block(uc: Any, va: Any, size32: Any, user_data: Any) -> None:
    """UC_HOOK_BLOCK: find out where the window would end in this block, or have Python do it."""
    s = state_at(user_data, 0)
    w = window_at(s.window, 0)
    size = word(size32)
    if w.end:
        return
    pa = _code_page(s, va)
    w.second_pa = _code_page(s, va + size - 1)
    if pa < 0 or w.second_pa < 0:
        _close(s, w, FAULT)
        return
    first = min(size, 4096 - (va & 0xFFF))
    pa |= va & 0xFFF
    w.block_va = va
    w.block_key = pa | (size << 48)
    w.checksum = _checksum(s, w.second_pa, size - first, _checksum(s, pa, first, 0))
    block = window_block_at(w.blocks, _place(w, w.block_key))
    if block.key != w.block_key or block.checksum != w.checksum:
        _close(s, w, UNKNOWN_BLOCK)
    elif s.caches:
        fetch_lines(s, pa, first)
        fetch_lines(s, w.second_pa, size - first)
    w.barrier_va = va + block.barrier if block.barrier < size else NOWHERE
    w.cache_instructions = block.cache_instructions


@entry(void(word, word, int32, word))
def window_instruction(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_CODE everywhere. A REP takes a place in the reorder buffer for each of its iterations."""
    s = state_at(user_data, 0)
    w = window_at(s.window, 0)
    if va == w.barrier_va:
        _close(s, w, SERIALIZING)
    elif w.instructions == w.capacity:
        _close(s, w, CAPACITY)
    elif w.end == 0:
        w.instructions += 1
        if w.cache_instructions:
            prefetch_ahead(s, w.env, w.cache_instructions, va)


@entry(void(word, int32, word))
def window_interrupt(uc: Any, number: Any, user_data: Any) -> None:
    """UC_HOOK_INTR: an exception, or INT n."""
    s = state_at(user_data, 0)
    _close(s, window_at(s.window, 0), FAULT)


@entry(boolean(word, word))
def window_invalid(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN_INVALID."""
    s = state_at(user_data, 0)
    _close(s, window_at(s.window, 0), FAULT)
    return True


@entry(int32(word, word))
def window_rdtsc(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for RDTSC. It does not wait for anything."""
    w = window_at(state_at(user_data, 0).window, 0)
    registers = words(w.env)
    registers[RAX] = w.clock & 0xFFFFFFFF
    registers[RDX] = (w.clock >> 32) & 0xFFFFFFFF
    return int32(1)


# --- what Python asks for --------------------------------------------------------------------------------------------


@entry(word(word, word))
def forwards_entry(state: Any, va: Any) -> Any:
    """Whether the load of `va` that was just refused opens a window: 1 or 0."""
    return 1 if forwards(state_at(state, 0), va) else 0


@entry(word(word, word))
def window_place_entry(state: Any, key: Any) -> Any:
    """Where a block stands, or belongs, in the window's table."""
    return _place(window_at(state_at(state, 0).window, 0), key)


@entry(void(word, word, word, word, word))
def keep_entry(state: Any, ranges: Any, count: Any, copies: Any, restores: Any) -> None:
    """Copy ranges of memory (pairs of host address and size) to one behind the other, or from there back."""
    s = state_at(state, 0)
    for number in range(count):
        place, size = words(ranges)[2 * number], words(ranges)[2 * number + 1]
        if restores:
            call(s.memmove, (place, copies, size))
        else:
            call(s.memmove, (copies, place, size))
        copies += size


@entry(void(word, word))
def drop_entry(state: Any, va: Any) -> None:
    """What a page fault at an address does to the TLBs (SDM 4.10.4.1)."""
    drop(state_at(state, 0), va)
