"""What `emu.instruction` says about instructions, asked of everyone who knows.

LLVM assembles the forms and so knows their sizes, Unicorn executes them and reports every access, the SDM
has the last word on what an access is, and the real processor tells which faults are stack faults.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import unicorn
from instruction_forms import DATA, HALVES, IMAGES, INPUTS, ONE_EVENT, OVERREADS, assemble, one
from native import requires_native, run_native
from unicorn import x86_const

from emu.instruction import MAX_SIZE, Instruction, decode, decode_block, effective_address

Event = tuple[str, int, int]
"""R or W, address and size of one access as Unicorn's memory hooks report it."""

CODE, CODE_SIZE, DATA_SIZE = 0x10000, 0x10000, 0x10000
EXIT = 0x2080
"""Fills the data, so that RET and JMP land there; valid as RFLAGS, MXCSR and FPU control word, too."""

REGISTERS = {
    "rax": 2,
    "rcx": 3,
    "rdx": 0,
    "rbx": DATA + 0x4000,
    "rsi": DATA + 0x5000,
    "rdi": DATA + 0x6000,
    "rbp": DATA + 0x7000,
    "rsp": DATA + 0x8000,
    "r8": DATA + 0x9000,
    "r11": EXIT,
}
FS_BASE, GS_BASE = DATA + 0x100, DATA + 0x200


# --- Against Unicorn and LLVM -------------------------------------------------------------------------


class Observer:
    """Unicorn with flat memory, CPL 0 and hooks that note every access."""

    def __init__(self, code: bytes) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.uc.mem_map(CODE, CODE_SIZE)
        self.uc.mem_map(DATA, DATA_SIZE)
        self.uc.mem_write(CODE, code)
        self.uc.reg_write(x86_const.UC_X86_REG_FS_BASE, FS_BASE)
        self.uc.reg_write(x86_const.UC_X86_REG_GS_BASE, GS_BASE)
        self.uc.reg_write(x86_const.UC_X86_REG_FPTAG, 0xFFFF)
        self.uc.ctl_exits_enabled(True)
        self.reset = self.uc.context_save()
        self.events: list[Event] = []
        self.uc.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, self.note)

    def note(self, _uc: object, kind: int, va: int, size: int, _value: int, _data: object) -> None:
        self.events.append(("R" if kind == unicorn.UC_MEM_READ else "W", va, size))

    def accesses(self, start: int, end: int) -> list[Event]:
        """Execute what lies between two addresses and return its accesses in order."""
        self.uc.context_restore(self.reset)
        self.uc.mem_write(DATA, EXIT.to_bytes(8, "little") * (DATA_SIZE // 8))
        self.uc.mem_write(REGISTERS["rbx"] + 512, bytes(64))  # XRSTOR wants a header without unknown bits
        for name, value in REGISTERS.items():
            self.uc.reg_write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), value)
        self.uc.ctl_set_exits([end, EXIT])
        self.events = []
        self.uc.emu_start(start, end)
        return self.events


def each_event(events: list[Event]) -> list[Event]:
    """Integer, x87 and scalar SSE operands: every event is an access."""
    return events


def halves(events: list[Event]) -> list[Event]:
    """A 16-byte operand is two events of 8 bytes, the lower one first.

    Unicorn also reads 16 bytes for six SSE conversions and roundings whose operand has 4 or 8.
    """
    pairs = list(zip(events[::2], events[1::2], strict=True))
    assert all(upper == (lower[0], lower[1] + 8, 8) for lower, upper in pairs), events
    return [lower for lower, _ in pairs]


def tried_first(events: list[Event]) -> list[Event]:
    """INS stores once before it reads the port, to fault first, and once to keep what it read."""
    assert events[::2] == events[1::2]
    return events[::2]


def one_image(events: list[Event]) -> list[Event]:
    """Operands moved field by field are one access in each direction.

    These are 80-bit numbers (8 bytes and 2, packed BCD byte by byte), the descriptor-table registers (2 bytes
    and 8), FPU, SSE and XSAVE state, and the bytes that MASKMOV stores under its mask.
    """
    lowest = {kind: va for kind, va, _ in sorted(events, reverse=True)}
    return [(kind, va, 0) for kind, va in lowest.items()]


