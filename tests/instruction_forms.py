"""Forms of x86-64 instructions as assembly source, in Intel syntax, and LLVM to assemble them.

The groups differ in what Unicorn's memory hooks report for one architectural access; test_instruction.py
says how that is merged.  All forms expect RBX, RSI, RDI, RBP and RSP to point into readable and writable data
with some room around, R8 too, R11 at an address to leave for, and RCX to hold a small number.
"""

from __future__ import annotations

import io
from functools import cache
from itertools import pairwise

import llvmlite.binding as llvm
from elftools.elf.elffile import ELFFile

from emu.instruction import Instruction, decode

__all__ = ["DATA", "HALVES", "IMAGES", "INPUTS", "ONE_EVENT", "OVERREADS", "assemble", "one"]

DATA = 0x400000
"""Where the forms with an absolute address expect data."""


def forms(mnemonics: str, *operands: str) -> list[str]:
    """Return every mnemonic with every operand list."""
    return [f"{mnemonic} {operand}" for operand in operands for mnemonic in mnemonics.split(" ")]


def strings(stems: str, widths: str, repeat: str) -> list[str]:
    """Return the string instructions of these widths, each once alone and once repeated."""
    return [f"{prefix}{stem}{width}" for prefix in ("", repeat) for stem in stems.split() for width in widths]


CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")

