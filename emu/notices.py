"""What native code tells Python at once: events that somebody listens to, and a few instructions of the model's.

The call comes through C, out of the middle of Unicorn. So nothing may be raised here, and Unicorn's translated code may
not be changed: what a listener raises is kept until the machine has stopped, and what it subscribes to, or writes where
code is, until Unicorn has been left.

Unicorn can be left at once only before an instruction. In the middle of one it would forget that a store was done, and
do it again; there it is left before its next basic block, by a deadline that is over.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .cache_state import CacheLevel, CacheUse
from .events import AccessEvent, CacheFill, Cr3Write, InstructionEvent, ModeSwitch, PageWalk, TlbHit, TlbMiss, WalkStep
from .events import Event as Told
from .exceptions import HookError, InputError
from .guest import Guest
from .pte import IMPLICIT, PAGE_SHIFT
from .state import FETCHED, Event, Stop

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["Notices"]

ACCESS_NAMES: Final = ("read", "write", "fetch")
TLB_NAMES: Final = ("itlb", "dtlb", "stlb")
MASK64: Final = (1 << 64) - 1
NO_LEVEL: Final = 2
"""As in recorder.py, which would compile if it were imported."""
_NATIVE_EVENTS: Final = {
    "tlb_miss": Event.TLB_MISS,
    "page_walk": Event.PAGE_WALK,
    "access": Event.ACCESS,
    "instruction": Event.INSTRUCTION,
    "exception": Event.EXCEPTION,
    "cr3_write": Event.CR3_WRITE,
    "tlb_flush": Event.TLB_FLUSH,
    "cache_fill": Event.CACHE_FILL,
    "tlb_hit": Event.TLB_HIT,
    "mode_switch": Event.MODE_SWITCH,
}
_EVERY_INSTRUCTION: Final = ("instruction", "tlb_hit")
_EVERY_ACCESS: Final = ("access", "tlb_hit")
"""Events for which Unicorn must call us at every instruction, or every access."""


class Notices:
    """Receives what the native code of one machine tells, and turns its events on and off."""

    def __init__(self, machine: Machine, code: dict[str, int]) -> None:
        self._machine, self._state, self._events = machine, machine.state, machine.events
        self._raised: BaseException | None = None
        self._inside: int | None = None  # the kind of event that is being told
        self._late: list[Callable[[], object]] = []
        word = ctypes.c_int64
        self._function = ctypes.CFUNCTYPE(word, word, word, word, word)(self._receive)
        self._record = ctypes.CFUNCTYPE(None, *[word] * 5)(code["record_entry"])
        self.recorded: dict[str, Callable[[], object]] = {}
        machine.state.notify = ctypes.cast(self._function, ctypes.c_void_p).value
        self._address, machine.state.told_va = ctypes.addressof(machine.state), MASK64
        self.guest = Guest(machine, self)
        machine.events.guest, machine.events.changed, machine.events.failed = self.guest, self._changed, self._failed

    def _receive(self, event: int, a: int, b: int, c: int) -> int:
        """Called by native code, inside Unicorn or by the kernel's own accesses."""
        outer, self._inside = self._inside, event
        try:
            self._RECEIVERS[event](self, a & MASK64, b, c)
        except BaseException as error:  # handed on when the machine has stopped
            self._raised = self._raised or error
            self._machine.stop()
        finally:
            self._inside = outer
        return 0

    def _failed(self, happened: Told, error: BaseException) -> None:
        """A listener raised something: stop, and hand it on then. Ctrl-C and the like stay what they are."""
        if self._raised is None:
            state = self.guest.state()
            self._raised = HookError(happened, state, error) if isinstance(error, Exception) else error
        self._machine.stop()

    def leave_if_inside(self) -> None:
        """Have Unicorn left as soon as it can be, if it is running now."""
        if self._inside == Event.INSTRUCTION:
            self._state.told_va = self._machine.cpu.rip
            self._state.stop = Stop.REQUESTED
            self._machine.cpu.uc.emu_stop()
        elif self._inside is not None:
            self._state.deadline = 0

    def settle(self) -> None:
        """Unicorn was left: do what had to wait for that."""
        late, self._late = self._late, []
        for action in late:
            action()

    def raise_what_was_raised(self) -> None:
        """The machine has stopped: raise what a listener raised."""
        if self._raised is not None:
            error, self._raised = self._raised, None
            raise error from error.__cause__

    # --- what hooks change --------------------------------------------------------------------------------------------

    def check_between_instructions(self) -> None:
        """Raises InputError in the middle of an instruction, where registers cannot be changed."""
        if self._inside not in (None, Event.INSTRUCTION):
            raise InputError(
                "registers cannot be changed in the middle of an instruction; "
                "change them at an instruction event, or where the kernel tells something"
            )

    def jump(self, va: int) -> None:
        """Go on at another address."""
        if self._inside is None:
            self._machine.cpu.rip = va
        else:
            self._later(lambda: self._go_to(va))

    def _go_to(self, va: int) -> None:
        self._machine.cpu.rip, self._state.told_va = va, MASK64

    def write(self, pa: int, data: bytes) -> None:
        """Store bytes, within a page. What was translated from there must be translated anew, when that is possible."""
        ram = self._machine.ram
        if self._inside is None:
            ram.write(pa, data)
            return
        ram.bytes[pa : pa + len(data)] = list(data)
        if ram.frame_flags[pa >> PAGE_SHIFT] & FETCHED:
            self._later(lambda: ram.on_code_write(pa >> PAGE_SHIFT))

    def _later(self, action: Callable[[], object]) -> None:
        """Do something when Unicorn has been left."""
        self._late.append(action)
        self.leave_if_inside()

    def _changed(self, name: str, wanted: bool) -> None:
        """Listeners of an event came or went: turn its native side on or off."""
        if name not in _NATIVE_EVENTS:
            return
        if self._inside is not None:
            self._later(lambda: self._changed(name, self._events.wants(name)))
            return
        s, bit = self._state, 1 << _NATIVE_EVENTS[name]
        if name == "access":
            s.access_first, s.access_last = _signed_span(self._events.span(name))
        if bool(s.listeners & bit) != wanted:
            s.listeners ^= bit
            self._see(name)

    def record(self, name: str, wanted: bool) -> None:
        """Have native code record a kind of event, or no longer."""
        bit = 1 << _NATIVE_EVENTS[name]
        self._state.recorded = self._state.recorded | bit if wanted else self._state.recorded & ~bit
        if self._inside is None:
            self._see(name)
        else:
            self._later(lambda: self._see(name))

    def _see(self, name: str) -> None:
        """Have Unicorn call us as often as an event needs, as far as that has changed."""
        s, cpu = self._state, self._machine.cpu
        wanted = s.listeners | s.recorded
        if name in _EVERY_INSTRUCTION:
            cpu.see_every_instruction(any(wanted >> _NATIVE_EVENTS[other] & 1 for other in _EVERY_INSTRUCTION))
        if name in _EVERY_ACCESS and wanted >> _NATIVE_EVENTS[name] & 1:
            cpu.see_every_access()

    @property
    def _when(self) -> tuple[int, int]:
        """Clock and process. What a transient window waits for is no time that passes."""
        transient = self._machine.transient
        now = transient.opened if transient and self._state.in_window else self._machine.clock.now
        return now, self._machine.pid

    def _cpl(self, access: int) -> int:
        """Whose access it is: what the processor does for itself is the supervisor's (SDM Vol. 3A 4.6.1)."""
        return 0 if access & IMPLICIT else self._machine.cpl

    def cr3_written(self, value: int, flush: bool) -> None:
        """Python has executed a write of CR3."""
        pcid = self._state.pcid
        if self._events.wants("cr3_write"):
            self._events.emit(Cr3Write(*self._when, value, pcid, flush))
        if self._state.recorded >> Event.CR3_WRITE & 1:
            self._record(self._address, Event.CR3_WRITE, value, pcid | NO_LEVEL << 16 | flush << 24, 0)

    def accessed(self, kind: int, va: int, size: int, pa: int) -> None:
        """Python has executed a load or store of the guest's."""
        cpl = self._machine.cpl
        if self._events.wants("access"):
            self._events.emit(AccessEvent(*self._when, ACCESS_NAMES[kind], va, pa, size, cpl))
        if self._state.recorded >> Event.ACCESS & 1:
            self._record(self._address, Event.ACCESS, va, size | cpl << 16 | kind << 24, pa)

    def _miss(self, va: int, access: int, tlb: int) -> None:
        name = ACCESS_NAMES[access & 3]
        self._events.emit(TlbMiss(*self._when, TLB_NAMES[tlb], va, name, self._cpl(access)))

    def _hit(self, va: int, access: int, tlb: int) -> None:
        name = ACCESS_NAMES[access & 3]
        self._events.emit(TlbHit(*self._when, TLB_NAMES[tlb], va, name, self._cpl(access)))

    def _mode_switch(self, rip: int, cpl: int, _unused: int) -> None:
        self._events.emit(ModeSwitch(*self._when, rip, cpl))

    def _table_full(self, kind: int, *_unused: int) -> None:
        """A table of a recording is full; or (-1) so many rows were recorded as were wanted."""
        if kind & MASK64 == MASK64:
            self._machine.stop()
        else:
            self.recorded[Event(kind).name.lower()]()

    def _walk(self, va: int, access: int, leaf: int) -> None:
        s = self._state
        steps = tuple(WalkStep(s.walk_addresses[i], s.walk_entries[i]) for i in range(s.walk_depth))
        name = ACCESS_NAMES[access & 3]
        self._events.emit(PageWalk(*self._when, va, name, self._cpl(access), leaf != 0, steps))

    def _access(self, va: int, kind_and_size: int, pa: int) -> None:
        kind, size = ACCESS_NAMES[kind_and_size & 3], kind_and_size >> 8
        self._events.emit(AccessEvent(*self._when, kind, va, pa, size, self._cpl(kind_and_size)))

    def _cache_fill(self, pa: int, place: int, use: int) -> None:
        cache, source = CacheLevel(place & 0xFF).name.lower(), CacheLevel(place >> 8).name.lower()
        self._events.emit(CacheFill(*self._when, cache, pa, source, CacheUse(use).name.lower(), self._machine.cpl))

    def _instruction(self, va: int, *_unused: int) -> None:
        instruction = self._machine.cpu.instruction_at(va)
        size = instruction.size if instruction else 0
        self._events.emit(InstructionEvent(*self._when, va, size, self._machine.cpl))

    def _self_modified(self, va: int, size: int, _unused: int) -> None:
        """A block wrote to itself, if the instruction at `va` writes at all, and begins there again."""
        place = self._machine.cpu.blocks.place(va)
        if place is not None and place.instruction.writes and place.instruction.size == size:
            self._machine.cpu.not_executed(va, inclusive=True)

    def _cpuid(self, *_unused: int) -> None:
        self._machine.identify()

    def _rdtsc(self, *_unused: int) -> None:
        self._machine.read_time_stamp(auxiliary=False)

    def _rdtscp(self, *_unused: int) -> None:
        self._machine.read_time_stamp(auxiliary=True)

    _RECEIVERS: Final[dict[int, Callable[..., None]]] = {
        Event.TLB_MISS: _miss,
        Event.TLB_HIT: _hit,
        Event.MODE_SWITCH: _mode_switch,
        Event.TABLE_FULL: _table_full,
        Event.PAGE_WALK: _walk,
        Event.ACCESS: _access,
        Event.INSTRUCTION: _instruction,
        Event.SELF_MODIFIED: _self_modified,
        Event.CPUID: _cpuid,
        Event.RDTSC: _rdtsc,
        Event.RDTSCP: _rdtscp,
        Event.CACHE_FILL: _cache_fill,
    }


def _signed_span(span: tuple[int, int] | None) -> tuple[int, int]:
    """First and last address of a span as native code compares them; one across both halves is everything."""
    first, last = span or (0, MASK64)
    whole = first >> 63 != last >> 63
    return (1 << 63, MASK64 >> 1) if whole else (first, last)
