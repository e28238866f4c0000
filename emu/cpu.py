"""The processor core: Unicorn executes instructions, and leaves with a trap where the model must act.

The guest always runs in Unicorn's ring 3, whatever its CPL in the model is. So every instruction that is
privileged, or that needs the memory hardware's refusal, traps to here. `Cpu.run` returns what happened as a `Trap`,
with RIP exactly where the manual puts it and with the counters corrected for what did not execute.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

import unicorn as uc_api
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import uclib

from .blocks import BlockTable
from .exceptions import MachineError
from .fpu import Fpu
from .guard import Guard
from .hooks import Hooks
from .instruction import MAX_SIZE, Instruction, decode, is_too_long
from .mmu import Mmu
from .power_on import check_soft_tlb, enter_ring3
from .pte import PAGE_SIZE, Access
from .ram import Ram
from .registers import Registers
from .softcore import Softcore
from .state import FLUSH_COMMAND, Engine, Fault, State, Stop
from .trap import VMCALL, Trap, TrapKind
from .window_state import BranchKind

__all__ = ["Cpu"]

RSP, RIP = 4, 16
RETURN_ADDRESS: Final = 8
RET_IMM16: Final = b"\xc2"
SINGLE_STEP_VECTOR, BREAKPOINT_VECTOR, INVALID_OPCODE, GENERAL_PROTECTION, PAGE_FAULT = 1, 3, 6, 13, 14
MASK64: Final = (1 << 64) - 1
NEVER: Final = (1 << 63) - 1
PAGE: Final = ~(PAGE_SIZE - 1)
NOWHERE: Final = MASK64
"""In place of an instruction's address: none (an instruction cannot begin on the last byte and end)."""


