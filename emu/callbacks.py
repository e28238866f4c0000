"""What Unicorn calls while the guest runs (native).

- `fill`: Unicorn's soft-TLB misses. This is the whole memory hardware behind one door.
- `block`: a basic block begins. Instructions, loads and stores are counted here, a block at a time: what a block
  does depends on its bytes alone, so it is looked up once and found again by its physical address. With data caches
  it is `block_through_caches`, which also fetches the lines of code.
- `access`: every load and store, in the access engine only.
- `interrupt`, `invalid`, `syscall`: the instruction needs the machine; leave Unicorn.
- `watch`: one instruction. An iteration of a REP, whose number of accesses no block can know beforehand, an
  instruction that Unicorn would execute in its own way, or one that spoils the flags if it faults.
- `breakpoint`: the same, at an address where somebody wants to stop.
- `instruction`: every instruction, only with `--tlb none` or a listener.
"""

from __future__ import annotations

from typing import Any, Final

from numba import types

from .accesses import ask, complete, look_at_access
from .cache import fetch_lines
from .cache_control import act_on_caches
from .counting import NOWHERE, block_size, count_again, count_block
from .cycles import read_time_stamp
from .fetch import (
    ENV_RIP,
    KNOWN,
    PAGE,
    code_page,
    let_write,
    may_translate,
    note_fetch,
    quiet_walk,
    rotates_through_carry,
)
from .native import entry, native, words
from .predictor import mispredicted, remember_branch
from .pte import Access, Pte
from .recorder import hit, is_recorded, record
from .records import block_at, leave, notify, state_at, tail_at
from .refused import is_iretq, is_vmcall, transfers
from .soft_tlb import drop_page, flush_soft_tlb
from .state import FETCHED, SCANNED, Engine, Event, Fault, Stop, TlbKind
from .transfer import physical
from .transfer import syscall as enter_system_call
from .translate import translate
from .walk import FETCH, WRITE, permitted

__all__ = [
    "access",
    "block",
    "block_through_caches",
    "breakpoint",
    "fill",
    "instruction",
    "interrupt",
    "invalid",
    "syscall",
    "watch",
]

word, int32, boolean, void = types.int64, types.int32, types.boolean, types.void

UC_MEM_READ: Final = 16
PERM_R, PERM_RW, PERM_X = 1, 3, 4
READ: Final = int(Access.READ)
ITLB: Final = int(TlbKind.ITLB)
MAX_SIZE: Final = 15
"""Bytes of an instruction."""
D: Final = int(Pte.D)

ACCESS_ENGINE: Final = int(Engine.ACCESS)
ON_INSTRUCTION: Final = int(Event.INSTRUCTION)
CPUID, RDTSC, RDTSCP = int(Event.CPUID), int(Event.RDTSC), int(Event.RDTSCP)
STOP_FAULT, STOP_INTERRUPT, STOP_INVALID = int(Stop.FAULT), int(Stop.INTERRUPT), int(Stop.INVALID)
STOP_SYSCALL, STOP_MODEL, STOP_BREAKPOINT = int(Stop.SYSCALL), int(Stop.MODEL), int(Stop.BREAKPOINT)
STOP_VMCALL, STOP_REFETCH, STOP_DANGER = int(Stop.VMCALL), int(Stop.REFETCH), int(Stop.DANGER)
BAD_PHYSICAL: Final = int(Fault.BAD_PHYSICAL)
GENERAL_PROTECTION: Final = 13
ENV_RCX: Final = 1
NEVER: Final = (1 << 63) - 1
ENV_CC_OP: Final = 21
CC_OP_EFLAGS: Final = 1


# --- translation ---------------------------------------------------------------------------------------------


@native
def _note_frame(s: Any, va: Any, pa: Any) -> None:
    """Access engine: remember which page a frame is seen through; a second view displaces the first."""
    frames = words(s.frame_va)
    known = frames[pa >> 12]
    if known != va | KNOWN:
        if known:
            drop_page(s, known & PAGE)
        frames[pa >> 12] = va | KNOWN


@native
def _grant(s: Any, va: Any, pa: Any, kind: Any, leaf: Any) -> Any:
    """Which accesses Unicorn may make by itself from now on.

    A clean page stays read-only, so that D is seen, and so does code that is only read, so that changes are.
    """
    flags = words(s.frame_flags)
    if kind == FETCH:
        flags[pa >> 12] |= FETCHED
        note_fetch(s, va, pa)
        return PERM_X
    if s.engine == ACCESS_ENGINE:
        _note_frame(s, va, pa)
    if kind == READ and flags[pa >> 12] & SCANNED:
        return PERM_R
    if leaf & D and permitted(s, leaf, WRITE):
        let_write(s, pa)
        return PERM_RW
    return PERM_R


@native
def _refused(s: Any, va: Any, kind: Any, reason: Any) -> Any:
    s.crossing_va = 0
    s.stop = reason
    s.fault_page = va
    s.fault_access = kind
    return False


