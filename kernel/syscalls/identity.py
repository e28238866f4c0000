"""System calls that tell a program where and who it is (kernel/sys.c). Everybody is root, in one session."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from ..huge_memory import THP_DISABLE
from ..process import Process
from . import syscall

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["getuid", "prlimit64", "sysinfo", "uname"]

UTSNAME: Final = (b"Linux", b"cr3", b"6.18.0", b"#1 cr3", b"x86_64", b"(none)")
UTS_LENGTH: Final = 65
PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, PR_THP_DISABLE_EXCEPT_ADVISED = 41, 42, 2
PR_SET_NAME, PR_GET_NAME, PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 15, 16, 4, 3, 1, 38
COMM_LENGTH: Final = 16
AFFINITY: Final = (1).to_bytes(8, "little")
MASK32: Final = 0xFFFF_FFFF


@syscall(102)
def getuid(_kernel: Kernel) -> int:
    """The user: root."""
    return 0


@syscall(104)
def getgid(_kernel: Kernel) -> int:
    """The group: root."""
    return 0


@syscall(107)
def geteuid(_kernel: Kernel) -> int:
    """The effective user: root."""
    return 0


@syscall(108)
def getegid(_kernel: Kernel) -> int:
    """The effective group: root."""
    return 0


@syscall(115)
def getgroups(_kernel: Kernel, size: int, _groups: int) -> int:
    """Further groups: none."""
    if size & 0x8000_0000:
        raise Errno(errno.EINVAL)
    return 0


@syscall(111)
def getpgrp(kernel: Kernel) -> int:
    """The process group."""
    return kernel.current.group


@syscall(121)
def getpgid(kernel: Kernel, pid: int) -> int:
    """The process group of a process."""
    return _process(kernel, pid).group


@syscall(109)
def setpgid(kernel: Kernel, pid: int, group: int) -> int:
    """Put a process into a group."""
    if group & 0x8000_0000:
        raise Errno(errno.EINVAL)
    process = _process(kernel, pid)
    process.group = group & MASK32 or process.tgid
    return 0


@syscall(112)
def setsid(kernel: Kernel) -> int:
    """A session of its own; refused to the leader of a group."""
    process = kernel.current
    if process.group == process.tgid:
        raise Errno(errno.EPERM)
    process.group = process.session = process.tgid
    return process.session


@syscall(124)
def getsid(kernel: Kernel, pid: int) -> int:
    """The session of a process."""
    return _process(kernel, pid).session


def _process(kernel: Kernel, pid: int) -> Process:
    """The process with a number, 0 for the caller. Raises Errno(ESRCH)."""
    pid &= MASK32
    if not pid:
        return kernel.current
    process = kernel.living(pid)
    if process is None:
        raise Errno(errno.ESRCH)
    return process


@syscall(63)
def uname(kernel: Kernel, va: int) -> int:
    """Names of the system (struct new_utsname)."""
    kernel.user.copy_to(va, b"".join(name.ljust(UTS_LENGTH, b"\0") for name in UTSNAME))
    return 0


@syscall(99)
def sysinfo(kernel: Kernel, va: int) -> int:
    """Memory and processes of the system (struct sysinfo)."""
    frames = kernel.frames
    living = len(kernel.living_processes())
    seconds = kernel.nanoseconds() // 1_000_000_000
    data = struct.pack(
        "<q3Q6QHxxxxxxQQI4x",
        *(seconds, 0, 0, 0, frames.total * PAGE_SIZE, frames.free_frames * PAGE_SIZE),
        *(kernel.page_cache.charged * PAGE_SIZE, 0, 0, 0, living, 0, 0, 1),
    )
    kernel.user.copy_to(va, data)
    return 0


@syscall(157)
def prctl(kernel: Kernel, option: int, argument: int, b: int, c: int, d: int) -> int:
    """Odds and ends of a process: its name, whether it wants huge pages, and settings that mean nothing here."""
    if option == PR_GET_NAME:
        kernel.user.copy_to(argument, kernel.current.name.encode().ljust(COMM_LENGTH, b"\0"))
        return 0
    if option == PR_SET_NAME:
        name = kernel.user.copy_from(argument, COMM_LENGTH).split(b"\0")[0]
        kernel.current.own_name = name[: COMM_LENGTH - 1].decode("utf-8", "surrogateescape")
        return 0
    if option == PR_SET_THP_DISABLE:
        return _set_thp_disable(kernel, argument, b, c | d)
    if option == PR_GET_THP_DISABLE:
        if argument | b | c | d:
            raise Errno(errno.EINVAL)
        return kernel.current.mm.thp_disable
    if option == PR_GET_DUMPABLE:
        return 1
    if option in (PR_SET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS):
        return 0
    raise Errno(errno.EINVAL)


def _set_thp_disable(kernel: Kernel, disable: int, flags: int, rest: int) -> int:
    """No transparent huge pages for this process, or only those that it asks for (prctl_set_thp_disable)."""
    if rest or flags & ~PR_THP_DISABLE_EXCEPT_ADVISED or (flags and not disable):
        raise Errno(errno.EINVAL)
    kernel.current.mm.thp_disable = THP_DISABLE | flags if disable else 0
    return 0


@syscall(135)
def personality(_kernel: Kernel, persona: int) -> int:
    """The execution domain: Linux, addresses not randomised."""
    del persona
    return 0x004_0000


@syscall(204)
def sched_getaffinity(kernel: Kernel, pid: int, size: int, va: int) -> int:
    """The processors on which a process may run: the only one."""
    if size < len(AFFINITY) or size % 8:
        raise Errno(errno.EINVAL)
    _process(kernel, pid)
    kernel.user.copy_to(va, AFFINITY)
    return len(AFFINITY)


# --- limits ---------------------------------------------------------------------------------------------------------


@syscall(302)
def prlimit64(kernel: Kernel, pid: int, resource: int, new: int, old: int) -> int:
    """Read and change a limit (struct rlimit64)."""
    process = _process(kernel, pid)
    before = process.limits.get(resource & MASK32)
    if new:
        soft, hard = struct.unpack("<2Q", kernel.user.copy_from(new, 16))
        if hard > before[1]:
            raise Errno(errno.EPERM)  # root without CAP_SYS_RESOURCE
        process.limits.set(resource & MASK32, soft, hard)
    if old:
        kernel.user.copy_to(old, struct.pack("<2Q", *before))
    return 0


@syscall(97)
def getrlimit(kernel: Kernel, resource: int, va: int) -> int:
    """A limit (struct rlimit)."""
    kernel.user.copy_to(va, struct.pack("<2Q", *kernel.current.limits.get(resource & MASK32)))
    return 0


@syscall(160)
def setrlimit(kernel: Kernel, resource: int, va: int) -> int:
    """Change a limit."""
    soft, hard = struct.unpack("<2Q", kernel.user.copy_from(va, 16))
    limits = kernel.current.limits
    if hard > limits.get(resource & MASK32)[1]:
        raise Errno(errno.EPERM)
    limits.set(resource & MASK32, soft, hard)
    return 0