def counts(instruction: Instruction) -> tuple[int, int]:
    """Return the reads and writes to expect with the count in RCX."""
    iterations = REGISTERS["rcx"] if instruction.rep else 1
    return instruction.reads * iterations, instruction.writes * iterations


@pytest.mark.parametrize(
    ("forms", "merge"),
    [
        (ONE_EVENT, each_event),
        (HALVES, halves),
        (OVERREADS, halves),
        (INPUTS, tried_first),
        (IMAGES, one_image),
    ],
    ids=["an event is an access", "16 bytes are two events", "overreads", "input", "images"],
)
def test_an_instruction_makes_the_accesses_that_unicorn_reports(
    forms: list[str], merge: Callable[[list[Event]], list[Event]]
) -> None:
    codes = assemble(tuple(forms))
    observer = Observer(b"".join(codes))
    wrong, start = [], CODE
    for form, code in zip(forms, codes, strict=True):
        end = start + len(code)
        kinds = [kind for kind, _, _ in merge(observer.accesses(start, end))]
        seen = kinds.count("R"), kinds.count("W")
        told = tuple(map(sum, zip(*(counts(instruction) for instruction in decode_block(code)), strict=True)))
        if seen != told:
            wrong.append(f"{form}: Unicorn makes {seen} reads and writes, decode says {told}")
        start = end
    assert not wrong


def test_the_sweep_is_wide() -> None:
    assert len({*ONE_EVENT, *HALVES, *OVERREADS, *INPUTS, *IMAGES}) >= 400


@pytest.mark.parametrize("forms", [ONE_EVENT, HALVES])
def test_the_effective_address_is_where_unicorn_reads_or_writes(forms: list[str]) -> None:
    codes = assemble(tuple(forms))
    observer = Observer(b"".join(codes))
    asked, wrong, start = 0, [], CODE
    for form, code in zip(forms, codes, strict=True):
        instruction, end = decode_block(code)[0], start + len(code)
        touched = {va for _, va, _ in observer.accesses(start, end)}
        if instruction.memory and touched:
            va = effective_address(instruction, REGISTERS.__getitem__, end, FS_BASE, GS_BASE)
            asked += 1
            if va not in touched:
                wrong.append(f"{form}: computed {va:#x}, seen {touched}")
        start = end
    assert not wrong
    assert asked > len(forms) / 2


@pytest.mark.parametrize("forms", [ONE_EVENT, HALVES, OVERREADS, INPUTS, IMAGES])
def test_sizes_are_those_of_the_assembler(forms: list[str]) -> None:
    for form, code in zip(forms, assemble(tuple(forms)), strict=True):
        first, *others = decode_block(code)
        assert first.known, form
        assert first.size + sum(other.size for other in others) == len(code)
        if len(others) == 0:
            assert decode(code) == decode(code + bytes(MAX_SIZE)) == first, form
            assert decode(code[:-1]) != first, form


# --- Against the manual -------------------------------------------------------------------------------

