"""Copying to and from user memory: through the user's own addresses, with SMAP lifted (arch/x86/lib/copy_user_64.S).

The same walker and the same rights apply as for the user itself. A page that is promised but not there yet is faulted
in; one that is not promised ends the copy, and the caller answers EFAULT or a shorter count.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from emu.exceptions import ProcessorException
from emu.pte import PAGE_SIZE

from .exceptions import Errno
from .layout import TASK_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emu.machine import Machine

__all__ = ["UserMemory"]


class UserMemory:
    """The current process's memory, as the kernel reaches it. `fault(address, error_code)` handles a page fault."""

    def __init__(self, machine: Machine, fault: Callable[[int, int], bool]) -> None:
        self._machine, self._fault = machine, fault

    def _window(self) -> AbstractContextManager[None]:
        """STAC ... CLAC: only inside may the kernel touch user pages."""

        @contextmanager
        def window() -> Iterator[None]:
            state = self._machine.state
            state.alignment_check = 1
            try:
                yield
            finally:
                state.alignment_check = 0

        return window()

    def _attempt(self, copy: Callable[[], None]) -> bool:
        """Run one page's copy; fault the page in and repeat. False if it cannot be had."""
        while True:
            try:
                with self._window():
                    copy()
                return True
            except ProcessorException as refused:
                if refused.address is None or refused.error_code is None:
                    return False
                self._machine.charge("exceptions", self._machine.costs.page_fault)
                if not self._fault(refused.address, refused.error_code):
                    return False

    def read(self, va: int, size: int) -> bytes:
        """Up to `size` bytes; fewer if a page on the way cannot be read."""
        done = bytearray()
        while len(done) < size and va + len(done) < TASK_SIZE:
            at = va + len(done)
            step = min(size - len(done), PAGE_SIZE - at % PAGE_SIZE)
            if not self._attempt(lambda at=at, step=step: done.extend(self._machine.mmu.read(at, step))):  # type: ignore[misc]
                break
        return bytes(done)

    def write(self, va: int, data: bytes) -> int:
        """Write as much as possible; returns how many bytes."""
        done = 0
        while done < len(data) and va + done < TASK_SIZE:
            at = va + done
            part = data[done : done + PAGE_SIZE - at % PAGE_SIZE]
            if not self._attempt(lambda at=at, part=part: self._machine.mmu.write(at, part)):  # type: ignore[misc]
                break
            done += len(part)
        return done

    def copy_from(self, va: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises Errno(EFAULT)."""
        data = self.read(va, size)
        if len(data) < size:
            raise Errno(errno.EFAULT)
        return data

    def copy_to(self, va: int, data: bytes) -> None:
        """All of `data`. Raises Errno(EFAULT)."""
        if self.write(va, data) < len(data):
            raise Errno(errno.EFAULT)
