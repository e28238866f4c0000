"""What Unicorn refuses to execute, and the machine executes at once: it happens in every system call (native).

Inside Unicorn the guest is in ring 3 always, where these instructions are #GP or #UD. The hooks for those exceptions
ask here first; what is not one of these, or has something against it, is left to Python (`privileged.py`).
"""

from __future__ import annotations

from typing import Any

from .counting import block_size
from .fetch import ENV_RIP, code_byte
from .native import native, words
from .transfer import iretq, read_cr3, smap_window, swapgs, sysretq, write_cr3

__all__ = ["is_iretq", "is_vmcall", "transfers"]


@native
def _next(s: Any, size: Any) -> Any:
    """Go on after an instruction of `size` bytes."""
    words(s.env)[ENV_RIP] += size
    return True


@native
def _returns(s: Any) -> Any:
    """IRETQ: the block counted its five loads; the model makes them, and counts them then."""
    reads = s.reads
    s.reads -= 5
    if iretq(s):
        return True
    s.reads = reads
    return False


@native
def _moves_cr3(s: Any, rip: Any) -> Any:
    """MOV to and from CR3: [41] 0f 20 or 22, d8 + register. Unicorn refuses them before it reads the last byte."""
    prefix = 1 if code_byte(s, rip) == 0x41 else 0
    size = prefix + 3
    if s.cpl != 0 or s.single_step or (rip & 0xFFF) + size > 4096 or code_byte(s, rip + prefix) != 0x0F:
        return False
    operation, operand = code_byte(s, rip + prefix + 1), code_byte(s, rip + prefix + 2)
    if operand & 0xF8 != 0xD8:
        return False
    register = (operand & 7) + 8 * prefix
    if operation == 0x20:
        return read_cr3(s, register) and _next(s, size)
    return operation == 0x22 and write_cr3(s, register) and _next(s, size)


@native
def transfers(s: Any) -> Any:
    """Execute the instruction at RIP here, if nothing stands against it: SWAPGS, SYSRETQ, IRETQ, CLAC, STAC, MOV CR3.

    Only where it ends its block, so that nothing behind it has been counted.
    """
    rip = words(s.env)[ENV_RIP]
    left = s.block_va + block_size(s) - rip
    if s.block_key == 0 or left < 2 or left > 4:
        return False
    first, second = code_byte(s, rip), code_byte(s, rip + 1)
    if first == 0x48 and second == 0xCF:
        return left == 2 and _returns(s)
    if s.cpl != 0:
        return False
    if first == 0x41 or second & 0xFD == 0x20:
        return _moves_cr3(s, rip)
    if left != 3:
        return False
    third = code_byte(s, rip + 2)
    if first == 0x0F and second == 0x01 and third == 0xF8:
        return swapgs(s) and _next(s, 3)
    if first == 0x48 and second == 0x0F and third == 0x07:
        return s.syscalls_enabled != 0 and sysretq(s)
    if first == 0x0F and second == 0x01 and (third == 0xCA or third == 0xCB):
        return s.has_smap != 0 and smap_window(s, third & 1) and _next(s, 3)
    return False


@native
def is_iretq(s: Any) -> Any:
    """Whether the kernel's instruction at RIP is IRETQ. Unicorn reads half of the frame before it refuses it."""
    rip = words(s.env)[ENV_RIP]
    return s.cpl == 0 and code_byte(s, rip) == 0x48 and code_byte(s, rip + 1) == 0xCF


@native
def is_vmcall(s: Any) -> Any:
    """Whether the instruction at RIP is VMCALL in the kernel, ending its block: by far the most frequent one."""
    rip = words(s.env)[ENV_RIP]
    if s.cpl != 0 or s.block_key == 0 or s.block_va + block_size(s) - rip != 3:
        return False
    return code_byte(s, rip) == 0x0F and code_byte(s, rip + 1) == 0x01 and code_byte(s, rip + 2) == 0xC1