ONE_EVENT = [
    *forms(
        "add or adc sbb and sub xor cmp",
        "byte ptr [rbx], 7",
        "word ptr [rbx + 8], cx",
        "dword ptr [rbx + 4*rcx], 0x12345",
        "qword ptr [rbp - 8], rcx",
        "rcx, [rsi]",
        "cl, fs:[16]",
    ),
    *forms(
        "lock",
        "add dword ptr [rbx], ecx",
        "or byte ptr gs:[8], 1",
        "dec qword ptr [rbx]",
        "not byte ptr [r8]",
    ),
    *forms("inc dec not neg", "byte ptr [rbx]", "word ptr [rbx]", "dword ptr [rsp + 8]", "qword ptr [r8]"),
    *forms(
        "rol ror rcl rcr shl shr sar",
        "byte ptr [rbx], 1",
        "word ptr [rbx], cl",
        "dword ptr [rbx], 0",
        "qword ptr [rbx], 5",
    ),
    *forms("shld shrd", "word ptr [rbx], dx, 3", "dword ptr [rbx], edx, cl", "qword ptr [rbx], rdx, 0"),
    *forms("bt bts btr btc", "word ptr [rbx], 3", "dword ptr [rbx], ecx", "qword ptr [rbx], rcx"),
    *forms("lock", "bts dword ptr [rbx], ecx", "btr word ptr [rbx], 3", "btc qword ptr [rbx], rcx"),
    *forms("mul imul div idiv", "byte ptr [rbx]", "word ptr [rbx]", "dword ptr [rbx]", "qword ptr [rbx]"),
    *forms("imul", "ecx, [rbx]", "rcx, [rbx], 9", "cx, [rbx], 1000"),
    *forms("test", "byte ptr [rbx], 1", "dword ptr [rbx], ecx", "qword ptr [rbx], 5"),
    *forms(
        "mov",
        "[rbx], al",
        "[rbx], ax",
        "[rbx], eax",
        "[rbx], rax",
        "al, [rbx]",
        "rax, [rbx]",
        "eax, gs:[rcx]",
    ),
    *forms("mov", "byte ptr [rbx], 1", "qword ptr [rbx], -1", "word ptr [rbx], ds", "[rbx + 8*rcx - 3], ah"),
    *forms("movabs", f"al, [{DATA}]", f"rax, [{DATA}]", f"[{DATA}], eax", f"[{DATA}], al"),
    *forms("movzx movsx", "eax, byte ptr [rbx]", "rax, word ptr [rbx]", "ax, byte ptr [ebx]"),
    *forms("movsxd", "rax, dword ptr [rbx]"),
    *forms("movbe", "eax, [rbx]", "[rbx], rax", "cx, [rbx]"),
    *(f"set{condition} byte ptr [rbx]" for condition in CONDITIONS),
    *(f"cmov{condition} rax, [rbx]" for condition in CONDITIONS),
    *forms("xchg xadd cmpxchg", "[rbx], cl", "[rbx], cx", "[rbx], ecx", "[rbx], rcx"),
    *forms("lock", "xchg [rbx], rcx", "xadd [rbx], ecx", "cmpxchg [rbx], rcx", "cmpxchg8b [rbx]"),
    *forms("cmpxchg8b", "[rbx]"),
    *forms(
        "push",
        "rax",
        "r8",
        "ax",
        "7",
        "0x12345",
        "fs",
        "qword ptr [rbx]",
        "word ptr [rbx]",
        "qword ptr [rsp]",
    ),
    *forms("pop", "rax", "r8", "ax", "qword ptr [rbx]", "word ptr [rbx]"),
    *forms("", "pushfq", "popfq", "pushf", "popf", "leave", "xlatb", "ret", "ret 16", "nop", "cpuid", "mfence"),
    *forms("enter", "16, 0", "0, 1", "32, 2", "32, 7"),
    *forms("call", "7f; 7:", "r11", "qword ptr [rbx]", "qword ptr [rsp + 8]"),
    *forms("jmp", "7f; 7:", "r11", "qword ptr [rbx]"),
    *forms("", "je 7f; 7:", "jrcxz 7f; 7:", "loop 7f; 7:"),
    *forms("lea", "rax, [rbx + 8]", "eax, [rip]", "ax, [rbp]", "rax, fs:[0]"),
    *forms("nop", "dword ptr [rax]", "word ptr cs:[rax + rax]", "qword ptr [rax]"),
    *forms("prefetcht0 prefetcht1 prefetcht2 prefetchnta prefetchw clflush", "byte ptr [rbx]"),
    *strings("movs stos lods", "bwdq", "rep "),
    *strings("cmps", "bwdq", "repe "),
    *strings("scas", "bwdq", "repne "),
    *strings("outs", "bwd", "rep "),
    *forms("", "addr32 rep stosb"),
    *forms("popcnt lzcnt tzcnt bsf bsr", "eax, [rbx]", "rax, [rbx]"),
    *forms("crc32", "eax, byte ptr [rbx]", "rax, qword ptr [rbx]"),
    *forms("andn mulx pdep pext", "rax, rcx, [rbx]"),
    *forms("bextr bzhi sarx shlx shrx", "eax, [rbx], ecx"),
    *forms("blsi blsr blsmsk", "eax, [rbx]"),
    *forms("rorx", "rax, [rbx], 5"),
    *forms("fadd fsub fsubr fmul fdiv fdivr fcom fcomp fld fst fstp", "dword ptr [rbx]", "qword ptr [rbx]"),
    *forms("fiadd fisub fimul fidiv ficom fild fist fistp fisttp", "word ptr [rbx]", "dword ptr [rbx]"),
    *forms("fild fistp fisttp", "qword ptr [rbx]"),
    *forms("fldcw fnstcw fnstsw", "word ptr [rbx]"),
    *forms("ldmxcsr stmxcsr", "dword ptr [rbx]"),
    *forms("smsw str sldt verr verw", "word ptr [rbx]"),
    *forms("paddb pxor punpckhbw pmullw psrlw psadbw pshufb", "mm0, [rbx]"),
    *forms("movq", "mm0, [rbx]", "[rbx], mm0", "xmm0, [rbx]", "[rbx], xmm0"),
    *forms("movd", "mm0, [rbx]", "[rbx], mm0", "xmm0, dword ptr [rbx]", "dword ptr [rbx], xmm0"),
    *forms("movss addss mulss sqrtss ucomiss cvtss2sd", "xmm0, dword ptr [rbx]"),
    *forms("movsd subsd divsd maxsd comisd cvtsd2ss cmpltsd", "xmm0, qword ptr [rbx]"),
    *forms("cvtss2si cvttss2si", "eax, dword ptr [rbx]"),
    *forms("cvtsd2si cvttsd2si", "rax, qword ptr [rbx]"),
    *forms("movlps movhps movlpd movhpd movddup pmovzxbw pmovsxdq", "xmm0, qword ptr [rbx]"),
    *forms("movlps movhps movlpd movhpd movsd", "qword ptr [rbx], xmm0"),
    *forms("movss", "dword ptr [rbx], xmm0"),
    *forms("movntq", "[rbx], mm0"),
    *forms("movnti", "[rbx], eax", "[rbx], rax"),
    *forms("pinsrb", "xmm0, byte ptr [rbx], 1"),
    *forms("pinsrw", "xmm0, word ptr [rbx], 1", "mm0, word ptr [rbx], 1"),
    *forms("pinsrd insertps", "xmm0, dword ptr [rbx], 1"),
    *forms("pinsrq", "xmm0, qword ptr [rbx], 1"),
    *forms("pextrb", "byte ptr [rbx], xmm0, 1"),
    *forms("pextrw", "word ptr [rbx], xmm0, 1"),
    *forms("pextrd extractps", "dword ptr [rbx], xmm0, 1"),
    *forms("pextrq", "qword ptr [rbx], xmm0, 1"),
]
HALVES = [
    *forms("movups movupd movaps movapd movdqu movdqa", "xmm0, [rbx]", "[rbx], xmm1"),
    *forms("movntps movntpd movntdq", "[rbx], xmm0"),
    *forms("movntdqa lddqu", "xmm0, [rbx]"),
    *forms("addps subpd mulps divps sqrtps maxps andps xorpd unpcklps cvtps2dq", "xmm0, [rbx]"),
    *forms("paddd pand pcmpeqb pshufb pmulld ptest pmaxub punpcklqdq psadbw aesenc", "xmm0, [rbx]"),
    *forms("shufps pshufd pclmulqdq palignr dpps blendps mpsadbw pcmpistri roundps cmpps", "xmm0, [rbx], 1"),
    *forms("cmpxchg16b", "xmmword ptr [rbx]"),
    *forms("lock", "cmpxchg16b [rbx]"),
]

