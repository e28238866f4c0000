r"""What the machine must know about an x86-64 instruction beyond executing it.

Unicorn executes instructions, but it does not say how many loads and stores one of them makes, whether a
page fault on its operand is the fault of a write, or which register a trapped `mov cr3, rax` names.  This
module answers from the bytes alone.

Size, spelling and operands come from capstone.  How the memory operand is used does not: capstone's access
flags call `movups [rbx], xmm0`, every `setcc` and every x87 store a read, and `cmpxchg` and `rol` too.  The
architecture needs only short lists.  An operand that is not the destination is read; a destination is read,
too (`cmp`, `push`, `div`, `fadd`), unless it is in the list of those that are modified or of those that are
stored (Intel SDM Vol. 2, the operation of each instruction).

Accesses are counted as the architecture makes them, one for each use of an operand or of the stack,
however wide:

>>> push = decode(bytes.fromhex("ff742408"))
>>> push.name, push.reads, push.writes
('push', 1, 1)
>>> text(bytes.fromhex("488b0510000000"), 0x401000)
'mov rax, qword ptr [rip + 0x10]  # 0x401017'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Final

__all__ = [
    "MAX_SIZE",
    "Instruction",
    "Memory",
    "decode",
    "decode_block",
    "effective_address",
    "host_aborts",
    "is_too_long",
    "text",
]

MAX_SIZE: Final = 15
"""Bytes of the longest instruction (SDM Vol. 2A 2.3.11); one byte more is a #GP (Vol. 3A 6.15)."""

UNKNOWN: Final = "(bad)"
"""Name of what does not decode, as objdump spells it."""

_MODIFIED: Final = re.compile(
    r"adc|add|and|bt[crs]|cmpxchg(8b|16b)?|dec|inc|neg|not|or|rc[lr]|ro[lr]|s[ah][lr]|sbb|sh[lr]d|sub|xadd"
    r"|xchg|xor|xsave(opt)?(64)?"
)
"""Read and then write their destination; XSAVE keeps the bits of XSTATE_BV that it does not save."""

_STORED: Final = re.compile(
    r"v?(mov|pextr|extract|p?maskmov|cvtps2ph|stmxcsr).*"
    r"|f(n?st|ist|bstp|nsave|xsave).*"
    r"|pop|set.*|s[gil]dt|smsw|str|xsave[cs].*"
)
"""Write their destination without reading it."""

_UNTOUCHED: Final = re.compile(r"lea|nop|invlpg|prefetch.*|cl(flush|flushopt|wb|demote)|ud[01]|bnd.*")
"""Name memory without a data access; a prefetch or a cache-line flush is none that we count."""

_STACK: Final = {
    **dict.fromkeys(("push", "push_segment", "pushf", "pushfq", "call"), (0, 1)),
    **dict.fromkeys(("pop", "pop_segment", "popf", "popfq", "ret", "leave"), (1, 0)),
    **dict.fromkeys(("retf", "retfq"), (2, 0)),
    **dict.fromkeys(("iret", "iretd", "iretq"), (5, 0)),
    "lcall": (0, 2),
}
"""Reads and writes of the stack that no operand shows, beside ENTER's."""

_IMPLICIT: Final = {"xlatb": (1, 0), "maskmovq": (0, 1), "maskmovdqu": (0, 1)}
"""Reads and writes through RBX or RDI that no operand shows; MASKMOV stores nothing under an empty mask."""

_STRING: Final = {
    stem + width: accesses
    for stem, accesses in {
        "movs": (1, 1),
        "cmps": (2, 0),
        "scas": (1, 0),
        "lods": (1, 0),
        "stos": (0, 1),
        "ins": (0, 1),
        "outs": (1, 0),
    }.items()
    for width in "bwdq"
}
"""Reads and writes of one iteration.  SSE2 has its own `movsd` and `cmpsd`: the opcode tells."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory operand: segment:[base + index * scale + displacement], cut to the address size.

    `base` and `index` are 64-bit register names or empty; `base` may be "rip".  `segment` is the override as
    written or empty; only "fs" and "gs" add anything in 64-bit mode (SDM Vol. 1 3.4.2.1).
    """

    base: str
    index: str
    scale: int
    displacement: int
    segment: str
    address_bits: int

    @property
    def stack(self) -> bool:
        """Does the operand go through SS: a base of RSP or RBP, and neither FS nor GS instead?

        64-bit mode ignores the other overrides (AMD APM Vol. 3 1.2.4): `ds:[rsp]` is still a stack access.
        """
        return self.base in ("rsp", "rbp") and self.segment not in ("fs", "gs")


