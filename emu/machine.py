"""The whole computer: RAM, memory hardware, processor, clock and events, put together.

A machine can be used on its own: write page tables and code into RAM, set CR3 and RIP, run.

>>> machine = Machine(cpu="skylake", ram="1M")
>>> tables = {0x1000: 0x2000, 0x2000: 0x3000, 0x3000: 0x4000}          # PML4 -> PDPT -> PD -> PT
>>> for table, below in tables.items():
...     machine.ram.store64(table, below | 0x7)                         # present, writable, user
>>> machine.ram.store64(0x4000 + 8 * 5, 0x6000 | 0x7)                   # va 0x5000 -> pa 0x6000
>>> machine.ram.write(0x6000, bytes.fromhex("48 ff c0 0f 01 c1"))       # inc rax; vmcall
>>> machine.write_cr3(0x1000)
>>> machine.cpu.rip = 0x5000
>>> machine.monitor = lambda rip: machine.stop()
>>> machine.run()
<Halt.STOPPED: 1>
>>> machine.cpu.registers()["rax"], machine.state.misses[0], sum(machine.state.entry_reads)
(1, 1, 4)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from unicorn import x86_const as x86

from . import cache_instructions, privileged, silent  # noqa: F401 - they register their instructions
from .clock import Clock
from .compiled import addresses
from .control import Control, Msr, is_canonical
from .cpu import Cpu
from .cpuid import cpuid
from .engine import choose_engine
from .events import ExceptionEvent, InterruptEvent, TlbFlush
from .exceptions import InputError, ProcessorException
from .hierarchy import Hierarchy
from .hub import Hub
from .interrupt import VECTOR_NAMES, Interrupts, Vector
from .mmu import Mmu
from .notices import Notices
from .observed import Observed
from .profile import Costs, Profile, load_profile
from .pte import Cr4
from .ram import Ram, parse_size
from .state import Engine, State
from .transient import Transient
from .trap import Trap, TrapKind

__all__ = ["Halt", "Machine"]

MASK32, MASK64, NEVER = (1 << 32) - 1, (1 << 64) - 1, (1 << 63) - 1
SYSCALL_SIZE, VMCALL_SIZE = 2, 3
LEAST_ITERATIONS: Final = 1 << 20
"""Iterations of REP that are allowed however small the instruction limit is."""

MASKED_POLL: Final = 64
"""Cycles after which a timer that is due is looked at again while interrupts are masked."""
MAY_BE_TIME: Final = frozenset((TrapKind.DEADLINE, TrapKind.PRIVILEGED))
TRAPS_BETWEEN_LOOKS: Final = 16
"""The timer is looked at when the instruction deadline is reached, after STI, HLT and their like, and every so many
other traps."""


class Halt(Enum):
    """Why `Machine.run` returned."""

    STOPPED = 1  # somebody called stop()
    BREAKPOINT = 2  # one of the addresses given to stop_before()
    INSTRUCTION_LIMIT = 3  # or so many iterations of REP, of which an instruction may have 2 ** 64


class Machine(Observed):
    """One computer.

    `cpu` names a CPU profile, `ram` is a size such as "64M". `engine` is "trap", "access" or "auto" (the fastest
    that can do what is asked). `tlb` False makes every access walk the page tables. `tlb_policy` is "fifo", "random"
    (with `seed`), "lru" or "plru". `la57` turns on 5-level paging, `caches` the data and instruction caches, and
    `transient` what `window.py` describes, which comes with caches if nobody says otherwise. Raises InputError for
    options that do not fit.
    """

    def __init__(
        self,
        cpu: str | Profile = "skylake",
        ram: str | int = "64M",
        *,
        engine: str = "auto",
        tlb: bool = True,
        tlb_policy: str = "random",
        seed: int = 1,
        la57: bool = False,
        caches: bool = False,
        transient: bool | None = None,
    ) -> None:
        self.profile = cpu if isinstance(cpu, Profile) else load_profile(cpu)
        self.costs: Costs = self.profile.costs
        self.tlb_policy = tlb_policy if tlb else "none"
        chosen = choose_engine(engine, tlb, tlb_policy, caches)
        code = addresses()
        self.seed = seed
        self.state = State(random=(seed * 0x9E3779B97F4A7C15 + 1) & MASK64 or 1, engine=chosen, levels=4)
        self.ram = Ram(parse_size(ram))
        self.mmu = Mmu(self.state, self.ram, self.profile, tlb_policy, tlb, code)
        self.caches = Hierarchy(self.state, self.profile, caches, code)
        self.cpu = Cpu(self.state, self.ram, self.mmu, chosen, code)
        self.cpu.blocks.is_models = privileged.is_models
        self.cpu.blocks.cache_instruction = self.caches.instruction
        self.clock = Clock(self.state, self.costs, self.profile.cpu.frequency_mhz, code)
        self.events = Hub()
        self.control = Control(self.mmu, self._flushed, soft_flush=self.cpu.flush_soft_tlb)
        if la57:
            self._five_levels()
        self._address = ctypes.addressof(self.state)
        word = ctypes.c_int64
        self._switch_mode = ctypes.CFUNCTYPE(None, word, word)(code["switch_mode_entry"])
        self._account = ctypes.CFUNCTYPE(None, word, word)(code["account_entry"])
        self._time_stamp = ctypes.CFUNCTYPE(None, word, word, word)(code["time_stamp_entry"])
        self.interrupts = Interrupts(self.cpu, self.control, code)
        self.monitor: Callable[[int], None] | None = None
        self.max_instructions = NEVER
        self._flushes: dict[str, int] = {}
        self._cr3_writes = [0, 0]
        self._timer: tuple[int, int] | None = None
        self._shadow = NEVER
        self._halt: Halt | None = None
        self.notices = Notices(self, code)
        self.transient = Transient(self, code) if (caches if transient is None else transient) else None

    def _five_levels(self) -> None:
        if not self.profile.features.la57:
            raise InputError(f"CPU {self.profile.name} has no 5-level paging (LA57)")
        self.control.use_five_levels()

    # --- what the kernel and people use -------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """The engine that is in use, "trap" or "access"."""
        return Engine(self.state.engine).name.lower()

    @property
    def cpl(self) -> int:
        """Current privilege level, 0 or 3."""
        return int(self.state.cpl)

    def set_cpl(self, cpl: int) -> None:
        """Change the privilege level. Unicorn must ask again for every page: other rights hold now."""
        self._switch_mode(self._address, cpl)

    def set_alignment_check(self, allowed: bool) -> None:
        """RFLAGS.AC, with which the kernel may touch user pages under SMAP."""
        self.state.alignment_check = allowed
        self.cpu.flush_soft_tlb()

    @property
    def cr3_writes(self) -> dict[str, int]:
        """Writes of CR3, with and without a flush."""
        noflush, flush = self._cr3_writes
        return {"flush": flush + self.state.cr3_flushing, "noflush": noflush + self.state.cr3_keeping}

    @property
    def flushes(self) -> dict[str, int]:
        """TLB invalidations by what made them."""
        made = dict(self._flushes)
        if self.state.cr3_flushing:
            made["mov_cr3"] = made.get("mov_cr3", 0) + self.state.cr3_flushing
        return made

    def charge(self, cause: str, cycles: int) -> None:
        """Let time pass for a named cause."""
        self.clock.charge(cause, cycles)

    def stop(self) -> None:
        """Make `run` return when nothing is half done (`Event.stop`); if it is not running, the next one at once."""
        self._halt = Halt.STOPPED
        self.notices.leave_if_inside()

    def stop_before(self, *addresses: int) -> None:
        """Make `run` return before one of these addresses executes; replaces earlier ones."""
        self.cpu.stop_before(addresses)

    def set_timer(self, cycles: int, vector: int) -> None:
        """Interrupt with `vector` once, `cycles` from now (the local APIC's TSC-deadline mode)."""
        self._timer = (self.clock.now + cycles, vector)
        self._arm()

    def allow_interrupts(self) -> None:
        """STI: set IF. The instruction after it is still protected (SDM Vol. 2B, STI)."""
        if not self.cpu.interrupt_flag:
            self._shadow = self.state.instructions
        self.cpu.interrupt_flag = True

    def wait_for_timer(self) -> bool:
        """Let time pass until the timer is due. False if it is not set."""
        if self._timer is None:
            return False
        self.charge("idle", max(self._timer[0] - self.clock.now, 0))
        return True

    # --- privileged operations, with their price and their events -------------------------------------------------

    def write_cr0(self, value: int) -> None:
        """MOV to CR0."""
        self.control.write_cr0(value)
        self.charge("control_registers", self.costs.mov_to_cr0)

    def write_cr2(self, value: int) -> None:
        """MOV to CR2."""
        self.control.cr2 = value

    def write_cr3(self, value: int) -> None:
        """MOV to CR3: switch the address space."""
        flush = self.control.write_cr3(value)
        self._cr3_writes[flush] += 1
        self.charge("cr3_writes", self.costs.mov_to_cr3_flush if flush else self.costs.mov_to_cr3_noflush)
        self.notices.cr3_written(value, flush)

    def write_cr4(self, value: int) -> None:
        """MOV to CR4."""
        self.control.write_cr4(value)
        self.cpu.uc.reg_write(
            x86.UC_X86_REG_CR4,
            self.cpu.uc.reg_read(x86.UC_X86_REG_CR4) & ~Cr4.TSD | value & Cr4.TSD,
        )
        self.charge("control_registers", self.costs.mov_to_cr4)

    def invlpg(self, va: int) -> None:
        """INVLPG."""
        self.mmu.invalidate_page(va, self.state.pcid, global_too=True)
        self.charge("tlb_invalidations", self.costs.invlpg)
        self._flushed("invlpg", va, self.state.pcid)

    def invpcid(self, kind: int, pcid: int, va: int) -> None:
        """INVPCID type 0 to 3 (SDM Vol. 2A). Raises #GP for what the manual refuses."""
        tagged = bool(self.control.cr4 & Cr4.PCIDE)
        bad_address = kind == 0 and not is_canonical(va, self.control.levels)
        if kind > 3 or pcid >> 12 or bad_address or (kind < 2 and pcid and not tagged):
            raise ProcessorException(Vector.GP, 0)
        if kind == 0:
            self.mmu.invalidate_page(va, pcid, global_too=False)
        elif kind == 1:
            self.mmu.invalidate_pcid(pcid)
        else:
            self.mmu.invalidate_all(global_too=kind == 2)
        self.charge("tlb_invalidations", self.costs.invpcid[kind])
        self._flushed(f"invpcid_{kind}", va if kind == 0 else None, pcid if kind < 2 else None)

    def read_msr(self, number: int) -> int:
        """RDMSR. Raises #GP for a register that does not exist."""
        if number == Msr.TSC:
            return self.clock.now
        if number in _BASE_REGISTERS:
            return self.cpu.read_segment_base(_BASE_REGISTERS[number])
        return self.control.read_msr(number)

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR. Raises #GP for a register that does not exist or a value that it cannot have."""
        if number in _BASE_REGISTERS:
            if not is_canonical(value, self.control.levels):
                raise ProcessorException(Vector.GP, 0)
            self.cpu.write_segment_base(_BASE_REGISTERS[number], value)
        else:
            self.control.write_msr(number, value)

    def _flushed(self, reason: str, va: int | None, pcid: int | None) -> None:
        self._flushes[reason] = self._flushes.get(reason, 0) + 1
        if self.events.wants("tlb_flush"):
            self.events.emit(TlbFlush(self.clock.now, self.pid, reason, va, pcid))

    def read_time_stamp(self, *, auxiliary: bool) -> None:
        """RDTSC, RDTSCP: the clock in EDX:EAX, as of this instruction."""
        later = self.cpu.blocks.tail(self.cpu.rip, inclusive=False).instructions
        self._time_stamp(self._address, later, auxiliary)

    def identify(self) -> None:
        """CPUID: leaf in EAX, subleaf in ECX, answered from our own table."""
        gprs = self.cpu.gprs
        words = cpuid(self.profile, gprs[0] & MASK32, gprs[1] & MASK32)
        gprs[0], gprs[3], gprs[1], gprs[2] = words
        self.caches.wait_for_loads()
        self.charge("cpuid", self.costs.cpuid)

    # --- running --------------------------------------------------------------------------------------------------

    def run(self) -> Halt:
        """Execute until somebody stops the machine. Raises HookError when a hook raised something."""
        try:
            halt = self._run()
        finally:
            self._halt = None
        self.raise_from_hooks()
        return halt

    def _run(self) -> Halt:
        look = 0
        while self._halt is None:
            if look == 0:
                self._take_timer_interrupt()
                self._arm()
                look = TRAPS_BETWEEN_LOOKS
            trap = self.cpu.run()
            if trap.kind in MAY_BE_TIME:
                look = 0
            elif trap.kind != TrapKind.PAGE_FAULT:  # most of them are not even seen here
                look -= 1
            self.notices.settle()
            try:
                self._HANDLERS[trap.kind](self, trap)
            except ProcessorException as exception:
                self.raise_exception(exception)
        return self._halt

    def _arm(self) -> None:
        """Set the instruction deadline: the limit, or the earliest moment at which the timer can be due."""
        deadline, self.state.stall_limit = self.max_instructions, NEVER
        if self._shadow == self.state.instructions:
            deadline = min(deadline, self._shadow + 1)
        elif self._timer is not None:
            left = max(self._timer[0] - self.clock.now, 1 if self.cpu.interrupt_flag else MASKED_POLL)
            self.state.stall_limit = self.caches.stalled + left
            deadline = min(deadline, self.state.instructions + left * self.costs.instructions_per_cycle)
        self.state.deadline = deadline
        self.state.iteration_limit = max(self.max_instructions, LEAST_ITERATIONS)

    def _take_timer_interrupt(self) -> None:
        if self._timer is None or not self.cpu.interrupt_flag or self.clock.now < self._timer[0]:
            return
        if self._shadow == self.state.instructions:
            return
        vector = self._timer[1]
        self._timer = None
        if self.events.wants("interrupt"):
            self.events.emit(InterruptEvent(self.clock.now, self.pid, vector, self.cpu.rip, self.cpl))
        self.charge("exceptions", self.costs.interrupt)
        self._count_as_kernel()
        self.interrupts.interrupt(vector)

    def raise_exception(self, exception: ProcessorException) -> None:
        """Deliver an exception through the guest's IDT. Raises TripleFault if that is impossible."""
        if self.events.wants("exception"):
            name = VECTOR_NAMES.get(exception.vector, str(exception.vector))
            self.events.emit(
                ExceptionEvent(
                    *(self.clock.now, self.pid, exception.vector, name),
                    *(exception.error_code, exception.address, self.cpu.rip, self.cpl),
                )
            )
        is_fault = exception.vector == Vector.PF
        self.charge("exceptions", self.costs.page_fault if is_fault else self.costs.exception)
        self._count_as_kernel()
        self.interrupts.deliver(exception)

    def _on_exception(self, trap: Trap) -> None:
        self.raise_exception(ProcessorException(trap.vector, trap.error_code, trap.address))

    def _on_undelivered(self, trap: Trap) -> None:
        page_fault = ProcessorException(trap.vector, trap.error_code, trap.address)
        self.interrupts.deliver(page_fault, was_tried=True)

    def _on_software_interrupt(self, trap: Trap) -> None:
        self.charge("exceptions", self.costs.exception)
        self._count_as_kernel()
        try:
            self.interrupts.software(trap.vector)
        except ProcessorException as fault:
            self._account(self._address, self.cpl)  # it did not retire, and was the interrupted program's
            self.state.instructions -= 1
            self.cpu.rip -= trap.size
            self.raise_exception(fault)

    def _on_privileged(self, trap: Trap) -> None:
        stepping = self.state.single_step
        try:
            privileged.execute(self, trap.instruction, trap.vector)
        except ProcessorException as exception:
            if exception.vector != Vector.DB:  # INT1's is a trap
                self.state.instructions -= 1  # it was counted, but faults do not retire
            raise
        if stepping:
            self.raise_exception(ProcessorException(Vector.DB))

    def _on_vmcall(self, _trap: Trap) -> None:
        """VMCALL asks whoever owns the machine; that is how kernel text written in Python is entered."""
        cpu = self.cpu
        if self.monitor is None:
            self.state.instructions -= 1
            raise ProcessorException(Vector.UD)
        rip = cpu.rip
        self.monitor(rip)
        if cpu.rip == rip:
            cpu.rip = rip + VMCALL_SIZE

    def _on_syscall(self, _trap: Trap) -> None:
        """SYSCALL with EFER.SCE clear; RIP is after it. With SCE set it never leaves Unicorn."""
        self.cpu.rip -= SYSCALL_SIZE
        self.state.instructions -= 1
        raise ProcessorException(Vector.UD)

    def _on_deadline(self, _trap: Trap) -> None:
        if self.state.instructions >= self.max_instructions:
            self._halt = Halt.INSTRUCTION_LIMIT

    def _on_iterations(self, _trap: Trap) -> None:
        self._halt = Halt.INSTRUCTION_LIMIT

    def _on_breakpoint(self, _trap: Trap) -> None:
        self._halt = Halt.BREAKPOINT

    def _on_requested(self, _trap: Trap) -> None:
        """A hook asked to leave Unicorn; `run` looks at why."""

    _HANDLERS: Final[dict[TrapKind, Callable[[Machine, Trap], None]]] = {
        TrapKind.PAGE_FAULT: _on_exception,
        TrapKind.EXCEPTION: _on_exception,
        TrapKind.UNDELIVERED: _on_undelivered,
        TrapKind.SOFTWARE_INTERRUPT: _on_software_interrupt,
        TrapKind.PRIVILEGED: _on_privileged,
        TrapKind.SYSCALL: _on_syscall,
        TrapKind.VMCALL: _on_vmcall,
        TrapKind.DEADLINE: _on_deadline,
        TrapKind.ITERATIONS: _on_iterations,
        TrapKind.BREAKPOINT: _on_breakpoint,
        TrapKind.REQUESTED: _on_requested,
    }

    # --- counting -----------------------------------------------------------------------------------------------------

    def _count_as_kernel(self) -> None:
        """What the processor touches to enter the kernel (IDT, TSS, stack) is the kernel's, whoever was interrupted."""
        self._account(self._address, 0)

    def retired(self, cpl: int) -> tuple[int, int, int]:
        """Instructions, loads and stores so far at a privilege level (3: user, 0: kernel)."""
        self._account(self._address, self.state.counted_as)
        base = 0 if cpl else 3
        instructions, reads, writes = self.state.mode_totals[base : base + 3]
        return instructions, reads, writes


_BASE_REGISTERS: Final[dict[int, Any]] = {
    Msr.FS_BASE: x86.UC_X86_REG_FS_BASE,
    Msr.GS_BASE: x86.UC_X86_REG_GS_BASE,
}
