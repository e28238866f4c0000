"""System calls on what a process wants done with signals, and on waiting for them (kernel/signal.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..process import Process, Registers
from ..sigframe import restore_rt_frame, set_altstack
from ..siginfo import SI_KERNEL, SIGKILL, SIGRTMAX, SIGSEGV, SIGSTOP, SigInfo
from ..signal_delivery import force_signal
from ..signals import ERESTARTNOHAND, SA_FLAGS, SS_AUTODISARM, UNBLOCKABLE, SigAction, bit
from ..wait import Wait
from . import syscall
from .clock import read_timespec

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["pause", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack"]

SIGSET_SIZE: Final = 8
SIGACTION: Final = struct.Struct("<4Q")
"""sa_handler, sa_flags, sa_restorer, sa_mask (struct sigaction of the kernel, not of the C library)."""
STACK_T: Final = struct.Struct("<QIxxxxQ")
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2
MASK32: Final = 0xFFFF_FFFF


def _check_size(size: int) -> None:
    if size != SIGSET_SIZE:
        raise Errno(errno.EINVAL)


def _read_mask(kernel: Kernel, va: int) -> int:
    """A sigset_t, without what cannot be blocked. Raises Errno(EFAULT)."""
    return int.from_bytes(kernel.user.copy_from(va, SIGSET_SIZE), "little") & ~UNBLOCKABLE


def _write_mask(kernel: Kernel, va: int, mask: int, size: int = SIGSET_SIZE) -> None:
    kernel.user.copy_to(va, mask.to_bytes(SIGSET_SIZE, "little")[:size])


# --- what shall happen ------------------------------------------------------------------------------------------------


@syscall(13)
def rt_sigaction(kernel: Kernel, number: int, new_va: int, old_va: int, size: int) -> int:
    """Change what happens with a signal, and tell what happened so far."""
    _check_size(size)
    new = SIGACTION.unpack(kernel.user.copy_from(new_va, SIGACTION.size)) if new_va else None
    number &= MASK32
    if not 1 <= number <= SIGRTMAX or (new and number in (SIGKILL, SIGSTOP)):
        raise Errno(errno.EINVAL)
    process = kernel.current
    old = process.signals.action(number)
    if new is not None:
        handler, flags, restorer, mask = new
        process.signals.actions[number] = SigAction(handler, flags & SA_FLAGS, restorer, mask & ~UNBLOCKABLE)
        if process.signals.would_ignore(number):
            for thread in kernel.threads(process):
                thread.signals.discard(bit(number))
    if old_va:
        kernel.user.copy_to(old_va, SIGACTION.pack(old.handler, old.flags, old.restorer, old.mask))
    return 0


@syscall(15)
def rt_sigreturn(kernel: Kernel) -> int:
    """The handler is done: go on where the program was interrupted, with the registers that the frame has."""
    process = kernel.current
    process.work = True
    process.keeps_registers = restore_rt_frame(kernel, process)
    if not process.keeps_registers:
        force_signal(process, SigInfo(SIGSEGV, SI_KERNEL))
    return 0


@syscall(131)
def sigaltstack(kernel: Kernel, new_va: int, old_va: int) -> int:
    """Change where handlers with SA_ONSTACK run, and tell where they ran so far."""
    process = kernel.current
    altstack = process.signals.altstack
    rsp = Registers(kernel.memory, process.registers_va)["rsp"]
    new = STACK_T.unpack(kernel.user.copy_from(new_va, STACK_T.size)) if new_va else None
    flags = altstack.status(rsp) | altstack.flags & SS_AUTODISARM
    old = STACK_T.pack(altstack.start, flags, altstack.size)
    if new is not None:
        error = set_altstack(altstack, rsp, *new)
        if error:
            raise Errno(error)
    if old_va:
        kernel.user.copy_to(old_va, old)
    return 0


# --- what is blocked --------------------------------------------------------------------------------------------------


def _block(process: Process, mask: int) -> None:
    """Block these signals and no others; what is pending and free now is acted upon."""
    process.signals.blocked = mask & ~UNBLOCKABLE
    process.work = process.work or process.signals.has_work


@syscall(14)
def rt_sigprocmask(kernel: Kernel, how: int, new_va: int, old_va: int, size: int) -> int:
    """Change which signals are blocked, and tell which were."""
    _check_size(size)
    process = kernel.current
    old = process.signals.blocked
    if new_va:
        mask = _read_mask(kernel, new_va)
        masks = {SIG_BLOCK: old | mask, SIG_UNBLOCK: old & ~mask, SIG_SETMASK: mask}
        if how & MASK32 not in masks:
            raise Errno(errno.EINVAL)
        _block(process, masks[how & MASK32])
    if old_va:
        _write_mask(kernel, old_va, old)
    return 0


@syscall(127)
def rt_sigpending(kernel: Kernel, va: int, size: int) -> int:
    """Which signals are pending and blocked."""
    if size > SIGSET_SIZE:
        raise Errno(errno.EINVAL)
    signals = kernel.current.signals
    _write_mask(kernel, va, signals.pending & signals.blocked, size)
    return 0


# --- waiting ----------------------------------------------------------------------------------------------------------


def _until_a_handler() -> Wait:
    return Wait((), lambda: None, on_signal=-ERESTARTNOHAND)


@syscall(34)
def pause(_kernel: Kernel) -> int | Wait:
    """Sleep until a handler has run."""
    return _until_a_handler()


@syscall(130)
def rt_sigsuspend(kernel: Kernel, mask_va: int, size: int) -> int | Wait:
    """Sleep until a handler has run, with other signals blocked meanwhile."""
    _check_size(size)
    mask = _read_mask(kernel, mask_va)
    signals = kernel.current.signals
    signals.saved_mask, signals.blocked = signals.blocked, mask
    return _until_a_handler()


@syscall(128)
def rt_sigtimedwait(kernel: Kernel, mask_va: int, info_va: int, timeout_va: int, size: int) -> int | Wait:
    """Take one of some signals without a handler; wait for it if there is none."""
    _check_size(size)
    wanted = _read_mask(kernel, mask_va)
    timeout = read_timespec(kernel, timeout_va) if timeout_va else None
    signals = kernel.current.signals

    def attempt() -> int | None:
        info = signals.take(wanted)
        if info is None:
            return None
        if info_va:
            kernel.user.copy_to(info_va, info.to_bytes())
        return info.number

    number = attempt()
    if number is not None:
        return number
    if timeout == 0:
        raise Errno(errno.EAGAIN)
    signals.awaited = wanted
    deadline = None if timeout is None else kernel.now + kernel.cycles(timeout)
    return Wait((), attempt, deadline, -errno.EAGAIN, -errno.EINTR)


@syscall(219)
def restart_syscall(kernel: Kernel) -> int | Wait:
    """Go on with a system call that a signal without a handler interrupted, for the time that was left."""
    wait = kernel.current.restart_block
    if wait is None:
        raise Errno(errno.EINTR)
    return wait
