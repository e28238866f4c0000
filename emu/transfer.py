"""Into the kernel and back (native): SYSCALL, SYSRET, SWAPGS, STAC, CLAC, IRETQ, and delivery through the IDT.

These happen several times in every system call and page fault, so they run without leaving Unicorn. Semantics are the
manual's (Intel SDM Vol. 2, and Vol. 3A chapter 6 for delivery): nothing changes before everything has succeeded, memory
is reached through the current page tables, and a failure is an exception that is left in `pending_vector`,
`pending_code` and `pending_address` for the machine to raise.
"""

from __future__ import annotations

from typing import Any, Final

from .cache import touch
from .native import call, native, words
from .pte import ADDRESS_MASK, IMPLICIT, Access, Rflags
from .recorder import record_cr3_write, tell_access, tell_mode
from .soft_tlb import flush_soft_tlb
from .state import FETCHED, Event, Fault
from .tlb import ANY, PCID_MASK, invalidate, leaf_shift
from .translate import translate
from .walk import KIND, is_canonical

__all__ = [
    "deliver",
    "iretq",
    "note_write",
    "physical",
    "read_cr3",
    "smap_window",
    "swapgs",
    "switch_mode",
    "syscall",
    "sysretq",
    "write_cr3",
]

CR3_EVENTS: Final = 1 << Event.CR3_WRITE | 1 << Event.TLB_FLUSH
MODE_BIT: Final = 1 << Event.MODE_SWITCH
NOFLUSH_MASK: Final = (1 << 63) - 1
READ, WRITE = int(Access.READ), int(Access.WRITE)
RAX, RCX, RSP, R11, RIP = 0, 1, 4, 11, 16
"""Indices into Unicorn's registers (env); RIP follows the sixteen general ones."""

RFLAGS_REGISTER: Final = 25
"""UC_X86_REG_EFLAGS, which reads and writes all of RFLAGS that matters."""
IF, AC, RF, NT, TF = (int(flag) for flag in (Rflags.IF, Rflags.AC, Rflags.RF, Rflags.NT, Rflags.TF))
ID, DF, FIXED = int(Rflags.ID), int(Rflags.DF), int(Rflags.FIXED)
STATUS: Final = int(Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF)
UNICORNS: Final = STATUS | TF | DF | NT | ID
"""Flags that Unicorn keeps. IF and AC are the model's, RF has no effect without debug registers, the rest is 0."""

GP, PF, SS, NP, TS = 13, 14, 12, 11, 10
NO_CODE: Final = -1
PAGE_FAULT: Final = int(Fault.PAGE)
IS_FAULT: Final = sum(1 << vector for vector in (0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19))
"""Exceptions whose instruction is executed again; they push RFLAGS with RF set (SDM Vol. 3B 17.3.1.1)."""

HAS_ERROR_CODE: Final = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17
INTERRUPT_GATE, TRAP_GATE = 0xE, 0xF
TSS_RSP0, TSS_IST1 = 4, 0x24
PRESENT_BIT: Final = 47
DATA_TYPE, WRITABLE_DATA = 0x1A, 0x12
"""Of a descriptor's byte 5: S, code, and writable or readable; a writable data segment."""

LOCAL: Final = 1 << 2
"""In a selector: of the local descriptor table, and there is none."""


# --- the processor's state -----------------------------------------------------------------------------------------


@native
def account(s: Any) -> None:
    """Give what was counted since the last change of mode to the mode it was counted in."""
    base = 0 if s.counted_as == 3 else 3
    s.mode_totals[base] += s.instructions - s.mode_start[0]
    s.mode_totals[base + 1] += s.reads - s.mode_start[1]
    s.mode_totals[base + 2] += s.writes - s.mode_start[2]
    s.mode_start[0] = s.instructions
    s.mode_start[1] = s.reads
    s.mode_start[2] = s.writes


@native
def switch_mode(s: Any, cpl: Any) -> None:
    """Change the privilege level. Unicorn must ask again for every page, because other rights hold now."""
    account(s)
    if s.cpl != cpl and (s.listeners | s.recorded) & MODE_BIT:
        tell_mode(s, cpl)
    s.cpl = cpl
    s.counted_as = cpl
    s.fetch_page = 0
    flush_soft_tlb(s)


@native
def _left_block(s: Any) -> None:
    """Execution goes on elsewhere: no block is under way."""
    s.rep_va = 0
    s.block_key = 0


