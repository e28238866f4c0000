"""How bytes become names, addresses and text, and what happens with bytes that are no instruction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruction_forms import one

from emu.instruction import MAX_SIZE, decode, decode_block, effective_address, host_aborts, text


@pytest.mark.parametrize(
    ("form", "name", "registers"),
    [
        *((name, name, ()) for name in ("hlt", "cli", "sti", "clac", "stac", "swapgs", "wrmsr", "rdmsr", "clts")),
        *((name, name, ()) for name in ("wbinvd", "invd", "xsetbv", "rdpmc", "vmcall", "sysretq", "iretq")),
        *((name, name, ()) for name in ("syscall", "sysenter", "cpuid", "rdtsc", "rdtscp", "int3", "ud2")),
        ("sysret", "sysretl", ()),
        ("mov cr3, rax", "mov_to_cr", ("cr3", "rax")),
        ("mov cr8, r15", "mov_to_cr", ("cr8", "r15")),
        ("mov rdi, cr3", "mov_from_cr", ("rdi", "cr3")),
        ("mov dr7, rax", "mov_to_dr", ("dr7", "rax")),
        ("mov rax, dr6", "mov_from_dr", ("rax", "dr6")),
        ("mov rax, rcx", "mov", ("rax", "rcx")),
        ("mov ds, eax", "mov_to_segment", ("ds", "eax")),
        ("invlpg [rdi]", "invlpg", ()),
        ("invpcid rax, [rbx]", "invpcid", ("rax",)),
        ("lgdt [rbx]", "lgdt", ()),
        ("lidt [rbx]", "lidt", ()),
        ("lldt ax", "lldt", ("ax",)),
        ("ltr word ptr [rbx]", "ltr", ()),
        ("ltr cx", "ltr", ("cx",)),
        ("lmsw ax", "lmsw", ("ax",)),
        ("call fword ptr [rbx]", "lcall", ()),
        ("rex64 call fword ptr [rbx]", "lcall", ()),
        ("jmp fword ptr [rbx]", "ljmp", ()),
        ("call qword ptr [rbx]", "call", ()),
        ("lock xadd [rbx], rcx", "xadd", ("rcx",)),
        ("rep movsb", "movsb", ()),
        ("rep ret", "ret", ()),
        ("notrack jmp rax", "jmp", ("rax",)),
    ],
)
def test_a_machine_can_dispatch_on_the_name(form: str, name: str, registers: tuple[str, ...]) -> None:
    instruction = one(form)
    assert (instruction.name, instruction.registers) == (name, registers)


MASK = (1 << 64) - 1
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


@settings(deadline=None)
@given(
    base=st.sampled_from(["", *NAMES]),
    index=st.sampled_from(["", *(name for name in NAMES if name != "rsp")]),
    scale=st.sampled_from([1, 2, 4, 8]),
    displacement=st.integers(-(1 << 31), (1 << 31) - 1),
    segment=st.sampled_from(["", "fs", "gs", "ds"]),
    values=st.lists(st.integers(0, MASK), min_size=16, max_size=16),
)
def test_any_address_form_adds_up(
    base: str, index: str, scale: int, displacement: int, segment: str, values: list[int]
) -> None:
    parts = [base, f"{scale}*{index}" if index else "", str(displacement)]
    form = f"invlpg {segment + ':' if segment else ''}[{' + '.join(part for part in parts if part)}]"
    registers = dict(zip(NAMES, values, strict=True))
    bases = {"fs": values[0], "gs": values[1]}
    expected = registers.get(base, 0) + scale * registers.get(index, 0) + displacement + bases.get(segment, 0)
    va = effective_address(one(form), registers.__getitem__, 0, bases["fs"], bases["gs"])
    assert va == expected & MASK


@pytest.mark.parametrize(
    ("form", "va"),
    [
        ("mov eax, [ebx]", 0xFFFF_FFF0),
        ("mov eax, [ebx + 0x20]", 0x10),  # a 32-bit address wraps
        ("mov eax, fs:[ebx + 0x20]", 0x7010),  # before the segment base is added
        ("mov eax, [ebx + 2*ecx]", 0xFFFF_FFF4),
        ("mov eax, [rip + 0x100]", 0x40_1100),
        ("mov eax, [rip - 1]", 0x40_0FFF),
        ("movabs al, [0xffff888000000000]", 0xFFFF_8880_0000_0000),
        ("mov eax, [-8]", MASK - 7),
        ("mov eax, gs:[0x10]", 0xFFFF_8000_0000_0010),
    ],
)
def test_effective_addresses_wrap_as_the_address_size_says(form: str, va: int) -> None:
    registers = {"rbx": 0x1234_5678_FFFF_FFF0, "rcx": 0xAAAA_0000_0000_0002}
    gs_base = 0xFFFF_8000_0000_0000
    assert effective_address(one(form), registers.__getitem__, 0x40_1000, 0x7000, gs_base) == va


def test_without_a_memory_operand_there_is_no_effective_address() -> None:
    with pytest.raises(ValueError, match="push has no memory operand"):
        effective_address(one("push rax"), lambda _: 0, 0)


@pytest.mark.parametrize(
    ("code", "va", "written"),
    [
        ("90", 0, "nop"),
        ("0f22d8", 0, "mov cr3, rax"),
        ("f0480fc108", 0, "lock xadd qword ptr [rax], rcx"),
        ("f348a5", 0, "rep movsq qword ptr [rdi], qword ptr [rsi]"),
        ("eb10", 0x1000, "jmp 0x1012"),
        ("eb10", 0xFFFF_FFFF_8000_0000, "jmp 0xffffffff80000012"),
        ("488b0510000000", 0x1000, "mov rax, qword ptr [rip + 0x10]  # 0x1017"),
        ("488b0510000000", 0x2000, "mov rax, qword ptr [rip + 0x10]  # 0x2017"),
        ("06", 0, "(bad)"),
        ("", 0, "(bad)"),
    ],
)
def test_text_reads_as_at_its_address(code: str, va: int, written: str) -> None:
    assert text(bytes.fromhex(code), va) == written


PREFIXES = st.lists(st.sampled_from(list(b"\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0\x40\x48\x4f")), max_size=6)
CODE_BYTES = st.builds(lambda prefixes, rest: bytes(prefixes) + rest, PREFIXES, st.binary(max_size=40))


@settings(deadline=None, max_examples=500)
@given(CODE_BYTES)
def test_any_bytes_decode_or_do_not(code: bytes) -> None:
    instruction = decode(code)
    assert isinstance(text(code, 0x401000), str)
    if instruction is None:
        assert text(code) == "(bad)"
        return
    assert 1 <= instruction.size <= min(len(code), MAX_SIZE)
    assert decode(code[: instruction.size]) == instruction
    assert 0 <= instruction.reads <= 32
    assert 0 <= instruction.writes <= 33


@settings(deadline=None)
@given(CODE_BYTES)
def test_a_block_is_covered_exactly(code: bytes) -> None:
    block = decode_block(code)
    assert sum(instruction.size for instruction in block) == len(code)
    assert all(instruction.known for instruction in block[:-1])


def test_what_does_not_decode_is_one_unknown_instruction_to_the_end() -> None:
    nop, unknown = decode_block(bytes.fromhex("90 f00f05 9090"))  # Unicorn executes LOCK SYSCALL
    assert (nop.name, nop.known) == ("nop", True)
    assert (unknown.name, unknown.known, unknown.size) == ("(bad)", False, 5)
    assert (unknown.reads, unknown.writes) == (0, 0)


def test_an_instruction_cut_by_the_end_of_the_block_is_unknown() -> None:
    assert [(i.name, i.size) for i in decode_block(bytes.fromhex("90 48b80000"))] == [
        ("nop", 1),
        ("(bad)", 4),
    ]


@pytest.mark.parametrize("code", ["", "48", "66", "0f", "488b05", "f0", "06", "f00f05", "66" * 15 + "90"])
def test_invalid_or_short_bytes_are_none(code: str) -> None:
    assert decode(bytes.fromhex(code)) is None


@pytest.mark.parametrize("code", ["0f18c0", "0f19400a", "480f1ec8", "0f0dc0", "660f1d8000000000", "410f1cc1"])
def test_reserved_hints_are_nops(code: str) -> None:
    instruction = decode(bytes.fromhex(code) + b"\xcc" * 8)
    assert instruction is not None
    assert (instruction.name, instruction.reads, instruction.writes) == ("nop", 0, 0)
    assert instruction.size == len(code) // 2


@pytest.mark.parametrize("code", ["2ef00fabc1", "f0480fbae105", "f0660fb3c8", "f2f0410fbbd8"])
def test_locked_bit_tests_of_registers_abort_the_host(code: str, tmp_path: Path) -> None:
    """The day this fails, Unicorn is repaired and `host_aborts` can go."""
    bad = bytes.fromhex(code)
    hazards = list(host_aborts(b"\x90" + bad + b"\x90"))
    assert hazards[0] == 1
    script = tmp_path / "translate.py"
    script.write_text(
        "import sys, unicorn\n"
        "uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)\n"
        "uc.mem_map(0x1000, 0x1000)\n"
        f"uc.mem_write(0x1000, b'\\x90' + {bad!r} + b'\\x90')\n"
        "uc.ctl_exits_enabled(True)\n"
        "uc.ctl_set_exits([int(exit) for exit in sys.argv[1:]])\n"
        "uc.emu_start(0x1000, 0)\n"
        "print(uc.reg_read(unicorn.x86_const.UC_X86_REG_RIP))\n"
    )
    translate = [sys.executable, str(script)]
    assert subprocess.run(translate, capture_output=True).returncode not in (0, 1)  # 1 would be an exception
    stopped = subprocess.run([*translate, *(str(0x1000 + hazard) for hazard in hazards)], capture_output=True)
    assert (stopped.returncode, int(stopped.stdout)) == (0, 0x1001)


@pytest.mark.parametrize("code", ["0fabc1", "f00fab03", "f00fba2b05", "f0480fc108", "480fbae105", "f090"])
def test_what_does_not_abort_is_not_reported(code: str) -> None:
    assert list(host_aborts(bytes.fromhex(code))) == []
