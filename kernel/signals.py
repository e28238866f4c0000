"""Signals: what was sent, what is blocked, and what a process wants done (kernel/signal.c, include/linux/signal.h).

A signal is noted when it is sent, and acted upon when the process is about to go back to user mode. Three things can
happen then: nothing, the default (mostly: the end), or a handler in user mode, for which `sigframe.py` builds a frame.

A signal below 32 is a flag: sent twice before it is taken, it is taken once. Real-time signals queue up. What is sent
to a process can be taken by any of its threads; what is sent to a thread only by that one, and that first.

A fault of the program itself cannot be ignored or put off: if it is blocked or ignored, it ends the process.

>>> signals = Signals()
>>> for number in (15, 40, 15, 40):
...     signals.send(SigInfo(number))
>>> [signals.take().number for _ in range(3)], signals.take()
([15, 40, 40], None)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from . import siginfo
from .siginfo import (
    BUS_ADRALN,
    FPE_FLTINV,
    FPE_INTDIV,
    ILL_ILLOPN,
    SI_KERNEL,
    SIGBUS,
    SIGCHLD,
    SIGCONT,
    SIGFPE,
    SIGILL,
    SIGKILL,
    SIGRTMAX,
    SIGRTMIN,
    SIGSEGV,
    SIGSTOP,
    SIGSYS,
    SIGTRAP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
    TRAP_TRACE,
    SigInfo,
)

__all__ = ["FAULT_SIGNALS", "AltStack", "Pending", "SigAction", "SigInfo", "Signals", "bit", "mask_of", "signal_name"]

SIG_DFL, SIG_IGN = 0, 1
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_EXPOSE_TAGBITS, SA_RESTORER = 1, 2, 4, 0x800, 0x0400_0000
SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND = 0x0800_0000, 0x1000_0000, 0x4000_0000, 0x8000_0000
SA_FLAGS: Final = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_EXPOSE_TAGBITS | SA_RESTORER
    | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND
)  # fmt: skip
"""Flags that exist; others are cleared (UAPI_SA_FLAGS)."""
SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 1, 2, 1 << 31

ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 512, 513, 514, 516
"""A system call that a signal ended says with these how it wants to go on (include/linux/errno.h)."""


def bit(number: int) -> int:
    """A signal's place in a mask."""
    return 1 << number - 1


def mask_of(*numbers: int) -> int:
    """A mask of several signals."""
    return sum(map(bit, numbers))


IGNORED: Final = frozenset({SIGCHLD, SIGURG, SIGWINCH, SIGCONT})
STOPS: Final = frozenset({SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU})
STOP_MASK: Final = mask_of(*STOPS)
SYNCHRONOUS: Final = mask_of(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
"""Faults of the program; they are taken before all others (SYNCHRONOUS_MASK)."""
UNBLOCKABLE: Final = mask_of(SIGKILL, SIGSTOP)

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
    for name, number in vars(siginfo).items()
    if name.startswith("SIG") and isinstance(number, int) and "_" not in name and number < SIGRTMIN
}


def signal_name(number: int) -> str:
    """The name of a signal on Linux x86-64.

    >>> signal_name(11), signal_name(34)
    ('SIGSEGV', 'SIGRTMIN+2')
    """
    if SIGRTMIN <= number <= SIGRTMAX:
        return f"SIGRTMIN+{number - SIGRTMIN}"
    return _NAMES.get(number, f"signal {number}")


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
    flags: int = 0

    def contains(self, pointer: int) -> bool:
        """Whether a stack pointer is on it (__on_sig_stack). At its very start nothing fits any more."""
        return self.start < pointer <= self.start + self.size

    def is_used(self, pointer: int) -> bool:
        """Whether a handler runs on it. With SS_AUTODISARM that is never asked (on_sig_stack)."""
        return not self.flags & SS_AUTODISARM and self.contains(pointer)

    def status(self, pointer: int) -> int:
        """SS_DISABLE, SS_ONSTACK, or 0 if it is there to be used (sas_ss_flags)."""
        if not self.size:
            return SS_DISABLE
        return SS_ONSTACK if self.is_used(pointer) else 0