@native
def read_flags(s: Any) -> Any:
    """RFLAGS, with the bits that the model keeps."""
    call(s.uc_reg_read, (s.uc, RFLAGS_REGISTER, s.scratch))
    flags = words(s.scratch)[0] & UNICORNS | FIXED
    return flags | (AC if s.alignment_check else 0) | (IF if s.interrupt_flag else 0)


@native
def write_flags(s: Any, flags: Any) -> None:
    """Set RFLAGS. Unicorn's own IF stays set, and VM86 mode and an IOPL it must never have."""
    s.interrupt_flag = 1 if flags & IF else 0
    s.alignment_check = 1 if flags & AC else 0
    s.single_step = flags & TF
    words(s.scratch)[0] = flags & UNICORNS | FIXED | IF
    call(s.uc_reg_write, (s.uc, RFLAGS_REGISTER, s.scratch))


@native
def _fail(s: Any, vector: Any, code: Any) -> Any:
    s.pending_vector = vector
    s.pending_code = code
    s.pending_address = 0
    return False


# --- memory ----------------------------------------------------------------------------------------------------------


@native
def physical(leaf: Any, va: Any) -> Any:
    """Physical address of `va` under a leaf."""
    offset = (1 << leaf_shift(leaf)) - 1
    return (leaf & ADDRESS_MASK & ~offset) | (va & offset)


@native
def _translate(s: Any, va: Any, access: Any, is_stack: Any) -> Any:
    """Physical address, or -1 with the exception pending."""
    leaf = translate(s, va, access)
    if not leaf:
        if s.fault == PAGE_FAULT:
            _fail(s, PF, s.fault_code)
            s.pending_address = va
        else:
            _fail(s, SS if is_stack else GP, 0)
        return -1
    pa = physical(leaf, va)
    if pa + 8 > s.ram_size:
        _fail(s, GP, 0)
        return -1
    if s.caches:
        touch(s, pa, access & KIND)
    return pa


@native
def _load(s: Any, va: Any, access: Any, is_stack: Any) -> Any:
    """Load 8 bytes at any alignment into `s.loaded`. False with the exception pending."""
    s.reads += 1
    pa = _translate(s, va, access, is_stack)
    if pa < 0:
        return False
    shift = (va & 7) << 3
    low = words(s.ram)[pa >> 3]
    tell_access(s, va, access, 8, pa)
    if shift == 0:
        s.loaded = low
        return True
    second = _translate(s, (va & ~7) + 8, access, is_stack)
    if second < 0:
        return False
    high = words(s.ram)[second >> 3]
    s.loaded = ((low >> shift) & ((1 << (64 - shift)) - 1)) | (high << (64 - shift))
    return True


@native
def note_write(s: Any, pa: Any) -> None:
    """Not the guest but the machine wrote to a frame; if it has code, that is not what was translated."""
    flags = words(s.frame_flags)
    if flags[pa >> 12] & FETCHED:
        flags[pa >> 12] = 0
        s.code_written = 1


@native
def _store(s: Any, va: Any, value: Any) -> Any:
    """Store an aligned word with the processor's own rights. False with the exception pending."""
    s.writes += 1
    pa = _translate(s, va, WRITE | IMPLICIT, True)
    if pa < 0:
        return False
    words(s.ram)[pa >> 3] = value
    note_write(s, pa)
    tell_access(s, va, WRITE | IMPLICIT, 8, pa)
    return True


# --- system calls ----------------------------------------------------------------------------------------------------


@native
def syscall(s: Any, size: Any) -> None:
    """SYSCALL; RIP is at the instruction, and Unicorn adds its size when the hook returns. EFER.SCE is set."""
    registers = words(s.env)
    flags = read_flags(s)
    registers[RCX] = registers[RIP] + size
    registers[R11] = flags
    registers[RIP] = s.lstar - size
    write_flags(s, flags & ~s.fmask)
    s.cs = (s.star >> 32) & 0xFFFC
    s.ss = s.cs + 8
    s.entry_exit_cycles += s.cost_syscall
    _left_block(s)
    switch_mode(s, 0)


@native
def sysretq(s: Any) -> Any:
    """SYSRETQ at CPL 0. False (#GP pending) for a RCX that is not canonical, as on Intel parts."""
    registers = words(s.env)
    if not is_canonical(s, registers[RCX]):
        return _fail(s, GP, 0)
    registers[RIP] = registers[RCX]
    write_flags(s, registers[R11])
    selector = (s.star >> 48) & 0xFFFF
    s.cs = (selector + 16) | 3
    s.ss = (selector + 8) | 3
    s.entry_exit_cycles += s.cost_sysret
    _left_block(s)
    switch_mode(s, 3)
    return True


