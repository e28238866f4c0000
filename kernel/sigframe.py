"""The frame of a signal handler on the user's stack (arch/x86/kernel/signal_64.c, asm/sigframe.h, asm/fpu/signal.h).

The whole state of the program goes to its own stack, and comes back from there when the handler returns: it may have
changed. That is how a handler skips the instruction that faulted, or gives it another register.

    high    the stack of the program
            128 bytes that are never touched (the red zone of the ABI)
            the floating-point registers: FXSAVE's 512 bytes, on a 64-byte boundary        <- uc_mcontext.fpstate
    440     ...                                                                            16-byte boundary less 8
    312     siginfo_t (128 bytes)                                                          <- RSI of the handler
    304     uc_sigmask: what was blocked
    48      uc_mcontext: R8 to R15, RDI RSI RBP RBX RDX RAX RCX RSP RIP, RFLAGS, selectors, then why it stopped
    24      uc_stack: the alternate stack, as sigaltstack would tell
    8       uc_flags, uc_link                                                              <- RDX of the handler
    0       pretcode: the return address, sa_restorer, which calls rt_sigreturn            <- RSP of the handler

The handler starts with the floating-point registers of a new program.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from emu.fpu import FXSAVE_SIZE
from emu.pte import Rflags

from .layout import TASK_SIZE, Selector
from .process import PT_REGS, Process
from .signals import (
    SA_ONSTACK,
    SA_RESTORER,
    SA_SIGINFO,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    UNBLOCKABLE,
    AltStack,
    SigAction,
    SigInfo,
)

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["restore_rt_frame", "set_altstack", "setup_rt_frame"]

RED_ZONE: Final = 128
FPSTATE_ALIGNMENT: Final = 64
FRAME_ALIGNMENT: Final = 16
UC_AT, MCONTEXT_AT, SIGMASK_AT, INFO_AT, FRAME_SIZE = 8, 48, 304, 312, 440
UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 2, 4
"""uc_flags of a processor without XSAVE (asm/ucontext.h)."""
MINSIGSTKSZ: Final = 2048
HEAD: Final = struct.Struct("<QQQQIxxxxQ")
"""pretcode, uc_flags, uc_link, ss_sp, ss_flags, ss_size."""
REGISTERS: Final = (
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "eflags"),
)
"""The first words of struct sigcontext."""
MCONTEXT: Final = struct.Struct("<18Q4H5Q")
"""Those, CS, GS, FS, SS, then err, trapno, oldmask, cr2, fpstate."""
FP_XSTATE_MAGIC1: Final = 0x4650_5853
XFEATURES: Final = 3
"""x87 and SSE."""
SOFTWARE: Final = struct.Struct("<IIQI28x")
"""What Linux puts into the last 48 bytes of the FXSAVE area: magic1, extended_size, xfeatures, xstate_size."""
MAGIC2_SIZE: Final = 4

STATUS: Final = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF
CHANGEABLE: Final = int(STATUS | Rflags.AC | Rflags.DF | Rflags.TF | Rflags.RF)
"""Flags that a handler may change (FIX_EFLAGS)."""
CLEARED: Final = int(Rflags.DF | Rflags.TF | Rflags.RF)
MASK64: Final = (1 << 64) - 1


# --- to the handler -------------------------------------------------------------------------------------------------


def setup_rt_frame(kernel: Kernel, process: Process, action: SigAction, info: SigInfo) -> bool:
    """Write the frame and point the registers at the handler. False if the stack cannot hold it."""
    if not action.flags & SA_RESTORER:  # only 32-bit programs had another way back
        return False
    regs = _load(kernel, process)
    places = _places(process.signals.altstack, regs["rsp"], bool(action.flags & SA_ONSTACK))
    if places is None:
        return False
    frame, fpstate = places
    area = kernel.machine.cpu.fpu.fxsave()[: FXSAVE_SIZE - SOFTWARE.size]
    area += SOFTWARE.pack(FP_XSTATE_MAGIC1, FXSAVE_SIZE + MAGIC2_SIZE, XFEATURES, FXSAVE_SIZE)
    head = _frame(process, action, regs, fpstate)
    if action.flags & SA_SIGINFO:
        head += info.to_bytes()
    if not _write(kernel, fpstate, area) or not _write(kernel, frame, head):
        return False
    kernel.scheduler.reset_fpu()
    regs |= {"rdi": info.number, "rsi": frame + INFO_AT, "rdx": frame + UC_AT, "rax": 0}
    regs |= {"rip": action.handler, "rsp": frame, "eflags": regs["eflags"] & ~CLEARED}
    regs |= {"cs": Selector.USER_CS, "ss": Selector.USER_DS}
    _store(kernel, process, regs)
    return True


def _places(altstack: AltStack, rsp: int, on_altstack: bool) -> tuple[int, int] | None:
    """Addresses of frame and floating-point area (get_sigframe). None if the alternate stack would overflow."""
    nested, entering = altstack.is_used(rsp), False
    pointer = rsp - RED_ZONE
    if on_altstack and altstack.status(pointer) == 0:
        pointer, entering = altstack.start + altstack.size, True
    fpstate = (pointer - FXSAVE_SIZE) & -FPSTATE_ALIGNMENT
    frame = ((fpstate - FRAME_SIZE) & -FRAME_ALIGNMENT) - 8
    if (nested or entering) and not altstack.contains(frame):
        return None
    return frame & MASK64, fpstate & MASK64


def _frame(process: Process, action: SigAction, regs: dict[str, int], fpstate: int) -> bytes:
    """The frame up to siginfo."""
    signals, trap = process.signals, process.trap
    stack = signals.altstack
    mask = signals.blocked if signals.saved_mask is None else signals.saved_mask
    head = HEAD.pack(action.restorer, UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS, 0, stack.start, stack.flags, stack.size)
    context = MCONTEXT.pack(
        *(regs[name] for name in REGISTERS),
        *(regs["cs"], 0, 0, regs["ss"]),
        *(trap.error_code, trap.number, mask, trap.cr2, fpstate),
    )
    return (head + context).ljust(SIGMASK_AT, b"\0") + struct.pack("<Q", mask)


def _write(kernel: Kernel, va: int, data: bytes) -> bool:
    return va + len(data) <= TASK_SIZE and kernel.user.write(va, data) == len(data)


# --- and back -------------------------------------------------------------------------------------------------------


def restore_rt_frame(kernel: Kernel, process: Process) -> bool:
    """Take all registers from the frame that RSP has just left. False if it cannot be (rt_sigreturn)."""
    regs = _load(kernel, process)
    frame = (regs["rsp"] - 8) & MASK64
    data = kernel.user.read(frame, INFO_AT)
    if frame + FRAME_SIZE > TASK_SIZE or len(data) < INFO_AT:
        return False
    _, flags, _, *altstack = HEAD.unpack_from(data)
    process.signals.blocked = int.from_bytes(data[SIGMASK_AT:INFO_AT], "little") & ~UNBLOCKABLE
    process.restart_block = None
    values = MCONTEXT.unpack_from(data, MCONTEXT_AT)
    eflags = regs["eflags"]
    regs |= dict(zip(REGISTERS, values))
    cs, _, _, ss = values[len(REGISTERS) : len(REGISTERS) + 4]
    regs |= {"cs": cs | 3, "ss": ss | 3 if flags & UC_STRICT_RESTORE_SS else Selector.USER_DS}
    regs |= {"eflags": eflags & ~CHANGEABLE | regs["eflags"] & CHANGEABLE, "orig_rax": MASK64}
    _store(kernel, process, regs)
    if not _restore_fpstate(kernel, values[-1]):
        return False
    set_altstack(process.signals.altstack, regs["rsp"], *altstack)
    return True


def _restore_fpstate(kernel: Kernel, va: int) -> bool:
    """Floating-point registers as the handler left them in memory; without an area those of a new program."""
    if va:
        area = kernel.user.read(va, FXSAVE_SIZE)
        if len(area) == FXSAVE_SIZE and kernel.machine.cpu.fpu.fxrstor(area):
            return True
    kernel.scheduler.reset_fpu()
    return not va


def set_altstack(altstack: AltStack, rsp: int, start: int, flags: int, size: int) -> int:
    """Change the alternate stack. Returns 0 or an errno (do_sigaltstack)."""
    if altstack.is_used(rsp):
        return errno.EPERM
    mode = flags & ~SS_AUTODISARM
    if mode not in (0, SS_ONSTACK, SS_DISABLE):
        return errno.EINVAL
    if (altstack.start, altstack.flags, altstack.size) == (start, flags, size):
        return 0
    if mode == SS_DISABLE:
        start = size = 0
    elif size < MINSIGSTKSZ:
        return errno.ENOMEM
    altstack.start, altstack.flags, altstack.size = start, flags, size
    return 0


# --- the registers, all at once ---------------------------------------------------------------------------------------


def _load(kernel: Kernel, process: Process) -> dict[str, int]:
    return dict(zip(PT_REGS, kernel.memory.load_words(process.registers_va, len(PT_REGS))))


def _store(kernel: Kernel, process: Process, regs: dict[str, int]) -> None:
    kernel.memory.write_va(process.registers_va, struct.pack(f"<{len(PT_REGS)}Q", *(regs[name] for name in PT_REGS)))
