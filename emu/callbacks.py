"""What Unicorn calls while the guest runs (native).

- `fill`: Unicorn's soft-TLB misses. This is the whole memory hardware behind one door.
- `block`: a basic block begins. Instructions, loads and stores are counted here, a block at a time: what a block
  does depends on its bytes alone, so it is looked up once and found again by its physical address.
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

from .native import call, entry, native, words
from .pte import Access, Pte
from .records import block_at, entry_at, notify, state_at
from .soft_tlb import drop_page, flush_soft_tlb
from .state import DANGEROUS, FETCHED, SCANNED, WRITABLE, WRITTEN, Engine, Event, Fault, Stop, TlbKind
from .tlb import find, invalidate, use
from .transfer import (
    account,
    deliver,
    iretq,
    physical,
    read_flags,
    smap_window,
    swapgs,
    switch_mode,
    sysretq,
    write_flags,
)
from .transfer import syscall as enter_system_call
from .translate import ITLB, translate
from .walk import FETCH, WRITE, permitted

__all__ = [
    "access",
    "block",
    "breakpoint",
    "fill",
    "instruction",
    "interrupt",
    "invalid",
    "invalidate_entry",
    "syscall",
    "translate_entry",
    "watch",
]

word, int32, boolean, void = types.int64, types.int32, types.boolean, types.void

UC_MEM_READ: Final = 16
PERM_R, PERM_RW, PERM_X = 1, 3, 4
READ: Final = int(Access.READ)
DTLB: Final = int(TlbKind.DTLB)
D: Final = int(Pte.D)
PAGE: Final = ~0xFFF
KNOWN: Final = 1
"""Or'ed to a page's address where 0 would be ambiguous."""

ACCESS_ENGINE: Final = int(Engine.ACCESS)
ON_ACCESS: Final = int(Event.ACCESS)
ON_INSTRUCTION: Final = int(Event.INSTRUCTION)
CPUID, RDTSC, RDTSCP = int(Event.CPUID), int(Event.RDTSC), int(Event.RDTSCP)
STOP_FAULT, STOP_INTERRUPT, STOP_INVALID = int(Stop.FAULT), int(Stop.INTERRUPT), int(Stop.INVALID)
STOP_SYSCALL, STOP_MODEL, STOP_BREAKPOINT = int(Stop.SYSCALL), int(Stop.MODEL), int(Stop.BREAKPOINT)
STOP_VMCALL: Final = int(Stop.VMCALL)
STOP_DEADLINE, STOP_UNKNOWN, STOP_REFETCH = int(Stop.DEADLINE), int(Stop.UNKNOWN_BLOCK), int(Stop.REFETCH)
STOP_DANGER: Final = int(Stop.DANGER)
BAD_PHYSICAL: Final = int(Fault.BAD_PHYSICAL)
GENERAL_PROTECTION: Final = 13
ENV_RCX: Final = 1
ENV_RIP: Final = 16
NOWHERE: Final = -1
LOCK: Final = 0xF0
PREFIXES: Final = 13
"""Of one instruction, beside one that matters: with fifteen bytes an instruction is at its longest."""


@native
def _stop(s: Any, reason: Any, detail: Any) -> None:
    """Leave Unicorn after this hook."""
    s.stop = reason
    s.stop_detail = detail
    call(s.uc_emu_stop, (s.uc,))


# --- translation ---------------------------------------------------------------------------------------------


@native
def _quiet_walk(s: Any, va: Any, kind: Any) -> Any:
    """Translate without counting: with `--tlb none` the access itself is counted, not Unicorn's question."""
    walks, reads = s.walks_by, s.entry_reads
    w0, w1, w2, w3 = walks[0], walks[1], walks[2], walks[3]
    r0, r1, r2, r3 = reads[0], reads[1], reads[2], reads[3]
    listeners = s.listeners
    s.listeners = 0
    leaf = translate(s, va, kind)
    s.listeners = listeners
    if leaf:
        walks[0], walks[1], walks[2], walks[3] = w0, w1, w2, w3
        reads[0], reads[1], reads[2], reads[3] = r0, r1, r2, r3
    return leaf


