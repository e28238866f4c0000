"""A text that is only the kernel's to read, for attacks to find (`cr3 meltdown`).

It lies in a frame of the kernel's own, which user mode sees nowhere, and the kernel at its place in the direct map.
Where that is can be read in /proc/cr3/secret_address: an attacker who has to guess it only needs longer. The kernel
uses the text when it is asked for its length, and has its lines in the L1 data cache then; kernels do such things with
their secrets all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emu import InputError
from emu.pte import PAGE_SHIFT, PAGE_SIZE

from .files.generated import proc_file
from .frames import FrameAllocator
from .layout import direct_map
from .memory import KernelMemory

if TYPE_CHECKING:
    from .kernel import Kernel
    from .process import Process

__all__ = ["Secret"]

OFFSET: Final = 0xA40
"""Into the frame, as the text would have it among other variables."""

LINE: Final = 64
LONGEST: Final = PAGE_SIZE - OFFSET - 1


class Secret:
    """One null-terminated text at a kernel `address`. Raises InputError if it is too long, or has a null."""

    def __init__(self, memory: KernelMemory, frames: FrameAllocator, text: bytes) -> None:
        if not text or len(text) > LONGEST or b"\0" in text:
            raise InputError(f"a secret has 1 to {LONGEST} bytes, and none of them is 0")
        self._memory = memory
        self._pa = (frames.allocate() << PAGE_SHIFT) + OFFSET
        self.address = direct_map(self._pa)
        memory.write(self._pa, text + b"\0")

    def length(self) -> int:
        """strlen(): look at every byte, a cache line at a time, up to the null."""
        length = 0
        while True:
            line = self._memory.read(self._pa + length, LINE)
            if 0 in line:
                return length + line.index(0)
            length += LINE


@proc_file("/proc/cr3/secret_address")
def secret_address(kernel: Kernel, _process: Process | None) -> bytes:
    """Where the secret is; like any address that is not to be known it reads as 0 if there is none (kptr_restrict)."""
    return b"%016x\n" % (kernel.secret.address if kernel.secret else 0)


@proc_file("/proc/cr3/secret_length")
def secret_length(kernel: Kernel, _process: Process | None) -> bytes:
    """How long it is, which the kernel has to find out."""
    return b"%d\n" % (kernel.secret.length() if kernel.secret else 0)
