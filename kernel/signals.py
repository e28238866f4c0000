"""Signals: what was sent, what is blocked, and what a process wants done (kernel/signal.c, arch/x86/kernel/signal.c).

A signal is noted when it is sent, and acted upon when the process is about to go back to user mode. Three things can
happen then: nothing, the default (mostly: the end), or a handler in user mode, for which `sigframe.py` builds a frame.

A fault of the program itself cannot be ignored or put off: if it is blocked or ignored, it ends the process.

>>> signals = Signals()
>>> signals.send(SigInfo(SIGTERM)); signals.send(SigInfo(SIGTERM)); signals.blocked = 0
>>> signals.take().number, signals.take()
(15, None)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

__all__ = ["FAULT_SIGNALS", "SIGKILL", "SIGSEGV", "SigAction", "SigInfo", "Signals", "signal_name"]

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL = range(1, 10)
SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGCHLD, SIGCONT, SIGSTOP = range(10, 20)
SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS = range(20, 32)
LAST_SIGNAL: Final = 64

SI_USER, SI_KERNEL, SI_TKILL = 0, 0x80, -6
SEGV_MAPERR, SEGV_ACCERR, BUS_ADRALN, BUS_ADRERR = 1, 2, 1, 2
CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_CONTINUED = 1, 2, 5, 6
ILL_ILLOPN, FPE_INTDIV, FPE_FLTINV, TRAP_BRKPT, TRAP_TRACE = 2, 1, 7, 1, 2
"""si_code (include/uapi/asm-generic/siginfo.h)."""

SIG_DFL, SIG_IGN = 0, 1
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_RESTORER = 1, 2, 4, 0x0400_0000
SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND = 0x0800_0000, 0x1000_0000, 0x4000_0000, 0x8000_0000

ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 512, 513, 514, 516
"""A system call that a signal ended says with these how it wants to go on (include/linux/errno.h)."""

IGNORED: Final = frozenset({SIGCHLD, SIGURG, SIGWINCH, SIGCONT})
STOPS: Final = frozenset({SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU})
SYNCHRONOUS: Final = (SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
"""Faults of the program; they are taken before all others (SYNCHRONOUS_MASK)."""
UNBLOCKABLE: Final = 1 << SIGKILL - 1 | 1 << SIGSTOP - 1

FAULT_SIGNALS: Final = {
    "exc_divide_error": (SIGFPE, 0, FPE_INTDIV),
    "exc_debug": (SIGTRAP, 1, TRAP_TRACE),
    "exc_int3": (SIGTRAP, 3, SI_KERNEL),
    "exc_overflow": (SIGSEGV, 4, SI_KERNEL),
    "exc_bounds": (SIGSEGV, 5, SI_KERNEL),
    "exc_invalid_op": (SIGILL, 6, ILL_ILLOPN),
    "exc_invalid_tss": (SIGSEGV, 10, SI_KERNEL),
    "exc_segment_not_present": (SIGBUS, 11, SI_KERNEL),
    "exc_stack_segment": (SIGBUS, 12, SI_KERNEL),
    "exc_general_protection": (SIGSEGV, 13, SI_KERNEL),
    "exc_coprocessor_error": (SIGFPE, 16, FPE_FLTINV),
    "exc_alignment_check": (SIGBUS, 17, BUS_ADRALN),
    "exc_simd_coprocessor_error": (SIGFPE, 19, FPE_FLTINV),
}
"""Handler to signal, vector and si_code (arch/x86/kernel/traps.c)."""
WITH_ADDRESS: Final = frozenset({0, 1, 6, 16, 19})
"""Vectors whose signal tells where the instruction was."""

_NAMES: Final = {
    number: name
    for name, number in globals().items()
    if name.startswith("SIG") and isinstance(number, int) and "_" not in name
}


def signal_name(number: int) -> str:
    """The name of a signal on Linux x86-64.

    >>> signal_name(11)
    'SIGSEGV'
    """
    return _NAMES.get(number, f"signal {number}")


def bit(number: int) -> int:
    """A signal's place in a mask."""
    return 1 << number - 1


@dataclass(frozen=True, slots=True)
class SigInfo:
    """What a process is told about a signal (siginfo_t). `address` is si_addr where the signal has one.

    `vector` and `error_code` are the processor's, for a fault.
    """

    number: int
    code: int = SI_KERNEL
    address: int | None = None
    pid: int = 0
    status: int = 0
    value: int = 0
    vector: int = 0
    error_code: int = 0


@dataclass(frozen=True, slots=True)
class SigAction:
    """What shall happen (struct k_sigaction). `mask` is blocked while the handler runs."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


DEFAULT: Final = SigAction()


@dataclass(slots=True)
class AltStack:
    """Where handlers with SA_ONSTACK run (stack_t)."""

    start: int = 0
    size: int = 0
    flags: int = 2  # SS_DISABLE


@dataclass(slots=True)
class Signals:
    """Signals of one process. Threads share `actions`; a mask has bit n-1 for signal n.

    `saved_mask` is the mask that rt_sigsuspend replaced for the time that it waits.
    """

    actions: dict[int, SigAction] = field(default_factory=dict)
    blocked: int = 0
    pending: dict[int, SigInfo] = field(default_factory=dict)
    altstack: AltStack = field(default_factory=AltStack)
    saved_mask: int | None = None

    def action(self, number: int) -> SigAction:
        """What shall happen with a signal."""
        return self.actions.get(number, DEFAULT)

    def is_ignored(self, number: int) -> bool:
        """Whether nothing would happen, so that it need not even be noted (sig_ignored)."""
        if self.blocked & bit(number):
            return False
        handler = self.action(number).handler
        return handler == SIG_IGN or (handler == SIG_DFL and number in IGNORED)

    def send(self, info: SigInfo) -> None:
        """Note a signal; one that is pending already is not noted twice. (Real-time signals are not queued either.)"""
        self.pending.setdefault(info.number, info)

    def force(self, info: SigInfo) -> None:
        """A fault: it is taken now, whatever the process wants (force_sig_info)."""
        number = info.number
        if self.blocked & bit(number) or self.action(number).handler == SIG_IGN:
            self.actions[number] = DEFAULT
            self.blocked &= ~bit(number)
        self.pending[number] = info

    @property
    def has_work(self) -> bool:
        """Whether something is pending that is not blocked."""
        return any(not self.blocked & bit(number) for number in self.pending)

    def take(self) -> SigInfo | None:
        """The next signal to act upon: faults first, then the lowest number (dequeue_signal)."""
        ready = [number for number in self.pending if not self.blocked & bit(number)]
        if not ready:
            return None
        first = min(ready, key=lambda number: (number not in SYNCHRONOUS, number))
        return self.pending.pop(first)

    def copy(self, *, share_actions: bool = False) -> Signals:
        """For a child: handlers and mask, nothing pending."""
        actions = self.actions if share_actions else dict(self.actions)
        return Signals(actions, self.blocked, altstack=replace(self.altstack))

    def on_exec(self) -> Signals:
        """For a new program: handlers are gone, what was ignored stays so (flush_signal_handlers)."""
        ignored = {n: SigAction(SIG_IGN) for n, action in self.actions.items() if action.handler == SIG_IGN}
        return Signals(ignored, self.blocked, self.pending)
