"""What a run can be searched for: an address that executes, data or a page-table entry that changes, an event.

A *scout* is a guest that is sent along a stretch to look for such things. It hears of them without stopping
(emu/probes.py), so it finds them where every other guest will pass them. Each kind is a frozen dataclass whose method
`arm` tells the scout what to listen to. It travels to the scout's process, so it holds plain values only.

    @dataclass(frozen=True)
    class OnOpen:
        def arm(self, scout, number):
            scout.on("syscall", lambda event: event.name == "open" and scout.found(number, "open"))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from emu import PAGE_SIZE, Event, InputError, Step
from kernel import Process, SignalEvent

from ..event_text import describe

if TYPE_CHECKING:
    from .scout import Scout

__all__ = ["AtAddress", "OnAccess", "OnEntry", "OnEvent", "OnSignal", "Stop", "process_of"]

WIDEST: Final = 8
"""Bytes of the largest access that Unicorn tells as one."""


class Stop(Protocol):
    """Something to stop at."""

    def arm(self, scout: Scout, number: int) -> None:
        """Have the scout listen, and call `scout.found(number, ...)`."""
        ...


def process_of(kernel: Any, pid: int) -> Process | None:
    """The process with a number, if it still has memory."""
    try:
        process: Process = kernel.process(pid)
    except InputError:
        return None
    return process if process.alive else None


@dataclass(frozen=True)
class AtAddress:
    """Before the instruction at an address executes; with `rsp` only where the stack pointer has this value, with
    `pid` only in this process.

    An instruction of user mode that faulted and is tried again is the same one.
    """

    va: int
    rsp: int | None = None
    pid: int | None = None

    def arm(self, scout: Scout, number: int) -> None:
        """Put a probe there."""

        def reached() -> None:
            if self._is_meant(scout):
                scout.found(number, retries=not self.va >> 63)

        scout.at(self.va, reached)

    def _is_meant(self, scout: Scout) -> bool:
        return self.rsp in (None, scout.rsp) and self.pid in (None, scout.machine.pid)


@dataclass(frozen=True)
class OnAccess:
    """Data of a process are written ("write"), read ("read") or either ("access"): `size` bytes at `va`.

    The kernel's own accesses to it, such as in read(2), count as writes where they change something.
    """

    pid: int
    va: int
    size: int = 8
    kind: str = "write"

    def arm(self, scout: Scout, number: int) -> None:
        """Watch the frames that hold the data, wherever the kernel puts them."""
        scout.watch(lambda: self._pieces(scout), lambda *access: self._accessed(scout, number, *access))
        if self.kind != "read":
            scout.compare(
                lambda: self._content(scout), lambda: scout.found(number, "written by the kernel", after=True)
            )

    def _pieces(self, scout: Scout) -> Iterator[tuple[int, int, int]]:
        """(pa, va, size) of the data by frame, with what lies so near before them that one access reaches both."""
        process, at, end = process_of(scout.kernel, self.pid), self.va - WIDEST + 1, self.va + self.size
        while process is not None and at < end:
            size = min(end - at, PAGE_SIZE - at % PAGE_SIZE)
            walk = scout.kernel.page_walk(process, at)
            if walk.pa is not None:
                yield walk.pa, at, size
            at += size

    def _accessed(self, scout: Scout, number: int, is_write: bool, va: int, size: int) -> None:
        is_kind = self.kind == "access" or is_write == (self.kind == "write")
        if is_kind and va < self.va + self.size and va + size > self.va:
            scout.found(number, f"{'write' if is_write else 'read'} {va:#x} {size} bytes", after=True)

    def _content(self, scout: Scout) -> bytes | None:
        """What the data are now, None where nobody knows: to be swapped out or read from a file is no change."""
        process, content = process_of(scout.kernel, self.pid), b""
        while process is not None and len(content) < self.size:
            va = self.va + len(content)
            size = min(self.size - len(content), PAGE_SIZE - va % PAGE_SIZE)
            walk, vma = scout.kernel.page_walk(process, va), process.mm.vmas.find(va)
            if walk.pa is not None:
                content += scout.machine.ram.read(walk.pa, size)
            elif vma is not None and vma.backing is None and not walk.steps[-1].entry:
                content += bytes(size)  # promised memory is zero
            else:
                return None
        return content if process else None


@dataclass(frozen=True)
class OnEntry:
    """The page-table entry of an address of a process changes, be it by the kernel or by the page walker (A, D)."""

    pid: int
    va: int

    def arm(self, scout: Scout, number: int) -> None:
        """Compare it after every kernel function and every page walk."""
        scout.compare(
            lambda: self._entry(scout), lambda: scout.found(number, self._told(scout), after=True), walks=True
        )

    def _entry(self, scout: Scout) -> Step | None:
        process = process_of(scout.kernel, self.pid)
        return scout.kernel.page_walk(process, self.va).steps[-1] if process else None

    def _told(self, scout: Scout) -> str:
        step = self._entry(scout)
        return f"{step.name} entry {step.entry:#x}: {step.decoded}" if step else "gone"


@dataclass(frozen=True)
class OnEvent:
    """An event happens (emu/events.py, kernel/events.py); `pid` None is any process."""

    name: str
    pid: int | None = None

    def arm(self, scout: Scout, number: int) -> None:
        """Listen. Raises InputError for an event that does not exist."""

        def happened(event: Event) -> None:
            if self.pid in (None, event.pid):
                scout.found(number, f"{self.name} {describe(event)}".rstrip())

        scout.on(self.name, happened)


@dataclass(frozen=True)
class OnSignal:
    """A signal is about to be delivered, or to end its process; not one of the `quiet` ones."""

    quiet: frozenset[int] = frozenset()
    pid: int | None = None

    def arm(self, scout: Scout, number: int) -> None:
        """Listen."""

        def happened(event: SignalEvent) -> None:
            if event.signal not in self.quiet and self.pid in (None, event.pid):
                scout.found(number, f"{event.signal} {describe(event)}")

        scout.on("signal", happened)
