"""System calls about processes: making them, ending them, waiting for them (kernel/fork.c, kernel/exit.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..execve import execve, read_strings
from ..exit import CONTINUED_STATUS, STOPPED_STATUS, WaitFor, do_exit, wait_for_child
from ..fork import Clone, copy_process
from ..process import Process
from ..siginfo import CLD_CONTINUED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, SIGCHLD, SIGCONT
from ..usage import children_usage, usage
from ..wait import Wait, WaitQueue
from . import syscall
from .files_arguments import AT_FDCWD, find, path_at

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["clone", "exit_group", "fork", "getpid", "sys_exit", "vfork", "wait4", "waitid"]

P_ALL, P_PID, P_PGID = 0, 1, 2
CLONE_ARGS: Final = struct.Struct("<8Q")
CLONE_ARGS_SIZE: Final = 64
CHILD_INFO: Final = struct.Struct("<iiixxxxiii")
MASK32: Final = 0xFFFF_FFFF


def signed32(value: int) -> int:
    """An int argument: the low half of a register, with sign."""
    value &= MASK32
    return value - (1 << 32) if value >> 31 else value


# --- who am I -------------------------------------------------------------------------------------------------------


@syscall(39)
def getpid(kernel: Kernel) -> int:
    """The process's number."""
    return kernel.current.tgid


@syscall(186)
def gettid(kernel: Kernel) -> int:
    """The thread's number."""
    return kernel.current.pid


@syscall(110)
def getppid(kernel: Kernel) -> int:
    """The parent's number; 0 where that is not a process of this machine."""
    parent = kernel.current.parent
    return parent.tgid if parent is not None else 0


# --- fork -----------------------------------------------------------------------------------------------------------


@syscall(57)
def fork(kernel: Kernel) -> int:
    """A copy of this process."""
    return copy_process(kernel, kernel.current, SIGCHLD, stack=0, tls=0, child_tid=0).pid


@syscall(58)
def vfork(kernel: Kernel) -> int | Wait:
    """A child that borrows the memory; the parent sleeps until it gives it back."""
    return _clone(kernel, Clone.VFORK | Clone.VM | SIGCHLD, 0, 0, 0, 0)