@native
def _answer_anything(result: Any) -> Any:
    """Unicorn looks up an exit address, where nobody executes. A refusal would spoil the address of a fault, and `Cpu`
    flushes the soft-TLB when there were exits.
    """
    words(result)[0] = 0
    words(result)[1] = PERM_X
    return True


@native
def _probe(s: Any, va: Any) -> Any:
    """Physical address of a code page, or -1, with nothing counted and nothing filled."""
    if s.no_tlb:
        fault, code = s.fault, s.fault_code
        counted = s.walks_by[0], s.walks_by[2], s.entry_reads[0], s.entry_reads[2]
        leaf = quiet_walk(s, va, FETCH)
        s.walks_by[0], s.walks_by[2], s.entry_reads[0], s.entry_reads[2] = counted
        s.fault, s.fault_code = fault, code
        return physical(leaf, va) if leaf else -1
    return code_page(s, va)


@native
def _answer_probe(s: Any, va: Any, result: Any) -> Any:
    """Unicorn has stopped, and looks for the next code or for code to drop: that is no fetch of the guest's."""
    if s.dropped_page:
        pa = s.dropped_page & PAGE
    else:
        pa = _probe(s, va)
        if pa < 0 or pa >= s.ram_size or not may_translate(s, va, pa):
            return False
    words(result)[0] = pa
    words(result)[1] = PERM_X
    return True


@native
def _keep_flags(s: Any) -> None:
    """Undo what Unicorn does to the flags before it calls us inside an instruction that had a CODE hook.

    After the hook it has computed RFLAGS into one word (CC_OP_EFLAGS); but now it has gone back to the operation that
    they came from at the start of the instruction, whose operand that word has overwritten.
    """
    env = words(s.env)
    if env[ENV_RIP] == s.hooked_va:
        env[ENV_CC_OP] = (env[ENV_CC_OP] & ~0xFFFFFFFF) | CC_OP_EFLAGS


@entry(boolean(word, word, int32, word, word))
def fill(uc: Any, va: Any, uc_kind: Any, result: Any, user_data: Any) -> Any:
    """UC_HOOK_TLB_FILL: translate one page for Unicorn, or refuse."""
    s = state_at(user_data, 0)
    kind = word(uc_kind) - UC_MEM_READ
    if kind == FETCH:
        if words(s.nesting)[0] & 0xFFFFFFFF > 1:
            return _answer_anything(result)
        if s.stop != 0:
            return _answer_probe(s, va, result)
        if words(s.env)[ENV_RIP] == va + 4096:  # an exit begins a page, and Unicorn looks one byte before it
            return _answer_anything(result)
    else:
        _keep_flags(s)
    leaf = ask(s, va, kind)
    if leaf and kind == READ and not permitted(s, leaf, WRITE) and rotates_through_carry(s):
        kind = WRITE
        leaf = ask(s, va, kind)
    if not leaf:
        return _refused(s, va, kind, STOP_FAULT)
    pa = physical(leaf, va)
    if pa >= s.ram_size:
        s.fault = BAD_PHYSICAL
        s.fault_code = pa
        return _refused(s, va, kind, STOP_FAULT)
    if kind == FETCH and not may_translate(s, va, pa):
        s.stop_value = pa
        return _refused(s, va, kind, STOP_DANGER)
    words(result)[0] = pa
    words(result)[1] = _grant(s, va, pa, kind, leaf)
    if s.crossing_va != 0 and (s.crossing_va + (s.crossing_access >> 8) - 1) & PAGE == va:
        complete(s, pa)
        s.filled_page = 0
    return True


# --- blocks and single instructions -----------------------------------------------------------------------------


