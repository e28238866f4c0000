"""The frame of a signal handler on the user's stack (struct rt_sigframe)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .process import Process, Registers
from .signals import SigAction, SigInfo

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["setup_rt_frame"]


def setup_rt_frame(kernel: Kernel, process: Process, regs: Registers, action: SigAction, info: SigInfo) -> bool:
    """Write the frame and point the registers at the handler. False if the stack cannot hold it."""
    return False