@native
def swapgs(s: Any) -> Any:
    """SWAPGS at CPL 0: exchange the GS base with IA32_KERNEL_GS_BASE."""
    base = words(s.gs_base)
    base[0], s.kernel_gs_base = s.kernel_gs_base, base[0]
    s.entry_exit_cycles += s.cost_swapgs
    return True


@native
def read_cr3(s: Any, register: Any) -> Any:
    """MOV r64, CR3 at CPL 0."""
    words(s.env)[register] = s.cr3 | s.cr3_low
    s.control_cycles += s.cost_read_control
    return True


@native
def write_cr3(s: Any, register: Any) -> Any:
    """MOV CR3, r64 at CPL 0 (SDM 4.10.4.1). False, with nothing changed, where somebody listens or it is refused."""
    value = words(s.env)[register]
    keeps = s.pcids_enabled != 0 and value < 0
    address = value & NOFLUSH_MASK if s.pcids_enabled else value
    if s.listeners & CR3_EVENTS or address < 0 or address >= s.physical_limit:
        return False
    s.cr3 = address & ADDRESS_MASK
    s.cr3_low = address & PCID_MASK
    s.pcid = s.cr3_low if s.pcids_enabled else 0
    s.fetch_page = 0
    if keeps:
        s.cr3_keeping += 1
        s.cr3_cycles += s.cost_cr3_noflush
    else:
        invalidate(s, ANY, s.pcid, False)
        s.cr3_flushing += 1
        s.cr3_cycles += s.cost_cr3_flush
    record_cr3_write(s, value, not keeps)
    flush_soft_tlb(s)
    return True


@native
def smap_window(s: Any, is_open: Any) -> Any:
    """STAC and CLAC at CPL 0: whether the kernel may touch user pages."""
    s.entry_exit_cycles += s.cost_stac_clac
    if s.alignment_check != is_open:
        s.alignment_check = is_open
        s.fetch_page = 0
        flush_soft_tlb(s)
    return True


# --- interrupts and exceptions ---------------------------------------------------------------------------------------


@native
def _descriptor(s: Any, selector: Any) -> Any:
    """Load a segment descriptor from the GDT into `s.loaded`."""
    at = selector & 0xFFF8
    if at == 0 or selector & LOCAL or at + 7 > s.gdt_limit:
        return _fail(s, GP, selector & 0xFFFC)
    return _load(s, s.gdt_base + at, READ | IMPLICIT, False)


@native
def _check_code_segment(s: Any, selector: Any) -> Any:
    """The descriptor of a code segment must be present and 64-bit."""
    if not _descriptor(s, selector):
        return False
    descriptor = s.loaded
    if (descriptor >> 43) & 3 != 3 or not (descriptor >> 53) & 1:
        return _fail(s, GP, selector & 0xFFFC)
    if not (descriptor >> PRESENT_BIT) & 1:
        return _fail(s, NP, selector & 0xFFFC)
    return True


@native
def _check_stack_segment(s: Any, selector: Any, cpl: Any) -> Any:
    """The stack segment to return to at `cpl`: writable data of that very privilege; the kernel may have none."""
    if selector & 0xFFFC == 0:
        return True if cpl != 3 and selector & 3 == cpl else _fail(s, GP, 0)
    if not _descriptor(s, selector):
        return False
    kind = (s.loaded >> 40) & DATA_TYPE
    if kind != WRITABLE_DATA or selector & 3 != cpl or (s.loaded >> 45) & 3 != cpl:
        return _fail(s, GP, selector & 0xFFFC)
    if not (s.loaded >> PRESENT_BIT) & 1:
        return _fail(s, SS, selector & 0xFFFC)
    return True


@native
def _load_gate(s: Any, vector: Any, is_software: Any) -> Any:
    """Read and check a gate; its low word stays in `s.gate_low`, its high word in `s.loaded`."""
    at = vector * 16
    code = vector * 8 + 2
    if at + 15 > s.idt_limit:
        return _fail(s, GP, code)
    if not _load(s, s.idt_base + at, READ | IMPLICIT, False):
        return False
    low = s.gate_low = s.loaded
    kind = (low >> 40) & 0x1F
    if kind != INTERRUPT_GATE and kind != TRAP_GATE:
        return _fail(s, GP, code)
    if is_software and (low >> 45) & 3 < s.cpl:
        return _fail(s, GP, code)
    if not (low >> PRESENT_BIT) & 1:
        return _fail(s, NP, code)
    return _load(s, s.idt_base + at + 8, READ | IMPLICIT, False)


