"""Basic blocks: what each one counts, worked out once.

Unicorn executes a block (straight-line code up to a branch) at a time and tells when one begins. What a block
retires and how often it touches memory depends on its bytes alone, so those numbers are looked up in a table by the
physical address and size of its code, and only added. A block that is cut short by a fault is corrected by
what its tail would have counted. A REP instruction ends its block; its accesses are counted an iteration at a time.

A block is seen here before it executes for the first time. So this is also where instructions are found that need
to be watched: those that Unicorn would execute, but not as the model does (PUSHF would show Unicorn's own flags), and
RCL and RCR of memory, which spoil the flags if they fault (Unicorn computes CF in between; a hook before the
instruction makes it do so in time).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .cache_state import CacheInstruction
from .instruction import Instruction, decode_block
from .pte import PAGE_SIZE
from .state import Block, State, Tail
from .window_state import BranchKind

__all__ = ["BlockTable", "Counts"]

FIRST_SIZE: Final = 1 << 12
CONDITIONAL: Final = ("j", "loop")
NEAR_SIZE: Final = 6
TWO_BYTE_OPCODE: Final = 0x0F
"""Jcc with a displacement of 32 bits has 0F 80+cc and those; all other conditional jumps have 8 bits."""
MASK64: Final = (1 << 64) - 1
TOLD: Final = frozenset(("syscall", "cpuid", "rdtsc", "rdtscp"))
"""Instructions of which Unicorn tells in hooks of their own, which need RIP."""
ADDRESS_SIZE: Final = 0x67
"""The address-size prefix: RCX, RSI and RDI are used as 32-bit registers (SDM Vol. 2A 2.1.1)."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions and data accesses."""

    instructions: int = 0
    reads: int = 0
    writes: int = 0


NOTHING: Final = Counts()


@dataclass(frozen=True, slots=True)
class Place:
    """One instruction of a block, and what the block counts from it on and after it."""

    instruction: Instruction
    from_here: Counts
    after: Counts


def _places(instructions: tuple[Instruction, ...]) -> dict[int, Place]:
    """The instructions of a block by their offset."""
    offset, after = sum(one.size for one in instructions), NOTHING
    places = {}
    for one in reversed(instructions):
        offset -= one.size
        reads, writes = (0, 0) if one.rep else (one.reads, one.writes)
        here = Counts(after.instructions + 1, after.reads + reads, after.writes + writes)
        places[offset] = Place(one, here, after)
        after = here
    return places


def _repeat(block: Block, one: Instruction, va: int, prefixes: bytes) -> None:
    """Note the REP instruction at `va`, with which a block ends."""
    block.rep_va = va
    block.rep_reads, block.rep_writes = one.reads, one.writes
    block.rep_mask = (1 << 32) - 1 if ADDRESS_SIZE in prefixes else (1 << 64) - 1


def _branch(one: Instruction, code: bytes) -> int:
    r"""`Block.branch` for the last instruction of a block.

    >>> [_branch(decode_block(code)[-1], code) for code in (b"\x75\x10", b"\xc3", b"\x90")]      # jnz, ret, nop
    [129, 3, 0]
    """
    if one.name.startswith(CONDITIONAL) and one.name != "jmp":
        size = 4 if one.size >= NEAR_SIZE and code[-NEAR_SIZE] == TWO_BYTE_OPCODE else 1
        return int.from_bytes(code[-size:], "little", signed=True) << 3 | BranchKind.CONDITIONAL
    kinds = {"call": BranchKind.CALL, "ret": BranchKind.RETURN}
    is_jump = one.name.startswith(("jmp", "ret"))
    return int(kinds.get(one.name, BranchKind.JUMP if is_jump else BranchKind.NONE))


