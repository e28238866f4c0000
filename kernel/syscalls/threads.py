"""System calls that threads and their libraries are made of (kernel/futex, arch/x86/kernel/process_64.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from emu.control import Msr

from ..exceptions import Errno
from ..layout import TASK_SIZE
from ..wait import Wait
from . import syscall
from .clock import read_timespec

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["arch_prctl", "futex", "set_robust_list", "set_tid_address"]

ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS = 0x1001, 0x1002, 0x1003, 0x1004
FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 0, 1, 3, 4, 9, 10
FUTEX_FLAGS: Final = 0x180
"""FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME."""
ALL: Final = 0xFFFF_FFFF
ROBUST_LIST_HEAD: Final = 24


@syscall(158)
def arch_prctl(kernel: Kernel, option: int, address: int) -> int:
    """Set and read the bases of FS and GS: thread-local storage."""
    machine = kernel.machine
    option &= ALL
    # In the kernel GS is the kernel's own; the user's base waits in KERNEL_GS_BASE for SWAPGS.
    register = {ARCH_SET_FS: Msr.FS_BASE, ARCH_GET_FS: Msr.FS_BASE}.get(option, Msr.KERNEL_GS_BASE)
    if option in (ARCH_SET_FS, ARCH_SET_GS):
        if address >= TASK_SIZE:
            raise Errno(errno.EPERM)
        machine.write_msr(register, address)
        return 0
    if option in (ARCH_GET_FS, ARCH_GET_GS):
        kernel.user.copy_to(address, struct.pack("<Q", machine.read_msr(register)))
        return 0
    raise Errno(errno.EINVAL)


@syscall(218)
def set_tid_address(kernel: Kernel, va: int) -> int:
    """Where to write 0, and whom to wake, when this thread ends."""
    kernel.current.clear_child_tid = va
    return kernel.current.pid


@syscall(273)
def set_robust_list(_kernel: Kernel, _head: int, size: int) -> int:
    """Locks to free if the thread dies. They are not looked at: here no thread dies while others live."""
    if size != ROBUST_LIST_HEAD:
        raise Errno(errno.EINVAL)
    return 0


@syscall(202)
def futex(kernel: Kernel, va: int, operation: int, value: int, timeout: int, second: int, mask: int) -> int | Wait:
    """Sleep until a word changes, or wake who sleeps for it."""
    command = operation & ALL & ~FUTEX_FLAGS
    mm = kernel.current.mm
    if va % 4:
        raise Errno(errno.EINVAL)
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        deadline = None
        if timeout:
            length = read_timespec(kernel, timeout)
            absolute = command == FUTEX_WAIT_BITSET
            deadline = kernel.cycles(length) if absolute else kernel.now + kernel.cycles(length)
        bits = mask & ALL if command == FUTEX_WAIT_BITSET else ALL
        return kernel.futexes.wait(va, value, mask=bits, deadline=deadline)
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        bits = mask & ALL if command == FUTEX_WAKE_BITSET else ALL
        if not bits:
            raise Errno(errno.EINVAL)
        return kernel.futexes.wake(mm, va, value & 0x7FFF_FFFF, bits)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        # Woken too early is allowed: who waits looks at the word again.
        return kernel.futexes.wake(mm, va, (value & ALL) + (timeout & ALL))
    del second
    raise Errno(errno.ENOSYS)


@syscall(324)
def membarrier(_kernel: Kernel, command: int, flags: int, _cpu: int) -> int:
    """Order the memory accesses of all threads: with one processor they are."""
    if flags or command & ALL not in (0, 1, 8, 16):
        raise Errno(errno.EINVAL)
    return 0x19 if not command & ALL else 0


@syscall(318)
def getrandom(kernel: Kernel, va: int, size: int, flags: int) -> int:
    """Random bytes; the same in every run with the same seed."""
    if flags & ~7:
        raise Errno(errno.EINVAL)
    written = kernel.user.write(va, kernel.random.randbytes(min(size, 1 << 20)))
    if size and not written:
        raise Errno(errno.EFAULT)
    return written