@native
def _code_page(s: Any, page: Any) -> Any:
    """Physical address of a page that is being executed, or -1 if the ITLB does not hold it."""
    if s.no_tlb:
        leaf = _quiet_walk(s, page, FETCH)
        return physical(leaf, page) if leaf else -1
    number, index = find(s, ITLB, page)
    if number >= 0:
        array = s.arrays[number]
        use(s, array, index)
        return physical(entry_at(array.entries, index).leaf, page)
    if s.fetched_0 == page | KNOWN:
        return s.fetched_pa_0
    if s.fetched_1 == page | KNOWN:
        return s.fetched_pa_1
    return -1


@native
def _code_byte(s: Any, va: Any) -> Any:
    """One byte of the block being executed."""
    base = s.fetch_pa if va & PAGE == s.fetch_page & PAGE else s.second_pa
    pa = base | (va & 0xFFF)
    return (words(s.ram)[pa >> 3] >> ((pa & 7) << 3)) & 0xFF


@native
def _is_prefix(byte: Any) -> Any:
    """Whether a byte is a legacy prefix or REX (SDM Vol. 2A 2.1.1, 2.2.1)."""
    return byte in (0x66, 0x67, LOCK, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65) or byte & 0xF0 == 0x40


@native
def _rotates_through_carry(s: Any) -> Any:
    """Whether the current instruction is RCL or RCR of memory.

    Unicorn changes CF before it stores the result; if the store then faults, the restart computes with a wrong
    CF. So such an instruction is refused at its load when its store would be.
    """
    va = words(s.env)[ENV_RIP]
    for _ in range(PREFIXES + 1):
        byte = _code_byte(s, va)
        va += 1
        if not _is_prefix(byte):
            break
    if byte & 0xFC != 0xD0 and byte & 0xFE != 0xC0:
        return False
    modrm = _code_byte(s, va)
    return modrm & 0xC0 != 0xC0 and (modrm >> 3) & 7 in (2, 3)


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
def _note_fetch(s: Any, va: Any, pa: Any) -> None:
    s.fetched_1 = s.fetched_0
    s.fetched_pa_1 = s.fetched_pa_0
    s.fetched_0 = va | KNOWN
    s.fetched_pa_0 = pa


# --- code that must not be translated (see guard.py) -----------------------------------------------------------


@native
def _ram_byte(s: Any, pa: Any) -> Any:
    return (words(s.ram)[pa >> 3] >> ((pa & 7) << 3)) & 0xFF


@native
def _is_lock_dangerous(s: Any, pa: Any, end: Any) -> Any:
    """Whether the LOCK at `pa` belongs to a bit test of a register, or may, where `end` cuts its instruction."""
    pa += 1
    for _ in range(PREFIXES):
        if pa < end and _is_prefix(_ram_byte(s, pa)):
            pa += 1
    if pa < end and _ram_byte(s, pa) != 0x0F:
        return False
    if pa + 1 >= end:
        return True
    opcode = _ram_byte(s, pa + 1)
    if opcode != 0xBA and opcode & 0xE7 != 0xA3:
        return False
    return pa + 2 >= end or _ram_byte(s, pa + 2) >= (0xE0 if opcode == 0xBA else 0xC0)


@native
def _is_dangerous(s: Any, pa: Any) -> Any:
    """Search the frame at `pa`."""
    found = False
    for at in range(pa, pa + 4096):
        if _ram_byte(s, at) == LOCK and _is_lock_dangerous(s, at, pa + 4096):
            found = True
    return found