@dataclass(frozen=True, slots=True)
class Instruction:
    """The facts about one instruction; they do not depend on its address, see `text` for what does.

    `name` is the mnemonic without prefixes, in lower case, made for dispatch: MOV with a control or debug
    register is `mov_to_cr`, `mov_from_cr`, `mov_to_dr` or `mov_from_dr`, with a segment register
    `mov_to_segment` or `mov_from_segment` (and `push_segment`, `pop_segment`), a far CALL or JMP is `lcall` or
    `ljmp`, and the 32-bit SYSRET is `sysretl`.  `registers` are the register operands as written.
    """

    size: int
    """Bytes."""
    name: str
    mnemonic: str
    """As written, with prefixes: "rep movsb", "lock xadd"."""
    registers: tuple[str, ...]
    memory: Memory | None
    """The operand that ModRM or a moffs names; None for the implicit [rsi] and [rdi] of strings."""
    reads: int
    """Data reads when it retires; of one iteration if `rep`."""
    writes: int
    """Data writes when it retires; of one iteration if `rep`."""
    modifies: bool
    """Reads and then writes its memory operand: the #PF of its read on a missing page says W=1."""
    rep: bool
    """A string instruction under REP, REPE or REPNE."""
    stack_reads: bool
    """A read of it goes through SS: a non-canonical address is #SS, not #GP (SDM Vol. 3A 6.15)."""
    stack_writes: bool
    """A write of it goes through SS."""

    @property
    def stack(self) -> bool:
        """Does any access of it go through SS?"""
        return self.stack_reads or self.stack_writes

    def uses_stack(self, *, writes: bool) -> bool:
        """Does its write, or its read, go through SS?"""
        return self.stack_writes if writes else self.stack_reads

    @property
    def rotates_through_carry(self) -> bool:
        """RCL or RCR of memory: Unicorn changes CF before a write that may still be refused."""
        return self.name in ("rcl", "rcr") and self.memory is not None

    @property
    def stores_condition(self) -> bool:
        """SETcc of memory: Unicorn may compute the flags in place before a write that may still be refused."""
        return self.name.startswith("set") and self.memory is not None

    @property
    def is_whole(self) -> bool:
        """Does it decode, with all its bytes? Only `decode_block` returns others."""
        return self.known and self.name not in ("mov_to_cr", "mov_from_cr")

    @property
    def known(self) -> bool:
        """Does it decode?  Only `decode_block` returns instructions that do not."""
        return self.name != UNKNOWN


def decode(code: bytes) -> Instruction | None:
    """Return the first instruction of `code`, or None if that is invalid or cut short."""
    return _decode(code[:MAX_SIZE])


def decode_block(code: bytes) -> tuple[Instruction, ...]:
    """Return the instructions that cover exactly `code`, a block whose size Unicorn has told.

    Unicorn accepts some bytes that no processor does (LOCK before almost anything).  From the first that
    does not decode, one last instruction named "(bad)", with `known` false and no accesses, covers the rest. Of MOV
    to and from a control register it has not read the last byte; the instruction is known without it.

    >>> [one.name for one in decode_block(bytes.fromhex("90 0f20"))]
    ['nop', 'mov_from_cr']
    """
    instructions: list[Instruction] = []
    offset = 0
    while offset < len(code):
        instruction = decode(code[offset : offset + MAX_SIZE]) or _cut_short(code[offset:])
        instructions.append(instruction)
        offset += instruction.size
    return tuple(instructions)


def text(code: bytes, va: int = 0) -> str:
    """Return the first instruction of `code` in Intel syntax as it reads at `va`.

    Branches show their target; RIP-relative operands carry theirs behind a `#`, as objdump has it.
    """
    return _text(code[:MAX_SIZE], va)


