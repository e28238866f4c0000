"""A run as a timeline: which events go to which track of a Perfetto trace.

    process 1: hello.asm     CPU mode            user | kernel | user ...
                             system calls        write ...
                             page faults         0x402000 not-present read user ...
                             kernel functions    do_syscall_64 ...
                             resident pages      (counter)
    swap device              read slot 7 ...     with an arrow from the fault that waits for it
    free frames, TLB misses  (counters)

The model's clock in nanoseconds is the time. A fault begins with the processor's exception and ends when the kernel has
handled it, even if others run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Final

from emu import Event
from emu.events import ExceptionEvent, ModeSwitch
from emu.pte import describe_error_code
from kernel import (
    ContextSwitch,
    ExecEvent,
    ExitEvent,
    ForkEvent,
    FunctionEntry,
    FunctionExit,
    PageFaultEvent,
    Process,
    SignalEvent,
    SwapIo,
    SyscallEvent,
    SyscallExit,
)

from .event_text import describe
from .perfetto import PerfettoFile
from .session import Session

__all__ = ["Timeline"]

PAGE_FAULT: Final = 14
USER: Final = 3
PAGES_PER_LOOK: Final = 16
"""Counting the resident pages of a process takes as long as it has pages; so it is done for one event in a sixteenth of
as many."""


@dataclass(slots=True)
class OpenFault:
    """A page fault that is not yet handled: its beginning, and the flows to what it waits for."""

    begin: int
    flows: list[int] = field(default_factory=list)


class Lane:
    """A track whose slices may be open when the trace ends, or the process."""

    def __init__(self, file: PerfettoFile, name: str, parent: int | None = None) -> None:
        self._file, self._track, self._depth = file, file.track(name, parent), 0

    def begin(self, time: int, name: str, details: dict[str, str] | None = None) -> None:
        """A slice begins."""
        self._file.begin(self._track, time, name, details)
        self._depth += 1

    def end(self, time: int) -> None:
        """The last open slice ends; if there is none, nothing happens."""
        if self._depth:
            self._file.end(self._track, time)
            self._depth -= 1

    def close(self, time: int) -> None:
        """All open slices end."""
        while self._depth:
            self.end(time)

    def whole(self, begin: int, end: int, name: str, details: dict[str, str], flows: list[int]) -> None:
        """A slice whose end is known."""
        self._file.slice(self._track, begin, end, name, details, flows)

    def instant(self, time: int, name: str, details: dict[str, str] | None = None) -> None:
        """Something without a length."""
        self._file.instant(self._track, time, name, details)


class ProcessTracks:
    """The tracks of one process."""

    def __init__(self, file: PerfettoFile, process: Process) -> None:
        self._file, self.process = file, process
        self.track = file.process(process.pid, process.image.path)
        self.mode = Lane(file, "CPU mode", self.track)
        self.calls = Lane(file, "system calls", self.track)
        self.faults = Lane(file, "page faults", self.track)
        self.functions = Lane(file, "kernel functions", self.track)
        self._resident = file.counter("resident pages", "pages", self.track)
        self.fault: OpenFault | None = None
        self._pages, self._looks = -1, 0

    def rename(self, name: str) -> None:
        """It executes another program."""
        self._file.process(self.process.pid, name, self.track)

    def count(self, time: int) -> None:
        """Look how many pages it has, if it is worth it."""
        self._looks -= 1
        if self._looks <= 0 and self.process.alive:
            pages = self.process.mm.resident()
            self._looks = pages // PAGES_PER_LOOK
            if pages != self._pages:
                self._pages = pages
                self._file.count(self._resident, time, pages)

    def close(self, time: int) -> None:
        """The process is over, or the trace."""
        for lane in (self.mode, self.calls, self.functions):
            lane.close(time)
        if self.fault is not None:
            self.faults.whole(self.fault.begin, time, "page fault", {}, self.fault.flows)
            self.fault = None


class Timeline:
    """Listens to a session and writes its timeline. Raises InputError without the package perfetto."""

    is_full = False
    dropped = 0

    def __init__(self, session: Session, output: IO[bytes]) -> None:
        self._kernel, self._machine = session.kernel, session.machine
        self._file = PerfettoFile(output)
        self._tracks: dict[int, ProcessTracks] = {}
        self._device: Lane | None = None
        self._free, self._misses = (
            self._file.counter("free frames", "frames"),
            self._file.counter("TLB misses", "misses"),
        )
        self._last: dict[int, int] = {}
        self._flows = self.count = 0
        self._running = 0
        for name, receive in self._RECEIVERS.items():
            session.kernel.on(name, partial(self._tell, receive))

    def _tell(self, receive: Callable[[Timeline, Any, int], None], event: Event) -> None:
        self.count += 1
        receive(self, event, self._machine.clock.nanoseconds(event.cycle))

    def _of(self, pid: int) -> ProcessTracks:
        if pid not in self._tracks:
            self._tracks[pid] = ProcessTracks(self._file, self._kernel.process(pid))
        return self._tracks[pid]

    def _sample(self, pid: int, time: int) -> None:
        """Write the counters that have changed."""
        self._of(pid).count(time)
        misses = self._machine.state.misses
        for track, value in ((self._free, self._kernel.frames.free_frames), (self._misses, misses[0] + misses[1])):
            if self._last.get(track) != value:
                self._last[track] = value
                self._file.count(track, time, value)

    # --- processes ----------------------------------------------------------------------------------------------------

    def _exec(self, event: ExecEvent, time: int) -> None:
        self._of(event.pid).rename(event.path)
        self._of(event.pid).calls.instant(time, f"exec {event.path}")

    def _fork(self, event: ForkEvent, time: int) -> None:
        self._of(event.pid).calls.instant(time, f"fork: pid {event.child}")

    def _exit(self, event: ExitEvent, time: int) -> None:
        self._of(event.pid).calls.instant(time, f"exit: {describe(event)}")
        self._of(event.pid).close(time)

    def _switch(self, event: ContextSwitch, time: int) -> None:
        if event.previous in self._tracks:
            self._tracks[event.previous].mode.close(time)
        self._mode(event.next, 0, time)
        self._sample(event.next, time)

    def _mode_switch(self, event: ModeSwitch, time: int) -> None:
        if event.pid:
            self._mode(event.pid, event.cpl, time)

    def _mode(self, pid: int, cpl: int, time: int) -> None:
        lane = self._of(pid).mode
        lane.close(time)
        lane.begin(time, "user" if cpl == USER else "kernel")

    # --- calls, faults, functions -------------------------------------------------------------------------------------

    def _syscall(self, event: SyscallEvent, time: int) -> None:
        lane = self._of(event.pid).calls
        lane.close(time)  # one that a signal ended, and that is made again
        lane.begin(time, event.name, {"call": describe(event)})

    def _syscall_exit(self, event: SyscallExit, time: int) -> None:
        self._of(event.pid).calls.end(time)
        self._sample(event.pid, time)

    def _signal(self, event: SignalEvent, time: int) -> None:
        self._of(event.pid).calls.instant(time, describe(event))

    def _exception(self, event: ExceptionEvent, time: int) -> None:
        if not event.pid:
            return
        tracks = self._of(event.pid)
        if event.vector == PAGE_FAULT:
            tracks.fault = OpenFault(time)
        else:
            tracks.faults.instant(time, describe(event))

    def _page_fault(self, event: PageFaultEvent, time: int) -> None:
        tracks = self._of(event.pid)
        fault, tracks.fault = tracks.fault or OpenFault(time), None
        name = event.outcome.lower().replace("_", " ")
        details = {"address": f"{event.address:#x}", "access": describe_error_code(event.error_code)}
        tracks.faults.whole(fault.begin, time, name, {**details, "rip": f"{event.rip:#x}"}, fault.flows)
        self._sample(event.pid, time)

    def _function_entry(self, event: FunctionEntry, time: int) -> None:
        if event.pid:
            self._of(event.pid).functions.begin(time, event.name)

    def _function_exit(self, event: FunctionExit, time: int) -> None:
        if event.pid in self._tracks:
            self._tracks[event.pid].functions.end(time)

    def _swap_io(self, event: SwapIo, _time: int) -> None:
        if self._device is None:
            self._device = Lane(self._file, "swap device")
        begin, end = (self._machine.clock.nanoseconds(cycles) for cycles in (event.starts, event.ends))
        fault = self._tracks[event.pid].fault if event.pid in self._tracks else None
        flows: list[int] = []
        if fault is not None and event.kind == "read":
            self._flows += 1
            flows = [self._flows]
            fault.flows += flows
        self._device.whole(begin, end, event.kind, {"slot": str(event.slot)}, flows)

    def end(self) -> None:
        """The run is over: close what is open."""
        time = self._machine.clock.nanoseconds(self._machine.clock.now)
        for pid, tracks in self._tracks.items():
            tracks.close(time)
            self._sample(pid, time)

    _RECEIVERS: Final[dict[str, Callable[[Timeline, Any, int], None]]] = {
        "exec": _exec,
        "fork": _fork,
        "exit": _exit,
        "context_switch": _switch,
        "mode_switch": _mode_switch,
        "syscall": _syscall,
        "syscall_exit": _syscall_exit,
        "signal": _signal,
        "exception": _exception,
        "page_fault": _page_fault,
        "function_entry": _function_entry,
        "function_exit": _function_exit,
        "swap_io": _swap_io,
    }
