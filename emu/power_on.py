"""Power-on: a fresh Unicorn becomes a processor in ring 3, and its inside is checked to be what `softcore.py` says."""

from __future__ import annotations

from typing import Any, Final

from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86

from .pte import PAGE_SIZE
from .ram import Ram
from .softcore import Softcore

__all__ = ["check_soft_tlb", "enter_ring3"]

MASK64: Final = (1 << 64) - 1
USER_SELECTORS: Final = 0x23 << 48
"""STAR for the one real SYSRET at power-on: CS 0x33 and SS 0x2b, as Linux has them."""


def enter_ring3(uc: Any) -> None:
    """Execute one real SYSRET with paging off; from then on Unicorn runs in ring 3."""
    uc.ctl_exits_enabled(True)
    uc.ctl_set_exits([])
    uc.mem_write(PAGE_SIZE, b"\x48\x0f\x07")
    uc.msr_write(0xC000_0081, USER_SELECTORS)
    uc.msr_write(0xC000_0080, uc.msr_read(0xC000_0080) | 1)
    uc.reg_write(x86.UC_X86_REG_RCX, PAGE_SIZE)
    uc.reg_write(x86.UC_X86_REG_R11, 0x202)
    uc.emu_start(PAGE_SIZE, 0, count=1)
    uc.mem_write(PAGE_SIZE, bytes(3))
    uc.ctl_set_tlb_mode(uc_const.UC_TLB_VIRTUAL)
    uc.reg_write(x86.UC_X86_REG_MXCSR, 0x1F80)
    uc.reg_write(x86.UC_X86_REG_FPCW, 0x37F)
    uc.reg_write(x86.UC_X86_REG_FPTAG, 0xFFFF)
    uc.reg_write(x86.UC_X86_REG_CR0, uc.reg_read(x86.UC_X86_REG_CR0) | 0x22)


def check_soft_tlb(uc: Any, core: Softcore, ram: Ram) -> None:
    """Load from two pages that share a place in the soft-TLB, and look where their entries are.

    What Unicorn knows of itself meanwhile says where it keeps that.
    """
    snapshots = [core.snapshot()]

    def identity(_uc: Any, va: int, access: int, result: Any, _data: Any) -> bool:
        snapshots.append(core.snapshot())
        result.paddr = va % (8 * PAGE_SIZE)
        result.perms = uc_const.UC_PROT_EXEC if access == uc_const.UC_MEM_FETCH else uc_const.UC_PROT_READ
        return True

    hooks = [
        uc.hook_add(uc_const.UC_HOOK_TLB_FILL, identity),
        uc.hook_add(uc_const.UC_HOOK_INSN_INVALID, lambda uc, _: uc.emu_stop() or True),
    ]
    uc.reg_write(x86.UC_X86_REG_RIP, 0)
    rip_written = core.snapshot()
    ram.write(0, b"\x8a\x03\x0f\x0b")  # mov al, [rbx]; ud2
    first, second = 0x4000_2000, 0x4000_2000 + (256 << 12)
    uc.ctl_set_exits([first])  # not reached, but looked up in the end
    for va in (first, second):
        core.gprs[3] = va
        uc.emu_start(0, MASK64)
        core.check_soft_tlb(va, ram.words.ctypes.data + va % (8 * PAGE_SIZE))
    core.check_victims(first)
    core.find_nesting(snapshots)
    core.check_skip_sync(snapshots[0], rip_written, snapshots[1])
    uc.ctl_set_exits([])
    for hook in hooks:
        uc.hook_del(hook)
    uc.ctl_flush_tb()
    ram.write(0, bytes(4))
    for index in range(17):
        core.gprs[index] = 0