def effective_address(
    instruction: Instruction,
    registers: Callable[[str], int],
    next_rip: int,
    fs_base: int = 0,
    gs_base: int = 0,
) -> int:
    """Return the linear address of the memory operand; ValueError if there is none.

    `registers` gives the value of a 64-bit register by name ("rax"), `next_rip` is the address after the
    instruction.  A bit test adds its bit offset to this, and `pop [rsp + n]` sees RSP after the pop.
    """
    operand = instruction.memory
    if operand is None:
        raise ValueError(f"{instruction.mnemonic} has no memory operand")
    offset = operand.displacement
    if operand.base:
        offset += next_rip if operand.base == "rip" else registers(operand.base)
    if operand.index:
        offset += registers(operand.index) * operand.scale
    offset &= (1 << operand.address_bits) - 1
    segment_base = {"fs": fs_base, "gs": gs_base}.get(operand.segment, 0)
    return (segment_base + offset) & 0xFFFF_FFFF_FFFF_FFFF


def is_too_long(code: bytes) -> bool:
    """Say whether prefixes make the first instruction of `code` longer than any may be (#GP, SDM Vol. 3A 6.15)."""
    prefixes = _PREFIXES.match(code)
    assert prefixes is not None
    body = decode(code[prefixes.end() :])
    return prefixes.end() + (body.size if body else 1) > MAX_SIZE


_PREFIXES: Final = re.compile(rb"[\x26\x2e\x36\x3e\x40-\x4f\x64-\x67\xf0\xf2\xf3]*")
_PREFIX: Final = rb"[\x26\x2e\x36\x3e\x40-\x4f\x64-\x67\xf0\xf2\xf3]{0,13}"
_BIT_TEST: Final = rb"\x0f(?:[\xa3\xab\xb3\xbb](?:[\xc0-\xff]|\Z)|\xba(?:[\xe0-\xff]|\Z)|\Z)"
_LOCKED_BIT_TEST: Final = re.compile(rb"(?=" + _PREFIX + rb"\xf0" + _PREFIX + rb"(?:" + _BIT_TEST + rb"|\Z))")


def host_aborts(code: bytes) -> Iterator[int]:
    """Yield each offset of `code` at which Unicorn 2.1.4 must not start to translate an instruction.

    LOCK before a bit test of a *register* is #UD on a processor (SDM Vol. 2A, LOCK).  Unicorn's translator
    calls abort() there, which ends the whole host process, even when the instruction would never execute.
    What the end of `code` cuts counts if it may go on like that.
    A stop at these addresses (`ctl_set_exits`) ends the translation in front of it; then deliver #UD.

    >>> list(host_aborts(bytes.fromhex("90 f0 0f ab c1")))   # nop; lock bts ecx, eax
    [1]
    """
    return (match.start() for match in _LOCKED_BIT_TEST.finditer(code))


@lru_cache(maxsize=1 << 16)
def _decode(code: bytes) -> Instruction | None:
    found = _disassemble(code, 0)
    if found is None:
        return None
    registers, memory, destination = _operands(found)
    name = _name(found, registers)
    string = name in _STRING and found.opcode[0] != 0x0F
    if string:
        memory = None
    reads, writes = _STRING[name] if string else _operand_accesses(name, memory, destination)
    stack_reads, stack_writes = _stack_accesses(found, name)
    other_reads, other_writes = _IMPLICIT.get(name, (0, 0))
    through_ss = memory is not None and memory.stack
    return Instruction(
        size=found.size,
        name=name,
        mnemonic=found.mnemonic,
        registers=registers,
        memory=memory,
        reads=reads + stack_reads + other_reads,
        writes=writes + stack_writes + other_writes,
        modifies=destination and _MODIFIED.fullmatch(name) is not None,
        rep=string and found.prefix[0] in (0xF2, 0xF3),
        stack_reads=bool(stack_reads or (through_ss and reads)),
        stack_writes=bool(stack_writes or (through_ss and writes)),
    )


@lru_cache(maxsize=1 << 14)
def _text(code: bytes, va: int) -> str:
    found, instruction = _disassemble(code, va), decode(code)
    if found is None or instruction is None:
        return UNKNOWN
    written = f"{found.mnemonic} {found.op_str}".rstrip()
    if instruction.memory is None or instruction.memory.base != "rip":
        return written
    target = effective_address(instruction, lambda _: 0, va + instruction.size)
    return f"{written}  # {target:#x}"


def _cut_short(code: bytes) -> Instruction:
    """What stands at the end of a block and does not decode."""
    if re.fullmatch(rb"[\x40-\x4f]?\x0f[\x20\x22]", code) and (whole := decode(code + b"\xc0")) is not None:
        return replace(whole, size=len(code))
    return _unknown(len(code))


