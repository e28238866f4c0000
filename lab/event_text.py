"""Events in words: the values of one event as a person reads them, without its clock, process and place.

>>> from emu.events import Cr3Write, TlbMiss
>>> describe(Cr3Write(cycle=7, pid=1, value=0x5001, pcid=1, flush=False))
'0x5001 pcid 1 no flush'
>>> describe(TlbMiss(cycle=7, pid=1, tlb="dtlb", va=0x402000, access="write", cpl=3))
'dtlb write 0x402000'

A kind of event that nobody described yet is shown field by field.
"""

from __future__ import annotations

import errno
from dataclasses import fields
from functools import singledispatch
from typing import Final

from emu.events import (
    AccessEvent,
    CacheFill,
    Cr3Write,
    Event,
    ExceptionEvent,
    InstructionEvent,
    InterruptEvent,
    ModeSwitch,
    PageWalk,
    TlbFlush,
    TlbHit,
    TlbMiss,
    TransientEvent,
)
from emu.pte import describe_error_code
from kernel import (
    ContextSwitch,
    CopyOnWrite,
    ExecEvent,
    ExitEvent,
    ForkEvent,
    HugePageEvent,
    PageFaultEvent,
    SignalEvent,
    SyscallEvent,
    SyscallExit,
)

__all__ = ["describe"]

ADDRESSES: Final = 1 << 12
"""Numbers from here on are more likely addresses than counts, and shown in hexadecimal."""

MAX_ERRNO: Final = 4095
"""Results from -4095 to -1 are errors (include/linux/err.h, IS_ERR_VALUE)."""


@singledispatch
def describe(event: Event) -> str:
    """The values of an event in words."""
    own = [field.name for field in fields(event) if field.name not in ("cycle", "pid")]
    return " ".join(f"{name}={_value(getattr(event, name))}" for name in own)


def _value(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and value >= ADDRESSES else str(value)


@describe.register
def _instruction(_event: InstructionEvent) -> str:
    return ""  # the instruction itself says it


@describe.register
def _access(event: AccessEvent) -> str:
    return f"{event.kind} {event.va:#x} {event.size} bytes, pa {event.pa:#x}"


@describe.register
def _tlb_miss(event: TlbMiss) -> str:
    return f"{event.tlb} {event.access} {event.va:#x}"


@describe.register
def _tlb_hit(event: TlbHit) -> str:
    return f"{event.tlb} {event.access} {event.va:#x}"


@describe.register
def _mode_switch(event: ModeSwitch) -> str:
    return "to user mode" if event.cpl else "to the kernel"


@describe.register
def _page_walk(event: PageWalk) -> str:
    read = " ".join(f"[{step.pa:#x}]={step.entry:#x}" for step in event.steps)
    return f"{event.access} {event.va:#x} {read}{'' if event.ok else ' fault'}"


@describe.register
def _cache_fill(event: CacheFill) -> str:
    return f"{event.cache} pa {event.pa:#x} from {event.source} ({event.use})"


@describe.register
def _cr3_write(event: Cr3Write) -> str:
    return f"{event.value:#x} pcid {event.pcid} {'flush' if event.flush else 'no flush'}"


@describe.register
def _tlb_flush(event: TlbFlush) -> str:
    address = "" if event.va is None else f" {event.va:#x}"
    pcid = "" if event.pcid is None else f" pcid {event.pcid}"
    return f"{event.reason}{address}{pcid}"


@describe.register
def _transient(event: TransientEvent) -> str:
    done = f"{event.instructions} instructions, {event.loads} loads, {event.stores} stores, {event.fills} fills"
    address = "" if event.address is None else f" at {event.address:#x}"
    return f"{event.cause}{address}: {done}, ended by {event.end.replace('_', ' ')}"


@describe.register
def _exception(event: ExceptionEvent) -> str:
    code = "" if event.error_code is None else f" error code {event.error_code:#x}"
    address = "" if event.address is None else f" address {event.address:#x}"
    return f"{event.name}{code}{address}"


@describe.register
def _interrupt(event: InterruptEvent) -> str:
    return f"vector {event.vector:#x}"


@describe.register
def _page_fault(event: PageFaultEvent) -> str:
    outcome = event.outcome.lower().replace("_", " ")
    return f"{event.address:#x} {describe_error_code(event.error_code)}: {outcome}"


@describe.register
def _syscall(event: SyscallEvent) -> str:
    return f"{event.name}({', '.join(map(_argument, event.arguments))})"


def _argument(value: int) -> str:
    """An argument as it was probably meant: -1 for no file, an address in hexadecimal."""
    negative = value - (1 << 64)
    return str(negative) if negative >= -MAX_ERRNO else _value(value)


@describe.register
def _syscall_exit(event: SyscallExit) -> str:
    if -MAX_ERRNO <= event.result < 0:
        return f"{event.name} = {event.result} {errno.errorcode.get(-event.result, '')}".rstrip()
    return f"{event.name} = {_value(event.result)}"


@describe.register
def _signal(event: SignalEvent) -> str:
    return event.name if event.address is None else f"{event.name} address {event.address:#x}"


@describe.register
def _exec(event: ExecEvent) -> str:
    return f"{event.path} entry {event.entry:#x}"


@describe.register
def _exit(event: ExitEvent) -> str:
    return f"code {event.exit_code}" if event.signal is None else f"signal {event.signal}"


@describe.register
def _fork(event: ForkEvent) -> str:
    return f"pid {event.child}" + (" shares memory" if event.shares_memory else "")


@describe.register
def _context_switch(event: ContextSwitch) -> str:
    return f"pid {event.previous} -> {event.next}"


@describe.register
def _huge_page(event: HugePageEvent) -> str:
    return f"{event.kind.replace('_', ' ')} {event.address:#x} pfn {event.pfn:#x} {event.size >> 20} MiB"


@describe.register
def _copy_on_write(event: CopyOnWrite) -> str:
    if event.old == event.new:
        return f"{event.address:#x} pfn {event.old:#x} is nobody else's any more"
    return f"{event.address:#x} pfn {event.old:#x} -> {event.new:#x}"
