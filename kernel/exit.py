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
from .itimer import set_itimer
from .process import Process, State
from .siginfo import CLD_EXITED, CLD_KILLED, SIGCHLD, SigInfo
from .signal_delivery import send_signal
from .signals import SA_NOCLDWAIT, SIG_IGN
from .wait import Wait
from .work import kernel_work

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["WaitFor", "do_exit", "reap", "wait_for_child"]

WORD: Final = 4
DO_EXIT: Final = kernel_work("do_exit", __name__, cycles=14_000)
"""Half of what was measured for vfork with the child's exit (see syscalls/__init__.py)."""
STOPPED_STATUS, CONTINUED_STATUS = 0x7F, 0xFFFF


def do_exit(kernel: Kernel, process: Process, *, code: int | None = None, signal: int | None = None) -> None:
    """End a process with an exit code or by a signal. It stays as a zombie if somebody may ask for it."""
    kernel.scheduler.account()
    process.exit_code, process.signal = code, signal
    _clear_child_tid(kernel, process)
    if kernel.events.wants("exit"):
        kernel.events.emit(ExitEvent(kernel.now, process.pid, code, signal))
    process.work = True
    kernel.scheduler.forget(process)
    if not kernel.threads(process):
        set_itimer(kernel, process, 0, 0)
    if kernel.holds(process):
        kernel.held = process
        process.state = State.ZOMBIE
        kernel.machine.stop()
        return
    kernel.memory.enter(DO_EXIT)
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
    """Give back memory, files and the kernel stack."""
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
    action = parent.signals.action(SIGCHLD)
    is_unwanted = process.exit_signal == SIGCHLD and action.handler == SIG_IGN
    if process.exit_signal and not is_unwanted:
        ticks = kernel.ticks(process.cycles)
        kind, status = (CLD_KILLED, process.signal) if process.signal else (CLD_EXITED, process.exit_code)
        send_signal(kernel, parent, SigInfo(process.exit_signal, kind, None, process.pid, status or 0, ticks))
    if is_unwanted or (process.exit_signal == SIGCHLD and action.flags & SA_NOCLDWAIT):
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


def wait_for_child(kernel: Kernel, parent: Process, pid: int, options: int, found: Found) -> Wait:
    """Wait until a child ended, or stopped or goes on if that is asked for. The attempt raises Errno(ECHILD).

    `pid` is a child, -1 for any, 0 for those of the same process group, or less for those of the group -pid.
    """
    group = parent.group if pid == 0 else -pid

    def attempt() -> int | None:
        children = [child for child in parent.children if child.tgid == child.pid]
        mine = [child for child in children if pid in (-1, child.pid) or (pid < 1 and child.group == group)]
        if not mine:
            raise Errno(errno.ECHILD)
        for child in mine:
            status = _status(child, options)
            if status is None:
                continue
            try:
                return found(child, status)
            finally:  # also if the answer could not be written
                if not options & WaitFor.NOWAIT:
                    _asked(kernel, child)
        return 0 if options & WaitFor.NOHANG else None

    return Wait((parent.child_ended,), attempt)


def _status(child: Process, options: int) -> int | None:
    """What happened to a child, as wait4 tells it; None if it is nothing that was asked for."""
    if not child.alive:
        return child.signal or (child.exit_code or 0) << 8 if options & WaitFor.EXITED else None
    if child.stopped_by and child.state is State.STOPPED and options & WaitFor.STOPPED:
        return child.stopped_by << 8 | STOPPED_STATUS
    return CONTINUED_STATUS if child.was_continued and options & WaitFor.CONTINUED else None


def _asked(kernel: Kernel, child: Process) -> None:
    """The parent has been told; it is not told again."""
    if not child.alive:
        reap(kernel, child)
    elif child.state is State.STOPPED:
        child.stopped_by = 0
    else:
        child.was_continued = False