@native
def _handler_stack(s: Any, ist: Any) -> Any:
    """Put the handler's stack pointer into `s.loaded`: IST entry, RSP0 from user mode, else the current one."""
    if ist == 0 and s.cpl == 0:
        s.loaded = words(s.env)[RSP]
        return True
    offset = TSS_IST1 + 8 * (ist - 1) if ist else TSS_RSP0
    if offset + 7 > s.task_limit:
        return _fail(s, TS, 0)
    return _load(s, s.task_base + offset, READ | IMPLICIT, False)


@native
def deliver(s: Any, vector: Any, error_code: Any, is_software: Any) -> Any:
    """Enter the handler of a vector (SDM Vol. 3A 6.12, 6.14). False with the second exception pending."""
    if not _load_gate(s, vector, is_software):
        return False
    low = s.gate_low
    offset = (low & 0xFFFF) | ((low >> 32) & 0xFFFF0000) | ((s.loaded & 0xFFFFFFFF) << 32)
    selector = (low >> 16) & 0xFFFF
    if not _check_code_segment(s, selector):
        return False
    if not is_canonical(s, offset):
        return _fail(s, GP, 0)
    if not _handler_stack(s, (low >> 32) & 7):
        return False
    rsp = s.loaded & ~0xF
    flags = read_flags(s)
    is_exception = vector < 32 and not is_software
    pushed_code = error_code if is_exception and (HAS_ERROR_CODE >> vector) & 1 else NO_CODE
    resume = RF if is_exception and (IS_FAULT >> vector) & 1 else 0
    if not _push_frame(s, rsp, flags | resume, pushed_code):
        return False
    registers = words(s.env)
    registers[RSP] = rsp - (40 if pushed_code == NO_CODE else 48)
    registers[RIP] = offset
    cleared = TF | NT | (IF if (low >> 40) & 0x1F == INTERRUPT_GATE else 0)
    write_flags(s, flags & ~cleared)
    if s.cpl:
        s.ss = 0
    s.cs = selector & 0xFFFC
    _left_block(s)
    switch_mode(s, 0)
    return True


@native
def _push_frame(s: Any, rsp: Any, flags: Any, error_code: Any) -> Any:
    """Push SS, RSP, RFLAGS, CS, RIP and the error code (unless NO_CODE)."""
    registers = words(s.env)
    pushed = (
        _store(s, rsp - 8, s.ss)
        and _store(s, rsp - 16, registers[RSP])
        and _store(s, rsp - 24, flags)
        and _store(s, rsp - 32, s.cs)
        and _store(s, rsp - 40, registers[RIP])
    )
    if not pushed or error_code == NO_CODE:
        return pushed
    return _store(s, rsp - 48, error_code)


@native
def iretq(s: Any) -> Any:
    """IRETQ: pop RIP, CS, RFLAGS, RSP, SS. False with the exception pending and nothing changed."""
    registers = words(s.env)
    frame = registers[RSP]
    for number in range(5):
        if not _load(s, frame + 8 * number, READ, True):
            return False
        words(s.popped)[number] = s.loaded
    rip, cs, flags = words(s.popped)[0], words(s.popped)[1] & 0xFFFF, words(s.popped)[2]
    ss = words(s.popped)[4] & 0xFFFF
    if read_flags(s) & NT:
        return _fail(s, GP, 0)
    if not _check_code_segment(s, cs):
        return False
    if cs & 3 < s.cpl or (s.loaded >> 45) & 3 != cs & 3:
        return _fail(s, GP, cs & 0xFFFC)
    if not _check_stack_segment(s, ss, cs & 3):
        return False
    if not is_canonical(s, rip):
        return _fail(s, GP, 0)
    registers[RIP] = rip
    registers[RSP] = words(s.popped)[3]
    if s.cpl:  # IF and IOPL are not the user's to change
        flags = (flags & ~IF) | (IF if s.interrupt_flag else 0)
    write_flags(s, flags)
    s.cs = cs
    s.ss = ss
    s.entry_exit_cycles += s.cost_iret
    _left_block(s)
    switch_mode(s, cs & 3)
    return True
