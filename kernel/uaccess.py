"""Copying to and from user memory: through the user's own addresses, with SMAP lifted (arch/x86/lib/copy_user_64.S).

The same walker and the same rights apply as for the user itself. A page that is promised but not there yet is faulted
in; one that is not promised ends the copy, and the caller answers EFAULT or a shorter count.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.exceptions import ProcessorException
from emu.pte import PAGE_SIZE

from .exceptions import Errno
from .layout import TASK_SIZE

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["UserMemory"]


class UserMemory:
    """The current process's memory, as the kernel reaches it. `fault(address, error_code)` handles a page fault."""

    def __init__(self, machine: Machine, fault: Callable[[int, int], bool]) -> None:
        self._machine, self._fault = machine, fault

    def _faulted_in(self, refused: ProcessorException) -> bool:
        """Handle the fault of a copy. False if the page cannot be had."""
        if refused.address is None or refused.error_code is None:
            return False
        self._machine.charge("exceptions", self._machine.costs.page_fault)
        return self._fault(refused.address, refused.error_code)

    def _read_page(self, va: int, size: int) -> bytes | None:
        """Read from one page; None if it cannot be had. STAC ... CLAC: only between may the kernel touch user pages."""
        state, mmu = self._machine.state, self._machine.mmu
        while True:
            try:
                state.alignment_check = 1
                return mmu.read(va, size)
            except ProcessorException as exception:
                refused = exception
            finally:
                state.alignment_check = 0
            if not self._faulted_in(refused):
                return None

    def _write_page(self, va: int, data: bytes) -> bool:
        """Write to one page; False if it cannot be had."""
        state, mmu = self._machine.state, self._machine.mmu
        while True:
            try:
                state.alignment_check = 1
                mmu.write(va, data)
                return True
            except ProcessorException as exception:
                refused = exception
            finally:
                state.alignment_check = 0
            if not self._faulted_in(refused):
                return False

    def read(self, va: int, size: int) -> bytes:
        """Up to `size` bytes; fewer if a page on the way cannot be read."""
        done = bytearray()
        while len(done) < size and va + len(done) < TASK_SIZE:
            at = va + len(done)
            data = self._read_page(at, min(size - len(done), PAGE_SIZE - at % PAGE_SIZE))
            if data is None:
                break
            done += data
        return bytes(done)

    def write(self, va: int, data: bytes) -> int:
        """Write as much as possible; returns how many bytes."""
        done = 0
        while done < len(data) and va + done < TASK_SIZE:
            at = va + done
            part = data[done : done + PAGE_SIZE - at % PAGE_SIZE]
            if not self._write_page(at, part):
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