@syscall(56)
def clone(kernel: Kernel, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> int | Wait:
    """A child that shares what the flags say."""
    return _clone(kernel, flags & MASK32, stack, parent_tid, child_tid, tls)


@syscall(435)
def clone3(kernel: Kernel, arguments: int, size: int) -> int | Wait:
    """clone, with its arguments in memory (struct clone_args)."""
    if size < CLONE_ARGS_SIZE:
        raise Errno(errno.EINVAL)
    if size > 4096:
        raise Errno(errno.E2BIG)
    data = kernel.user.copy_from(arguments, size)
    if any(data[88:]):
        raise Errno(errno.E2BIG)
    flags, _pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls = CLONE_ARGS.unpack_from(data)
    if flags & Clone.EXIT_SIGNAL or exit_signal > Clone.EXIT_SIGNAL or bool(stack) != bool(stack_size):
        raise Errno(errno.EINVAL)
    return _clone(kernel, flags | exit_signal, stack + stack_size, parent_tid, child_tid, tls)


def _clone(kernel: Kernel, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> int | Wait:
    parent = kernel.current
    child = copy_process(kernel, parent, flags, stack=stack, tls=tls, child_tid=child_tid)
    if flags & Clone.PARENT_SETTID:
        kernel.user.write(parent_tid, child.pid.to_bytes(4, "little"))
    if child.vfork_done is None:
        return child.pid
    return _until_vfork_is_done(child, child.vfork_done)


def _until_vfork_is_done(child: Process, done: WaitQueue) -> Wait:
    def attempt() -> int | None:
        return child.pid if child.vfork_done is not done else None

    return Wait((done,), attempt, is_killable=True)


# --- the end --------------------------------------------------------------------------------------------------------


@syscall(60)
def sys_exit(kernel: Kernel, code: int) -> int:
    """End the thread; with the last one ends the process."""
    process = kernel.current
    do_exit(kernel, process, code=code & 0xFF)
    return 0


@syscall(231)
def exit_group(kernel: Kernel, code: int) -> int:
    """End the process."""
    kernel.end(kernel.current, code=code & 0xFF)
    return 0


@syscall(61)
def wait4(kernel: Kernel, pid: int, status_va: int, options: int, usage_va: int) -> int | Wait:
    """Wait for a child to end, or to stop."""
    options &= MASK32
    if options & ~(WaitFor.NOHANG | WaitFor.STOPPED | WaitFor.CONTINUED | 0xE000_0000):
        raise Errno(errno.EINVAL)

    def found(child: Process, status: int) -> int:
        counted = usage(kernel, child)
        if status_va:
            kernel.user.copy_to(status_va, status.to_bytes(4, "little"))
        if usage_va:
            kernel.user.copy_to(usage_va, counted)
        return child.pid

    return wait_for_child(kernel, kernel.current, signed32(pid), options | WaitFor.EXITED, found)


@syscall(247)
def waitid(kernel: Kernel, kind: int, number: int, info: int, options: int, usage_va: int) -> int | Wait:
    """Wait, and learn about it as a siginfo_t."""
    options &= MASK32
    kinds = WaitFor.EXITED | WaitFor.STOPPED | WaitFor.CONTINUED
    if options & ~(kinds | WaitFor.NOHANG | WaitFor.NOWAIT | 0xE000_0000) or not options & kinds:
        raise Errno(errno.EINVAL)
    if kind not in (P_ALL, P_PID, P_PGID) or (kind == P_PID and signed32(number) <= 0):
        raise Errno(errno.EINVAL)

    def found(child: Process, status: int) -> int:
        if info:
            kernel.user.copy_to(info, _child_info(child, status))
        if usage_va:
            kernel.user.copy_to(usage_va, usage(kernel, child))
        return child.pid

    which = {P_ALL: -1, P_PID: signed32(number), P_PGID: -signed32(number)}[kind]
    return _waitid(kernel, wait_for_child(kernel, kernel.current, which, options, found), info)


def _waitid(kernel: Kernel, wait: Wait, info: int) -> Wait:
    """Answer 0 where wait4 answers a number; without a child the siginfo_t is all zeros."""

    def attempt() -> int | None:
        pid: int | None = 0
        try:
            pid = wait.attempt()
        finally:
            if pid == 0 and info:
                kernel.user.write(info, bytes(CHILD_INFO.size))
        return None if pid is None else 0

    return Wait(wait.queues, attempt)


def _child_info(child: Process, status: int) -> bytes:
    """si_signo, si_errno, si_code, then si_pid, si_uid, si_status."""
    if status == CONTINUED_STATUS:
        code, value = CLD_CONTINUED, SIGCONT
    elif status & 0xFF == STOPPED_STATUS:
        code, value = CLD_STOPPED, status >> 8
    else:
        code, value = (CLD_KILLED, status & 0x7F) if status & 0x7F else (CLD_EXITED, status >> 8)
    return CHILD_INFO.pack(SIGCHLD, 0, code, child.pid, 0, value)


# --- what was used --------------------------------------------------------------------------------------------------

RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD = 0, -1, 1


@syscall(98)
def getrusage(kernel: Kernel, who: int, va: int) -> int:
    """Time and faults of this process, or of its children that ended (struct rusage)."""
    who = signed32(who)
    if who not in (RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD):
        raise Errno(errno.EINVAL)
    process = kernel.current
    kernel.user.copy_to(va, children_usage(process) if who == RUSAGE_CHILDREN else usage(kernel, process))
    return 0


@syscall(24)
def sched_yield(kernel: Kernel) -> int:
    """Let the next one run."""
    kernel.scheduler.yield_now()
    return 0


@syscall(59)
def sys_execve(kernel: Kernel, path_va: int, argv_va: int, envp_va: int) -> int:
    """Replace the program of this process."""
    dentry = find(kernel, AT_FDCWD, path_va)
    path = path_at(kernel, path_va).decode("utf-8", "surrogateescape")
    argv, envp = read_strings(kernel, argv_va), read_strings(kernel, envp_va)
    execve(kernel, kernel.current, dentry.inode.open(kernel, dentry, 0), path, argv or [""], envp)
    return 0