class Cpu(Registers):
    """One core over one RAM. `gprs[i]` are the general registers in encoding order, `gprs[16]` is RIP."""

    def __init__(self, state: State, ram: Ram, mmu: Mmu, engine: Engine, code: dict[str, int]) -> None:
        self.state, self.ram, self.mmu, self._code = state, ram, mmu, code
        self.uc = uc_api.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        self.uc.mem_map_ptr(0, ram.size, uc_const.UC_PROT_ALL, ram.words.ctypes.data)
        enter_ring3(self.uc)
        self.core = Softcore(self.uc)
        self.gprs = self.core.gprs
        self._handle = ctypes.c_void_p(self.core._handle)
        self.fpu = Fpu(self._handle)
        self._scratch = ctypes.c_uint64()
        self._popped = (ctypes.c_uint64 * 5)()
        check_soft_tlb(self.uc, self.core, self.ram)
        self._share_addresses()
        word = ctypes.c_int64
        find = ctypes.CFUNCTYPE(word, word, word)(code["find_block"])
        self._read_flags = ctypes.CFUNCTYPE(word, word)(code["read_flags_entry"])
        self._write_flags = ctypes.CFUNCTYPE(None, word, word)(code["write_flags_entry"])
        self._run_native = ctypes.CFUNCTYPE(word, word)(code["run"])
        self._address = address = ctypes.addressof(state)
        self.blocks = BlockTable(state, lambda key: find(address, key))
        self.guard = Guard(state, ram)
        self.hooks = Hooks(self._handle, state, code)
        self.on_speculation: Callable[[int, int], None] = lambda _branch, _va: None
        self._stopped_before = NOWHERE
        self._target = NOWHERE
        self._has_exits = False
        if engine == Engine.ACCESS:
            self.see_every_access()
        if state.no_tlb:
            self.see_every_instruction(True)
        state.deadline = state.iteration_limit = NEVER
        ram.on_code_write = self._code_written

    def _share_addresses(self) -> None:
        """Tell native code where everything is."""
        s = self.state
        for function in ("uc_ctl", "uc_emu_start", "uc_emu_stop", "uc_reg_read", "uc_reg_write"):
            setattr(s, function, ctypes.cast(getattr(uclib, function), ctypes.c_void_p).value)
        s.scratch, s.popped = ctypes.addressof(self._scratch), ctypes.addressof(self._popped)
        s.ram, s.ram_size = self.ram.words.ctypes.data, self.ram.size
        s.frame_flags, s.frame_va = self.ram.frame_flags.ctypes.data, self.ram.frame_va.ctypes.data
        self.core.share(s)
        self.flush_soft_tlb()

    # --- hooks ------------------------------------------------------------------------------------------------

    def see_every_access(self) -> None:
        """Switch to the access engine (there is no way back: what it needs to know it learns from now on)."""
        if self.hooks.see_every_access():
            self.state.engine = Engine.ACCESS
            self._leave_rip_alone()
            self.retranslate()

    def _leave_rip_alone(self) -> None:
        """Let native code choose whether Unicorn restores RIP before an access (`_synchronise` in counting.py)."""
        address = self.core.skip_sync_address
        self.state.unsynced, self.state.unsynced_bit = address & ~7, 1 << 8 * (address & 7)

    def see_every_instruction(self, wanted: bool) -> None:
        """Call the native instruction hook before every instruction, or no longer."""
        self.hooks.on_code(self.hooks.breakpoints, every_instruction=wanted or bool(self.state.no_tlb))
        self.retranslate()

    def stop_before(self, addresses: tuple[int, ...]) -> None:
        """Return from `run` with BREAKPOINT before one of these addresses executes, and go on from there after it."""
        self.hooks.on_code(addresses, every_instruction=self.hooks.has_every_instruction)
        self.retranslate()

    def _watch(self, addresses: list[int]) -> None:
        """Call `watch` before some instructions of the current block."""
        if self.hooks.watch(addresses):
            self._remove_translation(self.state.block_va, self.state.block_key >> 48)

    def retranslate(self) -> None:
        """Drop Unicorn's translated code, which knows only the hooks of its time."""
        self.uc.ctl_flush_tb()
        self.flush_soft_tlb()

    def _remove_translation(self, va: int, size: int) -> None:
        """Drop the translated code of a range. Unicorn asks where it is, and hears it whatever the ITLB holds."""
        s, pa = self.state, self._code_physical(va)
        if pa is None:
            self.retranslate()
            return
        s.stop = s.stop or Stop.REFETCH  # whatever the reason: it stands
        s.dropped_page = pa & PAGE | 1
        self.uc.ctl_remove_cache(va, va + size)
        s.dropped_page = 0
        self.flush_soft_tlb()  # that was no permission to fetch

    def _code_written(self, pfn: int) -> None:
        """The host wrote to a frame with translated code: Unicorn must translate it anew."""
        self.ram.frame_flags[pfn] = 0
        self.guard.clear()
        self._set_exits()
        self.blocks.clear()
        self.retranslate()

    def _set_exits(self) -> None:
        """Addresses at which Unicorn's translator stops without looking: what is guarded, and where to go."""
        exits = self.guard.addresses | {self._target} - {NOWHERE}
        self._has_exits = bool(exits)
        self.uc.ctl_set_exits(list(exits))

    def flush_soft_tlb(self) -> None:
        """Make Unicorn ask again for every page."""
        self.state.soft_flushes += 1
        self.state.fetch_page = self.state.fast_page = 0
        uclib.uc_ctl(self._handle, FLUSH_COMMAND)

    # --- code -------------------------------------------------------------------------------------------------

    def code_at(self, va: int, size: int) -> bytes:
        """Bytes of code as the fetch sees them, as far as they are mapped; counts nothing."""
        found = b""
        while len(found) < size:
            at = (va + len(found)) & MASK64
            pa = self._code_physical(at)
            if pa is None:
                break
            found += self.ram.read(pa, min(size - len(found), PAGE_SIZE - at % PAGE_SIZE))
        return found

    def _code_physical(self, va: int) -> int | None:
        s, page = self.state, va & PAGE & MASK64
        for known, pa in (
            (s.fetch_page, s.fetch_pa),
            (s.fetched_0, s.fetched_pa_0),
            (s.fetched_1, s.fetched_pa_1),
        ):
            if known == page | 1:
                return int(pa) + va % PAGE_SIZE
        return self.mmu.peek(va)

    def instruction_at(self, va: int) -> Instruction | None:
        """The instruction at `va`, as the block under way has it or as it reads now; None if there is none."""
        place = self.blocks.place(va)
        return place.instruction if place and place.instruction.is_whole else decode(self.code_at(va, MAX_SIZE))

    # --- execution --------------------------------------------------------------------------------------------

    def run(self) -> Trap:
        """Execute until something happens that the machine must handle."""
        rip = self.rip
        self.state.passed_va, self._stopped_before = rip if self._stopped_before == rip else NOWHERE, NOWHERE
        return self._run()

    def _run(self) -> Trap:
        s = self.state
        while True:
            if self._has_exits:
                s.stop = 0
                error = uclib.uc_emu_start(self._handle, self.gprs[RIP], MASK64, 0, 0)
                self.flush_soft_tlb()  # Unicorn looked them up, see `fill`
            else:
                error = self._run_native(self._address)
            trap = self._STOPS[s.stop](self, error)
            if trap is not None:
                return trap

    def _on_none(self, error: int) -> Trap | None:
        if self.rip == self._target:
            return Trap(TrapKind.ARRIVED)
        if self.rip in self.guard.addresses:
            return self._at_guard(self.rip)
        raise MachineError(f"Unicorn stopped at {self.rip:#x}: {uc_api.UcError(error)}")

    def _on_danger(self, _error: int) -> None:
        """The code of a page must not be translated as it is (guard.py)."""
        if self.guard.is_full:
            self.guard.clear()
            self.flush_soft_tlb()
        self.guard.cover(self.state.fault_page, self.state.stop_value)
        self._set_exits()

    def _at_guard(self, rip: int) -> Trap | None:
        """Execution reached a guarded address. Nothing of this instruction was counted yet."""
        if self.state.instructions >= self.state.deadline:
            return Trap(TrapKind.DEADLINE)
        if not self.guard.is_dangerous(self.code_at(rip, MAX_SIZE)):
            return self._step_over(rip)
        self.state.instructions += 1
        self.state.rep_va = self.state.block_key = 0
        return Trap(TrapKind.PRIVILEGED, INVALID_OPCODE)

    def _step_over(self, rip: int) -> Trap | None:
        """Execute the one instruction at a guarded address."""
        s, deadline = self.state, self.state.deadline
        self.guard.addresses.discard(rip)
        self._set_exits()
        self._remove_translation(rip, 1)
        s.deadline = min(deadline, s.instructions + 1)
        trap = self._run()
        s.deadline = deadline
        self.guard.addresses.add(rip)
        self._set_exits()
        self._remove_translation(rip, 1)
        return None if trap.kind is TrapKind.DEADLINE else trap

    def _on_unknown_block(self, _error: int) -> None:
        s, size = self.state, self.state.block_key >> 48
        code = self.ram.read(s.fetch_pa + s.block_va % PAGE_SIZE, min(size, PAGE_SIZE - s.block_va % PAGE_SIZE))
        if len(code) < size:
            code += self.ram.read(s.second_pa, size - len(code))
        self._watch(self.blocks.learn(code))
        s.block_key = 0  # it has not begun

    def _on_refetch(self, _error: int) -> None:
        """The soft-TLB was flushed; start again."""
        if self.state.code_written:
            self.state.code_written = 0
            self._code_written(0)

    def _on_deadline(self, _error: int) -> Trap | None:
        """The next block would pass the deadline: execute as many of its instructions as are left."""
        s = self.state
        if (left := s.deadline - s.instructions) <= 0:
            return Trap(TrapKind.DEADLINE)
        last = self.blocks.address_of(left)
        s.block_key = 0  # it has not begun
        return self._run_until(last, left) or Trap(TrapKind.DEADLINE)

    def _run_until(self, va: int, instructions: int) -> Trap | None:
        """Execute the straight-line code up to `va`: at most so many instructions, for it may change itself on the way.

        Returns the trap that happened before, or None.
        """
        s = self.state
        start, deadline, target = self.rip, s.deadline, self._target
        s.deadline, self._target = min(deadline, s.instructions + instructions), va
        self._set_exits()
        self._remove_translation(start, va - start + 1)
        trap = self._run()
        s.deadline, self._target = deadline, target
        self._set_exits()
        self._remove_translation(start, va - start + 1)
        is_there = trap.kind is TrapKind.ARRIVED or (trap.kind is TrapKind.DEADLINE and s.instructions < deadline)
        return None if is_there else trap

    def _on_requested(self, _error: int) -> Trap:
        self.not_executed(self.rip, inclusive=True)  # a listener asked before an instruction
        return Trap(TrapKind.REQUESTED)

    def _on_iterations(self, _error: int) -> Trap:
        """A REP repeated too often. It is interrupted between two iterations, and has not retired."""
        self.state.instructions -= 1
        self.state.rep_va = self.state.block_key = 0
        return Trap(TrapKind.ITERATIONS)

    def _on_breakpoint(self, _error: int) -> Trap:
        self.not_executed(self.rip, inclusive=True)
        self._stopped_before = self.rip
        return Trap(TrapKind.BREAKPOINT)

    # --- traps ------------------------------------------------------------------------------------------------

    def not_executed(self, rip: int, *, inclusive: bool) -> None:
        """Take back what the current block counted for instructions that did not retire."""
        s = self.state
        tail = self.blocks.tail(rip, inclusive=inclusive)
        s.instructions -= tail.instructions
        s.reads -= tail.reads
        s.writes -= tail.writes
        s.rep_va = 0
        s.block_key = 0

    def _on_fault(self, _error: int) -> Trap | None:
        s, rip = self.state, self.rip
        if s.fault_access == Access.FETCH:
            return self._fetch_fault(rip)
        if rip == s.hooked_va:
            self.core.keep_computed_flags()
        address = self.core.invalid_address.value
        instruction = self.instruction_at(rip)
        repeating = self.blocks.repeating(rip)
        if repeating is not None:  # this iteration was counted
            s.reads -= repeating.rep_reads
            s.writes -= repeating.rep_writes
        self.not_executed(rip, inclusive=True)
        if s.fault == Fault.PAGE and instruction is not None and instruction.modifies:
            s.fault_code |= 2  # Unicorn loads first; the processor asks for a write at once (unlocked RMW included)
        if s.fault_access == Access.READ:
            self.on_speculation(BranchKind.NONE, address)
        stack = instruction is not None and instruction.uses_stack(writes=s.fault_access == Access.WRITE)
        return Trap(TrapKind.PAGE_FAULT, *self.mmu.refusal(address, stack=stack))

    def _fetch_fault(self, rip: int) -> Trap | None:
        """A fetch was refused. Unicorn fetches a whole block first: execute what comes before the missing page."""
        s = self.state
        page, address = s.fault_page, rip
        if s.fault == Fault.NOT_CANONICAL:
            self._take_back_branch()
        if rip & PAGE & MASK64 != page and s.fault == Fault.PAGE:
            code, fault_code = s.fault, s.fault_code
            first, instructions = self._first_on_page(rip, page)
            if first not in (rip, self._target):
                return self._run_until(first, instructions)
            s.fault, s.fault_code, address = code, fault_code, page
        s.rep_va = 0
        s.block_key = 0
        return Trap(TrapKind.PAGE_FAULT, *self.mmu.refusal(address))

    def _take_back_branch(self) -> None:
        """A jump, call or return checks its target before anything changes: it faults where it is (SDM Vol. 2, JMP).

        AMD parts fault at the target, as Unicorn does. What CALL has pushed stays in memory, below RSP.
        """
        s, instructions = self.state, self.blocks.instructions()
        if not instructions or instructions[-1].name not in ("jmp", "call", "ret"):
            return
        branch = instructions[-1]
        self.rip = s.block_va + (s.block_key >> 48) - branch.size
        if branch.name == "call":
            self.gprs[RSP] += RETURN_ADDRESS
        elif branch.name == "ret":
            code = self.code_at(self.rip, branch.size)
            extra = int.from_bytes(code[-2:], "little") if code[-3:-2] == RET_IMM16 else 0
            self.gprs[RSP] -= RETURN_ADDRESS + extra
        self.not_executed(self.rip, inclusive=True)

    def _first_on_page(self, rip: int, page: int) -> tuple[int, int]:
        """Address of the first instruction from `rip` on that touches the next page, and how many come before it."""
        va, before = rip, 0
        while va < page and (one := decode(self.code_at(va, min(MAX_SIZE, page - va)))) is not None:
            va += one.size
            before += 1
        return va, before

    def _on_interrupt(self, _error: int) -> Trap:
        s, rip, vector = self.state, self.rip, self.state.stop_detail
        if self.core.is_software_interrupt.value or vector == BREAKPOINT_VECTOR:
            size = self.blocks.instructions()[-1].size
            s.rep_va = s.block_key = 0
            return Trap(TrapKind.SOFTWARE_INTERRUPT, vector, size=size)
        if vector == SINGLE_STEP_VECTOR:
            return self._single_step(rip)
        if vector == GENERAL_PROTECTION:
            return self._for_model(GENERAL_PROTECTION)
        self.not_executed(rip, inclusive=True)
        return Trap(TrapKind.EXCEPTION, vector)

    def _single_step(self, rip: int) -> Trap:
        """An instruction was executed with TF set. One iteration of a REP is not yet an instruction."""
        s = self.state
        if self.blocks.repeating(rip) is not None:
            s.instructions -= 1
        s.rep_va = s.block_key = 0
        return Trap(TrapKind.EXCEPTION, SINGLE_STEP_VECTOR)

    def _on_invalid(self, _error: int) -> Trap:
        return self._for_model(INVALID_OPCODE)

    def _for_model(self, vector: int) -> Trap:
        """An instruction that Unicorn does not execute, and its exception if the model does not know it, either.

        It counts as executed until someone refuses it.
        """
        rip = self.rip
        place = self.blocks.place(rip)
        self.not_executed(rip, inclusive=False)
        if place is None or not place.instruction.is_whole:  # Unicorn did not read to its end
            return self._unknown(rip, vector)
        self.state.reads -= place.instruction.reads  # the model makes its accesses, and counts them then
        self.state.writes -= place.instruction.writes
        return Trap(TrapKind.PRIVILEGED, vector, instruction=place.instruction)

    def _unknown(self, rip: int, vector: int) -> Trap:
        """An instruction that was counted, but not decoded, with its block."""
        code = self.code_at(rip, 2 * MAX_SIZE)
        instruction = decode(code)
        if instruction is None and is_too_long(code):
            self.state.instructions -= 1
            return Trap(TrapKind.EXCEPTION, GENERAL_PROTECTION, 0)
        return Trap(TrapKind.PRIVILEGED, vector, instruction=instruction)

    def _on_syscall(self, _error: int) -> Trap:
        self.state.rep_va = self.state.block_key = 0
        return Trap(TrapKind.SYSCALL)

    def _on_vmcall(self, _error: int) -> Trap:
        self.state.rep_va = self.state.block_key = 0
        return VMCALL

    _STOPS: Final[dict[int, Callable[[Cpu, int], Trap | None]]] = {
        Stop.NONE: _on_none,
        Stop.FAULT: _on_fault,
        Stop.UNDELIVERED: lambda cpu, _: Trap(TrapKind.UNDELIVERED, PAGE_FAULT, cpu.state.stop_detail, cpu.state.cr2),
        Stop.INTERRUPT: _on_interrupt,
        Stop.INVALID: _on_invalid,
        Stop.SYSCALL: _on_syscall,
        Stop.VMCALL: _on_vmcall,
        Stop.MODEL: _on_invalid,
        Stop.BREAKPOINT: _on_breakpoint,
        Stop.DEADLINE: _on_deadline,
        Stop.ITERATIONS: _on_iterations,
        Stop.UNKNOWN_BLOCK: _on_unknown_block,
        Stop.REFETCH: _on_refetch,
        Stop.DANGER: _on_danger,
        Stop.MISPREDICTED: lambda cpu, _error: cpu.on_speculation(cpu.state.stop_detail, cpu.state.stop_value),
        Stop.REQUESTED: _on_requested,
    }
