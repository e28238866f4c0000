"""What cr3 must know about Unicorn's inside, and how it makes sure.

Unicorn's public interface cannot tell the exact address of a refused access, resets no pending exception, needs 30 us
to read all registers and can only flush its whole TLB. All of that is plain memory of the emulator: the
`CPUX86State` of QEMU 5 ("env") and the soft-TLB in front of it. The offsets below belong to Unicorn 2.1; `Softcore`
checks every one of them against the public interface before use, and refuses a build that it does not know.

Sources: qemu/target/i386/cpu.h (CPUX86State), qemu/include/exec/cpu-defs.h (CPUTLB), include/uc_priv.h in Unicorn 2.1.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
from unicorn import x86_const as x86

from .exceptions import MachineError
from .state import State

__all__ = ["GPR_NAMES", "Softcore"]

GPR_NAMES: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
"""In the order of instruction encodings, which is also QEMU's."""

UC_CPU: Final = 440
UC_INVALID_ADDRESS: Final = 1416
UC_SIZE: Final = 1 << 14
UC_NESTING: Final = 14840
UC_SKIP_SYNC: Final = 14898
"""`skip_sync_pc_on_exit`: set when RIP is written, cleared when execution starts. While it is set, Unicorn does not
restore RIP and flags before it calls a memory hook, which costs more than the hook itself."""
CPU_ENV: Final = 35408
ENV_RIP: Final = 128
ENV_CC_SRC: Final = 152
ENV_CC_OP: Final = 168
CC_OP_EFLAGS: Final = 1
"""The flags are in `cc_src`, not to be computed from the operands of the last operation."""
ENV_ERROR_CODE: Final = 5384
ENV_IS_INT: Final = 5388
ENV_OLD_EXCEPTION: Final = 5496
SOFT_TLB: Final = -48
"""From env: {mask, table} of MMU index 1, user mode (CPUTLB.f[1])."""
SOFT_VICTIMS: Final = -1416
"""From env: the victim TLB of MMU index 1 (CPUTLB.d[1].vtable)."""
SOFT_USED: Final = SOFT_VICTIMS - 16
"""From env: CPUTLB.d[1].n_used_entries."""
SOFT_ENTRY: Final = 64