@native
def _may_translate(s: Any, va: Any, pa: Any) -> Any:
    """Whether Unicorn may see the code of a page: nothing on it is dangerous, or all of that is guarded."""
    flags = words(s.frame_flags)
    if flags[pa >> 12] & WRITABLE:
        flags[pa >> 12] &= ~(WRITABLE | SCANNED)
        flush_soft_tlb(s)
    if not flags[pa >> 12] & SCANNED:
        found = DANGEROUS if _is_dangerous(s, pa) else 0
        flags[pa >> 12] = (flags[pa >> 12] & ~DANGEROUS) | found | SCANNED
    return not flags[pa >> 12] & DANGEROUS or s.guarded_0 == va | KNOWN or s.guarded_1 == va | KNOWN


@native
def _let_write(s: Any, pa: Any) -> None:
    """The guest may write a frame from now on, so what was known about its code is not."""
    flags = words(s.frame_flags)
    if flags[pa >> 12] & SCANNED:
        flags[pa >> 12] &= ~SCANNED
        s.guarded_0 = 0
        s.guarded_1 = 0
        flush_soft_tlb(s)
    flags[pa >> 12] |= WRITTEN | WRITABLE


# --- the soft-TLB -------------------------------------------------------------------------------------------------


@native
def _grant(s: Any, va: Any, pa: Any, kind: Any, leaf: Any) -> Any:
    """Which accesses Unicorn may make by itself from now on.

    A clean page stays read-only, so that D is seen, and so does code that is only read, so that changes are.
    """
    flags = words(s.frame_flags)
    if kind == FETCH:
        flags[pa >> 12] |= FETCHED
        _note_fetch(s, va, pa)
        return PERM_X
    if s.engine == ACCESS_ENGINE:
        _note_frame(s, va, pa)
    if kind == READ and flags[pa >> 12] & SCANNED:
        return PERM_R
    if leaf & D and permitted(s, leaf, WRITE):
        _let_write(s, pa)
        return PERM_RW
    return PERM_R


@native
def _refused(s: Any, va: Any, kind: Any, reason: Any) -> Any:
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
        leaf = _quiet_walk(s, va, FETCH)
        s.walks_by[0], s.walks_by[2], s.entry_reads[0], s.entry_reads[2] = counted
        s.fault, s.fault_code = fault, code
        return physical(leaf, va) if leaf else -1
    return _code_page(s, va)


@native
def _answer_probe(s: Any, va: Any, result: Any) -> Any:
    """Unicorn has stopped, and looks for translated code to drop: that is no fetch of the guest's."""
    pa = _probe(s, va)
    if pa < 0 or pa >= s.ram_size or not _may_translate(s, va, pa):
        return False
    words(result)[0] = pa
    words(result)[1] = PERM_X
    return True


@native
def _ask(s: Any, va: Any, kind: Any) -> Any:
    """Translate for Unicorn's sake."""
    return _quiet_walk(s, va, kind) if s.no_tlb else translate(s, va, kind)


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
    leaf = _ask(s, va, kind)
    if leaf and kind == READ and not permitted(s, leaf, WRITE) and _rotates_through_carry(s):
        kind = WRITE
        leaf = _ask(s, va, kind)
    if not leaf:
        return _refused(s, va, kind, STOP_FAULT)
    pa = physical(leaf, va)
    if pa >= s.ram_size:
        s.fault = BAD_PHYSICAL
        s.fault_code = pa
        return _refused(s, va, kind, STOP_FAULT)
    if kind == FETCH and not _may_translate(s, va, pa):
        s.stop_value = pa
        return _refused(s, va, kind, STOP_DANGER)
    words(result)[0] = pa
    words(result)[1] = _grant(s, va, pa, kind, leaf)
    return True


# --- basic blocks --------------------------------------------------------------------------------------------


@native
def _checksum(s: Any, va: Any, size: Any) -> Any:
    """A hash of the bytes of a block."""
    total = 0
    for offset in range(size):
        total = (total ^ _code_byte(s, va + offset)) * 0x100000001B3
        total ^= (total >> 29) & 0x7FFFFFFFF
    return total


