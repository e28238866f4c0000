"""What the entry code calls: system calls, exceptions, the timer (arch/x86/entry/common.c, kernel/traps.c).

Each function here is kernel text: `entry.s` calls it by name, with the address of the saved registers in RDI.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import ErrorCode, Rflags, describe_error_code

from .entry import Body, kernel_function
from .events import SyscallEvent, SyscallExit
from .exceptions import Errno, KernelPanic
from .fault import FaultResult
from .layout import TASK_SIZE, Selector
from .process import PT_REGS_SIZE, LastTrap, Process, Registers
from .siginfo import (
    BUS_ADRERR,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SIGBUS,
    SIGSEGV,
    TRAP_BRKPT,
    TRAP_TRACE,
    SigInfo,
)
from .signal_delivery import RESTARTS, force_signal
from .signals import FAULT_SIGNALS, WITH_ADDRESS
from .syscalls import syscall_at
from .wait import Wait

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["do_syscall_64", "exc_page_fault", "finish_syscall"]

MASK64: Final = (1 << 64) - 1
USER, PROTECTION = int(ErrorCode.U), int(ErrorCode.P)
PAGE_FAULT: Final = 14
RSP: Final = 4
IRET_FRAME: Final = 40
WITH_ERROR_CODE: Final = frozenset({10, 11, 12, 13, 17})
_FAULT_SIGNAL: Final = {
    FaultResult.BAD_ADDRESS: (SIGSEGV, SEGV_MAPERR),
    FaultResult.BAD_ACCESS: (SIGSEGV, SEGV_ACCERR),
    FaultResult.BUS_ERROR: (SIGBUS, BUS_ADRERR),
}
DEBUG, X87, SIMD = 1, 16, 19
MXCSR_MASKS: Final = 7
"""From an exception's bit in MXCSR to the bit that masks it."""
FLOATING_POINT_CODES: Final = (
    (1, FPE_FLTINV),
    (4, FPE_FLTDIV),
    (8, FPE_FLTOVF),
    (0x12, FPE_FLTUND),
    (0x20, FPE_FLTRES),
)
"""Invalid, divide by zero, overflow, denormal or underflow, precision: the first that was raised is told
(fpu__exception_code)."""
SYSCALL_WORK: Final = 10
"""Cycles of do_syscall_64 and of a call's own body. Fitted, with the profiles' `costs.swapgs`, to a null system call
without page-table isolation: 115 to 150 cycles (K. Garloff, 2018)."""
FAULT_WORK: Final = 120
"""Cycles of the page-fault path without its memory accesses. Assumption: half of the 250 that Torvalds counted for the
whole software part of a Haswell zero-page fault (2014); the other half is in the accesses that are modelled."""


@kernel_function(cycles=SYSCALL_WORK)
def do_syscall_64(kernel: Kernel, regs_va: int, number: int) -> int:
    """Dispatch a system call. Returns 1 if SYSRET may be used to go back."""
    process = kernel.current
    call = syscall_at(number)
    name = call.name if call else f"syscall_{number}"
    process.syscalls[name] = process.syscalls.get(name, 0) + 1
    process.syscall = number
    arguments = Registers(kernel.memory, regs_va).arguments()
    if kernel.events.wants("syscall"):
        used = arguments[: call.arity] if call else arguments
        kernel.events.emit(SyscallEvent(kernel.now, process.pid, number, name, used))
    if call and call.work:
        kernel.memory.enter(call.work)
    try:
        answer = call.body(kernel, *arguments[: call.arity]) if call else -errno.ENOSYS
        result = answer.attempt() if isinstance(answer, Wait) else answer
        if result is None and isinstance(answer, Wait):
            kernel.scheduler.block(process, answer)
    except Errno as error:
        result = -error.number
    if process.alive and result is not None:
        finish_syscall(kernel, process, result)
    if not process.work:
        return 1
    kernel.scheduler.return_to_user()
    return 0


def finish_syscall(kernel: Kernel, process: Process, result: int) -> None:
    """A system call has its answer; -ERESTART codes wait for the signal that decides."""
    if -result in RESTARTS:
        process.interrupted = -result
    if not process.keeps_registers:
        Registers(kernel.memory, process.registers_va)["rax"] = result & MASK64
    process.keeps_registers = False
    if kernel.events.wants("syscall_exit"):
        number = process.syscall
        call = syscall_at(number)
        name = call.name if call else f"syscall_{number}"
        kernel.events.emit(SyscallExit(kernel.now, process.pid, number, name, result))


@kernel_function(cycles=FAULT_WORK)
def exc_page_fault(kernel: Kernel, regs_va: int, error_code: int) -> None:
    """A page fault: deliver the page, or a signal; in the kernel itself it is a bug."""
    address = kernel.machine.control.cr2
    rip = Registers(kernel.memory, regs_va)["rip"]
    if not error_code & USER:
        kind = describe_error_code(error_code)
        raise KernelPanic(f"page fault in the kernel at rip {kernel.symbolize(rip)}: {kind}, address {address:#x}")
    process = kernel.current
    if not _handle_user_fault(kernel, process, address, error_code, rip):
        _sleep_until_there(kernel, process, address, error_code, rip)
    if process.work:
        kernel.scheduler.return_to_user()