class BlockTable:
    """The table that native code looks up, and behind it the instructions of each block."""

    def __init__(self, state: State, find: Callable[[int], int]) -> None:
        self._state, self._find = state, find
        self.is_models: Callable[[Instruction], bool] = lambda _one: False
        self.cache_instruction: Callable[[Instruction, int], CacheInstruction | None] = lambda _one, _va: None
        self._instructions: dict[int, tuple[Instruction, ...]] = {}
        self._places: dict[int, dict[int, Place]] = {}
        self._tails: dict[int, object] = {}  # keep alive what native code reads
        self._on_caches: dict[int, object] = {}
        self._allocate(FIRST_SIZE)

    def _allocate(self, size: int) -> None:
        self._table = (Block * size)()
        self._state.blocks = ctypes.addressof(self._table)
        self._state.block_mask = size - 1

    def _grow(self) -> None:
        old = self._table
        self._allocate(2 * len(old))
        for block in old:
            if block.key:
                self._table[self._find(block.key)] = block

    def learn(self, code: bytes) -> list[int]:
        """Enter the block that the state describes, whose bytes are `code`. Returns the addresses to watch in it."""
        s = self._state
        if 2 * len(self._instructions) > len(self._table):
            self._grow()
        instructions = decode_block(code)
        self._instructions[s.block_key] = instructions
        self._places.pop(s.block_key, None)
        block = Block(key=s.block_key, va=s.block_va, checksum=s.stop_value, instructions=len(instructions))
        va, watched, on_caches = s.block_va, [], []
        for one in instructions:
            on_cache = self.cache_instruction(one, va)
            if on_cache is not None:
                on_caches.append(on_cache)
            is_models = not block.model_va and self.is_models(one)
            if is_models:
                block.model_va = va
            if one.rep:
                _repeat(block, one, va, code[-one.size : -1])
            else:
                block.reads += one.reads
                block.writes += one.writes
            if on_cache or is_models or one.rep or one.rotates_through_carry or one.stores_condition:
                watched.append(va)
            va += one.size
        block.branch = _branch(instructions[-1], code) & MASK64
        block.is_watched = bool(watched)
        is_told = any(one.name in TOLD for one in instructions)
        asks = watched or is_told or instructions[-1].name == "iretq"  # where it is, from one of its hooks
        block.is_plain = not asks and s.block_va % PAGE_SIZE + len(code) <= PAGE_SIZE
        if on_caches:
            kept = self._on_caches[s.block_key] = (CacheInstruction * (len(on_caches) + 1))(*on_caches)
            block.cache_instructions = ctypes.addressof(kept)
        index = self._find(s.block_key)
        self._table[index] = block
        if is_told:
            s.block_index = index
            self.place(s.block_va)  # native code asks what is counted after RDTSC
        return watched

    def instructions(self) -> tuple[Instruction, ...]:
        """The instructions of the block that was entered last; empty if there is none."""
        return self._instructions.get(self._state.block_key, ())

    def address_of(self, number: int) -> int:
        """Address of instruction `number` of the block that was entered last."""
        return int(self._state.block_va) + sum(one.size for one in self.instructions()[:number])

    def place(self, rip: int) -> Place | None:
        """What is at `rip` in the block that was entered last, and what the block counts from there on."""
        key, offset = self._state.block_key, rip - self._state.block_va
        places = self._places.get(key)
        if places is None:
            if key not in self._instructions:
                return None
            places = self._places[key] = _places(self._instructions[key])
            self._share_tails(key, places)
        return places.get(offset)

    def _share_tails(self, key: int, places: dict[int, Place]) -> None:
        """Let native code know what the current block counts from each of its instructions on."""
        block = self._table[self._state.block_index]
        if block.key == key:
            tails = self._tails[key] = (Tail * (key >> 48))()
            for offset, place in places.items():
                counts, one = place.from_here, place.instruction
                if one.known:
                    tails[offset] = Tail(counts.instructions, counts.reads, counts.writes, one.modifies)
            block.tails = ctypes.addressof(tails)

    def tail(self, rip: int, *, inclusive: bool) -> Counts:
        """What the current block counted for the instructions from `rip` on (or after the one at `rip`)."""
        place = self.place(rip)
        if place is None:
            return NOTHING
        return place.from_here if inclusive else place.after

    def repeating(self, rip: int) -> Block | None:
        """The current block, if `rip` is the REP instruction that ends it."""
        block = self._table[self._state.block_index]
        return block if block.rep_va == rip and block.key == self._state.block_key else None

    def clear(self) -> None:
        """Forget every block: code was replaced."""
        self._instructions.clear()
        self._places.clear()
        self._tails.clear()
        self._on_caches.clear()
        self._allocate(len(self._table))
