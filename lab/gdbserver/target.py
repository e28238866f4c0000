"""The registers as GDB numbers them, and the XML that tells it so.

The first three features are GDB's own for x86-64 (gdb/features/i386/*.xml; their names and order are fixed). The last
one is ours: what the kernel and the memory hardware use. GDB shows it with `info registers`, and lets them be used in
expressions, such as `p $cr3`.

>>> [register.name for register in REGISTERS[:4]], NUMBER["rip"], NUMBER["cr3"]
(['rax', 'rbx', 'rcx', 'rdx'], 16, 61)
"""

from __future__ import annotations

from typing import Final, NamedTuple

from unicorn import x86_const as x86

from emu import InputError
from emu.control import Msr
from emu.softcore import GPR_NAMES

from ..session import Session

__all__ = ["NUMBER", "REGISTERS", "Register", "description", "read_registers", "write_register"]

MASK32: Final = (1 << 32) - 1
X87: Final = 32
"""Where ST0 is in an FXSAVE area, and where XMM0 (emu/fpu.py)."""
XMM: Final = 160
MXCSR: Final = 24


class Register(NamedTuple):
    """A register: its size in bits and the type that GDB shows it as."""

    name: str
    bits: int
    kind: str
    feature: str


CORE, SSE, SEGMENTS, OURS = (
    *("org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.gnu.gdb.i386.segments"),
    "org.cr3.system",
)
_GENERAL: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
_SELECTORS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_X87: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_SYSTEM: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "k_gs_base", "cpl", "pcid")

REGISTERS: Final = (
    *(Register(name, 64, "data_ptr" if name in ("rbp", "rsp") else "int64", CORE) for name in _GENERAL),
    Register("rip", 64, "code_ptr", CORE),
    Register("eflags", 32, "i386_eflags", CORE),
    *(Register(name, 32, "int32", CORE) for name in _SELECTORS),
    *(Register(f"st{n}", 80, "i387_ext", CORE) for n in range(8)),
    *(Register(name, 32, "int", CORE) for name in _X87),
    *(Register(f"xmm{n}", 128, "vec128", SSE) for n in range(16)),
    Register("mxcsr", 32, "i386_mxcsr", SSE),
    *(Register(name, 64, "int", SEGMENTS) for name in ("fs_base", "gs_base")),
    *(Register(name, 64, "int", OURS) for name in _SYSTEM),
)
NUMBER: Final = {register.name: number for number, register in enumerate(REGISTERS)}

_FLAGS: Final = {
    "i386_eflags": (
        *(("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11)),
        *(("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21)),
    ),
    "i386_mxcsr": (
        *(("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8)),
        *(("ZM", 9), ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15)),
    ),
}
_VECTOR: Final = (
    '<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>'
    '<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>'
    '<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>'
    '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>'
    '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>'
    '<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>'
)


def description() -> str:
    """The target description."""
    features = "".join(_feature(name) for name in (CORE, SSE, SEGMENTS, OURS))
    head = '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd">'
    return f"{head}<target><architecture>i386:x86-64</architecture>{features}</target>"


def _feature(name: str) -> str:
    own = [register for register in REGISTERS if register.feature == name]
    types = "".join(_flags(kind) for kind in _FLAGS if any(register.kind == kind for register in own))
    types += _VECTOR if name == SSE else ""
    lines = (f'<reg name="{one.name}" bitsize="{one.bits}" type="{one.kind}"{_group(one)}/>' for one in own)
    return f'<feature name="{name}">{types}{"".join(lines)}</feature>'


def _group(register: Register) -> str:
    return ' group="float"' if register.name in _X87 else ""


def _flags(kind: str) -> str:
    fields = (f'<field name="{name}" start="{bit}" end="{bit}"/>' for name, bit in _FLAGS[kind])
    return f'<flags id="{kind}" size="4">{"".join(fields)}</flags>'


# --- their values -----------------------------------------------------------------------------------------------------


def read_registers(session: Session) -> list[bytes]:
    """The content of every register, in GDB's order and the guest's byte order."""
    machine, cpu = session.machine, session.machine.cpu
    area = cpu.fpu.fxsave()
    values = {**cpu.registers(), **_system(session)}
    values["eflags"] = values.pop("rflags")
    values |= {name: machine.interrupts.selector(name) for name in _SELECTORS}
    control, status, _ = cpu.fpu.control()
    values |= dict.fromkeys(_X87, 0) | {"fctrl": control, "fstat": status, "ftag": _tags(area)}
    values["mxcsr"] = int.from_bytes(area[MXCSR : MXCSR + 4], "little")
    values |= {f"st{n}": int.from_bytes(area[X87 + 16 * n : X87 + 16 * n + 10], "little") for n in range(8)}
    values |= {f"xmm{n}": int.from_bytes(area[XMM + 16 * n : XMM + 16 * n + 16], "little") for n in range(16)}
    return [_little(values[register.name], register.bits) for register in REGISTERS]


def _little(value: int, bits: int) -> bytes:
    return (value & (1 << bits) - 1).to_bytes(bits // 8, "little")


def _tags(area: bytes) -> int:
    """The tag word from the byte that FXSAVE keeps: 0 for a register that is in use, 3 for an empty one."""
    return sum(0 if area[4] >> n & 1 else 3 << 2 * n for n in range(8))


def _system(session: Session) -> dict[str, int]:
    machine = session.machine
    control, cpu = machine.control, machine.cpu
    return {
        **{"cr0": int(control.cr0), "cr2": control.cr2, "cr3": control.cr3, "cr4": int(control.cr4)},
        **{"cr8": control.cr8, "efer": int(control.efer), "k_gs_base": control.read_msr(Msr.KERNEL_GS_BASE)},
        **{"cpl": machine.cpl, "pcid": int(machine.state.pcid)},
        "fs_base": cpu.read_segment_base(x86.UC_X86_REG_FS_BASE),
        "gs_base": cpu.read_segment_base(x86.UC_X86_REG_GS_BASE),
    }


def write_register(session: Session, number: int, content: bytes) -> None:
    """Change a register. Raises InputError for one that does not exist or cannot be changed."""
    if number >= len(REGISTERS) or len(content) != REGISTERS[number].bits // 8:
        raise InputError(f"there is no register {number} of {len(content)} bytes")
    name, cpu, value = REGISTERS[number].name, session.machine.cpu, int.from_bytes(content, "little")
    if name in GPR_NAMES:
        cpu.gprs[GPR_NAMES.index(name)] = value
    elif name == "rip":
        cpu.rip = value
    elif name == "eflags":
        cpu.rflags = value
    elif name in ("fs_base", "gs_base"):
        cpu.write_segment_base(getattr(x86, f"UC_X86_REG_{name.upper()}"), value)
    elif name == "mxcsr":
        _change_area(session, MXCSR, content)
    elif name.startswith("st") or name.startswith("xmm"):
        _change_area(session, X87 + 16 * int(name[2:]) if name.startswith("st") else XMM + 16 * int(name[3:]), content)
    elif content != read_registers(session)[number]:
        raise InputError(f"{name} is changed by instructions only")


def _change_area(session: Session, at: int, content: bytes) -> None:
    """Change a floating-point register where FXSAVE has it. Raises InputError for bits that do not exist."""
    area = bytearray(session.machine.cpu.fpu.fxsave())
    area[at : at + len(content)] = content
    if not session.machine.cpu.fpu.fxrstor(bytes(area)):
        raise InputError("MXCSR has no such bits")