@native
def _hash(key: Any) -> Any:
    return key ^ (key >> 7) ^ (key >> 43)


@native
def _block_size(s: Any) -> Any:
    """Bytes of the block that is under way."""
    return (s.block_key >> 48) & 0xFFF


@native
def _find_block(s: Any, key: Any) -> Any:
    """Index of a block in the open-addressing table; the free place where it belongs if it is not there."""
    index = _hash(key) & s.block_mask
    while True:
        found = block_at(s.blocks, index).key
        if found == key or found == 0:
            return index
        index = (index + 1) & s.block_mask


@native
def _enter_pages(s: Any, va: Any, size: Any) -> Any:
    """Note the pages that a block lies on. False when one of them must be fetched again."""
    page = va & PAGE
    if s.fetch_page != page | KNOWN:
        pa = _code_page(s, page)
        if pa < 0:
            return False
        s.fetch_page = page | KNOWN
        s.fetch_pa = pa
    last = (va + size - 1) & PAGE
    if last != page:
        pa = _code_page(s, last)
        if pa < 0:
            return False
        s.second_pa = pa
        s.fetch_page = page  # not KNOWN: the second page may have pushed it out of the ITLB
    return True


@native
def _is_volatile(s: Any, va: Any, size: Any) -> Any:
    """Whether the bytes at this place may have changed since the block was counted first."""
    both = FETCHED | WRITTEN
    return words(s.frame_flags)[s.fetch_pa >> 12] == both or (va ^ (va + size - 1)) & PAGE != 0


@native
def _begin(s: Any, va: Any, key: Any, index: Any) -> None:
    """Note which block is under way, or is stopped before."""
    s.block_va = va
    s.block_key = key
    s.block_index = index


@native
def _count_again(s: Any, va: Any, size: Any) -> Any:
    """Count a block that is known, on the page that the last one was on. False where more must be looked at."""
    if s.fast_page != va & PAGE | KNOWN:
        return False
    key = s.fetch_pa | (va & 0xFFF) | (size << 48)
    index = _hash(key) & s.block_mask
    known = block_at(s.blocks, index)
    instructions = s.instructions + known.instructions
    if known.key != key or not known.is_plain or instructions > s.deadline:
        return False
    s.instructions = instructions
    s.reads += known.reads
    s.writes += known.writes
    _begin(s, va, key, index)
    return True


@native
def _count(s: Any, va: Any, size: Any) -> None:
    """Count any block, or stop before it."""
    if not _enter_pages(s, va, size):
        s.fetch_page = 0
        flush_soft_tlb(s)
        _stop(s, STOP_REFETCH, 0)
        return
    key = s.fetch_pa | (va & 0xFFF) | (size << 48)
    index = _find_block(s, key)
    known = block_at(s.blocks, index)
    is_known = known.key == key and (not known.is_watched or known.va == va)
    is_volatile = _is_volatile(s, va, size)
    if not is_known or (is_volatile and known.checksum != _checksum(s, va, size)):
        _begin(s, va, key, index)
        s.stop_value = _checksum(s, va, size)
        _stop(s, STOP_UNKNOWN, va)
        return
    repeats = s.rep_va != 0 and s.rep_va == va and known.rep_offset == 0
    instructions = 0 if repeats else known.instructions
    if s.instructions + instructions > s.deadline:
        _begin(s, va, key, index)
        _stop(s, STOP_DEADLINE, va)
        return
    s.instructions += instructions
    s.reads += known.reads
    s.writes += known.writes
    s.repeats = repeats
    s.rep_va = known.rep_va
    _begin(s, va, key, index)
    s.fetched_0 = 0
    s.fetched_1 = 0
    if s.passed_va != va:
        s.passed_va = NOWHERE
    calm = known.is_plain and not is_volatile and s.passed_va == NOWHERE
    s.fast_page = va & PAGE | KNOWN if calm else 0


