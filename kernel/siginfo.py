"""What a process is told about a signal (siginfo_t: include/uapi/asm-generic/siginfo.h).

    0   si_signo, si_errno, si_code (4 bytes each), then 4 bytes of nothing
    16  by kind of signal:
        a fault             si_addr
        kill, tkill         si_pid, si_uid
        sigqueue            si_pid, si_uid, si_value at 24
        SIGCHLD             si_pid, si_uid, si_status, si_utime at 32, si_stime at 40
    48  zeros, up to 128 bytes

si_code tells the kind: positive for what the kernel found out, 0 or negative for what a process sent.

>>> SigInfo(SIGSEGV, SEGV_MAPERR, 0xdead0000).to_bytes()[:24].hex(" ", 8)
'0b00000000000000 0100000000000000 0000adde00000000'
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["SIGINFO_SIZE", "SigInfo"]

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL = range(1, 10)
SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGCHLD, SIGCONT, SIGSTOP = range(10, 20)
SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS = range(20, 32)
SIGRTMIN, SIGRTMAX = 32, 64

SI_USER, SI_KERNEL, SI_QUEUE, SI_TKILL = 0, 0x80, -1, -6
SEGV_MAPERR, SEGV_ACCERR, BUS_ADRALN, BUS_ADRERR = 1, 2, 1, 2
CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_CONTINUED = 1, 2, 5, 6
ILL_ILLOPN, TRAP_BRKPT, TRAP_TRACE = 2, 1, 2
FPE_INTDIV, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV = 1, 3, 4, 5, 6, 7
"""si_code."""

SIGINFO_SIZE: Final = 128
PAYLOAD_AT, PAYLOAD_END = 12, 48
"""The part that depends on the kind; what follows is zeros (struct kernel_siginfo has 48 bytes)."""
HEAD: Final = struct.Struct("<iii")
FAULT: Final = struct.Struct("<4xQ")
CHILD: Final = struct.Struct("<4xiIi4xQQ")


@dataclass(frozen=True, slots=True)
class SigInfo:
    """What a process is told about a signal.

    `address` is si_addr where the signal has one. `payload` is what a process made up itself (sigqueue): bytes 12 to
    48. So is `errno`. `ticks` is the time that a child used, in 1/100 s.
    """

    number: int
    code: int = SI_KERNEL
    address: int | None = None
    pid: int = 0
    status: int = 0
    ticks: int = 0
    errno: int = 0
    payload: bytes | None = None

    def to_bytes(self) -> bytes:
        """As the program sees it."""
        payload = self.payload
        if payload is None and self.address is not None:
            payload = FAULT.pack(self.address)
        elif payload is None:
            payload = CHILD.pack(self.pid, 0, self.status, self.ticks, 0)
        return (HEAD.pack(self.number, self.errno, self.code) + payload).ljust(SIGINFO_SIZE, b"\0")

    @classmethod
    def from_bytes(cls, number: int, data: bytes) -> SigInfo:
        """What a process wants another one to be told; the number is not theirs to choose."""
        _, error, code = HEAD.unpack_from(data)
        return cls(number, code, errno=error, payload=data[PAYLOAD_AT:PAYLOAD_END])
