"""What the entry code calls: system calls, exceptions, the timer (arch/x86/entry/common.c, kernel/traps.c).

Each function here is kernel text: `entry.s` calls it by name, with the address of the saved registers in RDI.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import ErrorCode, describe_error_code

from .entry import Body, kernel_function
from .events import SyscallEvent, SyscallExit
from .exceptions import Errno, KernelPanic
from .fault import FaultResult
from .layout import Selector
from .process import Registers
from .signals import FAULT_SIGNALS, SIGKILL, SIGSEGV
from .syscalls import syscall_at
from .wait import Wait

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["do_syscall_64", "exc_page_fault"]

MASK64: Final = (1 << 64) - 1
USER: Final = int(ErrorCode.U)
SYSCALL_WORK: Final = 20
"""Cycles of do_syscall_64 itself. Assumption: some 60 instructions between the entry code and the call's own body."""
FAULT_WORK: Final = 120
"""Cycles of the page-fault path without its memory accesses. Assumption: half of the 250 that Torvalds counted for the
whole software part of a Haswell zero-page fault (2014); the other half is in the accesses that are modelled."""


@kernel_function(cycles=SYSCALL_WORK)
def do_syscall_64(kernel: Kernel, regs_va: int, number: int) -> int:
    """Dispatch a system call. Returns 1 if SYSRET may be used to go back."""
    process = kernel.current
    regs = Registers(kernel.memory, regs_va)
    call = syscall_at(number)
    name = call.name if call else f"syscall_{number}"
    kernel.count_syscall(process, name)
    arguments = regs.arguments()
    if kernel.events.wants("syscall"):
        used = arguments[: call.arity] if call else arguments
        kernel.events.emit(SyscallEvent(kernel.now, process.pid, number, name, used))
    try:
        result = _completed(call.body(kernel, *arguments[: call.arity])) if call else -errno.ENOSYS
    except Errno as error:
        result = -error.number
    if not process.alive:
        return 1
    regs["rax"] = result & MASK64
    if kernel.events.wants("syscall_exit"):
        kernel.events.emit(SyscallExit(kernel.now, process.pid, number, name, result))
    return 1


def _completed(result: int | Wait) -> int:
    """The result of a call that need not wait. Raises Errno(EAGAIN) for one that must: nobody else would wake it."""
    if isinstance(result, Wait):
        attempted = result.attempt()
        if attempted is None:
            raise Errno(errno.EAGAIN)
        return attempted
    return result


@kernel_function(cycles=FAULT_WORK)
def exc_page_fault(kernel: Kernel, regs_va: int, error_code: int) -> None:
    """A page fault: deliver the page, or a signal; in the kernel itself it is a bug."""
    address = kernel.machine.control.cr2
    regs = Registers(kernel.memory, regs_va)
    rip = regs["rip"]
    if not error_code & USER:
        kind = describe_error_code(error_code)
        raise KernelPanic(f"page fault in the kernel at rip {kernel.symbolize(rip)}: {kind}, address {address:#x}")
    result = kernel.handle_page_fault(address, error_code, rip)
    if result is FaultResult.OUT_OF_MEMORY:
        kernel.kill(kernel.current, SIGKILL)
    elif not result.resolved:
        kernel.kill(kernel.current, SIGSEGV, address)


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
    kernel.tick()


def _fatal(name: str, signal: int) -> Body:
    """An exception that ends the process with a signal, or the kernel if it made it itself."""

    def handler(kernel: Kernel, regs_va: int, _error_code: int) -> None:
        regs = Registers(kernel.memory, regs_va)
        if regs["cs"] != Selector.USER_CS:
            raise KernelPanic(f"{name} in the kernel at rip {kernel.symbolize(regs['rip'])}")
        kernel.kill(kernel.current, signal)

    return kernel_function(cycles=FAULT_WORK, name=name)(handler)


for _name, _signal in FAULT_SIGNALS.items():
    _fatal(_name, _signal)
