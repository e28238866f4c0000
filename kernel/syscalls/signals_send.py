"""System calls that send signals: kill and its family, and the alarm clock (kernel/signal.c, kernel/time/itimer.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..itimer import read_itimer, set_itimer
from ..limits import Resource
from ..process import Process
from ..siginfo import SI_TKILL, SI_USER, SIGINFO_SIZE, SIGRTMAX, SIGRTMIN, SigInfo
from ..signal_delivery import send_signal
from . import syscall
from .processes import signed32

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["alarm", "getitimer", "kill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setitimer", "tgkill", "tkill"]

INT_MIN: Final = -(1 << 31)
ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = 0, 1, 2
ITIMERVAL: Final = struct.Struct("<4q")
"""it_interval and it_value, each seconds and microseconds."""
SECOND: Final = 1_000_000
MASK32: Final = 0xFFFF_FFFF


def _send(kernel: Kernel, process: Process, info: SigInfo, *, to_thread: bool = False) -> None:
    """Send a signal for a process; number 0 only asks whether that could be. Raises Errno: EINVAL, EAGAIN."""
    if not 0 <= info.number <= SIGRTMAX:
        raise Errno(errno.EINVAL)
    if not info.number:
        return
    if info.number >= SIGRTMIN and info.code != SI_USER:
        queued = len(process.signals.private.queue) + len(process.signals.shared.queue)
        if queued >= process.limits.soft(Resource.SIGPENDING):
            raise Errno(errno.EAGAIN)
    send_signal(kernel, process, info, to_thread=to_thread)


def _process(kernel: Kernel, pid: int) -> Process:
    """The process or thread with a number, also if it is a zombie. Raises Errno(ESRCH)."""
    if pid not in kernel.pids:
        raise Errno(errno.ESRCH)
    return kernel.process(pid)


@syscall(62)
def kill(kernel: Kernel, pid: int, number: int) -> int:
    """Send a signal to a process, to a process group (0: one's own, -n: number n), or to all others (-1)."""
    pid, me = signed32(pid), kernel.current
    info = SigInfo(signed32(number), SI_USER, pid=me.tgid)
    if pid > 0:
        _send(kernel, _process(kernel, pid), info)
        return 0
    everybody = [process for process in map(kernel.process, kernel.pids) if process.pid == process.tgid]
    if pid == -1:
        targets = [process for process in everybody if process.tgid != me.tgid]
    else:
        group = me.group if pid == 0 else -pid
        targets = [process for process in everybody if process.group == group]
    if not targets or pid == INT_MIN:
        raise Errno(errno.ESRCH)
    for process in targets:
        _send(kernel, process, info)
    return 0


@syscall(200)
def tkill(kernel: Kernel, tid: int, number: int) -> int:
    """Send a signal to one thread."""
    return _send_to_thread(kernel, None, signed32(tid), signed32(number))


@syscall(234)
def tgkill(kernel: Kernel, tgid: int, tid: int, number: int) -> int:
    """Send a signal to one thread, if it is still that process's."""
    if signed32(tgid) <= 0:
        raise Errno(errno.EINVAL)
    return _send_to_thread(kernel, signed32(tgid), signed32(tid), signed32(number))


def _send_to_thread(kernel: Kernel, tgid: int | None, tid: int, number: int) -> int:
    info = SigInfo(number, SI_TKILL, pid=kernel.current.tgid)
    _send(kernel, _thread(kernel, tgid, tid), info, to_thread=True)
    return 0


def _thread(kernel: Kernel, tgid: int | None, tid: int) -> Process:
    """A thread, of a process if it is given. Raises Errno: EINVAL, ESRCH."""
    if tid <= 0:
        raise Errno(errno.EINVAL)
    thread = _process(kernel, tid)
    if tgid not in (None, thread.tgid):
        raise Errno(errno.ESRCH)
    return thread


# --- with a message ---------------------------------------------------------------------------------------------------


def _read_info(kernel: Kernel, va: int, number: int, pid: int) -> SigInfo:
    """What the sender wants to be told. Nobody else may be told that it came from the kernel, or from kill."""
    info = SigInfo.from_bytes(signed32(number), kernel.user.copy_from(va, SIGINFO_SIZE))
    if (info.code >= 0 or info.code == SI_TKILL) and pid != kernel.current.pid:
        raise Errno(errno.EPERM)
    return info


@syscall(129)
def rt_sigqueueinfo(kernel: Kernel, pid: int, number: int, info_va: int) -> int:
    """Send a signal to a process, with a siginfo of one's own."""
    info = _read_info(kernel, info_va, number, signed32(pid))
    _send(kernel, _process(kernel, signed32(pid)), info)
    return 0


@syscall(297)
def rt_tgsigqueueinfo(kernel: Kernel, tgid: int, tid: int, number: int, info_va: int) -> int:
    """Send a signal to a thread, with a siginfo of one's own."""
    info = SigInfo.from_bytes(signed32(number), kernel.user.copy_from(info_va, SIGINFO_SIZE))
    if signed32(tgid) <= 0 or signed32(tid) <= 0:
        raise Errno(errno.EINVAL)
    info = _read_info(kernel, info_va, number, signed32(tid))
    _send(kernel, _thread(kernel, signed32(tgid), signed32(tid)), info, to_thread=True)
    return 0


# --- the alarm clock --------------------------------------------------------------------------------------------------


def _microseconds(kernel: Kernel, cycles: int) -> int:
    """Rounded down, but not to nothing: what has not rung yet has time left (itimer_get_remtime)."""
    return max(kernel.machine.clock.nanoseconds(cycles) // 1000, 1) if cycles else 0


def _read_itimerval(kernel: Kernel, va: int) -> tuple[int, int]:
    """Interval and value in cycles. Raises Errno: EFAULT, EINVAL."""
    times = ITIMERVAL.unpack(kernel.user.copy_from(va, ITIMERVAL.size))
    pairs = (times[:2], times[2:])
    if any(seconds < 0 or not 0 <= part < SECOND for seconds, part in pairs):
        raise Errno(errno.EINVAL)
    interval, value = (kernel.cycles((seconds * SECOND + part) * 1000) for seconds, part in pairs)
    return interval, value


def _itimerval(kernel: Kernel) -> bytes:
    value, interval = (_microseconds(kernel, cycles) for cycles in read_itimer(kernel, kernel.current))
    return ITIMERVAL.pack(*divmod(interval, SECOND), *divmod(value, SECOND))


def _check_clock(which: int) -> None:
    """Only the clock on the wall rings: time that a process itself used is not told apart finely enough."""
    if which & MASK32 != ITIMER_REAL:
        raise Errno(errno.EINVAL)


@syscall(36)
def getitimer(kernel: Kernel, which: int, va: int) -> int:
    """When the alarm rings, and how often."""
    _check_clock(which)
    kernel.user.copy_to(va, _itimerval(kernel))
    return 0


@syscall(38)
def setitimer(kernel: Kernel, which: int, new_va: int, old_va: int) -> int:
    """Set the alarm, once or again and again."""
    interval, value = _read_itimerval(kernel, new_va) if new_va else (0, 0)
    _check_clock(which)
    old = _itimerval(kernel)
    set_itimer(kernel, kernel.current, value, interval)
    if old_va:
        kernel.user.copy_to(old_va, old)
    return 0


@syscall(37)
def alarm(kernel: Kernel, seconds: int) -> int:
    """Set the alarm in whole seconds; the answer is what was left, but never 0 if there was one."""
    left = _microseconds(kernel, read_itimer(kernel, kernel.current)[0])
    set_itimer(kernel, kernel.current, kernel.cycles((seconds & MASK32) * SECOND * 1000), 0)
    return max((left + SECOND // 2) // SECOND, 1) if left else 0