def _word(address: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(address)


def _copy(address: int, size: int) -> bytes:
    """A copy of this process's memory, as far as it is there; asked of the system, so a wrong guess is harmless."""
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            memory.seek(address)
            return memory.read(size)
    except FileNotFoundError:  # not Linux: nothing to ask
        return bytes((ctypes.c_char * size).from_address(address))
    except (OSError, ValueError, OverflowError):
        return b""


def _is_readable(address: int, size: int) -> bool:
    """Whether a range of this process's memory is there."""
    return len(_copy(address, size)) == size


class Softcore:
    """Direct views of one Unicorn instance's registers and soft-TLB.

    `gprs` is an array of the 16 general registers and RIP, readable and writable while Unicorn does not run.
    Raises MachineError when this build of Unicorn has another layout.
    """

    def __init__(self, uc: Any) -> None:
        self._handle = uc._uch.value if hasattr(uc._uch, "value") else int(uc._uch)
        self.env = self._find_env(uc)
        self.gprs = (ctypes.c_uint64 * 17).from_address(self.env)
        self._cc_op = self._find_cc_op(uc)
        self.error_code = ctypes.c_int32.from_address(self.env + ENV_ERROR_CODE)
        self.is_software_interrupt = ctypes.c_int32.from_address(self.env + ENV_IS_INT)
        self.invalid_address = _word(self._handle + UC_INVALID_ADDRESS)
        self.old_exception_address = self.env + ENV_OLD_EXCEPTION
        self.is_software_address = self.env + ENV_IS_INT
        self.gs_base_address = self._find_base(uc, x86.UC_X86_REG_GS_BASE)
        self.fs_base_address = self._find_base(uc, x86.UC_X86_REG_FS_BASE)
        self.soft_tlb_address = self.env + SOFT_TLB
        self.soft_used_address = self.env + SOFT_USED
        self.soft_victims_address = self.env + SOFT_VICTIMS
        self.nesting_address = 0
        self.skip_sync_address = self._handle + UC_SKIP_SYNC

    def _find_env(self, uc: Any) -> int:
        """Follow uc -> cpu -> env and compare 16 marked registers with what is found there."""
        numbers = [getattr(x86, f"UC_X86_REG_{name.upper()}") for name in GPR_NAMES]
        for index, number in enumerate(numbers):
            uc.reg_write(number, 0xC3_0000_0000 + index)
        cpu = _word(self._handle + UC_CPU).value
        env = cpu + CPU_ENV
        if not _is_readable(env + SOFT_VICTIMS, ENV_OLD_EXCEPTION - SOFT_VICTIMS + 8):
            raise MachineError(self._unknown("no processor state where it should be"))
        found = list((ctypes.c_uint64 * 16).from_address(env))
        for number in numbers:
            uc.reg_write(number, 0)
        if found != [0xC3_0000_0000 + index for index in range(16)]:
            raise MachineError(self._unknown("other registers than were written"))
        return env

    def _find_base(self, uc: Any, register: int) -> int:
        """Address of a segment base in env: where a marked value appears."""
        marker = 0xC3_5E67_0000
        uc.reg_write(register, marker)
        env = (ctypes.c_uint64 * (ENV_ERROR_CODE // 8)).from_address(self.env)
        places = [index for index, value in enumerate(env) if value == marker]
        uc.reg_write(register, 0)
        if len(places) != 1:
            raise MachineError(self._unknown("a segment base in another place"))
        return self.env + 8 * places[0]

    def share(self, state: State) -> None:
        """Tell native code where Unicorn keeps things."""
        state.uc, state.env, state.nesting = self._handle, self.env, self.nesting_address
        state.gs_base, state.fs_base = self.gs_base_address, self.fs_base_address
        state.is_software = self.is_software_address
        state.old_exception = self.old_exception_address
        state.invalid_address = ctypes.addressof(self.invalid_address)
        state.soft_tlb, state.soft_used = self.soft_tlb_address, self.soft_used_address
        state.soft_victims = self.soft_victims_address

    def _find_cc_op(self, uc: Any) -> ctypes.c_int32:
        """How the flags are kept: writing RFLAGS makes it CC_OP_EFLAGS (1), and puts them into `cc_src`."""
        uc.reg_write(x86.UC_X86_REG_EFLAGS, 0x8D7)
        cc_op = ctypes.c_int32.from_address(self.env + ENV_CC_OP)
        if cc_op.value != CC_OP_EFLAGS or _word(self.env + ENV_CC_SRC).value != 0x8D5:
            raise MachineError(self._unknown("flags in another place"))
        uc.reg_write(x86.UC_X86_REG_EFLAGS, 0x2)
        return cc_op

    @staticmethod
    def _unknown(found: str) -> str:
        return f"this build of Unicorn is not known to cr3 ({found}); cr3 needs unicorn 2.1.x from PyPI"

    def keep_computed_flags(self) -> None:
        """A CODE hook put the flags into `cc_src`; see `_keep_flags` in callbacks.py."""
        self._cc_op.value = CC_OP_EFLAGS

    def check_soft_tlb(self, va: int, host: int) -> None:
        """Check the soft-TLB's layout: after a load from `va`, its entry must lead to the host address `host`."""
        mask, table = _word(self.soft_tlb_address).value, _word(self.soft_tlb_address + 8).value
        entries = mask // SOFT_ENTRY + 1
        if mask % SOFT_ENTRY or entries & (entries - 1) or not _is_readable(table, entries * SOFT_ENTRY):
            raise MachineError(self._unknown("no soft-TLB where it should be"))
        entry = table + (((va >> 12) * SOFT_ENTRY) & mask)
        page = va & ~0xFFF
        if _word(entry).value != page or (_word(entry + 32).value + va) & (2**64 - 1) != host:
            raise MachineError(self._unknown("a soft-TLB entry of another shape"))

    def check_victims(self, va: int) -> None:
        """Check the victim TLB: after another page took the place of `va`, its entry must be here."""
        tags = [_word(self.soft_victims_address + SOFT_ENTRY * n).value for n in range(8)]
        if va & ~0xFFF not in tags:
            raise MachineError(self._unknown("no victim TLB where it should be"))

    def snapshot(self) -> bytes:
        """Unicorn's own structure as it is now."""
        copied = _copy(self._handle, UC_SIZE)
        if len(copied) < UC_SIZE:
            raise MachineError(self._unknown("less than there should be"))
        return copied

    def check_skip_sync(self, before: bytes, written: bytes, started: bytes) -> None:
        """Check `skip_sync_pc_on_exit`: clear before RIP is written, set after that, clear when execution starts."""
        if [snapshot[UC_SKIP_SYNC] for snapshot in (before, written, started)] != [0, 1, 0]:
            raise MachineError(self._unknown("no mark that RIP is known"))

    def find_nesting(self, snapshots: list[bytes]) -> None:
        """Find the number of calls into Unicorn that are under way: 0 in the first snapshot, then 1, at most 2."""
        seen = np.array([np.frombuffer(snapshot, dtype=np.int32) for snapshot in snapshots])
        found = [int(n) for n in np.flatnonzero((seen[0] == 0) & (seen[1] == 1) & (seen.max(axis=0) == 2))]
        if UC_NESTING // 4 in found:
            found = [UC_NESTING // 4]  # anything else that counted alike is chance
        if len(found) != 1:
            raise MachineError(self._unknown("no count of nested calls"))
        self.nesting_address = self._handle + 4 * found[0]