MANUAL = """
form                                 reads writes modifies   SDM Vol. 2
mov eax, [rbx]                       1     0      no         a load
mov [rbx], eax                       0     1      no         a store does not read
movups [rbx], xmm0                   0     1      no         16 bytes are one access
movups xmm0, [rbx]                   1     0      no
add [rbx], eax                       1     1      yes        DEST := DEST + SRC
add eax, [rbx]                       1     0      no
cmp [rbx], eax                       1     0      no         only flags
test [rbx], eax                      1     0      no
inc byte ptr [rbx]                   1     1      yes
neg word ptr [rbx]                   1     1      yes
rcl dword ptr [rbx], cl              1     1      yes
rcr qword ptr [rbx], 1               1     1      yes
rol dword ptr [rbx], cl              1     1      yes
ror dword ptr [rbx], 4               1     1      yes
shl dword ptr [rbx], cl              1     1      yes
shld [rbx], eax, 3                   1     1      yes
xchg [rbx], rax                      1     1      yes
xchg rax, [rbx]                      1     1      yes
xadd [rbx], rax                      1     1      yes
lock xadd [rbx], rax                 1     1      yes
cmpxchg [rbx], rcx                   1     1      yes        also writes when it fails
cmpxchg8b [rbx]                      1     1      yes
cmpxchg16b [rbx]                     1     1      yes
lock cmpxchg16b [rbx]                1     1      yes
bt [rbx], eax                        1     0      no
bts [rbx], eax                       1     1      yes
lock btr dword ptr [rbx], 3          1     1      yes
btc qword ptr [rbx], 60              1     1      yes
sete [rbx]                           0     1      no
cmove eax, [rbx]                     1     0      no         reads even if the condition is false
push rax                             0     1      no
push qword ptr [rbx]                 1     1      no         one operand, one stack slot
pop qword ptr [rbx]                  1     1      no
call rax                             0     1      no
call qword ptr [rbx]                 1     1      no
jmp qword ptr [rbx]                  1     0      no
ret                                  1     0      no
retf                                 2     0      no         RIP and CS
iretq                                5     0      no         RIP, CS, RFLAGS, RSP and SS
call fword ptr [rbx]                 1     2      no         m16:32, pushes CS and RIP
enter 0, 0                           0     1      no
enter 8, 1                           0     2      no
enter 8, 5                           4     6      no         copies four frame pointers
enter 8, 33                          0     2      no         the level is modulo 32
leave                                1     0      no
pushfq                               0     1      no
popfq                                1     0      no
lea rax, [rbx]                       0     0      no
nop dword ptr [rbx]                  0     0      no
prefetcht0 [rbx]                     0     0      no
clflush [rbx]                        0     0      no
clflushopt [rbx]                     0     0      no
invlpg [rbx]                         0     0      no
invpcid rax, [rbx]                   1     0      no         the descriptor
movsb                                1     1      no         [RDI] := [RSI]
cmpsq                                2     0      no
scasd                                1     0      no
lodsw                                1     0      no
stosq                                0     1      no
insb                                 0     1      no
outsd                                1     0      no
xlatb                                1     0      no
movsd xmm0, qword ptr [rbx]          1     0      no         SSE2, no string
movsd qword ptr [rbx], xmm0          0     1      no
cmpsd xmm0, qword ptr [rbx], 1       1     0      no
maskmovdqu xmm0, xmm1                0     1      no         stores to [RDI]
fld tbyte ptr [rbx]                  1     0      no
fstp tbyte ptr [rbx]                 0     1      no
fistp word ptr [rbx]                 0     1      no
fbstp tbyte ptr [rbx]                0     1      no
fnstenv [rbx]                        0     1      no
fldenv [rbx]                         1     0      no
fxsave [rbx]                         0     1      no
fxrstor [rbx]                        1     0      no
xsave [rbx]                          1     1      yes        keeps the XSTATE_BV bits it does not save
xsavec [rbx]                         0     1      no
xrstor [rbx]                         1     0      no
ldmxcsr [rbx]                        1     0      no
stmxcsr [rbx]                        0     1      no
lgdt [rbx]                           1     0      no
sgdt [rbx]                           0     1      no
syscall                              0     0      no
sysretq                              0     0      no
int3                                 0     0      no         delivery is not the instruction's
"""


def manual() -> list[tuple[str, int, int, bool]]:
    rows = [(line[:37].strip(), line[37:].split()) for line in MANUAL.strip().splitlines()[1:]]
    return [(form, int(reads), int(writes), modifies == "yes") for form, (reads, writes, modifies, *_) in rows]


@pytest.mark.parametrize(("form", "reads", "writes", "modifies"), manual())
def test_the_manual_says_what_is_read_and_written(form: str, reads: int, writes: int, modifies: bool) -> None:
    instruction = one(form)
    assert (instruction.reads, instruction.writes) == (reads, writes)
    assert instruction.modifies == modifies


@pytest.mark.parametrize(
    ("form", "rep"),
    [
        ("movsb", False),
        ("rep movsb", True),
        ("rep stosq", True),
        ("rep lodsd", True),
        ("rep outsb", True),
        ("repe cmpsb", True),
        ("repne scasw", True),
        ("rep insd", True),
        ("rep ret", False),
        ("pause", False),  # F3 90
        ("movss xmm0, [rbx]", False),  # F3 belongs to the opcode
        ("movsd xmm0, [rbx]", False),
        ("popcnt eax, [rbx]", False),
        ("endbr64", False),
    ],
)
def test_only_strings_repeat(form: str, rep: bool) -> None:
    assert one(form).rep == rep