def _handle_user_fault(kernel: Kernel, process: Process, address: int, error_code: int, rip: int) -> bool:
    """Deliver the page or a signal (do_user_addr_fault). False if the page is only on its way."""
    result = kernel.faults.handle(process, address, error_code, rip, may_sleep=True)
    if result is FaultResult.RETRY:
        return False
    if not result.resolved and result is not FaultResult.OUT_OF_MEMORY:
        number, code = _FAULT_SIGNAL[result]
        # What the kernel half maps is nobody's business: every fault there tells of rights (sanitize_error_code).
        told = error_code | PROTECTION if address >= TASK_SIZE else error_code
        process.trap = LastTrap(PAGE_FAULT, told, address)
        force_signal(process, SigInfo(number, code, address))
    return True


def _sleep_until_there(kernel: Kernel, process: Process, address: int, error_code: int, rip: int) -> None:
    """Let others run until the swap device has brought the page, then handle the fault again (folio_lock_or_retry)."""

    def attempt() -> int | None:
        if wait.deadline is not None and kernel.now < wait.deadline:
            return None
        if _handle_user_fault(kernel, process, address, error_code, rip):
            return 0
        wait.deadline = kernel.faults.retry_at
        return None

    wait = Wait((), attempt, deadline=kernel.faults.retry_at, is_killable=True, is_io=True)
    kernel.scheduler.block(process, wait)


@kernel_function(cycles=0)
def exc_double_fault(kernel: Kernel, regs_va: int, _error_code: int) -> None:
    """A double fault: the stack or a table that the processor needed is not mapped."""
    regs = Registers(kernel.memory, regs_va)
    raise KernelPanic(
        f"double fault at rip {kernel.symbolize(regs['rip'])}, rsp {regs['rsp']:#x}, "
        f"cr2 {kernel.machine.control.cr2:#x}"
    )


@kernel_function(cycles=0)
def sysvec_apic_timer_interrupt(kernel: Kernel, _regs_va: int, _error_code: int) -> None:
    """The timer fired."""
    kernel.scheduler.tick()
    if kernel.current.work:
        kernel.scheduler.return_to_user()


def _fixup_bad_iret(kernel: Kernel, regs: Registers) -> int:
    """IRET refused the registers that a process asked for: it is the process's fault, as if it had made it there.

    The frame that IRET read becomes the rest of the saved registers, where they belong (fixup_bad_iret). Returns the
    user's RIP.
    """
    memory, process, gprs = kernel.memory, kernel.current, kernel.machine.cpu.gprs
    caller = memory.load_va(gprs[RSP])
    frame = memory.read_va(regs["rsp"], IRET_FRAME)
    general = memory.read_va(regs.va, PT_REGS_SIZE - IRET_FRAME)
    memory.write_va(process.registers_va, general + frame)
    gprs[RSP] = process.registers_va - 8
    memory.store_va(gprs[RSP], caller)
    return Registers(memory, process.registers_va)["rip"]


def _code_of(kernel: Kernel, vector: int, regs: Registers) -> int:
    """The si_code of an exception that comes in several kinds; 0 for any other."""
    if vector == DEBUG:  # TF, or else INT1: there are no debug registers (get_si_code)
        return TRAP_TRACE if regs["eflags"] & Rflags.TF else TRAP_BRKPT
    if vector not in (X87, SIMD):
        return 0
    control, status, mxcsr = kernel.machine.cpu.fpu.control()
    raised = status & ~control if vector == X87 else mxcsr & ~(mxcsr >> MXCSR_MASKS)
    return next((code for bits, code in FLOATING_POINT_CODES if raised & bits), 0)


def _fatal(name: str, signal: int, vector: int, code: int) -> Body:
    """An exception that is a signal for the process, or a bug of the kernel's if it made it itself."""

    def handler(kernel: Kernel, regs_va: int, error_code: int) -> None:
        regs = Registers(kernel.memory, regs_va)
        rip = regs["rip"]
        if regs["cs"] != Selector.USER_CS:
            if rip != kernel.text.symbols["native_irq_return_iret"]:
                raise KernelPanic(f"{name} in the kernel at rip {kernel.symbolize(rip)}")
            rip = _fixup_bad_iret(kernel, regs)
        address = rip if vector in WITH_ADDRESS else None
        pushed = error_code if vector in WITH_ERROR_CODE else 0
        process = kernel.current
        process.trap = process.trap._replace(number=vector, error_code=pushed)
        told = _code_of(kernel, vector, regs) or code
        force_signal(process, SigInfo(signal, told, address))
        kernel.scheduler.return_to_user()

    return kernel_function(cycles=FAULT_WORK, name=name)(handler)


for _name, _signal in FAULT_SIGNALS.items():
    _fatal(_name, *_signal)