class Pending:
    """Signals that were sent and not taken, in the order of their arrival (struct sigpending)."""

    def __init__(self) -> None:
        self.queue: list[SigInfo] = []

    @property
    def mask(self) -> int:
        """Which signals."""
        mask = 0
        for info in self.queue:
            mask |= bit(info.number)
        return mask

    def add(self, info: SigInfo) -> None:
        """Note one. Only real-time signals are noted twice (legacy_queue)."""
        if info.number >= SIGRTMIN or not self.mask & bit(info.number):
            self.queue.append(info)

    def discard(self, mask: int) -> None:
        """Forget some signals (flush_sigqueue_mask)."""
        self.queue = [info for info in self.queue if not mask & bit(info.number)]

    def take(self, wanted: int) -> SigInfo | None:
        """The next of some signals: faults first, then the lowest number, then the oldest (next_signal)."""
        ready = [info for info in self.queue if wanted & bit(info.number)]
        if not ready:
            return None
        first = min(ready, key=lambda info: (not SYNCHRONOUS & bit(info.number), info.number))
        self.queue.remove(first)
        return first


@dataclass(slots=True)
class Signals:
    """Signals of one thread; a mask has bit n-1 for signal n. Threads of a process share `actions` and `shared`.

    `saved_mask` is the mask that rt_sigsuspend replaced for the time that it waits; `awaited` is what rt_sigtimedwait
    waits for, blocked or not.
    """

    actions: dict[int, SigAction] = field(default_factory=dict)
    blocked: int = 0
    private: Pending = field(default_factory=Pending)
    shared: Pending = field(default_factory=Pending)
    altstack: AltStack = field(default_factory=AltStack)
    saved_mask: int | None = None
    awaited: int = 0

    def action(self, number: int) -> SigAction:
        """What shall happen with a signal."""
        return self.actions.get(number, DEFAULT)

    def would_ignore(self, number: int) -> bool:
        """Whether a signal has no effect, were it not blocked (sig_handler_ignored)."""
        handler = self.action(number).handler
        return handler == SIG_IGN or (handler == SIG_DFL and number in IGNORED)

    def is_ignored(self, number: int) -> bool:
        """Whether nothing would happen, so that it need not even be noted (sig_ignored)."""
        return not self.blocked & bit(number) and self.would_ignore(number)

    def send(self, info: SigInfo, *, to_thread: bool = False) -> None:
        """Note a signal."""
        (self.private if to_thread else self.shared).add(info)

    def force(self, info: SigInfo) -> None:
        """A fault: it is taken now, whatever the process wants (force_sig_info)."""
        number = info.number
        action = self.action(number)
        if self.blocked & bit(number) or action.handler == SIG_IGN:
            self.actions[number] = replace(action, handler=SIG_DFL)
            self.blocked &= ~bit(number)
        self.private.add(info)

    @property
    def pending(self) -> int:
        """All that is pending for this thread, blocked or not."""
        return self.private.mask | self.shared.mask

    @property
    def has_work(self) -> bool:
        """Whether something is pending that is not blocked."""
        return bool((self.private.queue or self.shared.queue) and self.pending & ~self.blocked)

    def take(self, wanted: int | None = None) -> SigInfo | None:
        """The next signal to act upon; with `wanted` one of those, blocked or not (dequeue_signal)."""
        if wanted is None:
            wanted = ~self.blocked
        return self.private.take(wanted) or self.shared.take(wanted)

    def discard(self, mask: int) -> None:
        """Forget what is pending of some signals."""
        self.private.discard(mask)
        self.shared.discard(mask)

    def copy(self, *, share_actions: bool = False, share_pending: bool = False) -> Signals:
        """For a child: handlers and mask, nothing pending. A thread shares what is sent to the process."""
        actions = self.actions if share_actions else dict(self.actions)
        shared = self.shared if share_pending else Pending()
        return Signals(actions, self.blocked, shared=shared, altstack=replace(self.altstack))

    def on_exec(self) -> Signals:
        """For a new program: handlers are gone, what was ignored stays so (flush_signal_handlers)."""
        ignored = {n: SigAction(SIG_IGN) for n, action in self.actions.items() if action.handler == SIG_IGN}
        return Signals(ignored, self.blocked, self.private, self.shared)