@entry(void(word, word, int32, word))
def block(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_BLOCK: count a basic block, or stop before it. By far the most frequent call of all."""
    s = state_at(user_data, 0)
    if not _count_again(s, va, word(size)):
        _count(s, va, word(size))


@native
def _watch(s: Any, va: Any) -> None:
    """Stop before an instruction that is the model's, or count one iteration of a REP."""
    current = block_at(s.blocks, s.block_index)
    if current.model_va == va:
        _stop(s, STOP_MODEL, 0)
    elif current.rep_va == va and words(s.env)[ENV_RCX] & current.rep_mask:
        s.reads += current.rep_reads
        s.writes += current.rep_writes


@entry(void(word, word, int32, word))
def watch(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_CODE at one address."""
    _watch(state_at(user_data, 0), va)


@entry(void(word, word, int32, word))
def breakpoint(uc: Any, va: Any, size: Any, user_data: Any) -> None:
    """UC_HOOK_CODE at a breakpoint: stop, unless execution goes on from here. A REP passes with all iterations."""
    s = state_at(user_data, 0)
    if s.passed_va != va:
        _stop(s, STOP_BREAKPOINT, 0)
        return
    if block_at(s.blocks, s.block_index).rep_va != va:
        s.passed_va = NOWHERE
    _watch(s, va)


# --- every access, every instruction -------------------------------------------------------------------------


@native
def _touch(s: Any, va: Any, kind: Any) -> None:
    """One data access in the access engine. It was translated when Unicorn asked; here the model sees it anyway."""
    if s.no_tlb:
        translate(s, va, kind)
        drop_page(s, va)
        return
    number, index = find(s, DTLB, va)
    if number >= 0:
        use(s, s.arrays[number], index)
    else:
        translate(s, va, kind)


@native
def _will_fault(s: Any, va: Any, kind: Any) -> Any:
    """Whether the second page of a crossing access is still missing; the access then repeats, and counts then."""
    if s.no_tlb:
        return not _quiet_walk(s, va, kind)
    number, _ = find(s, DTLB, va)
    return number < 0


@entry(void(word, int32, word, int32, word, word))
def access(uc: Any, uc_kind: Any, pa: Any, size32: Any, value: Any, user_data: Any) -> None:
    """UC_HOOK_MEM_READ and UC_HOOK_MEM_WRITE; `pa` is physical."""
    s = state_at(user_data, 0)
    kind = word(uc_kind) - UC_MEM_READ
    size = word(size32)
    va = (words(s.frame_va)[pa >> 12] & PAGE) | (pa & 0xFFF)
    second = (va + size - 1) & PAGE
    crosses = second != va & PAGE
    if not crosses:
        _touch(s, va, kind)
    elif not _will_fault(s, second, kind):
        _touch(s, va, kind)
        _touch(s, second, kind)
    elif not s.no_tlb:
        _touch(s, va, kind)
    if (s.listeners >> ON_ACCESS) & 1:
        call(s.notify, (ON_ACCESS, va, kind | (size << 8), pa))


@entry(void(word, word, int32, word))
def instruction(uc: Any, va: Any, size32: Any, user_data: Any) -> None:
    """UC_HOOK_CODE everywhere: walk for the fetch (`--tlb none`), tell listeners. A REP is fetched once."""
    s = state_at(user_data, 0)
    if s.repeats:
        return
    if s.no_tlb:
        leaf = translate(s, va, FETCH)
        if not leaf or physical(leaf, va & PAGE) != (s.fetch_pa if va & PAGE == s.fetch_page & PAGE else s.second_pa):
            s.fetch_page = 0
            flush_soft_tlb(s)
            _stop(s, STOP_REFETCH, 0)
    if (s.listeners >> ON_INSTRUCTION) & 1:
        notify(s, ON_INSTRUCTION, va, word(size32), 0)


# --- instructions that need the machine ----------------------------------------------------------------------


@native
def _next(s: Any, size: Any) -> Any:
    """Go on after an instruction of `size` bytes."""
    words(s.env)[ENV_RIP] += size
    return True


@native
def _returns(s: Any) -> Any:
    """IRETQ: the block counted its five loads; the model makes them, and counts them then."""
    reads = s.reads
    s.reads -= 5
    if iretq(s):
        return True
    s.reads = reads
    return False


@native
def _transfers(s: Any) -> Any:
    """Execute the instruction at RIP here if it is SWAPGS, SYSRETQ, IRETQ, CLAC or STAC and nothing stands against it.

    Only where it ends its block, so that nothing behind it has been counted.
    """
    rip = words(s.env)[ENV_RIP]
    left = s.block_va + _block_size(s) - rip
    if s.block_key == 0 or left < 2 or left > 3:
        return False
    first, second = _code_byte(s, rip), _code_byte(s, rip + 1)
    if left == 2:
        return first == 0x48 and second == 0xCF and _returns(s)
    if s.cpl != 0:
        return False
    third = _code_byte(s, rip + 2)
    if first == 0x0F and second == 0x01 and third == 0xF8:
        return swapgs(s) and _next(s, 3)
    if first == 0x48 and second == 0x0F and third == 0x07:
        return s.syscalls_enabled != 0 and sysretq(s)
    if first == 0x0F and second == 0x01 and (third == 0xCA or third == 0xCB):
        return s.has_smap != 0 and smap_window(s, third & 1) and _next(s, 3)
    return False


@entry(void(word, int32, word))
def interrupt(uc: Any, number: Any, user_data: Any) -> None:
    """UC_HOOK_INTR: an exception or INT n. Unicorn must forget it, or it would end in a silent double fault."""
    s = state_at(user_data, 0)
    words(s.old_exception)[0] |= 0xFFFFFFFF
    if number == GENERAL_PROTECTION and not words(s.is_software)[0] & 0xFFFFFFFF and _transfers(s):
        return
    _stop(s, STOP_INTERRUPT, word(number))


@native
def _is_vmcall(s: Any) -> Any:
    """Whether the instruction at RIP is VMCALL in the kernel, ending its block: by far the most frequent one."""
    rip = words(s.env)[ENV_RIP]
    if s.cpl != 0 or s.block_key == 0 or s.block_va + _block_size(s) - rip != 3:
        return False
    return _code_byte(s, rip) == 0x0F and _code_byte(s, rip + 1) == 0x01 and _code_byte(s, rip + 2) == 0xC1


@entry(boolean(word, word))
def invalid(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN_INVALID: CLAC, STAC, INVPCID, VMCALL, UD2 ... are the machine's to execute."""
    s = state_at(user_data, 0)
    if _is_vmcall(s):
        _stop(s, STOP_VMCALL, 0)
    elif not _transfers(s):
        _stop(s, STOP_INVALID, 0)
    return True


@entry(void(word, word))
def syscall(uc: Any, user_data: Any) -> None:
    """UC_HOOK_INSN for SYSCALL, which ends its block."""
    s = state_at(user_data, 0)
    if s.syscalls_enabled:
        enter_system_call(s, s.block_va + _block_size(s) - words(s.env)[ENV_RIP])
    else:
        _stop(s, STOP_SYSCALL, 0)


@entry(int32(word, word))
def cpuid(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for CPUID: answered from our own table."""
    notify(state_at(user_data, 0), CPUID, 0, 0, 0)
    return int32(1)


@entry(int32(word, word))
def rdtsc(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for RDTSC: the model's clock."""
    notify(state_at(user_data, 0), RDTSC, 0, 0, 0)
    return int32(1)


@entry(int32(word, word))
def rdtscp(uc: Any, user_data: Any) -> Any:
    """UC_HOOK_INSN for RDTSCP."""
    notify(state_at(user_data, 0), RDTSCP, 0, 0, 0)
    return int32(1)


# --- called from Python --------------------------------------------------------------------------------------


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
    return _find_block(state_at(state, 0), key)