def _unknown(size: int) -> Instruction:
    return Instruction(size, UNKNOWN, UNKNOWN, (), None, 0, 0, False, False, False, False)


@cache
def _disassembler() -> Any:
    """Capstone, imported at the first use: a tenth of a second that most commands need not spend."""
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    disassembler = Cs(CS_ARCH_X86, CS_MODE_64)
    disassembler.detail = True
    return disassembler


_SEGMENTS: Final = frozenset(("cs", "ds", "es", "fs", "gs", "ss"))
_HINT_NOP: Final = re.compile(rb"[\x26\x2e\x36\x3e\x64-\x67\xf2\xf3]*[\x40-\x4f]?\x0f[\x0d\x18-\x1e]")


def _disassemble(code: bytes, va: int) -> Any:
    """Return capstone's CsInsn for the first instruction of `code`, or None.

    0F 0D and 0F 18 to 0F 1E are NOPs with a ModRM byte wherever nothing better is defined (SDM Vol. 2D, Table
    A-3); capstone knows that only of 0F 1F.
    """
    found = next(_disassembler().disasm(code, va, 1), None)
    if found is None and (hint := _HINT_NOP.match(code)):
        plain = code[: hint.end() - 1] + b"\x1f" + code[hint.end() :]
        found = next(_disassembler().disasm(plain, va, 1), None)
    return found


def _name(found: Any, registers: tuple[str, ...]) -> str:
    """Return the mnemonic without prefixes and without ambiguity, see `Instruction`."""
    name: str = found.mnemonic.rpartition(" ")[2]
    if name == "mov" and len(registers) == 2:
        to, source = (register[:2] for register in registers)
        if to in ("cr", "dr"):
            return f"mov_to_{to}"
        if source in ("cr", "dr"):
            return f"mov_from_{source}"
    if name == "mov" and not _SEGMENTS.isdisjoint(registers):
        return {0x8C: "mov_from_segment", 0x8E: "mov_to_segment"}[found.opcode[0]]
    if name in ("push", "pop") and not _SEGMENTS.isdisjoint(registers):
        return f"{name}_segment"
    if found.opcode[0] == 0xFF and found.modrm >> 3 & 7 in (3, 5):
        return {"call": "lcall", "jmp": "ljmp"}.get(name, name)
    return "sysretl" if name == "sysret" else name


def _operands(found: Any) -> tuple[tuple[str, ...], Memory | None, bool]:
    """Return the registers, the memory operand, and whether that is the first operand, the destination."""
    from capstone.x86 import X86_OP_MEM, X86_OP_REG

    registers: list[str] = []
    memory, destination = None, False
    for position, operand in enumerate(found.operands):
        if operand.type == X86_OP_REG:
            registers.append(_register(operand.reg))
        elif operand.type == X86_OP_MEM and memory is None:
            memory, destination = _memory(operand.mem, found.addr_size * 8), position == 0
    return tuple(registers), memory, destination


def _memory(operand: Any, address_bits: int) -> Memory:
    return Memory(
        base=_full(_register(operand.base)),
        index=_full(_register(operand.index)),
        scale=operand.scale,
        displacement=operand.disp,
        segment=_register(operand.segment),
        address_bits=address_bits,
    )


@cache
def _register(number: int) -> str:
    """Return capstone's name of a register; of register 0, none, the empty string."""
    name: str | None = _disassembler().reg_name(number)
    return name or ""


def _full(register: str) -> str:
    """Return the 64-bit name of an address register; RIZ is how capstone says that there is no index."""
    if register in ("riz", "eiz"):
        return ""
    return "r" + register[1:] if register.startswith("e") else register.removesuffix("d")


def _operand_accesses(name: str, memory: Memory | None, destination: bool) -> tuple[int, int]:
    """Return the reads and writes of a memory operand."""
    if memory is None or _UNTOUCHED.fullmatch(name):
        return 0, 0
    if destination and _MODIFIED.fullmatch(name):
        return 1, 1
    return (0, 1) if destination and _STORED.fullmatch(name) else (1, 0)


def _stack_accesses(found: Any, name: str) -> tuple[int, int]:
    """Return the reads and writes of the stack that the operands do not show.

    ENTER pushes RBP, copies level - 1 frame pointers, and pushes the new one (SDM Vol. 2A, ENTER).
    """
    if name == "enter":
        level = found.operands[1].imm & 31
        return max(level - 1, 0), 1 + level
    return _STACK.get(name, (0, 0))