@entry(void(word, word, int32, word))
def block(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_BLOCK: count a basic block, or stop before it. By far the most frequent call of all."""
    s = state_at(user_data, 0)
    if not count_again(s, va, word(size)):
        count_block(s, va, word(size))


@entry(void(word, word, int32, word))
def block_through_caches(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_BLOCK with caches: a block that begins fetches its lines. A REP is fetched once.

    Waiting takes time, too, so the instruction deadline is over when that alone may have made the timer due.
    With a branch predictor, what it would have fetched instead comes first.
    """
    s = state_at(user_data, 0)
    if s.load_cycles + s.fetch_cycles + s.walk_cycles >= s.stall_limit:
        s.deadline = s.instructions
        s.stall_limit = NEVER
    if s.predictor and mispredicted(s, va):
        return
    if not count_again(s, va, word(size)):
        count_block(s, va, word(size))
        if s.stop != 0 or s.repeats:
            return
    if s.predictor:
        remember_branch(s, va + word(size))
    here = min(word(size), 4096 - (va & 0xFFF))
    fetch_lines(s, s.fetch_pa | (va & 0xFFF), here)
    if here < word(size):
        fetch_lines(s, s.second_pa, word(size) - here)


@native
def _watch(s: Any, va: Any) -> None:
    """Stop before an instruction that is the model's, or count one iteration of a REP."""
    s.hooked_va = va
    current = block_at(s.blocks, s.block_index)
    rcx = words(s.env)[ENV_RCX] & current.rep_mask
    if current.model_va == va:
        leave(s, STOP_MODEL, 0)
    elif current.rep_va == va and rcx and not (s.repeats and rcx == s.rep_rcx):  # else it wrote to its own code
        s.reads += current.rep_reads
        s.writes += current.rep_writes
        s.rep_rcx = rcx
    elif current.cache_instructions:
        act_on_caches(s, current.cache_instructions, va)


@entry(void(word, word, int32, word))
def watch(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_CODE at one address."""
    _watch(state_at(user_data, 0), va)


@entry(void(word, word, int32, word))
def breakpoint(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_CODE at a breakpoint: stop, unless execution goes on from here. A REP passes with all iterations."""
    s = state_at(user_data, 0)
    if s.passed_va != va:
        leave(s, STOP_BREAKPOINT, 0)
        return
    if block_at(s.blocks, s.block_index).rep_va != va:
        s.passed_va = NOWHERE


# --- every access, every instruction -------------------------------------------------------------------------


@entry(void(word, int32, word, int32, word, word))
def access(uc: Any, uc_kind: Any, pa: Any, size32: Any, value: Any, user_data: Any) -> None:
    """UC_HOOK_MEM_READ and UC_HOOK_MEM_WRITE; `pa` is physical."""
    s = state_at(user_data, 0)
    if s.unsynced == 0 or not words(s.unsynced)[0] & s.unsynced_bit:
        _keep_flags(s)
        if is_iretq(s):
            return
    look_at_access(s, pa, word(uc_kind) - UC_MEM_READ, word(size32))


@entry(void(word, word, int32, word))
def instruction(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_CODE everywhere: walk for the fetch (`--tlb none`), tell listeners. A REP is fetched once.

    `size` is what Unicorn read, which is not to the end of an instruction that it refuses.
    """
    s = state_at(user_data, 0)
    s.hooked_va = va
    told, s.told_va = s.told_va, NOWHERE
    if s.repeats or told == va:
        return
    if s.no_tlb:
        leaf = translate(s, va, FETCH)
        if not leaf or physical(leaf, va & PAGE) != (s.fetch_pa if va & PAGE == s.fetch_page & PAGE else s.second_pa):
            s.fetch_page = 0
            flush_soft_tlb(s)
            leave(s, STOP_REFETCH, 0)
    elif s.fetched_page == va & PAGE | KNOWN:
        s.fetched_page = 0
    else:
        hit(s, va, FETCH, ITLB)
    if (s.listeners >> ON_INSTRUCTION) & 1:
        notify(s, ON_INSTRUCTION, va, 0, 0)
    if is_recorded(s, ON_INSTRUCTION):
        record(s, ON_INSTRUCTION, va, word(size) if word(size) <= MAX_SIZE else 0, s.cpl, 0)


# --- instructions that need the machine ----------------------------------------------------------------------


@entry(void(word, int32, word))
def interrupt(uc: Any, number: Any, user_data: Any) -> None:
    """UC_HOOK_INTR: an exception or INT n. Unicorn must forget it, or it would end in a silent double fault."""
    s = state_at(user_data, 0)
    words(s.old_exception)[0] |= 0xFFFFFFFF
    if number == GENERAL_PROTECTION and not words(s.is_software)[0] & 0xFFFFFFFF and transfers(s):
        return
    leave(s, STOP_INTERRUPT, word(number))


@entry(boolean(word, word))
def invalid(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN_INVALID: CLAC, STAC, INVPCID, VMCALL, UD2 ... are the machine's to execute."""
    s = state_at(user_data, 0)
    if is_vmcall(s):
        leave(s, STOP_VMCALL, 0)
    elif not transfers(s):
        leave(s, STOP_INVALID, 0)
    return True


@entry(void(word, word))
def syscall(uc: Any, user_data: Any) -> None:
    """UC_HOOK_INSN for SYSCALL, which ends its block."""
    s = state_at(user_data, 0)
    if s.syscalls_enabled:
        enter_system_call(s, s.block_va + block_size(s) - words(s.env)[ENV_RIP])
    else:
        leave(s, STOP_SYSCALL, 0)


@entry(int32(word, word))
def cpuid(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for CPUID: answered from our own table."""
    notify(state_at(user_data, 0), CPUID, 0, 0, 0)
    return int32(1)


@native
def _read_time_stamp(s: Any, event: Any) -> None:
    """RDTSC, RDTSCP: where it is known what the block counted after them, without Python."""
    current, offset = block_at(s.blocks, s.block_index), words(s.env)[ENV_RIP] - s.block_va
    if s.block_key != 0 and current.key == s.block_key and current.tails and 0 <= offset < block_size(s):
        after = tail_at(current.tails, offset).instructions - 1
        if after >= 0:
            read_time_stamp(s, after, event == RDTSCP)
            return
    notify(s, event, 0, 0, 0)


@entry(int32(word, word))
def rdtsc(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for RDTSC: the model's clock."""
    _read_time_stamp(state_at(user_data, 0), RDTSC)
    return int32(1)


@entry(int32(word, word))
def rdtscp(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for RDTSCP."""
    _read_time_stamp(state_at(user_data, 0), RDTSCP)
    return int32(1)
