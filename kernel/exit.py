"""The end of a process, and what its parent learns of it (kernel/exit.c).

A process that ends gives back all it had at once. What remains is a *zombie*: a number and an exit status, until the
parent asks with wait4(2). Children of a process that ended belong to nobody; theirs is the status that nobody asks for.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .events import ExitEvent
from .exceptions import Errno
from .process import Process, State
from .signal_delivery import send_signal
from .signals import (
    CLD_EXITED,
    CLD_KILLED,
    SA_NOCLDWAIT,
    SIG_IGN,
    SIGCHLD,
    SigInfo,
)
from .wait import Wait

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["WaitFor", "do_exit", "reap", "wait_for_child"]

WORD: Final = 4


def do_exit(kernel: Kernel, process: Process, *, code: int | None = None, signal: int | None = None) -> None:
    """End a process with an exit code or by a signal. It stays as a zombie if somebody may ask for it."""
    kernel.scheduler.account()
    process.exit_code, process.signal = code, signal
    _clear_child_tid(kernel, process)
    if kernel.events.wants("exit"):
        kernel.events.emit(ExitEvent(kernel.now, process.pid, code, signal))
    process.work = True
    kernel.scheduler.forget(process)
    if kernel.holds(process):
        kernel.held = process
        process.state = State.ZOMBIE
        kernel.machine.stop()
        return
    release(kernel, process)
    process.state = State.ZOMBIE
    for child in process.children:
        child.parent = None
        if not child.alive:
            reap(kernel, child)
    process.children.clear()
    _tell_parent(kernel, process)


def _clear_child_tid(kernel: Kernel, process: Process) -> None:
    """Tell other threads through memory that this one is gone (mm_release, CLONE_CHILD_CLEARTID)."""
    if process.clear_child_tid and process.mm.users > 1 and kernel.scheduler.current is process:
        kernel.user.write(process.clear_child_tid, bytes(WORD))
        kernel.futexes.wake(process.mm, process.clear_child_tid, 1)


def release(kernel: Kernel, process: Process) -> None:
    """Give back memory, files and the kernel stack. The address space is left before it goes."""
    if kernel.scheduler.current is process:
        kernel.scheduler.leave()
    process.files.put()
    kernel.release_mm(process.mm)
    kernel.free_stack(process.stack)
    end_vfork(process)


def end_vfork(process: Process) -> None:
    """The parent that lent its memory to a child of vfork goes on."""
    if process.vfork_done is not None:
        queue, process.vfork_done = process.vfork_done, None
        queue.wake()


def _tell_parent(kernel: Kernel, process: Process) -> None:
    """Send SIGCHLD and wake the parent; a process whose parent does not care is gone at once (exit_notify)."""
    parent = process.parent
    if parent is None or not parent.alive or process.tgid != process.pid:
        if parent is not None:
            reap(kernel, process)
        return
    if process.exit_signal:
        kind, status = (CLD_KILLED, process.signal) if process.signal else (CLD_EXITED, process.exit_code)
        send_signal(kernel, parent, SigInfo(process.exit_signal, kind, pid=process.pid, status=status or 0))
    action = parent.signals.action(SIGCHLD)
    if process.exit_signal == SIGCHLD and (action.handler == SIG_IGN or action.flags & SA_NOCLDWAIT):
        reap(kernel, process)
    parent.child_ended.wake()


def reap(kernel: Kernel, process: Process) -> None:
    """A zombie is gone: its number is free, and its parent has its counts (release_task)."""
    process.state = State.DEAD
    parent = process.parent
    if parent is not None and process in parent.children:
        parent.children.remove(process)
        parent.children_minor_faults += process.minor_faults + process.children_minor_faults
        parent.children_major_faults += process.major_faults + process.children_major_faults
    kernel.free_pid(process)


# --- waiting for a child --------------------------------------------------------------------------------------------


class WaitFor:
    """Options of wait4(2) and waitid(2)."""

    NOHANG: Final = 1
    STOPPED: Final = 2
    EXITED: Final = 4
    CONTINUED: Final = 8
    NOWAIT: Final = 0x0100_0000


Found = Callable[[Process, int], int]
"""Given the child and its status as wait4 reports it, writes the answer to the user; returns the result."""


def wait_for_child(kernel: Kernel, parent: Process, pid: int, options: int, found: Found) -> int | Wait:
    """Wait until a child (-1: any) ended, or stopped if that is asked for. Raises Errno(ECHILD)."""

    def attempt() -> int | None:
        mine = [child for child in parent.children if pid in (-1, 0, child.pid) and child.tgid == child.pid]
        if not mine:
            raise Errno(errno.ECHILD)
        for child in mine:
            if not child.alive and options & WaitFor.EXITED:
                result = found(child, child.signal or (child.exit_code or 0) << 8)
                if not options & WaitFor.NOWAIT:
                    reap(kernel, child)
                return result
            if child.stopped_by and options & WaitFor.STOPPED:
                result = found(child, child.stopped_by << 8 | 0x7F)
                if not options & WaitFor.NOWAIT:
                    child.stopped_by = 0
                return result
        return 0 if options & WaitFor.NOHANG else None

    return Wait((parent.child_ended,), attempt)
