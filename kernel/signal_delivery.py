"""Sending signals, and acting on them on the way back to user mode (kernel/signal.c, arch/x86/kernel/signal.c).

for each pending signal that is not blocked:
    ignored                 nothing
    no handler              the default: end, stop, go on, or nothing
    handler                 a frame on the user's stack; back to user mode at the handler
no handler ran, and a system call was interrupted: make it again
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .events import SignalEvent
from .itimer import restart_itimer
from .process import Process, Registers, State
from .sigframe import setup_rt_frame
from .siginfo import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SI_KERNEL,
    SIGALRM,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGSEGV,
    SIGSTOP,
    SigInfo,
)
from .signals import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    IGNORED,
    SA_NOCLDSTOP,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    SS_AUTODISARM,
    SS_DISABLE,
    STOP_MASK,
    STOPS,
    UNBLOCKABLE,
    AltStack,
    SigAction,
    bit,
    signal_name,
)

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["do_signal", "force_signal", "send_signal"]

SYSCALL_SIZE: Final = 2
RESTART_SYSCALL: Final = 219
MASK64: Final = (1 << 64) - 1
RESTARTS: Final = (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK)


# --- sending ------------------------------------------------------------------------------------------------------


def send_signal(kernel: Kernel, process: Process, info: SigInfo, *, to_thread: bool = False) -> None:
    """Note a signal for a process, or for one thread of it, and wake up who will take it (send_signal_locked)."""
    threads, number = kernel.threads(process), info.number
    if not threads:
        return
    _prepare(kernel, process, threads, number)
    if process.signals.is_ignored(number) and not process.signals.awaited & bit(number):
        return
    process.signals.send(info, to_thread=to_thread)
    taker = process if to_thread else _taker(process, threads, number)
    taker.work = True
    if bit(number) & (~taker.signals.blocked | taker.signals.awaited):
        kernel.scheduler.wake(taker)


def _taker(process: Process, threads: list[Process], number: int) -> Process:
    """The thread that will take a signal: the first if it can, else any that can (complete_signal)."""
    able = [t for t in threads if bit(number) & (~t.signals.blocked | t.signals.awaited)]
    return process if process in able or not able else able[0]


def _prepare(kernel: Kernel, process: Process, threads: list[Process], number: int) -> None:
    """Stopping and going on cancel each other, even where they are blocked or ignored (prepare_signal)."""
    if number in STOPS or number == SIGCONT:
        cancelled = STOP_MASK if number == SIGCONT else bit(SIGCONT)
        for thread in threads:
            thread.signals.discard(cancelled)
    stopped = [thread for thread in threads if thread.state is State.STOPPED]
    if stopped and number in (SIGCONT, SIGKILL):
        for thread in stopped:
            thread.state = State.READY
            kernel.scheduler.start(thread)
        if number == SIGCONT:
            leader = kernel.leader(process)
            leader.stopped_by, leader.was_continued = 0, True
            _notify_parent(kernel, leader, CLD_CONTINUED, SIGCONT)


def _notify_parent(kernel: Kernel, process: Process, code: int, status: int) -> None:
    """Tell the parent that its child stopped or goes on (do_notify_parent_cldstop)."""
    parent = process.parent
    if parent is None:
        return
    action = parent.signals.action(SIGCHLD)
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        send_signal(kernel, parent, SigInfo(SIGCHLD, code, pid=process.pid, status=status))
    parent.child_ended.wake()


def force_signal(process: Process, info: SigInfo) -> None:
    """A fault of the program itself, to be acted upon now."""
    process.signals.force(info)
    process.work = True


# --- delivery -----------------------------------------------------------------------------------------------------


def do_signal(kernel: Kernel, process: Process) -> bool:
    """Act on what is pending. False if the process does not go back to user mode: it has ended or is stopped."""
    signals = process.signals
    while signals.has_work and (info := signals.take()) is not None:
        if info.number == SIGALRM:
            restart_itimer(kernel, process)
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
    number = info.number
    if number in IGNORED or (number in STOPS and number != SIGSTOP and _is_orphaned(kernel, process)):
        return True
    _tell(kernel, process, info)
    if number in STOPS:
        _stop(kernel, process, number)
    else:
        kernel.end(process, signal=number)
    return False


def _is_orphaned(kernel: Kernel, process: Process) -> bool:
    """Whether nobody of the session outside could let the process group go on again (is_current_pgrp_orphaned)."""
    members = [member for member in kernel.living_processes() if member.group == process.group]
    parents = [member.parent for member in members if member.parent is not None]
    return not any(parent.group != process.group and parent.session == process.session for parent in parents)


def _stop(kernel: Kernel, process: Process, number: int) -> None:
    """Stop a process with all its threads; the last one tells the parent (do_signal_stop)."""
    process.state = State.STOPPED
    leader = kernel.leader(process)
    leader.stopped_by, leader.was_continued = leader.stopped_by or number, False
    running = [thread for thread in kernel.threads(process) if thread.state is not State.STOPPED]
    for thread in running:
        thread.signals.send(SigInfo(SIGSTOP), to_thread=True)
        thread.work = True
        kernel.scheduler.wake(thread)
    if not running:
        _notify_parent(kernel, leader, CLD_STOPPED, leader.stopped_by)


def _tell(kernel: Kernel, process: Process, info: SigInfo) -> None:
    if kernel.events.wants("signal"):
        name = signal_name(info.number)
        kernel.events.emit(SignalEvent(kernel.now, process.pid, info.number, name, info.address))


def _handle(kernel: Kernel, process: Process, action: SigAction, info: SigInfo) -> None:
    """Go to a handler in user mode (handle_signal). If its frame cannot be written, the process ends by SIGSEGV."""
    _tell(kernel, process, info)
    signals, number = process.signals, info.number
    if action.flags & SA_RESETHAND:
        signals.actions[number] = replace(action, handler=SIG_DFL)
    _restart(kernel, process, action)
    if not setup_rt_frame(kernel, process, action, info):
        if number == SIGSEGV:
            signals.actions[SIGSEGV] = replace(action, handler=SIG_DFL)
        force_signal(process, SigInfo(SIGSEGV, SI_KERNEL))
        return
    signals.saved_mask = None
    signals.blocked |= action.mask & ~UNBLOCKABLE | (0 if action.flags & SA_NODEFER else bit(number))
    if signals.altstack.flags & SS_AUTODISARM:
        signals.altstack = AltStack(flags=SS_DISABLE)


def _restart(kernel: Kernel, process: Process, action: SigAction | None) -> None:
    """A system call that was interrupted is made again, or answers EINTR, as it wished."""
    if not process.interrupted:
        return
    why, process.interrupted = process.interrupted, 0
    regs = Registers(kernel.memory, process.registers_va)
    again = why == ERESTARTNOINTR or (why == ERESTARTSYS and (action is None or action.flags & SA_RESTART))
    if again or action is None:
        regs["rax"] = RESTART_SYSCALL if why == ERESTART_RESTARTBLOCK else regs["orig_rax"]
        regs["rip"] = regs["rip"] - SYSCALL_SIZE
    else:
        regs["rax"] = -errno.EINTR & MASK64
