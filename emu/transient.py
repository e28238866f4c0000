"""Transient windows: when one opens, the core that executes it, and what is told of it.

`window.py` says what a window is. Here a second Unicorn is made when the first window opens. It starts with the
registers of the real one, sees the same RAM, and ends with nothing that anybody reads: what it did to the counters
is put apart, what it did to TLBs and caches stays.

>>> from .machine import Machine
>>> machine = Machine(ram="1M", transient=True)
>>> machine.transient.statistics()
{'windows': {'fault': 0, 'branch': 0, 'return': 0}, 'instructions': 0, 'loads': 0, 'stores': 0, 'walks': 0, 'fills': 0}
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import unicorn as uc_api
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from . import privileged
from .cache_state import CacheArray, CacheInstruction, CacheLevel
from .events import TransientEvent
from .hooks import add_hook
from .instruction import Instruction, decode_block
from .power_on import enter_ring3
from .pte import PAGE_SIZE
from .softcore import Softcore
from .state import FLUSH_COMMAND, Event, State
from .window_state import BranchKind, Predictor, Window, WindowBlock, WindowEnd, WindowFrame

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["Transient"]

RIP: Final = 16
MASK64: Final = (1 << 64) - 1
BLOCKS: Final = 1 << 12
COUNTERS: Final = 1 << 12
WEAKLY_NOT_TAKEN: Final = 1
FRAMES: Final = 256
"""Frames aside in one window. The store buffer needs 2 for a store at most, loads of what is forbidden the rest."""

WAITING: Final = frozenset(("lfence", "mfence", "cpuid", "rdtscp", "syscall"))
"""Instructions that begin when all earlier ones have completed: those of SDM Vol. 3A 8.3 that a user has, LFENCE and
RDTSCP by their own description in Vol. 2. MFENCE holds back all later loads, so nothing of a window is seen."""

KEPT: Final = (
    *(("fault", "fault_access"), ("misses", "dirty_assists")),
    *(("load_is_pending", "load_is_pending"), ("rdtsc_cycles", "walk_cycles")),
)
"""Ranges of the state that a window leaves as they are: the fault that opened it, and what counts for what retires."""
CACHE_FILL: Final = 1 << Event.CACHE_FILL


def _range(structure: type[ctypes.Structure], address: int, first: str, last: str) -> tuple[int, int]:
    """Host address and size of some neighbouring fields of a structure at an address."""
    begin, end = getattr(structure, first), getattr(structure, last)
    return address + begin.offset, end.offset + end.size - begin.offset


def _waits(one: Instruction) -> bool:
    """Whether a window ends before an instruction: it waits, it is locked, or the machine would have to execute it."""
    is_locked = one.mnemonic.startswith("lock ") or (one.name == "xchg" and one.memory is not None)
    return one.name in WAITING or is_locked or privileged.is_models(one)


def _barrier(code: bytes) -> int:
    """Offset of the first instruction of a block at which a window ends, or the size of the block.

    >>> _barrier(bytes.fromhex("90 0faee8 90")), _barrier(bytes.fromhex("90 90"))     # nop; lfence; nop
    (1, 2)
    """
    offset = 0
    for one in decode_block(code):
        if _waits(one):
            break
        offset += one.size
    return offset


class _Core:
    """The second Unicorn, which executes what will not retire."""

    def __init__(self, machine: Machine, window: Window, code: dict[str, int]) -> None:
        main, ram = machine.cpu.uc, machine.ram
        self.uc = uc_api.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        self.uc.mem_map(0, 2 * PAGE_SIZE)  # not yet RAM: the SYSRET that it starts with is no guest's
        enter_ring3(self.uc)
        self.uc.mem_unmap(0, 2 * PAGE_SIZE)
        self.uc.mem_map_ptr(0, ram.size, uc_const.UC_PROT_ALL, ram.words.ctypes.data)
        self._pages = ctypes.create_string_buffer((FRAMES + 1) * PAGE_SIZE)
        window.memory = (ctypes.addressof(self._pages) + PAGE_SIZE - 1) & -PAGE_SIZE
        window.base = ram.size
        self.uc.mem_map_ptr(window.base, FRAMES * PAGE_SIZE, uc_const.UC_PROT_ALL, window.memory)
        core = Softcore(self.uc)
        self._gprs, self._handle = core.gprs, ctypes.c_void_p(core._handle)
        window.uc, window.env = core._handle, core.env
        self._context = main.context_save()
        self._main, self._registers = main._uch, self._context.context
        self._add_hooks(machine.state, code)
        window.end = WindowEnd.FAULT
        self.go_on()  # to nowhere: Unicorn forgets the SYSRET of `enter_ring3`, and asks where that was

    def _add_hooks(self, state: State, code: dict[str, int]) -> None:
        for name, kind, *extra in (
            ("window_fill", uc_const.UC_HOOK_TLB_FILL),
            ("window_block", uc_const.UC_HOOK_BLOCK),
            ("window_instruction", uc_const.UC_HOOK_CODE),
            ("window_access", uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE),
            ("window_interrupt", uc_const.UC_HOOK_INTR),
            ("window_invalid", uc_const.UC_HOOK_INSN_INVALID),
            ("window_rdtsc", uc_const.UC_HOOK_INSN, x86.UC_X86_INS_RDTSC),
        ):
            add_hook(self._handle, code[name], kind, ctypes.addressof(state), 1, 0, *extra)

    def take_over(self, rip: int) -> None:
        """Take the registers of the processor as they are now, all but RIP."""
        uclib.uc_context_save(self._main, self._registers)
        uclib.uc_context_restore(self._handle, self._registers)
        self._gprs[RIP] = rip
        uclib.uc_ctl(self._handle, FLUSH_COMMAND)

    def go_on(self) -> None:
        """Execute from RIP until a hook stops it."""
        uclib.uc_emu_start(self._handle, self._gprs[RIP], MASK64, 0, 0)

    def forget_code(self) -> None:
        """Translate everything anew."""
        self.uc.ctl_flush_tb()


@dataclass
class _Totals:
    """What all windows did, so far."""

    windows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("fault", "branch", "return"), 0))
    instructions: int = 0
    loads: int = 0
    stores: int = 0
    walks: int = 0
    fills: int = 0


class Transient:
    """The transient windows of one machine; `statistics` counts what is done in them."""

    def __init__(self, machine: Machine, code: dict[str, int]) -> None:
        self._machine, self._state, self._code = machine, machine.state, code
        part = machine.profile
        self._frames = (WindowFrame * FRAMES)()
        self._window = Window(
            reorder_buffer=part.out_of_order.reorder_buffer,
            store_buffer=part.out_of_order.store_buffer,
            forwards=part.vulnerabilities.meltdown,
            forwards_terminal=part.vulnerabilities.l1tf and machine.caches.is_on,
            needs_l1d=part.vulnerabilities.meltdown_needs_l1d and machine.caches.is_on,
            frames=ctypes.addressof(self._frames),
            frame_limit=FRAMES,
            block_mask=BLOCKS - 1,
        )
        self._forget_blocks()
        self._state.window = ctypes.addressof(self._window)
        if machine.caches.is_on and part.vulnerabilities.spectre_v1:  # other parts keep what they guess to themselves
            self._build_predictor(part.out_of_order.return_stack)
        self._core: _Core | None = None
        self._totals = _Totals()
        self._address = ctypes.addressof(self._state)
        word = ctypes.c_int64
        self._forwards = ctypes.CFUNCTYPE(word, word, word)(code["forwards_entry"])
        self._place = ctypes.CFUNCTYPE(word, word, word)(code["window_place_entry"])
        self._keep = ctypes.CFUNCTYPE(None, *[word] * 5)(code["keep_entry"])
        self._keep_ranges()
        self._drop = ctypes.CFUNCTYPE(None, word, word)(code["drop_entry"])
        machine.cpu.on_speculation = self._open_for

    @property
    def opened(self) -> int:
        """When the last window opened, on the model's clock."""
        return int(self._window.clock)

    def _build_predictor(self, return_stack: int) -> None:
        self._counters = (ctypes.c_uint64 * COUNTERS)(*[WEAKLY_NOT_TAKEN] * COUNTERS)
        self._predictor = Predictor(
            counters=ctypes.addressof(self._counters), mask=COUNTERS - 1, returns_size=return_stack
        )
        self._state.predictor = ctypes.addressof(self._predictor)

    def statistics(self) -> dict[str, Any]:
        """What was done in windows, and counted nowhere else; `windows` says what opened them."""
        return {**vars(self._totals), "windows": dict(self._totals.windows)}

    def _open_for(self, branch: int, address: int) -> None:
        """A branch was guessed to lead to an address, or (BranchKind.NONE) the load of one at RIP was refused."""
        if branch:
            time = self._predictor.wait * self._machine.costs.instructions_per_cycle
            cause = "branch" if branch == BranchKind.CONDITIONAL else "return"
            self._open(cause, None, address, min(time, self._window.reorder_buffer))
        elif self._forwards(self._address, address):
            self._open("fault", address, self._machine.cpu.rip, self._window.reorder_buffer)
            self._drop(self._address, address)  # the fault itself comes now

    def _open(self, cause: str, address: int | None, rip: int, capacity: int) -> None:
        if self._core is None:
            self._core = _Core(self._machine, self._window, self._code)
        s, w = self._state, self._window
        self._keep(*self._kept, False)
        listeners, recorded = s.listeners, s.recorded
        walks, fills = sum(s.walks_by), self._fills()
        w.clock, w.capacity = self._machine.clock.now, capacity
        w.instructions = w.loads = w.stores = w.frame_count = 0
        s.in_window, s.listeners, s.recorded = 1, listeners & CACHE_FILL, 0
        self._core.take_over(rip)
        end = self._execute(self._core)
        walks, fills = sum(s.walks_by) - walks, self._fills() - fills
        s.in_window, s.listeners, s.recorded = 0, listeners, recorded
        self._keep(*self._kept, True)
        self._tell(cause, address, rip, end, walks, fills)

    def _fills(self) -> int:
        """Lines that the first-level caches had to be brought."""
        return int(self._state.cache[CacheLevel.L1D].misses + self._state.cache[CacheLevel.L1I].misses)

    def _keep_ranges(self) -> None:
        """Prepare to copy the ranges of `KEPT`, and what each cache counts."""
        ranges = [_range(State, self._address, first, last) for first, last in KEPT]
        ranges += [_range(CacheArray, ctypes.addressof(array), "hits", "evictions") for array in self._state.cache]
        self._ranges = (ctypes.c_uint64 * (2 * len(ranges)))(*(word for one in ranges for word in one))
        self._copies = ctypes.create_string_buffer(sum(size for _, size in ranges))
        places = (ctypes.addressof(self._ranges), len(ranges), ctypes.addressof(self._copies))
        self._kept = (self._address, *places)

    def _execute(self, core: _Core) -> WindowEnd:
        """Execute the window that was prepared, to its end."""
        while True:
            self._window.end = WindowEnd.NONE
            core.go_on()
            if self._window.end != WindowEnd.UNKNOWN_BLOCK:
                return WindowEnd(self._window.end or WindowEnd.FAULT)
            self._learn(core)

    def _learn(self, core: _Core) -> None:
        """Enter the block that the window stopped before; it is new, or its code was changed."""
        w = self._window
        size, pa = w.block_key >> 48, w.block_key & (1 << 48) - 1
        first = min(size, PAGE_SIZE - pa % PAGE_SIZE)
        code = self._machine.ram.read(pa, first) + self._machine.ram.read(w.second_pa, size - first)
        if 2 * self._known > BLOCKS:
            self._forget_blocks()
        core.forget_code()  # it may have been translated before it was changed, and not executed then
        place = self._blocks[self._place(self._address, w.block_key)]
        self._known += not place.key
        place.key, place.checksum, place.barrier = w.block_key, w.checksum, _barrier(code)
        place.cache_instructions = self._on_caches(w.block_key, w.block_va, code)

    def _on_caches(self, key: int, va: int, code: bytes) -> int:
        """Host address of the list of a block's prefetches, or 0 if there is none."""
        found = []
        for one in decode_block(code):
            found.append(self._machine.caches.instruction(one, va))
            va += one.size
        known = [one for one in found if one is not None]
        if not known:
            return 0
        kept = self._lists[key] = (CacheInstruction * (len(known) + 1))(*known)
        return ctypes.addressof(kept)

    def _forget_blocks(self) -> None:
        self._blocks = (WindowBlock * BLOCKS)()
        self._window.blocks = ctypes.addressof(self._blocks)
        self._known = 0
        self._lists: dict[int, object] = {}  # keeps alive what native code reads

    def _tell(self, cause: str, address: int | None, rip: int, end: WindowEnd, walks: int, fills: int) -> None:
        machine, w, totals = self._machine, self._window, self._totals
        totals.windows[cause] += 1
        totals.instructions += w.instructions
        totals.loads += w.loads
        totals.stores += w.stores
        totals.walks += walks
        totals.fills += fills
        if machine.events.wants("transient"):
            machine.events.emit(
                TransientEvent(
                    *(machine.clock.now, machine.pid, cause, rip, address),
                    *(w.instructions, w.loads, w.stores, fills, end.name.lower()),
                )
            )