def test_repne_repeats_a_string_that_compares_nothing() -> None:
    stosb = decode(bytes.fromhex("f2aa"))  # SDM Vol. 2A 2.1.1: F2 also repeats INS, OUTS, MOVS, LODS, STOS
    assert stosb is not None
    assert (stosb.rep, stosb.reads, stosb.writes) == (True, 0, 1)


def test_rotates_through_carry_are_told_from_the_others() -> None:
    through = {op: one(f"{op} dword ptr [rbx], cl").rotates_through_carry for op in ("rcl", "rcr", "rol", "shl")}
    assert through == {"rcl": True, "rcr": True, "rol": False, "shl": False}
    assert not one("rcl eax, cl").rotates_through_carry


# --- The stack segment --------------------------------------------------------------------------------

STACK_FORMS = {
    "mov eax, [rsp]": True,
    "mov [rsp + 8*rcx], eax": True,
    "mov eax, [rbp]": True,
    "mov eax, [rbp + rcx]": True,
    "movups [rbp], xmm0": True,
    "fld tbyte ptr [rbp]": True,
    "add [rsp], eax": True,
    "mov eax, ds:[rsp]": True,  # 64-bit mode ignores DS, ES, CS and SS
    "mov eax, es:[rbp]": True,
    "mov eax, cs:[rsp]": True,
    "mov eax, ss:[rax]": False,
    "mov eax, fs:[rsp]": False,
    "mov eax, gs:[rbp]": False,
    "mov eax, [rax]": False,
    "mov eax, [rcx + rbp]": False,  # an index does not choose the segment
    ".byte 0x8b, 0x04, 0x2d, 0, 0, 0, 0": False,  # mov eax, [rbp*1]
    "mov eax, [r12]": False,
    "mov eax, [r13]": False,
    "push rax": True,
    "pop rax": True,
    "fs pop rax": True,
    "push qword ptr [rsp]": True,
    "push qword ptr [rax]": False,  # the operand is read first
    "pop qword ptr [rax]": True,
    "call qword ptr [rbp]": True,
    "call rax": True,
    "ret": True,
    "leave": True,
    "enter 0, 0": True,
    "pushfq": True,
    "popfq": True,
    "iretq": True,
    "stosb": False,
    "ss lodsb": False,
    "xlatb": False,
}
"""Does the *first* access of the instruction go through SS?"""


@pytest.mark.parametrize(("form", "through_ss"), STACK_FORMS.items())
def test_the_base_register_chooses_the_stack_segment(form: str, through_ss: bool) -> None:
    instruction = one(form)
    first = instruction.stack_reads if instruction.reads else instruction.stack_writes
    assert first == through_ss
    assert instruction.stack == (instruction.stack_reads or instruction.stack_writes)


def test_push_and_pop_of_memory_use_two_segments() -> None:
    push, pop = one("push qword ptr [rax]"), one("pop qword ptr [rax]")
    assert (push.stack_reads, push.stack_writes) == (False, True)
    assert (pop.stack_reads, pop.stack_writes) == (True, False)


@pytest.mark.native
@requires_native
@pytest.mark.parametrize(("form", "through_ss"), STACK_FORMS.items())
def test_the_processor_raises_ss_where_we_say_so(form: str, through_ss: bool) -> None:
    """Linux sends SIGBUS for #SS and SIGSEGV for #GP (arch/x86/kernel/traps.c, exc_stack_segment)."""
    everything_non_canonical = "\n".join(
        f"mov {register}, rax" for register in ("rbx", "rsi", "rdi", "rbp", "rsp", "r12", "r13")
    )
    program = f"""
        .globl _start
        _start: xor ecx, ecx
                movabs rax, 0x8000000000000000
                {everything_non_canonical}
                .byte {", ".join(map(str, assemble((form,))[0]))}
                ud2
    """
    assert run_native(program).signal == (signal.SIGBUS if through_ss else signal.SIGSEGV)
