"""Acting on signals, on the way back to user mode (arch_do_signal_or_restart in arch/x86/kernel/signal.c).

for each pending signal that is not blocked:
    ignored                 nothing
    no handler              the default: end, stop, go on, or nothing
    handler                 a frame on the user's stack; back to user mode at the handler
no handler ran, and a system call was interrupted: make it again
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from .events import SignalEvent
from .process import Process, Registers, State
from .sigframe import setup_rt_frame
from .signals import (
    CLD_STOPPED,
    DEFAULT,
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    IGNORED,
    SA_NOCLDSTOP,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SI_KERNEL,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGSEGV,
    SIGSTOP,
    STOPS,
    UNBLOCKABLE,
    SigAction,
    SigInfo,
    bit,
    signal_name,
)

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["do_signal", "force_signal", "send_signal"]

SYSCALL_SIZE: Final = 2
MASK64: Final = (1 << 64) - 1
RESTARTS: Final = (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK)


# --- sending ------------------------------------------------------------------------------------------------------


def send_signal(kernel: Kernel, process: Process, info: SigInfo) -> None:
    """Note a signal for a process and wake it up (send_signal_locked)."""
    if not process.alive:
        return
    signals, number = process.signals, info.number
    if number in (SIGCONT, SIGKILL):
        for stop in STOPS:
            signals.pending.pop(stop, None)
        if process.state is State.STOPPED:
            process.state = State.READY
            kernel.scheduler.start(process)
    elif number in STOPS:
        signals.pending.pop(SIGCONT, None)
    if signals.is_ignored(number):
        return
    signals.send(info)
    process.work = True
    if signals.has_work:
        kernel.scheduler.wake(process)


def force_signal(process: Process, info: SigInfo) -> None:
    """A fault of the program itself, to be acted upon now."""
    process.signals.force(info)
    process.work = True


# --- delivery -----------------------------------------------------------------------------------------------------


def do_signal(kernel: Kernel, process: Process) -> bool:
    """Act on what is pending. False if the process does not go back to user mode: it has ended or is stopped."""
    signals = process.signals
    while signals.pending and (info := signals.take()) is not None:
        action = signals.action(info.number)
        if action.handler == SIG_IGN and info.number not in (SIGKILL, SIGSTOP):
            continue
        if action.handler != SIG_DFL and info.number not in (SIGKILL, SIGSTOP):
            _handle(kernel, process, action, info)
        elif not _do_default(kernel, process, info):
            return False
    if signals.saved_mask is not None:
        signals.blocked, signals.saved_mask = signals.saved_mask, None
    if process.interrupted:
        _restart(kernel, process, None)
    return True


def _do_default(kernel: Kernel, process: Process, info: SigInfo) -> bool:
    """What happens without a handler. False if the process ended or stopped."""
    if info.number in IGNORED:
        return True
    _tell(kernel, process, info)
    if info.number in STOPS:
        process.state = State.STOPPED
        _notify_parent(kernel, process, info.number)
        return False
    kernel.end(process, signal=info.number)
    return False


def _tell(kernel: Kernel, process: Process, info: SigInfo) -> None:
    if kernel.events.wants("signal"):
        name = signal_name(info.number)
        kernel.events.emit(SignalEvent(kernel.now, process.pid, info.number, name, info.address))


def _notify_parent(kernel: Kernel, process: Process, number: int) -> None:
    parent = process.parent
    if parent is None:
        return
    if not parent.signals.action(SIGCHLD).flags & SA_NOCLDSTOP:
        send_signal(kernel, parent, SigInfo(SIGCHLD, CLD_STOPPED, pid=process.pid, status=number))
    process.stopped_by = number
    parent.child_ended.wake()


def _handle(kernel: Kernel, process: Process, action: SigAction, info: SigInfo) -> None:
    """Go to a handler in user mode (handle_signal). If its frame cannot be written, the process ends by SIGSEGV."""
    _tell(kernel, process, info)
    signals, number = process.signals, info.number
    _restart(kernel, process, action)
    regs = Registers(kernel.memory, process.registers_va)
    if not setup_rt_frame(kernel, process, regs, action, info):
        if number == SIGSEGV:
            signals.actions[SIGSEGV] = DEFAULT
        force_signal(process, SigInfo(SIGSEGV, SI_KERNEL))
        return
    signals.saved_mask = None
    signals.blocked |= action.mask & ~UNBLOCKABLE | (0 if action.flags & SA_NODEFER else bit(number))
    if action.flags & SA_RESETHAND:
        signals.actions[number] = DEFAULT


def _restart(kernel: Kernel, process: Process, action: SigAction | None) -> None:
    """A system call that was interrupted is made again, or answers EINTR, as it wished."""
    if not process.interrupted:
        return
    why, process.interrupted = process.interrupted, 0
    regs = Registers(kernel.memory, process.registers_va)
    again = why == ERESTARTNOINTR or (why == ERESTARTSYS and (action is None or action.flags & SA_RESTART))
    if again or action is None:
        regs["rax"] = regs["orig_rax"]
        regs["rip"] = regs["rip"] - SYSCALL_SIZE
    else:
        regs["rax"] = -errno.EINTR & MASK64