OVERREADS = [
    *forms("cvtps2pi cvttps2pi", "mm0, qword ptr [rbx]"),
    *forms("cvtps2pd cvtdq2pd", "xmm0, qword ptr [rbx]"),
    *forms("roundsd", "xmm0, qword ptr [rbx], 1"),
    *forms("roundss", "xmm0, dword ptr [rbx], 1"),
]

INPUTS = strings("ins", "bwd", "rep ")

IMAGES = [
    *forms("fld fstp", "xword ptr [rbx]"),
    *forms("fbld fbstp", "tbyte ptr [rbx]"),
    *forms("fxsave fxsave64 fxrstor fxrstor64 fnsave frstor fnstenv fldenv", "[rbx]"),
    *forms("xsave xsave64 xsaveopt xrstor xrstor64", "[rbx]"),
    *forms("sgdt sidt", "[rbx]"),
    "pcmpeqb xmm0, xmm0; maskmovdqu xmm1, xmm0",
]


@cache
def assemble(lines: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the machine code of each line (Intel syntax), assembled by LLVM."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    labelled = "".join(f"line{n}: {line}\n" for n, line in enumerate((*lines, "")))
    source = ".intel_syntax noprefix\n" + labelled
    ir = 'module asm "{}"'.format("".join(f"\\{byte:02X}" for byte in source.encode()))
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(reloc="static")
    elf = ELFFile(io.BytesIO(target.emit_object(llvm.parse_assembly(ir))))
    symbols = elf.get_section_by_name(".symtab")
    starts = [symbols.get_symbol_by_name(f"line{n}")[0]["st_value"] for n in range(len(lines) + 1)]
    code = elf.get_section_by_name(".text").data()
    return tuple(code[start:end] for start, end in pairwise(starts))


def one(form: str) -> Instruction:
    """Return what `decode` says about a form in assembly; it must be one whole instruction."""
    (code,) = assemble((form,))
    instruction = decode(code)
    assert instruction is not None, f"{form} = {code.hex()} does not decode"
    assert instruction.size == len(code)
    return instruction
